package sqlgen

import (
	"fmt"
	"slices"
	"strings"
)

// columnsAndValues returns some columns of t and rows for them.
func (g *Generator) columnsAndValues(t table, rows int) (string, string) {
	cols := slices.DeleteFunc(t.stored(), func(c column) bool { return c.name == "id" && g.chance(55) || !c.key && g.chance(15) })
	if len(cols) == 0 {
		cols = t.stored()
	}
	var names, lines []string
	for _, c := range cols {
		names = append(names, ident(c.name))
	}
	for range rows {
		var values []string
		for _, c := range cols {
			values = append(values, g.valueOf(c.kind))
		}
		lines = append(lines, "("+strings.Join(values, ", ")+")")
	}
	return "(" + strings.Join(names, ", ") + ")", "VALUES" + strings.Join(lines, ", ")
}

func (g *Generator) insert(verb string) string {
	t := g.table(ordinary)
	rows := 1
	if g.chance(25) {
		rows += g.n(6)
	}
	cols, values := g.columnsAndValues(t, rows)
	return fmt.Sprintf("%s INTO %s%s %s", verb, ident(t.name), cols, values)
}

func insertValues(g *Generator) string { return g.insert("INSERT") }

func insertOr(g *Generator) string {
	return g.insert(g.pick("INSERT OR REPLACE", "INSERT OR REPLACE", "INSERT OR IGNORE", "INSERT OR IGNORE", "INSERT OR ABORT", "INSERT OR FAIL", "INSERT OR ROLLBACK", "REPLACE"))
}

func insertSelect(g *Generator) string {
	from, to := g.table(ordinary), g.table(ordinary)
	var names, exprs []string
	for _, c := range to.stored() {
		if c.name == "id" && g.chance(80) {
			continue
		}
		names = append(names, ident(c.name))
		switch {
		case g.chance(30):
			exprs = append(exprs, g.valueOf(c.kind))
		case c.kind == integers:
			exprs = append(exprs, fmt.Sprintf("CAST(%s AS INTEGER)", g.column(from)))
		case g.chance(30):
			exprs = append(exprs, g.expr(from))
		default:
			exprs = append(exprs, g.column(from))
		}
	}
	if len(names) == 0 {
		return ""
	}
	return fmt.Sprintf("INSERT %sINTO %s(%s) SELECT %s FROM %s WHERE %s ORDER BY %s LIMIT %d", g.pick("", "", "OR IGNORE ", "OR REPLACE "), ident(to.name),
		strings.Join(names, ", "), strings.Join(exprs, ", "), ident(from.name), g.where(from), g.pick("random()", "1", "1 DESC", g.column(from)), 1+g.n(12))
}

func insertRecursive(g *Generator) string {
	t := g.plain()
	c := g.target(t)
	e := g.pick("n", "n*n", "random()", "'row ' || n", "randomblob(n%50)", "datetime('now', n || ' seconds')", "zeroblob(n*3)", "n/7.0")
	cols, exprs := ident(c.name), e
	for _, other := range t.stored() {
		if other.name != c.name && (other.key && other.name != "id" || g.chance(40)) {
			cols, exprs = cols+", "+ident(other.name), exprs+", "+g.pick("n", "n+random()%5", "'k' || n")
		}
	}
	return fmt.Sprintf("WITH RECURSIVE s(n) AS (SELECT %d UNION ALL SELECT n+1 FROM s WHERE n<%d) INSERT OR %s INTO %s(%s) SELECT %s FROM s", g.n(5), 5+g.n(40),
		g.pick("IGNORE", "IGNORE", "REPLACE", "FAIL"), ident(t.name), cols, exprs)
}

func insertDefault(g *Generator) string {
	return fmt.Sprintf("INSERT INTO %s DEFAULT VALUES", ident(g.plain().name))
}

