package db

import (
	"errors"
	"testing"

	"rqlited/command"
)

func TestPrepareRefuses(t *testing.T) {
	d := openNew(t)
	tests := []struct {
		sql  string
		want error
	}{
		{"PRAGMA journal_mode", nil},
		{"PRAGMA journal_mode=DELETE", ErrDisallowedPragma},
		{"  pragma JOURNAL_MODE = wal", ErrDisallowedPragma},
		{"PRAGMA main.journal_mode=DELETE", ErrDisallowedPragma},
		{`PRAGMA "main" . [journal_mode] (DELETE)`, ErrDisallowedPragma},
		{"PRAGMA synchronous(2)", ErrDisallowedPragma},
		{"PRAGMA synchronous", nil},
		{"PRAGMA main.wal_autocheckpoint=5", ErrDisallowedPragma},
		{"PRAGMA wal_checkpoint", ErrDisallowedPragma},
		{"PRAGMA main.wal_checkpoint(TRUNCATE)", ErrDisallowedPragma},
		{"PRAGMA query_only=0", ErrDisallowedPragma},
		{"/* c */ -- d\n PRAGMA query_only=0", ErrDisallowedPragma},
		{"SELECT 1; PRAGMA query_only=0", ErrDisallowedPragma},
		{"CREATE TABLE x(a); PRAGMA query_only=0", ErrDisallowedPragma},
		{"CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT 1; SELECT CASE WHEN 1 THEN 2 END; END; PRAGMA query_only=0", ErrDisallowedPragma},
		{"CREATE TEMP TRIGGER g AFTER INSERT ON t BEGIN SELECT 1; END; PRAGMA query_only=0", ErrDisallowedPragma},
		{"EXPLAIN QUERY PLAN PRAGMA query_only=0", ErrDisallowedPragma},
		{"\ufeffPRAGMA query_only=0", ErrDisallowedPragma},
		{"PRAGMA writable_schema=1", ErrDisallowedPragma},
		{"PRAGMA hard_heap_limit=1", ErrDisallowedPragma},
		{"SELECT 'a; PRAGMA query_only=0'", nil},
		{`SELECT "a; PRAGMA query_only=0", [; PRAGMA query_only=0]`, nil},
		{"SELECT 'it''s; PRAGMA query_only=0'", nil},
		{"SELECT 1 -- ; PRAGMA query_only=0", nil},
		{"SELECT 1 /* ; PRAGMA query_only=0", nil},
		{"SELECT 1\x00; PRAGMA query_only=0", nil}, // SQLite does not read on either
		{"PRAGMA foreign_keys=ON", nil},
		{"PRAGMA", nil},
		{"PRAGMA .", nil},
		{"ATTACH 'x' AS y", ErrForbidden},
		{"attach database 'x' AS y", ErrForbidden},
		{"DETACH y", ErrForbidden},
		{"VACUUM", nil},
		{"VACUUM main INTO 'x'", ErrForbidden},
		{"vacuum into 'x'", ErrForbidden},
		{"INSERT INTO attach VALUES('ATTACH')", nil},
	}
	for _, tt := range tests {
		for _, kind := range []command.Kind{command.Query, command.Execute, command.Unified} {
			req := &command.Request{Kind: kind, Statements: statements("SELECT 1", tt.sql)}
			_, err := d.Prepare(req)
			var refused *RefusedError
			if !errors.Is(err, tt.want) || errors.As(err, &refused) != (tt.want != nil) {
				t.Errorf("Prepare(%s %q) = %v, want %v", kind, tt.sql, err, tt.want)
			}
		}
	}
}

