package db

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rqlited/command"
	"rqlited/internal/vfs"
)

// backUp returns a backup of the database as it is now.
func backUp(t testing.TB, d *DB, req command.BackupRequest) []byte {
	t.Helper()
	b, err := d.BeginBackup()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := b.Write(t.Context(), &out, &req); err != nil {
		t.Fatal(err)
	}
	noCopies(t, d)
	return out.Bytes()
}

func noCopies(t testing.TB, d *DB) {
	t.Helper()
	left, err := filepath.Glob(d.path + tempSuffix + "*")
	if err != nil || len(left) > 0 {
		t.Errorf("%q were left, %v", left, err)
	}
}

// hashOf returns the state hash of a SQLite file.
func hashOf(t testing.TB, data []byte) string {
	t.Helper()
	d := openNew(t)
	if resp := apply(t, d, &command.Entry{Kind: command.Load, Data: data}); len(resp.Results) > 0 {
		t.Fatalf("load: %s", show(resp.Results...))
	}
	return hashNow(t, d)
}

var backupFormats = []struct {
	name string
	req  command.BackupRequest
	mode byte
}{
	{"binary", command.BackupRequest{Format: command.BackupBinary}, walFormat},
	{"delete", command.BackupRequest{Format: command.BackupDelete}, deleteFormat},
	{"vacuum", command.BackupRequest{Format: command.BackupBinary, Vacuum: true}, deleteFormat},
}

// TestBackup backs databases up whose content lies in the main file, in the WAL, and in both.
func TestBackup(t *testing.T) {
	states := []struct {
		name string
		make func(t *testing.T, d *DB)
	}{
		{"empty", func(*testing.T, *DB) {}},
		{"in the WAL", func(t *testing.T, d *DB) { exec(t, d, setup, "INSERT INTO t(n) VALUES('a')") }},
		{"in the main file", func(t *testing.T, d *DB) { exec(t, d, setup); captureAll(t, d) }},
		{"in both", func(t *testing.T, d *DB) {
			exec(t, d, setup, "INSERT INTO t(n) VALUES(hex(zeroblob(30000)))")
			captureAll(t, d)
			exec(t, d, "INSERT INTO t(n) VALUES(hex(zeroblob(60000)))")
		}},
		{"smaller than the main file", func(t *testing.T, d *DB) {
			exec(t, d, setup, "INSERT INTO t(n) VALUES(hex(zeroblob(30000)))")
			captureAll(t, d)
			exec(t, d, "DELETE FROM t", "VACUUM")
		}},
		{"with free pages", func(t *testing.T, d *DB) {
			exec(t, d, setup, "INSERT INTO t(n) VALUES(hex(zeroblob(30000)))", "DELETE FROM t")
		}},
	}
	for _, st := range states {
		for _, f := range backupFormats {
			t.Run(st.name+"/"+f.name, func(t *testing.T) {
				d := openNew(t)
				st.make(t, d)
				want := hashNow(t, d)
				data := backUp(t, d, f.req)
				if m := [2]byte(data[headerFormats:]); m != [2]byte{f.mode, f.mode} {
					t.Errorf("header says %v; want mode %d", m, f.mode)
				}
				if got := hashOf(t, data); got != want {
					t.Errorf("hash of the backup is %s; want %s", got, want)
				}
				if f.name == "binary" && !bytes.Equal(data, checkpointed(t, d)) {
					t.Error("the backup is not the file that a checkpoint would make")
				}
				exec(t, d, "CREATE TABLE after (x)") // the writer goes on
				captureAll(t, d)
			})
		}
	}
}

// captureAll captures, and gives the capture up.
func captureAll(t testing.TB, d *DB) {
	t.Helper()
	c, err := d.Capture("")
	if err != nil {
		t.Fatal(err)
	}
	c.Release()
}

// slowWriter does something when the first byte comes.
type slowWriter struct {
	bytes.Buffer
	first func()
}

func (w *slowWriter) Write(p []byte) (int, error) {
	if w.first != nil {
		w.first()
		w.first = nil
	}
	return w.Buffer.Write(p)
}

