package store

import (
	"context"
	"time"

	"rqlited/command"
)

// Server is a member of the cluster.
type Server struct {
	ID    string
	Addr  string // Raft address
	Voter bool
}

// Store is one node's copy of the replicated database.
type Store struct {
	cfg Config
}

// Open opens the data directory and starts Raft.
func Open(ctx context.Context, cfg Config) (*Store, error) { panic("being written") }

// Do runs req with the consistency its Level asks for.
func (s *Store) Do(ctx context.Context, req *command.Request) (*command.Response, error) {
	panic("being written")
}

// Snapshot takes a snapshot now, keeping trailing log entries behind it; zero means as configured.
// ErrNothingNew means that there was nothing to do.
func (s *Store) Snapshot(ctx context.Context, trailing uint64) error { panic("being written") }

// Servers returns the members of the cluster, ordered by id.
func (s *Store) Servers() ([]Server, error) { panic("being written") }

// Leader returns the leader, if one is known.
func (s *Store) Leader() (Server, bool) { panic("being written") }

// IsLeader reports whether this node believes that it is the leader.
func (s *Store) IsLeader() bool { panic("being written") }

// Voter reports whether this node has a vote.
func (s *Store) Voter() bool { panic("being written") }

// HasPeers reports whether this node's configuration names any member.
func (s *Store) HasPeers() bool { panic("being written") }

// Bootstrap forms a cluster of servers.
func (s *Store) Bootstrap(ctx context.Context, servers []Server) error { panic("being written") }

// Notify counts a node that wants to form a cluster with this one.
func (s *Store) Notify(ctx context.Context, id, addr string) error { panic("being written") }

// Join adds a node to the cluster. Only the leader can.
func (s *Store) Join(ctx context.Context, id, addr string, voter bool) error { panic("being written") }

// Remove removes a node from the cluster. Only the leader can. An unknown id is no error.
func (s *Store) Remove(ctx context.Context, id string) error { panic("being written") }

// Stepdown hands leadership to the node id, or to any voter if id is empty.
func (s *Store) Stepdown(ctx context.Context, id string, wait bool) error { panic("being written") }

// CommitIndex returns the index of the last log entry that this node knows to be committed.
func (s *Store) CommitIndex() uint64 { panic("being written") }

// WaitApplied waits until the entry index is committed and applied here.
func (s *Store) WaitApplied(ctx context.Context, index uint64) error { panic("being written") }

// Ready returns nil if the node may serve requests, or the reason why not yet.
func (s *Store) Ready() error { panic("being written") }

// Wait returns when the node has to stop: nil after Close, else the reason.
func (s *Store) Wait() error { panic("being written") }

// Stats returns the "store" object of /status.
func (s *Store) Stats() (any, error) { panic("being written") }

// Counters returns the "store" map of /debug/vars.
func (s *Store) Counters() any { panic("being written") }

// NodeID returns this node's id.
func (s *Store) NodeID() string { return s.cfg.NodeID }

// Addr returns the Raft address that is told to the other nodes.
func (s *Store) Addr() string { return s.cfg.Addr }

// LastContact returns the time since the leader was last heard of.
func (s *Store) LastContact() time.Duration { panic("being written") }

// Close stops the node and closes its files.
func (s *Store) Close(ctx context.Context) error { panic("being written") }
