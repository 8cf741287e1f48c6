package db

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"rqlited/command"
	"rqlited/internal/vfs"
	"rqlited/internal/vfs/crashfs"
)

// prepareMarked makes a database whose main file equals snapshot 1-1, with a write after it.
func prepareMarked(t *testing.T) (path string, image []byte) {
	d, err := Open(testPath(t), Config{})
	if err != nil {
		t.Fatal(err)
	}
	exec(t, d, setup, "INSERT INTO t(n) VALUES('in the snapshot')")
	var s chain
	c, image, err := s.take(t, d)
	if err != nil {
		t.Fatal(err)
	}
	s.publish(t, c, image)
	exec(t, d, "INSERT INTO t(n) VALUES('after it')")
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	return d.path, image
}

func TestMarkerRules(t *testing.T) {
	write := func(t *testing.T, name string, data []byte) {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name   string
		head   string
		before func(t *testing.T, path string)
		kept   bool
	}{
		{"names the head", "1-1", func(*testing.T, string) {}, true},
		{"names another snapshot", "1-2", func(*testing.T, string) {}, false},
		{"there is no snapshot", "", func(*testing.T, string) {}, false},
		{"is missing", "1-1", func(t *testing.T, path string) { os.Remove(markerPath(path)) }, false},
		{"is damaged", "1-1", func(t *testing.T, path string) { write(t, markerPath(path), []byte(`{"version":1,"snapshot":"1-1"`)) }, false},
		{"is of another version", "1-1", func(t *testing.T, path string) {
			data, _ := os.ReadFile(markerPath(path))
			write(t, markerPath(path), bytes.Replace(data, []byte(`"version":1`), []byte(`"version":2`), 1))
		}, false},
		{"is huge", "1-1", func(t *testing.T, path string) {
			data, _ := os.ReadFile(markerPath(path))
			write(t, markerPath(path), append(data, bytes.Repeat([]byte(" "), maxMarker)...))
		}, false},
		{"main file is missing", "1-1", func(t *testing.T, path string) { os.Remove(path) }, false},
		{"main file was written", "1-1", func(t *testing.T, path string) {
			if err := os.Chtimes(path, time.Time{}, time.Now().Add(time.Second)); err != nil {
				t.Fatal(err)
			}
		}, false},
		{"main file has another size", "1-1", func(t *testing.T, path string) {
			var m marker
			data, _ := os.ReadFile(markerPath(path))
			if err := json.Unmarshal(data, &m); err != nil {
				t.Fatal(err)
			}
			os.Truncate(path, m.Size+4096)
			os.Chtimes(path, time.Time{}, m.ModTime)
		}, false},
		{"main file has a damaged header", "1-1", func(t *testing.T, path string) {
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			data, _ := os.ReadFile(path)
			data[0] ^= 1
			write(t, path, data)
			os.Chtimes(path, time.Time{}, info.ModTime())
		}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path, image := prepareMarked(t)
			write(t, path+loadSuffix+"-3", []byte("litter"))
			write(t, markerPath(path)+".tmp", []byte("litter"))
			tt.before(t, path)
			d := open(t, path, Config{Head: tt.head})
			if kept := d.Head() == tt.head && tt.head != ""; kept != tt.kept {
				t.Fatalf("kept %t, want %t", kept, tt.kept)
			}
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if tt.kept && !bytes.Equal(data, image) {
				t.Error("the main file differs from the snapshot")
			}
			tables := value(t, d, "SELECT count(*) FROM sqlite_schema WHERE name='t'")
			if tt.kept && value(t, d, "SELECT group_concat(n) FROM t") != "in the snapshot" || !tt.kept && tables != int64(0) {
				t.Error("the database is not the one of the snapshot")
			}
			names, err := vfs.OS.ReadDir(filepath.Dir(path))
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range names {
				if strings.Contains(name, loadSuffix) || strings.HasSuffix(name, ".tmp") || !tt.kept && name == markerName {
					t.Errorf("%s was left", name)
				}
			}
		})
	}
}

func TestWithdrawMarker(t *testing.T) {
	path, _ := prepareMarked(t)
	d, err := Open(path, Config{Head: "1-1"})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.WithdrawMarker(), d.Close()); err != nil {
		t.Fatal(err)
	}
	if d := open(t, path, Config{Head: "1-1"}); d.Head() != "" {
		t.Error("the files were kept without a marker")
	}
}

// mirror is the real disk, since SQLite writes to it, with a copy on one that loses power. What
// SQLite has written to the main file reaches the copy before each operation, unsynced.
type mirror struct {
	vfs.FS
	dir   string
	copy  *crashfs.FS
	main  []byte   // what the copy has as the main file
	mainF vfs.File // the main file on the copy
	left  int      // operations until the power is cut; negative: never
	trace []string
}

func newMirror(dir string, left int) *mirror {
	return &mirror{FS: vfs.OS, dir: dir, copy: crashfs.New(), left: left}
}

