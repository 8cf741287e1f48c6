package vfs_test

import (
	"errors"
	"io"
	"testing"

	"rqlited/internal/vfs"
	"rqlited/internal/vfs/crashfs"
)

// disks are the kinds of disk that everything has to work on.
var disks = map[string]func() *crashfs.FS{"posix": crashfs.New, "windows": crashfs.NewWindows}

// newDisk returns a disk of the given kind with a durable directory /d.
func newDisk(t *testing.T, kind string) *crashfs.FS {
	t.Helper()
	fsys := disks[kind]()
	if err := errors.Join(fsys.MkdirAll("/d"), fsys.SyncDir("/")); err != nil {
		t.Fatal(err)
	}
	return fsys
}

func readFile(t *testing.T, fsys vfs.FS, name string) string {
	t.Helper()
	f, err := fsys.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(f)
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestWriteFileAtomicCrash cuts the power before every single operation, with what was not synced
// lost, and kept in part.
func TestWriteFileAtomicCrash(t *testing.T) {
	for kind := range disks {
		t.Run(kind, func(t *testing.T) { testWriteFileAtomicCrash(t, kind) })
	}
}

func testWriteFileAtomicCrash(t *testing.T, kind string) {
	for op := 0; ; op++ {
		fsys := newDisk(t, kind)
		if err := vfs.WriteFileAtomic(fsys, "/d/name", []byte("old")); err != nil {
			t.Fatal(err)
		}
		fsys.CrashAfter(op)
		err := vfs.WriteFileAtomic(fsys, "/d/name", []byte("new"))
		if err != nil && !errors.Is(err, crashfs.ErrPowerLost) {
			t.Fatalf("crash before op %d: unexpected error: %v", op, err)
		}
		found := []*crashfs.FS{fsys.Restart(), fsys.Kill()}
		for seed := range uint64(20) {
			found = append(found, fsys.RestartRandom(seed))
		}
		for i, disk := range found {
			switch got := readFile(t, disk, "/d/name"); {
			case err == nil && got != "new":
				t.Fatalf("crash before op %d, disk %d: reported success, but %q survived", op, i, got)
			case got != "old" && got != "new":
				t.Fatalf("crash before op %d, disk %d: torn content %q", op, i, got)
			}
		}
		if err == nil { // the crash point lies past the last operation: every point was tried
			t.Logf("tried %d crash points, %d error points", op, 0)
			return
		}
	}
}

// TestWriteFileAtomicError fails every single operation. An error that is not ErrUncertain must
// have left the old content, for good.
func TestWriteFileAtomicError(t *testing.T) {
	for kind := range disks {
		t.Run(kind, func(t *testing.T) { testWriteFileAtomicError(t, kind) })
	}
}

func testWriteFileAtomicError(t *testing.T, kind string) {
	errDisk := errors.New("disk on fire")
	for op := 0; ; op++ {
		fsys := newDisk(t, kind)
		if err := vfs.WriteFileAtomic(fsys, "/d/name", []byte("old")); err != nil {
			t.Fatal(err)
		}
		fsys.FailAt(op, errDisk, true)
		err := vfs.WriteFileAtomic(fsys, "/d/name", []byte("new"))
		failed := fsys.Failed()
		fsys.FailAt(-1, nil, false)
		if failed == 0 {
			if err != nil {
				t.Fatalf("WriteFileAtomic = %v although nothing failed", err)
			}
			t.Logf("tried %d crash points, %d error points", 0, op)
			return
		}
		if !errors.Is(err, errDisk) {
			t.Fatalf("op %d failed: WriteFileAtomic = %v; want the disk's error", op, err)
		}
		if got := readFile(t, fsys, "/d/name"); got != "old" && !errors.Is(err, vfs.ErrUncertain) {
			t.Fatalf("op %d failed with %v, which promises the old content; found %q", op, err, got)
		}
	}
}
