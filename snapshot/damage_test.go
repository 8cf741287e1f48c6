package snapshot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"rqlited/internal/vfs/crashfs"
)

// overwrite gives a file other content, behind the store's back.
func overwrite(t *testing.T, fsys *crashfs.FS, name string, change func([]byte) []byte) {
	t.Helper()
	f, err := fsys.Open("snapshots/" + name)
	must(t, err)
	data, err := io.ReadAll(f)
	must(t, err)
	must(t, fsys.Remove("snapshots/"+name)) // the file itself may not be changed
	w, err := fsys.Create("snapshots/" + name)
	must(t, err)
	_, err = w.Write(change(data))
	must(t, err)
	must(t, w.Sync())
	must(t, w.Close())
}

func flip(offset int) func([]byte) []byte {
	return func(b []byte) []byte {
		b[(offset+len(b))%len(b)] ^= 0x10
		return b
	}
}

// TestOpenDamaged checks that Open refuses a directory that is not as it was left, says what is
// wrong and what to do, and touches nothing, not even garbage.
func TestOpenDamaged(t *testing.T) {
	tests := []struct {
		name   string
		damage func(t *testing.T, fsys *crashfs.FS)
		says   string
	}{
		{"manifest gone", func(t *testing.T, fsys *crashfs.FS) { must(t, fsys.Remove("snapshots/MANIFEST")) }, "MANIFEST is not"},
		{"manifest empty", change("MANIFEST", func([]byte) []byte { return nil }), "first line"},
		{"manifest of another version", change("MANIFEST", func(b []byte) []byte {
			return []byte(strings.Replace(string(b), "manifest 1", "manifest 2", 1))
		}), "first line"},
		{"manifest cut", change("MANIFEST", func(b []byte) []byte { return b[:len(b)/2] }), "checksum"},
		{"manifest flipped", change("MANIFEST", flip(-20)), "checksum"},
		{"manifest huge", change("MANIFEST", func(b []byte) []byte { return append(b, make([]byte, maxManifestSize)...) }), "longer than any"},
		{"base missing", func(t *testing.T, fsys *crashfs.FS) { must(t, fsys.Remove("snapshots/000001.base")) }, "000001.base: file does not exist"},
		{"base short", change("000001.base", func(b []byte) []byte { return b[:len(b)-1] }), "bytes, the manifest says"},
		{"base long", change("000001.base", func(b []byte) []byte { return append(b, 0) }), "bytes, the manifest says"},
		{"base empty", change("000001.base", func(b []byte) []byte { return nil }), "0 bytes, the manifest says"},
		{"base header", change("000001.base", flip(17)), "header or trailer"},
		{"delta trailer", change("000002.delta", flip(-1)), "header or trailer"},
		{"delta missing", func(t *testing.T, fsys *crashfs.FS) { must(t, fsys.Remove("snapshots/000002.delta")) }, "000002.delta: file does not exist"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			fsys := newDisk()
			s := openStore(t, fsys)
			one := fill(4, 1)
			chain(one, one.change(5, 2))(t, s)
			must(t, s.Close())
			litter(t, fsys, "000009.base")
			tt.damage(t, fsys)
			before := names(t, fsys)
			fsys.Trace()
			_, err := Open("snapshots", Config{FS: fsys})
			if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), tt.says) ||
				!strings.Contains(err.Error(), "snapshots") || !strings.Contains(err.Error(), "move the data directory away") {
				t.Errorf("Open = %v; want %v, saying %q and what to do", err, ErrDamaged, tt.says)
			}
			for _, op := range fsys.Trace() {
				if !strings.HasPrefix(op, "syncdir") {
					t.Errorf("Open has changed something: %s", op)
				}
			}
			if got := names(t, fsys); !slices.Equal(got, before) {
				t.Errorf("directory holds %q; want %q", got, before)
			}
		})
	}
}

func change(name string, to func([]byte) []byte) func(*testing.T, *crashfs.FS) {
	return func(t *testing.T, fsys *crashfs.FS) { overwrite(t, fsys, name, to) }
}

// TestReadDamaged changes every byte of the files of a chain, one at a time, while the store is
// open: whoever reads them finds out, before the end, and nothing is published from them.
func TestReadDamaged(t *testing.T) {
	one := fill(3, 1)
	two := one.change(4, 2)
	for _, name := range []string{"000001.base", "000002.delta"} {
		for offset := 0; ; offset += 3 {
			fsys := newDisk()
			s := openStore(t, fsys)
			id := chain(one, two)(t, s)
			size := int64(0)
			overwrite(t, fsys, name, func(b []byte) []byte {
				size = int64(len(b))
				return flip(min(offset, len(b)-1))(b)
			})
			wantDamaged(t, fmt.Sprintf("%s, byte %d", name, offset), s, id, streamOf(t, two.image()))
			if err := s.Verify(context.Background()); !errors.Is(err, ErrDamaged) {
				t.Fatalf("%s, byte %d: Verify = %v; want %v", name, offset, err, ErrDamaged)
			}
			if err := s.Compact(context.Background()); !errors.Is(err, ErrDamaged) {
				t.Fatalf("%s, byte %d: Compact = %v; want %v", name, offset, err, ErrDamaged)
			}
			if got := only(names(t, fsys), ".base", ".delta"); len(got) != 2 {
				t.Fatalf("%s, byte %d: Compact left %q", name, offset, got)
			}
			must(t, s.Close())
			if int64(offset) >= size {
				break
			}
		}
	}
}

// wantDamaged checks that a reader finds the damage, and returns nothing of it before.
func wantDamaged(t *testing.T, what string, s *Store, id string, want []byte) {
	t.Helper()
	_, rc, err := s.Open(id)
	if err == nil {
		var got []byte
		got, err = io.ReadAll(rc)
		must(t, rc.Close())
		if !bytes.HasPrefix(want, got) || len(got) > len(want)-trailerSize {
			t.Fatalf("%s: the reader has returned damaged bytes, or a trailer, before its error %v", what, err)
		}
	}
	if !errors.Is(err, ErrDamaged) {
		t.Fatalf("%s: read = %v; want %v", what, err, ErrDamaged)
	}
}

// TestExchangedFile puts an intact file of the same shape in the place of another.
func TestExchangedFile(t *testing.T) {
	fsys := newDisk()
	s := openStore(t, fsys)
	id := image(fill(3, 1))(t, s)
	overwrite(t, fsys, "000001.base", func([]byte) []byte { return streamOf(t, fill(3, 2).image()) })
	if _, err := read(s, id); !errors.Is(err, ErrDamaged) {
		t.Errorf("read = %v; want %v", err, ErrDamaged)
	}
	must(t, s.Close())
	if _, err := Open("snapshots", Config{FS: fsys}); !errors.Is(err, ErrDamaged) {
		t.Errorf("Open = %v; want %v", err, ErrDamaged)
	}
}

// TestMissingFileWhileOpen checks that a reader which cannot be opened leaves nothing pinned.
func TestMissingFileWhileOpen(t *testing.T) {
	fsys := newDisk()
	s := openStore(t, fsys)
	one := fill(3, 1)
	id := chain(one, one.change(4, 2))(t, s)
	must(t, fsys.Remove("snapshots/000002.delta"))
	if _, _, err := s.Open(id); err == nil {
		t.Fatal("Open of a snapshot without its delta succeeded")
	}
	if got := s.Stats().Readers; got != 0 {
		t.Errorf("Stats().Readers = %d; want 0", got)
	}
	if got := s.catalog.needs["000001.base"]; got != 1 {
		t.Errorf("reasons to keep 000001.base = %d; want 1", got)
	}
}
