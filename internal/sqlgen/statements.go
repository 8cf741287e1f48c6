package sqlgen

import (
	"fmt"
	"strings"
)

// maker makes statements of one class; an empty text means that it can't now.
type maker struct {
	class  string
	weight int
	make   func(g *Generator) string
}

// The statements that batches are made of. They are filled in by init, since some makers use
// the lists themselves.
var writes, reads, structural, upkeep, wrong, unwanted []maker

func init() {
	writes = []maker{
		{"insert", 26, insertValues},
		{"insert select", 8, insertSelect},
		{"insert recursive", 4, insertRecursive},
		{"insert default", 4, insertDefault},
		{"insert or", 8, insertOr},
		{"upsert", 9, upsert},
		{"update", 16, update},
		{"update from", 4, updateFrom},
		{"update or", 5, updateOr},
		{"update key", 4, updateKey},
		{"delete", 7, remove},
		{"returning", 8, returning},
		{"view write", 3, viewWrite},
		{"blob", 5, blob},
		{"json write", 5, jsonWrite},
		{"fts write", 9, ftsWrite},
		{"fts command", 4, ftsCommand},
		{"rtree write", 5, rtreeWrite},
		{"sequence", 2, sequence},
		{"counters", 6, counters},
		{"planned", 9, planned},
		{"order", 2, order},
		{"largest rowid", 3, largestRowid},
		{"excess", 1, excess},
	}
	reads = []maker{
		{"select", 12, selectRows},
		{"aggregate", 6, aggregate},
		{"join", 5, join},
		{"compound", 3, compound},
		{"cte", 4, commonTable},
		{"window", 6, window},
		{"json read", 5, jsonRead},
		{"fts match", 5, ftsMatch},
		{"rtree read", 3, rtreeRead},
		{"view read", 3, viewRead},
		{"changing", 4, changingRead},
		{"pragma read", 4, pragmaRead},
		{"explain", 1, explain},
		{"order read", 2, orderRead},
	}
	structural = []maker{
		{"create table", 22, createTable},
		{"create table as", 2, createTableAs},
		{"create index", 12, createIndex},
		{"create view", 6, createView},
		{"create trigger", 14, createTrigger},
		{"create fts", 7, createFTS},
		{"create rtree", 3, createRtree},
		{"drop", 5, drop},
		{"rename table", 2, renameTable},
		{"rename column", 3, renameColumn},
		{"add column", 5, addColumn},
		{"choice", 14, choice},
		{"drop column", 4, dropColumn},
	}
	upkeep = []maker{
		{"vacuum", 2, func(*Generator) string { return "VACUUM" }},
		{"analyze", 4, analyze},
		{"reindex", 2, reindex},
		{"statistics", 2, statistics},
		{"pragma", 4, lastingPragma},
	}
	wrong = []maker{
		{"wrong", 1, wrongStatement},
	}
	unwanted = []maker{
		{"of the node", 1, ofTheNode},
	}
}

// statement makes a statement of one of the classes.
func (g *Generator) statement(list []maker) Statement {
	total := 0
	for _, m := range list {
		total += m.weight
	}
	for {
		m := list[0]
		n := g.n(total)
		for _, m = range list {
			if n -= m.weight; n < 0 {
				break
			}
		}
		g.params = params{mode: paramMode(g.n(4))}
		sql := m.make(g)
		if sql == "" {
			continue
		}
		st := Statement{SQL: sql, Args: g.params.args, Named: g.params.named, class: m.class}
		if g.chance(2) {
			g.spoil(&st)
		}
		return st
	}
}

// spoil makes a statement wrong, or nearly so.
func (g *Generator) spoil(st *Statement) {
	st.class = "spoilt"
	switch g.n(6) {
	case 0:
		n := g.n(len(st.SQL))
		for n > 0 && st.SQL[n]&0xc0 == 0x80 { // not within a rune
			n--
		}
		st.SQL = st.SQL[:n] + g.pick("", " ", ";", "(", "'", " ORDER BY")
	case 1:
		if len(st.Args) > 0 && g.chance(60) {
			st.Args = st.Args[:len(st.Args)-1]
		} else {
			st.SQL = "INSERT INTO t0 VALUES(?, ?)"
			st.Args, st.Named = []any{int64(1)}, nil
		}
	case 2:
		st.SQL = strings.Replace(st.SQL, "SELECT", "SELEC", 1) + " x y"
	case 3:
		st.SQL = "/* comment */ " + st.SQL + " ; -- the end"
	case 4:
		st.SQL = "\n\t" + st.SQL + ";;"
	case 5:
		if st.Named == nil {
			st.Args = append(st.Args, "one too many")
		}
	}
}

