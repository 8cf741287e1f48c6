package sqlgen

import "fmt"

// Expressions nest no deeper than this.
const maxDepth = 3

// expr returns an expression over the columns of t, which may be a table without any. Where only
// deterministic expressions are allowed, g.fixed is set.
func (g *Generator) expr(t table) string {
	g.depth++
	defer func() { g.depth-- }()
	if g.depth > maxDepth {
		return g.leaf(t)
	}
	e := func() string { return g.expr(t) }
	switch g.n(26) {
	case 0, 1:
		return fmt.Sprintf("(%s %s %s)", e(), g.pick("+", "-", "*", "/", "%", "||", "&", "|", "<<", ">>"), e())
	case 2:
		return fmt.Sprintf("(%s %s %s)", e(), g.pick("=", "<", ">", "<=", "<>", "IS", "IS NOT", "AND", "OR", "IS DISTINCT FROM"), e())
	case 3:
		return fmt.Sprintf("%s(%s)", g.pick("length", "upper", "lower", "hex", "typeof", "quote", "trim", "unicode", "octet_length"), e())
	case 4:
		return fmt.Sprintf("abs(%s)", e()) // of the smallest integer an overflow
	case 5:
		return fmt.Sprintf("substr(%s, %d, %d)", e(), g.n(7)-3, g.n(7)-2)
	case 6:
		return fmt.Sprintf("CASE WHEN %s THEN %s ELSE %s END", e(), e(), e())
	case 7:
		return fmt.Sprintf("CAST(%s AS %s)", e(), g.pick("INTEGER", "REAL", "TEXT", "BLOB", "NUMERIC"))
	case 8:
		return fmt.Sprintf("coalesce(%s, %s)", e(), e())
	case 9:
		return fmt.Sprintf("iif(%s, %s, %s)", e(), e(), e())
	case 10:
		return fmt.Sprintf("%s(%s, %s)", g.pick("min", "max", "nullif", "instr"), e(), e())
	case 11:
		return fmt.Sprintf("printf('%%d %%s %%.3f %%q', %s, %s, %s, %s)", e(), e(), e(), e())
	case 12:
		return fmt.Sprintf("(%s %sBETWEEN %s AND %s)", e(), g.pick("", "NOT "), e(), e())
	case 13:
		return fmt.Sprintf("(%s %sIN (%s, %s, %s))", e(), g.pick("", "NOT "), e(), e(), e())
	case 14:
		return fmt.Sprintf("(%s %s %s)", e(), g.pick("LIKE", "NOT LIKE", "GLOB"), g.pick("'a%'", "'%b%'", "'A*'", "'_'", "'%é%'"))
	case 15:
		return fmt.Sprintf("round(%s, %d)", e(), g.n(5))
	case 16:
		return fmt.Sprintf("replace(%s, %s, %s)", e(), g.pick("'a'", "'1'", "' '"), g.pick("''", "'xy'", "'é'"))
	case 17:
		return fmt.Sprintf("(%s COLLATE %s = %s)", e(), g.pick("NOCASE", "RTRIM", "BINARY"), e())
	case 18:
		return g.jsonExpr(t)
	case 19, 20:
		if !g.fixed {
			return g.changing()
		}
	case 21:
		if !g.fixed {
			o := g.table(ordinary)
			return fmt.Sprintf("(SELECT %s(%s) FROM %s)", g.pick("count", "max", "min", "total", "group_concat", "avg"), g.column(o), ident(o.name))
		}
	case 22:
		if !g.fixed {
			o := g.table(ordinary)
			return fmt.Sprintf("%sEXISTS (SELECT 1 FROM %s WHERE %s IS %s LIMIT 1)", g.pick("", "NOT "), ident(o.name), g.column(o), g.leaf(t))
		}
	case 23:
		return fmt.Sprintf("(%s%s)", g.pick("-", "~", "NOT ", "+"), e())
	}
	return g.leaf(t)
}