// TestBackupMoment has the database changed in all ways between the beginning of a backup and its end.
func TestBackupMoment(t *testing.T) {
	image := filepath.Join(t.TempDir(), "other")
	for _, f := range backupFormats {
		t.Run(f.name, func(t *testing.T) {
			d := openNew(t)
			exec(t, d, setup, "INSERT INTO t(n) VALUES(hex(zeroblob(30000)))")
			captureAll(t, d)
			exec(t, d, "UPDATE t SET n='changed'||n", "INSERT INTO t(n) VALUES('b')")
			want := hashNow(t, d)
			b, err := d.BeginBackup()
			if err != nil {
				t.Fatal(err)
			}
			exec(t, d, "DELETE FROM t", "INSERT INTO t(n) VALUES('later')")
			if _, err := d.Capture(""); !errors.Is(err, ErrBusy) {
				t.Errorf("Capture beside a pinned state = %v; want ErrBusy", err)
			}
			w := &slowWriter{first: func() { // the state is not pinned any more
				exec(t, d, "CREATE TABLE later (x)")
				captureAll(t, d)
				image := filepath.Join(filepath.Dir(d.path), filepath.Base(image))
				if err := errors.Join(writeAll(d.fs, image, sqliteFile(t, "CREATE TABLE other (x)")), d.Replace(image, "")); err != nil {
					t.Error(err)
				}
			}}
			if err := b.Write(t.Context(), w, &f.req); err != nil {
				t.Fatal(err)
			}
			if got := hashOf(t, w.Bytes()); got != want {
				t.Errorf("hash of the backup is %s; want %s", got, want)
			}
			noCopies(t, d)
		})
	}
}

// TestBackupReplaced replaces the database between the beginning of a backup and its copy.
func TestBackupReplaced(t *testing.T) {
	d := openNew(t)
	exec(t, d, setup, "INSERT INTO t(n) VALUES('a')")
	want := hashNow(t, d)
	b, err := d.BeginBackup()
	if err != nil {
		t.Fatal(err)
	}
	apply(t, d, &command.Entry{Kind: command.Load, Data: sqliteFile(t, "CREATE TABLE other (x)")})
	var out bytes.Buffer
	if err := b.Write(t.Context(), &out, &command.BackupRequest{Format: command.BackupBinary}); err != nil {
		t.Fatal(err)
	}
	if got := hashOf(t, out.Bytes()); got != want {
		t.Errorf("hash of the backup is %s; want %s", got, want)
	}
}

func TestBackupRefused(t *testing.T) {
	d := openNew(t)
	exec(t, d, setup)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	full := errors.New("client is gone")
	tests := []struct {
		name string
		ctx  context.Context
		w    io.Writer
		req  command.BackupRequest
		want error
	}{
		{"no format", t.Context(), io.Discard, command.BackupRequest{}, command.ErrBackupFormat},
		{"vacuumed SQL", t.Context(), io.Discard, command.BackupRequest{Format: command.BackupSQL, Vacuum: true}, command.ErrBackupFormat},
		{"at its end", ended, io.Discard, command.BackupRequest{Format: command.BackupBinary}, context.Canceled},
		{"writer", t.Context(), failingWriter{full}, command.BackupRequest{Format: command.BackupBinary}, full},
		{"writer of SQL", t.Context(), failingWriter{full}, command.BackupRequest{Format: command.BackupSQL}, full},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b, err := d.BeginBackup()
			if err != nil {
				t.Fatal(err)
			}
			if err := b.Write(tt.ctx, tt.w, &tt.req); !errors.Is(err, tt.want) {
				t.Errorf("Write = %v; want %v", err, tt.want)
			}
			noCopies(t, d)
			captureAll(t, d) // nothing is pinned
		})
	}
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }

// smallDisk has little room.
type smallDisk struct {
	vfs.FS
	free int64
}

func (s smallDisk) Free(string) (int64, error) { return s.free, nil }

