package store

import (
	"context"
	"sync/atomic"
	"time"
)

// appending says since when entries are being appended to the log, which may take long on a disk that is in trouble. Raft
// takes nothing meanwhile, but its queue does.
type appending struct {
	since atomic.Pointer[time.Time] // nil while nothing is appended
	ended signal
}

// begin notes that entries are being appended, until end is called.
func (a *appending) begin() (end func()) {
	now := time.Now()
	a.since.Store(&now)
	return func() {
		a.since.Store(nil)
		a.ended.wake()
	}
}

// awaitRoom waits while the log has been stuck for a tenth of the time that there is for a place in it, or longer. It
// fails with ErrLogBusy after that time, so that no more than what has come before that lies in Raft's queue and can't be refused.
func (s *Store) awaitRoom(ctx context.Context) error {
	limit := s.cfg.Raft.ApplyTimeout
	var late <-chan time.Time
	for {
		ended := s.logs.bolt.appending.ended.wait()
		since := s.logs.bolt.appending.since.Load()
		if since == nil || time.Since(*since) < limit/10 {
			return nil
		}
		if late == nil {
			t := time.NewTimer(limit)
			defer t.Stop()
			late = t.C
		}
		select {
		case <-ended:
		case <-late:
			return ErrLogBusy
		case <-s.closing:
			return ErrNotOpen
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
