package crashfs

import (
	"errors"
	"strings"
	"syscall"
	"testing"

	"rqlited/internal/vfs"
)

// wantFree checks what is left on the disk.
func wantFree(t *testing.T, f *FS, want int64) {
	t.Helper()
	if got, err := vfs.Free(f, "/"); got != want || err != nil {
		t.Errorf("Free() = %d, %v; want %d", got, err, want)
	}
}

// TestFree follows the space on a disk of 10 bytes on which "a" takes 4.
func TestFree(t *testing.T) {
	tests := []struct {
		name string
		act  func(t *testing.T, f *FS, a *handle)
		want int64
	}{
		{"nothing", func(*testing.T, *FS, *handle) {}, 6},
		{"longer", func(t *testing.T, _ *FS, a *handle) { mustWrite(t, a, "xyz") }, 3},
		{"overwritten", func(t *testing.T, _ *FS, a *handle) { mustWriteAt(t, a, "xyz", 1) }, 6},
		{"overwritten and longer", func(t *testing.T, _ *FS, a *handle) { mustWriteAt(t, a, "xyz", 3) }, 4},
		{"hole", func(t *testing.T, _ *FS, a *handle) { mustWriteAt(t, a, "x", 8) }, 1},
		{"truncated", func(t *testing.T, f *FS, _ *handle) { write(t, f, "a", "") }, 10},
		{"removed, open", func(t *testing.T, f *FS, _ *handle) { must(t, f.Remove("a")) }, 6},
		{"removed", func(t *testing.T, f *FS, a *handle) { must(t, a.Close()); must(t, f.Remove("a")) }, 10},
		{"removed, then closed", func(t *testing.T, f *FS, a *handle) { must(t, f.Remove("a")); must(t, a.Close()) }, 10},
		{"renamed", func(t *testing.T, f *FS, _ *handle) { must(t, f.Rename("a", "b")) }, 6},
		{"replaced", func(t *testing.T, f *FS, a *handle) {
			must(t, a.Close())
			must(t, write(t, f, "b", "123456").Close())
			must(t, f.Rename("b", "a"))
		}, 4},
		{"cloned", func(t *testing.T, f *FS, a *handle) { clone(t, f, a, "b") }, 6},
		{"clone written to", func(t *testing.T, f *FS, a *handle) { mustWriteAt(t, clone(t, f, a, "b"), "xyz", 1) }, 3},
		{"clone longer", func(t *testing.T, f *FS, a *handle) { mustWriteAt(t, clone(t, f, a, "b"), "xyz", 4) }, 3},
		{"original of a clone removed", func(t *testing.T, f *FS, a *handle) {
			clone(t, f, a, "b")
			must(t, a.Close())
			must(t, f.Remove("b"))
		}, 6},
		{"new name", func(t *testing.T, f *FS, _ *handle) { must(t, f.MkdirAll("d/e")) }, 6},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := New()
			f.OfferClone(true)
			f.SetFree(10)
			a := write(t, f, "a", "1234")
			tt.act(t, f, a)
			wantFree(t, f, tt.want)
		})
	}
}

func mustWrite(t *testing.T, h vfs.File, data string) {
	t.Helper()
	_, err := h.Write([]byte(data))
	must(t, err)
}

func mustWriteAt(t *testing.T, h vfs.File, data string, off int64) {
	t.Helper()
	_, err := h.WriteAt([]byte(data), off)
	must(t, err)
}

// clone returns a new file with the content of src.
func clone(t *testing.T, f *FS, src *handle, name string) *handle {
	t.Helper()
	dst := write(t, f, name, "")
	must(t, vfs.Clone(dst, src))
	return dst
}