func TestBackupNoSpace(t *testing.T) {
	d := open(t, testPath(t), Config{FS: smallDisk{vfs.OS, 1 << 20}})
	exec(t, d, setup)
	for _, f := range backupFormats {
		b, err := d.BeginBackup()
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Write(t.Context(), io.Discard, &f.req); !errors.Is(err, ErrNoSpace) {
			t.Errorf("%s: Write on a full disk = %v; want ErrNoSpace", f.name, err)
		}
	}
	if _, err := d.Receive(t.Context(), bytes.NewReader(sqliteFile(t, "CREATE TABLE t (x)"))); !errors.Is(err, ErrNoSpace) {
		t.Errorf("Receive on a full disk = %v; want ErrNoSpace", err)
	}
	noCopies(t, d)
}

// TestBackupClosed closes the database beside backups that have begun, and one that is being sent.
func TestBackupClosed(t *testing.T) {
	d := open(t, testPath(t), Config{})
	exec(t, d, setup)
	idle, err := d.BeginBackup()
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range []command.BackupFormat{command.BackupBinary, command.BackupSQL} {
		d := open(t, testPath(t), Config{})
		exec(t, d, setup)
		b, err := d.BeginBackup()
		if err != nil {
			t.Fatal(err)
		}
		w := &slowWriter{first: func() {
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		}}
		if err := b.Write(t.Context(), w, &command.BackupRequest{Format: format}); err != nil || w.Len() == 0 {
			t.Errorf("Write beside Close = %v, %d bytes", err, w.Len())
		}
		noCopies(t, d)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := idle.Write(t.Context(), io.Discard, &command.BackupRequest{Format: command.BackupBinary}); err == nil {
		t.Error("Write after Close succeeded")
	}
	if _, err := d.BeginBackup(); !errors.Is(err, ErrClosed) {
		t.Errorf("BeginBackup after Close = %v; want ErrClosed", err)
	}
}

// TestBackupDamaged makes sure that a damaged page gets into no backup, a cloned one included.
func TestBackupDamaged(t *testing.T) {
	path := testPath(t)
	d := open(t, path, Config{})
	exec(t, d, setup, "INSERT INTO t(n) VALUES(hex(zeroblob(30000)))")
	captureAll(t, d)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{1, 2, 3}, 3*4096+1000); err != nil {
		t.Fatal(err)
	}
	b, err := d.BeginBackup()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := b.Write(t.Context(), &out, &command.BackupRequest{Format: command.BackupBinary}); !errors.Is(err, ErrDamaged) || out.Len() > 0 {
		t.Errorf("Write = %v after %d bytes; want ErrDamaged before the first", err, out.Len())
	}
	if err := f.Close(); err != nil { // drops SQLite's locks; nothing is done any more
		t.Fatal(err)
	}
}

// dumpFile is a backup as SQL of what a file holds.
func dumpFile(t *testing.T, data []byte, tables ...string) string {
	t.Helper()
	d := openNew(t)
	if resp := apply(t, d, &command.Entry{Kind: command.Load, Data: data}); len(resp.Results) > 0 {
		t.Fatalf("load: %s", show(resp.Results...))
	}
	return string(backUp(t, d, command.BackupRequest{Format: command.BackupSQL, Tables: tables}))
}

// TestDumpGolden compares with what rqlite has made of the same database.
func TestDumpGolden(t *testing.T) {
	f, err := os.Open("testdata/rqlite_backup.sqlite.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/rqlite_dump.sql")
	if err != nil {
		t.Fatal(err)
	}
	if got := dumpFile(t, data); got != string(want) {
		t.Errorf("dump is\n%s\nwant that in rqlite_dump.sql", got)
	}
}

const weird = `CREATE TABLE aa(id INTEGER PRIMARY KEY AUTOINCREMENT, x);
INSERT INTO aa VALUES(1,1),(2,2);
CREATE TABLE "we""ird ta" ("co l" TEXT, b BLOB, r REAL, i INTEGER, n, d DATE, bo BOOLEAN);
INSERT INTO "we""ird ta" VALUES('it''s "q"
nl',X'00FF',1.5,9223372036854775807,NULL,'2024-01-01',1),(NULL,X'',1e100,-1,1.0,1700000000,0);
CREATE INDEX ix ON aa(x);
ANALYZE aa;
CREATE VIEW vw AS SELECT * FROM aa;
CREATE TRIGGER trg AFTER INSERT ON aa BEGIN SELECT 1; END;`

