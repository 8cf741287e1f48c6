package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/hashicorp/raft"

	"rqlited/db"
)

// Snapshot takes a snapshot now. It keeps trailing log entries behind it; 0 means as many as after
// other snapshots. It fails with ErrNothingNew if the newest snapshot has everything, with ErrBusy
// if something is in the way, and with the cause of the end of ctx, after which the snapshot may
// still come about.
func (s *Store) Snapshot(ctx context.Context, trailing uint64) error {
	if !s.gate.enter() {
		return ErrNotOpen
	}
	defer s.gate.leave()
	s.counters.userSnapshots.Add(1)
	err := s.snapshotTrailing(ctx, trailing)
	if err != nil && !errors.Is(err, ErrNothingNew) {
		s.counters.userSnapshotsFailed.Add(1)
	}
	return err
}

// snapshotTrailing is Snapshot, one at a time.
func (s *Store) snapshotTrailing(ctx context.Context, trailing uint64) error {
	select {
	case s.userSnapshot <- struct{}{}:
		defer func() { <-s.userSnapshot }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if trailing > 0 {
		if err := s.keepTrailing(trailing); err != nil {
			return err
		}
		defer func() {
			if err := s.keepTrailing(s.cfg.Snapshot.trailing()); err != nil {
				s.log.Error("trailing logs not set back", "err", err)
			}
		}()
	}
	return s.takeSnapshot(ctx)
}

// Compact puts this node's snapshots together into one file and returns how many deltas that has taken in.
// The head stays what it is. It waits for a compaction under way.
func (s *Store) Compact(ctx context.Context) (deltas int, err error) {
	if !s.gate.enter() {
		return 0, ErrNotOpen
	}
	defer s.gate.leave()
	deltas, err = s.snaps.Reap(ctx)
	return deltas, s.snaps.note("compact "+snapshotsDir, err)
}

// keepTrailing sets how many log entries are kept behind a snapshot.
func (s *Store) keepTrailing(entries uint64) error {
	if err := s.reload(func(rc *raft.ReloadableConfig) { rc.TrailingLogs = entries }); err != nil {
		return fmt.Errorf("set trailing logs: %w", err)
	}
	return nil
}

// errUncovered means that a capture was good, but that Raft did not want it: the state machine has
// not passed the newest change of the membership.
var errUncovered = fmt.Errorf("%w: wait until a change of the membership is covered", ErrBusy)

// takeSnapshot has Raft take a snapshot.
func (s *Store) takeSnapshot(ctx context.Context) error {
	err := s.snapshotBesideHash(ctx)
	if errors.Is(err, errUncovered) && s.raft.State() == raft.Leader {
		// A barrier moves the state machine past the change of the membership.
		if err = s.await(ctx, func() raft.Future { return s.raft.Barrier(s.cfg.Raft.ApplyTimeout) }); err == nil {
			err = s.snapshotBesideHash(ctx)
		}
	}
	return err
}

// snapshotBesideHash tries again when the hash that is in the way has ended, or may be cut short. Ever new
// hashes can't keep it from that for longer than hashPatience.
func (s *Store) snapshotBesideHash(ctx context.Context) error {
	begun := time.Now()
	err := s.trySnapshot(ctx)
	for errors.Is(err, errHashing) && time.Since(begun) < 3*hashPatience {
		if err := s.fsm.hashes.wait(ctx); err != nil {
			return err
		}
		err = s.trySnapshot(ctx)
	}
	return err
}

// trySnapshot asks Raft once, which passes on no more than the text of an error.
func (s *Store) trySnapshot(ctx context.Context) error {
	if err := s.db.Announce(); err != nil {
		s.log.Debug("snapshot not announced", "err", err) // the capture reports what matters
	}
	before := s.snaps.created.Load()
	err := s.await(ctx, func() raft.Future { return s.raft.Snapshot() })
	switch cause := s.fsm.captureErr.Load(); {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrNothingNewToSnapshot):
		return ErrNothingNew
	case errors.Is(err, ErrUnknown):
		return err
	case cause != nil && errors.Is(*cause, db.ErrBusy):
		return fmt.Errorf("%w: %w", ErrBusy, *cause)
	case cause != nil && *cause == nil && s.snaps.created.Load() == before:
		return errUncovered
	}
	return fmt.Errorf("take snapshot: %w", err)
}

// watchWALSize takes a snapshot when SQLite's WAL has grown over the limit.
func (s *Store) watchWALSize(ctx context.Context) error {
	if s.cfg.Snapshot.WALSize < 0 {
		return nil
	}
	// As Raft does: the nodes should not all take their snapshots at one time.
	period := s.cfg.Snapshot.Interval + rand.N(s.cfg.Snapshot.Interval)
	tick := time.NewTicker(period)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if s.db.WALSize() < s.cfg.Snapshot.WALSize {
				continue
			}
			switch err := s.takeSnapshot(ctx); {
			case err == nil:
				s.counters.walSnapshots.Add(1)
			case !errors.Is(err, ErrNothingNew):
				s.counters.walSnapshotsFailed.Add(1)
				s.log.Warn("snapshot not taken", "err", err) // tried again at the next tick
			}
		}
	}
}
