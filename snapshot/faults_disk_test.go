package snapshot

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"rqlited/internal/vfs"
	"rqlited/internal/vfs/crashfs"
)

// eachCut lets act run on what prepare has made, with the power cut before every operation that
// changes the disk. It calls check with a store on each disk that may be left, and with the error of
// act, which is nil if the power was cut after it or not at all.
func eachCut(t *testing.T, prepare func(*testing.T, *Store), act func(*Store) error, check func(t *testing.T, when string, disk *crashfs.FS, err error)) {
	t.Helper()
	dice, cuts := seed(t), 0
	for past := false; !past && !t.Failed(); cuts++ {
		synctest.Test(t, func(t *testing.T) {
			disk := newDisk()
			s := openStore(t, disk)
			prepare(t, s)
			synctest.Wait() // for what the store deletes by itself
			disk.CrashAfter(cuts)
			err := act(s)
			synctest.Wait()
			if _, off := disk.Stat("/"); off == nil {
				past = true
			}
			if err != nil && !errors.Is(err, crashfs.ErrPowerLost) {
				t.Fatalf("power cut before operation %d: %v", cuts, err)
			}
			for i := range uint64(6) {
				left := disk.Kill
				switch {
				case i == 1:
					left = disk.Restart
				case i > 1:
					left = func() *crashfs.FS { return disk.RestartRandom(dice + i) }
				}
				check(t, fmt.Sprintf("power cut before operation %d, disk %d", cuts, i), left(), err)
			}
		})
	}
	t.Logf("tried %d crash points, 0 error points", cuts)
}

// grow publishes an image of the first content and a delta for each further one.
func grow(t *testing.T, s *Store, contents ...content) (head string) {
	t.Helper()
	for i, c := range contents {
		n := snap{index: uint64(i + 1), term: 1, content: c, head: head}
		if i > 0 {
			n.parent = &contents[i-1]
		}
		head = mustPublish(t, s, n)
	}
	return head
}

// grown returns a function that grows a chain, and where that puts the id of its head.
func grown(contents ...content) (prepare func(*testing.T, *Store), head *string) {
	head = new(string)
	return func(t *testing.T, s *Store) { *head = grow(t, s, contents...) }, head
}

// TestFault2458: a base whose pages were not synced had holes after a power cut (also #2461, #2462, #2463, #2465),
// and within the act of publishing the order of renaming, syncing and deleting let a power cut keep
// what should have come later. Here the head is the old one or the new one, whole, and it is the new
// one once Close has returned nil.
func TestFault2458(t *testing.T) {
	one := fill(4, 1)
	two := one.change(5, 2)
	next := two.change(6, 3)
	for _, tt := range []struct {
		name string
		n    snap
	}{
		{"image", snap{index: 9, term: 2, content: next}},
		{"delta", snap{index: 9, term: 2, content: next, parent: &two}},
		{"install", snap{index: 1, term: 1, content: next, install: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			prepare, head := grown(one, two)
			var id string
			act := func(s *Store) (err error) {
				n := tt.n
				n.head = *head
				id, err = publish(s, n)
				return err
			}
			eachCut(t, prepare, act, func(t *testing.T, when string, disk *crashfs.FS, err error) {
				s := openStore(t, disk)
				switch got, _ := s.Head(); {
				case got.ID == id && id != "":
					wantContent(t, s, id, next)
				case got.ID == *head && err != nil:
					wantContent(t, s, *head, two)
				default:
					t.Fatalf("%s: Close = %v, head is %q; want %q or %q", when, err, got.ID, id, *head)
				}
			})
		})
	}
}

// TestFault2703: a plan that had been carried out, and whose removal was cut off, could not be carried
// out again, so that the node never started (also #2704); a plan could be lost after its first steps were done (#2785);
// the increment moved into the base was not synced (#1386). Here a compaction may be cut off anywhere,
// and so may the start after it.
func TestFault2703(t *testing.T) {
	one := fill(4, 1)
	two := one.change(5, 2)
	three := two.change(4, 3)
	prepare, head := grown(one, two, three)
	compact := func(s *Store) error { return s.Compact(context.Background()) }
	again := 0
	eachCut(t, prepare, compact, func(t *testing.T, when string, disk *crashfs.FS, err error) {
		for op, past := 0, false; !past; op++ {
			disk.CrashAfter(op)
			s, err := Open("snapshots", Config{FS: disk, CompactDeltas: -1})
			if err == nil {
				must(t, s.Close())
			} else if !errors.Is(err, crashfs.ErrPowerLost) {
				t.Fatalf("%s: the start = %v", when, err)
			}
			_, off := disk.Stat("/")
			past = off == nil
			again++
			disk = disk.RestartRandom(uint64(op))
		}
		s := openStore(t, disk)
		wantHead(t, s, *head)
		wantContent(t, s, *head, three)
		if got := only(names(t, disk), ".base", ".delta"); len(got) != len(s.Stats().Snapshots) {
			t.Fatalf("%s: %q are left of a chain of %d", when, got, len(s.Stats().Snapshots))
		}
		must(t, compact(s))
		wantContent(t, s, *head, three)
	})
	t.Logf("tried %d crash points, 0 error points", again)
}

