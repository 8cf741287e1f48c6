package db

import (
	"fmt"
	"strings"
	"testing"

	"rqlited/command"
)

const largest = "9223372036854775807"

// TestLargestRowid tries every way to give a row the rowid after which SQLite would draw random ones.
func TestLargestRowid(t *testing.T) {
	refused := func(table string) string { return "error " + fmt.Sprintf(msgRowid, table) }
	const two = "CREATE TABLE m(id INTEGER PRIMARY KEY, x UNIQUE)"
	tests := []struct {
		name, want string // the last result
		sql        []string
	}{
		{"INSERT", refused("m"), []string{two, "INSERT INTO m VALUES(" + largest + ",1)"}},
		{"rowid", refused("n"), []string{"CREATE TABLE n(x)", "INSERT INTO n(rowid, x) VALUES(" + largest + ",1)"}},
		{"a text", refused("m"), []string{two, "INSERT INTO m VALUES('" + largest + "',1)"}},
		{"after the last but one", refused("m"), []string{two, "INSERT INTO m VALUES(9223372036854775806,1)", "INSERT INTO m(x) VALUES(2)"}},
		{"UPDATE", refused("m"), []string{two, "INSERT INTO m VALUES(1,1)", "UPDATE m SET id=" + largest}},
		{"REPLACE", refused("m"), []string{two, "REPLACE INTO m VALUES(" + largest + ",1)"}},
		{"OR IGNORE", refused("m"), []string{two, "INSERT OR IGNORE INTO m VALUES(" + largest + ",1)"}},
		{"OR FAIL", refused("m"), []string{two, "INSERT OR FAIL INTO m VALUES(" + largest + ",1),(1,1)"}},
		{"UPSERT", refused("m"), []string{two, "INSERT INTO m VALUES(1,1)", "INSERT INTO m VALUES(1,1) ON CONFLICT(id) DO UPDATE SET id=" + largest}},
		{"INSERT SELECT", refused("m"), []string{two, "CREATE TABLE s(id INTEGER PRIMARY KEY AUTOINCREMENT, x UNIQUE)", "INSERT INTO s VALUES(" + largest + ",1)", "INSERT INTO m SELECT * FROM s"}},
		{"INSERT SELECT between equal tables", refused("m"), []string{"CREATE TABLE m(id INTEGER PRIMARY KEY, x)", "CREATE TABLE s(id INTEGER PRIMARY KEY AUTOINCREMENT, x)", "INSERT INTO s VALUES(" + largest + ",1)", "INSERT INTO m SELECT * FROM s"}},
		{"trigger", refused("m"), []string{two, "CREATE TABLE n(x)", "CREATE TRIGGER g AFTER INSERT ON n BEGIN INSERT INTO m VALUES(" + largest + ",1); END", "INSERT INTO n VALUES(1)"}},
		{"cascade", refused("c"), []string{"PRAGMA foreign_keys=1", two, "CREATE TABLE c(id INTEGER PRIMARY KEY REFERENCES m ON UPDATE CASCADE)", "INSERT INTO m VALUES(1,1)", "INSERT INTO c VALUES(1)",
			"CREATE TRIGGER g BEFORE UPDATE ON m BEGIN UPDATE c SET id=" + largest + "; END", "UPDATE m SET id=2"}},
		{"full-text", refused("f_content"), []string{"CREATE VIRTUAL TABLE f USING fts5(x)", "INSERT INTO f(rowid, x) VALUES(" + largest + ",1)"}},
		{"full-text without content", refused("f_docsize"), []string{"CREATE VIRTUAL TABLE f USING fts5(x, content='')", "INSERT INTO f(rowid, x) VALUES(" + largest + ",1)"}},
		{"full-text, version 4", refused("f_content"), []string{"CREATE VIRTUAL TABLE f USING fts4(x)", "INSERT INTO f(docid, x) VALUES(" + largest + ",1)"}},
		{"R-tree", refused("r_rowid"), []string{"CREATE VIRTUAL TABLE r USING rtree(id, a, b)", "INSERT INTO r VALUES(" + largest + ",1,2)"}},
		{"sqlite_sequence", refused("sqlite_sequence"), []string{"CREATE TABLE a(id INTEGER PRIMARY KEY AUTOINCREMENT)", "INSERT INTO a DEFAULT VALUES", "UPDATE sqlite_sequence SET rowid=" + largest}},
		{"sqlite_stat1", refused("sqlite_stat1"), []string{two, "ANALYZE", "INSERT INTO sqlite_stat1(rowid, tbl) VALUES(" + largest + ",1)"}},
		{"temporary table", refused("p"), []string{"CREATE TEMP TABLE p(x)", "INSERT INTO p(rowid) VALUES(" + largest + ")"}},
		{"RETURNING", "read " + refused("m"), []string{two, "INSERT INTO m VALUES(" + largest + ",1) RETURNING id"}},
		{"random for the rest", refused("m"), []string{two, "INSERT OR IGNORE INTO m VALUES(" + largest + ",1),(NULL,2),(NULL,3)"}},
		{"WITHOUT ROWID", "0/1", []string{"CREATE TABLE w(id INTEGER PRIMARY KEY) WITHOUT ROWID", "INSERT INTO w VALUES(" + largest + ")"}},
		{"AUTOINCREMENT", largest + "/1", []string{"CREATE TABLE a(id INTEGER PRIMARY KEY /* */ autoincrement)", "INSERT INTO a VALUES(" + largest + ")"}},
		{"AUTOINCREMENT in a comment", refused("a"), []string{"CREATE TABLE a(id INTEGER PRIMARY KEY) -- AUTOINCREMENT", "INSERT INTO a VALUES(" + largest + ")"}},
		{"AUTOINCREMENT used up", "error database or disk is full", []string{"CREATE TABLE a(id INTEGER PRIMARY KEY AUTOINCREMENT)", "INSERT INTO a VALUES(" + largest + ")", "INSERT INTO a DEFAULT VALUES"}},
		{"smallest", "-9223372036854775808/1", []string{two, "INSERT INTO m VALUES(-9223372036854775808,1)"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := openNew(t)
			sts := statements(tt.sql...)
			last := &sts[len(sts)-1]
			last.Returning = scanSQL(last.SQL).returning
			resp := request(t, d, command.Request{Kind: command.Execute, Statements: sts})
			if got := show(resp.Results[len(resp.Results)-1]); got != tt.want {
				t.Errorf("last result is\n%s; want\n%s, of %s", got, tt.want, show(resp.Results...))
			}
		})
	}
}

