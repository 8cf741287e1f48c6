package snapshot

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"rqlited/internal/vfs/crashfs"
)

// TestGolden pins the order of the file operations of each public act, for that order is the
// reason why a crash can do no harm. UPDATE_GOLDEN=1 writes the files anew.
func TestGolden(t *testing.T) {
	one, two := fill(6, 1), fill(5, 2)
	three := one.change(7, 3)
	tests := []struct {
		file    string
		prepare func(t *testing.T, s *Store) string // returns the head
		act     func(t *testing.T, s *Store, head string)
	}{
		{"publish_image.txt", nothing, func(t *testing.T, s *Store, _ string) {
			mustPublish(t, s, snap{index: 1, term: 1, content: one})
		}},
		{"publish_delta.txt", image(one), func(t *testing.T, s *Store, head string) {
			mustPublish(t, s, snap{index: 2, term: 1, content: three, parent: &one, head: head})
		}},
		{"publish_stale.txt", image(one), func(t *testing.T, s *Store, _ string) {
			_, err := publish(s, snap{index: 2, term: 1, content: three, parent: &one, head: "1-1-99"})
			if err == nil {
				t.Error("a capture against another head was published")
			}
		}},
		{"install.txt", image(one), func(t *testing.T, s *Store, _ string) {
			mustPublish(t, s, snap{index: 1, term: 1, content: two, install: true})
		}},
		{"cancel.txt", image(one), func(t *testing.T, s *Store, _ string) {
			k, err := sinkFor(s, snap{index: 1, term: 1, content: two, install: true})
			must(t, err)
			must(t, k.Cancel())
		}},
		{"compact.txt", chain(one, three), func(t *testing.T, s *Store, _ string) {
			must(t, s.Compact(context.Background()))
		}},
		{"merge.txt", chain3(one, three), func(t *testing.T, s *Store, _ string) {
			must(t, s.compact(context.Background(), mergeAll))
			time.Sleep(s.cfg.Grace)
		}},
		{"compact_clone.txt", chain(one, three), func(t *testing.T, s *Store, _ string) {
			s.fs.(*crashfs.FS).OfferClone(true)
			must(t, s.Compact(context.Background()))
		}},
		{"compact_nothing.txt", image(one), func(t *testing.T, s *Store, _ string) {
			must(t, s.Compact(context.Background()))
		}},
		{"read.txt", chain(one, three), func(t *testing.T, s *Store, head string) {
			wantContent(t, s, head, three)
			must(t, s.Verify(context.Background()))
		}},
		{"grace.txt", func(t *testing.T, s *Store) string {
			chain(one, three)(t, s)
			return mustPublish(t, s, snap{index: 1, term: 1, content: two, install: true})
		}, func(t *testing.T, s *Store, _ string) {
			time.Sleep(s.cfg.Grace) // passes at once in the bubble
		}},
	}
	for _, tt := range tests {
		t.Run(tt.file, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fsys := newDisk()
				s := openStore(t, fsys)
				head := tt.prepare(t, s)
				fsys.Trace()
				tt.act(t, s, head)
				synctest.Wait() // until the store's goroutine has done its part
				golden(t, tt.file, fsys.Trace())
			})
		})
	}
}

// TestGoldenOpen pins what Open does to a new directory, to a clean one, and to one with litter.
func TestGoldenOpen(t *testing.T) {
	fsys := newDisk()
	s := openStore(t, fsys)
	golden(t, "open_new.txt", fsys.Trace())

	one := fill(3, 1)
	two := one.change(4, 2)
	chain(one, two)(t, s)
	must(t, s.Close())
	fsys.Trace()
	must(t, openStore(t, fsys).Close())
	golden(t, "open_clean.txt", fsys.Trace())

	litter(t, fsys, "000003.base", "000004.delta", "MANIFEST.tmp", "notes.txt", "5.base", "000007.base.bak")
	fsys.Trace()
	must(t, openStore(t, fsys).Close())
	golden(t, "open_litter.txt", fsys.Trace())
}

// TestGoldenRescue pins what Salvage and Discard do, each followed by Open.
func TestGoldenRescue(t *testing.T) {
	tests := []struct {
		file   string
		damage func(t *testing.T, fsys *crashfs.FS)
		act    func(fsys *crashfs.FS) error
	}{
		{"salvage.txt", change("000003.delta", flip(100)), func(fsys *crashfs.FS) error {
			_, err := Salvage("snapshots", Config{FS: fsys}, always)
			return err
		}},
		{"discard.txt", change("000001.base", flip(100)), func(fsys *crashfs.FS) error {
			return Discard("snapshots", Config{FS: fsys})
		}},
		{"discard_manifest.txt", change(manifestName, flip(100)), func(fsys *crashfs.FS) error {
			return Discard("snapshots", Config{FS: fsys})
		}},
	}
	for _, tt := range tests {
		t.Run(tt.file, func(t *testing.T) {
			fsys := newDisk()
			longChain(t, fsys)
			tt.damage(t, fsys)
			fsys.Trace()
			must(t, tt.act(fsys))
			must(t, openStore(t, fsys).Close())
			golden(t, tt.file, fsys.Trace())
		})
	}
}

func litter(t *testing.T, fsys *crashfs.FS, names ...string) {
	t.Helper()
	for _, name := range names {
		f, err := fsys.Create("snapshots/" + name)
		must(t, err)
		must(t, f.Close())
	}
}

func nothing(*testing.T, *Store) string { return "" }

// image prepares a store with one snapshot.
func image(c content) func(*testing.T, *Store) string {
	return func(t *testing.T, s *Store) string {
		t.Helper()
		return mustPublish(t, s, snap{index: 1, term: 1, content: c})
	}
}

// chain prepares a store with an image and a delta.
func chain(c, next content) func(*testing.T, *Store) string {
	return func(t *testing.T, s *Store) string {
		t.Helper()
		head := image(c)(t, s)
		return mustPublish(t, s, snap{index: 2, term: 1, content: next, parent: &c, head: head})
	}
}

// chain3 prepares a store with an image and three deltas.
func chain3(c, next content) func(*testing.T, *Store) string {
	return func(t *testing.T, s *Store) string {
		t.Helper()
		head := chain(c, next)(t, s)
		for range 2 {
			head = mustPublish(t, s, snap{index: 3, term: 1, content: c, parent: &next, head: head})
			c, next = next, c
		}
		return head
	}
}
