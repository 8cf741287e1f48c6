package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"rqlited/snapshot"
)

// heal repairs snapshots or a log that cannot be used because of damage, as far as that can be done
// without a guess, or returns the reason why it cannot. There are three ways, in this order:
//
//   - The log goes on from an older snapshot, or has been kept from its beginning: the damaged part
//     is given up, and replaying the log brings all of it back.
//   - Other members have the data: all is given up, and the node waits for the leader, silently.
//   - Nobody else has: nothing is changed, and a human has to decide.
//
// Each step can be cut off and done again by the next start.
func (s *Store) heal(damage error) (err error) {
	if err := s.closeData(); err != nil {
		return errors.Join(damage, err)
	}
	path := filepath.Join(s.cfg.Dir, logFile)
	if missing, err := logMissing(path); err != nil || missing {
		return errors.Join(damage, err)
	}
	logs, err := openLog(path, s.fail)
	if errors.Is(err, ErrLogDamaged) {
		return err // nothing in it can be relied upon, so neither can the log make up for anything
	}
	if err != nil {
		return errors.Join(damage, err)
	}
	logs.step = s.cfg.logStep
	defer func() { err = errors.Join(err, logs.bolt.Close()) }()
	known, err := logs.known()
	if err != nil {
		return errors.Join(damage, err)
	}
	if errors.Is(damage, snapshot.ErrDamaged) {
		done, err := s.salvage(logs, known, damage)
		if err != nil || done {
			return err
		}
	}
	if err := s.mayLose(known); err != nil {
		return fmt.Errorf("%w; %w", damage, err)
	}
	s.log.Warn("what this node has is damaged, and it cannot make up for that itself: starting with nothing, the leader has to send it all",
		"index", known.Index, "term", known.Term, "err", damage)
	if err := logs.loseState(known); err != nil {
		return err
	}
	s.counters.discards.Add(1)
	return snapshot.Discard(s.snapshotsDir(), s.snapshotConfig())
}

func (s *Store) snapshotsDir() string { return filepath.Join(s.cfg.Dir, snapshotsDir) }

// salvage reports whether the log makes up for what is damaged; then the snapshots are repaired.
func (s *Store) salvage(logs *logStore, known standing, damage error) (bool, error) {
	var logErr error
	head, err := snapshot.Salvage(s.snapshotsDir(), s.snapshotConfig(), func(h snapshot.Head) bool {
		ok, err := logs.leadsOn(h, known)
		logErr = errors.Join(logErr, err)
		return ok
	})
	switch {
	case logErr != nil:
		return false, errors.Join(damage, logErr)
	case err == nil:
		s.counters.salvages.Add(1)
		s.log.Warn("snapshots are damaged: starting from an older one, and from the log",
			"snapshot", head.ID, "index", head.Index, "err", damage)
		return true, nil
	case !errors.Is(err, snapshot.ErrDamaged):
		return false, errors.Join(damage, err)
	}
	if ok, err := logs.leadsOn(snapshot.Head{}, known); err != nil || !ok {
		return false, err
	}
	s.counters.salvages.Add(1)
	s.log.Warn("snapshots are damaged: starting from the log, which is complete", "err", damage)
	return true, snapshot.Discard(s.snapshotsDir(), s.snapshotConfig())
}

