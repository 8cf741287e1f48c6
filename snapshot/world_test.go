package snapshot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"rqlited/internal/vfs"
	"rqlited/internal/vfs/crashfs"
)

// published is a snapshot and what it must hold; the zero value stands for none.
type published struct {
	id      string
	content content
}

// world is a store on a disk that fails, together with what the store has promised.
type world struct {
	fs   *crashfs.FS
	hook *hookFS // through which the store uses fs
	s    *Store

	head    published   // the last whose Close has returned nil
	pending []published // those whose Close has not returned, or has returned ErrUncertain, since
	index   uint64
	seeds   uint64
}

func (w *world) open() (err error) {
	w.s, err = Open("snapshots", Config{FS: w.hook, CompactDeltas: -1})
	return err
}

// a step is an act on the store. It returns the store's error.
type step func(w *world) error

func (w *world) publish(n snap) error {
	k, err := sinkFor(w.s, n)
	if err != nil {
		return err
	}
	p := published{k.ID(), n.content}
	w.pending = append(w.pending, p)
	if err := k.Close(); err != nil {
		if !errors.Is(err, vfs.ErrUncertain) && !errors.Is(err, crashfs.ErrPowerLost) {
			w.pending = w.pending[:len(w.pending)-1] // promised not to be there
		}
		return err
	}
	w.head, w.pending = p, nil
	return nil
}

// next returns a content that follows the head's.
func (w *world) next() content {
	w.index++
	w.seeds++
	return w.head.content.change(4+int(w.seeds%3), w.seeds)
}

func stepImage(w *world) error {
	c := w.next()
	return w.publish(snap{index: w.index, term: 2, content: c, head: w.head.id})
}

func stepDelta(w *world) error {
	c, parent := w.next(), w.head.content
	return w.publish(snap{index: w.index, term: 2, content: c, parent: &parent, head: w.head.id})
}

// stepInstall returns an install at an index that lies by from the head's.
func stepInstall(by int) step {
	return func(w *world) error {
		w.seeds++
		w.index = uint64(max(int(w.index)+by, 0))
		return w.publish(snap{index: w.index, term: 2, content: fill(5, w.seeds), install: true})
	}
}

func stepCompact(w *world) error { return w.s.Compact(context.Background()) }

// stepCompactUnder compacts while a delta is published, from within the opening of the files.
func stepCompactUnder(w *world) error {
	var inner error
	w.hook.once = func() { inner = stepDelta(w) }
	err := stepCompact(w)
	w.hook.once = nil
	return errors.Join(inner, err)
}

// hookFS calls once before the first Open.
type hookFS struct {
	vfs.FS
	once func()
}

func (h *hookFS) Open(name string) (vfs.File, error) {
	if f := h.once; f != nil {
		h.once = nil
		f()
	}
	return h.FS.Open(name)
}

func stepCancel(w *world) error {
	k, err := sinkFor(w.s, snap{index: 1, term: 1, content: fill(3, 0), install: true})
	if err != nil {
		return err
	}
	return k.Cancel()
}

// stepGrace lets the grace periods end, and with them the files.
func stepGrace(w *world) error {
	time.Sleep(w.s.cfg.Grace)
	synctest.Wait()
	return nil
}

// stepKill leaves a sink unfinished and opens the store anew, as after kill -9.
func stepKill(w *world) error {
	_, err := sinkFor(w.s, snap{index: 1, term: 1, content: fill(3, 0), install: true})
	if err != nil {
		return err
	}
	return errors.Join(w.s.Close(), w.open())
}