func upsert(g *Generator) string {
	t := g.table(ordinary)
	cols, values := g.columnsAndValues(t, 1+g.n(3))
	target := ""
	for _, c := range t.columns {
		if c.key && g.chance(80) {
			target = "(" + ident(c.name) + ")"
		}
	}
	c := g.settable(t)
	action := fmt.Sprintf("DO UPDATE SET %s=%s", c, g.pick("excluded."+c, "random()", "coalesce("+c+", 0)+1", "CURRENT_TIMESTAMP", "excluded."+c+" || "+c))
	if g.chance(20) {
		action += " WHERE " + g.where(t)
	}
	if g.chance(25) {
		action = "DO NOTHING"
	}
	return fmt.Sprintf("INSERT INTO %s%s %s ON CONFLICT%s %s", ident(t.name), cols, values, target, action)
}

func (g *Generator) assignments(t table) string {
	var set []string
	for range 1 + g.n(2) {
		c := g.target(t)
		v := g.valueOf(c.kind)
		switch {
		case g.chance(25):
			v = g.expr(t)
		case c.kind == integers && g.chance(40):
			v = ident(c.name) + "+1"
		}
		set = append(set, ident(c.name)+"="+v)
	}
	return strings.Join(set, ", ")
}

func update(g *Generator) string {
	t := g.table(ordinary)
	return fmt.Sprintf("UPDATE %s SET %s WHERE %s", ident(t.name), g.assignments(t), g.where(t))
}

func updateFrom(g *Generator) string {
	t, o := g.table(ordinary), g.table(ordinary)
	oc := g.column(o)
	return fmt.Sprintf("UPDATE %s AS x SET %s=%s FROM (SELECT %s AS k, %s AS v FROM %s ORDER BY %s LIMIT %d) AS y WHERE x.%s=y.k", ident(t.name), g.settable(t),
		g.pick("y.v", "y.k || y.v", "random()", "y.v+1"), oc, g.column(o), ident(o.name), oc, 1+g.n(20), g.column(t))
}

func updateOr(g *Generator) string {
	t := g.table(ordinary)
	return fmt.Sprintf("UPDATE OR %s %s SET %s WHERE %s", g.pick("REPLACE", "IGNORE", "IGNORE", "FAIL", "ROLLBACK", "ABORT"), ident(t.name), g.assignments(t), g.where(t))
}

func updateKey(g *Generator) string {
	t := g.table(ordinary)
	for _, c := range t.columns {
		if c.key {
			return fmt.Sprintf("UPDATE %s%s SET %s=%s WHERE %s", g.pick("", "OR IGNORE ", "OR REPLACE "), ident(t.name), ident(c.name),
				g.pick(ident(c.name)+"+1", "-"+ident(c.name), ident(c.name)+"*2", "abs(random())%1000", ident(c.name)+" || 'x'"), g.where(t))
		}
	}
	return ""
}

func remove(g *Generator) string {
	t := g.table(ordinary)
	if g.chance(3) {
		return "DELETE FROM " + ident(t.name)
	}
	if !t.withoutRowid && g.chance(60) {
		return fmt.Sprintf("DELETE FROM %s WHERE rowid IN (SELECT rowid FROM %[1]s WHERE %s ORDER BY %s LIMIT %d)", ident(t.name), g.where(t), g.pick("random()", g.column(t), "1"), 1+g.n(4))
	}
	return fmt.Sprintf("DELETE FROM %s WHERE %s", ident(t.name), g.where(t))
}

func returning(g *Generator) string {
	var sql string
	switch g.n(4) {
	case 0:
		sql = update(g)
	case 1:
		sql = upsert(g)
	case 2:
		sql = insertSelect(g)
	default:
		sql = insertValues(g)
	}
	if sql == "" {
		return ""
	}
	return sql + " RETURNING " + g.pick("*", "rowid", "*, random()", "last_insert_rowid(), changes()", "1 AS x, strftime('%f', 'now')")
}

func viewWrite(g *Generator) string {
	if len(g.world.views) == 0 {
		return ""
	}
	v := g.world.views[g.n(len(g.world.views))]
	return g.pick(fmt.Sprintf("INSERT INTO %s(a) VALUES(%s)", v, g.value(g.integer())), fmt.Sprintf("UPDATE %s SET a=random() WHERE a IS NOT NULL", v), fmt.Sprintf("DELETE FROM %s WHERE a=%s", v, g.value(g.integer())))
}