// mayLose returns nil if others have the data of this node.
func (s *Store) mayLose(known standing) error {
	if !known.hasOthers(s.cfg.NodeID) {
		return errors.New("no snapshot and log make up for it, and no other node is known to have the data")
	}
	// Whoever has put it there takes this node's data for what the cluster is to go on from.
	name := filepath.Join(s.cfg.Dir, raftDir, peersFile)
	if _, err := os.Stat(name); err == nil {
		return fmt.Errorf("no snapshot and log make up for it, so the cluster cannot be recovered from this node; remove %s to let it wait for a leader", name)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// errSilent is why a node that has lost its state is not ready.
var errSilent = errors.New("its data were damaged, and the leader has not sent everything yet")

// whole returns nil if the database holds what this node had when it last ran, or may have held
// then. After a loss it returns the reason why it does not, until the leader has made up for it.
func (s *Store) whole() error {
	if !s.logs.returning.Load() {
		return nil
	}
	if s.logs.silent() {
		return fmt.Errorf("%w: %w", ErrNotReady, errSilent)
	}
	if err := s.caughtUp(); err != nil {
		return err
	}
	if s.logs.returning.CompareAndSwap(true, false) {
		s.log.Info("what was lost has been replaced")
	}
	return nil
}

// endSilence is called when the log has become as good as the one that was lost. The node has a
// say again, and is ready when the entry that has achieved that is applied.
func (s *Store) endSilence(index uint64) {
	s.readyIndex.Store(index)
	s.log.Info("log is as good as the one that was lost: this node takes part in elections again", "index", index)
	if s.logs.raft.Load() != nil {
		s.speak()
	}
}

// speak gives Raft the timeouts that it is configured with.
func (s *Store) speak() {
	err := s.reload(func(rc *raft.ReloadableConfig) {
		rc.HeartbeatTimeout, rc.ElectionTimeout = s.cfg.Raft.HeartbeatTimeout, s.cfg.Raft.ElectionTimeout
	})
	if err != nil {
		s.fail(fmt.Errorf("set timeouts: %w", err))
	}
}

// reload changes settings of Raft, which replaces them all at once.
func (s *Store) reload(change func(*raft.ReloadableConfig)) error {
	s.settings.Lock()
	defer s.settings.Unlock()
	rc := s.raft.ReloadableConfig()
	change(&rc)
	return s.raft.ReloadConfig(rc)
}

// restored is called when a snapshot has been restored.
func (s *Store) restored() {
	s.logs.installFailures.Store(0)
	e := s.logs.edge.Load()
	if err := s.logs.reached(standing{Index: e.index, Term: e.term}); err != nil {
		s.fail(err)
	}
	r := s.logs.raft.Load()
	if r == nil {
		return
	}
	commit := r.CommitIndex()
	switch {
	case commit <= e.index:
	case s.logs.void():
		// The leader's cluster has been recovered without what was committed here. Raft would
		// apply nothing before the leader has passed the old commit index.
		s.fail(fmt.Errorf("the leader's snapshot ends at %d, but %d was committed here: a restart is needed", e.index, commit))
	default:
		s.readyIndex.Store(max(s.readyIndex.Load(), commit)) // the log has it, and is applied anew
	}
}

// damage is what is known about damaged files of the snapshot store while it is in use.
type damage struct {
	log   *slog.Logger
	open  atomic.Bool   // the chain is damaged: only an image can supersede it
	found chan struct{} // of capacity 1: open was set
	files atomic.Int64  // found to be damaged
}

func newDamage(log *slog.Logger) *damage {
	return &damage{log: log, found: make(chan struct{}, 1)}
}

// report is called with each published file that is found to be damaged.
func (d *damage) report(err error) {
	d.files.Add(1)
	d.open.Store(true)
	d.log.Error("snapshot is damaged and will be replaced by one of the live database", "err", err)
	select {
	case d.found <- struct{}{}:
	default:
	}
}

// mended is called when the whole chain has been superseded.
func (d *damage) mended() { d.open.Store(false) }

// watchDamage has an image taken as soon as a snapshot is found to be damaged: the live database is
// sound, and until then this node can feed no follower, nor restart.
func (s *Store) watchDamage(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.damage.found:
		}
		for ctx.Err() == nil && s.damage.open.Load() {
			if err := s.replaceDamaged(ctx); err == nil {
				s.log.Info("damaged snapshot replaced")
				break
			} else if !errors.Is(err, ErrNothingNew) { // Raft's word when it has applied nothing yet
				s.log.Warn("damaged snapshot not replaced", "err", err)
			}
			select {
			case <-ctx.Done():
			case <-time.After(min(s.cfg.Snapshot.Interval, time.Second)):
			}
		}
	}
}

func (s *Store) replaceDamaged(ctx context.Context) error {
	// There may be no quorum, for want of the very snapshot.
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Raft.ApplyTimeout)
	defer cancel()
	return s.takeSnapshot(ctx)
}
