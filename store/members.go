package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"

	"github.com/hashicorp/raft"

	"rqlited/command"
)

// Server is a member of the cluster.
type Server struct {
	ID    string
	Addr  string // Raft address
	Voter bool

	// ForeignKeys is what a node that wants to be a member says about itself. Of members it is
	// not known.
	ForeignKeys command.Setting `json:"-"`

	// Extensions, likewise, describes its SQLite extensions, in the words of ExtensionSet. Empty is not known.
	Extensions string `json:"-"`
}

// Servers returns the members of the cluster as this node knows them, ordered by id.
func (s *Store) Servers() ([]Server, error) {
	return serversOf(s.configuration()), nil
}

func (s *Store) configuration() raft.Configuration {
	if lost := s.logs.floor.Load(); lost != nil {
		return configurationOf(lost.Members) // what Raft knows is older, or nothing
	}
	f := s.raft.GetConfiguration() // answered from memory
	if f.Error() != nil {
		return raft.Configuration{}
	}
	return f.Configuration()
}

// HasPeers reports whether this node knows any member, itself included.
func (s *Store) HasPeers() bool { return len(s.configuration().Servers) > 0 }

// Voter reports whether this node has a vote.
func (s *Store) Voter() bool {
	return slices.ContainsFunc(s.configuration().Servers, func(sv raft.Server) bool {
		return string(sv.ID) == s.cfg.NodeID && sv.Suffrage == raft.Voter
	})
}

// IsLeader reports whether this node believes that it is the leader.
func (s *Store) IsLeader() bool { return s.raft.State() == raft.Leader }

// Leader returns the leader, if one is known.
func (s *Store) Leader() (Server, bool) {
	addr, id := s.raft.LeaderWithID()
	if addr == "" {
		return Server{}, false
	}
	leader := Server{ID: string(id), Addr: string(addr)}
	for _, sv := range s.configuration().Servers {
		if sv.ID == id || id == "" && sv.Address == addr {
			leader.ID, leader.Voter = string(sv.ID), sv.Suffrage == raft.Voter
		}
	}
	return leader, true
}

// Bootstrap makes servers the members of a new cluster. It fails if this node has been part of a
// cluster before.
func (s *Store) Bootstrap(ctx context.Context, servers []Server) error {
	if !s.gate.enter() {
		return ErrNotOpen
	}
	defer s.gate.leave()
	if s.logs.silent() {
		return fmt.Errorf("bootstrap cluster of %d: %w", len(servers), errSilent)
	}
	c := configurationOf(servers)
	if err := s.await(ctx, func() raft.Future { return s.raft.BootstrapCluster(c) }); err != nil {
		return fmt.Errorf("bootstrap cluster of %d: %w", len(servers), err)
	}
	s.log.Info("cluster bootstrapped", "members", len(servers))
	return nil
}

func configurationOf(servers []Server) (c raft.Configuration) {
	for _, sv := range servers {
		suffrage := raft.Voter
		if !sv.Voter {
			suffrage = raft.Nonvoter
		}
		c.Servers = append(c.Servers, raft.Server{
			Suffrage: suffrage, ID: raft.ServerID(sv.ID), Address: raft.ServerAddress(sv.Addr),
		})
	}
	return c
}

// notified collects the nodes that want to form a cluster.
type notified struct {
	mu    sync.Mutex
	addrs map[string]string // by id; guarded by mu
	done  bool              // guarded by mu: the cluster was formed, or tried to
}

