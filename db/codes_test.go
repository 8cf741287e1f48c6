package db

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"rqlited/command"
)

// TestPermittedStatementsAreResults makes SQLite report codes that sound like a broken machine by
// statements that any client may send. If one of them stopped the node it would stop all
// nodes, and again at each start.
func TestPermittedStatementsAreResults(t *testing.T) {
	tests := []struct {
		name string
		sql  []string
		want string // the last result; what comes before "RESTORE" makes a snapshot that is restored
	}{
		{"AUTOINCREMENT used up", []string{"CREATE TABLE a (id INTEGER PRIMARY KEY AUTOINCREMENT, x)", "INSERT INTO a VALUES(9223372036854775807, 1)", "INSERT INTO a(x) VALUES(2)"}, "error database or disk is full"},
		{"page limit", []string{"PRAGMA max_page_count=2", "CREATE TABLE a(x)", "CREATE TABLE b(x)", "INSERT INTO a VALUES(zeroblob(100000))"}, "error database or disk is full"},
		{"damaged full-text index", []string{"CREATE VIRTUAL TABLE f USING fts5(x)", "INSERT INTO f VALUES('a b c')", "DELETE FROM f_data", "RESTORE", "INSERT INTO f VALUES('d')"}, "error fts5: corruption found reading blob 1 from table \"f\""},
		{"damaged full-text index, version 3", []string{"CREATE VIRTUAL TABLE f USING fts3(x)", "INSERT INTO f VALUES('a b c')", "UPDATE f_segdir SET root=x'ff'", "RESTORE", "INSERT INTO f(f) VALUES('optimize')", "SELECT * FROM f WHERE x MATCH 'a'"}, "error database disk image is malformed"},
		{"damaged sqlite_sequence", []string{"CREATE TABLE a (id INTEGER PRIMARY KEY AUTOINCREMENT, x)", "ALTER TABLE a RENAME TO b", "INSERT INTO sqlite_sequence VALUES('b','x')", "INSERT INTO b(x) VALUES(1)"}, "1/1"},
		{"R-tree written while read", []string{"CREATE VIRTUAL TABLE r USING rtree(id, a, b)", "INSERT INTO r VALUES(1,0,1),(2,0,1),(3,0,1)", "DELETE FROM r WHERE id IN (SELECT id FROM r WHERE a < 1)"}, "1/3"},
		{"too big", []string{"CREATE TABLE a(x)", "INSERT INTO a VALUES(zeroblob(2000000000))"}, "error string or blob too big"},
		{"deep expression", []string{"SELECT 1" + strings.Repeat("+1", 2000)}, "error Expression tree is too large (maximum depth 1000)"},
		{"integrity check of a full-text index", []string{"CREATE VIRTUAL TABLE f USING fts5(x)", "INSERT INTO f VALUES('a')", "DELETE FROM f_content", "RESTORE", "INSERT INTO f(f) VALUES('integrity-check')"}, "error database disk image is malformed"},
		{"tables behind a virtual table", []string{"CREATE VIRTUAL TABLE f USING fts5(x)", "DELETE FROM f_data"}, "error table f_data may not be modified"},
		{"index made under another LIKE", []string{"CREATE TABLE l(x)", "CREATE INDEX i ON l(x) WHERE x LIKE 'a%'", "PRAGMA case_sensitive_like=1", "INSERT INTO l VALUES('Ab')", "PRAGMA case_sensitive_like=0", "DELETE FROM l WHERE x='Ab'"}, "error database disk image is malformed"},
		{"row gone from an index", []string{"CREATE TABLE l(x, y)", "CREATE INDEX i ON l(y) WHERE x LIKE 'a%'", "INSERT INTO l VALUES('Ab', 1)", "PRAGMA case_sensitive_like=1", "DELETE FROM l WHERE rowid=1", "PRAGMA case_sensitive_like=0", "INSERT INTO l SELECT x, 2 FROM l INDEXED BY i WHERE y=1 AND x LIKE 'a%'"}, "error database disk image is malformed"},
		{"schema unreadable for one entry", []string{"CREATE TABLE l(x)", "CREATE INDEX i ON l(x) WHERE x LIKE 'a%'", "PRAGMA case_sensitive_like=1", "VACUUM", "SELECT 1 FROM l"}, "error malformed database schema (i) - non-deterministic functions prohibited in partial index WHERE clauses"},
		{"in its own way", []string{"CREATE VIRTUAL TABLE f USING fts4(x)", "INSERT INTO f VALUES('a')", "INSERT INTO f VALUES('a b')", "INSERT INTO f(x) SELECT optimize(f) FROM f WHERE f MATCH 'a*'"}, "error database is locked"},
		{"rollback while a statement reads", []string{"CREATE TABLE a(x UNIQUE)", "BEGIN", "INSERT INTO a VALUES(1)", "INSERT OR ROLLBACK INTO a SELECT x FROM a"}, "error UNIQUE constraint failed: a.x"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := openNew(t)
			sql := tt.sql
			if i := slices.Index(sql, "RESTORE"); i >= 0 {
				if err := d.Replace(imageFile(t, d, strings.Join(sql[:i], ";")), ""); err != nil {
					t.Fatal(err)
				}
				sql = sql[i+1:]
			}
			resp := request(t, d, command.Request{Kind: command.Execute, Statements: statements(sql...)})
			if got := show(resp.Results[len(resp.Results)-1]); got != tt.want {
				t.Errorf("last result is %s, want %s", got, tt.want)
			}
			exec(t, d, "CREATE TABLE works (x)")
		})
	}
}