func (m *mirror) name(name string) string {
	return "/" + strings.TrimPrefix(strings.TrimPrefix(name, m.dir), "/")
}

// op lets an operation happen on both disks, or on none.
func (m *mirror) op(trace string, real, copied func() error) error {
	if err := m.copyMain(); err != nil {
		return err
	}
	if m.left == 0 {
		return crashfs.ErrPowerLost
	}
	m.left--
	m.trace = append(m.trace, trace)
	if err := real(); err != nil {
		return err
	}
	if err := copied(); err != nil {
		return fmt.Errorf("on the copy: %w", err)
	}
	return nil
}

func (m *mirror) copyMain() error {
	data, err := os.ReadFile(filepath.Join(m.dir, "db.sqlite"))
	if err != nil || bytes.Equal(data, m.main) {
		return nil
	}
	if m.mainF != nil && m.left != 0 {
		m.trace = append(m.trace, "(main file changed)")
	}
	m.main = data
	f, err := m.copy.Create("/db.sqlite")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	m.mainF = f
	return err
}

func (m *mirror) Create(name string) (f vfs.File, err error) {
	var c vfs.File
	err = m.op("create "+m.name(name), func() error { f, err = m.FS.Create(name); return err }, func() error { c, err = m.copy.Create(m.name(name)); return err })
	return &mirrorFile{File: f, m: m, name: m.name(name), copy: c}, err
}

func (m *mirror) Open(name string) (vfs.File, error) {
	f, err := m.FS.Open(name)
	return &mirrorFile{File: f, m: m, name: m.name(name)}, err
}

func (m *mirror) Rename(from, to string) error {
	err := m.op("rename "+m.name(from)+" "+m.name(to), func() error { return m.FS.Rename(from, to) }, func() error { return m.copy.Rename(m.name(from), m.name(to)) })
	if filepath.Base(to) == "db.sqlite" {
		m.main = nil // another file now
	}
	return err
}

func (m *mirror) Remove(name string) error {
	if _, err := m.FS.Stat(name); err != nil {
		return err // SQLite's own files are not on the copy
	}
	return m.op("remove "+m.name(name), func() error { return m.FS.Remove(name) }, func() error {
		if strings.HasSuffix(name, "-wal") || strings.HasSuffix(name, "-shm") {
			return nil
		}
		return m.copy.Remove(m.name(name))
	})
}

func (m *mirror) SyncDir(name string) error {
	return m.op("syncdir", func() error { return m.FS.SyncDir(name) }, func() error { return m.copy.SyncDir("/") })
}

type mirrorFile struct {
	vfs.File
	m    *mirror
	name string
	copy vfs.File // nil if opened for reading
}

func (f *mirrorFile) Write(p []byte) (n int, err error) {
	err = f.m.op("write "+f.name, func() error { n, err = f.File.Write(p); return err }, func() error { _, err := f.copy.Write(p); return err })
	return n, err
}

func (f *mirrorFile) Sync() error {
	return f.m.op("sync "+f.name, f.File.Sync, func() error {
		if f.copy != nil {
			return f.copy.Sync()
		}
		return f.m.mainF.Sync() // the only file that is synced through a descriptor for reading
	})
}

func (f *mirrorFile) Close() error {
	if f.copy != nil {
		return errors.Join(f.File.Close(), f.copy.Close())
	}
	return f.File.Close()
}