// Notify counts a node that wants to form a cluster with this one. The call that completes
// Config.BootstrapExpect forms it. On a member, once a leader is known, or if nothing is expected, calls are
// ignored: whether a node may join a cluster that exists, its leader decides. It fails if the host of the
// node's address does not resolve, and with ErrForeignKeys or ErrExtensions if the node enforces foreign keys otherwise than
// this one, or has other extensions, which does not tell whose setting is to be that of the cluster.
func (s *Store) Notify(ctx context.Context, sv Server) error {
	if !s.gate.enter() {
		return ErrNotOpen
	}
	defer s.gate.leave()
	if _, known := s.Leader(); known || s.cfg.BootstrapExpect == 0 || s.HasPeers() {
		return nil
	}
	if err := s.agrees(sv, false); err != nil {
		return err
	}
	if err := resolve(ctx, sv.Addr); err != nil {
		return err
	}
	servers := s.notified.add(sv.ID, sv.Addr, s.cfg.BootstrapExpect)
	if servers == nil {
		return nil
	}
	if err := s.Bootstrap(ctx, servers); err != nil {
		// Another of the nodes may have done it; this one then hears from the leader.
		s.log.Info("cluster not bootstrapped", "err", err)
	}
	return nil
}

// add returns the members of the new cluster to the one caller that completes them.
func (n *notified) add(id, addr string, expect int) []Server {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.done {
		return nil
	}
	if n.addrs == nil {
		n.addrs = make(map[string]string)
	}
	if _, known := n.addrs[id]; !known {
		n.addrs[id] = addr
	}
	if len(n.addrs) < expect {
		return nil
	}
	n.done = true
	var servers []Server
	for id, addr := range n.addrs {
		servers = append(servers, Server{ID: id, Addr: addr, Voter: true})
	}
	return servers
}

// resolve fails if the host of addr is not known here, so that no member is added that cannot be
// reached.
func resolve(ctx context.Context, addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		host = addr
	}
	if _, err := net.DefaultResolver.LookupHost(ctx, host); err != nil {
		return fmt.Errorf("resolve %q: %w", addr, err)
	}
	return nil
}

// ForeignKeys reports whether this node was started to enforce foreign keys.
func (s *Store) ForeignKeys() bool { return s.cfg.ForeignKeys }

// agrees returns an error if sv would make something else of writes than this node does, once it led. It is
// asked for a cluster that is formed, or that is not yet.
func (s *Store) agrees(sv Server, formed bool) error {
	own := command.SettingOf(s.cfg.ForeignKeys)
	if sv.ForeignKeys != command.Unset && sv.ForeignKeys != own {
		return foreignKeysError{own, formed}
	}
	return s.sameExtensions(sv.Extensions, formed)
}

// Join adds a node to the cluster; only the leader can. A member that comes with its own id and
// address changes nothing; with its id and another address it is moved there. It fails with
// ErrNotLeader, with ErrForeignKeys if the node enforces foreign keys otherwise than this one and with
// ErrExtensions if it has other extensions, member or not, and with ErrAddrInUse if a member of another id has the address: who is right
// about that, a human has to say by removing the other.
func (s *Store) Join(ctx context.Context, sv Server) error {
	if !s.gate.enter() {
		return ErrNotOpen
	}
	defer s.gate.leave()
	if s.raft.State() != raft.Leader {
		return ErrNotLeader
	}
	if sv.ID == "" {
		return &RequestError{"node id is empty"}
	}
	if err := s.agrees(sv, true); err != nil {
		return err
	}
	if err := resolve(ctx, sv.Addr); err != nil {
		return err
	}
	id, addr := raft.ServerID(sv.ID), raft.ServerAddress(sv.Addr)
	for _, m := range s.configuration().Servers {
		switch sameID, sameAddr := m.ID == id, m.Address == addr; {
		case sameID && sameAddr:
			s.counters.joinsIgnored.Add(1)
			s.heard.from(sv.ID)
			return nil
		case sameAddr:
			return fmt.Errorf("%w: %s is that of node %q; remove that node first", ErrAddrInUse, addr, m.ID)
		case sameID:
			s.counters.removedBeforeJoins.Add(1)
			if (m.Suffrage == raft.Voter) == sv.Voter {
				continue // adding it again moves it in a single step
			}
			if err := s.change(ctx, func() raft.Future { return s.raft.RemoveServer(id, 0, s.cfg.Raft.ApplyTimeout) }); err != nil {
				return fmt.Errorf("remove node %q before it joins anew: %w", id, err)
			}
		}
	}
	err := s.change(ctx, func() raft.Future {
		if sv.Voter {
			return s.raft.AddVoter(id, addr, 0, s.cfg.Raft.ApplyTimeout)
		}
		return s.raft.AddNonvoter(id, addr, 0, s.cfg.Raft.ApplyTimeout)
	})
	if err != nil {
		return fmt.Errorf("add node %q: %w", id, err)
	}
	s.counters.joins.Add(1)
	s.heard.from(sv.ID)
	s.log.Info("node joined", "node", id, "addr", addr, "voter", sv.Voter)
	return nil
}

