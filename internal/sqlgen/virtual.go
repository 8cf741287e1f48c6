package sqlgen

import (
	"fmt"
	"strings"
)

// createFTS makes a full-text index of one of several kinds.
func createFTS(g *Generator) string {
	name := ftsNames[g.n(len(ftsNames))]
	t := table{name: name, kind: fullText, columns: []column{{name: "x", kind: texts}, {name: "y", kind: texts}}}
	switch g.n(9) {
	case 0:
		t.option = ", tokenize='trigram'"
	case 1:
		t.option = ", tokenize='porter unicode61', prefix='2 3'"
	case 2:
		t.option = ", content=''"
	case 3:
		t.option = ", content='', contentless_delete=1"
	case 4, 5:
		from := g.table(ordinary)
		if !from.idKey {
			break
		}
		t.columns = []column{{name: g.target(from).name, kind: texts}}
		t.option = fmt.Sprintf(", content=%s, content_rowid='id'", quote(from.name))
	case 6:
		t.option = ", detail=" + g.pick("none", "column")
	case 7:
		t.option = ", columnsize=0"
	}
	var cols []string
	for _, c := range t.columns {
		cols = append(cols, ident(c.name))
	}
	drop := fmt.Sprintf("DROP TABLE IF EXISTS %s;", name)
	if g.chance(20) {
		drop = ""
	}
	g.world.put(t)
	return fmt.Sprintf("%sCREATE VIRTUAL TABLE %s USING fts5(%s%s)", drop, name, strings.Join(cols, ", "), t.option)
}

func ftsWrite(g *Generator) string {
	t := g.table(fullText)
	if t.name == "" {
		return ""
	}
	c := ident(t.columns[g.n(len(t.columns))].name)
	switch g.n(9) {
	case 0:
		return fmt.Sprintf("DELETE FROM %s WHERE rowid=%s", t.name, g.value(int64(g.n(30))))
	case 1:
		return fmt.Sprintf("UPDATE %s SET %s=%s WHERE rowid%%4=%d", t.name, c, g.value(g.text()), g.n(4))
	case 2:
		o := g.table(ordinary)
		return fmt.Sprintf("INSERT INTO %s(%s) SELECT %s FROM %s LIMIT 10", t.name, c, g.column(o), ident(o.name))
	case 3:
		return fmt.Sprintf("INSERT INTO %s(rowid, %s) VALUES(%s, %s)", t.name, c, g.value(int64(g.n(40))), g.value(g.text()))
	case 4:
		return fmt.Sprintf("INSERT INTO %s(%[1]s, rowid, %s) VALUES('delete', %s, %s)", t.name, c, g.value(int64(g.n(30))), g.value(g.text()))
	case 5:
		return fmt.Sprintf("INSERT OR REPLACE INTO %s(rowid, %s) VALUES(%s, hex(randomblob(20)) || ' ' || datetime('now'))", t.name, c, g.value(int64(g.n(20))))
	}
	var words []string
	for range 2 + g.n(20) {
		words = append(words, g.word())
	}
	return fmt.Sprintf("INSERT INTO %s(%s) VALUES(%s)", t.name, c, g.value(strings.Join(words, " ")))
}

func ftsCommand(g *Generator) string {
	t := g.table(fullText)
	if t.name == "" {
		return ""
	}
	switch g.n(4) {
	case 0:
		return fmt.Sprintf("INSERT INTO %s(%[1]s, rank) VALUES(%s)", t.name, g.pick("'merge', 4", "'merge', -8", "'automerge', 2", "'crisismerge', 3", "'pgsz', 64", "'usermerge', 2", "'secure-delete', 1", "'hashsize', 200", "'rank', 'bm25(10.0, 1.0)'", "'integrity-check', 1", "'deletemerge', 5"))
	case 1:
		if strings.Contains(t.option, "content") {
			return fmt.Sprintf("INSERT INTO %s(%[1]s) VALUES('delete-all')", t.name)
		}
	}
	if g.chance(40) {
		return fmt.Sprintf("INSERT INTO %s(%[1]s) VALUES('rebuild')", t.name) // writes a number that the connection knows or not
	}
	return fmt.Sprintf("INSERT INTO %s(%[1]s) VALUES(%s)", t.name, g.pick("'optimize'", "'optimize'", "'integrity-check'", "'flush'", "'nonsense'"))
}

