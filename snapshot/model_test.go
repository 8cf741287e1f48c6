package snapshot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"rqlited/internal/vfs"
	"rqlited/internal/vfs/crashfs"
)

// model is what a snapshot store is: a map from ids to databases, and the head.
type model struct {
	disk  *crashfs.FS
	s     *Store
	cfg   Config
	head  published
	known map[string]memory
	used  map[string]bool // ids of all snapshots that there ever were
	reads []*partRead
	seeds uint64
}

// memory is a snapshot that was the head once.
type memory struct {
	content content
	until   time.Time // when its grace period is over; zero: it is the head
}

// partRead is a reader that has not come to its end.
type partRead struct {
	rc   io.ReadCloser
	id   string
	got  []byte
	want []byte
}

// TestModel makes random histories, on every kind of disk, and compares the store with the model
// after each act. With -rapid.checks it can go on for hours.
func TestModel(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		var failure any
		synctest.Test(t, func(*testing.T) { // in here, time passes only when the history says so
			defer func() { failure = recover() }()
			history(r)
		})
		// The failure goes on where rapid expects it. By the line it comes from rapid tells one
		// failure from another, and histories that it cannot draw to their end from failures.
		if fmt.Sprintf("%T", failure) == "rapid.invalidData" {
			panic(failure)
		} else if failure != nil {
			panic(failure)
		}
	})
}

func history(r *rapid.T) {
	disk := rapid.SampledFrom(disks).Draw(r, "disk").make()
	disk.Freeze("*.base", "*.delta")
	m := &model{disk: disk, known: map[string]memory{}, used: map[string]bool{}}
	m.cfg = Config{
		CompactDeltas: rapid.SampledFrom([]int{-1, 2, 5}).Draw(r, "CompactDeltas"),
		Grace:         rapid.SampledFrom([]time.Duration{time.Second, time.Hour}).Draw(r, "Grace"),
		CompactBytes:  rapid.SampledFrom([]int64{1, 1 << 40}).Draw(r, "CompactBytes"),
	}
	m.open(r)
	defer func() { _ = m.s.Close() }()
	r.Repeat(map[string]func(*rapid.T){
		"":        m.check,
		"image":   m.image,
		"delta":   m.delta,
		"stale":   m.stale,
		"install": m.install,
		"cancel":  m.cancel,
		"compact": m.compact,
		"merge":   m.merge,
		"fail":    m.fail,
		"begin":   m.beginRead,
		"read":    m.read,
		"wait":    m.wait,
		"reopen":  m.reopen,
		"crash":   m.crash,
		"salvage": m.salvage,
	})
	m.finishAll(r)
	m.tidy(r)
}

func (m *model) open(r *rapid.T) {
	m.cfg.FS = m.disk
	s, err := Open("snapshots", m.cfg)
	if err != nil {
		r.Fatal(err)
	}
	m.s = s
}

// become makes p the head of the model.
func (m *model) become(p published) {
	if old, ok := m.known[m.head.id]; ok && p.id != m.head.id {
		old.until = time.Now().Add(m.cfg.Grace)
		m.known[m.head.id] = old
	}
	m.head = p
	if p.id != "" {
		m.known[p.id] = memory{content: p.content}
		m.used[p.id] = true
	}
}

// content draws a database, a variation of the head's or a new one.
func (m *model) content(r *rapid.T) content {
	m.seeds++
	return m.head.content.change(rapid.IntRange(0, 9).Draw(r, "pages"), m.seeds)
}

// snap draws a snapshot that may be published now.
func (m *model) snap(r *rapid.T) snap {
	n := snap{content: m.content(r), head: m.head.id}
	switch rapid.IntRange(0, 3).Draw(r, "kind") {
	case 0:
		n.install = true
	case 1:
	default:
		if m.head.id != "" {
			n.parent = &content{m.head.content.pageSize, m.head.content.pages}
		}
	}
	return n
}

