package store

import (
	"fmt"

	"github.com/hashicorp/raft"
)

// Ready returns nil if this node may serve requests, or the reason why not yet: ErrNotOpen,
// ErrNoLeader, or ErrNotReady with an explanation.
func (s *Store) Ready() error {
	select {
	case <-s.closing:
		return ErrNotOpen
	default:
	}
	if err := s.failure.get(); err != nil {
		return fmt.Errorf("%w: %w", ErrNotReady, err)
	}
	if s.fsm.restoring.Load() {
		return fmt.Errorf("%w: a snapshot is being restored", ErrNotReady)
	}
	if n := s.logs.installFailures.Load(); n > 0 {
		return fmt.Errorf("%w: %d attempts to install a snapshot from the leader have failed", ErrNotReady, n)
	}
	if s.logs.silent() {
		return fmt.Errorf("%w: %w", ErrNotReady, errSilent)
	}
	if _, known := s.Leader(); !known {
		return ErrNoLeader
	}
	if s.raft.State() == raft.Leader {
		if s.lead.term.Load() != s.raft.CurrentTerm() {
			return fmt.Errorf("%w: what earlier leaders committed is still being applied", ErrNotReady)
		}
		return nil
	}
	return s.caughtUp()
}

// caughtUp returns nil once this node, as a follower, has applied what was committed when it first
// heard of that.
func (s *Store) caughtUp() error {
	target := s.readyIndex.Load()
	if target == 0 {
		s.readyIndex.CompareAndSwap(0, s.raft.CommitIndex())
		if target = s.readyIndex.Load(); target == 0 {
			return fmt.Errorf("%w: the leader's commit index is not known yet", ErrNotReady)
		}
	}
	target = min(target, s.raft.LastIndex()) // what is behind that was never committed
	now := s.fsm.progress.index()
	if now >= target {
		return nil
	}
	command, err := s.logs.commandUpTo(target, now)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotReady, err)
	}
	if command > now && s.fsm.progress.index() < command {
		return fmt.Errorf("%w: %d of %d log entries are applied", ErrNotReady, now, target)
	}
	return nil
}
