package vfs_test

import (
	"errors"
	"io"
	"testing"

	"rqlited/internal/vfs"
	"rqlited/internal/vfs/crashfs"
)

// newDisk returns a disk with a durable directory /d.
func newDisk(t *testing.T) *crashfs.FS {
	t.Helper()
	fsys := crashfs.New()
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
	for op := 0; ; op++ {
		fsys := newDisk(t)
		if err := vfs.WriteFileAtomic(fsys, "/d/name", []byte("old")); err != nil {
			t.Fatal(err)
		}
		fsys.CrashAfter(op)
		err := vfs.WriteFileAtomic(fsys, "/d/name", []byte("new"))
		if err != nil && !errors.Is(err, crashfs.ErrPowerLost) {
			t.Fatalf("crash before op %d: unexpected error: %v", op, err)
		}
		disks := []*crashfs.FS{fsys.Restart()}
		for seed := range uint64(20) {
			disks = append(disks, fsys.RestartRandom(seed))
		}
		for i, disk := range disks {
			switch got := readFile(t, disk, "/d/name"); {
			case err == nil && got != "new":
				t.Fatalf("crash before op %d, disk %d: reported success, but %q survived", op, i, got)
			case got != "old" && got != "new":
				t.Fatalf("crash before op %d, disk %d: torn content %q", op, i, got)
			}
		}
		if err == nil {
			return // the crash point lies past the last operation: every point was tried
		}
	}
}

// TestWriteFileAtomicError fails every single operation. An error that is not ErrUncertain must
// have left the old content, for good.
func TestWriteFileAtomicError(t *testing.T) {
	errDisk := errors.New("disk on fire")
	for op := 0; ; op++ {
		fsys := newDisk(t)
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
			return // every operation has failed once
		}
		if !errors.Is(err, errDisk) {
			t.Fatalf("op %d failed: WriteFileAtomic = %v; want the disk's error", op, err)
		}
		if got := readFile(t, fsys, "/d/name"); got != "old" && !errors.Is(err, vfs.ErrUncertain) {
			t.Fatalf("op %d failed with %v, which promises the old content; found %q", op, err, got)
		}
	}
}