func (m *model) publish(r *rapid.T, n snap) {
	n.index, n.term = rapid.Uint64Range(0, 9).Draw(r, "index"), rapid.Uint64Range(0, 3).Draw(r, "term")
	id, err := publish(m.s, n)
	if err != nil {
		r.Fatal(err)
	}
	if m.used[id] {
		r.Fatalf("id %s was used before", id)
	}
	m.become(published{id, n.content})
}

func (m *model) image(r *rapid.T) {
	m.publish(r, snap{content: m.content(r), head: m.head.id})
}

func (m *model) delta(r *rapid.T) {
	if m.head.id == "" {
		r.Skip("no head")
	}
	parent := m.head.content
	m.publish(r, snap{content: m.content(r), parent: &parent, head: m.head.id})
}

func (m *model) install(r *rapid.T) {
	m.publish(r, snap{content: m.content(r), install: true})
}

// stale offers a delta or an image that was taken against another snapshot than the head.
func (m *model) stale(r *rapid.T) {
	id := rapid.SampledFrom(append(slices.Sorted(maps.Keys(m.known)), "0-0-0")).Draw(r, "head")
	if id == m.head.id {
		id = "0-0-0"
	}
	n := snap{content: m.content(r), head: id}
	if rapid.Bool().Draw(r, "delta") {
		parent := m.known[id].content
		n.parent = &parent
	}
	if _, err := publish(m.s, n); !errors.Is(err, ErrStaleHead) && !errors.Is(err, ErrNotImage) {
		r.Fatalf("publish upon %q with head %q = %v; want %v", id, m.head.id, err, ErrStaleHead)
	}
}

// cancel writes a part of a stream, or all of it, and gives it up.
func (m *model) cancel(r *rapid.T) {
	k, err := m.s.Create(1, 1, 1, testConfiguration, 1, nil)
	if err != nil {
		r.Fatal(err)
	}
	var stream bytes.Buffer
	_ = WriteStream(&stream, m.content(r).image())
	_, err = k.Write(stream.Bytes()[:rapid.IntRange(0, stream.Len()).Draw(r, "bytes")])
	if err = errors.Join(err, k.Cancel()); err != nil {
		r.Fatal(err)
	}
}

func (m *model) compact(r *rapid.T) {
	if err := m.s.Compact(context.Background()); err != nil {
		r.Fatal(err)
	}
}

func (m *model) merge(r *rapid.T) {
	if err := m.s.compact(context.Background(), m.anyMerge(r)); err != nil {
		r.Fatal(err)
	}
}

// anyMerge draws where merging begins.
func (m *model) anyMerge(r *rapid.T) func([]link) []*rewriting {
	from := rapid.IntRange(1, 5).Draw(r, "from")
	return func(chain []link) []*rewriting {
		if len(chain) < from+2 {
			return nil
		}
		return []*rewriting{{chain: chain, from: from}}
	}
}

// fail publishes or compacts while an operation of the disk fails. If that leaves open what is on
// the disk, the store is started anew.
func (m *model) fail(r *rapid.T) {
	m.disk.FailAt(rapid.IntRange(0, 40).Draw(r, "operations"),
		rapid.SampledFrom([]error{syscall.ENOSPC, syscall.EIO, syscall.EACCES}).Draw(r, "error"),
		rapid.Bool().Draw(r, "sticky"))
	allowed := []published{m.head}
	var err error
	switch rapid.IntRange(0, 3).Draw(r, "act") {
	case 0:
		err = m.s.Compact(context.Background())
	case 1:
		err = m.s.compact(context.Background(), m.anyMerge(r))
	default:
		var p published
		if p, err = m.try(r, m.snap(r)); err == nil {
			m.become(p)
			allowed = []published{p}
		} else if errors.Is(err, vfs.ErrUncertain) && p.id != "" {
			allowed = append(allowed, p)
		}
	}
	synctest.Wait()
	failed := m.disk.Failed() > 0
	m.disk.FailAt(-1, nil, false)
	if err != nil && !failed {
		r.Fatal(err)
	}
	if m.s.Stats().Failed != "" {
		m.finishAll(r)
		m.restart(r, allowed)
	}
}

