package crashfs

import (
	"errors"
	"io"
	"io/fs"
	"reflect"
	"strings"
	"testing"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// write creates a file with the given content and syncs nothing.
func write(t *testing.T, f *FS, name, content string) *handle {
	t.Helper()
	file, err := f.Create(name)
	must(t, err)
	_, err = file.Write([]byte(content))
	must(t, err)
	return file.(*handle)
}

// content returns what is in a file, or "-" if there is none.
func content(t *testing.T, f *FS, name string) string {
	t.Helper()
	file, err := f.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "-"
	}
	must(t, err)
	data, err := io.ReadAll(file)
	must(t, err)
	return string(data)
}

// TestRestart says what each kind of sync is good for.
func TestRestart(t *testing.T) {
	tests := []struct {
		name string
		act  func(t *testing.T, f *FS) // upon /a, which holds "old" for good
		a, b string                    // contents after the restart
	}{
		{"nothing", func(t *testing.T, f *FS) {}, "old", "-"},
		{"new file", func(t *testing.T, f *FS) { write(t, f, "b", "x") }, "old", "-"},
		{"new file, bytes synced", func(t *testing.T, f *FS) { must(t, write(t, f, "b", "x").Sync()) }, "old", "-"},
		{"new file, name synced", func(t *testing.T, f *FS) { write(t, f, "b", "x"); must(t, f.SyncDir("/")) }, "old", ""},
		{"new file, both synced", func(t *testing.T, f *FS) {
			must(t, write(t, f, "b", "x").Sync())
			must(t, f.SyncDir("/"))
		}, "old", "x"},
		{"truncated", func(t *testing.T, f *FS) { write(t, f, "a", "new") }, "old", "-"},
		{"truncated, bytes synced", func(t *testing.T, f *FS) { must(t, write(t, f, "a", "new").Sync()) }, "new", "-"},
		{"renamed", func(t *testing.T, f *FS) { must(t, f.Rename("a", "b")) }, "old", "-"},
		{"renamed, name synced", func(t *testing.T, f *FS) { must(t, f.Rename("a", "b")); must(t, f.SyncDir(".")) }, "-", "old"},
		{"removed", func(t *testing.T, f *FS) { must(t, f.Remove("a")) }, "old", "-"},
		{"removed, name synced", func(t *testing.T, f *FS) { must(t, f.Remove("a")); must(t, f.SyncDir(".")) }, "-", "-"},
		{"failed sync, then another", func(t *testing.T, f *FS) {
			h := write(t, f, "a", "new")
			f.FailAt(0, io.ErrUnexpectedEOF, false)
			if err := h.Sync(); err == nil {
				t.Error("Sync succeeded")
			}
			must(t, h.Sync())
		}, "old", "-"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := New()
			must(t, write(t, f, "a", "old").Sync())
			must(t, f.SyncDir("/"))
			tt.act(t, f)
			next := f.Restart()
			if a, b := content(t, next, "a"), content(t, next, "b"); a != tt.a || b != tt.b {
				t.Errorf("after Restart a, b = %q, %q; want %q, %q", a, b, tt.a, tt.b)
			}
			if _, err := f.Stat("a"); !errors.Is(err, ErrPowerLost) {
				t.Errorf("Stat on the old disk = %v; want %v", err, ErrPowerLost)
			}
		})
	}
}

// TestKill checks that a killed process takes nothing with it, and syncs nothing.
func TestKill(t *testing.T) {
	f := New()
	must(t, write(t, f, "a", "old").Sync())
	must(t, f.MkdirAll("d"))
	must(t, f.SyncDir("/"))
	write(t, f, "a", "new")
	write(t, f, "d/b", "x")
	next := f.Kill()
	if a, b := content(t, next, "a"), content(t, next, "d/b"); a != "new" || b != "x" {
		t.Errorf("after Kill a, b = %q, %q; want new, x", a, b)
	}
	if _, err := f.Stat("a"); !errors.Is(err, ErrPowerLost) {
		t.Errorf("Stat by the killed process = %v; want %v", err, ErrPowerLost)
	}
	cut := next.Restart()
	if a, b := content(t, cut, "a"), content(t, cut, "d/b"); a != "old" || b != "-" {
		t.Errorf("after Kill and Restart a, b = %q, %q; want old, -", a, b)
	}
	next = f.Kill()
	must(t, next.SyncDir("/"))
	must(t, next.SyncDir("d"))
	if b := content(t, next.Restart(), "d/b"); b != "" {
		t.Errorf("after Kill and SyncDir b = %q; want an empty file", b)
	}
}

