package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"syscall"
	"time"

	"rqlited/internal/vfs"
)

// rewriting is the replacement of the end of a chain, from the link with this index on, by one
// file. From 0 on that is a base, else a delta. Its last snapshot keeps all that makes it itself;
// the others are superseded.
type rewriting struct {
	chain     []link
	from      int
	published bool
}

func (r *rewriting) run() []link { return r.chain[r.from:] }
func (r *rewriting) head() *link { return &r.chain[len(r.chain)-1] }

// weight returns the bytes of files.
func weight(files []link) (n int64) {
	for i := range files {
		n += files[i].size()
	}
	return n
}

// due returns what should be done to the chain, the best first. It bounds what is written in all: a
// base is written when the deltas that it replaces weigh as much, and a delta is merged only once,
// unless there are thousands. The proof is in docs/design/snapshot-store.md, section 6.
func (c *Config) due(chain []link) (plans []*rewriting) {
	if c.CompactDeltas < 0 || len(chain) < 2 {
		return nil
	}
	head := &chain[len(chain)-1]
	if weight(chain[1:]) >= max(head.imageSize(), c.CompactBytes) {
		plans = append(plans, &rewriting{chain: chain})
	}
	crowded := len(chain) > crowdedDeltas
	for merges := 0; ; merges++ {
		from := len(chain)
		for from > 1 && chain[from-1].Merges <= merges {
			from--
		}
		run := len(chain) - from
		if run >= max(c.CompactDeltas, 2) && (crowded || merges == 0 && run >= from) {
			return append(plans, &rewriting{chain: chain, from: from})
		}
		if !crowded || from == 1 {
			return plans
		}
	}
}

// Compact rewrites the chain up to the head as one base. No snapshot changes its id, its index or
// its content; deltas published meanwhile stay on top. Compact does nothing if there is nothing to
// rewrite or if an install has superseded the chain meanwhile, and it waits for a compaction under
// way. An interrupted one leaves a file that the next Open deletes, and nothing else. ErrNoRoom
// means that it was not begun. If ctx ends first, Compact returns its cause.
func (s *Store) Compact(ctx context.Context) error {
	_, err := s.Reap(ctx)
	return err
}

// Reap is Compact, and returns how many deltas the base has taken in. Each of them made the snapshot before
// it one that is superseded.
func (s *Store) Reap(ctx context.Context) (deltas int, err error) {
	var whole rewriting
	err = s.compact(ctx, func(chain []link) []*rewriting {
		whole.chain = chain
		if len(chain) < 2 {
			return nil
		}
		return []*rewriting{&whole}
	})
	if err != nil || !whole.published {
		return 0, err
	}
	return len(whole.chain) - 1, nil
}

// compact does what plan makes of the chain: the first for which there is room on the disk.
func (s *Store) compact(ctx context.Context, plan func(chain []link) []*rewriting) error {
	err := s.compactAlone(ctx, plan)
	if err != nil {
		s.report(err) // now that others may compact
	}
	return err
}

func (s *Store) compactAlone(ctx context.Context, plan func(chain []link) []*rewriting) (err error) {
	select {
	case <-s.closing:
		return ErrClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	case s.compacting <- struct{}{}:
	}
	defer func() { <-s.compacting }()
	chain, release := s.pinHead()
	defer release()
	plans := plan(chain)
	for _, r := range plans {
		var copying bool
		if copying, err = s.room(r); err == nil {
			begun := time.Now()
			err = s.rewrite(ctx, r, copying)
			s.count.rewriting.Add(time.Since(begun).Milliseconds())
		}
		if !errors.Is(err, ErrNoRoom) && !errors.Is(err, syscall.ENOSPC) {
			return err
		}
	}
	return err
}

// room returns ErrNoRoom if the disk has too little space for r, and reports whether it has enough
// even if nothing can be cloned.
func (s *Store) room(r *rewriting) (copying bool, err error) {
	free, err := vfs.Free(s.fs, s.dir)
	if errors.Is(err, errors.ErrUnsupported) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	copied, cloned := weight(r.run()), weight(r.run())
	if r.from == 0 {
		copied, cloned = r.head().imageSize(), weight(r.chain[1:])
	}
	switch {
	case free >= withMargin(copied):
		return true, nil
	case r.patchable() && free >= withMargin(cloned):
		return false, nil
	}
	return false, fmt.Errorf("%w: %d bytes are free, %d are needed", ErrNoRoom, free, withMargin(copied))
}

// withMargin adds to the size of a file what has to stay free for the log and the database, which
// go on growing.
func withMargin(bytes int64) int64 { return bytes + bytes/8 + 1<<20 }

