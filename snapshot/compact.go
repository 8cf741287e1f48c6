package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"time"
)

// compactRetry is the pause after a compaction that failed.
const compactRetry = 5 * time.Minute

// maintain is the store's goroutine: it deletes what nobody needs any more and compacts when that
// is due, until Close.
func (s *Store) maintain() {
	defer close(s.done)
	var retry time.Time // no compaction before
	for {
		next := s.sweep()
		if wait := time.Until(retry); wait > 0 {
			next = soonest(next, wait)
		} else if s.compactionDue() {
			if err := s.Compact(context.Background()); errors.Is(err, ErrClosed) {
				return
			} else if err != nil {
				s.log.Warn("snapshots not compacted", "retry", compactRetry, "err", err)
				retry = time.Now().Add(compactRetry)
				next = soonest(next, compactRetry)
			}
		}
		var timer <-chan time.Time
		if next > 0 {
			timer = time.After(next)
		}
		select {
		case <-s.closing:
			return
		case <-s.woken:
		case <-timer:
		}
	}
}

// soonest returns the shorter of two waits, of which zero means for ever.
func soonest(a, b time.Duration) time.Duration {
	if a == 0 || b > 0 && b < a {
		return b
	}
	return a
}

// sweep deletes the files that nobody needs and returns how long it is until there may be more;
// zero if that depends on others. MANIFEST has ceased to name those files, durably, before.
func (s *Store) sweep() time.Duration {
	s.mu.Lock()
	next, more := s.catalog.expire(time.Now())
	dead := s.catalog.takeDead()
	s.mu.Unlock()
	for _, name := range dead {
		if err := s.fs.Remove(filepath.Join(s.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.log.Warn("superseded snapshot file not deleted", "file", name, "err", err) // the next Open will
		}
	}
	if !more {
		return 0
	}
	return max(time.Until(next), 1) // it may be over by now
}

// compactionDue reports whether the deltas are many, or heavy in comparison with the base.
func (s *Store) compactionDue() bool {
	if s.cfg.CompactDeltas < 0 || s.usable() != nil {
		return false
	}
	s.mu.Lock()
	chain := s.catalog.man.Chain
	s.mu.Unlock()
	if len(chain) < 2 {
		return false
	}
	var bytes int64
	for _, l := range chain[1:] {
		bytes += l.Size
	}
	return len(chain) > s.cfg.CompactDeltas || bytes >= s.cfg.CompactBytes && 2*bytes >= chain[0].Size
}

// Compact rewrites the chain up to the head as one base. No snapshot changes its id, its index or
// its content; deltas published meanwhile stay on top. Compact does nothing if there is nothing to
// rewrite or if an install has superseded the chain meanwhile, and it waits for a compaction under
// way. An interrupted one leaves a file that the next Open deletes, and nothing else. If ctx ends
// first, Compact returns its cause.
func (s *Store) Compact(ctx context.Context) error {
	select {
	case <-s.closing:
		return ErrClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	case s.compacting <- struct{}{}:
	}
	defer func() { <-s.compacting }()
	head, ok := s.Head()
	if !ok {
		return nil
	}
	start := time.Now()
	chain, release, err := s.pin(head.ID)
	if err != nil {
		return nil // an install has superseded it, long ago
	}
	if len(chain) < 2 {
		release()
		return nil
	}
	g := &stage{store: s, number: s.number(), admit: func(Header) error { return nil }}
	if err := s.rewrite(ctx, chain, release, g); err != nil {
		s.abandon(g, err)
		if errors.Is(err, errSuperseded) {
			return nil
		}
		return fmt.Errorf("compact snapshot %s: %w", head.ID, err)
	}
	s.count.compactions.Add(1)
	s.count.written.Add(g.check.header.streamSize())
	s.log.Info("snapshots compacted", "snapshot", head.ID, "files", len(chain),
		"bytes", g.check.header.streamSize(), "took", time.Since(start))
	return nil
}

// rewrite copies the image of chain to g and puts that file in the place of chain. It returns
// errSuperseded if chain is not in use any more.
func (s *Store) rewrite(ctx context.Context, chain []link, release func(), g *stage) error {
	r, err := newReader(s.fs, s.dir, chain, release)
	if err != nil {
		return err
	}
	_, err = io.Copy(g, &interruptible{ctx: ctx, r: &untilClosed{closing: s.closing, r: r}})
	if err = errors.Join(err, r.Close()); err != nil {
		return err
	}
	if err := g.finish(); err != nil {
		return err
	}
	return s.replace(func(cur *manifest) (*manifest, error) {
		return compacted(cur, chain, g.link())
	})
}

var errSuperseded = errors.New("snapshot: chain was superseded")

// compacted returns cur with the file described by base in the place of chain, with which cur
// begins. The snapshot that ends chain keeps all that makes it itself.
func compacted(cur *manifest, chain []link, base link) (*manifest, error) {
	n := len(chain)
	if len(cur.Chain) < n || cur.Chain[n-1].File != chain[n-1].File {
		return nil, errSuperseded // file names are unique, so equal ends mean equal chains
	}
	l := chain[n-1]
	l.File, l.Size, l.Records, l.Stream = base.File, base.Size, base.Records, base.Stream
	return &manifest{Chain: append([]link{l}, slices.Clone(cur.Chain[n:])...)}, nil
}

// untilClosed is a reader that ends with the store.
type untilClosed struct {
	closing <-chan struct{}
	r       io.Reader
}

func (u *untilClosed) Read(p []byte) (int, error) {
	select {
	case <-u.closing:
		return 0, ErrClosed
	default:
		return u.r.Read(p)
	}
}