// script makes a text of several statements.
func (g *Generator) script() Statement {
	var parts []string
	for range 2 + g.n(3) {
		g.params = params{}
		if g.chance(10) {
			parts = append(parts, g.make(reads))
		} else {
			parts = append(parts, g.make(writes))
		}
	}
	if g.chance(30) {
		parts = append([]string{"SAVEPOINT s"}, parts...)
		parts = append(parts, g.pick("RELEASE s", "ROLLBACK TO s; RELEASE s"))
	}
	if t := g.plain(); g.chance(40) {
		sql := fmt.Sprintf("INSERT INTO %s(%s) VALUES(?); UPDATE %[1]s SET %[2]s=? WHERE rowid=last_insert_rowid()", ident(t.name), g.settable(t))
		return Statement{SQL: sql, Args: []any{g.integer(), g.text()}, class: "script"}
	}
	return Statement{SQL: strings.Join(parts, ";\n"), class: "script"}
}

// make returns the text of a statement without values.
func (g *Generator) make(list []maker) string {
	for {
		if sql := list[g.n(len(list))].make(g); sql != "" {
			return sql
		}
	}
}

func analyze(g *Generator) string {
	if g.chance(50) {
		return "ANALYZE" // goes through the tables in the order in which the connection has met them
	}
	return "ANALYZE " + ident(g.table(ordinary).name)
}

func reindex(g *Generator) string {
	return g.pick("REINDEX", "REINDEX NOCASE", "REINDEX "+ident(g.table(ordinary).name))
}

// statistics writes what the planner goes by.
func statistics(g *Generator) string {
	if len(g.world.indexes) == 0 || g.chance(30) {
		return g.pick("DELETE FROM sqlite_stat1", "UPDATE sqlite_stat1 SET stat='1000000 1' WHERE tbl LIKE 't%'", "DROP TABLE sqlite_stat1")
	}
	i := g.world.indexes[g.n(len(g.world.indexes))]
	return fmt.Sprintf("INSERT INTO sqlite_stat1 SELECT tbl_name, name, '%d %d' FROM sqlite_schema WHERE name=%s", 1+g.n(1000000), 1+g.n(1000), quote(i))
}

// choice makes two indexes that all rows can be found by, and statistics by which one of them looks much better.
func choice(g *Generator) string {
	t := g.plain()
	cols := t.stored()
	if len(cols) < 2 {
		return ""
	}
	g.dice.Shuffle(len(cols), func(i, j int) { cols[i], cols[j] = cols[j], cols[i] })
	x, y := ident(cols[0].name), ident(cols[1].name)
	g.world.choice.table, g.world.choice.x, g.world.choice.y, g.world.choice.set = ident(t.name), x, y, g.settable(t)
	return fmt.Sprintf("DROP INDEX IF EXISTS j0; DROP INDEX IF EXISTS j1; CREATE INDEX j0 ON %s(coalesce(length(%s), 4)%%5); CREATE INDEX j1 ON %[1]s(coalesce(length(%[3]s), 4)%%5); ANALYZE %[1]s; DELETE FROM sqlite_stat1 WHERE idx IN ('j0', 'j1'); "+
		"INSERT INTO sqlite_stat1 SELECT tbl_name, name, iif(name='j%[4]d', '100000 2', '100000 50000') FROM sqlite_schema WHERE name IN ('j0', 'j1')", ident(t.name), x, y, g.n(2))
}