// eachError lets act run on what prepare has made, with every operation, reading included, failing
// once, and then for ever. When the disk works again it calls check.
func eachError(t *testing.T, prepare func(*testing.T, *Store), act func(*Store) error, check func(t *testing.T, when string, s *Store, disk *crashfs.FS, err error)) {
	t.Helper()
	tried := 0
	for _, forever := range []bool{false, true} {
		for op, past := 0, false; !past && !t.Failed(); op++ {
			synctest.Test(t, func(t *testing.T) {
				disk := newDisk()
				s := openStore(t, disk)
				prepare(t, s)
				synctest.Wait()
				disk.Trace()
				disk.FailAt(op, syscall.ENOSPC, forever)
				err := act(s)
				synctest.Wait()
				failed := disk.Failed()
				disk.FailAt(-1, nil, false)
				if past = failed == 0; past {
					must(t, err)
					return
				}
				tried++
				if err != nil && !errors.Is(err, syscall.ENOSPC) {
					t.Fatalf("operation %d fails, for ever %t: %v", op, forever, err)
				}
				check(t, fmt.Sprintf("operation %d fails, for ever %t", op, forever), s, disk, err)
			})
		}
	}
	t.Logf("tried 0 crash points, %d error points", tried)
}

// works checks that a store whose disk has failed and works again holds want, and goes on: at once,
// or after a start if it is open what the disk holds.
func works(t *testing.T, when string, s *Store, disk *crashfs.FS, head string, want content, err error) {
	t.Helper()
	wantHead(t, s, head)
	wantContent(t, s, head, want)
	if errors.Is(err, vfs.ErrUncertain) {
		if _, err := publish(s, snap{content: want, install: true}); !errors.Is(err, ErrSyncFailed) {
			t.Fatalf("%s: publish = %v; want %v", when, err, ErrSyncFailed)
		}
		must(t, s.Close())
		s = openStore(t, disk.Kill())
		wantContent(t, s, head, want)
	}
	next := want.change(7, 99)
	id := mustPublish(t, s, snap{index: 50, term: 9, content: next, parent: &want, head: head})
	must(t, s.Compact(context.Background()))
	wantContent(t, s, id, next)
}

// TestFault2784: a compaction that had failed half-way left files that the next opening took for
// damaged. Here it may fail anywhere, and everything works on, without a restart as far as that is known.
func TestFault2784(t *testing.T) {
	one := fill(4, 1)
	two := one.change(5, 2)
	three := two.change(4, 3)
	prepare, head := grown(one, two, three)
	compact := func(s *Store) error { return s.Compact(context.Background()) }
	eachError(t, prepare, compact, func(t *testing.T, when string, s *Store, disk *crashfs.FS, err error) {
		works(t, when, s, disk, *head, three, err)
	})
}

// TestFault2473: errors were dropped on the way (also #2530, #2533). Here each operation that fails
// while a snapshot is published or opened makes the act fail, but for deleting what is not needed.
func TestFault2473(t *testing.T) {
	one := fill(4, 1)
	two := one.change(5, 2)
	three := two.change(4, 3)
	prepare, head := grown(one, two)
	upon := func(s *Store) error {
		_, err := publish(s, snap{index: 3, term: 1, content: three, parent: &two, head: *head})
		return err
	}
	open := func(s *Store) error {
		_, err := read(s, *head)
		return err
	}
	for name, act := range map[string]func(*Store) error{"publish": upon, "open and read": open} {
		t.Run(name, func(t *testing.T) {
			eachError(t, prepare, act, func(t *testing.T, when string, s *Store, disk *crashfs.FS, err error) {
				if err == nil {
					t.Fatalf("%s: %s has not noticed", when, name)
				}
				if name != "publish" || !errors.Is(err, vfs.ErrUncertain) {
					works(t, when, s, disk, *head, two, err)
				}
			})
		})
	}
}

// countingFS counts the files that are open.
type countingFS struct {
	vfs.FS
	open atomic.Int64
}

type countedFile struct {
	vfs.File
	fs *countingFS
}

func (c *countingFS) counted(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	c.open.Add(1)
	return countedFile{f, c}, nil
}

func (c *countingFS) Open(name string) (vfs.File, error)   { return c.counted(c.FS.Open(name)) }
func (c *countingFS) Create(name string) (vfs.File, error) { return c.counted(c.FS.Create(name)) }

func (f countedFile) Close() error {
	err := f.File.Close()
	f.fs.open.Add(-1)
	return err
}