// TestLargestRowidRollsBack shows what is left of the transaction, and of what SQLite has counted and drawn.
func TestLargestRowidRollsBack(t *testing.T) {
	const insert = "INSERT INTO m VALUES(" + largest + ",1),(NULL,2),(NULL,3)"
	refused := fmt.Sprintf(msgRowid, "m")
	counters := "SELECT last_insert_rowid(), changes(), total_changes()"
	tests := []struct {
		name        string
		transaction bool
		sql         []string
		want        string
	}{
		{"on its own", false, []string{"INSERT INTO m VALUES(5,5)", insert, counters, "SELECT id FROM m"}, "5/1; error " + refused + "; [[5,0,1]]; [[5]]"},
		{"BEGIN", false, []string{"INSERT INTO m VALUES(5,5)", "BEGIN", "INSERT INTO m VALUES(6,6)", insert, counters, "COMMIT", "SELECT id FROM m"},
			"5/1; read error " + msgTakenBack + "; error " + msgTakenBack + "; error " + refused + "; [[6,0,2]]; read error cannot commit - no transaction is active; [[5]]"},
		{"with a row", false, []string{"INSERT INTO m VALUES(5,5)", insert + " RETURNING id", counters}, "5/1; error " + refused + "; [[5,0,1]]"},
		{"changes afterwards", false, []string{"INSERT INTO m VALUES(5,5)", insert, "INSERT INTO m VALUES(6,6)", counters}, "5/1; error " + refused + "; 6/1; [[6,1,2]]"},
		{"transaction of the request", true, []string{"INSERT INTO m VALUES(5,5)", insert, "SELECT 1"}, "5/1; error " + refused},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := openNew(t)
			exec(t, d, "CREATE TABLE m(id INTEGER PRIMARY KEY, x)")
			resp := request(t, d, command.Request{Kind: command.Unified, Transaction: tt.transaction, Statements: statements(tt.sql...)})
			if got := show(resp.Results...); got != tt.want {
				t.Errorf("results are\n%s; want\n%s", got, tt.want)
			}
			exec(t, d, "INSERT INTO m(x) VALUES(1)") // nothing was left open
		})
	}
}