// TestFull writes to disks that have no room for all of it.
func TestFull(t *testing.T) {
	tests := []struct {
		name    string
		free    int64
		clone   bool // write to a clone of a
		data    string
		off     int64
		written int
		content string
	}{
		{"all fits", 3, false, "xyz", 4, 3, "1234xyz"},
		{"part fits", 2, false, "xyz", 4, 2, "1234xy"},
		{"nothing fits", 0, false, "xyz", 4, 0, "1234"},
		{"old blocks are free", 0, false, "xyz", 1, 3, "1xyz"},
		{"old blocks and new ones", 1, false, "xyz", 3, 2, "123xy"},
		{"hole does not fit", 2, false, "xyz", 6, 0, "1234"},
		{"shared blocks are not free", 2, true, "xyz", 1, 2, "1xy4"},
		{"no room beside the shared", 0, true, "xyz", 1, 0, "1234"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := New()
			f.OfferClone(true)
			h := write(t, f, "a", "1234")
			if tt.clone {
				h = clone(t, f, h, "b")
			}
			f.SetFree(tt.free)
			n, err := h.WriteAt([]byte(tt.data), tt.off)
			if n != tt.written || errors.Is(err, syscall.ENOSPC) != (n < len(tt.data)) {
				t.Errorf("WriteAt() = %d, %v; want %d", n, err, tt.written)
			}
			if got := content(t, f, h.name); got != tt.content {
				t.Errorf("content = %q; want %q", got, tt.content)
			}
		})
	}
}

// TestFreeAfterRestart checks that a disk is as full as what has survived on it.
func TestFreeAfterRestart(t *testing.T) {
	f := New()
	if _, err := vfs.Free(f, "/"); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Free() of a disk without end = %v; want %v", err, errors.ErrUnsupported)
	}
	f.SetFree(10)
	must(t, write(t, f, "a", "1234").Sync())
	must(t, f.SyncDir("/"))
	write(t, f, "b", "123456") // not synced
	gone := write(t, f, "c", "")
	must(t, f.Remove("c"))
	if _, err := gone.Write([]byte("x")); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Write() to a full disk = %v; want %v", err, syscall.ENOSPC)
	}
	wantFree(t, f.Kill(), 0)
	next := f.Restart()
	wantFree(t, next, 6)
	write(t, next, "b", "123456")
	wantFree(t, next, 0)
	next.SetFree(-1)
	write(t, next, "d", "123456")
	for seed := range uint64(20) {
		disk := f.RestartRandom(seed)
		wantFree(t, disk, int64(10-len(strings.ReplaceAll(content(t, disk, "a")+content(t, disk, "b"), "-", ""))))
	}
}

func TestClone(t *testing.T) {
	f := New()
	a, b := write(t, f, "a", "1234"), write(t, f, "b", "")
	must(t, errors.Join(b.Sync(), f.SyncDir("/")))
	f.Trace()
	if err := vfs.Clone(b, a); !errors.Is(err, errors.ErrUnsupported) || len(f.Trace()) > 0 {
		t.Errorf("Clone() where it is not offered = %v; want %v", err, errors.ErrUnsupported)
	}
	f.OfferClone(true)
	if err := vfs.Clone(write(t, New(), "b", ""), a); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Clone() across disks = %v; want %v", err, errors.ErrUnsupported)
	}
	src, err := f.Open("a")
	must(t, err)
	must(t, vfs.Clone(b, src))
	if got := strings.Join(f.Trace(), "; "); got != "clone   a b" {
		t.Errorf("Trace() = %q; want the clone", got)
	}
	if err := vfs.Clone(b, src); err == nil {
		t.Error("Clone() into a file that is not empty succeeded")
	}
	mustWriteAt(t, a, "x", 0)
	mustWriteAt(t, b, "y", 1)
	if a, b := content(t, f, "a"), content(t, f, "b"); a != "x234" || b != "1y34" {
		t.Errorf("a, b = %q, %q; want x234, 1y34", a, b)
	}
	if got := content(t, f.Restart(), "b"); got != "" {
		t.Errorf("clone after Restart = %q; it was not synced", got)
	}
}