// Remove removes a node from the cluster; only the leader can. An unknown id is no error.
func (s *Store) Remove(ctx context.Context, id string) error {
	if !s.gate.enter() {
		return ErrNotOpen
	}
	defer s.gate.leave()
	if s.raft.State() != raft.Leader {
		return ErrNotLeader
	}
	return s.remove(ctx, raft.ServerID(id))
}

func (s *Store) remove(ctx context.Context, id raft.ServerID) error {
	known := func(sv raft.Server) bool { return sv.ID == id }
	if !slices.ContainsFunc(s.configuration().Servers, known) {
		return nil
	}
	if err := s.change(ctx, func() raft.Future { return s.raft.RemoveServer(id, 0, s.cfg.Raft.ApplyTimeout) }); err != nil {
		return fmt.Errorf("remove node %q: %w", id, err)
	}
	s.log.Info("node removed", "node", id)
	return nil
}

// change waits for a change of the membership.
func (s *Store) change(ctx context.Context, start func() raft.Future) error {
	err := s.await(ctx, start)
	if errors.Is(err, ErrLogBusy) {
		// Raft takes one change at a time, and none before the leader has committed something.
		return fmt.Errorf("%w: another change of the membership is under way", ErrBusy)
	}
	return err
}

// Stepdown hands the leadership to the voter id, or to any if id is empty. Without wait it returns
// once the hand-over has begun, and on a follower does nothing; with wait it returns when the
// leadership is gone. It fails with ErrNodeNotFound, ErrSelfStepdown, ErrNoPeer and, with wait,
// ErrNotLeader.
func (s *Store) Stepdown(ctx context.Context, id string, wait bool) error {
	if !s.gate.enter() {
		return ErrNotOpen
	}
	defer s.gate.leave()
	var target raft.Server
	voters := 0
	for _, sv := range s.configuration().Servers {
		if string(sv.ID) == id {
			target = sv
		}
		if sv.Suffrage == raft.Voter && string(sv.ID) != s.cfg.NodeID {
			voters++
		}
	}
	leader, known := s.Leader()
	switch {
	case id != "" && target.ID == "":
		return ErrNodeNotFound
	case id != "" && known && leader.ID == id:
		return ErrSelfStepdown
	case id != "" && target.Suffrage != raft.Voter:
		return &RequestError{fmt.Sprintf("node %q has no vote", id)}
	case s.raft.State() != raft.Leader && !wait:
		return nil
	case s.raft.State() != raft.Leader:
		return ErrNotLeader
	case voters == 0 && wait:
		return ErrNoPeer
	case voters == 0:
		return nil
	}
	start := func() raft.Future {
		if id == "" {
			return s.raft.LeadershipTransfer()
		}
		return s.raft.LeadershipTransferToServer(target.ID, target.Address)
	}
	s.log.Info("handing over leadership", "to", cmp.Or(id, "any voter"))
	if !wait {
		start()
		return nil
	}
	if err := s.await(ctx, start); err != nil {
		return fmt.Errorf("hand over leadership: %w", err)
	}
	return nil
}
