package store

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// observe follows what Raft reports about itself.
func (s *Store) observe(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case o := <-s.observed:
			switch data := o.Data.(type) {
			case raft.LeaderObservation:
				s.counters.leaderChanges.Add(1)
				s.log.Info("leader changed", "leader", data.LeaderID, "addr", data.LeaderAddr, "here", string(data.LeaderID) == s.cfg.NodeID)
				s.lead.changed.wake()
			case raft.RaftState:
				s.lead.changed.wake()
				if s.cfg.Raft.ShutdownOnRemove && data == raft.Follower && s.removed() {
					s.fail(errRemoved)
				}
			case raft.FailedHeartbeatObservation:
				s.counters.failedHeartbeats.Add(1)
				select {
				case s.dead <- data:
				default: // the reaper is busy; the next heartbeat fails as well
				}
			}
		}
	}
}

// errRemoved ends a node that is configured to stop when it is removed.
var errRemoved = errors.New("store: this node was removed from the cluster")

// removed reports whether there is a cluster, without this node.
func (s *Store) removed() bool {
	servers := s.configuration().Servers
	return len(servers) > 0 && !slices.ContainsFunc(servers, func(sv raft.Server) bool {
		return string(sv.ID) == s.cfg.NodeID
	})
}

// heard remembers when nodes asked this leader to join. Raft goes on for a while to report failed
// heartbeats of a node that was removed, also when it is back.
type heard struct {
	mu sync.Mutex
	at map[string]time.Time // by id; guarded by mu
}

func (h *heard) from(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.at == nil {
		h.at = make(map[string]time.Time)
	}
	h.at[id] = time.Now()
}

// silence returns how long nothing was heard of the node, whose last contact Raft reports.
func (h *heard) silence(id string, contact time.Time) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	if at := h.at[id]; at.After(contact) {
		contact = at
	}
	return time.Since(contact)
}

// reapDead removes members that have been out of contact for longer than Config.Reap allows.
func (s *Store) reapDead(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case o := <-s.dead:
			if err := s.reapIfDue(ctx, o); err != nil {
				s.counters.reapsFailed.Add(1)
				s.log.Warn("dead node not removed", "node", o.PeerID, "err", err) // tried again at the next heartbeat
			}
		}
	}
}

func (s *Store) reapIfDue(ctx context.Context, o raft.FailedHeartbeatObservation) error {
	if s.raft.State() != raft.Leader {
		return nil
	}
	for _, sv := range s.configuration().Servers {
		if sv.ID != o.PeerID {
			continue
		}
		limit := s.cfg.Reap.Voter
		if sv.Suffrage != raft.Voter {
			limit = s.cfg.Reap.ReadOnly
		}
		silent := s.heard.silence(string(sv.ID), o.LastContact)
		if limit <= 0 || silent <= limit {
			return nil
		}
		s.log.Info("removing dead node", "node", sv.ID, "silent", silent)
		if err := s.remove(ctx, sv.ID); err != nil {
			return err
		}
		s.counters.reaps.Add(1)
	}
	return nil
}
