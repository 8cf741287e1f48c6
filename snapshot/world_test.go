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
	chain   []published // those that the manifest names, oldest first
	numbers []uint64    // of all ids that were the head
	index   uint64
	seeds   uint64

	damaged  bool // files are: Open may say so, and then the owner of the store comes to its rescue
	covering bool // from every snapshot the log goes on
}

// start opens the store as its owner does.
func (w *world) start(fsys vfs.FS) (*Store, error) {
	cfg := Config{FS: fsys, CompactDeltas: -1}
	s, err := Open("snapshots", cfg)
	if w.damaged && err == nil {
		if err = s.Verify(context.Background()); err == nil {
			return s, nil
		}
		err = errors.Join(err, s.Close())
		s = nil
	}
	if !w.damaged || !errors.Is(err, ErrDamaged) {
		return s, err
	}
	_, err = Salvage("snapshots", cfg, func(Head) bool { return w.covering })
	if errors.Is(err, ErrDamaged) && !w.covering {
		err = Discard("snapshots", cfg)
	}
	if err != nil {
		return nil, err
	}
	return Open("snapshots", cfg)
}

// a step is an act on the store. It returns the store's error.
type step func(w *world) error

func stepStart(w *world) (err error) {
	w.s, err = w.start(w.hook)
	return err
}

func stepStop(w *world) error {
	err := w.s.Close()
	w.s = nil
	return err
}

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
	if n.parent == nil {
		w.chain = nil
	}
	w.chain = append(w.chain, p)
	w.numbers = append(w.numbers, k.stage.number)
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

// stepMerge merges all deltas.
func stepMerge(w *world) error { return w.s.compact(context.Background(), mergeAll) }

func mergeAll(chain []link) []*rewriting {
	if len(chain) < 3 {
		return nil
	}
	return []*rewriting{{chain: chain, from: 1}}
}

