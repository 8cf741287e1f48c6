package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"

	"rqlited/internal/vfs"
	"rqlited/internal/vfs/crashfs"
)

// longChain publishes an image and three deltas, closes the store, and returns what it has published.
func longChain(t *testing.T, fsys *crashfs.FS) []published {
	t.Helper()
	s := openStore(t, fsys)
	c := fill(3, 0)
	snaps := []published{{image(c)(t, s), c}}
	for i := range uint64(3) {
		next := c.change(4, i+1)
		id := mustPublish(t, s, snap{index: 10 * (i + 1), term: 1, content: next, parent: &c, head: snaps[i].id})
		snaps, c = append(snaps, published{id, next}), next
	}
	must(t, s.Close())
	return snaps
}

// contents returns all that is in the directory.
func contents(t *testing.T, fsys *crashfs.FS) map[string]string {
	t.Helper()
	files := map[string]string{}
	for _, name := range names(t, fsys) {
		f, err := fsys.Open("snapshots/" + name)
		must(t, err)
		data, err := io.ReadAll(f)
		must(t, errors.Join(err, f.Close()))
		files[name] = string(data)
	}
	return files
}

func always(Head) bool { return true }

// TestSalvage damages files in every way and checks what is kept, and what is set aside.
func TestSalvage(t *testing.T) {
	gone := func(t *testing.T, fsys *crashfs.FS, name string) { must(t, fsys.Remove("snapshots/"+name)) }
	to := func(change func([]byte) []byte) func(*testing.T, *crashfs.FS, string) {
		return func(t *testing.T, fsys *crashfs.FS, name string) { overwrite(t, fsys, name, change) }
	}
	tests := []struct {
		name   string
		damage func(t *testing.T, fsys *crashfs.FS, name string)
	}{
		{"missing", gone},
		{"empty", to(func([]byte) []byte { return nil })},
		{"short", to(func(b []byte) []byte { return b[:len(b)-1] })},
		{"long", to(func(b []byte) []byte { return append(b, 0) })},
		{"header", to(flip(17))},
		{"trailer", to(flip(-1))},
		{"page", to(flip(300))},
		{"page number", to(flip(headerSize))},
		{"zeros", to(func(b []byte) []byte { return make([]byte, len(b)) })},
	}
	files := []string{"000001.base", "000002.delta", "000003.delta", "000004.delta"}
	for _, tt := range tests {
		for i, file := range files {
			t.Run(tt.name+"/"+file, func(t *testing.T) {
				fsys := newDisk()
				snaps := longChain(t, fsys)
				tt.damage(t, fsys, file)
				before := contents(t, fsys)
				fsys.Trace()
				head, err := Salvage("snapshots", Config{FS: fsys}, always)
				if i == 0 {
					wantNothingSaved(t, fsys, err, file)
					return
				}
				must(t, err)
				if head.ID != snaps[i-1].id {
					t.Fatalf("Salvage = %+v; want %s", head, snaps[i-1].id)
				}
				if got, kept := contents(t, fsys)[file+damagedExt]; got != before[file] || kept != (tt.name != "missing") {
					t.Error("the damaged file was not set aside as it was")
				}
				s := openStore(t, fsys)
				wantHead(t, s, head.ID)
				wantContent(t, s, head.ID, snaps[i-1].content)
				must(t, s.Verify(context.Background()))
				must(t, checkTidy(fsys, s))
				id := mustPublish(t, s, snap{index: 1, term: 1, content: fill(1, 1), parent: &snaps[i-1].content, head: head.ID})
				if want := snapshotID(1, 1, 5); id != want {
					t.Errorf("the next id is %s; want %s", id, want)
				}
			})
		}
	}
}

// wantNothingSaved checks that Salvage has said so, and has done nothing.
func wantNothingSaved(t *testing.T, fsys *crashfs.FS, err error, says string) {
	t.Helper()
	if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), says) {
		t.Errorf("Salvage = %v; want %v, about %s", err, ErrDamaged, says)
	}
	if got := fsys.Trace(); len(got) > 0 {
		t.Errorf("it has done %q", got)
	}
}

// TestSalvageAnyByte changes every byte of every file, one at a time: nothing that was damaged is
// ever kept, and nothing that was not is lost.
func TestSalvageAnyByte(t *testing.T) {
	disk := newDisk()
	snaps := longChain(t, disk)
	files := contents(t, disk)
	for i, file := range []string{"000002.delta", "000003.delta", "000004.delta"} {
		for offset := 0; offset < len(files[file]); offset += 5 {
			fsys := disk.Kill()
			overwrite(t, fsys, file, flip(offset))
			head, err := Salvage("snapshots", Config{FS: fsys}, always)
			if err != nil || head.ID != snaps[i].id {
				t.Fatalf("%s, byte %d: Salvage = %s, %v; want %s", file, offset, head.ID, err, snaps[i].id)
			}
			disk = disk.Kill()
		}
	}
	for offset := 0; offset < len(files["000001.base"]); offset += 5 {
		fsys := disk.Kill()
		overwrite(t, fsys, "000001.base", flip(offset))
		fsys.Trace()
		_, err := Salvage("snapshots", Config{FS: fsys}, always)
		wantNothingSaved(t, fsys, err, "000001.base")
		disk = disk.Kill()
	}
}

