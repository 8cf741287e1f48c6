package db

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"rqlited/command"
	"rqlited/internal/vfs"
)

// The tests in faults_test.go, here and in other packages, provoke what has broken other snapshot
// stores. docs/design/known-faults.md says what went wrong there; numbers are those of rqlite's
// tracker.

// killed returns the path of the database at path as a process finds it that is started after the
// present one was killed: in a copy of the directory, times included.
func killed(t testing.TB, path string) string {
	t.Helper()
	dir := t.TempDir()
	names, err := vfs.OS.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		from, to := filepath.Join(filepath.Dir(path), name), filepath.Join(dir, name)
		info, err := os.Stat(from)
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(from)
		if err = errors.Join(err, os.WriteFile(to, data, 0o600), os.Chtimes(to, time.Time{}, info.ModTime())); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, filepath.Base(path))
}

func mainFileOf(t testing.TB, d *DB) []byte {
	t.Helper()
	data, err := os.ReadFile(d.path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// snapshotNow captures d upon the head of s, compares the result with what SQLite's own checkpoint
// makes of the files, and publishes it.
func snapshotNow(t testing.TB, d *DB, s *chain) (delta bool) {
	t.Helper()
	want := checkpointed(t, d)
	c, got, err := s.take(t, d)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("the capture (delta %t, %d of %d pages) differs from SQLite's checkpoint", c.Delta(), c.Records(), c.Pages())
	}
	s.publish(t, c, got)
	return c.Delta()
}

// bulkTable makes a table of some pages, so that a delta to it is worth it, and a small one.
func bulkTable(t testing.TB, d *DB) {
	t.Helper()
	exec(t, d, "CREATE TABLE bulk (v BLOB)", "CREATE TABLE small (v)",
		"INSERT INTO bulk SELECT zeroblob(3000) FROM (WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<60) SELECT i FROM c)")
}

// TestFault1388: SQLite moved frames out of the WAL by itself, after 1000 pages or when a connection
// was closed, and the next increment lacked them (also #1497, #1877, #1882). Here nobody but a capture moves them.
func TestFault1388(t *testing.T) {
	d, err := Open(testPath(t), Config{})
	if err != nil {
		t.Fatal(err)
	}
	bulkTable(t, d)
	var s chain
	snapshotNow(t, d, &s)
	before := mainFileOf(t, d)
	for i := range 20 {
		exec(t, d, "INSERT INTO bulk SELECT randomblob(4000) FROM bulk LIMIT 60", fmt.Sprintf("PRAGMA user_version=%d", i)) // replaces the connection
		query(t, d, "PRAGMA cache_size=7", "SELECT count(*) FROM bulk")                                                     // and closes this one
	}
	if frames := d.WALSize() / 4096; frames <= 1000 {
		t.Errorf("the WAL has %d frames: SQLite would not have moved them anyway", frames)
	}
	if !bytes.Equal(mainFileOf(t, d), before) {
		t.Error("the main file has changed without a capture")
	}
	snapshotNow(t, d, &s)
	exec(t, d, "INSERT INTO small VALUES('not in the snapshot')")
	before = mainFileOf(t, d)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(mainFileOf(t, d), before) {
		t.Error("the main file has changed when the database was closed")
	}
	d = open(t, d.path, Config{Head: s.head})
	if got := value(t, d, "SELECT count(*) FROM small"); d.Head() != s.head || got != int64(0) {
		t.Errorf("after a restart: head %q, %v rows behind the snapshot; want %q, 0", d.Head(), got, s.head)
	}
	exec(t, d, "INSERT INTO small VALUES('again')")
	if !snapshotNow(t, d, &s) {
		t.Error("the capture after the restart is no delta: not what this test is for")
	}
}

// TestFault1440: what may be merged of a WAL is what was committed, in the order of its checksums
// (also #1441, #1443). Every capture of these WALs is what SQLite's own checkpoint makes of them.
func TestFault1440(t *testing.T) {
	spill := func(t *testing.T, d *DB, fill string) {
		t.Helper()
		before := d.WALSize()
		exec(t, d, "PRAGMA cache_size=5", "BEGIN", fill, "ROLLBACK")
		if d.WALSize() == before {
			t.Error("nothing was spilt: not what this test is for")
		}
	}
	tests := []struct {
		name string
		act  func(t *testing.T, d *DB, fill string)
	}{
		{"rolled-back spill at the end", func(t *testing.T, d *DB, fill string) {
			exec(t, d, "INSERT INTO t VALUES(1)")
			spill(t, d, fill)
		}},
		{"rolled-back spill, then a commit", func(t *testing.T, d *DB, fill string) {
			spill(t, d, fill)
			exec(t, d, "INSERT INTO t VALUES(2)")
		}},
		{"spill within a commit", func(t *testing.T, d *DB, fill string) {
			exec(t, d, "PRAGMA cache_size=5", "BEGIN", fill, "DELETE FROM t WHERE rowid%2=0", "COMMIT")
		}},
		{"old frames behind new ones", func(t *testing.T, d *DB, fill string) {
			exec(t, d, fill)
			held := holdReader(t, d)
			var other chain
			c, _, err := other.take(t, d) // moves all, and can't start the WAL again
			if err != nil {
				t.Fatal(err)
			}
			c.Release()
			long := d.WALSize()
			if err := d.readers.put(held); err != nil {
				t.Fatal(err)
			}
			exec(t, d, "INSERT INTO t VALUES(3)")
			if d.WALSize() < long {
				t.Error("no old frames are left: not what this test is for")
			}
		}},
		{"shrunk", func(t *testing.T, d *DB, fill string) { exec(t, d, fill, "DELETE FROM t", "VACUUM") }},
		{"truncated by auto_vacuum", func(t *testing.T, d *DB, fill string) {
			exec(t, d, fill, "DELETE FROM t", "PRAGMA incremental_vacuum")
		}},
	}
	for pageSize, rows := range map[int]int{512: 100, 65536: 600} {
		fill := fmt.Sprintf("INSERT INTO t SELECT randomblob(900) FROM (WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<%d) SELECT i FROM c)", rows)
		for _, tt := range tests {
			t.Run(fmt.Sprintf("%d bytes, %s", pageSize, tt.name), func(t *testing.T) {
				d := open(t, testPath(t), Config{ReadersGrace: time.Millisecond})
				image := imageFile(t, d, fmt.Sprintf("PRAGMA page_size=%d; PRAGMA auto_vacuum=2; CREATE TABLE t (v)", pageSize))
				if err := d.Replace(image, ""); err != nil {
					t.Fatal(err)
				}
				exec(t, d, fill)
				var s chain
				snapshotNow(t, d, &s)
				tt.act(t, d, fill)
				snapshotNow(t, d, &s)
			})
		}
	}
}

// TestFault1457: after a load in chunks the next snapshot was an increment to the database before it
// (also #1458). Here it is the whole database, and a kill at any stage leaves no main file that is
// taken for a snapshot it does not equal.
func TestFault1457(t *testing.T) {
	file := sqliteFile(t, "CREATE TABLE l (x); INSERT INTO l VALUES(42)")
	half := len(file) / 2
	d := openNew(t)
	bulkTable(t, d)
	var s chain
	snapshotNow(t, d, &s)
	check := func(stage, head string, kept bool) {
		t.Helper()
		again := open(t, killed(t, d.path), Config{Head: head})
		if (again.Head() == head) != kept {
			t.Errorf("%s, killed: the main file was kept for %s: %t; want %t", stage, head, !kept, kept)
		}
		if kept && !bytes.Equal(mainFileOf(t, again), s.images[head]) {
			t.Errorf("%s, killed: the main file is not snapshot %s", stage, head)
		}
	}
	first := s.head
	check("before", first, true)
	apply(t, d, &command.Entry{Kind: command.LoadChunk, Chunk: &command.Chunk{Stream: "a", Sequence: 1, Data: file[:half]}})
	check("amid the chunks", first, true)
	apply(t, d, &command.Entry{Kind: command.LoadChunk, Chunk: &command.Chunk{Stream: "a", Sequence: 2, Data: file[half:], Last: true}})
	check("loaded", first, false)
	for i := range 10 {
		exec(t, d, fmt.Sprintf("INSERT INTO l VALUES(%d)", i))
	}
	want := checkpointed(t, d)
	c, image, err := s.take(t, d)
	if err != nil {
		t.Fatal(err)
	}
	if c.Delta() || !bytes.Equal(image, want) {
		t.Errorf("the capture after the load is a delta (%t), or not the database", c.Delta())
	}
	check("captured", first, false)
	s.publish(t, c, image)
	check("published", first, false)
	check("published", s.head, true)
}

// TestFault1463: a snapshot was taken between the chunks of a load. Here it has to wait, and a kill in
// between costs no chunk: the log has them all.
func TestFault1463(t *testing.T) {
	file := sqliteFile(t, "CREATE TABLE l (x); INSERT INTO l VALUES(42)")
	half := len(file) / 2
	log := []*command.Entry{ // behind the snapshot
		{Kind: command.Execute, Request: &command.Request{Statements: statements("INSERT INTO small VALUES(1)")}},
		{Kind: command.LoadChunk, Chunk: &command.Chunk{Stream: "a", Sequence: 1, Data: file[:half]}},
		{Kind: command.Execute, Request: &command.Request{Statements: statements("INSERT INTO small VALUES(2)")}},
		{Kind: command.LoadChunk, Chunk: &command.Chunk{Stream: "a", Sequence: 2, Data: file[half:], Last: true}},
	}
	d := openNew(t)
	bulkTable(t, d)
	var s chain
	snapshotNow(t, d, &s)
	for i, e := range log[:3] {
		apply(t, d, e)
		if i > 0 {
			if _, err := d.Capture(s.head); !errors.Is(err, ErrBusy) {
				t.Errorf("Capture behind entry %d, amid a load = %v; want ErrBusy", i, err)
			}
		}
		again := open(t, killed(t, d.path), Config{Head: s.head})
		if again.Head() != s.head {
			t.Fatalf("killed behind entry %d: the main file was not kept", i)
		}
		for _, e := range log {
			apply(t, again, e)
		}
		if got := value(t, again, "SELECT x FROM l"); got != int64(42) {
			t.Errorf("killed behind entry %d: %v was loaded; want 42", i, got)
		}
		loaded := s
		if snapshotNow(t, again, &loaded) {
			t.Error("the capture behind the load is a delta")
		}
	}
}

// TestFault1482: what was loaded or restored was not looked at, and the database was malformed from
// then on (also #1494).
func TestFault1482(t *testing.T) { TestLoad(t) }

// TestFault1627: a reader kept the WAL from being emptied although all of it had been moved, so
// that the next write could start it again, with frames that no increment had (also #1634, #1637,
// #2423, #2425, #2427, #2444, #2445). Here a reader of each kind is there over three captures.
func TestFault1627(t *testing.T) {
	for _, newest := range []bool{false, true} {
		t.Run(fmt.Sprintf("reader of the newest state %t", newest), func(t *testing.T) {
			d := open(t, testPath(t), Config{ReadersGrace: time.Millisecond})
			bulkTable(t, d)
			var s chain
			snapshotNow(t, d, &s)
			exec(t, d, "INSERT INTO small VALUES(0)")
			held := holdReader(t, d)
			busy := 0
			for i := range 3 {
				if !newest || i > 0 {
					exec(t, d, fmt.Sprintf("INSERT INTO small VALUES(%d)", i), fmt.Sprintf("UPDATE bulk SET v=randomblob(3000) WHERE rowid=%d", i+1))
				}
				want := checkpointed(t, d)
				switch c, got, err := s.take(t, d); {
				case errors.Is(err, ErrBusy):
					busy++
				case err != nil:
					t.Fatal(err)
				case !bytes.Equal(got, want):
					t.Fatalf("capture %d differs from the database", i)
				default:
					s.publish(t, c, got)
				}
			}
			if want := map[bool]int{false: 3, true: 2}[newest]; busy != want {
				t.Errorf("%d captures had to wait; want %d", busy, want)
			}
			if err := d.readers.put(held); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				exec(t, d, "INSERT INTO small VALUES(9)")
				if !snapshotNow(t, d, &s) {
					t.Error("an image; want a delta")
				}
			}
		})
	}
}

