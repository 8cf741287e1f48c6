package store

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// termRetry is the pause after a barrier that failed although this node is still the leader.
const termRetry = 20 * time.Millisecond

// leadership is what a leader has to know before it may answer reads.
type leadership struct {
	// term is the newest one whose barrier has been applied: all that earlier leaders committed
	// is in the database. Written by the leadership goroutine.
	term    atomic.Uint64
	changed signal // term, or Raft's state
}

// watchLeadership sends one barrier through the log for each term that this node leads.
func (s *Store) watchLeadership(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.raft.LeaderCh():
			s.lead.changed.wake()
			s.confirmTerm(ctx)
		case <-s.logs.held.sent:
			s.appendBehindSnapshot(ctx)
		case <-tick.C:
			if d := s.logs.voidFor(); d > 10*s.cfg.Raft.ElectionTimeout {
				// The leader that sent the snapshot is gone before it sent anything else. Raft
				// learns where the log ends only when it starts.
				s.fail(fmt.Errorf("log discarded %s ago and not replaced since: a restart is needed", d.Round(time.Second)))
			}
		}
	}
}

// appendBehindSnapshot has the log go on behind a snapshot that has been sent, although there may
// be nothing to write. Only then does a follower whose log had to be discarded know where it ends, and
// one that was ahead of the snapshot that everything up to there is committed.
func (s *Store) appendBehindSnapshot(ctx context.Context) {
	if s.raft.State() != raft.Leader {
		return
	}
	if err := s.await(ctx, func() raft.Future { return s.raft.Barrier(s.cfg.Raft.ApplyTimeout) }); err != nil {
		s.log.Debug("nothing appended behind a snapshot that was sent", "err", err)
	}
}

func (s *Store) confirmTerm(ctx context.Context) {
	defer s.lead.changed.wake()
	for ctx.Err() == nil && s.raft.State() == raft.Leader {
		term := s.raft.CurrentTerm()
		if s.lead.term.Load() == term {
			return
		}
		err := s.await(ctx, func() raft.Future { return s.raft.Barrier(s.cfg.Raft.ApplyTimeout) })
		if err == nil && s.raft.CurrentTerm() == term {
			s.lead.term.Store(term)
			return
		}
		if err != nil {
			s.log.Debug("leadership not confirmed", "term", term, "err", err)
		}
		select {
		case <-time.After(termRetry):
		case <-ctx.Done():
		}
	}
}

// leaderTerm returns the term that this node leads, once the database holds all that was committed
// before it. It fails with ErrNotLeader, ErrNotOpen or the cause of the end of ctx.
func (s *Store) leaderTerm(ctx context.Context) (uint64, error) {
	for {
		changed := s.lead.changed.wait()
		if s.raft.State() != raft.Leader {
			return 0, ErrNotLeader
		}
		if term := s.raft.CurrentTerm(); s.lead.term.Load() == term {
			return term, nil
		}
		select {
		case <-changed:
		case <-s.failure.ch:
			return 0, fmt.Errorf("%w: %w", ErrNotReady, s.failure.err)
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case <-s.closing:
			return 0, ErrNotOpen
		}
	}
}

// readIndex returns when a read of the local database sees all that was committed when readIndex
// was called.
func (s *Store) readIndex(ctx context.Context, timeout time.Duration) error {
	term, err := s.leaderTerm(ctx)
	if err != nil {
		return err
	}
	index := s.raft.CommitIndex()
	if err := s.verify(ctx); err != nil {
		return err
	}
	if s.raft.CurrentTerm() != term {
		return ErrNotLeader // the check may have been won in a term that index does not belong to
	}
	wait := &FSMTimeoutError{Index: index}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, wait)
	defer cancel()
	return s.waitFSM(ctx, index)
}

// verify returns nil if a majority has agreed, after the call, that this node is the leader.
func (s *Store) verify(ctx context.Context) error {
	r := s.rounds.join()
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-s.closing:
		return ErrNotOpen
	}
}

// runRounds checks the leadership, once for all reads that wait for it.
func (s *Store) runRounds(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.rounds.kick:
		}
		r := s.rounds.begin()
		if r == nil {
			continue
		}
		start := time.Now()
		err := s.await(ctx, func() raft.Future { return s.raft.VerifyLeader() })
		if err != nil {
			s.counters.verifiesFailed.Add(1)
			if !errors.Is(err, ErrNotOpen) {
				err = ErrNotLeader // nothing was applied; whoever leads now can answer
			}
		}
		s.counters.verifies.Add(1)
		s.counters.verifyTime.Add(time.Since(start).Milliseconds())
		r.end(struct{}{}, err)
	}
}

// waitFSM waits until the state machine has applied every command up to index, which must be
// committed.
func (s *Store) waitFSM(ctx context.Context, index uint64) error {
	target, err := s.logs.commandUpTo(index, s.fsm.progress.index())
	if err != nil {
		return err
	}
	return s.fsm.progress.wait(ctx, target)
}

// commitPoll is how often a wait for Raft looks at the commit index: Raft tells nobody when it
// learns a new one.
const commitPoll = 5 * time.Millisecond

// WaitApplied waits until the log up to index is committed and applied here. It fails with the
// cause of the end of ctx, with ErrNotOpen, or with ErrNotReady if this node applies nothing any
// more.
func (s *Store) WaitApplied(ctx context.Context, index uint64) error {
	if !s.gate.enter() {
		return ErrNotOpen
	}
	defer s.gate.leave()
	tick := time.NewTicker(commitPoll)
	defer tick.Stop()
	for s.raft.CommitIndex() < index {
		select {
		case <-tick.C:
		case <-s.failure.ch:
			return fmt.Errorf("%w: %w", ErrNotReady, s.failure.err)
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.closing:
			return ErrNotOpen
		}
	}
	return s.waitFSM(ctx, index)
}