// TestRestartRandom checks that every mixture comes up, and only mixtures of old and new.
func TestRestartRandom(t *testing.T) {
	oldText, newText := strings.Repeat("o", 3*blockSize), strings.Repeat("n", 3*blockSize)
	seen := map[string]bool{}
	for seed := range uint64(300) {
		f := New()
		must(t, write(t, f, "a", oldText).Sync())
		must(t, f.SyncDir("/"))
		write(t, f, "a", newText)
		write(t, f, "b", "b")
		next := f.RestartRandom(seed)
		got := content(t, next, "a")
		for i := 0; i+blockSize <= len(got); i += blockSize {
			if c := got[i : i+blockSize]; c != oldText[:blockSize] && c != newText[:blockSize] {
				t.Fatalf("seed %d: block %q is neither old nor new", seed, c)
			}
		}
		seen[got] = true
		seen["b is "+content(t, next, "b")] = true
		if again := f.RestartRandom(seed); content(t, again, "a") != got {
			t.Fatalf("seed %d gives two different disks", seed)
		}
	}
	for _, want := range []string{oldText, newText, "b is -", "b is b"} {
		if !seen[want] {
			t.Errorf("%.20q never came up", want)
		}
	}
	if len(seen) < 8 {
		t.Errorf("only %d mixtures came up", len(seen))
	}
}

func TestCrashAfter(t *testing.T) {
	f := New()
	f.CrashAfter(2)
	h := write(t, f, "a", "x") // create and write
	if _, err := f.Stat("a"); err != nil {
		t.Errorf("Stat = %v; reading does not count", err)
	}
	if err := h.Sync(); !errors.Is(err, ErrPowerLost) {
		t.Errorf("third change = %v; want %v", err, ErrPowerLost)
	}
	if _, err := f.Stat("a"); !errors.Is(err, ErrPowerLost) {
		t.Errorf("Stat without power = %v; want %v", err, ErrPowerLost)
	}
}

func TestFailAt(t *testing.T) {
	errDisk := errors.New("disk full")
	f := New()
	h := write(t, f, "a", "")
	f.FailAt(1, errDisk, false)
	_, err := h.Write([]byte("12"))
	must(t, err)
	if n, err := h.Write([]byte("3456")); n != 2 || !errors.Is(err, errDisk) {
		t.Errorf("Write = %d, %v; want 2, %v", n, err, errDisk)
	}
	if got := f.Failed(); got != 1 {
		t.Errorf("Failed() = %d; want 1", got)
	}
	if got := content(t, f, "a"); got != "1234" {
		t.Errorf("content = %q; want 1234", got)
	}
	f.FailAt(0, errDisk, true)
	for range 3 {
		if err := f.SyncDir("/"); !errors.Is(err, errDisk) {
			t.Errorf("SyncDir = %v; want %v for ever", err, errDisk)
		}
	}
	f.FailAt(-1, nil, false)
	must(t, f.SyncDir("/"))
}

func TestFreeze(t *testing.T) {
	tests := []struct {
		name string
		act  func(f *FS, finished *handle)
	}{
		{"create", func(f *FS, _ *handle) { _, _ = f.Create("x.base") }},
		{"rename", func(f *FS, _ *handle) { _ = f.Rename("x.base", "y") }},
		{"rename onto", func(f *FS, _ *handle) { _ = f.Rename("y.base", "x.base") }},
		{"write by another handle", func(_ *FS, open *handle) { _, _ = open.Write([]byte("x")) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := New()
			f.Freeze("*.base")
			open := write(t, f, "x.base", "x")
			write(t, f, "y.base", "y") // not synced, so not finished
			must(t, (&handle{fs: f, file: open.file, name: "x.base"}).Sync())
			must(t, (&handle{fs: f, file: open.file, name: "x.base"}).Close())
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			tt.act(f, open)
		})
	}
}

func TestTrace(t *testing.T) {
	f := New()
	must(t, f.MkdirAll("d"))
	h := write(t, f, "d/a", "x")
	_, err := h.Write([]byte("y"))
	must(t, err)
	must(t, h.Sync())
	must(t, h.Close())
	must(t, f.Rename("d/a", "d/b"))
	must(t, f.SyncDir("d"))
	content(t, f, "d/b")
	must(t, f.Remove("d/b"))
	want := []string{"mkdir   d", "create  d/a", "write   d/a", "sync    d/a", "rename  d/a d/b", "syncdir d", "remove  d/b"}
	if got := f.Trace(); !reflect.DeepEqual(got, want) {
		t.Errorf("Trace() = %q; want %q", got, want)
	}
	if got := f.Trace(); len(got) != 0 {
		t.Errorf("second Trace() = %q; want nothing", got)
	}
}
