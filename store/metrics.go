package store

import (
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/hashicorp/raft"

	"rqlited/db"
	"rqlited/internal/vfs"
	"rqlited/snapshot"
)

// Metrics are the numbers about a Store, other than its counters, that monitoring asks for often.
type Metrics struct {
	FSMIndex uint64 // newest entry that was applied
	DiskFree int64  // bytes of the disk that holds the data directory; negative if it cannot be told

	Raft      RaftMetrics
	Log       LogMetrics
	Snapshots snapshot.Stats
	Database  db.Metrics
}

// RaftMetrics describe consensus as this node sees it.
type RaftMetrics struct {
	State             string // Leader, Follower, Candidate or Shutdown
	LeaderKnown       bool
	Voter             bool
	Voters, NonVoters int // members of the cluster

	Term, CommitIndex, AppliedIndex, LastIndex uint64

	FSMPending uint64 // committed entries that wait to be applied

	// LastContact is how long ago the leader was heard of: 0 on the leader, negative if never.
	LastContact time.Duration
}

// LogMetrics describe raft.db.
type LogMetrics struct {
	Size      int64 // bytes
	Writes    int64
	WriteTime time.Duration // of these, in all; the wait for the disk included
}

// Metrics waits for no request, no other node and nothing that holds up the database. It costs some
// looks at the file system, and walks no directory.
func (s *Store) Metrics() Metrics {
	m := Metrics{
		FSMIndex:  s.fsm.progress.index(),
		DiskFree:  -1,
		Raft:      s.raftMetrics(),
		Snapshots: s.snaps.Stats(),
		Database:  s.db.Metrics(),
	}
	if free, err := vfs.Free(s.cfg.fs, s.cfg.Dir); err == nil {
		m.DiskFree = free
	}
	tx := s.logs.bolt.Stats().TxStats
	m.Log = LogMetrics{Writes: tx.GetWrite(), WriteTime: tx.GetWriteTime()}
	if info, err := os.Stat(filepath.Join(s.cfg.Dir, logFile)); err == nil {
		m.Log.Size = info.Size()
	}
	return m
}

func (s *Store) raftMetrics() RaftMetrics {
	r := s.raft
	state := r.State()
	_, known := s.Leader()
	m := RaftMetrics{
		State:        state.String(),
		LeaderKnown:  known,
		Voter:        s.Voter(),
		Term:         r.CurrentTerm(),
		CommitIndex:  r.CommitIndex(),
		AppliedIndex: r.AppliedIndex(),
		LastIndex:    r.LastIndex(),
	}
	m.FSMPending, _ = strconv.ParseUint(r.Stats()["fsm_pending"], 10, 64) // nobody else tells
	servers, _ := s.Servers()                                             // answered from memory
	for _, sv := range servers {
		if sv.Voter {
			m.Voters++
		} else {
			m.NonVoters++
		}
	}
	switch last := r.LastContact(); {
	case state == raft.Leader:
	case last.IsZero():
		m.LastContact = -1
	default:
		m.LastContact = time.Since(last)
	}
	return m
}
