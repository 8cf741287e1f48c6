package sqlgen

import "fmt"

func selectRows(g *Generator) string {
	t := g.table(ordinary)
	order := ""
	if g.chance(60) {
		order = " ORDER BY " + g.pick("1", "1 DESC", "random()", g.column(t), g.column(t)+" COLLATE NOCASE", "2, 1")
	}
	return fmt.Sprintf("SELECT %s%s, %s FROM %s WHERE %s%s LIMIT %d", g.pick("", "", "DISTINCT "), g.column(t), g.expr(t), ident(t.name), g.where(t), order, 1+g.n(15))
}

func aggregate(g *Generator) string {
	t := g.table(ordinary)
	c := g.column(t)
	return fmt.Sprintf("SELECT %s, count(*), %s FROM %s GROUP BY 1 %s LIMIT 20", c, g.pick("min("+c+")", "max(length("+c+"))", "total("+g.column(t)+")", "group_concat("+g.column(t)+", '|')", "count(DISTINCT "+g.column(t)+")",
		"avg("+g.column(t)+")", "json_group_array("+g.column(t)+")", "sum("+g.column(t)+")"), ident(t.name), g.pick("", "HAVING count(*)>1", "ORDER BY 2 DESC", "ORDER BY random()"))
}

func join(g *Generator) string {
	a, b := g.table(ordinary), g.table(ordinary)
	return fmt.Sprintf("SELECT x.%s, y.%s FROM %s x %s JOIN %s y ON x.%s=y.%s LIMIT %d", g.column(a), g.column(b), ident(a.name), g.pick("", "LEFT", "RIGHT", "FULL"), ident(b.name), g.column(a), g.column(b), 1+g.n(20))
}

func compound(g *Generator) string {
	a, b := g.table(ordinary), g.table(ordinary)
	return fmt.Sprintf("SELECT %s FROM %s %s SELECT %s FROM %s %s LIMIT 12", g.column(a), ident(a.name), g.pick("UNION", "UNION ALL", "EXCEPT", "INTERSECT"), g.column(b), ident(b.name), g.pick("", "ORDER BY 1"))
}

func commonTable(g *Generator) string {
	t := g.table(ordinary)
	return g.pick(
		fmt.Sprintf("WITH RECURSIVE s(n) AS (VALUES(1) UNION ALL SELECT n+1 FROM s LIMIT %d) SELECT n, n*n FROM s WHERE n%%7=0", 50+g.n(400)),
		fmt.Sprintf("WITH s AS MATERIALIZED (SELECT %s AS v, random() AS r FROM %s LIMIT 9) SELECT v, r, (SELECT count(*) FROM s AS o WHERE o.r<s.r) FROM s", g.column(t), ident(t.name)),
		fmt.Sprintf("WITH RECURSIVE s(n, r) AS (SELECT 0, random() UNION SELECT n+1, random() FROM s WHERE n<%d) SELECT count(*), min(r) FROM s", 5+g.n(50)))
}

func window(g *Generator) string {
	t := g.table(ordinary)
	f := g.pick("row_number()", "rank()", "dense_rank()", "ntile(3)", "lag("+g.column(t)+", 1, 'none')", "first_value("+g.column(t)+")", "sum(length("+g.column(t)+"))", "count(*)", "group_concat("+g.column(t)+", ',')", "percent_rank()", "nth_value("+g.column(t)+", 2)")
	over := fmt.Sprintf("PARTITION BY typeof(%s) ORDER BY %s %s", g.column(t), g.column(t), g.pick("", "DESC NULLS LAST", "ROWS BETWEEN 2 PRECEDING AND CURRENT ROW", "GROUPS BETWEEN UNBOUNDED PRECEDING AND 1 FOLLOWING EXCLUDE TIES"))
	return fmt.Sprintf("SELECT %s, %s OVER (%s) FROM %s LIMIT 25", g.column(t), f, over, ident(t.name))
}

func jsonRead(g *Generator) string {
	t := g.table(ordinary)
	c := g.column(t)
	for _, o := range t.columns {
		if o.kind == documents {
			c = ident(o.name)
		}
	}
	return g.pick(
		fmt.Sprintf("SELECT e.key, e.type, e.atom FROM %s, json_each(%s) AS e WHERE json_valid(%[2]s) LIMIT 20", ident(t.name), c),
		fmt.Sprintf("SELECT fullkey, value FROM json_tree(%s) LIMIT 30", g.value(g.json())),
		fmt.Sprintf("SELECT json_group_object(quote(%s), 1) FROM (SELECT %[1]s FROM %s LIMIT 5)", c, ident(t.name)),
		fmt.Sprintf("SELECT hex(jsonb(%s)), %s", g.value(g.json()), g.jsonExpr(t)),
		fmt.Sprintf("SELECT json(%s), json_pretty(%[1]s) FROM %s LIMIT 5", c, ident(t.name)))
}

func viewRead(g *Generator) string {
	if len(g.world.views) == 0 {
		return ""
	}
	return fmt.Sprintf("SELECT * FROM %s %s LIMIT 9", g.world.views[g.n(len(g.world.views))], g.pick("", "ORDER BY 1", "WHERE a>5"))
}

// changingRead reads what an entry decides.
func changingRead(g *Generator) string {
	return "SELECT " + g.changing() + ", " + g.changing() + ", " + g.changing()
}

func pragmaRead(g *Generator) string {
	t := ident(g.table(ordinary).name)
	return "PRAGMA " + g.pick("table_info("+t+")", "table_xinfo("+t+")", "index_list("+t+")", "foreign_key_list("+t+")", "foreign_keys", "user_version", "integrity_check("+t+")", "foreign_key_check("+t+")", "recursive_triggers",
		"encoding", "page_size", "table_list("+t+")", "defer_foreign_keys", "auto_vacuum", "application_id")
}

func explain(g *Generator) string { return "EXPLAIN QUERY PLAN " + selectRows(g) }
