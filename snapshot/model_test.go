package snapshot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
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
	known map[string]content // every snapshot that was ever the head
	reads []*partRead
	seeds uint64
}

// partRead is a reader that has not come to its end.
type partRead struct {
	rc   io.ReadCloser
	id   string
	got  []byte
	want []byte
}

// TestModel makes random histories and compares the store with the model after each act.
func TestModel(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		disk := newDisk()
		m := &model{disk: disk, known: map[string]content{}}
		m.cfg = Config{
			FS:            disk,
			CompactDeltas: rapid.SampledFrom([]int{-1, 2, 5}).Draw(r, "CompactDeltas"),
			Grace:         rapid.SampledFrom([]time.Duration{1, time.Hour}).Draw(r, "Grace"),
			CompactBytes:  1,
		}
		m.open(r)
		defer func() { _ = m.s.Close() }()
		r.Repeat(map[string]func(*rapid.T){
			"":        m.check,
			"image":   m.image,
			"delta":   m.delta,
			"stale":   m.stale,
			"install": m.install,
			"compact": m.compact,
			"begin":   m.beginRead,
			"read":    m.read,
			"reopen":  m.reopen,
			"crash":   m.crash,
		})
		for len(m.reads) > 0 {
			m.finish(r, 0)
		}
	})
}

func (m *model) open(r *rapid.T) {
	m.cfg.FS = m.disk
	s, err := Open("snapshots", m.cfg)
	if err != nil {
		r.Fatal(err)
	}
	m.s = s
}

// content draws a database, a variation of the head's or a new one.
func (m *model) content(r *rapid.T) content {
	m.seeds++
	return m.head.content.change(rapid.IntRange(0, 9).Draw(r, "pages"), m.seeds)
}

func (m *model) publish(r *rapid.T, n snap) {
	n.index, n.term = rapid.Uint64Range(0, 9).Draw(r, "index"), rapid.Uint64Range(0, 3).Draw(r, "term")
	id, err := publish(m.s, n)
	if err != nil {
		r.Fatal(err)
	}
	if _, ok := m.known[id]; ok {
		r.Fatalf("id %s was used before", id)
	}
	m.head = published{id, n.content}
	m.known[id] = n.content
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
	ids := []string{"", "0-0-0"}
	for id := range m.known {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	id := rapid.SampledFrom(ids).Draw(r, "head")
	if id == m.head.id {
		r.Skip("that is the head")
	}
	n := snap{content: m.content(r), head: id}
	if parent := m.known[id]; rapid.Bool().Draw(r, "delta") {
		n.parent = &parent
	}
	if _, err := publish(m.s, n); !errors.Is(err, ErrStaleHead) && !errors.Is(err, ErrNotImage) {
		r.Fatalf("publish upon %q with head %q = %v; want %v", id, m.head.id, err, ErrStaleHead)
	}
}

func (m *model) compact(r *rapid.T) {
	if err := m.s.Compact(context.Background()); err != nil {
		r.Fatal(err)
	}
}

// beginRead opens any snapshot and reads a part of it.
func (m *model) beginRead(r *rapid.T) {
	var ids []string
	for id := range m.known {
		ids = append(ids, id)
	}
	if len(ids) == 0 || len(m.reads) > 3 {
		r.Skip("nothing to read")
	}
	slices.Sort(ids)
	id := rapid.SampledFrom(ids).Draw(r, "id")
	var want bytes.Buffer
	if err := WriteStream(&want, m.known[id].image()); err != nil {
		r.Fatal(err)
	}
	_, rc, err := m.s.Open(id)
	if errors.Is(err, ErrNotFound) && id != m.head.id {
		return // superseded, and the grace period may be over
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
	m.known = map[string]content{}
	if m.head.id != "" {
		m.known[m.head.id] = m.head.content
	}
}

// crash cuts the power at a random operation of an install, or after it.
func (m *model) crash(r *rapid.T) {
	for len(m.reads) > 0 {
		m.finish(r, 0) // readers do not outlive the power
	}
	n := snap{content: m.content(r), install: true}
	m.disk.CrashAfter(rapid.IntRange(0, 14).Draw(r, "operations"))
	k, err := sinkFor(m.s, n)
	if err == nil {
		err = k.Close()
	}
	allowed := []published{m.head}
	switch {
	case err == nil:
		allowed = []published{{k.ID(), n.content}}
	case k == nil: // the power went, during a compaction perhaps, before there was anything to publish
	case errors.Is(err, vfs.ErrUncertain):
		allowed = append(allowed, published{k.ID(), n.content})
	case !errors.Is(err, crashfs.ErrPowerLost):
		r.Fatal(err)
	}
	if err := m.s.Close(); err != nil {
		r.Fatal(err)
	}
	m.disk = m.disk.RestartRandom(rapid.Uint64().Draw(r, "disk"))
	s, head, err := new(world).inspect(m.disk, allowed)
	if err != nil {
		r.Fatal(err)
	}
	if err := s.Close(); err != nil {
		r.Fatal(err)
	}
	m.head = head
	m.forget()
	m.open(r)
}

// check compares the store with the model.
func (m *model) check(r *rapid.T) {
	head, ok := m.s.Head()
	list, err := m.s.List()
	if err != nil {
		r.Fatal(err)
	}
	if ok != (m.head.id != "") || head.ID != m.head.id || ok != (len(list) == 1) || ok && list[0].ID != m.head.id {
		r.Fatalf("head = %+v, list = %v; want %q", head, list, m.head.id)
	}
	if err := checkContent(m.s, m.head); err != nil {
		r.Fatal(err)
	}
	if m.cfg.Grace > time.Minute {
		for id, want := range m.known {
			if err := checkContent(m.s, published{id, want}); err != nil {
				r.Fatal(fmt.Errorf("within the grace period: %w", err))
			}
		}
	}
}
