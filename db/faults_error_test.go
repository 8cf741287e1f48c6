package db

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"rqlited/command"
	"rqlited/internal/vfs"
)

// brittleFS is a file system on which the call with a given number fails, and every one after it if
// it fails for ever.
type brittleFS struct {
	vfs.FS
	mu      sync.Mutex
	left    int // calls that succeed before; negative: all
	forever bool
	failed  int
}

func (b *brittleFS) arm(left int, forever bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left, b.forever, b.failed = left, forever, 0
}

func (b *brittleFS) call() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.left != 0 {
		b.left--
		return nil
	}
	b.failed++
	if !b.forever {
		b.left = -1
	}
	return syscall.EIO
}

func (b *brittleFS) file(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return brittleFile{f, b}, nil
}

func (b *brittleFS) Open(name string) (vfs.File, error) {
	if err := b.call(); err != nil {
		return nil, err
	}
	return b.file(b.FS.Open(name))
}

func (b *brittleFS) Create(name string) (vfs.File, error) {
	if err := b.call(); err != nil {
		return nil, err
	}
	return b.file(b.FS.Create(name))
}

func (b *brittleFS) Rename(from, to string) error {
	return errors.Join(b.call(), b.FS.Rename(from, to)) // after which nobody knows
}

func (b *brittleFS) Remove(name string) error {
	if err := b.call(); err != nil {
		return err
	}
	return b.FS.Remove(name)
}

func (b *brittleFS) Stat(name string) (vfs.FileInfo, error) {
	if err := b.call(); err != nil {
		return vfs.FileInfo{}, err
	}
	return b.FS.Stat(name)
}

func (b *brittleFS) SyncDir(dir string) error { return errors.Join(b.call(), b.FS.SyncDir(dir)) }

type brittleFile struct {
	vfs.File
	fs *brittleFS
}

func (f brittleFile) Write(p []byte) (int, error) {
	if err := f.fs.call(); err != nil {
		n, _ := f.File.Write(p[:len(p)/2])
		return n, err
	}
	return f.File.Write(p)
}

func (f brittleFile) ReadAt(p []byte, off int64) (int, error) {
	if err := f.fs.call(); err != nil {
		return 0, err
	}
	return f.File.ReadAt(p, off)
}

func (f brittleFile) Size() (int64, error) {
	if err := f.fs.call(); err != nil {
		return 0, err
	}
	return f.File.Size()
}

func (f brittleFile) Sync() error { return errors.Join(f.fs.call(), f.File.Sync()) }

// brittle is a database with a snapshot and two rows, of which one is not in the snapshot, and
// another database as a file beside it.
type brittle struct {
	*DB
	fs    *brittleFS
	s     chain
	image string
	other []byte
}

func newBrittle(t *testing.T, other []byte) *brittle {
	t.Helper()
	b := &brittle{fs: &brittleFS{FS: vfs.OS, left: -1}, other: other}
	var err error
	if b.DB, err = Open(testPath(t), Config{FS: b.fs}); err != nil {
		t.Fatal(err)
	}
	exec(t, b.DB, "CREATE TABLE small (v)", "CREATE TABLE bulk (v)", "INSERT INTO bulk VALUES(zeroblob(20000))", "INSERT INTO small VALUES(1)")
	c, image, err := b.s.take(t, b.DB)
	if err != nil {
		t.Fatal(err)
	}
	b.s.publish(t, c, image)
	exec(t, b.DB, "INSERT INTO small VALUES(2)")
	b.image = filepath.Join(filepath.Dir(b.path), "image")
	if err := os.WriteFile(b.image, other, 0o600); err != nil {
		t.Fatal(err)
	}
	b.s.images["7-7"] = other
	return b
}

// check is called after something has failed. Either nothing has happened and everything works, or
// nothing does, and the start after it finds a main file that equals the snapshot it is kept for.
func (b *brittle) check(t *testing.T, when string) {
	t.Helper()
	if _, err := b.Apply(&command.Entry{Kind: command.Noop}); err == nil {
		if got := value(t, b.DB, "SELECT group_concat(v) FROM small"); got != "1,2" {
			t.Fatalf("%s: rows are %v although the database goes on", when, got)
		}
		exec(t, b.DB, "INSERT INTO small VALUES(3)")
		if _, c := b.capture(); c != nil {
			t.Fatalf("%s: the capture after it = %v", when, c)
		}
	} else {
		_, capture := b.capture()
		if replace := b.Replace(b.image, "7-7"); replace == nil || capture == nil {
			t.Fatalf("%s: Apply = %v, but Replace = %v, Capture = %v", when, err, replace, capture)
		}
	}
	for head, image := range b.s.images {
		again := open(t, killed(t, b.path), Config{Head: head})
		if again.Head() != "" && !bytes.Equal(mainFileOf(t, again), image) {
			t.Fatalf("%s: the next start takes the main file for %s, and it is not", when, head)
		}
	}
}

// capture captures and publishes.
func (b *brittle) capture() (string, error) {
	c, err := b.Capture(b.s.head)
	if err != nil {
		return "", err
	}
	defer c.Release()
	buf := make([]byte, c.PageSize())
	for range c.Records() {
		if _, err := c.Next(buf); err != nil {
			return "", err
		}
	}
	return "1-2", c.Published("1-2")
}

// TestFault2103: an exchange of files that failed in the middle left no database, and the node went
// on with an index (also #2736, #2740, #2772, #2761, #2759); and errors within a snapshot were dropped (#2473). Here every
// call fails in turn: the act reports it, and check holds.
func TestFault2103(t *testing.T) {
	other := func() []byte {
		d := openNew(t)
		exec(t, d, "CREATE TABLE small (v)", "INSERT INTO small VALUES(7)")
		var s chain
		snapshotNow(t, d, &s)
		return s.images[s.head]
	}()
	acts := []struct {
		name string
		act  func(b *brittle) error
	}{
		{"replace", func(b *brittle) error { return b.Replace(b.image, "7-7") }},
		{"load", func(b *brittle) error {
			_, err := b.Apply(&command.Entry{Kind: command.Load, Data: b.other})
			return err
		}},
		{"capture", func(b *brittle) error { _, err := b.capture(); return err }},
	}
	for _, tt := range acts {
		t.Run(tt.name, func(t *testing.T) {
			tried := 0
			for _, forever := range []bool{false, true} {
				for op := 0; ; op++ {
					b := newBrittle(t, other)
					b.fs.arm(op, forever)
					err := tt.act(b)
					failed := b.fs.failed
					b.fs.arm(-1, false)
					if failed == 0 {
						if err != nil {
							t.Fatalf("%s = %v although nothing has failed", tt.name, err)
						}
						b.Close()
						break
					}
					tried++
					when := fmt.Sprintf("call %d of %s fails, for ever %t: %v", op, tt.name, forever, err)
					if err == nil {
						t.Fatalf("%s: it has not noticed", when)
					}
					b.check(t, when)
					b.Close() // reports what is broken once more
				}
			}
			t.Logf("tried 0 crash points, %d error points", tried)
		})
	}
}
