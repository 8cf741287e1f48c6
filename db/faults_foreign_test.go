package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"rqlited/command"
	"rqlited/internal/vfs"
)

// stranger opens the database as another program would, with SQLite's own settings, runs statements, and
// closes it. What it has in common with this process' connections, files, locks and shared memory, is what
// another process would have.
func stranger(t testing.TB, path, statements string) {
	t.Helper()
	pool, err := sql.Open("sqlite3", path)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	c, err := pool.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for statement := range strings.SplitSeq(statements, "; ") {
		rows, err := c.QueryContext(t.Context(), statement)
		if err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
		for rows.Next() {
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
}

// TestFault1613: another program wrote to the database, and increments were then made to a base that
// nobody had (also #1913, #1917). Here it is noticed before the next entry or capture, however the program
// has done it, and the next start restores. One that reads disturbs nobody.
func TestFault1613(t *testing.T) {
	const write = "INSERT INTO small VALUES('foreign')"
	tests := []struct {
		name, sql string
		captured  bool // there is nothing behind the last capture
		want      error
	}{
		{"PASSIVE", "PRAGMA wal_checkpoint(PASSIVE)", false, ErrForeign},
		{"FULL", "PRAGMA wal_checkpoint(FULL)", false, ErrForeign},
		{"RESTART", "PRAGMA wal_checkpoint(RESTART)", false, ErrForeign},
		{"TRUNCATE", "PRAGMA wal_checkpoint(TRUNCATE)", false, ErrForeign},
		{"write", write, false, ErrForeign},
		{"first write", write, true, ErrForeign},
		{"write and checkpoint", "PRAGMA wal_autocheckpoint=1; " + write, false, ErrForeign},
		{"first write and TRUNCATE", write + "; PRAGMA wal_checkpoint(TRUNCATE)", true, ErrForeign},
		{"TRUNCATE of nothing", "PRAGMA wal_checkpoint(TRUNCATE)", true, nil},
		{"rolled back", "BEGIN IMMEDIATE; " + write + "; ROLLBACK", false, nil},
		{"reads", "PRAGMA journal_mode; BEGIN; SELECT * FROM small; PRAGMA integrity_check; COMMIT; SELECT count(*) FROM bulk", false, nil},
		{"first read", "SELECT count(*) FROM bulk", true, nil},
	}
	finders := map[string]func(d *DB, s *chain) error{
		"capture": func(d *DB, s *chain) error {
			c, err := d.Capture(s.head)
			if err == nil {
				c.Release()
			}
			return err
		},
		"write": func(d *DB, _ *chain) error {
			_, err := d.Apply(&command.Entry{Kind: command.Execute, Request: &command.Request{Statements: statements("INSERT INTO small VALUES('own')")}})
			return err
		},
	}
	for _, tt := range tests {
		for by, find := range finders {
			t.Run(tt.name+", then a "+by, func(t *testing.T) {
				t.Parallel()
				d := openNew(t)
				bulkTable(t, d)
				var s chain
				snapshotNow(t, d, &s)
				if !tt.captured {
					change(t, d)
				}
				stranger(t, d.path, tt.sql)
				err := find(d, &s)
				if tt.want == nil {
					if err != nil && !errors.Is(err, ErrNothingNew) {
						t.Fatal(err)
					}
					change(t, d)
					if !snapshotNow(t, d, &s) {
						t.Error("an image; want a delta")
					}
					return
				}
				if !errors.Is(err, tt.want) {
					t.Fatalf("it = %v; want %v", err, tt.want)
				}
				for by, find := range finders {
					if err := find(d, &s); !errors.Is(err, tt.want) {
						t.Errorf("then a %s = %v; want %v", by, err, tt.want)
					}
				}
				if again := open(t, killed(t, d.path), Config{Head: s.head}); again.Head() != "" {
					t.Error("the next start has kept the files")
				}
			})
		}
	}
	t.Run("between two runs", func(t *testing.T) {
		d := openNew(t)
		bulkTable(t, d)
		var s chain
		snapshotNow(t, d, &s)
		path := killed(t, d.path)
		stranger(t, path, "DELETE FROM small; PRAGMA wal_checkpoint(TRUNCATE)")
		if again := open(t, path, Config{Head: s.head}); again.Head() != "" {
			t.Error("a main file that another program has changed was kept")
		}
	})
}

// change changes a page of each table.
func change(t testing.TB, d *DB) {
	t.Helper()
	exec(t, d, "UPDATE bulk SET v=randomblob(3000) WHERE rowid=7", "INSERT INTO small VALUES('own')")
}

// scannedFS calls scanned once the WAL has been read.
type scannedFS struct {
	vfs.FS
	scanned func()
}

type scannedFile struct {
	vfs.File
	scanned func()
}

func (s *scannedFS) Open(name string) (vfs.File, error) {
	f, err := s.FS.Open(name)
	if err == nil && s.scanned != nil && strings.HasSuffix(name, "-wal") {
		f = scannedFile{f, s.scanned}
	}
	return f, err
}

func (f scannedFile) Close() error {
	err := f.File.Close()
	f.scanned()
	return err
}

// TestForeignAmidCapture changes the database between the scan of the WAL and the checkpoint.
func TestForeignAmidCapture(t *testing.T) {
	for _, statement := range []string{"INSERT INTO small VALUES('foreign')", "PRAGMA wal_checkpoint(TRUNCATE)"} {
		fsys := &scannedFS{FS: vfs.OS}
		d := open(t, testPath(t), Config{FS: fsys})
		bulkTable(t, d)
		var s chain
		snapshotNow(t, d, &s)
		change(t, d)
		fsys.scanned = func() { stranger(t, d.path, statement) }
		if c, err := d.Capture(s.head); err == nil || statement[0] == 'I' && !errors.Is(err, ErrForeign) {
			t.Errorf("%s: Capture = %v, %v; want %v", statement, c, err, ErrForeign)
		}
		if d.failed() == nil {
			t.Errorf("%s: the error is not final", statement)
		}
	}
}

// TestForeignAmidEntry changes the database between two statements of an entry.
func TestForeignAmidEntry(t *testing.T) {
	d := openNew(t)
	bulkTable(t, d)
	var s chain
	snapshotNow(t, d, &s)
	r := run{c: d.writer, fault: d.machineFault, resp: &command.Response{}, opened: -1, req: &command.Request{
		Statements: statements("UPDATE bulk SET v=1 WHERE rowid=7", "DELETE FROM small"),
	}}
	calls := 0
	r.watch = func(act ownAct) error {
		err := d.watch(act)
		if calls++; err == nil && calls == 1 { // behind the first statement
			stranger(t, d.path, "PRAGMA wal_checkpoint(PASSIVE)")
		}
		return err
	}
	if err := r.all(); !errors.Is(err, ErrForeign) || calls != 2 {
		t.Errorf("%v after %d statements; want %v after 2", err, calls, ErrForeign)
	}
}

func TestOwnActs(t *testing.T) {
	at := func(changes, frames, salt, moved uint32) walView {
		return walView{changes: changes, frames: frames, salt: [2]uint32{salt, 1}, moved: moved, attempted: moved}
	}
	tests := []struct {
		name                  string
		seen, now             walView
		nothing, write, moves bool
	}{
		{"nothing", at(1, 5, 1, 0), at(1, 5, 1, 0), true, true, true},
		{"a commit", at(1, 5, 1, 0), at(2, 7, 1, 0), false, true, false},
		{"a checkpoint", at(1, 5, 1, 0), at(1, 5, 1, 5), false, false, true},
		{"one under way", at(1, 5, 1, 0), walView{changes: 1, frames: 5, salt: [2]uint32{1, 1}, attempted: 5}, false, false, true},
		{"a commit and a checkpoint", at(1, 5, 1, 0), at(2, 7, 1, 7), false, false, false},
		{"started again when all was moved", at(1, 5, 1, 5), at(2, 3, 2, 0), false, true, false},
		{"started again by a rollback", at(1, 5, 1, 5), at(1, 0, 2, 0), true, true, true},
		{"started again when not all was moved", at(1, 5, 1, 4), at(2, 3, 2, 0), false, false, false},
		{"emptied when not all was moved", at(1, 5, 1, 0), at(1, 0, 2, 0), false, false, true},
		{"started again and moved", at(1, 5, 1, 5), at(2, 3, 2, 3), false, false, false},
		{"started again and emptied", at(1, 5, 1, 5), at(2, 0, 3, 0), false, false, false},
	}
	for _, tt := range tests {
		got := [...]bool{ownNothing.allows(tt.seen, tt.now), ownWrite.allows(tt.seen, tt.now), ownCheckpoint.allows(tt.seen, tt.now)}
		if want := [...]bool{tt.nothing, tt.write, tt.moves}; got != want {
			t.Errorf("%s: allowed by nothing, a write, a checkpoint: %t; want %t", tt.name, got, want)
		}
	}
}

// TestHeldReads has reads that overlap and outlast the grace of a capture for ever. After some captures
// that give up one lets no read begin until those under way have ended.
func TestHeldReads(t *testing.T) {
	d := open(t, testPath(t), Config{ReadersGrace: time.Millisecond})
	bulkTable(t, d)
	var s chain
	snapshotNow(t, d, &s)
	change(t, d)
	held := holdReader(t, d)
	overlap := func() { // the next read begins before the last one ends
		change(t, d)
		next := holdReader(t, d)
		if err := d.readers.put(held); err != nil {
			t.Fatal(err)
		}
		held = next
		change(t, d)
	}
	for i := range 5 { // the third and the fifth hold reads back, and this one lasts longer than that
		overlap()
		if _, err := d.Capture(s.head); !errors.Is(err, ErrBusy) {
			t.Fatalf("capture %d = %v; want %v", i, err, ErrBusy)
		}
	}
	if want := (busyStreak{captures: 5, hold: 8}); d.busy != want {
		t.Fatalf("%+v; want %+v", d.busy, want)
	}
	d.busy.captures = d.busy.hold
	d.cfg.ReadersGrace = time.Minute
	result := make(chan error)
	go func() {
		c, err := d.Capture(s.head)
		if err == nil {
			c.Release()
		}
		result <- err
	}()
	for !d.readers.held() {
		runtime.Gosched()
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.Query(ctx, &command.Request{Kind: command.Query, Statements: statements("SELECT 1")}); !errors.Is(err, context.Canceled) {
		t.Errorf("a query that can't wait = %v", err)
	}
	late := make(chan any)
	go func() { late <- value(t, d, "SELECT count(*) FROM bulk") }()
	select {
	case <-late:
		t.Error("a read has begun")
	case err := <-result:
		t.Errorf("a read was cut, or not waited for: %v", err)
	default:
	}
	if err := d.readers.put(held); err != nil {
		t.Fatal(err)
	}
	if err := <-result; err != nil {
		t.Errorf("the capture = %v", err)
	}
	if got := fmt.Sprint(<-late); got != "60" {
		t.Errorf("the read that was held back = %s; want 60", got)
	}
	if d.busy != (busyStreak{}) || d.readers.held() {
		t.Errorf("%+v after a capture that did not give up; reads are held back: %t", d.busy, d.readers.held())
	}
}

func (p *pool) held() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.gate.opens != nil
}