// TestFault2594: when a snapshot could not be opened, files and locks stayed with nobody (also #2705).
// Here each operation fails in turn, and everything is given back.
func TestFault2594(t *testing.T) {
	one := fill(4, 1)
	two := one.change(5, 2)
	acts := map[string]func(s *Store, id string) error{
		"open and read": func(s *Store, id string) error { _, err := read(s, id); return err },
		"compact":       func(s *Store, _ string) error { return s.Compact(context.Background()) },
		"publish": func(s *Store, id string) error {
			_, err := publish(s, snap{index: 9, term: 2, content: one, head: id})
			return err
		},
		"start": func(s *Store, _ string) error {
			again, err := Open("snapshots", Config{FS: s.fs, CompactDeltas: -1})
			if err == nil {
				err = again.Close()
			}
			return err
		},
	}
	tried := 0
	for name, act := range acts {
		for op := 0; ; op++ {
			disk := newDisk()
			fsys := &countingFS{FS: disk}
			s := openStore(t, fsys)
			id := grow(t, s, one, two)
			disk.FailAt(op, syscall.EMFILE, false)
			err := act(s, id)
			failed := disk.Failed() > 0
			disk.FailAt(-1, nil, false)
			must(t, s.Close())
			if open, readers := fsys.open.Load(), s.Stats().Readers; open != 0 || readers != 0 {
				t.Fatalf("%s, operation %d fails: %v, %d files are open, %d readers", name, op, err, open, readers)
			}
			if !failed {
				break
			}
			tried++
		}
	}
	t.Logf("tried 0 crash points, %d error points", tried)
}

// gateFS holds the first write to a new file up, once armed.
type gateFS struct {
	vfs.FS
	armed   atomic.Bool
	reached chan struct{}
	pass    chan struct{}
}

type gatedFile struct {
	vfs.File
	fs *gateFS
}

func (g *gateFS) Create(name string) (vfs.File, error) {
	f, err := g.FS.Create(name)
	if err == nil && g.armed.CompareAndSwap(true, false) {
		f = gatedFile{f, g}
	}
	return f, err
}

func (f gatedFile) Write(p []byte) (int, error) {
	if f.fs.reached != nil {
		close(f.fs.reached)
		f.fs.reached = nil
		<-f.fs.pass
	}
	return f.File.Write(p)
}

// TestFault2702: while files were merged, and checked after that, nobody could list, open or publish;
// what had been listed had another name by then. Here a compaction that hangs is in nobody's way. In
// the bubble, waiting would be a deadlock.
func TestFault2702(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := newDisk()
		fsys := &gateFS{FS: disk, reached: make(chan struct{}), pass: make(chan struct{})}
		reached := fsys.reached
		s := openStore(t, fsys)
		one := fill(4, 1)
		two := one.change(5, 2)
		three := two.change(6, 3)
		second := grow(t, s, one, two)
		fsys.armed.Store(true)
		done := make(chan error)
		go func() { done <- s.Compact(context.Background()) }()
		<-reached

		begin := time.Now()
		wantHead(t, s, second)
		wantContent(t, s, second, two)
		third := mustPublish(t, s, snap{index: 3, term: 1, content: three, parent: &two, head: second})
		wantHead(t, s, third)
		wantContent(t, s, third, three)
		if took := time.Since(begin); took != 0 {
			t.Errorf("that took %s", took)
		}
		close(fsys.pass)
		must(t, <-done)
		synctest.Wait()
		if got := s.Stats().Snapshots; !slices.Equal(got, []string{second, third}) {
			t.Errorf("the chain is %q; want %q", got, []string{second, third})
		}
		wantContent(t, s, second, two)
		wantContent(t, s, third, three)
	})
}

// openHookFS calls do before the first Open.
type openHookFS struct {
	vfs.FS
	do func()
}

func (h *openHookFS) Open(name string) (vfs.File, error) {
	if do := h.do; do != nil {
		h.do = nil
		do()
	}
	return h.FS.Open(name)
}

// TestFaultListDuringReap: while superseded files were deleted, listing and opening failed, and what had
// been listed had another name afterwards; upstream that has no number. Here all that can be deleted goes between
// the moment at which a snapshot is looked up and the moment at which its files are opened.
func TestFaultListDuringReap(t *testing.T) {
	one := fill(4, 1)
	two := one.change(5, 2)
	acts := map[string]func(*Store, string) error{
		"compaction": func(s *Store, _ string) error { return s.Compact(context.Background()) },
		"install": func(s *Store, _ string) error {
			_, err := publish(s, snap{index: 1, term: 1, content: one, install: true})
			return err
		},
		"image": func(s *Store, head string) error {
			_, err := publish(s, snap{index: 9, term: 1, content: one, head: head})
			return err
		},
	}
	for name, act := range acts {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				disk := newDisk()
				fsys := &openHookFS{FS: disk}
				s := openStore(t, fsys)
				head := grow(t, s, one, two)
				list, err := s.List()
				must(t, err)
				fsys.do = func() {
					must(t, act(s, head))
					time.Sleep(s.cfg.Grace)
					synctest.Wait()
				}
				got, err := read(s, list[0].ID)
				if err != nil || !slices.Equal(got, two.file()) {
					t.Errorf("what was listed: %v, or other content", err)
				}
				synctest.Wait()
				if left := only(names(t, disk), ".base", ".delta"); len(left) != 1 {
					t.Errorf("the directory holds %q after the last reader", left)
				}
			})
		})
	}
}