func TestDumpForm(t *testing.T) {
	const want = `PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE aa(id INTEGER PRIMARY KEY AUTOINCREMENT, x);
INSERT INTO "aa" VALUES(1,1);
INSERT INTO "aa" VALUES(2,2);
DELETE FROM "sqlite_sequence";;
INSERT INTO "sqlite_sequence" VALUES('aa',2);
ANALYZE "sqlite_master";;
INSERT INTO "sqlite_stat1" VALUES('aa','ix','2 1');
CREATE TABLE "we""ird ta" ("co l" TEXT, b BLOB, r REAL, i INTEGER, n, d DATE, bo BOOLEAN);
INSERT INTO "we""ird ta" VALUES('it''s "q"
nl',X'00FF',1.5,9223372036854775807,NULL,'2024-01-01',1);
INSERT INTO "we""ird ta" VALUES(NULL,X'',1.0e+100,-1,1.0,1700000000,0);
CREATE INDEX ix ON aa(x);
CREATE VIEW vw AS SELECT * FROM aa;
CREATE TRIGGER trg AFTER INSERT ON aa BEGIN SELECT 1; END;
COMMIT;
`
	data := sqliteFile(t, weird)
	if got := dumpFile(t, data); got != want {
		t.Errorf("dump is\n%s\nwant\n%s", got, want)
	}
	if got := dumpFile(t, data, "AA"); strings.Contains(got, "we\"\"ird") || strings.Contains(got, "sqlite_") ||
		!strings.Contains(got, `INSERT INTO "aa" VALUES(2,2);`) || !strings.Contains(got, "CREATE VIEW vw") {
		t.Errorf("dump of one table is\n%s", got)
	}
}