// leaf returns a column or a value.
func (g *Generator) leaf(t table) string {
	if len(t.columns) > 0 && g.chance(65) {
		return g.column(t)
	}
	switch g.n(5) {
	case 0:
		return g.value(g.text())
	case 1:
		return g.value(realBorders[g.n(len(realBorders))])
	case 2:
		if g.chance(30) {
			return g.value(g.bytes())
		}
	}
	return g.value(g.integer())
}

// changing returns what is another value each time, or at each place.
func (g *Generator) changing() string {
	return g.pick("random()", "hex(randomblob(4))", "last_insert_rowid()", "changes()", "total_changes()", "CURRENT_TIMESTAMP", "CURRENT_TIME",
		"strftime('%f', 'now')", "unixepoch('subsec')", "julianday('now')", "datetime('now', 'start of month')", "time('now', 'subsec')", "datetime('now', 'localtime')", "strftime('%H:%M', 'now', 'localtime')",
		"abs(random())%10", "datetime(random()/1000000000, 'unixepoch')", "timediff('now', '2000-01-01')", "strftime('%J %s', 'now', 'utc')")
}

func (g *Generator) jsonExpr(t table) string {
	doc := g.value(g.json())
	if g.chance(30) {
		for _, c := range t.columns {
			if c.kind == documents {
				doc = ident(c.name)
			}
		}
	}
	path := g.pick("'$.a'", "'$.b[0]'", "'$[1]'", "'$.b[#-1]'", "'$.c.d'", "'$'", "'$.x'")
	switch g.n(12) {
	case 0:
		return fmt.Sprintf("json_extract(%s, %s)", doc, path)
	case 1:
		return fmt.Sprintf("(%s ->> %s)", doc, path)
	case 2:
		return fmt.Sprintf("json_set(%s, %s, %s)", doc, path, g.leaf(t))
	case 3:
		return fmt.Sprintf("json_array(%s, %s)", g.leaf(t), g.leaf(t))
	case 4:
		return fmt.Sprintf("json_object('k', %s, %s, 1)", g.leaf(t), g.pick("'l'", "'m'", "'größe'"))
	case 5:
		return fmt.Sprintf("json_patch(%s, '{\"a\":null,\"z\":1}')", doc)
	case 6:
		return fmt.Sprintf("json_type(%s, %s)", doc, path)
	case 7:
		return fmt.Sprintf("json_valid(%s, %d)", doc, 1+g.n(15))
	case 8:
		return fmt.Sprintf("json_remove(%s, %s)", doc, path)
	case 9:
		return fmt.Sprintf("jsonb_set(%s, %s, %s)", doc, path, g.leaf(t))
	case 10:
		return fmt.Sprintf("json_array_length(%s)", doc)
	}
	return fmt.Sprintf("(%s -> %s)", doc, path)
}

// where returns a condition that holds for some rows, rather few.
func (g *Generator) where(t table) string {
	switch g.n(9) {
	case 0:
		return g.expr(t)
	case 1, 2:
		if t.idKey {
			return "id=" + g.value(int64(g.n(60)))
		}
	case 3:
		if !t.withoutRowid {
			return fmt.Sprintf("rowid%%%d=%d", 2+g.n(9), g.n(3))
		}
	case 4:
		return fmt.Sprintf("%s IN (SELECT %[1]s FROM %s ORDER BY %s LIMIT %d)", g.column(t), ident(t.name), g.pick("random()", "1", "1 DESC"), 1+g.n(8))
	case 5:
		return fmt.Sprintf("%s IS NULL", g.column(t))
	case 6:
		return fmt.Sprintf("%s LIKE %s", g.column(t), g.value(g.pick("a%", "A%", "%1%", "é%")))
	case 7:
		return fmt.Sprintf("%s>%s AND %s", g.column(t), g.value(g.integer()), g.expr(t))
	}
	return fmt.Sprintf("%s%s%s", g.column(t), g.pick("=", "<", ">", ">=", " IS "), g.value(int64(g.n(90))))
}
