package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"rqlited/store"
)

// LeaveNode is the part of the store that Leave needs.
type LeaveNode interface {
	Servers() ([]store.Server, error)
	Leader() (store.Server, bool)
	Remove(ctx context.Context, id string) error
	Stepdown(ctx context.Context, id string, wait bool) error
}

// Leave removes this node from its cluster, as part of a shutdown that is meant to be for good. Of
// cfg it uses ID, JoinAs, Client and Logger. When it returns nil the cluster goes on without the
// node. A node that is alone stays what it is. Leave takes at most ten seconds.
func Leave(ctx context.Context, cfg FormConfig, n LeaveNode) error {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, leaveTimeout, errors.New("leaving the cluster took too long"))
	defer cancel()
	l := &leaver{cfg: cfg, log: cfg.Logger, node: n}
	if !l.member() {
		return nil
	}
	for attempt := 1; ; attempt++ {
		err := l.try(ctx)
		if err == nil {
			break
		}
		if attempt == leaveAttempts || ctx.Err() != nil {
			return fmt.Errorf("leave cluster: %w", err)
		}
		l.log.Warn("leave attempt did not succeed", "attempt", attempt, "err", store.Text(err))
		if err := sleep(ctx, leavePause); err != nil {
			return fmt.Errorf("leave cluster: %w", err)
		}
	}
	// The cluster has decided. That this node hears of it is not needed, but usual, and lets Raft
	// end without an election.
	for l.member() {
		if sleep(ctx, leaderPoll) != nil {
			l.log.Warn("left the cluster, but did not hear of it")
			break
		}
	}
	l.log.Info("left cluster", "id", cfg.ID)
	return nil
}

// leaver is a node that is leaving.
type leaver struct {
	cfg  FormConfig
	log  *slog.Logger
	node LeaveNode
}

// member reports whether the node is in a cluster with others.
func (l *leaver) member() bool {
	servers, err := l.node.Servers()
	return err == nil && len(servers) > 1 &&
		slices.ContainsFunc(servers, func(s store.Server) bool { return s.ID == l.cfg.ID })
}

// try has the leader remove the node. A leader first makes another the leader, so that the cluster
// is not without one after it has gone.
func (l *leaver) try(ctx context.Context) error {
	leader, err := l.leader(ctx)
	if err != nil {
		return err
	}
	if leader.ID == l.cfg.ID {
		if err := l.node.Stepdown(ctx, "", true); err != nil {
			l.log.Warn("leadership not handed over", "err", err)
			return l.node.Remove(ctx, l.cfg.ID)
		}
		if leader, err = l.leader(ctx); err != nil {
			return err
		}
		if leader.ID == l.cfg.ID {
			return l.node.Remove(ctx, l.cfg.ID)
		}
	}
	return l.cfg.Client.Remove(ctx, leader.Addr, l.cfg.ID, l.cfg.JoinAs, leaveTimeout/2)
}

// leader waits for one for a while.
func (l *leaver) leader(ctx context.Context) (store.Server, error) {
	for begun := time.Now(); ; {
		if leader, ok := l.node.Leader(); ok {
			return leader, nil
		}
		if time.Since(begun) >= waitForSuccessor {
			return store.Server{}, store.ErrNoLeader
		}
		if err := sleep(ctx, leaderPoll); err != nil {
			return store.Server{}, err
		}
	}
}