// under returns a step that compacts while a delta is published, from within the opening of the
// files.
func under(compact step) step {
	return func(w *world) error {
		var inner error
		w.hook.once = func() { inner = stepDelta(w) }
		err := compact(w)
		w.hook.once = nil
		return errors.Join(inner, err)
	}
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

func (h *hookFS) Free(dir string) (int64, error) { return vfs.Free(h.FS, dir) }

func stepCancel(w *world) error {
	k, err := sinkFor(w.s, snap{index: 1, term: 1, content: fill(3, 0), install: true})
	if err != nil {
		return err
	}
	return k.Cancel()
}

// stepRead opens the head, reads half of it and closes the reader, and then reads all of it.
func stepRead(w *world) error {
	_, rc, err := w.s.Open(w.head.id)
	if err != nil {
		return err
	}
	_, err = io.CopyN(io.Discard, rc, 1000)
	if err = errors.Join(err, rc.Close()); err != nil {
		return err
	}
	return errors.Join(checkContent(w.s, w.head), w.s.Verify(context.Background()))
}

// stepGrace lets the grace periods end, and with them the files.
func stepGrace(w *world) error {
	time.Sleep(w.s.cfg.Grace)
	synctest.Wait()
	return nil
}

// stepKill leaves a sink unfinished and opens the store anew, as after kill -9.
func stepKill(w *world) error {
	k, err := sinkFor(w.s, snap{index: 1, term: 1, content: fill(3, 0), install: true})
	if err != nil {
		return err
	}
	err = stepStop(w)
	_ = k.stage.out.file.Close() // as the kernel does
	return errors.Join(err, stepStart(w))
}

// harm returns a step that stops the store and damages the n-th file of the chain, or MANIFEST
// if n is negative. What lies below that file can be salvaged, so it is the head then.
func harm(n int, covering bool, act func(w *world, name string) error) step {
	return func(w *world) error {
		w.damaged, w.covering = true, covering
		name := manifestName
		if n >= 0 {
			name = w.s.catalog.man.Chain[n].File
		}
		if n <= 0 || !covering {
			w.head = published{}
		} else {
			w.head = w.chain[n-1]
		}
		if err := errors.Join(stepStop(w), act(w, "snapshots/"+name), w.fs.SyncDir("snapshots")); err != nil {
			return err
		}
		f, err := w.fs.Create("flush") // where syncing a directory does nothing, syncing a file does
		return errors.Join(err, f.Sync(), f.Close())
	}
}

// stepDiscard gives all up, although it is intact.
func stepDiscard(w *world) error {
	if err := stepStop(w); err != nil {
		return err
	}
	w.pending = append(w.pending, published{})
	if err := Discard("snapshots", Config{FS: w.hook}); err != nil {
		if !errors.Is(err, vfs.ErrUncertain) && !errors.Is(err, crashfs.ErrPowerLost) {
			w.pending = nil // promised to have done nothing
		}
		return err
	}
	w.head, w.pending = published{}, nil
	return stepStart(w)
}

func harmManifest(w *world) error {
	return errors.Join(flipBit(w, "snapshots/MANIFEST"), w.fs.SyncDir("snapshots"))
}

func remove(w *world, name string) error { return w.fs.Remove(name) }

// flipBit changes a bit in the middle of a file.
func flipBit(w *world, name string) error {
	f, err := w.fs.Open(name)
	if err != nil {
		return err
	}
	data, err := io.ReadAll(f)
	if err = errors.Join(err, f.Close(), w.fs.Remove(name)); err != nil { // it may not be changed itself
		return err
	}
	data[len(data)/2] ^= 4
	f, err = w.fs.Create(name)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

// A scenario is a history: prepare runs on a disk that works, act on one that fails.
type scenario struct {
	name         string
	prepare, act []step
}

// long reports whether the acts of the scenario are also scenarios of their own.
func (sc *scenario) long() bool { return len(sc.act) > 5 }

var (
	begin  = []step{stepStart}
	image1 = []step{stepStart, stepImage}
	delta1 = []step{stepStart, stepImage, stepDelta}
	delta3 = []step{stepStart, stepImage, stepDelta, stepDelta, stepDelta}
)

var scenarios = []scenario{
	{"start", nil, []step{stepStart}},
	{"first image", begin, []step{stepImage}},
	{"first install", begin, []step{stepInstall(5)}},
	{"image", delta1, []step{stepImage}},
	{"delta", image1, []step{stepDelta, stepDelta}},
	{"install lower", delta1, []step{stepInstall(-1), stepDelta}},
	{"install equal", delta1, []step{stepInstall(0)}},
	{"install higher", delta1, []step{stepInstall(9)}},
	{"compact", delta3, []step{stepCompact}},
	{"compact under a delta", delta1, []step{under(stepCompact)}},
	{"merge", delta3, []step{stepMerge}},
	{"merge under a delta", delta3, []step{under(stepMerge)}},
	{"merge merged deltas, compact them", slices.Concat(delta3, []step{stepMerge, stepDelta}), []step{stepMerge, stepDelta, stepCompact}},
	{"grace", slices.Concat(delta3, []step{stepMerge, stepInstall(-1)}), []step{stepGrace}},
	{"cancel", image1, []step{stepCancel, stepDelta}},
	{"read", delta3, []step{stepRead}},
	{"open", slices.Concat(delta1, []step{stepCompact}), []step{stepKill}},
	{"salvage", slices.Concat(delta3, []step{harm(2, true, flipBit)}), []step{stepStart, stepDelta}},
	{"salvage what is there", slices.Concat(delta3, []step{harm(1, true, remove)}), []step{stepStart}},
	{"discard", slices.Concat(delta3, []step{harm(0, false, flipBit)}), []step{stepStart, stepImage}},
	{"discard without base", slices.Concat(delta1, []step{harm(0, false, remove)}), []step{stepStart}},
	{"discard what is intact", delta1, []step{stepDiscard, stepImage}},
	{"discard a manifest alone", slices.Concat(image1, []step{harm(0, false, remove), harmManifest}), []step{stepStart}},
	{"discard by a damaged manifest", slices.Concat(delta1, []step{harm(-1, false, flipBit)}), []step{stepStart}},
	{"discard without manifest", slices.Concat(delta1, []step{harm(-1, false, remove)}), []step{stepStart}},
	{"merge, compact and all the rest", begin, []step{stepImage, stepDelta, stepDelta, under(stepMerge), stepDelta, under(stepCompact), stepDelta,
		stepGrace, stepCancel, stepInstall(-2), stepDelta, stepKill, stepDelta, stepMerge, stepCompact, stepImage, stepGrace}},
}

// disks are the kinds of disk that scenarios run on.
var disks = []struct {
	name string
	make func() *crashfs.FS
	only string // scenarios with this in their names
}{
	{"plain", crashfs.New, ""},
	{"cloning", cloningDisk, "compact"}, // nothing else clones
	{"windows", crashfs.NewWindows, ""},
}

func cloningDisk() *crashfs.FS {
	fsys := crashfs.New()
	fsys.OfferClone(true)
	return fsys
}

// prepared returns a world on the disk in which the steps have been taken.
func prepared(t *testing.T, disk *crashfs.FS, steps []step) *world {
	t.Helper()
	disk.Freeze("*.base", "*.delta")
	w := &world{fs: disk, hook: &hookFS{FS: disk}}
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

// inspect starts the store on a disk as it is found after a crash, and checks that it keeps its
// promise: it opens, its head is one of allowed, no litter is left. It returns the head.
func (w *world) inspect(disk *crashfs.FS, allowed []published) (*Store, published, error) {
	s, err := w.start(disk)
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
	return s, allowed[i], checkTidy(disk, s)
}

// checkTidy checks that the directory holds what the manifest in force names, and what was set
// aside.
func checkTidy(disk vfs.FS, s *Store) error {
	want := []string{manifestName}
	s.mu.Lock()
	for _, l := range s.catalog.man.Chain {
		want = append(want, l.File)
	}
	s.mu.Unlock()
	got, err := disk.ReadDir("snapshots")
	got = slices.DeleteFunc(got, func(name string) bool { return strings.HasSuffix(name, damagedExt) })
	slices.Sort(want)
	slices.Sort(got)
	if err == nil && !slices.Equal(got, want) {
		err = fmt.Errorf("directory holds %q; want %q", got, want)
	}
	return err
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

// goOn checks that a store which has come back works: it publishes images and deltas, merges and
// compacts, under ids that are new.
func (w *world) goOn(disk *crashfs.FS, s *Store, head published) error {
	next := &world{fs: disk, hook: &hookFS{FS: disk}, s: s, head: head, chain: []published{head}, index: 100, seeds: 1000}
	acts := []step{stepDelta, stepDelta, stepMerge, stepDelta, stepCompact, stepInstall(-50)}
	if head.id == "" {
		acts = []step{stepImage, stepDelta}
	}
	for _, act := range acts {
		if err := act(next); err != nil {
			return fmt.Errorf("go on: %w", err)
		}
		if err := checkContent(s, next.head); err != nil {
			return fmt.Errorf("go on: %w", err)
		}
	}
	for _, number := range next.numbers {
		if slices.Contains(w.numbers, number) {
			return fmt.Errorf("go on: number %d was used before", number)
		}
	}
	return nil
}
