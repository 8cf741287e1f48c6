package system

import (
	"slices"
	"strings"
	"testing"
)

// hostile is what a client may send to part the nodes, if they keep anything between two entries:
// a node that is started between before and after knows only what is in the database. NAME stands for a
// name of its own. Any of the statements may fail.
type hostile struct {
	name          string
	before, after []string
}

var hostiles = []hostile{
	{"settings", []string{
		"PRAGMA foreign_keys = ON", "PRAGMA recursive_triggers = ON", "PRAGMA max_page_count = 3", "PRAGMA cache_size = 1", "PRAGMA legacy_alter_table = ON",
		"PRAGMA case_sensitive_like = ON", "PRAGMA ignore_check_constraints = ON", "PRAGMA trusted_schema = OFF", "PRAGMA reverse_unordered_selects = ON",
	}, []string{
		"CREATE TABLE NAME (v REFERENCES nothing CHECK (v <> 'x'), w DEFAULT (zeroblob(100000)))", "INSERT INTO NAME(v) VALUES ('y'), ('x')",
		"INSERT INTO NAME(v) VALUES ('Y')", "DELETE FROM NAME WHERE v LIKE 'y'", "INSERT INTO NAME(v) SELECT 'a' LIKE 'A'",
	}},
	{"temporary objects", []string{
		"CREATE TABLE NAME (v)", "CREATE TEMP TABLE NAME (v)", "CREATE TEMP TRIGGER NAMEtr AFTER INSERT ON main.NAME BEGIN DELETE FROM main.NAME; END",
	}, []string{"INSERT INTO NAME VALUES (1)", "INSERT INTO main.NAME VALUES (2)", "INSERT INTO temp.NAME VALUES (3)"}},
	{"open transactions", []string{
		"CREATE TABLE NAME (v)", "BEGIN", "INSERT INTO NAME VALUES ('in no transaction')", "SAVEPOINT s", "SAVEPOINT s; INSERT INTO NAME VALUES ('lost')",
	}, []string{"INSERT INTO NAME VALUES (2)", "RELEASE s", "ROLLBACK TO s", "COMMIT", "ROLLBACK", "INSERT INTO NAME VALUES (changes()), (last_insert_rowid())"}},
	{"statistics", []string{
		"CREATE TABLE NAME (a, b, c)", "CREATE INDEX NAMEa ON NAME (a)", "CREATE INDEX NAMEb ON NAME (b)",
		"INSERT INTO NAME WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s LIMIT 200) SELECT i % 10, i % 7, i FROM s", "ANALYZE",
		"UPDATE sqlite_stat1 SET stat = '1000000 1' WHERE idx = 'NAMEb'", "INSERT INTO sqlite_stat1 VALUES (NULL, NULL, zeroblob(9)), ('NAME', 'NAMEa', 'bogus unordered sz=0')",
	}, []string{
		"DELETE FROM NAME WHERE rowid IN (SELECT rowid FROM NAME WHERE a = 3 AND b > 2 LIMIT 3)", "UPDATE NAME SET c = random() WHERE rowid IN (SELECT rowid FROM NAME WHERE a > 3 AND b = 2 LIMIT 4)",
		"CREATE TABLE NAMEcopy AS SELECT * FROM NAME WHERE a > 1 AND b > 1 LIMIT 20", "DELETE FROM sqlite_stat1",
	}},
	{"sequence", []string{
		"CREATE TABLE NAME (id INTEGER PRIMARY KEY AUTOINCREMENT, v)", "INSERT INTO NAME(v) VALUES (1)", "UPDATE sqlite_sequence SET seq = 'x' WHERE name = 'NAME'", "INSERT INTO NAME(v) VALUES (2)",
	}, []string{
		"INSERT INTO sqlite_sequence VALUES ('NAME', NULL), ('NAME', 1e300)", "INSERT INTO NAME(v) VALUES (3)", "DELETE FROM sqlite_sequence WHERE name = 'NAME'", "INSERT INTO NAME(v) VALUES (4)",
		"UPDATE sqlite_sequence SET seq = 9223372036854775807 WHERE name = 'NAME'", "INSERT INTO NAME(v) VALUES (5)", "DELETE FROM sqlite_sequence WHERE name = 'NAME'",
	}},
	{"full-text index without its data", []string{
		"CREATE VIRTUAL TABLE NAME USING fts5(a, b)", "INSERT INTO NAME VALUES ('one two', 'three')", "INSERT INTO NAME VALUES ('x y', 'z')", "DELETE FROM NAME_data WHERE id = 10",
	}, []string{"INSERT INTO NAME VALUES ('q', 'q')", "INSERT INTO NAME(NAME) VALUES ('optimize')", "DELETE FROM NAME WHERE a = 'q'"}},
	{"full-text index with other averages", []string{
		"CREATE VIRTUAL TABLE NAME USING fts5(a, b)", "INSERT INTO NAME VALUES ('one two', 'three')", "UPDATE NAME_data SET block = x'0909' WHERE id = 1",
	}, []string{"INSERT INTO NAME VALUES ('q', 'q')", "DELETE FROM NAME WHERE a = 'q'"}},
	{"full-text index, settings by command", []string{
		"CREATE VIRTUAL TABLE NAME USING fts5(a)", "INSERT INTO NAME(NAME, rank) VALUES ('pgsz', 32)", "INSERT INTO NAME(NAME, rank) VALUES ('hashsize', 200)",
		"INSERT INTO NAME(NAME, rank) VALUES ('crisismerge', 2)", "INSERT INTO NAME(NAME, rank) VALUES ('automerge', 2)", "BEGIN; INSERT INTO NAME VALUES ('lost'); ROLLBACK",
	}, []string{"INSERT INTO NAME WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s LIMIT 1000) SELECT 'word' || i FROM s", "INSERT INTO NAME(NAME, rank) VALUES ('merge', 5)"}},
	{"FTS4 index without its data", []string{
		"CREATE VIRTUAL TABLE NAME USING fts4(a)", "INSERT INTO NAME VALUES ('one two')", "DELETE FROM NAME_stat", "DELETE FROM NAME_segdir",
	}, []string{"INSERT INTO NAME VALUES ('q')", "SELECT optimize(NAME) FROM NAME LIMIT 1", "INSERT INTO NAME(NAME) VALUES ('optimize')", "INSERT INTO NAME(NAME) VALUES ('automerge=4')"}},
	{"R-tree without its rows", []string{
		"CREATE VIRTUAL TABLE NAME USING rtree(id, a, b)", "INSERT INTO NAME VALUES (1, 1, 2)", "DELETE FROM NAME_parent", "DELETE FROM NAME_rowid",
	}, []string{"INSERT INTO NAME VALUES (2, 1, 2)", "DELETE FROM NAME WHERE id = 1"}},
	{"what is refused", nil, []string{
		"ATTACH ':memory:' AS y", "DETACH main", "VACUUM INTO '/dev/null'", "PRAGMA writable_schema = ON", "PRAGMA journal_mode = DELETE", "PRAGMA query_only = ON", "PRAGMA optimize",
		"SELECT load_extension('x')", "PRAGMA hard_heap_limit = 1", "PRAGMA wal_checkpoint(TRUNCATE)", "PRAGMA locking_mode = EXCLUSIVE",
	}},
	{"layout", []string{"PRAGMA page_size = 512; VACUUM", "PRAGMA auto_vacuum = 2; VACUUM", "PRAGMA encoding = 'UTF-16'; VACUUM"}, []string{
		"CREATE TABLE NAME AS SELECT pageno, path FROM dbstat", "INSERT INTO NAME SELECT rootpage, name FROM sqlite_schema", "INSERT INTO NAME SELECT page_count, schema_version FROM pragma_page_count, pragma_schema_version",
	}},
}