// TestFault1643: reads that overlapped kept the WAL from ever being emptied (also #1664). Here reads
// shorter than the grace that a capture gives them do not; for longer ones see TestHeldReads.
func TestFault1643(t *testing.T) {
	d := openNew(t)
	bulkTable(t, d)
	var s chain
	var stop atomic.Bool
	var readers sync.WaitGroup
	for i := range 4 {
		readers.Go(func() {
			for !stop.Load() {
				q := fmt.Sprintf("SELECT count(*) FROM bulk a, bulk b, bulk c WHERE a.rowid<%d", 10+5*i)
				if _, err := d.Query(context.Background(), &command.Request{Kind: command.Query, Statements: statements(q)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	most, longest := int64(0), time.Duration(0)
	for i := range 6 {
		for j := range 5 {
			begin := time.Now()
			exec(t, d, fmt.Sprintf("INSERT INTO small VALUES(%d)", 100*i+j), fmt.Sprintf("UPDATE bulk SET v=randomblob(3000) WHERE rowid=%d", i+1))
			longest = max(longest, time.Since(begin))
		}
		c, image, err := s.take(t, d)
		if err != nil {
			t.Fatalf("capture %d: %v", i, err)
		}
		s.publish(t, c, image)
		most = max(most, d.WALSize())
	}
	stop.Store(true)
	readers.Wait()
	if most > 1<<20 || longest > time.Second {
		t.Errorf("the WAL had up to %d bytes, a write took up to %s", most, longest)
	}
	if got := s.images[s.head]; !bytes.Equal(got, checkpointed(t, d)) {
		t.Error("the last snapshot is not the database")
	}
}

// TestFault1644: an increment was held in memory as a whole.
func TestFault1644(t *testing.T) {
	const limit = 6 << 20
	d := openNew(t)
	exec(t, d, "CREATE TABLE t (v)", "INSERT INTO t SELECT zeroblob(1000000) FROM (WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<16) SELECT i FROM c)")
	if d.WALSize() < 15<<20 {
		t.Fatalf("the WAL has %d bytes: not what this test is for", d.WALSize())
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	c, err := d.Capture("")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Release()
	buf := make([]byte, c.PageSize())
	for err == nil {
		_, err = c.Next(buf)
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; err != io.EOF || got > limit {
		t.Errorf("%d bytes were allocated for a WAL of 16 MB, %v; want at most %d", got, err, limit)
	}
}

// TestFault1103: reads reported a malformed database now and then, while files were exchanged or the WAL was emptied
// under them (also #1738).
func TestFault1103(t *testing.T) {
	d := openNew(t)
	const tables = "CREATE TABLE a (v INTEGER); CREATE TABLE b (v INTEGER); INSERT INTO a VALUES(1); INSERT INTO b VALUES(1)"
	exec(t, d, strings.Split(tables, "; ")...)
	file := sqliteFile(t, tables)
	var stop atomic.Bool
	var reads atomic.Int64
	var readers sync.WaitGroup
	for range 16 {
		readers.Go(func() {
			for !stop.Load() {
				req := &command.Request{Kind: command.Query, Statements: statements("SELECT (SELECT sum(v) FROM a) = (SELECT sum(v) FROM b)", "PRAGMA quick_check")}
				resp, err := d.Query(context.Background(), req)
				if err != nil || show(resp.Results...) != `[[1]]; [["ok"]]` {
					t.Errorf("a read = %v, %s", err, show(resp.Results...))
					return
				}
				reads.Add(1)
			}
		})
	}
	var s chain
	for i := range 16 {
		exec(t, d, "BEGIN", "INSERT INTO a VALUES(7)", "INSERT INTO b VALUES(7)", "COMMIT")
		switch i % 4 {
		case 0:
			if c, image, err := s.take(t, d); err == nil {
				s.publish(t, c, image)
			} else if !errors.Is(err, ErrBusy) {
				t.Fatal(err)
			}
		case 1:
			exec(t, d, "VACUUM")
		case 2:
			if resp := apply(t, d, &command.Entry{Kind: command.Load, Data: file}); len(resp.Results) > 0 {
				t.Fatal(show(resp.Results...))
			}
		case 3:
			if err := d.Replace(imageFile(t, d, tables), ""); err != nil {
				t.Fatal(err)
			}
		}
	}
	stop.Store(true)
	readers.Wait()
	if reads.Load() < 16 {
		t.Errorf("only %d reads", reads.Load())
	}
}

// TestFault1914: an automatic VACUUM put another file in the place of the database, and who had it
// open saw no data any more (also #1920). Here VACUUM is a write like others.
func TestFault1914(t *testing.T) {
	d := openNew(t)
	bulkTable(t, d)
	var s chain
	snapshotNow(t, d, &s)
	exec(t, d, "DELETE FROM bulk WHERE rowid%3=0")
	before, err := os.Stat(d.path)
	if err != nil {
		t.Fatal(err)
	}
	held := holdReader(t, d)
	exec(t, d, "VACUUM", "INSERT INTO small VALUES('later')")
	rows, err := held.query(&command.Statement{SQL: "SELECT (SELECT count(*) FROM bulk), (SELECT count(*) FROM small)"}, false, nil)
	if err != nil || fmt.Sprint(rows.Values) != "[[40 0]]" {
		t.Errorf("a read that began before = %v, %v; want 40, 0", rows, err)
	}
	if err := d.readers.put(held); err != nil {
		t.Fatal(err)
	}
	snapshotNow(t, d, &s)
	after, err := os.Stat(d.path)
	if err != nil || !os.SameFile(before, after) {
		t.Errorf("the main file is another one: %v", err)
	}
}

// TestFault2011: after a restore the new connection had not the functions of the old one, so that a
// statement failed on that node only (also #2012 to #2016).
func TestFault2011(t *testing.T) {
	const uses = "INSERT INTO f VALUES(random(), hex(randomblob(4)), CURRENT_TIMESTAMP, abs(-2), json('[1]'))"
	const create = "CREATE TABLE f (a, b, c, d, e)"
	replaced, loaded, steady := openNew(t), openNew(t), openNew(t)
	if err := replaced.Replace(imageFile(t, replaced, create), ""); err != nil {
		t.Fatal(err)
	}
	if resp := apply(t, loaded, &command.Entry{Kind: command.Load, Data: sqliteFile(t, create)}); len(resp.Results) > 0 {
		t.Fatal(show(resp.Results...))
	}
	exec(t, steady, create)
	want := ""
	for _, d := range []*DB{steady, replaced, loaded} {
		exec(t, d, uses)
		resp := request(t, d, command.Request{Kind: command.Execute, Statements: statements("SELECT load_extension('x')")})
		got := show(query(t, d, "SELECT * FROM f").Results...) + show(resp.Results...)
		if want == "" {
			want = got
		}
		if got != want || !strings.Contains(got, "error ") {
			t.Errorf("%s; want %s", got, want)
		}
	}
}

// TestFault2190: a dump with an error in it left its transaction open (also #385).
func TestFault2190(t *testing.T) {
	dump := []string{"BEGIN TRANSACTION", "CREATE TABLE x (v UNIQUE)", "INSERT INTO x VALUES(1)", "INSERT INTO x VALUES(1)", "INSERT INTO nowhere VALUES(1)"}
	for n := range dump {
		d := openNew(t)
		exec(t, d, "CREATE TABLE small (v)")
		request(t, d, command.Request{Kind: command.Execute, RollbackOnError: true, Statements: statements(dump[:n+1]...)})
		exec(t, d, "INSERT INTO small VALUES(1)")
		var s chain
		snapshotNow(t, d, &s)
		if got := value(t, d, "SELECT count(*) FROM small"); got != int64(1) {
			t.Errorf("%d lines: %v rows after the dump; want 1", n+1, got)
		}
		if got := value(t, d, "SELECT count(*) FROM sqlite_schema WHERE name='x'"); got != int64(0) {
			t.Errorf("%d lines: a part of the dump has stayed", n+1)
		}
	}
}

// TestFault1905: what was captured and not published was missing in the next increment. Here a
// capture fails at each stage, with writes between, and the one that succeeds has it all.
func TestFault1905(t *testing.T) {
	for failures := range 4 {
		d := openNew(t)
		bulkTable(t, d)
		var s chain
		snapshotNow(t, d, &s)
		for i := range failures {
			exec(t, d, fmt.Sprintf("UPDATE bulk SET v=randomblob(3000) WHERE rowid=%d", 3*i+1))
			c, err := d.Capture(s.head)
			if err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, c.PageSize())
			for range i { // read nothing, a page, two
				if _, err := c.Next(buf); err != nil {
					t.Fatal(err)
				}
			}
			exec(t, d, fmt.Sprintf("INSERT INTO small VALUES(%d)", i)) // while it is read
			c.Release()
			if again := open(t, killed(t, d.path), Config{Head: s.head}); again.Head() != "" {
				t.Errorf("after failure %d and a kill the main file was taken for %s", i, s.head)
			}
		}
		exec(t, d, "INSERT INTO small VALUES('end')")
		if !snapshotNow(t, d, &s) {
			t.Error("an image; want a delta")
		}
	}
}
