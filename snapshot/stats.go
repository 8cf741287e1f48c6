package snapshot

import "sync/atomic"

// counters counts what has happened since Open.
type counters struct {
	images      atomic.Int64
	deltas      atomic.Int64
	installs    atomic.Int64
	compactions atomic.Int64
	written     atomic.Int64
	readers     atomic.Int64 // open now
}

// published counts a snapshot that has been published.
func (c *counters) published(k *Sink) {
	h := k.stage.check.header
	switch {
	case !k.local:
		c.installs.Add(1)
	case h.Delta:
		c.deltas.Add(1)
	default:
		c.images.Add(1)
	}
	c.written.Add(h.streamSize())
}

// Stats describes a Store for people and for monitoring. Counters begin at zero with each Open.
type Stats struct {
	Dir        string   `json:"dir"`
	Snapshots  []string `json:"snapshots"` // ids of the chain, oldest first
	Index      uint64   `json:"index"`     // of the head; 0 if there is none
	Term       uint64   `json:"term"`
	Size       int64    `json:"size"`       // bytes of the files of the chain
	Superseded int      `json:"superseded"` // snapshots that are kept for the grace period

	Readers      int64  `json:"readers"` // open now
	Images       int64  `json:"images"`  // published local images
	Deltas       int64  `json:"deltas"`  // published local deltas
	Installs     int64  `json:"installs"`
	Compactions  int64  `json:"compactions"`
	BytesWritten int64  `json:"bytes_written"`
	Failed       string `json:"failed,omitempty"` // why nothing is published any more
}

// Stats returns a snapshot of the counters. It never waits.
func (s *Store) Stats() Stats {
	st := Stats{
		Dir:          s.dir,
		Snapshots:    []string{},
		Readers:      s.count.readers.Load(),
		Images:       s.count.images.Load(),
		Deltas:       s.count.deltas.Load(),
		Installs:     s.count.installs.Load(),
		Compactions:  s.count.compactions.Load(),
		BytesWritten: s.count.written.Load(),
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.catalog.man.Chain {
		l := &s.catalog.man.Chain[i]
		st.Snapshots = append(st.Snapshots, l.ID)
		st.Size += l.Size
		st.Index, st.Term = l.Index, l.Term
	}
	st.Superseded = len(s.catalog.retired)
	if s.failed != nil {
		st.Failed = s.failed.Error()
	}
	return st
}
