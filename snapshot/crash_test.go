package snapshot

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"rqlited/internal/vfs"
	"rqlited/internal/vfs/crashfs"
)

// randomDisks is the number of disks that RestartRandom makes of each crash.
const randomDisks = 2

// tried counts what an enumeration has done.
type tried struct{ crashes, errors atomic.Int64 }

// newTried returns a tried that is logged when the test and all below it are over.
func newTried(t *testing.T) *tried {
	n := &tried{}
	t.Cleanup(func() { t.Logf("tried %d crash points, %d error points", n.crashes.Load(), n.errors.Load()) })
	return n
}

// eachScenario runs act for every scenario on every kind of disk.
func eachScenario(t *testing.T, act func(t *testing.T, sc scenario, disk func() *crashfs.FS)) {
	for _, d := range disks {
		for _, sc := range scenarios {
			if !strings.Contains(sc.name, d.only) {
				continue
			}
			t.Run(d.name+"/"+sc.name, func(t *testing.T) {
				t.Parallel()
				act(t, sc, d.make)
			})
		}
	}
}

// TestCrash repeats each scenario with the power cut before every operation that changes the disk.
// Whatever the disk has kept, the store opens, its head is the last snapshot whose Close has
// returned nil or one whose Close was under way, and it holds what was captured. The start after
// each act alone is cut off before every operation as well.
func TestCrash(t *testing.T) {
	base, n := seed(t), newTried(t)
	eachScenario(t, func(t *testing.T, sc scenario, disk func() *crashfs.FS) {
		once, twice := inspected{}, inspected{}
		for op, last := 0, false; !last && !t.Failed(); op++ {
			synctest.Test(t, func(t *testing.T) {
				w := crashed(t, sc, disk(), op)
				if last = w == nil; !last {
					n.crashes.Add(1)
					when := fmt.Sprintf("power cut before operation %d", op)
					inspectAll(t, when, w, base, once)
					if !sc.long() {
						inspectAgain(t, n, when, w, base, twice)
					}
				}
			})
		}
	})
}

// inspected knows the disks that were inspected already: most crashes leave what another has left.
type inspected map[string]bool

// first reports whether a disk on which everything is durable, and on which the head may be one of
// allowed, was never seen before.
func (n inspected) first(t *testing.T, disk *crashfs.FS, allowed []published) bool {
	t.Helper()
	h := sha256.New()
	_, _ = fmt.Fprintln(h, idsOf(allowed))
	list, err := disk.ReadDir("snapshots")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, name := range list {
		f, err := disk.Open("snapshots/" + name)
		must(t, err)
		data, err := io.ReadAll(f)
		must(t, errors.Join(err, f.Close()))
		_, _ = fmt.Fprintln(h, name, len(data))
		h.Write(data)
	}
	_, _ = fmt.Fprintln(h, err)
	key := string(h.Sum(nil))
	known := n[key]
	n[key] = true
	return !known
}

// crashed returns a world whose power went before the op-th operation of the scenario, nil if it is
// shorter.
func crashed(t *testing.T, sc scenario, disk *crashfs.FS, op int) *world {
	w := prepared(t, disk, sc.prepare)
	var err error
	w.fs.CrashAfter(op)
	for _, step := range sc.act {
		err = step(w)
		synctest.Wait() // until the store's goroutine has done its part
		if err != nil {
			break
		}
	}
	if !poweredOn(w.fs) {
		if err != nil && !errors.Is(err, crashfs.ErrPowerLost) && !errors.Is(err, ErrSyncFailed) {
			t.Fatalf("power cut before operation %d: error is %v", op, err)
		}
		return w
	}
	must(t, err)
	return nil
}

func poweredOn(fs *crashfs.FS) bool {
	_, err := fs.Stat("/")
	return err == nil
}

// leftBy returns the i-th disk that the crash of fsys may have left.
func leftBy(fsys *crashfs.FS, i int, base uint64) *crashfs.FS {
	switch i {
	case killed:
		return fsys.Kill()
	case 1:
		return fsys.Restart()
	}
	return fsys.RestartRandom(base + uint64(i))
}

