package snapshot

import (
	"sync/atomic"
	"time"
)

// counters counts what has happened since Open.
type counters struct {
	images      atomic.Int64
	deltas      atomic.Int64
	installs    atomic.Int64
	compactions atomic.Int64
	merges      atomic.Int64
	skipped     atomic.Int64
	changed     atomic.Int64
	compacted   atomic.Int64
	written     atomic.Int64
	damaged     atomic.Int64
	readers     atomic.Int64 // open now
	rewriting   atomic.Int64 // ms spent on compactions and merges
	newest      atomic.Int64 // when the head was published, in ns since 1970; 0 if there is none
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
	c.changed.Add(h.streamSize())
	c.newest.Store(time.Now().UnixNano())
}

// Stats describes a Store for people and for monitoring.
type Stats struct {
	Dir        string   `json:"dir"`
	Snapshots  []string `json:"snapshots"` // ids of the chain, oldest first
	Index      uint64   `json:"index"`     // of the head; 0 if there is none
	Term       uint64   `json:"term"`
	Size       int64    `json:"size"`             // bytes of the files of the chain
	Superseded int      `json:"superseded"`       // snapshots that are kept for the grace period
	Readers    int64    `json:"readers"`          // open now
	Failed     string   `json:"failed,omitempty"` // why nothing is published any more

	// Time is when the head was published; if that was before Open, when its newest file was written.
	Time time.Time `json:"time,omitzero"`

	Work
}

// Work counts what a Store has done since it was opened.
type Work struct {
	Images   int64 `json:"images"` // published local images
	Deltas   int64 `json:"deltas"` // published local deltas
	Installs int64 `json:"installs"`

	Compactions        int64 `json:"compactions"`         // chains rewritten in full or in part
	Merges             int64 `json:"merges"`              // the latter
	CompactionsSkipped int64 `json:"compactions_skipped"` // for want of space
	CompactionTime     int64 `json:"compaction_ms"`
	Damaged            int64 `json:"damaged"` // files found damaged

	BytesChanged   int64 `json:"bytes_changed"`   // of the snapshots published
	BytesCompacted int64 `json:"bytes_compacted"` // written by compactions and merges
	BytesWritten   int64 `json:"bytes_written"`   // in all, with what was not published, and MANIFEST
}

// Stats returns a snapshot of the counters. It never waits.
func (s *Store) Stats() Stats {
	st := Stats{
		Dir:       s.dir,
		Snapshots: []string{},
		Readers:   s.count.readers.Load(),
		Work: Work{
			Images:             s.count.images.Load(),
			Deltas:             s.count.deltas.Load(),
			Installs:           s.count.installs.Load(),
			Compactions:        s.count.compactions.Load(),
			Merges:             s.count.merges.Load(),
			CompactionsSkipped: s.count.skipped.Load(),
			CompactionTime:     s.count.rewriting.Load(),
			Damaged:            s.count.damaged.Load(),
			BytesChanged:       s.count.changed.Load(),
			BytesCompacted:     s.count.compacted.Load(),
			BytesWritten:       s.count.written.Load(),
		},
	}
	if at := s.count.newest.Load(); at != 0 {
		st.Time = time.Unix(0, at).UTC()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.catalog.man.Chain {
		l := &s.catalog.man.Chain[i]
		st.Snapshots = append(st.Snapshots, l.ID)
		st.Index, st.Term = l.Index, l.Term
	}
	st.Size = weight(s.catalog.man.Chain)
	st.Superseded = s.catalog.superseded()
	if s.failed != nil {
		st.Failed = s.failed.Error()
	}
	return st
}