func ftsMatch(g *Generator) string {
	t := g.table(fullText)
	if t.name == "" {
		return ""
	}
	q := g.pick(g.word(), g.word()+"*", g.word()+" "+g.word(), g.word()+" OR "+g.word(), g.word()+" NOT "+g.word(), "\""+g.word()+" "+g.word()+"\"", "NEAR("+g.word()+" "+g.word()+", 3)", "x : "+g.word(), "^"+g.word(), "alp*", "(", "\"", "")
	what := g.pick("rowid", "rowid, rank", "rowid, bm25("+t.name+")", "highlight("+t.name+", 0, '[', ']')", "snippet("+t.name+", -1, '<', '>', '…', 4)", "count(*)")
	return fmt.Sprintf("SELECT %s FROM %s WHERE %[2]s MATCH %s %s LIMIT 10", what, t.name, g.value(q), g.pick("", "ORDER BY rank", "ORDER BY rowid DESC"))
}

func createRtree(g *Generator) string {
	name := rtreeNames[g.n(len(rtreeNames))]
	t := table{name: name, kind: boxes, columns: []column{{name: "id", kind: integers}, {name: "x0"}, {name: "x1"}, {name: "y0"}, {name: "y1"}}}
	module, aux := "rtree", ""
	if g.chance(30) {
		module = "rtree_i32"
	}
	if g.chance(40) {
		aux = ", +note TEXT"
	}
	g.world.put(t)
	return fmt.Sprintf("DROP TABLE IF EXISTS %s; CREATE VIRTUAL TABLE %[1]s USING %s(id, x0, x1, y0, y1%s)", name, module, aux)
}

func rtreeWrite(g *Generator) string {
	t := g.table(boxes)
	if t.name == "" {
		return ""
	}
	x, y := g.n(1000), g.n(1000)
	switch g.n(7) {
	case 0:
		return fmt.Sprintf("DELETE FROM %s WHERE id%%5=%d", t.name, g.n(5))
	case 1:
		return fmt.Sprintf("UPDATE %s SET x0=x0-1, y1=y1+1.5 WHERE id%%3=%d", t.name, g.n(3))
	case 2:
		return fmt.Sprintf("INSERT INTO %s(id, x0, x1, y0, y1) VALUES(%s, 5, 1, 2, 3)", t.name, g.value(int64(g.n(60)))) // x0 > x1
	case 3:
		return fmt.Sprintf("WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM s WHERE n<%d) INSERT INTO %s(x0, x1, y0, y1) SELECT n, n+abs(random()%%20), n*3, n*3+7 FROM s", 5+g.n(60), t.name)
	}
	return fmt.Sprintf("INSERT %sINTO %s(id, x0, x1, y0, y1) VALUES(%s, %d, %d, %d, %d)", g.pick("", "OR REPLACE ", "OR REPLACE "), t.name, g.value(int64(g.n(200))), x, x+g.n(50), y, y+g.n(50))
}

func rtreeRead(g *Generator) string {
	t := g.table(boxes)
	if t.name == "" {
		return ""
	}
	return g.pick(
		fmt.Sprintf("SELECT id, x0 FROM %s WHERE x0>=%s AND y1<=%s LIMIT 20", t.name, g.value(int64(g.n(500))), g.value(int64(g.n(3000)))),
		fmt.Sprintf("SELECT count(*), min(x0), max(y1) FROM %s", t.name),
		fmt.Sprintf("SELECT rtreecheck(%s)", quote(t.name)))
}
