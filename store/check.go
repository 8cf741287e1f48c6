package store

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"rqlited/command"
)

// Bounds of the time for one check. A first hash of a large database takes longer; it goes on
// nevertheless, so that a later check finds most of it done.
const (
	minCheckTime = 5 * time.Second
	maxCheckTime = time.Minute
)

type checkCounters struct {
	checks     atomic.Int64 // in which this node had a hash to compare with
	mismatches atomic.Int64 // members that differed, each time
	unanswered atomic.Int64 // members that had no hash, each time

	lastCheck    atomic.Pointer[time.Time]
	lastMismatch atomic.Pointer[mismatch]
}

// mismatch is a replica that was not what the leader was at the same place in the log.
type mismatch struct {
	Node  string    `json:"node"`
	Addr  string    `json:"addr"`
	Index uint64    `json:"index"`
	Hash  string    `json:"hash"`
	Want  string    `json:"want"`
	Time  time.Time `json:"time"` // this node's clock
}

// watchReplicas compares the replicas every so often while this node leads.
func (s *Store) watchReplicas(ctx context.Context) error {
	if s.cfg.HashCheckInterval == 0 {
		return nil
	}
	tick := time.NewTicker(s.cfg.HashCheckInterval)
	defer tick.Stop()
	c := &comparer{Store: s, mute: make(map[string]bool)}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			c.check(ctx)
		}
	}
}

// comparer compares the replicas. It is used by one goroutine.
type comparer struct {
	*Store
	mute map[string]bool // members that had no hash when they were asked last
}

// answer is the hash of a member.
type answer struct {
	member Server
	hash   StateHash
	err    error
}

// check sets a mark, at which every node hashes its state, and compares what the members have there
// with what this node has. All of them have applied the same entries then, whatever becomes of this
// node's leadership, of snapshots and of restarts: a member either has the hash of that very state, or none.
func (c *comparer) check(ctx context.Context) {
	members := serversOf(c.configuration())
	if c.raft.State() != raft.Leader || len(members) < 2 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, min(max(c.cfg.HashCheckInterval, minCheckTime), maxCheckTime))
	defer cancel()
	resp, err := c.propose(ctx, &command.Entry{Kind: command.Noop, Hash: true})
	if err != nil {
		c.log.Debug("replicas not compared", "err", err)
		return
	}
	answers := c.ask(ctx, members, resp.Index)
	if c.raft.State() != raft.Leader || c.failure.get() != nil {
		return // what is missing is missing for that reason; who leads now will check
	}
	c.judge(resp.Index, answers)
}

// ask returns the hash of each member, this one included, at a mark.
func (c *comparer) ask(ctx context.Context, members []Server, index uint64) []answer {
	answers := make([]answer, len(members))
	var wg sync.WaitGroup
	for i, m := range members {
		wg.Go(func() {
			a := answer{member: m}
			if m.ID == c.cfg.NodeID {
				a.hash, a.err = c.HashAt(ctx, index)
			} else {
				a.hash, a.err = c.cfg.Peers.HashAt(ctx, m.Addr, index)
			}
			if a.err == nil && (a.hash.Index != index || a.hash.Hash == "") {
				a.err = fmt.Errorf("answered with the hash %q of index %d", a.hash.Hash, a.hash.Index)
			}
			answers[i] = a
		})
	}
	wg.Wait()
	return answers
}

// judge compares answers with this node's own.
func (c *comparer) judge(index uint64, answers []answer) {
	now := time.Now()
	var want string
	for _, a := range answers {
		if a.member.ID == c.cfg.NodeID {
			want = a.hash.Hash
		}
		if a.err != nil {
			c.unanswered(index, a)
		} else {
			delete(c.mute, a.member.ID)
		}
	}
	if want == "" {
		return
	}
	n := &c.counters.checkCounters
	for _, a := range answers {
		if a.err != nil || a.hash.Hash == want {
			continue
		}
		n.mismatches.Add(1)
		n.lastMismatch.Store(&mismatch{a.member.ID, a.member.Addr, index, a.hash.Hash, want, now})
		c.log.Error("replica differs", "node", a.member.ID, "addr", a.member.Addr, "index", index, "hash", a.hash.Hash, "want", want)
	}
	n.checks.Add(1)
	n.lastCheck.Store(&now)
}

// unanswered counts a member without a hash, and says so once until it has one again.
func (c *comparer) unanswered(index uint64, a answer) {
	c.counters.unanswered.Add(1)
	if c.mute[a.member.ID] {
		return
	}
	c.mute[a.member.ID] = true
	c.log.Warn("replica not compared", "node", a.member.ID, "addr", a.member.Addr, "index", index, "err", a.err)
}

// hashStats is what /status says about hashes. Nothing is computed for it.
type hashStats struct {
	Index        *uint64    `json:"index"` // of the newest hash that is known; null if none is, as Hash and Time
	Hash         *string    `json:"hash"`
	Time         *time.Time `json:"time"`
	Checks       int64      `json:"checks"`
	Mismatches   int64      `json:"mismatches"`
	Unanswered   int64      `json:"unanswered"`
	LastCheck    *time.Time `json:"last_check"`
	LastMismatch *mismatch  `json:"last_mismatch"`
}

func (s *Store) hashStats() hashStats {
	n := &s.counters.checkCounters
	st := hashStats{
		Checks: n.checks.Load(), Mismatches: n.mismatches.Load(), Unanswered: n.unanswered.Load(),
		LastCheck: n.lastCheck.Load(), LastMismatch: n.lastMismatch.Load(),
	}
	if h := s.fsm.hashes.newest.Load(); h != nil { // which does not change
		st.Index, st.Hash, st.Time = &h.Index, &h.Hash, &h.at
	}
	return st
}