const killed = 0 // the disk on which nothing is lost yet

// inspectAll inspects every disk that the crash of w may have left.
func inspectAll(t *testing.T, when string, w *world, base uint64, seen inspected) {
	t.Helper()
	for i := range randomDisks + 2 {
		if i != killed && !seen.first(t, leftBy(w.fs, i, base), w.allowed()) {
			continue
		}
		if err := w.inspectDisk(leftBy(w.fs, i, base), w.allowed(), i < 2); err != nil {
			t.Errorf("%s, disk %d: %v", when, i, err)
			return
		}
	}
}

// inspectAgain inspects every disk that may be left if the start after the crash is cut off too.
func inspectAgain(t *testing.T, n *tried, when string, w *world, base uint64, seen inspected) {
	t.Helper()
	for i := range randomDisks + 2 {
		if i != killed && !seen.first(t, leftBy(w.fs, i, base), w.allowed()) {
			continue
		}
		for op := 0; ; op++ {
			d := leftBy(w.fs, i, base)
			d.CrashAfter(op)
			s, err := w.start(d)
			if err == nil {
				must(t, s.Close())
			}
			if poweredOn(d) {
				break
			}
			n.crashes.Add(1)
			for j, left := range []*crashfs.FS{d.Restart(), d.RestartRandom(base + uint64(op))} {
				if !seen.first(t, left, w.allowed()) {
					continue
				}
				if err := w.inspectOnce(left, w.allowed()); err != nil {
					t.Errorf("%s, disk %d, again before operation %d of the start, disk %d: %v", when, i, op, j, err)
					return
				}
			}
		}
	}
}

// inspectOnce inspects one disk.
func (w *world) inspectOnce(disk *crashfs.FS, allowed []published) error {
	s, _, err := w.inspect(disk, allowed)
	if s != nil {
		err = errors.Join(err, s.Close())
	}
	return err
}

// inspectDisk inspects one disk, and whether what was found there stays: a head that has been
// reported may not change by another power cut. If told to, it also lets the store work on there.
func (w *world) inspectDisk(disk *crashfs.FS, allowed []published, goOn bool) error {
	s, head, err := w.inspect(disk, allowed)
	if s != nil {
		err = errors.Join(err, s.Close())
	}
	if err != nil {
		return err
	}
	disk = disk.Restart()
	s, _, err = w.inspect(disk, []published{head})
	if err == nil && goOn {
		err = w.goOn(disk, s, head)
	}
	if s != nil {
		err = errors.Join(err, s.Close())
	}
	if err != nil {
		return fmt.Errorf("start after a quiet power cut: %w", err)
	}
	return nil
}

// faults are the ways in which an operation fails, and for each whether the store then has to work
// on or the power is cut; which error it was makes no difference to what is on the disk.
var faults = []fault{
	{err: syscall.ENOSPC, resume: true},
	{err: syscall.ENOSPC, sticky: true},
	{err: syscall.EIO, resume: true},
	{err: syscall.EIO, sticky: true},
	{err: syscall.EACCES},
	{err: syscall.EACCES, sticky: true, resume: true},
}

// fault is an operation that fails.
type fault struct {
	op     int
	err    error
	sticky bool // all that follow fail too
	resume bool // and then none does
}

// TestError repeats each scenario with every operation, reading included, failing once or from
// then on; a write that fails has written half. Until the store is opened anew, the head is the
// last snapshot whose Close has returned nil; afterwards it may also be one whose Close has returned
// ErrUncertain. When the disk works again, so does the store.
func TestError(t *testing.T) {
	base, n := seed(t), newTried(t)
	eachScenario(t, func(t *testing.T, sc scenario, disk func() *crashfs.FS) {
		all := faults
		if sc.long() || !strings.Contains(t.Name(), "plain") {
			all = faults[4:] // every act has had all of them alone, on a plain disk
		}
		seen := inspected{}
		for _, f := range all {
			for last := false; !last && !t.Failed(); f.op++ {
				synctest.Test(t, func(t *testing.T) {
					last = !failing(t, sc, disk(), f, base, seen)
				})
				if !last {
					n.errors.Add(1)
				}
			}
		}
	})
}