// TestSalvageCovers checks what Salvage asks, and that it takes no for an answer.
func TestSalvageCovers(t *testing.T) {
	for yes := range 4 { // the number of the snapshot from which the log goes on; 0: none
		t.Run(fmt.Sprint(yes), func(t *testing.T) {
			fsys := newDisk()
			snaps := longChain(t, fsys)
			overwrite(t, fsys, "000004.delta", flip(100))
			fsys.Trace()
			var asked []Head
			head, err := Salvage("snapshots", Config{FS: fsys}, func(h Head) bool {
				asked = append(asked, h)
				return h.ID == snaps[max(yes, 1)-1].id && yes > 0
			})
			for i, h := range asked {
				if h.ID != snaps[2-i].id || h.Until != 30 {
					t.Errorf("question %d was about %+v; want %s, until 30", i, h, snaps[2-i].id)
				}
			}
			if yes == 0 {
				wantNothingSaved(t, fsys, err, "from which the log goes on")
				return
			}
			if err != nil || head.ID != snaps[yes-1].id || len(asked) != 4-yes {
				t.Errorf("Salvage = %+v, %v after %d questions; want %s after %d", head, err, len(asked), snaps[yes-1].id, 4-yes)
			}
		})
	}
}

// TestSalvageNothingToDo checks that an intact chain is left alone and that nobody is asked.
func TestSalvageNothingToDo(t *testing.T) {
	never := func(Head) bool { t.Error("covers was called"); return true }
	fsys := newDisk()
	snaps := longChain(t, fsys)
	fsys.Trace()
	head, err := Salvage("snapshots", Config{FS: fsys}, never)
	if err != nil || head.ID != snaps[3].id || len(fsys.Trace()) > 0 {
		t.Errorf("Salvage of an intact chain = %+v, %v; want %s, and nothing done", head, err, snaps[3].id)
	}
	empty := newDisk()
	must(t, openStore(t, empty).Close())
	if _, err := Salvage("snapshots", Config{FS: empty}, never); !errors.Is(err, ErrNotFound) {
		t.Errorf("Salvage of an empty store = %v; want %v", err, ErrNotFound)
	}
	if _, err := Salvage("snapshots", Config{FS: crashfs.New()}, never); err == nil {
		t.Error("Salvage without a directory succeeded")
	}
}

// TestSalvageDecidesNothing: a file that cannot be read for want of permission may be intact, so
// Salvage ends with the error and leaves all as it is.
func TestSalvageDecidesNothing(t *testing.T) {
	fsys := newDisk()
	snaps := longChain(t, fsys)
	overwrite(t, fsys, "000004.delta", flip(100))
	before := contents(t, fsys)
	for op := 0; ; op++ {
		fsys.FailAt(op, syscall.EACCES, true)
		head, err := Salvage("snapshots", Config{FS: fsys}, always)
		fsys.FailAt(-1, nil, false)
		if err == nil { // only setting aside has failed
			if head.ID != snaps[2].id || op < 20 {
				t.Errorf("Salvage = %+v at operation %d; want %s, later", head, op, snaps[2].id)
			}
			return
		}
		after := contents(t, fsys)
		delete(after, manifestTmp)
		if !errors.Is(err, syscall.EACCES) || !maps.Equal(after, before) && !errors.Is(err, vfs.ErrUncertain) {
			t.Errorf("Salvage with operation %d failing = %v; want %v, and nothing changed", op, err, syscall.EACCES)
		}
	}
}

// TestSalvageMerged damages a merged delta: what it was merged from went with it.
func TestSalvageMerged(t *testing.T) {
	fsys := newDisk()
	snaps := longChain(t, fsys)
	s := openStore(t, fsys)
	must(t, s.compact(context.Background(), mergeAll))
	must(t, s.Close())
	overwrite(t, fsys, "000005.delta", flip(100))
	head, err := Salvage("snapshots", Config{FS: fsys}, always)
	if err != nil || head.ID != snaps[0].id {
		t.Errorf("Salvage = %+v, %v; want %s", head, err, snaps[0].id)
	}
}

