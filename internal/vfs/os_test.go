package vfs_test

import (
	"errors"
	"io/fs"
	"path/filepath"
	"reflect"
	"testing"

	"rqlited/internal/vfs"
	"rqlited/internal/vfs/crashfs"
)

// TestFS runs the same acts on the real file system and on the one in memory: what tests see on
// the latter is worth something only if both agree.
func TestFS(t *testing.T) {
	t.Run("os", func(t *testing.T) { testFS(t, vfs.OS, t.TempDir()) })
	t.Run("crashfs", func(t *testing.T) { testFS(t, crashfs.New(), ".") })
}

func testFS(t *testing.T, fsys vfs.FS, root string) {
	dir := filepath.Join(root, "a", "b")
	must(t, fsys.MkdirAll(dir))
	must(t, fsys.MkdirAll(dir))

	name := filepath.Join(dir, "f")
	f, err := fsys.Create(name)
	must(t, err)
	_, err = f.Write([]byte("0123456789"))
	must(t, err)
	_, err = f.WriteAt([]byte("XY"), 12) // leaves a hole
	must(t, err)
	_, err = f.Write([]byte("ab")) // WriteAt has not moved the position
	must(t, err)
	if size, err := f.Size(); size != 14 || err != nil {
		t.Errorf("Size() = %d, %v; want 14, nil", size, err)
	}
	must(t, f.Sync())
	must(t, f.Close())
	if err := f.Close(); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("second Close() = %v; want %v", err, fs.ErrClosed)
	}
	must(t, fsys.SyncDir(dir))
	if got, want := readFile(t, fsys, name), "0123456789abXY"; got != want {
		t.Errorf("content = %q; want %q", got, want)
	}

	open, err := fsys.Open(name)
	must(t, err)
	if _, err := open.Write([]byte("x")); err == nil {
		t.Error("Write to a file opened for reading succeeded")
	}
	must(t, vfs.WriteFileAtomic(fsys, filepath.Join(dir, "g"), []byte("g")))
	must(t, fsys.Rename(filepath.Join(dir, "g"), name))
	if got := readFile(t, fsys, name); got != "g" {
		t.Errorf("content after Rename = %q; want %q", got, "g")
	}
	part := make([]byte, 3)
	if n, err := open.ReadAt(part, 12); n != 2 || err == nil || string(part[:n]) != "XY" {
		t.Errorf("ReadAt of a replaced file = %d, %v, %q; want 2, an error, XY", n, err, part[:n])
	}
	must(t, open.Close())

	testNames(t, fsys, dir)
}

func testNames(t *testing.T, fsys vfs.FS, dir string) {
	must(t, fsys.MkdirAll(filepath.Join(dir, "sub")))
	names, err := fsys.ReadDir(dir)
	must(t, err)
	if want := []string{"f", "sub"}; !reflect.DeepEqual(names, want) {
		t.Errorf("ReadDir() = %q; want %q", names, want)
	}
	if fi, err := fsys.Stat(filepath.Join(dir, "sub")); err != nil || !fi.Dir {
		t.Errorf("Stat(sub) = %+v, %v; want a directory", fi, err)
	}
	if fi, err := fsys.Stat(filepath.Join(dir, "f")); err != nil || fi.Dir || fi.Size != 1 || fi.ModTime.IsZero() {
		t.Errorf("Stat(f) = %+v, %v; want a file of 1 byte", fi, err)
	}
	if err := fsys.Remove(dir); err == nil {
		t.Error("Remove of a directory that is not empty succeeded")
	}
	must(t, fsys.Remove(filepath.Join(dir, "f")))

	gone := filepath.Join(dir, "gone")
	_, openErr := fsys.Open(gone)
	_, statErr := fsys.Stat(gone)
	_, listErr := fsys.ReadDir(gone)
	_, createErr := fsys.Create(filepath.Join(gone, "f"))
	for act, err := range map[string]error{
		"Open": openErr, "Stat": statErr, "ReadDir": listErr, "Create": createErr,
		"Remove": fsys.Remove(gone), "Rename": fsys.Rename(gone, gone+"2"), "SyncDir": fsys.SyncDir(gone),
	} {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s of what does not exist = %v; want %v", act, err, fs.ErrNotExist)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