func TestPrepareClassifies(t *testing.T) {
	d := openNew(t)
	exec(t, d, setup, "INSERT INTO t(n) VALUES('a')")
	tests := []struct {
		sql       string
		reads     bool
		returning bool
		explain   bool
	}{
		{"", true, false, false},
		{"-- nothing", true, false, false},
		{"SELECT * FROM t", true, false, false},
		{"WITH c AS (SELECT 1) SELECT * FROM c", true, false, false},
		{"WITH c AS (SELECT 1) INSERT INTO t(n) SELECT * FROM c", false, false, false},
		{"WITH c AS (SELECT 1) INSERT INTO t(n) SELECT * FROM c RETURNING id", false, true, false},
		{"SELECT 1; SELECT 2", true, false, false},
		{"SELECT 1; DELETE FROM t", true, false, false}, // which is refused then
		{"SELECT 1; CREATE TABLE x(a)", true, false, false},
		{"DELETE FROM t; SELECT 1", false, false, false},
		{"SELECT nope", false, false, false},
		{"SELEC", false, false, false},
		{"EXPLAIN SELECT 1", true, false, true},
		{"EXPLAIN QUERY PLAN DELETE FROM t", true, false, true},
		{"EXPLAIN DELETE FROM t RETURNING id", true, false, true},
		{"SELECT 1; EXPLAIN DELETE FROM t", true, false, false},
		{"PRAGMA user_version", true, false, false},
		{"PRAGMA user_version=1", false, false, false},
		{"PRAGMA foreign_keys=ON", false, false, false},
		{"PRAGMA table_info(t)", true, false, false},
		{"BEGIN", false, false, false},
		{"ROLLBACK", false, false, false},
		{"SAVEPOINT x", false, false, false},
		{"CREATE TEMP TABLE x(a)", false, false, false},
		{"VACUUM", false, false, false},
		{"INSERT INTO t(n) VALUES('x') RETURNING *", false, true, false},
		{"INSERT INTO t(n) VALUES('x') RETURNING*", false, true, false},
		{"update t set n=1\nRETURNING\nid", false, true, false},
		{"DELETE FROM t RETURNING id -- c", false, true, false},
		{"INSERT INTO t(n) VALUES('x RETURNING *')", false, false, false},
		{`INSERT INTO t("returning") VALUES(1) /* RETURNING * */`, false, false, false},
		{"INSERT INTO t(n) VALUES('x') RETURNING id; INSERT INTO t(n) VALUES('y')", false, false, false},
		{"CREATE TRIGGER g AFTER INSERT ON t BEGIN INSERT INTO u VALUES(1); END", false, false, false},
		{"SELECT 'RETURNING' FROM t", true, false, false},
	}
	for _, tt := range tests {
		for range 2 {
			req := &command.Request{Kind: command.Unified, Statements: statements(tt.sql)}
			reads, err := d.Prepare(req)
			st := req.Statements[0]
			if err != nil || reads != tt.reads || st.Returning != tt.returning || st.Explain != tt.explain {
				t.Errorf("Prepare(%q) = %t, %v, returning %t, explain %t; want %t, %t, %t", tt.sql, reads, err, st.Returning, st.Explain, tt.reads, tt.returning, tt.explain)
			}
		}
	}
	if n := value(t, d, "SELECT count(*) FROM t"); n != int64(1) {
		t.Errorf("Prepare left %v rows", n)
	}
	for kind, want := range map[command.Kind]bool{command.Query: true, command.Execute: false} {
		if reads, err := d.Prepare(&command.Request{Kind: kind, Statements: statements("SELECT 1")}); err != nil || reads != want {
			t.Errorf("Prepare(%s) = %t, %v; want %t", kind, reads, err, want)
		}
	}
}

// TestPrepareSeesNewSchema knows a table as soon as it has been created.
func TestPrepareSeesNewSchema(t *testing.T) {
	d := openNew(t)
	changes := []struct{ sql, column string }{{"CREATE TABLE s (a)", "a"}, {"ALTER TABLE s ADD COLUMN b", "b"}, {"ALTER TABLE s RENAME COLUMN b TO c", "c"}}
	for _, change := range changes {
		req := &command.Request{Kind: command.Unified, Statements: statements("SELECT " + change.column + " FROM s")}
		if reads, err := d.Prepare(req); err != nil || reads {
			t.Errorf("before %s: %t, %v; want a write", change.sql, reads, err)
		}
		exec(t, d, change.sql)
		if reads, err := d.Prepare(req); err != nil || !reads {
			t.Errorf("after %s: %t, %v; want a read", change.sql, reads, err)
		}
	}
}

// FuzzScan compares the scanner with SQLite: what SQLite takes for a refused statement must not
// get past it.
func FuzzScan(f *testing.F) {
	d := openNew(f)
	c, err := d.judges.get(f.Context())
	if err != nil {
		f.Fatal(err)
	}
	defer func() {
		if err := d.judges.put(c); err != nil {
			f.Error(err)
		}
	}()
	for _, sql := range []string{"PRAGMA main.journal_mode = x", "SELECT 1; ATTACH 'x' AS y", "CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT 1; END; DETACH z",
		"/**/PRAGMA[synchronous](2)", "EXPLAIN PRAGMA wal_checkpoint", "SELECT '''', \"\"\"\", [x], `a`; --x\nPRAGMA query_only=1", "PRAGMA 'query_only'=1"} {
		f.Add(sql)
	}
	f.Fuzz(func(t *testing.T, sql string) {
		sc := scanSQL(sql)
		for rest := sql; rest != ""; {
			s, tail, err := c.prepare(rest)
			if denied := int(c.c.denied); err != nil && denied != 0 && sc.refused == nil {
				t.Fatalf("SQLite says %v of %q, which was let pass", err, rest)
			}
			if err != nil || s == nil {
				break
			}
			c.release(s)
			rest = tail
		}
	})
}

// TestBothGuardsAgree prepares what the scanner refuses without asking the scanner.
func TestBothGuardsAgree(t *testing.T) {
	d := openNew(t)
	for name, rule := range pragmas {
		tests := map[string]bool{"PRAGMA " + name + "=1": true, "PRAGMA main." + name + "(1)": true, "PRAGMA " + name: rule == never}
		for sql, refused := range tests {
			s, _, err := d.writer.prepare(sql)
			if s != nil {
				d.writer.release(s)
			}
			if refused != (err != nil && err.Error() == msgPragma) {
				t.Errorf("%s: %v; refused: want %t", sql, err, refused)
			}
		}
	}
}