// TestDiscard gives up what cannot be repaired. The numbers go on.
func TestDiscard(t *testing.T) {
	tests := []struct {
		name   string
		damage func(t *testing.T, fsys *crashfs.FS)
		kept   []string
		number uint64
	}{
		{"nothing damaged", func(*testing.T, *crashfs.FS) {}, []string{"000001.base.damaged", "000002.delta.damaged",
			"000003.delta.damaged", "000004.delta.damaged"}, 5},
		{"base gone", func(t *testing.T, fsys *crashfs.FS) { must(t, fsys.Remove("snapshots/000001.base")) },
			[]string{"000002.delta.damaged", "000003.delta.damaged", "000004.delta.damaged"}, 5},
		{"manifest gone", func(t *testing.T, fsys *crashfs.FS) { must(t, fsys.Remove("snapshots/MANIFEST")) },
			[]string{"000001.base.damaged", "000002.delta.damaged", "000003.delta.damaged", "000004.delta.damaged"}, 5 + skipped},
		{"manifest damaged", change(manifestName, flip(-30)), []string{"000001.base.damaged", "000002.delta.damaged",
			"000003.delta.damaged", "000004.delta.damaged", "MANIFEST.damaged"}, 5 + skipped},
		{"discarded before", func(t *testing.T, fsys *crashfs.FS) {
			litter(t, fsys, "000700.base.damaged")
			change(manifestName, flip(-30))(t, fsys)
		}, []string{"000001.base.damaged", "000002.delta.damaged", "000003.delta.damaged", "000004.delta.damaged",
			"000700.base.damaged", "MANIFEST.damaged"}, 701 + skipped},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			fsys := newDisk()
			longChain(t, fsys)
			tt.damage(t, fsys)
			for range 2 { // the second time there is nothing to do
				must(t, Discard("snapshots", Config{FS: fsys}))
			}
			s := openStore(t, fsys)
			if head, ok := s.Head(); ok {
				t.Errorf("head is %+v; want none", head)
			}
			want := append(slices.Clone(tt.kept), manifestName)
			slices.Sort(want)
			if got := names(t, fsys); !slices.Equal(got, want) {
				t.Errorf("directory holds %q; want %q", got, want)
			}
			id := mustPublish(t, s, snap{index: 1, term: 1, content: fill(1, 1), install: true})
			if want := snapshotID(1, 1, tt.number); id != want {
				t.Errorf("the next id is %s; want %s", id, want)
			}
		})
	}
	must(t, Discard("snapshots", Config{FS: crashfs.New()}))
}

// TestSetAsideIsProof: files that were set aside prove that there was a MANIFEST.
func TestSetAsideIsProof(t *testing.T) {
	fsys := newDisk()
	longChain(t, fsys)
	must(t, Discard("snapshots", Config{FS: fsys}))
	must(t, fsys.Remove("snapshots/MANIFEST"))
	if _, err := Open("snapshots", Config{FS: fsys}); !errors.Is(err, ErrDamaged) {
		t.Errorf("Open = %v; want %v", err, ErrDamaged)
	}
}

// TestDamagedIsTold checks who finds damage in a running store and that it is told once for each
// file, with no lock held.
func TestDamagedIsTold(t *testing.T) {
	finders := []struct {
		name string
		find func(s *Store, id string) error
	}{
		{"Verify", func(s *Store, _ string) error { return s.Verify(context.Background()) }},
		{"Compact", func(s *Store, _ string) error { return s.Compact(context.Background()) }},
		{"merge", func(s *Store, _ string) error { return s.compact(context.Background(), mergeAll) }},
		{"reader", func(s *Store, id string) error { _, err := read(s, id); return err }},
	}
	for _, first := range finders {
		for _, harm := range []string{"flipped", "gone"} {
			t.Run(first.name+"/"+harm, func(t *testing.T) {
				fsys := newDisk()
				var s *Store
				var told []error
				s, err := Open("snapshots", Config{FS: fsys, CompactDeltas: -1, Damaged: func(err error) {
					told = append(told, err)
					_ = s.Compact(context.Background()) // would wait for ever if that were still going on
					_ = s.Stats()
				}})
				must(t, err)
				defer s.Close()
				one := fill(3, 1)
				two := one.change(4, 2)
				id := chain(one, two)(t, s)
				id = mustPublish(t, s, snap{index: 3, term: 1, content: one, parent: &two, head: id})
				if harm == "gone" {
					must(t, fsys.Remove("snapshots/000002.delta"))
				} else {
					overwrite(t, fsys, "000002.delta", flip(200))
				}
				for _, f := range append([]struct {
					name string
					find func(s *Store, id string) error
				}{first}, finders...) {
					if err := f.find(s, id); !errors.Is(err, ErrDamaged) {
						t.Errorf("%s = %v; want %v", f.name, err, ErrDamaged)
					}
					if len(told) != 1 || !errors.Is(told[0], ErrDamaged) || !strings.Contains(told[0].Error(), "000002.delta") {
						t.Fatalf("after %s Damaged was told %v; want one error about 000002.delta", f.name, told)
					}
				}
				if got := s.Stats().Damaged; got != 1 {
					t.Errorf("Stats().Damaged = %d; want 1", got)
				}
				// An image makes up for it.
				id = mustPublish(t, s, snap{index: 4, term: 1, content: two, head: id})
				wantContent(t, s, id, two)
				must(t, s.Verify(context.Background()))
			})
		}
	}
}