// blob makes a value grow over many pages, and shrink.
func blob(g *Generator) string {
	t := g.plain()
	c := ident(g.target(t).name)
	for _, other := range t.stored() {
		if other.kind == blobs {
			c = ident(other.name)
		}
	}
	size := g.n(9000)
	if g.chance(15) {
		size = g.n(300000)
	}
	one := "ROWID"
	if t.withoutRowid {
		one = ident(t.columns[0].name)
	}
	one = fmt.Sprintf("%s=(SELECT %[1]s FROM %s ORDER BY %s LIMIT 1)", one, ident(t.name), g.pick("random()", "1", "1 DESC"))
	switch g.n(5) {
	case 0:
		return fmt.Sprintf("UPDATE %s SET %s=zeroblob(%d) WHERE %s", ident(t.name), c, size, one)
	case 1:
		return fmt.Sprintf("UPDATE %s SET %s=substr(%[2]s, 1, length(%[2]s)/2) WHERE length(%[2]s)>1000", ident(t.name), c)
	case 2:
		return fmt.Sprintf("UPDATE %s SET %s=CAST(substr(%[2]s, 1, 500) || randomblob(40) || substr(%[2]s, 541) AS BLOB) WHERE length(%[2]s)>600", ident(t.name), c)
	case 3:
		return fmt.Sprintf("INSERT INTO %s(%s) VALUES(randomblob(%d))", ident(t.name), c, size)
	}
	return fmt.Sprintf("UPDATE %s SET %s=randomblob(%d) WHERE %s", ident(t.name), c, size, one)
}

func jsonWrite(g *Generator) string {
	t := g.table(ordinary)
	for _, c := range t.stored() {
		if c.kind != documents && g.chance(60) {
			continue
		}
		name := ident(c.name)
		return fmt.Sprintf("UPDATE %s SET %s=%s WHERE json_valid(%[2]s, 6) AND %[4]s", ident(t.name), name, g.pick(
			fmt.Sprintf("json_set(%s, '$.a', random())", name), fmt.Sprintf("jsonb_insert(%s, '$.z', datetime('now'))", name), fmt.Sprintf("json_patch(%s, '{\"a\":1}')", name),
			fmt.Sprintf("jsonb(%s)", name), fmt.Sprintf("json_remove(%s, '$.b')", name), "(SELECT json_group_array("+name+") FROM (SELECT "+name+" FROM "+ident(t.name)+" LIMIT 3))",
			"(SELECT jsonb_group_object(key, value) FROM json_each("+name+") WHERE key IS NOT NULL)"), g.where(t))
	}
	return ""
}

// sequence disturbs AUTOINCREMENT.
func sequence(g *Generator) string {
	if g.chance(15) {
		return "UPDATE sqlite_sequence SET seq=9223372036854775806 WHERE abs(random())%3=0"
	}
	return g.pick(fmt.Sprintf("UPDATE sqlite_sequence SET seq=seq+%d", g.n(50)), "DELETE FROM sqlite_sequence WHERE seq>1000",
		"INSERT INTO sqlite_sequence SELECT name, 7 FROM sqlite_schema WHERE sql LIKE '%AUTOINCREMENT%' AND name NOT IN (SELECT name FROM sqlite_sequence)")
}

// counters stores what SQL sees of the statements before.
func counters(g *Generator) string {
	t := g.plain()
	c := g.settable(t)
	return fmt.Sprintf(g.pick("INSERT INTO %s(%s) VALUES(changes() * 1000 + total_changes())", "INSERT INTO %s(%s) VALUES(last_insert_rowid())", "UPDATE %s SET %s=total_changes() WHERE rowid%%5=changes()",
		"INSERT INTO %s(%s) SELECT random() WHERE changes()<>1", "INSERT INTO %s(%s) SELECT printf('%%d %%d %%s', changes(), last_insert_rowid(), strftime('%%Y %%f', 'now'))"), ident(t.name), c)
}