// planned visits rows in the order of the index that the planner chooses, and gives each another value.
func planned(g *Generator) string {
	c := g.world.choice
	if c.table == "" {
		return ""
	}
	return fmt.Sprintf("UPDATE OR IGNORE %s SET %s=%s WHERE coalesce(length(%s), 4)%%5 IN (3, 0, 4, 1, 2) AND coalesce(length(%s), 4)%%5 IN (2, 1, 0, 4, 3)", c.table, c.set,
		g.pick("random()", "random()", "hex(randomblob(3))", "abs(random())%50"), c.x, c.y)
}

func lastingPragma(g *Generator) string {
	return "PRAGMA " + g.pick(fmt.Sprintf("user_version=%d", g.n(5)), fmt.Sprintf("application_id=%d", g.n(1<<30)), "incremental_vacuum(3)", "incremental_vacuum",
		"auto_vacuum=2", "page_size=8192", "encoding='UTF-16'", "shrink_memory")
}

// wrongStatement makes what must fail, or can fail only in a state that is rare.
func wrongStatement(g *Generator) string {
	t := g.table(ordinary)
	name := ident(t.name)
	deep := strings.Repeat("(", 1200) + "1" + strings.Repeat(")", 1200)
	return g.pick(
		"SELEC 1", "INSERT INTO", "INSERT INTO nowhere VALUES(1)", "SELECT absent FROM "+name, "DROP TABLE nowhere", "DELETE FROM sqlite_schema",
		"SELECT "+deep, "SELECT 1"+strings.Repeat("+1", 1100),
		"SELECT abs(-9223372036854775807-1)", "INSERT INTO "+name+" SELECT sum(9223372036854775807) FROM (SELECT 1 UNION ALL SELECT 2)",
		"SELECT sum(x) FROM (SELECT 9223372036854775807 AS x UNION ALL SELECT 1)", "SELECT 1/0, 1%0, 5/0.0",
		"SELECT json('{bad')", "SELECT json_extract('{}', 'no path')", "SELECT jsonb_extract(x'ffff', '$')", "UPDATE "+name+" SET "+g.settable(t)+"=json('[1,')",
		"SELECT * FROM f0 WHERE f0 MATCH '\"'", "SELECT * FROM f1 WHERE f1 MATCH 'AND AND'", "SELECT * FROM f0 WHERE f0 MATCH 'nocolumn: x'",
		"CREATE TABLE t0 (a, a)", "CREATE TABLE bad (a INTEGER) STRICT, WITHOUT", "CREATE TABLE s (a WRONG) STRICT", "CREATE INDEX ix ON "+name+"(random())",
		"CREATE TABLE n (a CHECK (random()>0))", "ALTER TABLE "+name+" ADD COLUMN z NOT NULL", "ALTER TABLE "+name+" ADD COLUMN z DEFAULT (random())",
		"INSERT INTO "+name+" DEFAULT VALUES RETURNING absent", "SELECT zeroblob(2000000000)", "SELECT randomblob(3000000000)",
		"SELECT substr('x', 1, 2, 3)", "SELECT nofunction(1)", "SELECT max(count(*)) FROM "+name, "SELECT 1 UNION SELECT 1, 2", "SELECT * FROM v0, v1, nowhere",
		"INSERT INTO "+name+" VALUES(1), (1, 2)", "COMMIT", "ROLLBACK", "RELEASE absent", "PRAGMA absent", "SELECT raise(ABORT, 'x')",
		"SELECT 1 LIMIT 'x'", "SELECT CAST('x' AS INTEGER) LIMIT 1.5", "SELECT strftime('%Q', 'now'), date('not a date')", "", " ", "-- nothing", ";",
		"WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT x FROM c LIMIT 5 OFFSET 300", "SELECT format('%*d', 100000, 1)",
		"INSERT OR ROLLBACK INTO "+name+"(rowid) SELECT rowid FROM "+name+" LIMIT 1", "UPDATE "+name+" SET rowid='text'", "UPDATE "+name+" SET rowid=NULL",
		"SELECT group_concat(x, '') FROM (SELECT 1 AS x) FILTER", "SELECT nth_value(1, 0) OVER ()", "SELECT ntile(-1) OVER ()", "\x00SELECT 1", "SELECT 'a\x00b'", "\ufeffSELECT 1")
}
