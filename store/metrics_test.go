package store

import (
	"testing"
	"time"
)

// TestMetrics compares what a leader tells with what it has done.
func TestMetrics(t *testing.T) {
	n := newSingle(t)
	n.exec(t, "CREATE TABLE foo (v TEXT)")
	before := time.Now().Add(-time.Second)
	n.snapshot(t, 0)
	m := n.Metrics()
	if r := m.Raft; r.State != "Leader" || !r.LeaderKnown || !r.Voter || r.Voters != 1 || r.NonVoters != 0 || r.LastContact != 0 ||
		r.Term == 0 || r.CommitIndex != n.CommitIndex() || r.AppliedIndex != r.CommitIndex || r.LastIndex != r.CommitIndex {
		t.Errorf("raft %+v", r)
	}
	if m.FSMIndex != m.Raft.CommitIndex || m.DiskFree <= 0 {
		t.Errorf("applied %d of %d, free %d", m.FSMIndex, m.Raft.CommitIndex, m.DiskFree)
	}
	if s := m.Snapshots; s.Index != m.FSMIndex || len(s.Snapshots) != 1 || s.Time.Before(before) || s.Time.After(time.Now()) {
		t.Errorf("snapshots %+v", s)
	}
	if l := m.Log; l.Size == 0 || l.Writes == 0 || l.WriteTime == 0 {
		t.Errorf("log %+v", l)
	}
	if c := n.Counters(); c["num_proposals"] != 1 || c["num_proposals_failed"] != 0 || c["proposal_duration_us"] == 0 || c["fsm_applies"] < 1 {
		t.Errorf("counters %v", c)
	}
	if c := n.SnapshotCounters(); c["sink_full_total"] != 1 || c["persist_size"] != 8192 {
		t.Errorf("counters of snapshots %v", c)
	}
}

// TestMetricsNeverWait asks while the state machine and the snapshots are held by somebody else: it would
// hang.
func TestMetricsNeverWait(t *testing.T) {
	n := newSingle(t)
	n.exec(t, "CREATE TABLE foo (v TEXT)")
	n.fsm.turn.take()
	defer n.fsm.turn.give()
	n.snaps.turn.Lock()
	defer n.snaps.turn.Unlock()
	n.settings.Lock()
	defer n.settings.Unlock()
	if m := n.Metrics(); m.Raft.State != "Leader" || n.Counters()["num_proposals"] != 1 || n.SnapshotCounters()["sink_full_total"] != 0 || n.DatabaseCounters()["executions"] != 1 {
		t.Errorf("metrics %+v", m)
	}
}

// TestEntryCounters proposes entries that are worth compressing, and not.
func TestEntryCounters(t *testing.T) {
	n := newSingle(t)
	n.exec(t, "CREATE TABLE foo (v TEXT)")
	long := make([]byte, 10000)
	for i := range long {
		long[i] = 'a'
	}
	n.exec(t, "INSERT INTO foo VALUES('"+string(long)+"')")
	c := n.EntryCounters()
	if c["num_requests"] != 2 || c["num_compressed_requests"] != 1 || c["num_uncompressed_requests"] != 1 || c["num_compression_misses"] != 0 ||
		c["num_precompressed_bytes"] < 10000 || c["num_compressed_bytes"] > 1000 || c["num_uncompressed_bytes"] == 0 {
		t.Errorf("counters %v", c)
	}
}