// TestFullTables loads a file that holds the largest rowid in several tables.
func TestFullTables(t *testing.T) {
	image := sqliteFile(t, strings.Join([]string{"CREATE TABLE m(id INTEGER PRIMARY KEY, x)", "INSERT INTO m VALUES(" + largest + ",1)", "CREATE TABLE n(rowid, x)", "INSERT INTO n(oid) VALUES(" + largest + ")",
		"CREATE TABLE ok(x)", "CREATE TABLE a(id INTEGER PRIMARY KEY AUTOINCREMENT)", "INSERT INTO a VALUES(" + largest + ")",
		"CREATE VIRTUAL TABLE f USING fts5(x)", "INSERT INTO f(rowid, x) VALUES(" + largest + ",'a')", "CREATE VIRTUAL TABLE g USING fts5(x)",
		"CREATE TABLE h(x)", "CREATE TRIGGER tr AFTER INSERT ON h BEGIN INSERT INTO m(x) VALUES(1); END", "CREATE TABLE w(id PRIMARY KEY) WITHOUT ROWID"}, ";"))
	full := func(table string) string { return "error " + fmt.Sprintf(msgFull, table) }
	for _, prepared := range []bool{false, true} {
		d := openNew(t)
		exec(t, d, "CREATE TABLE m(id INTEGER PRIMARY KEY, x)", "INSERT INTO m(x) VALUES(2)")
		apply(t, d, &command.Entry{Kind: command.Load, Data: image})
		for _, st := range []struct{ sql, want string }{
			{"INSERT INTO m(x) VALUES(2)", full("m")},
			{"INSERT INTO m(x) VALUES(2)", full("m")}, // not from the cache
			{"INSERT INTO n(x) VALUES(2)", full("n")},
			{"INSERT INTO ok VALUES(2)", ""},
			{"INSERT INTO w VALUES(2)", ""},
			{"INSERT INTO f(x) VALUES(2)", full("f_content")},
			{"INSERT INTO g(x) VALUES(2)", ""},
			{"INSERT INTO h(x) VALUES(2)", full("m")},
			{"INSERT INTO a DEFAULT VALUES", "error database or disk is full"},
			{"UPDATE m SET x=3", ""},
			{"UPDATE m SET id=7", ""},
			{"INSERT INTO m(x) VALUES(2)", ""},
			{"DELETE FROM f", ""},
		} {
			if prepared {
				if err := d.reopenWriter(); err != nil { // as after a restart or a change of the schema
					t.Fatal(err)
				}
			}
			resp := request(t, d, command.Request{Kind: command.Execute, Statements: statements(st.sql)})
			got := show(resp.Results...)
			if st.want == "" && strings.HasPrefix(got, "error") || strings.HasPrefix(st.want, "error") && got != st.want {
				t.Errorf("%s: %s, want %s", st.sql, got, st.want)
			}
		}
	}
}