// try publishes n, or else says what it would have become.
func (m *model) try(r *rapid.T, n snap) (published, error) {
	k, err := sinkFor(m.s, n)
	if err != nil {
		return published{}, err
	}
	return published{k.ID(), n.content}, k.Close()
}

// beginRead opens any snapshot and reads a part of it.
func (m *model) beginRead(r *rapid.T) {
	if len(m.known) == 0 || len(m.reads) > 3 {
		r.Skip("nothing to read")
	}
	id := rapid.SampledFrom(slices.Sorted(maps.Keys(m.known))).Draw(r, "id")
	var want bytes.Buffer
	if err := WriteStream(&want, m.known[id].content.image()); err != nil {
		r.Fatal(err)
	}
	_, rc, err := m.s.Open(id)
	if errors.Is(err, ErrNotFound) && !m.promised(id) {
		return
	}
	if err != nil {
		r.Fatal(err)
	}
	p := &partRead{rc: rc, id: id, want: want.Bytes()}
	p.got = make([]byte, rapid.IntRange(0, len(p.want)).Draw(r, "bytes"))
	if _, err := io.ReadFull(rc, p.got); err != nil {
		r.Fatal(err)
	}
	m.reads = append(m.reads, p)
}

// promised reports whether the snapshot is the head or in its grace period.
func (m *model) promised(id string) bool {
	k := m.known[id]
	return k.until.IsZero() || time.Now().Before(k.until)
}

func (m *model) read(r *rapid.T) {
	if len(m.reads) == 0 {
		r.Skip("no reader")
	}
	m.finish(r, rapid.IntRange(0, len(m.reads)-1).Draw(r, "reader"))
}

// finish reads the rest.
func (m *model) finish(r *rapid.T, i int) {
	p := m.reads[i]
	m.reads = slices.Delete(m.reads, i, i+1)
	rest, err := io.ReadAll(p.rc)
	if err = errors.Join(err, p.rc.Close()); err != nil {
		r.Fatal(err)
	}
	if !bytes.Equal(append(p.got, rest...), p.want) {
		r.Fatalf("reader of %s has got other bytes", p.id)
	}
}

func (m *model) finishAll(r *rapid.T) {
	for len(m.reads) > 0 {
		m.finish(r, 0)
	}
}

// wait lets time pass: none to speak of, a grace period, or more than that.
func (m *model) wait(r *rapid.T) {
	time.Sleep(rapid.SampledFrom([]time.Duration{1, time.Second, retryAfter, 2 * time.Hour}).Draw(r, "time"))
	synctest.Wait()
}

// reopen closes the store and opens it again. Readers stay.
func (m *model) reopen(r *rapid.T) {
	if err := m.s.Close(); err != nil {
		r.Fatal(err)
	}
	m.forget()
	m.open(r)
}

// forget drops from the model what only the grace period has kept.
func (m *model) forget() {
	maps.DeleteFunc(m.known, func(id string, _ memory) bool { return id != m.head.id })
}

// crash cuts the power at a random operation of a publication, or after it.
func (m *model) crash(r *rapid.T) {
	m.finishAll(r) // readers do not outlive the power
	n := m.snap(r)
	m.disk.CrashAfter(rapid.IntRange(0, 14).Draw(r, "operations"))
	p, err := m.try(r, n)
	allowed := []published{m.head}
	switch {
	case err == nil:
		allowed = []published{p}
	case p.id == "": // the power went, during a compaction perhaps, before there was anything to publish
	case errors.Is(err, vfs.ErrUncertain):
		allowed = append(allowed, p)
	case !errors.Is(err, crashfs.ErrPowerLost) && !errors.Is(err, ErrSyncFailed):
		r.Fatal(err)
	}
	m.restart(r, allowed)
}

