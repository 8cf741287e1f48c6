package db

import (
	"fmt"
	"strings"
	"testing"

	"rqlited/command"
)

// TestChecksOfReaders lets a reader check full-text tables that it has read before they were written, by whatever
// way the statement comes to the check. FTS5 would report damage that there is not.
func TestChecksOfReaders(t *testing.T) {
	checks := []string{"PRAGMA integrity_check", "PRAGMA quick_check", "SELECT * FROM pragma_integrity_check", "SELECT * FROM checked"}
	writes := map[string]func(t *testing.T, d *DB){
		"written": func(t *testing.T, d *DB) {
			exec(t, d, "INSERT INTO f VALUES('c d')", "INSERT INTO f(f) VALUES('optimize')")
		},
		"rolled back": func(t *testing.T, d *DB) {
			exec(t, d, "INSERT INTO f VALUES('c d')", "BEGIN", "DELETE FROM f", "ROLLBACK")
		},
		"rebuilt": func(t *testing.T, d *DB) {
			exec(t, d, "DELETE FROM f WHERE rowid%2", "INSERT INTO f(f) VALUES('rebuild')", "PRAGMA user_version=7")
		},
		"replaced": func(t *testing.T, d *DB) {
			other := sqliteFile(t, "CREATE VIRTUAL TABLE f USING fts5(x); INSERT INTO f VALUES('z'), ('y'); CREATE VIEW checked AS SELECT * FROM pragma_integrity_check")
			if err := d.Replace(imageOf(t, d, other), "7-7"); err != nil {
				t.Fatal(err)
			}
		},
	}
	for name, write := range writes {
		for _, sql := range checks {
			t.Run(name+", "+sql, func(t *testing.T) {
				d := open(t, testPath(t), Config{MaxReaders: 1})
				exec(t, d, "CREATE VIRTUAL TABLE f USING fts5(x)", "CREATE VIEW checked AS SELECT * FROM pragma_integrity_check")
				for i := range 20 {
					exec(t, d, fmt.Sprintf("INSERT INTO f VALUES('a%d b')", i))
				}
				query(t, d, "SELECT count(*) FROM f WHERE f MATCH 'b'")
				write(t, d)
				if got := value(t, d, sql); got != "ok" {
					t.Errorf("a reader that has read before says %v", got)
				}
				write(t, d)
				req := &command.Request{Kind: command.Query, Transaction: true, Statements: statements("SELECT count(*) FROM f WHERE f MATCH 'b'", sql)}
				resp, err := d.Query(t.Context(), req)
				if err != nil || !strings.HasSuffix(show(resp.Results...), `[["ok"]]`) {
					t.Errorf("in a transaction: %v, %v", show(resp.Results...), err)
				}
			})
		}
	}
}

// TestUnsettledWriter: a connection on which something goes on behind an entry is not used for the next one.
func TestUnsettledWriter(t *testing.T) {
	d := openNew(t)
	exec(t, d, "CREATE TABLE t(x)")
	for _, sql := range []string{"BEGIN IMMEDIATE", "BEGIN; SELECT * FROM t", "BEGIN; INSERT INTO t VALUES(1)"} {
		c := d.writer
		c.beginEntry(0, 1)
		if err := c.exec(sql); err != nil {
			t.Fatal(err)
		}
		c.endEntry()
		if !c.tainted {
			t.Errorf("%s: the connection would be used again", sql)
		}
		exec(t, d, "DELETE FROM t")
		if d.writer == c {
			t.Errorf("%s: the connection was used again", sql)
		}
		exec(t, d, "INSERT INTO t VALUES(2)")
	}
	if got := value(t, d, "SELECT group_concat(x) FROM t"); got != "2" {
		t.Errorf("rows are %v, want 2", got)
	}
}

// TestCountersOfResults: what results count does not depend on whether the connection was replaced before. A statement
// that touches no row counts none; one that counts nothing repeats the last number, as in rqlite.
func TestCountersOfResults(t *testing.T) {
	for _, replace := range []bool{false, true} {
		d := openNew(t)
		exec(t, d, "CREATE TABLE t(x UNIQUE)", "INSERT INTO t VALUES(1), (2)")
		for _, tt := range []struct{ sql, want string }{
			{"CREATE TABLE u(x)", "2/2"},
			{"UPDATE t SET x=x WHERE x>5", "2/0"},
			{"INSERT INTO t VALUES(3), (4), (5)", "5/3"},
			{"DELETE FROM t WHERE x>5", "5/0"},
			{"UPDATE t SET x=x", "5/5"},
			{"INSERT OR IGNORE INTO t VALUES(1)", "5/0"},
			{"DELETE FROM t WHERE x=5", "5/1"},
			{"INSERT INTO t VALUES(1) ON CONFLICT DO NOTHING", "5/0"},
			{"PRAGMA user_version=3", "5/0"},
			{"UPDATE t SET x=x WHERE x<3", "5/2"},
			{"DROP TABLE u", "5/2"},
		} {
			if replace {
				if err := d.reopenWriter(); err != nil {
					t.Fatal(err)
				}
			}
			resp := request(t, d, command.Request{Kind: command.Execute, Statements: statements(tt.sql)})
			if got := show(resp.Results...); got != tt.want {
				t.Errorf("%s, connection replaced before %t: %s, want %s", tt.sql, replace, got, tt.want)
			}
		}
	}
}
