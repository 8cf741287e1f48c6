package db

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"rqlited/command"
)

// many returns n copies of sql, with the number in the place of %d.
func many(n int, sql string) []string {
	var all []string
	for i := range n {
		all = append(all, strings.ReplaceAll(sql, "%d", fmt.Sprint(i)))
	}
	return all
}

// script makes a list of entries: a text is one statement, a slice several.
func script(parts ...any) (entries [][]string) {
	for _, p := range parts {
		switch p := p.(type) {
		case string:
			entries = append(entries, []string{p})
		case []string:
			entries = append(entries, p)
		case [][]string:
			entries = append(entries, p...)
		}
	}
	return entries
}

func each(sql []string) (entries [][]string) {
	for _, s := range sql {
		entries = append(entries, []string{s})
	}
	return entries
}

// TestAgeOfConnection applies entries to a connection that lives, to one that is new for each entry, and to one
// that is new for some. Each script tries something that SQLite keeps in memory.
func TestAgeOfConnection(t *testing.T) {
	t.Parallel()
	words := "INSERT INTO f(x) VALUES('word%d and another, '||%d%7||' of '||(%d*31%17))"
	tests := []struct {
		name    string
		entries [][]string
	}{
		{"changes() in a DEFAULT", script("CREATE TABLE t(a, c DEFAULT (changes()), r DEFAULT (last_insert_rowid()), n DEFAULT (total_changes()))", "CREATE TABLE u(x)",
			"INSERT INTO u VALUES(1),(2),(3)", "INSERT INTO t(a) VALUES(1)", []string{"DELETE FROM u WHERE x<3", "INSERT INTO t(a) VALUES(2)"}, "INSERT INTO t(a) VALUES(3),(4)")},
		{"changes() in a trigger of a trigger", script("CREATE TABLE t(a)", "CREATE TABLE u(x)", "CREATE TABLE l(c)",
			"CREATE TRIGGER g1 AFTER INSERT ON t BEGIN INSERT INTO l VALUES(changes()); INSERT INTO u VALUES(1),(2); INSERT INTO l VALUES(changes()); END",
			"CREATE TRIGGER g2 AFTER INSERT ON u BEGIN INSERT INTO l VALUES(changes()); DELETE FROM u WHERE x=9; INSERT INTO l VALUES(changes()); END",
			"INSERT INTO t VALUES(1),(2)", "UPDATE t SET a=a", "INSERT INTO t VALUES(1),(2),(3)", "INSERT INTO t SELECT * FROM t")},
		{"order of ANALYZE", script(each(many(40, "CREATE TABLE t%d(a, b)")), each(many(40, "CREATE INDEX i%d ON t%d(a)")), each(many(40, "INSERT INTO t%d VALUES(1,2)")),
			each(many(33, "DROP TABLE t%d")), "CREATE TABLE z(a)", "CREATE INDEX zi ON z(a)", "INSERT INTO z VALUES(1)", "ANALYZE",
			"CREATE TABLE l AS SELECT name FROM pragma_table_list", "INSERT INTO l SELECT * FROM pragma_foreign_key_check")},
		{"statistics rolled back", script("CREATE TABLE t(a, b, c, d)", "CREATE INDEX ia ON t(a, c)", "CREATE INDEX ib ON t(b, d)", "CREATE TABLE o(x)",
			"INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i+1 FROM n LIMIT 500) SELECT 1, i%50, i, -i FROM n", "ANALYZE",
			[]string{"BEGIN", "UPDATE t SET a=c, b=1", "ANALYZE", "ROLLBACK"}, "INSERT INTO o SELECT c FROM t WHERE a=1 AND b=1")},
		{"statistics before the index", script("CREATE TABLE t(a, b, c)", "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i+1 FROM n LIMIT 300) SELECT i%3, i%4, 300-i FROM n",
			"CREATE TABLE o(x)", "CREATE INDEX i ON t(b)", "ANALYZE", "INSERT INTO sqlite_stat1 VALUES('t', 'j', '300 300 300')", "CREATE INDEX j ON t(a, c)", "INSERT INTO o SELECT rowid FROM t WHERE a=1 AND b=1")},
		{"automerge rolled back", script("CREATE VIRTUAL TABLE f USING fts4(x)", each(many(40, words)), []string{"BEGIN", "INSERT INTO f(f) VALUES('automerge=2')", "ROLLBACK"}, each(many(150, words)))},
		{"automerge by a failing statement", script("CREATE VIRTUAL TABLE f USING fts4(x)", "CREATE TABLE t(x UNIQUE)", "CREATE TRIGGER g AFTER INSERT ON t BEGIN INSERT INTO f(f) VALUES('automerge=2'); SELECT RAISE(ABORT, 'x'); END",
			each(many(30, words)), "INSERT INTO t VALUES(1)", each(many(150, words)))},
		{"settings of FTS5 rolled back", script("CREATE VIRTUAL TABLE f USING fts5(x)", each(many(30, words)),
			[]string{"BEGIN", "INSERT INTO f(f, rank) VALUES('secure-delete', 1)", "INSERT INTO f(f, rank) VALUES('automerge', 2)", "INSERT INTO f(f, rank) VALUES('pgsz', 64)", "INSERT INTO f(f, rank) VALUES('rank', 'bm25(10.0)')", "ROLLBACK"},
			each(many(60, words)), "DELETE FROM f WHERE rowid%3=0", each(many(60, words)), "INSERT INTO f(f) VALUES('optimize')")},
		{"commands of FTS5", script("CREATE VIRTUAL TABLE f USING fts5(x)", "CREATE VIRTUAL TABLE n USING fts5(x, content='')", "INSERT INTO f VALUES('a b')", "INSERT INTO n VALUES('a b')", "INSERT INTO f(f, rank) VALUES('pgsz', 64)", "INSERT INTO n(n, rank) VALUES('automerge', 2)",
			"INSERT INTO f VALUES('a b')", "INSERT INTO f(f) VALUES('rebuild')", "INSERT INTO n(n) VALUES('delete-all')", "INSERT INTO f VALUES('a b')", "INSERT INTO n VALUES('c')")},
		{"FTS5 without content and without words", script("CREATE VIRTUAL TABLE f USING fts5(x, content='', contentless_delete=1)", "INSERT INTO f(rowid, x) VALUES(1, 'a')", "INSERT INTO f(rowid, x) VALUES(2, '')",
			"INSERT INTO f(rowid, x) VALUES(3, 'b')", "INSERT INTO f(rowid, x) VALUES(4, ''), (5, '')", "DELETE FROM f WHERE rowid=1", "UPDATE f SET x='' WHERE rowid=3", "INSERT INTO f(rowid, x) VALUES(6, 'c')", "INSERT INTO f(f) VALUES('optimize')")},
		{"R-tree read first", script("CREATE VIRTUAL TABLE r USING rtree(id, a, b)", "INSERT INTO r VALUES(1, 1, 2)", "CREATE TABLE t(x)", "INSERT INTO t SELECT a FROM r", []string{"SELECT * FROM r", "CREATE TABLE u(x DEFAULT (changes()))"}, "INSERT INTO u DEFAULT VALUES")},
		{"savepoints and full-text", script("CREATE VIRTUAL TABLE f USING fts5(x)", "CREATE VIRTUAL TABLE k USING fts4(x)", []string{"BEGIN", "INSERT INTO f VALUES('a b')", "SAVEPOINT s", "INSERT INTO k(x) VALUES('a b')", "INSERT INTO f(f, rank) VALUES('hashsize', 100)", "ROLLBACK TO s", "INSERT INTO f VALUES('c')", "COMMIT"},
			each(many(50, words)), "INSERT INTO f(f, rank) VALUES('merge', 4)")},
		{"R-tree", script("CREATE VIRTUAL TABLE r USING rtree(id, a, b)", each(many(150, "INSERT INTO r(a, b) VALUES(%d*37%101, %d*37%101+3)")), "DELETE FROM r WHERE id%3=0",
			[]string{"BEGIN", "INSERT INTO r(a, b) SELECT a, b FROM r", "ROLLBACK"}, each(many(60, "INSERT INTO r(a, b) VALUES(%d, %d+1)")))},
		{"AUTOINCREMENT", script("CREATE TABLE a(id INTEGER PRIMARY KEY AUTOINCREMENT, x)", "INSERT INTO a(x) VALUES(1),(2)", "DELETE FROM a", []string{"BEGIN", "INSERT INTO a(x) VALUES(3)", "ROLLBACK"}, "INSERT INTO a(x) VALUES(4)",
			"DELETE FROM sqlite_sequence", "INSERT INTO a(x) VALUES(5)", "ALTER TABLE a RENAME TO b", "INSERT INTO b(x) VALUES(6)")},
		{"order of cascades and triggers", script("PRAGMA foreign_keys=ON", "CREATE TABLE p(id INTEGER PRIMARY KEY)", "CREATE TABLE l(x)", each(many(6, "CREATE TABLE c%d(p REFERENCES p ON DELETE CASCADE)")),
			each(many(6, "CREATE TRIGGER g%d AFTER DELETE ON c%d BEGIN INSERT INTO l VALUES('c%d'); END")), "DROP TABLE c2", "CREATE TABLE c2(p REFERENCES p ON DELETE CASCADE)",
			"CREATE TRIGGER g2 AFTER DELETE ON c2 BEGIN INSERT INTO l VALUES('c2'); END", each(many(3, "CREATE TRIGGER h%d AFTER DELETE ON p BEGIN INSERT INTO l VALUES('h%d'); END")),
			[]string{"PRAGMA foreign_keys=ON", "INSERT INTO p VALUES(1)", "INSERT INTO c0 VALUES(1)", "INSERT INTO c1 VALUES(1)", "INSERT INTO c2 VALUES(1)", "INSERT INTO c5 VALUES(1)", "DELETE FROM p"})},
		{"plans of bound patterns", script("CREATE TABLE t(a TEXT COLLATE NOCASE, b)", "CREATE INDEX i ON t(a)", "CREATE TABLE o(x)", "INSERT INTO t VALUES('ab',3),('AC',1),('ad',2),('b',0)",
			[]string{"INSERT INTO o SELECT b FROM t WHERE a LIKE 'a%'", "PRAGMA case_sensitive_like=1", "INSERT INTO o SELECT b FROM t WHERE a LIKE 'a%'"}, "INSERT INTO o SELECT b FROM t WHERE a LIKE 'a%'", "INSERT INTO o SELECT b FROM t WHERE a LIKE 'a%'")},
		{"settings", script("CREATE TABLE t(a, b UNIQUE)", "INSERT INTO t VALUES(1,1),(2,2),(3,3)", "CREATE TABLE o(x)", "PRAGMA reverse_unordered_selects=1", "INSERT INTO o SELECT a FROM t",
			[]string{"PRAGMA reverse_unordered_selects=1", "INSERT INTO o SELECT a FROM t"}, "PRAGMA recursive_triggers=1", "PRAGMA ignore_check_constraints=1", "PRAGMA defer_foreign_keys=1", "PRAGMA legacy_alter_table=1", "PRAGMA page_size=512", "VACUUM",
			"INSERT INTO o SELECT foreign_keys FROM pragma_foreign_keys")},
		{"temporary objects", script("CREATE TABLE t(a)", []string{"CREATE TEMP TRIGGER g AFTER INSERT ON t BEGIN UPDATE t SET a=a+100; END", "INSERT INTO t VALUES(1)"}, "INSERT INTO t VALUES(2)",
			[]string{"CREATE TEMP TABLE t(a)", "INSERT INTO t VALUES(3)"}, "INSERT INTO t VALUES(4)")},
		{"raising triggers", script("CREATE TABLE t(a UNIQUE)", "CREATE TRIGGER g BEFORE INSERT ON t WHEN new.a>5 BEGIN SELECT CASE new.a WHEN 6 THEN RAISE(ROLLBACK,'r') WHEN 7 THEN RAISE(FAIL,'f') WHEN 8 THEN RAISE(IGNORE) ELSE RAISE(ABORT,'a') END; END",
			[]string{"BEGIN", "INSERT INTO t VALUES(1)", "INSERT INTO t VALUES(6)", "INSERT INTO t VALUES(2)", "COMMIT"}, "INSERT INTO t VALUES(3),(7),(4)", "INSERT INTO t VALUES(3),(8),(4)", "INSERT OR ROLLBACK INTO t VALUES(5),(3)", []string{"SAVEPOINT s", "INSERT OR ROLLBACK INTO t VALUES(3)"}, "INSERT INTO t VALUES(9)")},
		{"deferred foreign keys", script([]string{"PRAGMA foreign_keys=ON", "CREATE TABLE p(id INTEGER PRIMARY KEY)", "CREATE TABLE c(p REFERENCES p DEFERRABLE INITIALLY DEFERRED)", "BEGIN", "INSERT INTO c VALUES(1)", "COMMIT"},
			[]string{"PRAGMA foreign_keys=ON", "BEGIN", "INSERT INTO c VALUES(1)", "COMMIT", "INSERT INTO p VALUES(1)", "COMMIT"}, "INSERT INTO c VALUES(5)")},
		{"kinds of tables", script("CREATE TABLE w(a TEXT PRIMARY KEY, b) WITHOUT ROWID", "CREATE TABLE s(a INT, b REAL AS (a/3.0) STORED, c TEXT AS (printf('%.17g', a*1.1))) STRICT", "CREATE INDEX pi ON s(b) WHERE b>1", "CREATE INDEX ei ON s(round(b,1), c COLLATE NOCASE)",
			"INSERT INTO w SELECT value, key FROM json_each('[3,1,2]')", "INSERT INTO s(a) VALUES(1),(7),(100)", "INSERT INTO s(a) VALUES('x')", "UPDATE s SET a=a*a WHERE b>1", "CREATE TABLE o AS SELECT * FROM s ORDER BY round(b,1)")},
		{"ties of a sort that spills", script("CREATE TABLE t(a, b)", "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i+1 FROM n LIMIT 6000) SELECT i%7, hex(zeroblob(300)) FROM n",
			[]string{"PRAGMA cache_size=10", "CREATE TABLE o1 AS SELECT a, rowid AS r, b FROM t ORDER BY a"}, "CREATE TABLE o2 AS SELECT a, rowid AS r, b FROM t ORDER BY a", "DROP TABLE t", "CREATE TABLE bad AS SELECT count(*) FROM o1 JOIN o2 ON o1.rowid=o2.rowid WHERE o1.r<>o2.r")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			old, renewed, mixed := openNew(t), openNew(t), openNew(t)
			for n, sql := range tt.entries {
				e := &command.Entry{Kind: command.Unified, Time: time.Unix(1700000000+int64(n), 0), Seed: uint64(n) + 1,
					Request: &command.Request{Kind: command.Unified, Statements: statements(sql...)}}
				want := show(uncounted(apply(t, old, e))...)
				for i, d := range []*DB{renewed, mixed} {
					if i == 0 || n%3 == 0 {
						if err := d.reopenWriter(); err != nil {
							t.Fatal(err)
						}
					}
					if got := show(uncounted(apply(t, d, e))...); got != want {
						t.Fatalf("%q: a new connection says\n%s; the old one\n%s", sql, got, want)
					}
				}
			}
			want := layout(t, old)
			for _, d := range []*DB{renewed, mixed} {
				if got := layout(t, d); got != want {
					t.Errorf("with a new connection the database is\n%.3000s\n; with the old one\n%.3000s", got, want)
				}
			}
			if strings.HasPrefix(tt.name, "ties") {
				if n := value(t, old, "SELECT * FROM bad"); n != int64(0) {
					t.Errorf("%v rows of the sorts differ", n)
				}
			}
		})
	}
}

// layout returns everything in the database and where it is.
func layout(t testing.TB, d *DB) string {
	t.Helper()
	var out strings.Builder
	for _, r := range query(t, d, "SELECT rowid, rootpage, type, name, sql FROM sqlite_schema ORDER BY rowid", "SELECT * FROM dbstat ORDER BY name, path").Results {
		out.WriteString(show(r) + "\n")
	}
	for _, row := range query(t, d, "SELECT name, wr FROM pragma_table_list WHERE schema='main' AND type<>'view' ORDER BY name").Results[0].Rows.Values {
		rowid := "rowid, "
		if row[1] != int64(0) {
			rowid = ""
		}
		name := row[0].(string)
		out.WriteString(name + show(query(t, d, "SELECT "+rowid+"* FROM "+quote(name, `"`)).Results...) + "\n")
	}
	return out.String()
}