// TestHostileStatements sends, to a cluster that takes snapshots all the time, what is meant to make
// replicas differ or nodes end, before and after one of them is started anew.
func TestHostileStatements(t *testing.T) {
	t.Parallel()
	beHostile(t, hostiles)
}

func beHostile(t *testing.T, all []hostile) {
	t.Helper()
	c := startCluster(t, 3, often...)
	send := func(i int, h hostile, sqls []string) {
		t.Helper()
		name := "h" + string(rune('a'+i))
		for j, sql := range sqls {
			sql = strings.ReplaceAll(sql, "NAME", name)
			a, err := c[j%3].sql(requestLimit, "/db/execute", sql)
			if err != nil && (a == nil || a.status != 200) {
				t.Fatalf("%s: %s: %v", h.name, sql, err)
			}
		}
	}
	for i, h := range all {
		send(i, h, h.before)
	}
	fresh := c.without(c.leader())[0]
	fresh.kill()
	fresh.start()
	c.equal()
	for i, h := range slices.Backward(all) { // the layout comes first, with what it was
		send(i, h, h.after)
	}
	want := c.equal()
	for _, n := range c {
		if err := n.snapshot(); err != nil {
			t.Logf("%s: %v", n.id, err) // it takes one of its own just now
		}
		n.kill()
		n.forgetDatabase()
		n.start()
		c.waitReady()
	}
	c.holds(want)
}
