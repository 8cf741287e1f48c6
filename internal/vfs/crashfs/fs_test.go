package crashfs

import (
	"errors"
	"io"
	"io/fs"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"rqlited/internal/vfs"
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

// TestRestartRandomNames checks that each name of each directory is kept or lost by itself, those of
// one rename included, and the content behind it by itself again.
func TestRestartRandomNames(t *testing.T) {
	seen := map[string]bool{}
	for seed := range uint64(2000) {
		f := New()
		must(t, f.MkdirAll("d"))
		must(t, f.MkdirAll("e"))
		for _, name := range []string{"d/old", "d/gone", "e/replaced"} {
			must(t, write(t, f, name, "x").Sync())
		}
		must(t, errors.Join(f.SyncDir("/"), f.SyncDir("d"), f.SyncDir("e")))
		must(t, f.Rename("d/old", "e/moved"))
		must(t, f.Remove("d/gone"))
		must(t, f.Rename(write(t, f, "e/new", "y").name, "e/replaced"))
		next := f.RestartRandom(seed)
		var got []string
		for _, name := range []string{"d/old", "e/moved", "d/gone", "e/replaced"} {
			got = append(got, content(t, next, name))
		}
		seen[strings.Join(got, ",")] = true
	}
	for _, from := range []string{"x", "-"} {
		for _, to := range []string{"x", "-"} {
			for _, gone := range []string{"x", "-"} {
				for _, replaced := range []string{"x", "y", "", "\x00"} { // unsynced content may be short or zero
					if want := strings.Join([]string{from, to, gone, replaced}, ","); !seen[want] {
						t.Errorf("%q never came up", want)
					}
					delete(seen, strings.Join([]string{from, to, gone, replaced}, ","))
				}
			}
		}
	}
	for other := range seen {
		t.Errorf("%q came up", other)
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
	f := New()
	h := write(t, f, "a", "")
	f.FailAt(1, syscall.ENOSPC, false)
	_, err := h.Write([]byte("12"))
	must(t, err)
	if n, err := h.Write([]byte("3456")); n != 2 || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Write = %d, %v; want 2, %v", n, err, syscall.ENOSPC)
	}
	if got := f.Failed(); got != 1 {
		t.Errorf("Failed() = %d; want 1", got)
	}
	if got := content(t, f, "a"); got != "1234" {
		t.Errorf("content = %q; want 1234", got)
	}
}

// TestFailEach fails every operation there is, with every error, once and for ever, and checks that
// a failed one has done nothing and is not traced.
func TestFailEach(t *testing.T) {
	ops := map[string]func(f *FS, h *handle) error{
		"open":    func(f *FS, _ *handle) error { _, err := f.Open("a"); return err },
		"create":  func(f *FS, _ *handle) error { _, err := f.Create("a"); return err },
		"rename":  func(f *FS, _ *handle) error { return f.Rename("a", "b") },
		"remove":  func(f *FS, _ *handle) error { return f.Remove("a") },
		"mkdir":   func(f *FS, _ *handle) error { return f.MkdirAll("d") },
		"readdir": func(f *FS, _ *handle) error { _, err := f.ReadDir("/"); return err },
		"stat":    func(f *FS, _ *handle) error { _, err := f.Stat("a"); return err },
		"syncdir": func(f *FS, _ *handle) error { return f.SyncDir("/") },
		"free":    func(f *FS, _ *handle) error { _, err := f.Free("/"); return err },
		"read":    func(_ *FS, h *handle) error { _, err := h.Read(make([]byte, 1)); return err },
		"read at": func(_ *FS, h *handle) error { _, err := h.ReadAt(make([]byte, 1), 0); return err },
		"size":    func(_ *FS, h *handle) error { _, err := h.Size(); return err },
		"write":   func(_ *FS, h *handle) error { _, err := h.Write([]byte("x")); return err },
		"sync":    func(_ *FS, h *handle) error { return h.Sync() },
		"clone":   func(f *FS, h *handle) error { return vfs.Clone(h, f.handle(h.file, "a", true)) },
		"close":   func(f *FS, h *handle) error { return f.handle(h.file, "a", true).Close() },
	}
	for name, op := range ops {
		for _, errno := range []error{syscall.ENOSPC, syscall.EIO, syscall.EACCES} {
			f := New()
			f.SetFree(100)
			f.OfferClone(true)
			h := write(t, f, "a", "")
			f.Trace()
			for round := range 3 {
				f.FailAt(0, errno, true)
				if err := op(f, h); !errors.Is(err, errno) {
					t.Errorf("%s, round %d = %v; want %v for ever", name, round, err, errno)
				}
				if err := op(f, h); !errors.Is(err, errno) || f.Failed() != 2 {
					t.Errorf("%s again, round %d = %v, %d failures; want %v for ever", name, round, err, f.Failed(), errno)
				}
				f.FailAt(-1, nil, false)
			}
			if got, err := f.ReadDir("/"); err != nil || len(got) != 1 || content(t, f, "a") != "" || len(f.Trace()) > 0 {
				t.Errorf("%s failed and changed the disk: %q, %v", name, got, err)
			}
			f.FailAt(0, errno, false)
			if err := op(f, h); !errors.Is(err, errno) {
				t.Errorf("%s = %v; want %v once", name, err, errno)
			}
			if err := op(f, h); err != nil && !errors.Is(err, io.EOF) {
				t.Errorf("%s = %v after the only failure", name, err)
			}
		}
	}
}

// TestLost checks what a failed Sync takes away: all that was written so far, whatever is synced
// later. A file that begins anew is free of it.
func TestLost(t *testing.T) {
	f := New()
	h := write(t, f, "a", "old")
	must(t, errors.Join(h.Sync(), f.SyncDir("/")))
	mustWrite(t, h, "new")
	f.FailAt(0, syscall.EIO, false)
	if err := h.Sync(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("Sync = %v; want %v", err, syscall.EIO)
	}
	mustWrite(t, h, "newer")
	must(t, h.Sync())
	if got := content(t, f, "a"); got != "oldnewnewer" {
		t.Errorf("content = %q; want all of it, as the page cache has it", got)
	}
	killed := f.Kill()
	for _, disk := range []*FS{f.Restart(), killed.Restart()} {
		if got := content(t, disk, "a"); got != "old" {
			t.Errorf("content after Restart = %q; want old", got)
		}
	}
	f = killed.Kill()
	must(t, write(t, f, "a", "anew").Sync())
	if got := content(t, f.Restart(), "a"); got != "anew" {
		t.Errorf("content after Create, Sync and Restart = %q; want anew", got)
	}
}

// TestFreeze changes a file x.base that is finished, in every way there is.
func TestFreeze(t *testing.T) {
	clone := func(t *testing.T, f *FS, to *handle) {
		f.OfferClone(true)
		_ = vfs.Clone(to, write(t, f, "src", "s"))
	}
	tests := []struct {
		name string
		act  func(t *testing.T, f *FS, open *handle)
	}{
		{"create", func(_ *testing.T, f *FS, _ *handle) { _, _ = f.Create("x.base") }},
		{"rename", func(_ *testing.T, f *FS, _ *handle) { _ = f.Rename("x.base", "y") }},
		{"rename onto", func(_ *testing.T, f *FS, _ *handle) { _ = f.Rename("y.base", "x.base") }},
		{"write by another handle", func(_ *testing.T, _ *FS, open *handle) { _, _ = open.Write([]byte("x")) }},
		{"write at", func(_ *testing.T, _ *FS, open *handle) { _, _ = open.WriteAt([]byte("x"), 0) }},
		{"write that fails", func(_ *testing.T, f *FS, open *handle) {
			f.FailAt(0, syscall.EIO, false)
			_, _ = open.Write([]byte("x"))
		}},
		{"clone into", func(t *testing.T, f *FS, open *handle) { clone(t, f, open) }},
		{"set aside, then write", func(_ *testing.T, f *FS, open *handle) {
			_ = f.Rename("x.base", "x.base.damaged")
			_, _ = open.Write([]byte("x"))
		}},
		{"create after a restart", func(_ *testing.T, f *FS, _ *handle) { _, _ = f.Restart().Create("x.base") }},
		{"create after a kill", func(_ *testing.T, f *FS, _ *handle) { _, _ = f.Kill().Create("x.base") }},
		{"create what a crash has closed", func(t *testing.T, f *FS, _ *handle) {
			must(t, write(t, f, "z.base", "z").Sync())
			_, _ = f.Kill().Create("z.base")
		}},
		{"create what was renamed so", func(t *testing.T, f *FS, _ *handle) {
			must(t, write(t, f, "z.tmp", "z").Sync())
			must(t, f.Rename("z.tmp", "z.base"))
			_, _ = f.Create("z.base")
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, open := finished(t)
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			tt.act(t, f, open)
		})
	}
}

// finished returns a disk with a finished file x.base, which is open for writing nevertheless, and a
// file y.base that is not finished, because it was not synced.
func finished(t *testing.T) (f *FS, open *handle) {
	t.Helper()
	f = New()
	f.Freeze("*.base")
	must(t, write(t, f, "y.base", "y").Close())
	file, err := f.Create("x.base")
	must(t, err)
	open = f.handle(file.(*handle).file, "x.base", false)
	must(t, errors.Join(f.SyncDir("/"), file.Sync(), file.Close()))
	return f, open
}

// TestFreezeAllows tries what leaves a finished file as it is, or is about another.
func TestFreezeAllows(t *testing.T) {
	f, _ := finished(t)
	must(t, write(t, f, "y.base", "new").Close())
	must(t, write(t, f.Kill(), "y.base", "new").Close())
	f, _ = finished(t)
	must(t, f.Rename("x.base", "x.base.damaged"))
	must(t, write(t, f, "x.base", "another").Close())
	must(t, f.Remove("x.base.damaged"))
	f, _ = finished(t)
	must(t, f.Remove("x.base"))
	must(t, write(t, f, "x.base", "another").Close())
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