// scenario is a life of a database: captures, published and not, a restore, a loaded file. It
// records the image of each snapshot before the capture is acknowledged, as the store does.
func scenario(t *testing.T, m *mirror, s *chain) error {
	d, err := Open(filepath.Join(m.dir, "db.sqlite"), Config{FS: m, ReadersGrace: time.Millisecond})
	if err != nil {
		return err
	}
	defer d.Close()
	run := func(sql ...string) error {
		_, err := d.Apply(&command.Entry{Kind: command.Execute, Request: &command.Request{Statements: statements(sql...)}})
		return err
	}
	capture := func(publish bool) error {
		c, image, err := s.take(t, d)
		if err != nil {
			return err
		}
		defer c.Release()
		if !publish {
			return nil
		}
		id := fmt.Sprintf("1-%d", len(s.images)+1)
		s.images[id], s.head = image, id
		return c.Published(id)
	}
	steps := []func() error{
		func() error { return run(setup, "INSERT INTO t(n) VALUES('one')") },
		func() error { return capture(true) },
		func() error { return run("INSERT INTO t(n) VALUES(hex(zeroblob(30000)))") },
		func() error { return capture(false) },
		func() error { return run("INSERT INTO t(n) VALUES('two')") },
		func() error { return capture(true) },
		func() error { return run("INSERT INTO t(n) VALUES('three')") },
		func() error { return capture(true) },
		func() error { return run("INSERT INTO t(n) VALUES('four')") },
		func() error { // the leader sends an older snapshot
			name := filepath.Join(m.dir, "image")
			f, err := m.Create(name)
			if err != nil {
				return err
			}
			_, err = f.Write(s.images["1-1"])
			if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
				return err
			}
			s.images["2-1"], s.head = s.images["1-1"], "2-1"
			return d.Replace(name, "2-1")
		},
		func() error { return run("INSERT INTO t(n) VALUES('five')") },
		func() error { return capture(true) },
		func() error {
			_, err := d.Apply(&command.Entry{Kind: command.Load, Data: s.images["1-2"]})
			return err
		},
		func() error { return capture(true) },
		func() error { return run("DELETE FROM t", "VACUUM") },
		func() error { return capture(true) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// TestMarkerCrash cuts the power before each operation, keeps or loses what was not synced, and
// then starts with every snapshot as the head. The files may be kept only if they equal it.
func TestMarkerCrash(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	kept, deleted := 0, 0
	for op := 0; ; op++ {
		m := newMirror(t.TempDir(), op)
		s := &chain{images: map[string][]byte{}}
		err := scenario(t, m, s)
		if err != nil && !errors.Is(err, crashfs.ErrPowerLost) {
			t.Fatalf("crash before op %d: %v", op, err)
		}
		if err := m.copyMain(); err != nil {
			t.Fatal(err)
		}
		for i, disk := range []*crashfs.FS{m.copy.Restart(), m.copy.RestartRandom(seed + uint64(op)), m.copy.RestartRandom(^seed + uint64(op))} {
			for head, image := range s.images {
				dir := t.TempDir()
				real := survivors(t, disk, dir)
				ok, err := keepOrDelete(vfs.OS, filepath.Join(dir, "db.sqlite"), head)
				if err != nil {
					t.Fatal(err)
				}
				if ok && !bytes.Equal(real, image) {
					t.Fatalf("crash before op %d (disk %d): the file was kept for %s, but differs from it\n%s", op, i, head, strings.Join(m.trace, "\n"))
				}
				if ok {
					kept++
				} else {
					deleted++
				}
			}
		}
		if err == nil {
			break // the crash point lies past the last operation
		}
	}
	if kept == 0 || deleted == 0 {
		t.Errorf("kept %d times, deleted %d times: one case was never met", kept, deleted)
	}
}

// survivors copies what is left of a disk into dir, and returns the main file. Its time is what the
// marker wants, if the size is: the harder case.
func survivors(t *testing.T, disk *crashfs.FS, dir string) (main []byte) {
	t.Helper()
	names, err := disk.ReadDir("/")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		f, err := disk.Open("/" + name)
		if err != nil {
			t.Fatal(err)
		}
		size, err := f.Size()
		if err != nil {
			t.Fatal(err)
		}
		data := make([]byte, size)
		if _, err := f.ReadAt(data, 0); err != nil && size > 0 {
			t.Fatal(err)
		}
		if err := errors.Join(f.Close(), os.WriteFile(filepath.Join(dir, name), data, 0o600)); err != nil {
			t.Fatal(err)
		}
		if name == "db.sqlite" {
			main = data
		}
	}
	path := filepath.Join(dir, "db.sqlite")
	if mk, ok, err := readMarker(vfs.OS, path); err == nil && ok && main != nil {
		if err := os.Chtimes(path, time.Time{}, mk.ModTime); err != nil {
			t.Fatal(err)
		}
	}
	return main
}

// TestOrder compares the order of the operations on files with the one that was reviewed.
func TestOrder(t *testing.T) {
	m := newMirror(t.TempDir(), -1)
	s := &chain{images: map[string][]byte{}}
	if err := scenario(t, m, s); err != nil {
		t.Fatal(err)
	}
	const golden = "testdata/scenario.txt"
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(m.trace, "\n") + "\n"; got != string(want) {
		t.Errorf("operations are\n%s; want those in %s", got, golden)
	}
}

// TestFailedSync lets the sync of the main file fail: nothing may be done after that.
func TestFailedSync(t *testing.T) {
	dir := t.TempDir()
	m := &failing{FS: vfs.OS, name: filepath.Join(dir, "db.sqlite")}
	d := open(t, m.name, Config{FS: m})
	exec(t, d, setup)
	c, err := d.Capture("")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Release()
	if err := c.Published("1-1"); !errors.Is(err, vfs.ErrUncertain) {
		t.Fatalf("Published = %v, want ErrUncertain", err)
	}
	_, errApply := d.Apply(&command.Entry{Kind: command.Noop})
	_, errCapture := d.Capture("1-1")
	errs := []error{errApply, errCapture, d.Replace(m.name, "")}
	if slices.ContainsFunc(errs, func(err error) bool { return !errors.Is(err, vfs.ErrUncertain) }) {
		t.Errorf("afterwards: %v, want ErrUncertain each time", errs)
	}
}

type failing struct {
	vfs.FS
	name string
}

func (f *failing) Open(name string) (vfs.File, error) {
	file, err := f.FS.Open(name)
	if name == f.name && err == nil {
		return failingFile{file}, nil
	}
	return file, err
}

type failingFile struct{ vfs.File }

func (failingFile) Sync() error { return errors.New("input/output error") }