// failing runs the scenario with the fault and reports whether it was long enough for it.
func failing(t *testing.T, sc scenario, disk *crashfs.FS, f fault, base uint64, seen inspected) bool {
	w := prepared(t, disk, sc.prepare)
	w.fs.FailAt(f.op, f.err, f.sticky)
	var errs []error
	for _, step := range sc.act {
		err := step(w)
		synctest.Wait()
		if err != nil {
			if !errors.Is(err, f.err) && !errors.Is(err, ErrStaleHead) && !errors.Is(err, ErrNotImage) {
				t.Errorf("%+v: error is %v", f, err)
			}
			errs = append(errs, err)
		}
		if w.s == nil {
			break // it has not started
		}
	}
	failed := w.fs.Failed() > 0
	w.fs.FailAt(-1, nil, false)
	switch err := errors.Join(errs...); {
	case !failed && err != nil:
		t.Fatalf("errors without a failure: %v", err)
	case failed && f.resume:
		w.resume(t, f, err)
	case failed && f.sticky && w.damaged && f.err == syscall.EIO:
		// What has been salvaged while the disk did not work is not to be foreseen.
	case failed:
		for i := range 3 {
			if i != killed && !seen.first(t, leftBy(w.fs, i, base), w.allowed()) {
				continue
			}
			if err := w.inspectDisk(leftBy(w.fs, i, base), w.allowed(), i == killed); err != nil {
				t.Errorf("%+v, disk %d: %v", f, i, err)
			}
		}
	}
	return failed
}

// resume checks that the store works now that its disk does, and that one round of maintenance
// later nothing is left of what has failed.
func (w *world) resume(t *testing.T, f fault, errs error) {
	if w.s == nil {
		if err := stepStart(w); err != nil {
			t.Errorf("%+v: a second start = %v", f, err)
			return
		}
		head, _ := w.s.Head()
		if i := slices.IndexFunc(w.pending, func(p published) bool { return p.id == head.ID }); i >= 0 {
			w.head = w.pending[i]
		}
	}
	if head, _ := w.s.Head(); head.ID != w.head.id && !w.shortened(f, head.ID) {
		t.Errorf("%+v: head is %q; want %q", f, head.ID, w.head.id)
		return
	}
	if err := checkContent(w.s, w.head); err != nil {
		t.Errorf("%+v: %v", f, err)
	}
	err := w.publish(snap{index: 50, term: 9, content: fill(3, 99), install: true})
	if errors.Is(errs, vfs.ErrUncertain) && w.s.Stats().Failed != "" {
		if !errors.Is(err, ErrSyncFailed) {
			t.Errorf("%+v: publication after %v = %v; want %v", f, errs, err, ErrSyncFailed)
		}
		if err := w.inspectDisk(w.fs.Kill(), w.allowed(), true); err != nil {
			t.Errorf("%+v: %v", f, err)
		}
		return
	}
	if err != nil {
		t.Errorf("%+v: publication after the disk has recovered from %v = %v", f, errs, err)
		return
	}
	if err := checkContent(w.s, w.head); err != nil {
		t.Errorf("%+v: %v", f, err)
	}
	time.Sleep(w.s.cfg.Grace + retryAfter)
	synctest.Wait()
	if err := checkTidy(w.fs, w.s); err != nil {
		t.Errorf("%+v: after one maintenance run: %v", f, err)
	}
}

// shortened reports whether a salvage that could not read an intact file has kept less than it
// might have, as it must, and if so makes what it has kept the head of the world.
func (w *world) shortened(f fault, id string) bool {
	if !w.damaged || f.err != syscall.EIO {
		return false
	}
	for _, p := range w.chain {
		if p.id == id {
			w.head = p
			return true
		}
	}
	return false
}
