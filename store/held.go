package store

import (
	"io"
	"slices"
	"sync"
	"time"
)

const (
	// heldEntries bounds the log entries that are kept for followers that are being sent a
	// snapshot: a slow one costs some log, but does not keep it from being shortened.
	heldEntries = 8192

	// heldAfter is how long a follower that has got its snapshot may take to get what was written
	// meanwhile.
	heldAfter = 2 * time.Second
)

// held knows which snapshots are being read. Were the log behind one of them shortened, the
// follower that gets it would have to be sent the next one, and under a steady load of writes
// another one after that, for ever.
type held struct {
	mu    sync.Mutex
	holds []*hold       // guarded by mu
	sent  chan struct{} // of capacity 1: a reader has been closed; nil if nobody wants to know
}

// hold is one snapshot that is being read, or was a moment ago.
type hold struct {
	index uint64    // of the snapshot
	until time.Time // zero while it is read; guarded by held.mu
}

// heldReader is a reader of a snapshot.
type heldReader struct {
	io.ReadCloser
	held *held
	hold *hold
}

// WrappedReadCloser implements raft.ReadCloserWrapper.
func (r *heldReader) WrappedReadCloser() io.ReadCloser { return r.ReadCloser }

func (r *heldReader) Close() error {
	r.held.mu.Lock()
	if r.hold.until.IsZero() {
		r.hold.until = time.Now().Add(heldAfter)
	}
	r.held.mu.Unlock()
	select {
	case r.held.sent <- struct{}{}:
	default:
	}
	return r.ReadCloser.Close()
}

// add holds what follows the snapshot that rc reads.
func (h *held) add(rc io.ReadCloser, index uint64) *heldReader {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.expire()
	r := &heldReader{rc, h, &hold{index: index}}
	h.holds = append(h.holds, r.hold)
	return r
}

// expire needs mu.
func (h *held) expire() {
	now := time.Now()
	h.holds = slices.DeleteFunc(h.holds, func(o *hold) bool { return !o.until.IsZero() && !o.until.After(now) })
}

// limit returns how much of a log that is to be shortened up to last may go.
func (h *held) limit(last uint64) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.expire()
	most := last
	for _, o := range h.holds {
		if o.index < last && last-o.index <= heldEntries {
			most = min(most, o.index)
		}
	}
	return most
}
