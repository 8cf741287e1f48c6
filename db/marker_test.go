package db

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"rqlited/command"
	"rqlited/internal/vfs"
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
		{"is damaged", "1-1", func(t *testing.T, path string) { write(t, markerPath(path), []byte(`{"version":2,"snapshot":"1-1"`)) }, false},
		{"is of another version", "1-1", func(t *testing.T, path string) {
			data, _ := os.ReadFile(markerPath(path))
			write(t, markerPath(path), bytes.Replace(data, []byte(`"version":2`), []byte(`"version":1`), 1))
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

// TestFailedWithdrawal lets the sync of the directory fail once: whether the marker is gone is not known
// then, and a second sync would prove nothing.
func TestFailedWithdrawal(t *testing.T) {
	for _, act := range []func(d *DB) error{
		func(d *DB) error { _, err := d.Capture("1-1"); return err },
		func(d *DB) error { return d.Announce() },
		func(d *DB) error { return d.WithdrawMarker() },
	} {
		path, _ := prepareMarked(t)
		m := &failingDir{FS: vfs.OS}
		d := open(t, path, Config{FS: m, Head: "1-1"})
		exec(t, d, "INSERT INTO t(n) VALUES(1)")
		m.fails = 1
		err := act(d)
		_, errApply := d.Apply(&command.Entry{Kind: command.Noop})
		_, errCapture := d.Capture("1-1")
		for _, err := range []error{err, errApply, errCapture} {
			if !errors.Is(err, vfs.ErrUncertain) {
				t.Errorf("errors are %v, %v, %v; want ErrUncertain", err, errApply, errCapture)
			}
		}
	}
}

type failingDir struct {
	vfs.FS
	fails int
}

func (f *failingDir) SyncDir(dir string) error {
	if f.fails > 0 {
		f.fails--
		return errors.New("input/output error")
	}
	return f.FS.SyncDir(dir)
}

// TestReplacedWhilePublished replaces the main file while a publication waits for its sync.
func TestReplacedWhilePublished(t *testing.T) {
	path, image := prepareMarked(t)
	m := &hooked{FS: vfs.OS, name: path}
	d := open(t, path, Config{FS: m, Head: "1-1"})
	exec(t, d, "INSERT INTO t(n) VALUES(1)")
	c, err := d.Capture("1-1")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Release()
	m.onSync = func() {
		m.onSync = func() {}
		if err := d.Replace(imageOf(t, d, image), "2-1"); err != nil {
			t.Error(err)
		}
	}
	if err := c.Published("1-2"); err != nil {
		t.Fatal(err)
	}
	if d.Head() != "2-1" {
		t.Errorf("Head = %q, want 2-1", d.Head())
	}
	if again := open(t, killed(t, path), Config{Head: "2-1"}); again.Head() != "2-1" {
		t.Error("the next start has not kept the file that replaced the other")
	}
	if again := open(t, killed(t, path), Config{Head: "1-2"}); again.Head() != "" {
		t.Error("the next start takes the new file for the snapshot of the old one")
	}
}

// hooked calls onSync before the main file is synced.
type hooked struct {
	vfs.FS
	name   string
	onSync func()
}

type hookedFile struct {
	vfs.File
	h *hooked
}

func (h *hooked) Open(name string) (vfs.File, error) {
	f, err := h.FS.Open(name)
	if name == h.name && err == nil {
		return hookedFile{f, h}, nil
	}
	return f, err
}

func (f hookedFile) Sync() error {
	f.h.onSync()
	return f.File.Sync()
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
