package snapshot

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"time"
)

// retryAfter is the pause after a compaction or a deletion that failed.
const retryAfter = 5 * time.Minute

// maintain is the store's goroutine: it deletes what nobody needs any more and compacts when that
// is due, until Close.
func (s *Store) maintain() {
	defer close(s.done)
	var retry time.Time // no compaction before
	for {
		next := s.sweep()
		if wait := time.Until(retry); wait > 0 {
			next = soonest(next, wait)
		} else if err := s.compactIfDue(); errors.Is(err, ErrClosed) {
			return
		} else if err != nil {
			retry = time.Now().Add(retryAfter)
			next = soonest(next, retryAfter)
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

// compactIfDue compacts what is due, until nothing is.
func (s *Store) compactIfDue() error {
	if err := s.usable(); err != nil {
		return nil // nothing can be published; maintain sees Close by itself
	}
	err := s.compact(context.Background(), s.cfg.due)
	switch {
	case err == nil || errors.Is(err, ErrClosed):
	case errors.Is(err, ErrNoRoom):
		s.count.skipped.Add(1)
		s.log.Warn("snapshots not compacted for want of space", "retry", retryAfter, "err", err)
	default:
		s.log.Warn("snapshots not compacted", "retry", retryAfter, "err", err)
	}
	return err
}

// sweep deletes the files that nobody needs and returns how long it is until there may be more;
// zero if that depends on others. MANIFEST has ceased to name those files, durably, before.
func (s *Store) sweep() time.Duration {
	s.mu.Lock()
	next, more := s.catalog.expire(time.Now())
	dead := s.catalog.takeDead()
	s.mu.Unlock()
	wait := time.Duration(0)
	if more {
		wait = max(time.Until(next), 1) // it may be over by now
	}
	var left []string
	var errs []error
	for _, name := range dead {
		if err := s.fs.Remove(filepath.Join(s.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			left, errs = append(left, name), append(errs, err)
		}
	}
	if len(left) > 0 {
		s.remains(left, errors.Join(errs...))
		wait = soonest(wait, retryAfter)
	}
	return wait
}

// remains says that files which nobody needs could not be deleted. Sweep will try again.
func (s *Store) remains(files []string, err error) {
	s.log.Warn("unused snapshot files not deleted", "files", files, "err", err)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.catalog.dead = append(s.catalog.dead, files...)
}
