package snapshot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"rqlited/internal/vfs"
	"rqlited/internal/vfs/crashfs"
)

// The histories below have broken other snapshot stores.

// TestInstallBelowHead: after a recovery by hand a leader may rightly send what lies below the
// follower's own snapshot. It becomes the head, the old chain is gone, and the next delta is laid
// upon it.
func TestInstallBelowHead(t *testing.T) {
	for _, index := range []uint64{7, 8, 9} { // the head has 8
		t.Run(fmt.Sprintf("install at %d", index), func(t *testing.T) {
			fsys := newDisk()
			s := openStore(t, fsys)
			own, sent := fill(6, 1), fill(4, 2)
			mustPublish(t, s, snap{index: 8, term: 3, content: own})

			id := mustPublish(t, s, snap{index: index, term: 3, content: sent, install: true})
			wantHead(t, s, id)
			list, err := s.List()
			must(t, err)
			if list[0].Index != index {
				t.Errorf("List()[0].Index = %d; want %d", list[0].Index, index)
			}
			wantContent(t, s, id, sent)
			must(t, s.Close())
			s = openStore(t, fsys)
			wantHead(t, s, id)
			wantContent(t, s, id, sent)

			next := sent.change(5, 3)
			id = mustPublish(t, s, snap{index: 9, term: 4, content: next, parent: &sent, head: id})
			must(t, s.Compact(context.Background()))
			must(t, s.Close())
			s = openStore(t, fsys)
			wantHead(t, s, id)
			wantContent(t, s, id, next)
		})
	}
}

// TestEqualIndex: two snapshots of one term and index have two ids, and the later one is the head,
// whatever the clock says; nobody asks it.
func TestEqualIndex(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // in here time stands still
		fsys := newDisk()
		s := openStore(t, fsys)
		one, two := fill(3, 1), fill(3, 2)
		first := mustPublish(t, s, snap{index: 8, term: 3, content: one, install: true})
		second := mustPublish(t, s, snap{index: 8, term: 3, content: two, install: true})
		if first == second {
			t.Fatalf("both have the id %s", first)
		}
		wantContent(t, s, first, one)
		wantContent(t, s, second, two)
		must(t, s.Close())
		s = openStore(t, fsys)
		wantHead(t, s, second)
		wantContent(t, s, second, two)
	})
}

// TestListedIsOpenable lists, opens and verifies as fast as it can, while everything that can
// change the store does. No call may fail, and each snapshot holds what its index says.
func TestListedIsOpenable(t *testing.T) {
	s, err := Open("snapshots", Config{FS: newDisk(), CompactDeltas: 2, CompactBytes: 1})
	must(t, err)
	defer s.Close()
	var contents sync.Map // index to content
	c := fill(5, 0)
	contents.Store(uint64(0), c)
	head := mustPublish(t, s, snap{content: c})

	var done atomic.Bool
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			for !done.Load() {
				list, err := s.List()
				if err != nil || len(list) != 1 {
					t.Errorf("List() = %v, %v; want one snapshot", list, err)
					return
				}
				want, _ := contents.Load(list[0].Index)
				got, err := read(s, list[0].ID)
				if err != nil || !bytes.Equal(got, want.(content).file()) {
					t.Errorf("snapshot %s, just listed: %v, or other content", list[0].ID, err)
					return
				}
			}
		})
	}
	for i := uint64(1); i <= 150 && !t.Failed(); i++ {
		next := c.change(4+int(i%4), i)
		contents.Store(i, next)
		switch {
		case i%10 == 0:
			head = mustPublish(t, s, snap{index: i, term: 1, content: next, install: true})
		case i%7 == 0:
			head = mustPublish(t, s, snap{index: i, term: 1, content: next, head: head})
		default:
			head = mustPublish(t, s, snap{index: i, term: 1, content: next, parent: &c, head: head})
		}
		// What was just closed can be opened, although its Close has started a compaction.
		wantContent(t, s, head, next)
		c = next
	}
	done.Store(true)
	readers.Wait()
}

// blockFS blocks every SyncDir until released.
type blockFS struct {
	vfs.FS
	blocked chan struct{} // nil: do not block
}

func (b *blockFS) SyncDir(dir string) error {
	if b.blocked != nil {
		<-b.blocked
	}
	return b.FS.SyncDir(dir)
}