// TestDamagedFile overwrites a page behind SQLite's back.
func TestDamagedFile(t *testing.T) {
	d := openNew(t)
	exec(t, d, setup, "INSERT INTO t(n) VALUES('a')")
	c, err := d.Capture("") // moves all pages into the main file
	if err != nil {
		t.Fatal(err)
	}
	c.Release()
	f, err := os.OpenFile(d.path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(bytes.Repeat([]byte{0xff}, c.PageSize()), int64(c.PageSize())); err != nil {
		t.Fatal(err)
	}
	if err := d.reopenWriter(); err != nil { // forget what is cached
		t.Fatal(err)
	}
	_, err = d.Apply(&command.Entry{Kind: command.Execute, Request: &command.Request{Statements: statements("UPDATE t SET n='b'")}})
	var e *sqlError
	if !errors.As(err, &e) || e.code != 11 {
		t.Errorf("Apply = %v, want SQLITE_CORRUPT", err)
	}
}

// TestFullDisk puts the device that is always full in the place of the WAL.
func TestFullDisk(t *testing.T) {
	d := openNew(t)
	exec(t, d, setup)
	if err := d.writer.close(); err != nil {
		t.Fatal(err)
	}
	wal := d.path + "-wal"
	if err := os.Remove(wal); err != nil {
		t.Fatal(err)
	}
	const full = 1<<8 | 7
	if err := syscall.Mknod(wal, syscall.S_IFCHR|0o600, full); err != nil {
		d.writer, _ = d.openWriter()
		t.Skip("making a device needs root:", err)
	}
	var err error
	if d.writer, err = d.openWriter(); err != nil {
		t.Fatal(err)
	}
	if d.seen, err = d.writer.walView(); err != nil { // the shared memory is new as well
		t.Fatal(err)
	}
	_, err = d.Apply(&command.Entry{Kind: command.Execute, Request: &command.Request{Statements: statements("CREATE TABLE u(a)")}})
	var e *sqlError
	if !errors.As(err, &e) || e.code != codeFull {
		t.Errorf("Apply on a full disk = %v, want SQLITE_FULL", err)
	}
}

// numberOfCodes is how many result codes sqlite3.h of SQLite 3.53 has.
const numberOfCodes = 113

// TestCodesAreDocumented keeps the table for people equal to what decides. With another SQLite its codes have to be
// looked at again: they are in its sqlite3.h, which Go does not see.
func TestCodesAreDocumented(t *testing.T) {
	if v := SQLiteVersion(); !strings.HasPrefix(v, "3.53.") {
		t.Errorf("SQLite is %s: compare the table in consistency.md with its sqlite3.h", v)
	}
	seen := map[string]bool{}
	for line := range strings.Lines(consistencyDoc(t)) {
		cells := strings.Split(line, "|")
		if len(cells) < 5 || !strings.HasPrefix(cells[1], " `SQLITE_") {
			continue
		}
		name, verdict := strings.Trim(cells[1], " `"), strings.TrimSpace(cells[3])
		code, err := strconv.Atoi(strings.TrimSpace(cells[2]))
		if err != nil {
			t.Fatal(line)
		}
		seen[name] = true
		plain, blamed := machineError(&sqlError{code: code}), machineError(&sqlError{code: code, full: true, out: true})
		bounded := code == codeNoMem || code == codeInterrupt // may be by a bound, which is a result
		want := "result"
		switch {
		case code&0xff == 0 || code == codeRow || code == codeDone:
			want = "no error"
		case plain != blamed || bounded || code == codeCorrupt || code == codeCorruptIndex:
			want = "depends"
		case plain:
			want = "stops"
		}
		if verdict != want {
			t.Errorf("%s: documented as %q, is %q", name, verdict, want)
		}
		if known := machineCodes[code]; known != "" && known != name {
			t.Errorf("%d is %s, and %s in machineCodes", code, name, known)
		}
	}
	if len(seen) != numberOfCodes {
		t.Errorf("%d codes are documented, SQLite has %d", len(seen), numberOfCodes)
	}
	for _, table := range []map[int]string{machineCodes, resultCodes} {
		for _, name := range table {
			if !seen[name] {
				t.Errorf("%s is missing in consistency.md", name)
			}
		}
	}
}
