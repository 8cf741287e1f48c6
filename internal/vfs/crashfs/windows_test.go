package crashfs

import (
	"errors"
	"io/fs"
	"testing"
)

// TestOpenFiles tries what Windows forbids on both kinds of disk. Files d/a and d/b exist.
func TestOpenFiles(t *testing.T) {
	tests := []struct {
		name           string
		open           string // kept open for reading
		act            func(f *FS) error
		windows, posix error
	}{
		{"remove", "d/a", func(f *FS) error { return f.Remove("d/a") }, ErrInUse, nil},
		{"remove another", "d/b", func(f *FS) error { return f.Remove("d/a") }, nil, nil},
		{"rename", "d/a", func(f *FS) error { return f.Rename("d/a", "d/c") }, ErrInUse, nil},
		{"rename another", "d/b", func(f *FS) error { return f.Rename("d/a", "d/c") }, nil, nil},
		{"rename onto", "d/b", func(f *FS) error { return f.Rename("d/a", "d/b") }, ErrInUse, nil},
		{"rename onto closed", "c", func(f *FS) error { return f.Rename("d/a", "d/b") }, nil, nil},
		{"rename the directory", "d/a", func(f *FS) error { return f.Rename("d", "e") }, ErrInUse, nil},
		{"rename the directory of closed files", "c", func(f *FS) error { return f.Rename("d", "e") }, nil, nil},
		{"create anew", "d/a", func(f *FS) error { _, err := f.Create("d/a"); return err }, nil, nil},
		{"remove what is not there", "c", func(f *FS) error { return f.Remove("d/c") }, fs.ErrNotExist, fs.ErrNotExist},
		{"sync what is not there", "c", func(f *FS) error { return f.SyncDir("nowhere") }, nil, fs.ErrNotExist},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for f, want := range map[*FS]error{NewWindows(): tt.windows, New(): tt.posix} {
				must(t, f.MkdirAll("d"))
				for _, name := range []string{"c", "d/a", "d/b"} {
					must(t, write(t, f, name, "x").Close())
				}
				_, err := f.Open(tt.open)
				must(t, err)
				if err := tt.act(f); !errors.Is(err, want) {
					t.Errorf("windows = %v: error = %v; want %v", f.windows, err, want)
				}
			}
		})
	}
}

// TestWindowsRestart says which acts make names durable there.
func TestWindowsRestart(t *testing.T) {
	tests := []struct {
		name string
		act  func(t *testing.T, f *FS) // upon d/a, which holds "old" for good
		a, b string                    // contents after the restart
	}{
		{"new file", func(t *testing.T, f *FS) { write(t, f, "d/b", "x") }, "old", "-"},
		{"new file, directory synced", func(t *testing.T, f *FS) { write(t, f, "d/b", "x"); must(t, f.SyncDir("d")) }, "old", "-"},
		{"new file, synced", func(t *testing.T, f *FS) { must(t, write(t, f, "d/b", "x").Sync()) }, "old", "x"},
		{"renamed", func(t *testing.T, f *FS) { must(t, f.Rename("d/a", "d/b")) }, "-", "old"},
		{"new file, not synced, renamed", func(t *testing.T, f *FS) {
			must(t, write(t, f, "d/c", "x").Close())
			must(t, f.Rename("d/c", "d/b"))
		}, "old", ""},
		{"removed", func(t *testing.T, f *FS) { must(t, f.Remove("d/a")); must(t, f.SyncDir("d")) }, "old", "-"},
		{"removed, another file synced", func(t *testing.T, f *FS) {
			must(t, f.Remove("d/a"))
			must(t, write(t, f, "c", "").Sync())
		}, "-", "-"},
		{"failed rename", func(t *testing.T, f *FS) {
			f.FailAt(0, fs.ErrPermission, false)
			if err := f.Rename("d/a", "d/b"); err == nil {
				t.Error("Rename succeeded")
			}
		}, "old", "-"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := NewWindows()
			must(t, f.MkdirAll("d"))
			h := write(t, f, "d/a", "old")
			must(t, errors.Join(h.Sync(), h.Close()))
			tt.act(t, f)
			next := f.Restart()
			if a, b := content(t, next, "d/a"), content(t, next, "d/b"); a != tt.a || b != tt.b {
				t.Errorf("after Restart a, b = %q, %q; want %q, %q", a, b, tt.a, tt.b)
			}
			open, err := next.Create("d/open")
			must(t, err)
			if err := next.Remove("d/open"); !errors.Is(err, ErrInUse) {
				t.Errorf("Remove of an open file after Restart = %v; want %v", err, ErrInUse)
			}
			must(t, open.Close())
			must(t, next.Remove("d/open"))
		})
	}
}