// scenarios are histories: prepare runs on a disk that works, act on one that fails.
var scenarios = []struct {
	name         string
	prepare, act []step
}{
	{"first image", nil, []step{stepImage}},
	{"first install", nil, []step{stepInstall(5)}},
	{"image", []step{stepImage, stepDelta}, []step{stepImage}},
	{"delta", []step{stepImage}, []step{stepDelta, stepDelta}},
	{"install lower", []step{stepImage, stepDelta}, []step{stepInstall(-1), stepDelta}},
	{"install equal", []step{stepImage, stepDelta}, []step{stepInstall(0)}},
	{"install higher", []step{stepImage, stepDelta}, []step{stepInstall(9)}},
	{"compact", []step{stepImage, stepDelta, stepDelta}, []step{stepCompact}},
	{"compact under a delta", []step{stepImage, stepDelta}, []step{stepCompactUnder}},
	{"grace", []step{stepImage, stepDelta, stepInstall(-1)}, []step{stepGrace}},
	{"cancel", []step{stepImage}, []step{stepCancel, stepDelta}},
	{"open", []step{stepImage, stepDelta, stepCompact}, []step{stepKill}},
	{"all", nil, []step{stepImage, stepDelta, stepDelta, stepCompactUnder, stepDelta, stepGrace, stepCancel,
		stepInstall(-2), stepDelta, stepKill, stepDelta, stepCompact, stepImage, stepGrace}},
}

// prepared returns a world in which the steps have been taken.
func prepared(t *testing.T, steps []step) *world {
	t.Helper()
	disk := newDisk()
	w := &world{fs: disk, hook: &hookFS{FS: disk}}
	must(t, w.open())
	t.Cleanup(func() {
		if w.s != nil {
			must(t, w.s.Close())
		}
	})
	for _, step := range steps {
		must(t, step(w))
		synctest.Wait()
	}
	return w
}

// allowed returns what the head may be after a crash.
func (w *world) allowed() []published { return append([]published{w.head}, w.pending...) }

// inspect opens the store on a disk as a start would find it, and checks that it keeps its
// promise: it opens, its head is one of allowed, no litter is left. It returns the head.
func inspect(disk *crashfs.FS, allowed []published) (*Store, published, error) {
	s, err := Open("snapshots", Config{FS: disk, CompactDeltas: -1})
	if err != nil {
		return nil, published{}, err
	}
	head, _ := s.Head()
	i := slices.IndexFunc(allowed, func(p published) bool { return p.id == head.ID })
	if i < 0 {
		return s, published{}, fmt.Errorf("head is %q; allowed are %q", head.ID, idsOf(allowed))
	}
	if err := checkContent(s, allowed[i]); err != nil {
		return s, published{}, err
	}
	want := []string{manifestName}
	for _, l := range s.catalog.man.Chain {
		want = append(want, l.File)
	}
	got, err := disk.ReadDir("snapshots")
	slices.Sort(want)
	slices.Sort(got)
	if err == nil && !slices.Equal(got, want) {
		err = fmt.Errorf("directory holds %q; want %q", got, want)
	}
	return s, allowed[i], err
}

func idsOf(p []published) (ids []string) {
	for _, v := range p {
		ids = append(ids, v.id)
	}
	return ids
}

func checkContent(s *Store, want published) error {
	if want.id == "" {
		return nil
	}
	got, err := read(s, want.id)
	if err == nil && !bytes.Equal(got, want.content.file()) {
		err = fmt.Errorf("snapshot %s holds something else than was captured", want.id)
	}
	return err
}

// goOn checks that a store which has come back works: it publishes an image or a delta upon its
// head and compacts, under an id that is new.
func goOn(fs *crashfs.FS, s *Store, head published, used []published) error {
	w := &world{fs: fs, s: s, head: head, index: 100, seeds: 1000}
	acts := []step{stepDelta, stepCompact, stepInstall(-50)}
	if head.id == "" {
		acts = []step{stepImage, stepDelta}
	}
	for _, act := range acts {
		if err := act(w); err != nil {
			return fmt.Errorf("go on: %w", err)
		}
		if err := checkContent(s, w.head); err != nil {
			return fmt.Errorf("go on: %w", err)
		}
		if w.head.id != head.id && slices.Contains(idsOf(used), w.head.id) {
			return fmt.Errorf("go on: id %s was used before", w.head.id)
		}
	}
	return nil
}