// restart starts the store anew on what a crash leaves on the disk.
func (m *model) restart(r *rapid.T, allowed []published) {
	if err := m.s.Close(); err != nil {
		r.Fatal(err)
	}
	switch seed := rapid.Uint64().Draw(r, "disk"); seed % 4 {
	case 0:
		m.disk = m.disk.Kill()
	case 1:
		m.disk = m.disk.Restart()
	default:
		m.disk = m.disk.RestartRandom(seed)
	}
	s, head, err := new(world).inspect(m.disk, allowed)
	if err != nil {
		r.Fatal(err)
	}
	if err := s.Close(); err != nil {
		r.Fatal(err)
	}
	m.become(head)
	m.forget()
	m.open(r)
}

// salvage damages a file of the chain, behind the back of a closed store, and repairs the store as
// far as the log allows.
func (m *model) salvage(r *rapid.T) {
	chain := m.s.catalog.man.Chain
	if len(chain) == 0 {
		r.Skip("nothing to damage")
	}
	m.finishAll(r)
	if err := m.s.Close(); err != nil {
		r.Fatal(err)
	}
	victim := rapid.IntRange(0, len(chain)-1).Draw(r, "file")
	how := rapid.SampledFrom([]func(*world, string) error{flipBit, remove}).Draw(r, "damage")
	name := "snapshots/" + chain[victim].File
	if err := errors.Join(how(&world{fs: m.disk}, name), m.disk.SyncDir("snapshots")); err != nil {
		r.Fatal(err)
	}
	lowest := rapid.IntRange(0, len(chain)).Draw(r, "log goes on from")
	head, err := Salvage("snapshots", m.cfg, func(h Head) bool { return indexID(chain, h.ID) >= lowest })
	switch {
	case errors.Is(err, ErrDamaged) && lowest >= victim:
		if err := Discard("snapshots", m.cfg); err != nil {
			r.Fatal(err)
		}
		m.become(published{})
	case err != nil || victim == 0 || head.ID != chain[victim-1].ID:
		r.Fatalf("Salvage with file %d of %d damaged and a log from %d = %+v, %v", victim, len(chain), lowest, head, err)
	default:
		m.become(published{head.ID, m.contentOf(r, head.ID)})
	}
	m.forget()
	m.open(r)
}

// contentOf returns the content of a snapshot of the chain, which may have been forgotten.
func (m *model) contentOf(r *rapid.T, id string) content {
	if k, ok := m.known[id]; ok {
		return k.content
	}
	m.open(r)
	defer m.s.Close()
	_, rc, err := m.s.Open(id)
	if err != nil {
		r.Fatal(err)
	}
	defer rc.Close()
	c := content{pageSize: testPageSize}
	d, err := newDecoder(rc, 0)
	for err == nil {
		var unit []byte
		if unit, err = d.next(); err == nil && !d.done {
			c.pages = append(c.pages, bytes.Clone(unit[recordHeaderSize:]))
		}
	}
	if !errors.Is(err, io.EOF) {
		r.Fatal(err)
	}
	return c
}

// check compares the store with the model.
func (m *model) check(r *rapid.T) {
	synctest.Wait()
	head, ok := m.s.Head()
	list, err := m.s.List()
	if err != nil {
		r.Fatal(err)
	}
	if ok != (m.head.id != "") || head.ID != m.head.id || ok != (len(list) == 1) || ok && list[0].ID != m.head.id {
		r.Fatalf("head = %+v, list = %v; want %q", head, list, m.head.id)
	}
	for id, k := range m.known {
		err := checkContent(m.s, published{id, k.content})
		if err != nil && (m.promised(id) || !errors.Is(err, ErrNotFound)) {
			r.Fatal(fmt.Errorf("within the grace period: %w", err))
		}
	}
}

// tidy checks that in the end, when nobody needs anything else, the directory holds what MANIFEST
// names.
func (m *model) tidy(r *rapid.T) {
	m.publish(r, snap{content: m.content(r), install: true}) // replaces what a failed one has left of MANIFEST.tmp
	time.Sleep(m.cfg.Grace + 2*retryAfter)
	synctest.Wait()
	if err := checkTidy(m.disk, m.s); err != nil {
		r.Fatal(err)
	}
}