// patchable reports whether the result differs from the first file of the chain in some records
// only: record n of an image is at the same place in each, so a clone of it can be changed in place.
func (r *rewriting) patchable() bool { return r.from == 0 && r.chain[0].Pages <= r.head().Pages }

// rewrite carries r out, by copying if need be.
func (s *Store) rewrite(ctx context.Context, r *rewriting, copying bool) error {
	start := time.Now()
	g := &stage{store: s, number: s.number()}
	err := s.write(ctx, r, g, copying)
	s.count.written.Add(g.out.written)
	s.count.compacted.Add(g.out.written)
	if err == nil {
		err = s.replace(func(cur *manifest) (*manifest, error) { return r.replace(cur, g.link()) })
	}
	if err != nil {
		s.abandon(g, err)
		if errors.Is(err, errSuperseded) {
			return nil
		}
		return fmt.Errorf("compact snapshot %s: %w", r.head().ID, err)
	}
	r.published = true
	s.count.compactions.Add(1)
	if r.from > 0 {
		s.count.merges.Add(1)
	}
	s.log.Info("snapshots compacted", "snapshot", r.head().ID, "files", len(r.run()), "into", g.file,
		"bytes", g.check.header.streamSize(), "written", g.out.written, "took", time.Since(start))
	return nil
}

// write writes the result of r to g and makes it durable.
func (s *Store) write(ctx context.Context, r *rewriting, g *stage, copying bool) error {
	h := r.head().header().image()
	if r.from > 0 {
		var err error
		if h, err = s.mergedHeader(ctx, r.run()); err != nil {
			return err
		}
	}
	m, err := openMerge(s.fs, s.dir, r.run(), h)
	if err != nil {
		return err
	}
	if err = errors.Join(s.copyUnits(ctx, r, m, g, copying), m.close()); err != nil {
		return err
	}
	return g.finish()
}

// mergedHeader returns the header of the delta that run amounts to. How many pages it has shows
// only when all files have been read.
func (s *Store) mergedHeader(ctx context.Context, run []link) (Header, error) {
	h := run[len(run)-1].header()
	h.Records = 0
	m, err := openMerge(s.fs, s.dir, run, h)
	if err != nil {
		return Header{}, err
	}
	for more := true; more && err == nil; {
		if err = s.interrupted(ctx); err == nil {
			more, err = m.step()
		}
		if more {
			h.Records++
		}
	}
	if err == nil {
		err = m.finish()
	}
	return h, errors.Join(err, m.close())
}

// copyUnits passes the units of m on to g. If the disk can, g becomes a clone of the old base and
// only what differs is written.
func (s *Store) copyUnits(ctx context.Context, r *rewriting, m *merge, g *stage, copying bool) error {
	unit, err := m.next()
	if err == nil {
		err = g.put(unit) // the header, which waits in a buffer
	}
	if err == nil && r.patchable() {
		err = g.out.clone(m.sources[0].file)
	}
	if err == nil && !g.out.cloned && !copying {
		err = fmt.Errorf("%w: only for a clone, which this disk does not offer", ErrNoRoom)
	}
	for err == nil {
		if err = s.interrupted(ctx); err != nil {
			break
		}
		if unit, err = m.next(); err != nil {
			break
		}
		if g.out.cloned && m.newest == m.sources[0] {
			err = g.keep(unit)
		} else {
			err = g.put(unit)
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// interrupted returns the reason why a compaction has to end, if there is one.
func (s *Store) interrupted(ctx context.Context) error {
	select {
	case <-s.closing:
		return ErrClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	default:
		return nil
	}
}

var errSuperseded = errors.New("snapshot: chain was superseded")

// replace returns cur with the described file in the place of the run, if cur still begins with
// the chain.
func (r *rewriting) replace(cur *manifest, file link) (*manifest, error) {
	n := len(r.chain)
	if len(cur.Chain) < n || !slices.EqualFunc(cur.Chain[:n], r.chain, sameFile) {
		return nil, errSuperseded
	}
	l := *r.head()
	l.File, l.Records, l.Stream = file.File, file.Records, file.Stream
	l.Merges, l.Parent = 0, digest{}
	if r.from > 0 {
		l.Parent = r.chain[r.from-1].Snapshot
		for _, old := range r.run() {
			l.Merges = max(l.Merges, old.Merges+1)
		}
	}
	return &manifest{Chain: slices.Concat(cur.Chain[:r.from], []link{l}, cur.Chain[n:])}, nil
}

func sameFile(a, b link) bool { return a.File == b.File } // names are unique
