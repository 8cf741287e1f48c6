package db

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"rqlited/command"
)

// chain is what a snapshot store would hold: the image of each snapshot.
type chain struct {
	images map[string][]byte
	head   string
}

// take captures d against the head and returns the capture with the image it makes.
func (s *chain) take(t testing.TB, d *DB) (*Capture, []byte, error) {
	t.Helper()
	c, err := d.Capture(s.head)
	if err != nil {
		return nil, nil, err
	}
	return c, s.read(t, c), nil
}

func (s *chain) read(t testing.TB, c *Capture) []byte {
	t.Helper()
	image, err := s.merge(c)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

// merge returns what a capture makes of the head.
func (s *chain) merge(c *Capture) ([]byte, error) {
	size := int(c.Pages()) * c.PageSize()
	image := make([]byte, size)
	grown := uint32(0) // pages that a delta must contain since its parent has no such pages
	if c.Delta() {
		n := copy(image, s.images[s.head])
		grown = c.Pages() - uint32(n/c.PageSize())
	}
	buf := make([]byte, c.PageSize())
	var records, last uint32
	for {
		pgno, err := c.Next(buf)
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		if pgno <= last || pgno > c.Pages() {
			return nil, fmt.Errorf("page %d after %d of %d", pgno, last, c.Pages())
		}
		last = pgno
		records++
		if c.Delta() && int(pgno)*c.PageSize() > len(s.images[s.head]) {
			grown--
		}
		copy(image[int(pgno-1)*len(buf):], buf)
	}
	if grown != 0 {
		return nil, fmt.Errorf("%d pages are neither in the delta nor in its parent", grown)
	}
	if records != c.Records() {
		return nil, fmt.Errorf("%d records, announced %d", records, c.Records())
	}
	return image, nil
}

func (s *chain) publish(t testing.TB, c *Capture, image []byte) string {
	t.Helper()
	if s.images == nil {
		s.images = make(map[string][]byte)
	}
	id := fmt.Sprintf("1-%d", len(s.images)+1)
	s.images[id], s.head = image, id
	if err := c.Published(id); err != nil {
		t.Fatal(err)
	}
	c.Release()
	return id
}

// checkpointed returns what SQLite's own checkpoint makes of copies of the files of d.
func checkpointed(t testing.TB, d *DB) []byte {
	t.Helper()
	copied := testPath(t)
	for _, suffix := range []string{"", "-wal"} {
		data, err := os.ReadFile(d.path + suffix)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		if err := os.WriteFile(copied+suffix, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	checkpointFile(t, copied)
	data, err := os.ReadFile(copied)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// checkpointFile lets SQLite move the WAL into a database that is nobody's.
func checkpointFile(t testing.TB, name string) {
	t.Helper()
	c, err := openConn(name, openReadWrite, reader, shim{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.text("SELECT count(*) FROM sqlite_schema"); err != nil {
		t.Fatal(err)
	}
	if _, _, busy, err := c.checkpoint(checkpointTruncate, 0); err != nil || busy {
		t.Fatal(err, busy)
	}
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
}

// imageFile makes a SQLite file beside the database.
func imageFile(t testing.TB, d *DB, sql string) string {
	t.Helper()
	name := filepath.Join(filepath.Dir(d.path), "image")
	c, err := openConn(name, openReadWrite|openCreate, reader, shim{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.exec(sql); err != nil {
		t.Fatal(err)
	}
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
	return name
}

// holdReader returns a reader in a transaction.
func holdReader(t testing.TB, d *DB) *pooled {
	t.Helper()
	c, err := d.readers.get(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.exec("BEGIN; SELECT count(*) FROM sqlite_schema"); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestCaptureWithReaders has the three outcomes of a checkpoint: a reader of an old state, one of
// the newest state, and none.
func TestCaptureWithReaders(t *testing.T) {
	d := open(t, testPath(t), Config{ReadersGrace: time.Millisecond})
	exec(t, d, setup)
	exec(t, d, "INSERT INTO t(n) VALUES(hex(zeroblob(20000)))") // many pages, so that deltas are worth it
	var s chain
	c, image, err := s.take(t, d)
	if err != nil {
		t.Fatal(err)
	}
	s.publish(t, c, image)

	exec(t, d, "INSERT INTO t(n) VALUES('1')")
	old := holdReader(t, d)
	exec(t, d, "INSERT INTO t(n) VALUES('2')", "CREATE TABLE u (x)")
	if _, err := d.Capture(s.head); !errors.Is(err, ErrBusy) {
		t.Fatalf("Capture with a reader of an old state = %v, want ErrBusy", err)
	}
	if err := d.readers.put(old); err != nil {
		t.Fatal(err)
	}
	newest := holdReader(t, d)
	c, image, err = s.take(t, d)
	if err != nil || !c.Delta() {
		t.Fatalf("Capture with a reader of the newest state = %v", err)
	}
	s.publish(t, c, image)
	if d.WALSize() == 0 {
		t.Error("the WAL was started again under a reader")
	}
	if _, err := d.Capture(s.head); !errors.Is(err, ErrNothingNew) {
		t.Errorf("Capture of a WAL that is captured = %v, want ErrNothingNew", err)
	}
	exec(t, d, "INSERT INTO u VALUES(1)")
	want := checkpointed(t, d)
	if _, err := d.Capture(s.head); !errors.Is(err, ErrBusy) {
		t.Fatalf("Capture = %v, want ErrBusy", err)
	}
	if err := d.readers.put(newest); err != nil {
		t.Fatal(err)
	}
	c, image, err = s.take(t, d)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(image, want) {
		t.Error("the capture after the readers differs from the database")
	}
	if !c.Delta() || c.Records() > 2 {
		t.Errorf("%d records, want the one or two pages that changed", c.Records())
	}
	s.publish(t, c, image)
	if d.WALSize() != 0 {
		t.Errorf("the WAL has %d bytes after a capture without readers", d.WALSize())
	}
}

func TestCaptureWhileWriting(t *testing.T) {
	d := openNew(t)
	exec(t, d, setup, "INSERT INTO t(n) VALUES('before')")
	want := checkpointed(t, d)
	c, err := d.Capture("")
	if err != nil {
		t.Fatal(err)
	}
	exec(t, d, "DELETE FROM t", "VACUUM")
	if _, err := d.Capture(""); !errors.Is(err, ErrBusy) {
		t.Errorf("second Capture = %v, want ErrBusy", err)
	}
	var s chain
	if got := s.read(t, c); !bytes.Equal(got, want) {
		t.Error("the capture changed while it was read")
	}
	c.Release()
	c.Release()
	if err := c.Published("x"); err == nil {
		t.Error("a released capture was published")
	}
}

// TestCaptureOutlivesReplace replaces the database while a capture is read.
func TestCaptureOutlivesReplace(t *testing.T) {
	d := openNew(t)
	exec(t, d, setup)
	want := checkpointed(t, d)
	c, err := d.Capture("")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Replace(imageFile(t, d, "CREATE TABLE other(x)"), ""); err != nil {
		t.Fatal(err)
	}
	var s chain
	if got := s.read(t, c); !bytes.Equal(got, want) {
		t.Error("the capture changed with the replacement")
	}
	if err := c.Published("1-1"); err != nil {
		t.Fatal(err)
	}
	c.Release()
	if head := d.Head(); head != "" {
		t.Errorf("head is %q although the database was replaced", head)
	}
	if marked(t, d) {
		t.Error("there is a marker")
	}
}

func TestCaptureOfEmptyDatabase(t *testing.T) {
	d := openNew(t)
	var s chain
	c, image, err := s.take(t, d)
	if err != nil {
		t.Fatal(err)
	}
	s.publish(t, c, image)
	if _, err := d.Capture(s.head); !errors.Is(err, ErrNothingNew) {
		t.Errorf("second Capture = %v, want ErrNothingNew", err)
	}
	c, err = d.Capture("another") // the snapshot store has another head: everything
	if err != nil || c.Delta() {
		t.Errorf("Capture against an unknown head = %v", err)
	}
	c.Release()
}

// TestCaptureHoldsGrowth pretends that the file has grown by pages which no frame brought.
func TestCaptureHoldsGrowth(t *testing.T) {
	d := openNew(t)
	exec(t, d, setup, "CREATE TABLE u (x)", "INSERT INTO t(n) VALUES(hex(zeroblob(50000)))")
	var s chain
	c, image, err := s.take(t, d)
	if err != nil {
		t.Fatal(err)
	}
	s.publish(t, c, image)
	d.track.pages = c.Pages() - 3
	s.images[s.head] = image[:len(image)-3*c.PageSize()]
	exec(t, d, "INSERT INTO u VALUES(1)")
	c, got, err := s.take(t, d)
	if err != nil || !c.Delta() {
		t.Fatal(err)
	}
	defer c.Release()
	if !bytes.Equal(got[len(got)-3*c.PageSize():], image[len(image)-3*c.PageSize():]) {
		t.Error("the pages behind the former end are missing")
	}
}

func TestReplace(t *testing.T) {
	const filled = "CREATE TABLE r (x); INSERT INTO r VALUES(1)"
	tests := []struct {
		name, sql  string
		wantHead   string
		wantMarker bool
	}{
		{"in WAL mode", "PRAGMA journal_mode=WAL; " + filled + "; PRAGMA journal_mode=DELETE; PRAGMA journal_mode=WAL", "7-7", true},
		{"in another mode", filled, "", false}, // its header is changed when it is opened
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := openNew(t)
			exec(t, d, setup)
			old := holdReader(t, d)
			image := imageFile(t, d, tt.sql)
			if err := os.Remove(image + "-wal"); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			if err := os.Remove(image + "-shm"); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			if err := d.Replace(image, "7-7"); err != nil {
				t.Fatal(err)
			}
			if got := d.Head(); got != tt.wantHead {
				t.Errorf("Head = %q, want %q", got, tt.wantHead)
			}
			if ok := marked(t, d); ok != tt.wantMarker {
				t.Errorf("marker %t, want %t", ok, tt.wantMarker)
			}
			if n := value(t, d, "SELECT count(*) FROM r"); n != int64(1) {
				t.Errorf("%v rows", n)
			}
			if rows, err := old.query(&command.Statement{SQL: "SELECT * FROM t"}, false, nil); err != nil {
				t.Errorf("the query under way = %v, %v", rows, err)
			}
			if err := d.readers.put(old); err != nil {
				t.Fatal(err)
			}
			exec(t, d, "INSERT INTO r VALUES(2)")
			if n := value(t, d, "SELECT count(*) FROM r"); n != int64(2) {
				t.Errorf("%v rows", n)
			}
		})
	}
}

// TestReplaceRelative replaces a database whose path is relative and full of what URIs quote.
func TestReplaceRelative(t *testing.T) {
	t.Chdir(t.TempDir())
	dir := "a'b c%41?x=1#y"
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	d := open(t, filepath.Join(dir, "db.sqlite"), Config{})
	exec(t, d, setup)
	if err := d.Replace(imageFile(t, d, "CREATE TABLE r (x)"), ""); err != nil {
		t.Fatal(err)
	}
	if n := value(t, d, "SELECT count(*) FROM r"); n != int64(0) {
		t.Errorf("%v rows", n)
	}
}

func TestReplaceRefused(t *testing.T) {
	d := openNew(t)
	exec(t, d, setup)
	image := filepath.Join(filepath.Dir(d.path), "image")
	if err := os.WriteFile(image, bytes.Repeat([]byte("no SQLite "), 100), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{image, image + "missing", filepath.Join(t.TempDir(), "elsewhere")} {
		if err := d.Replace(name, ""); err == nil {
			t.Errorf("Replace(%s) succeeded", name)
		}
	}
	exec(t, d, "INSERT INTO t(n) VALUES('still here')")
}

func TestReplaceByEmptyImage(t *testing.T) {
	d := openNew(t)
	exec(t, d, setup)
	image := filepath.Join(filepath.Dir(d.path), "image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.Replace(image, "1-1"); err != nil {
		t.Fatal(err)
	}
	if n := value(t, d, "SELECT count(*) FROM sqlite_schema"); n != int64(0) || d.Head() != "" {
		t.Errorf("%v tables, head %q; want none", n, d.Head())
	}
}

// TestAnnounce withdraws the marker ahead of a capture that has something to capture, and only then.
func TestAnnounce(t *testing.T) {
	path, image := keepable(t, 4096, setup)
	d := open(t, path, Config{Head: "1-1"})
	s := chain{images: map[string][]byte{"1-1": image}, head: "1-1"}
	announce := func(want bool) {
		t.Helper()
		if err := d.Announce(); err != nil || marked(t, d) != want {
			t.Fatalf("Announce = %v, marker %t, want %t", err, !want, want)
		}
	}
	announce(true)
	exec(t, d, "INSERT INTO t(n) VALUES(1)")
	announce(false)
	announce(false)
	c, image, err := s.take(t, d)
	if err != nil {
		t.Fatal(err)
	}
	announce(false)
	s.publish(t, c, image)
	announce(true)
	held := holdReader(t, d) // the WAL is not started again, and holds what is captured
	exec(t, d, "INSERT INTO t(n) VALUES(2)")
	if err := d.readers.put(held); err != nil {
		t.Fatal(err)
	}
	held = holdReader(t, d)
	c, image, err = s.take(t, d)
	if err != nil {
		t.Fatal(err)
	}
	s.publish(t, c, image)
	announce(true)
	if err := d.readers.put(held); err != nil {
		t.Fatal(err)
	}
}

// TestAdopt follows a head that was published without pages, with and without a marker.
func TestAdopt(t *testing.T) {
	path, image := keepable(t, 4096, setup)
	d := open(t, path, Config{Head: "1-1"})
	adopt := func(from, to string) {
		t.Helper()
		if err := d.Adopt(from, to); err != nil {
			t.Fatal(err)
		}
	}
	start := func(head, want string) {
		t.Helper()
		if again := open(t, killed(t, path), Config{Head: head}); again.Head() != want {
			t.Errorf("a start at %s has the head %q, want %q", head, again.Head(), want)
		}
	}
	adopt("1-1", "1-2")
	start("1-2", "1-2")
	start("1-1", "")
	exec(t, d, "INSERT INTO t(n) VALUES(1)")
	adopt("1-2", "1-3") // what is in the WAL alone does not matter
	start("1-3", "1-3")
	adopt("1-1", "1-4") // of another descent
	adopt("", "1-4")
	start("1-4", "")
	start("1-3", "1-3")

	s := chain{images: map[string][]byte{"1-3": image, "1-5": image}, head: "1-3"}
	c, _, err := s.take(t, d)
	if err != nil {
		t.Fatal(err)
	}
	c.Release() // not published: the main file is ahead of the head
	adopt("1-3", "1-5")
	start("1-5", "")
	s.head = "1-5"
	want := checkpointed(t, d)
	c, got, err := s.take(t, d)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("the capture upon the adopted head is wrong: %v", err)
	}
	s.publish(t, c, got)
	start(s.head, s.head)
}