// TestDumpRestores loads dumps as a client does, with foreign keys enforced, and compares what SQL sees.
func TestDumpRestores(t *testing.T) {
	tests := []struct{ name, sql, query string }{
		{"weird", weird, "SELECT * FROM aa, sqlite_sequence; SELECT * FROM \"we\"\"ird ta\"; SELECT * FROM sqlite_stat1"},
		{"generated columns", "CREATE TABLE g (a, b AS (a+1), c AS (a*2) STORED, d); INSERT INTO g(a,d) VALUES(1,2)", "SELECT * FROM g"},
		{"strict, without rowid", "CREATE TABLE s (k TEXT PRIMARY KEY, v ANY) STRICT, WITHOUT ROWID; INSERT INTO s VALUES('a',1.0),('b','1.0')", "SELECT k, quote(v) FROM s"},
		{"numbers after all others", "CREATE TABLE zz (id INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO zz VALUES(5); DELETE FROM zz", "SELECT * FROM sqlite_sequence"},
		{"numbers of dropped tables", "CREATE TABLE zz (id INTEGER PRIMARY KEY AUTOINCREMENT); DROP TABLE zz; CREATE TABLE a (x)", "SELECT name FROM sqlite_schema WHERE name='a'"},
		{"zero bytes", `CREATE TABLE z (t); INSERT INTO z VALUES('a'||char(0)||'b''\0c'), (char(0)), ('\0\00'||char(0)||'0'), (CAST(X'FF27' AS TEXT)), (CAST(X'FF0027' AS TEXT))`,
			"SELECT hex(t), typeof(t) FROM z"},
		{"numbers", "CREATE TABLE r (v); INSERT INTO r VALUES(9e999),(-9e999),(0.1),(1e-320),(-0.0),(9007199254740993.0),(-9223372036854775808)", "SELECT quote(v), typeof(v) FROM r"},
		{"foreign keys", "CREATE TABLE a (p REFERENCES z(id)); CREATE TABLE z (id PRIMARY KEY); INSERT INTO a VALUES(1); INSERT INTO z VALUES(1)", "SELECT * FROM a, z"},
		{"fts5", `CREATE VIRTUAL TABLE f USING fts5(a, "b c", prefix='2'); INSERT INTO f(rowid,a,"b c") VALUES(7,'one two','three');
			INSERT INTO f(f,rank) VALUES('rank','bm25(10.0,1.0)')`, `SELECT rowid, * FROM f('two'); SELECT v FROM f_config WHERE k='rank'`},
		{"fts5 beside a table", `CREATE TABLE texts (id INTEGER PRIMARY KEY, t); INSERT INTO texts VALUES(3,'one two'),(4,'three');
			CREATE VIRTUAL TABLE f USING fts5(t, content='texts', content_rowid='id'); INSERT INTO f(f) VALUES('rebuild')`, "SELECT rowid, t FROM f('two')"},
		{"fts5 of a view", `CREATE TABLE texts (id INTEGER PRIMARY KEY, t); INSERT INTO texts VALUES(3,'one two');
			CREATE VIEW vw AS SELECT id, t||' more' AS t FROM texts;
			CREATE VIRTUAL TABLE a USING fts5(t, content=vw, content_rowid=id); INSERT INTO a(a) VALUES('rebuild')`, "SELECT rowid FROM a('more')"},
		{"fts5 of a dropped table", `CREATE TABLE texts (t); CREATE VIRTUAL TABLE f USING fts5(t, content=texts); DROP TABLE texts`, "SELECT count(*) FROM sqlite_schema"},
		{"fts5 of nothing", `CREATE VIRTUAL TABLE f USING fts5(content, content=''); CREATE TABLE t(x)`, "SELECT count(*) FROM sqlite_schema"},
		{"fts5 with a column content", `CREATE VIRTUAL TABLE f USING fts5(content); INSERT INTO f VALUES('one')`, "SELECT * FROM f('one')"},
		{"fts5vocab", `CREATE VIRTUAL TABLE a USING fts5vocab(f, 'row'); CREATE VIRTUAL TABLE f USING fts5(x); INSERT INTO f VALUES('one two')`, "SELECT term FROM a"},
		{"fts4", `CREATE VIRTUAL TABLE f USING fts4(a, tokenize=porter); INSERT INTO f(docid,a) VALUES(9,'running')`, "SELECT docid, a FROM f WHERE f MATCH 'run'"},
		{"fts4 beside a table", `CREATE TABLE texts (t); INSERT INTO texts VALUES('one two'); CREATE VIRTUAL TABLE f USING fts4(content="texts", t);
			INSERT INTO f(f) VALUES('rebuild')`, "SELECT docid FROM f WHERE f MATCH 'two'"},
		{"rtree", "CREATE VIRTUAL TABLE r USING rtree(id, x0, x1, +label); INSERT INTO r VALUES(5, 1.1, 2.2, 'a'), (6, -1e30, 1e30, NULL)", "SELECT * FROM r WHERE x0<1.5"},
		{"rtree_i32", "CREATE VIRTUAL TABLE r USING rtree_i32(id, x0, x1); INSERT INTO r VALUES(5, 1, 2)", "SELECT * FROM r"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dumped := dumpFile(t, sqliteFile(t, tt.sql))
			d := open(t, testPath(t), Config{ForeignKeys: true})
			req, err := command.ScriptRequest(dumped)
			if err != nil {
				t.Fatal(err)
			}
			if readOnly, err := d.Prepare(req); err != nil || readOnly {
				t.Fatalf("Prepare = %t, %v", readOnly, err)
			}
			resp := request(t, d, *req)
			if len(resp.Results) != 1 || resp.Results[0].Error != "" {
				t.Fatalf("loading the dump: %s\n%s", show(resp.Results...), dumped)
			}
			original := openNew(t)
			apply(t, original, &command.Entry{Kind: command.Load, Data: sqliteFile(t, tt.sql)})
			for q := range strings.SplitSeq(tt.query, ";") {
				want, got := show(query(t, original, q).Results...), show(query(t, d, q).Results...)
				if got != want || strings.Contains(want, "error") {
					t.Errorf("%s: %s; want %s\n%s", q, got, want, dumped)
				}
			}
			if got := value(t, d, "PRAGMA integrity_check"); got != "ok" {
				t.Errorf("integrity check: %v", got)
			}
			if again := string(backUp(t, d, command.BackupRequest{Format: command.BackupSQL})); again != dumped {
				t.Errorf("dump of the dump is\n%s\nwant\n%s", again, dumped)
			}
			if got := show(request(t, d, command.Request{Kind: command.Execute, Statements: statements(
				"CREATE TABLE parent (id INTEGER PRIMARY KEY)", "CREATE TABLE child (p REFERENCES parent)", "INSERT INTO child VALUES(9)")}).Results[2]); got != "error FOREIGN KEY constraint failed" {
				t.Errorf("after the load foreign keys are not enforced: %s", got)
			}
		})
	}
}

