package db

import (
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"rqlited/command"
)

// randomEntry makes an entry from statements of which many would end differently on another
// machine, at another time, or on a connection with another past.
func randomEntry(dice *rand.Rand, n int) *command.Entry {
	choices := []string{
		"INSERT INTO t(a, b) VALUES(random(), randomblob(20))",
		"INSERT INTO t(a, b) VALUES(last_insert_rowid(), changes())",
		"INSERT INTO t(a, b) VALUES(total_changes(), CURRENT_TIMESTAMP)",
		"INSERT INTO t(a, b) SELECT random(), b FROM t ORDER BY random() LIMIT 3",
		"INSERT INTO t(a, b) SELECT a, datetime('now', '-1 day') FROM t WHERE a IN (SELECT a FROM t WHERE a > 0) LIMIT 5",
		"UPDATE t SET b=strftime('%f', 'now') WHERE id%3=0 RETURNING id",
		"DELETE FROM t WHERE id IN (SELECT id FROM t ORDER BY random() LIMIT 2)",
		"INSERT INTO d DEFAULT VALUES",
		"INSERT INTO t(id, a) VALUES(1, 'conflict')",
		"INSERT OR ROLLBACK INTO t(id, a) VALUES(2, 'conflict')",
		"INSERT INTO c VALUES(999999)",
		"BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT s", "RELEASE s",
		"PRAGMA foreign_keys=ON", "PRAGMA recursive_triggers=ON", "PRAGMA case_sensitive_like=ON", "PRAGMA reverse_unordered_selects=ON",
		"CREATE TEMP TABLE IF NOT EXISTS tmp(x)", "INSERT INTO tmp VALUES(1)", "INSERT INTO t(a) SELECT count(*) FROM tmp",
		"DELETE FROM t WHERE b LIKE 'A%'",
		"CREATE INDEX IF NOT EXISTS i ON t(a)", "DROP INDEX IF EXISTS i", "ANALYZE", "PRAGMA analysis_limit=2", `ANALYZE "main"."t"`,
		"INSERT INTO sqlite_stat1 VALUES('t', 'i', '1000000 1')",
		"CREATE TABLE IF NOT EXISTS x (y)", "DROP TABLE IF EXISTS x", "INSERT INTO x VALUES(random())",
		"VACUUM", "SELECT 1", "SELEC", "",
		"INSERT INTO f VALUES('some words ' || random())", "DELETE FROM f WHERE rowid%2=0",
		"INSERT INTO t(a) VALUES(1); INSERT INTO t(a) VALUES(random()); SELECT 1",
		"PRAGMA user_version=7", "PRAGMA synchronous=2", "ATTACH 'x' AS y",
	}
	req := &command.Request{Kind: command.Execute, Transaction: dice.IntN(4) == 0, RollbackOnError: dice.IntN(5) == 0}
	if dice.IntN(2) == 0 {
		req.Kind = command.Unified
	}
	for range 1 + dice.IntN(5) {
		st := command.Statement{SQL: choices[dice.IntN(len(choices))]}
		st.Returning = scanSQL(st.SQL).returning
		req.Statements = append(req.Statements, st)
	}
	return &command.Entry{Kind: req.Kind, Request: req, Seed: dice.Uint64() | 1, Time: time.UnixMilli(1700000000000 + int64(n)*1234)}
}

// TestReplicasStayEqual applies the same entries to a database that runs all the time, and to one
// that is captured, stopped, started from a snapshot and given the entries after it again. Results
// and databases must be equal.
func TestReplicasStayEqual(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	dice := rand.New(rand.NewPCG(seed, 0))
	steady := openNew(t)
	path := testPath(t)
	moving, err := Open(path, Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := moving.Close(); err != nil {
			t.Error(err)
		}
	}()
	log := []*command.Entry{{Kind: command.Execute, Request: &command.Request{Statements: statements(
		"CREATE TABLE t (id INTEGER PRIMARY KEY, a, b)", "CREATE TABLE d (id INTEGER PRIMARY KEY, r DEFAULT (random()), t DEFAULT CURRENT_TIMESTAMP)",
		"CREATE TABLE c (p REFERENCES t(id))", "CREATE VIRTUAL TABLE f USING fts5(w)", "CREATE TABLE g (x, y, z)",
		"CREATE TRIGGER tr AFTER DELETE ON t BEGIN INSERT INTO g VALUES(random(), changes(), last_insert_rowid()); END")}}}
	for n := range 400 {
		log = append(log, randomEntry(dice, n))
	}
	var s chain
	snapshotAt := 0 // entries in the head
	for n, e := range log {
		want := show(uncounted(apply(t, steady, e))...)
		if got := show(uncounted(apply(t, moving, e))...); got != want {
			t.Fatalf("entry %d: results are\n%s\nand\n%s", n, got, want)
		}
		switch dice.IntN(12) {
		case 0:
			if c, image, err := s.take(t, moving); err == nil {
				s.publish(t, c, image)
				snapshotAt = n + 1
			}
		case 1:
			moving = restart(t, moving, path, &s, log[snapshotAt:n+1])
		}
	}
	if got, want := dump(t, moving), dump(t, steady); got != want {
		t.Errorf("databases differ:\n%s\n\n%s", got, want)
	}
}

// uncounted returns results without the counters of writes, which carry over from before as long as
// nothing is restarted. What SQL sees of them is among the entries.
func uncounted(resp *command.Response) []command.Result {
	for i := range resp.Results {
		if resp.Results[i].Write != nil {
			resp.Results[i].Write = &command.Write{}
		}
	}
	return resp.Results
}

// restart stops d and starts it again from its newest snapshot: the file itself if it was kept,
// else a restored one; and applies the entries after it.
func restart(t *testing.T, d *DB, path string, s *chain, entries []*command.Entry) *DB {
	t.Helper()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d, err := Open(path, Config{Head: s.head})
	if err != nil {
		t.Fatal(err)
	}
	if s.head != "" && d.Head() == "" {
		image := filepath.Join(filepath.Dir(path), "image")
		if err := writeAll(d.fs, image, s.images[s.head]); err != nil {
			t.Fatal(err)
		}
		if err := d.Replace(image, s.head); err != nil {
			t.Fatal(err)
		}
	}
	for _, e := range entries {
		apply(t, d, e)
	}
	return d
}
