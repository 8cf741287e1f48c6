package vfs_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"testing"

	"rqlited/internal/vfs"
)

// TestFreeOS checks the answer against the one thing that is sure: a file that was just written fit.
func TestFreeOS(t *testing.T) {
	dir := t.TempDir()
	n, err := vfs.Free(vfs.OS, dir)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip("this system does not tell the free space")
	}
	if err != nil || n <= 1<<10 || n >= 1<<60 {
		t.Errorf("Free() = %d, %v; want something between 1 KiB and 1 EiB", n, err)
	}
	if _, err := vfs.Free(vfs.OS, filepath.Join(dir, "gone")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Free() of what does not exist = %v; want %v", err, fs.ErrNotExist)
	}
}

// TestCloneOS clones a file if the disk of the temporary directory can, and checks that nothing has
// happened if it cannot. Which of the two it was is logged.
func TestCloneOS(t *testing.T) {
	dir := t.TempDir()
	data := bytes.Repeat([]byte("0123456789abcdef"), 4096)
	w, err := vfs.OS.Create(filepath.Join(dir, "src"))
	must(t, err)
	_, err = w.Write(data)
	must(t, errors.Join(err, w.Close()))
	src, err := vfs.OS.Open(filepath.Join(dir, "src"))
	must(t, err)
	dst, err := vfs.OS.Create(filepath.Join(dir, "dst"))
	must(t, err)

	err = vfs.Clone(dst, src)
	t.Logf("Clone() = %v", err)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		data = nil
	case err != nil:
		t.Errorf("Clone() = %v; want success or %v", err, errors.ErrUnsupported)
	default:
		_, err = dst.WriteAt([]byte("x"), 1)
		must(t, err)
		if got := readFile(t, vfs.OS, src.(interface{ Name() string }).Name()); got != string(data) {
			t.Error("writing to the clone has changed the original")
		}
		data[1] = 'x'
	}
	got := make([]byte, len(data)+1)
	n, err := dst.ReadAt(got, 0)
	if !errors.Is(err, io.EOF) || !bytes.Equal(got[:n], data) {
		t.Errorf("clone has %d bytes, %v; want the %d of the original", n, err, len(data))
	}
	must(t, errors.Join(src.Close(), dst.Close()))
}

// plain hides what a file can do beyond vfs.File.
type plain struct{ vfs.File }

func TestCloneUnsupported(t *testing.T) {
	disk := newDisk(t, "posix")
	disk.OfferClone(true)
	a, err := disk.Create("a")
	must(t, err)
	file, err := vfs.OS.Create(filepath.Join(t.TempDir(), "f"))
	must(t, err)
	for name, err := range map[string]error{
		"into memory":    vfs.Clone(a, file),
		"onto the disk":  vfs.Clone(file, a),
		"into a wrapper": vfs.Clone(plain{a}, a),
		"from a wrapper": vfs.Clone(a, plain{a}),
		"between kinds":  vfs.Clone(plain{file}, plain{a}),
	} {
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("Clone %s = %v; want %v", name, err, errors.ErrUnsupported)
		}
	}
	must(t, errors.Join(a.Close(), file.Close()))
}