// TestScript pins what an error in a script leaves.
func TestScript(t *testing.T) {
	tests := []struct{ name, script, want, left string }{
		{"in a transaction of its own", "BEGIN; CREATE TABLE a (x); INSERT INTO nope VALUES(1); COMMIT;", "error no such table: nope", "[[0]]"},
		{"without one", "CREATE TABLE a (x); INSERT INTO nope VALUES(1); CREATE TABLE b (x)", "error no such table: nope", "[[1]]"},
		{"not ended", "BEGIN; CREATE TABLE a (x)", "error " + msgOpen, "[[0]]"},
		{"good", "BEGIN; CREATE TABLE a (x); INSERT INTO a VALUES(1); COMMIT;", "1/1", "[[1]]"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := openNew(t)
			req, err := command.ScriptRequest(tt.script)
			if err != nil {
				t.Fatal(err)
			}
			if got := show(request(t, d, *req).Results...); got != tt.want {
				t.Errorf("result is %s; want %s", got, tt.want)
			}
			if got := show(query(t, d, "SELECT count(*) FROM sqlite_schema").Results...); got != tt.left {
				t.Errorf("tables: %s; want %s", got, tt.left)
			}
		})
	}
}

func TestReceive(t *testing.T) {
	good := sqliteFile(t, "CREATE TABLE l (x); INSERT INTO l VALUES(42)")
	damaged := bytes.Clone(good)
	copy(damaged[4096:], bytes.Repeat([]byte{0xff}, 4096))
	cut := fmt.Errorf("connection: %w", io.ErrUnexpectedEOF)
	tests := []struct {
		name string
		r    io.Reader
		want error
	}{
		{"good", bytes.NewReader(good), nil},
		{"byte by byte", oneByte{bytes.NewReader(good)}, nil},
		{"in WAL mode", bytes.NewReader(append(append(bytes.Clone(good[:18]), 2, 2), good[20:]...)), nil},
		{"empty", bytes.NewReader(nil), ErrNotDatabase},
		{"damaged", bytes.NewReader(damaged), ErrNotDatabase},
		{"part of a page", bytes.NewReader(good[:len(good)-1]), ErrNotDatabase},
		{"text", strings.NewReader("BEGIN; COMMIT"), ErrNotDatabase},
		{"cut off", io.MultiReader(bytes.NewReader(good), failingReader{cut}), cut},
		{"cut off by io.ErrUnexpectedEOF", io.MultiReader(bytes.NewReader(good), failingReader{io.ErrUnexpectedEOF}), io.ErrUnexpectedEOF},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := openNew(t)
			u, err := d.Receive(t.Context(), tt.r)
			if !errors.Is(err, tt.want) {
				t.Fatalf("Receive = %v; want %v", err, tt.want)
			}
			if err == nil {
				if u.Size() != int64(len(good)) || u.Pages() != uint32(len(good)/4096) {
					t.Errorf("%d bytes, %d pages", u.Size(), u.Pages())
				}
				buf := make([]byte, u.PageSize())
				var pages []byte
				for {
					if _, err := u.NextPage(buf); err != nil {
						break
					}
					pages = append(pages, buf...)
				}
				if len(pages) != len(good) || pages[18] != walFormat || pages[19] != walFormat || !bytes.Equal(pages[20:], good[20:]) {
					t.Error("the pages are not those of the file")
				}
				if err := u.Close(); err != nil {
					t.Error(err)
				}
			}
			noCopies(t, d)
		})
	}
}

type oneByte struct{ r io.Reader }

func (o oneByte) Read(p []byte) (int, error) { return o.r.Read(p[:1]) }

type failingReader struct{ err error }

func (r failingReader) Read([]byte) (int, error) { return 0, r.err }