// TestNobodyWaits: while the disk hangs in the middle of a publication, List, Open, Head, Stats,
// Create and reading go on. In the bubble, waiting would be a deadlock.
func TestNobodyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fsys := &blockFS{FS: newDisk()}
		s := openStore(t, fsys)
		one := fill(3, 1)
		first := image(one)(t, s)
		k, err := sinkFor(s, snap{index: 2, term: 1, content: one.change(4, 2), parent: &one, head: first})
		must(t, err)
		fsys.blocked = make(chan struct{})
		closed := make(chan error)
		go func() { closed <- k.Close() }()
		for range 2 { // in the sync that precedes the manifest, and in the one that follows it
			synctest.Wait()
			wantHead(t, s, first)
			wantContent(t, s, first, one)
			_, err := s.Create(1, 3, 1, testConfiguration, 1, nil)
			must(t, err)
			fsys.blocked <- struct{}{}
		}
		must(t, <-closed)
		wantHead(t, s, k.ID())
		fsys.blocked = nil
	})
}

// TestCloseInterruptsCompaction: Close does not wait for a compaction to end by itself.
func TestCloseInterruptsCompaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := newDisk()
		hook := &hookFS{FS: disk}
		s := openStore(t, hook)
		one := fill(3, 1)
		two := one.change(4, 2)
		id := chain(one, two)(t, s)
		closed := make(chan error, 1)
		hook.once = func() {
			go func() { closed <- s.Close() }()
			synctest.Wait() // until it has said so
			if len(closed) > 0 {
				t.Error("Close has returned while a compaction is under way")
			}
		}
		if err := s.Compact(context.Background()); !errors.Is(err, ErrClosed) {
			t.Errorf("Compact = %v; want %v", err, ErrClosed)
		}
		synctest.Wait()
		s = openStore(t, disk)
		wantContent(t, s, id, two)
		if got := only(names(t, disk), ".base"); len(got) != 1 {
			t.Errorf("bases: %q; want one", got)
		}
	})
}

// TestCompactUnderInstall: an install that arrives while the old chain is being compacted wins.
func TestCompactUnderInstall(t *testing.T) {
	disk := newDisk()
	hook := &hookFS{FS: disk}
	s := openStore(t, hook)
	one := fill(3, 1)
	chain(one, one.change(4, 2))(t, s)
	sent := fill(2, 3)
	next := sent.change(4, 4)
	var id string
	hook.once = func() { // in the end the new chain is as long as the old one
		id = mustPublish(t, s, snap{index: 1, term: 1, content: sent, install: true})
		id = mustPublish(t, s, snap{index: 2, term: 1, content: next, parent: &sent, head: id})
	}
	must(t, s.Compact(context.Background()))
	wantHead(t, s, id)
	wantContent(t, s, id, next)
	if got := s.Stats().Compactions; got != 0 {
		t.Errorf("Stats().Compactions = %d; want 0", got)
	}
	if got := only(names(t, disk), "000003.base"); len(got) != 0 {
		t.Error("the result of the compaction was left behind")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Compact(ctx); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("Compact = %v; want %v or nothing to do", err, context.Canceled)
	}
}

// TestRecoveryTwice: a recovery by hand publishes the state once more at the same term and index.
// It may be cut off at any operation, and then runs again from the beginning.
func TestRecoveryTwice(t *testing.T) {
	one := fill(5, 1)
	recovered := func(s *Store) error {
		head, _ := s.Head()
		_, err := publish(s, snap{index: 8, term: 3, content: one, head: head.ID})
		return err
	}
	for op := 0; ; op++ {
		disk := newDisk()
		s := openStore(t, disk)
		mustPublish(t, s, snap{index: 8, term: 3, content: one})
		disk.CrashAfter(op)
		err := recovered(s)
		if err != nil && !errors.Is(err, crashfs.ErrPowerLost) {
			t.Fatalf("operation %d: %v", op, err)
		}
		for i := range uint64(4) {
			again := disk.Restart()
			if i > 0 {
				again = disk.RestartRandom(i)
			}
			s := openStore(t, again)
			must(t, recovered(s))
			head, _ := s.Head()
			if head.Index != 8 || head.Term != 3 {
				t.Fatalf("operation %d: head = %+v", op, head)
			}
			wantContent(t, s, head.ID, one)
		}
		if err == nil {
			return
		}
	}
}
