package snapshot

import (
	"errors"
	"fmt"
	"syscall"
	"testing"
	"testing/synctest"

	"rqlited/internal/vfs"
	"rqlited/internal/vfs/crashfs"
)

// randomDisks is the number of disks that RestartRandom makes of each crash.
const randomDisks = 4

// TestCrash repeats each scenario with the power cut before every operation that changes the
// disk. Whatever the disk has kept, the store opens, its head is the last snapshot whose Close
// has returned nil or one whose Close was under way, and it holds what was captured.
func TestCrash(t *testing.T) {
	base := seed(t)
	for _, sc := range scenarios {
		t.Run(sc.name, func(t *testing.T) {
			t.Parallel()
			for op := 0; ; op++ {
				last := false
				synctest.Test(t, func(t *testing.T) {
					w := crashed(t, sc.prepare, sc.act, op)
					last = w == nil
					if !last {
						inspectAll(t, fmt.Sprintf("power cut before operation %d", op), w, base)
					}
				})
				if last || t.Failed() {
					return
				}
			}
		})
	}
}

// crashed returns a world whose power went before the op-th operation of act, nil if act is
// shorter.
func crashed(t *testing.T, prepare, act []step, op int) *world {
	w := prepared(t, prepare)
	var err error
	w.fs.CrashAfter(op)
	for _, step := range act {
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

// inspectAll inspects every disk that the crash of w may have left, and every disk that a second
// crash, during the start after, may leave.
func inspectAll(t *testing.T, when string, w *world, base uint64) {
	t.Helper()
	for i := range randomDisks + 2 {
		disk := func() *crashfs.FS {
			switch i {
			case 0:
				return w.fs.Restart()
			case 1:
				return w.fs.Kill()
			}
			return w.fs.RestartRandom(base + uint64(i))
		}
		if err := inspectDisk(disk(), w.allowed()); err != nil {
			t.Errorf("%s, disk %d: %v", when, i, err)
			return
		}
		for op := 0; ; op++ {
			d := disk()
			d.CrashAfter(op)
			s, err := Open("snapshots", Config{FS: d, CompactDeltas: -1})
			if err == nil {
				must(t, s.Close())
			}
			if poweredOn(d) {
				break
			}
			again := d.Restart()
			if op%2 > 0 || i == 1 {
				again = d.RestartRandom(base + uint64(op))
			}
			if err := inspectOnce(again, w.allowed()); err != nil {
				t.Errorf("%s, disk %d, again before operation %d of Open: %v", when, i, op, err)
				return
			}
		}
	}
}

// inspectOnce inspects one disk.
func inspectOnce(disk *crashfs.FS, allowed []published) error {
	s, _, err := inspect(disk, allowed)
	if s != nil {
		err = errors.Join(err, s.Close())
	}
	return err
}

// inspectDisk inspects one disk, and whether what was found there stays: a head that has been
// reported may not change by another power cut.
func inspectDisk(disk *crashfs.FS, allowed []published) error {
	s, head, err := inspect(disk, allowed)
	if s != nil {
		defer s.Close()
	}
	if err != nil {
		return err
	}
	for i := range 2 {
		again := disk.Restart()
		if i > 0 {
			again = disk.RestartRandom(uint64(i))
		}
		disk = again
		s, _, err := inspect(disk, []published{head})
		if err == nil && i == 1 {
			err = goOn(disk, s, head, allowed)
		}
		if s != nil {
			err = errors.Join(err, s.Close())
		}
		if err != nil {
			return fmt.Errorf("start after a quiet power cut: %w", err)
		}
	}
	return nil
}

// TestError repeats each scenario with every operation, reading included, failing once or from
// then on. Until the store is opened anew, the head is the last snapshot whose Close has returned
// nil; afterwards it may also be one whose Close has returned ErrUncertain.
func TestError(t *testing.T) {
	base := seed(t)
	for _, sc := range scenarios {
		t.Run(sc.name, func(t *testing.T) {
			t.Parallel()
			for _, sticky := range []bool{false, true} {
				for op, last := 0, false; !last && !t.Failed(); op++ {
					synctest.Test(t, func(t *testing.T) {
						last = !failing(t, sc.prepare, sc.act, op, sticky, base)
					})
				}
			}
		})
	}
}

// failing fails the op-th operation of act and reports whether act was long enough.
func failing(t *testing.T, prepare, act []step, op int, sticky bool, base uint64) bool {
	when := fmt.Sprintf("operation %d fails, for ever: %v", op, sticky)
	w := prepared(t, prepare)
	w.fs.FailAt(op, syscall.ENOSPC, sticky)
	var errs []error
	for _, step := range act {
		err := step(w)
		synctest.Wait()
		if err != nil {
			if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, ErrStaleHead) && !errors.Is(err, ErrNotImage) {
				t.Errorf("%s: error is %v", when, err)
			}
			errs = append(errs, err)
		}
		if w.s == nil {
			break // Open has failed
		}
	}
	failed := w.fs.Failed() > 0
	w.fs.FailAt(-1, nil, false)
	if !failed && len(errs) > 0 {
		t.Fatalf("errors without a failure: %v", errs)
	}
	if w.s != nil {
		inForce(t, when, w, errors.Join(errs...))
	}
	if failed {
		for i, disk := range []*crashfs.FS{w.fs.Kill(), w.fs.Restart(), w.fs.RestartRandom(base)} {
			if err := inspectDisk(disk, w.allowed()); err != nil {
				t.Errorf("%s, disk %d: %v", when, i, err)
			}
		}
	}
	return failed
}

// inForce checks the running store after its disk has recovered.
func inForce(t *testing.T, when string, w *world, errs error) {
	if head, _ := w.s.Head(); head.ID != w.head.id {
		t.Errorf("%s: head is %q; want %q", when, head.ID, w.head.id)
	}
	if err := checkContent(w.s, w.head); err != nil {
		t.Errorf("%s: %v", when, err)
	}
	err := w.publish(snap{index: 50, term: 9, content: fill(3, 99), install: true})
	switch uncertain := errors.Is(errs, vfs.ErrUncertain); {
	case uncertain && !errors.Is(err, ErrSyncFailed):
		t.Errorf("%s: publication after %v = %v; want %v", when, errs, err, ErrSyncFailed)
	case !uncertain && err != nil:
		t.Errorf("%s: publication after the disk has recovered from %v = %v", when, errs, err)
	case err == nil:
		if err := checkContent(w.s, w.head); err != nil {
			t.Errorf("%s: %v", when, err)
		}
	}
}
