package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"rqlited/command"
	"rqlited/db"
)

const (
	// upkeepLook is how long the leader waits at most until it looks again whether something is to be done that is due,
	// and upkeepRetry the pause after the first failure, which doubles with each further one up to the interval.
	upkeepLook  = time.Minute
	upkeepRetry = time.Minute

	// vacuumCopies is how many copies of the database a VACUUM needs room for: in a temporary file, in the WAL, and as the
	// snapshot that follows.
	vacuumCopies = 3
)

// Keys in the stable store. They and their values, Unix nanoseconds in 8 bytes, little-endian, are rqlite's.
var (
	keysVacuum   = upkeepKeys{base: []byte("rqlite_base_vacuum"), last: []byte("rqlite_last_vacuum")}
	keysOptimize = upkeepKeys{base: []byte("rqlite_base_optimize"), last: []byte("rqlite_last_optimize")}
)

type upkeepKeys struct{ base, last []byte }

// errNotNow means that work which is due has to wait. It is no failure.
var errNotNow = errors.New("store: a database is being loaded, or the node is not ready")

// upkeep is the work on the database that is due now and then. What it does is in entries, which the leader proposes:
// VACUUM numbers rows anew and ANALYZE writes tables, so nodes that did so each for itself would differ. Each node
// notes from the entries when it was done last, so that neither a restart nor another leader does it again too early.
type upkeep struct {
	kick    chan struct{} // of capacity 1: there is something to save
	written atomic.Uint64 // newest entry that counts as a change, upkeep excepted

	tasks [2]*task // in the order in which they are done; immutable

	mu sync.Mutex // guards what changes in tasks
}

// task is one kind of upkeep.
type task struct {
	// Immutable.
	kind     command.Upkeep
	interval time.Duration // 0: never
	keys     upkeepKeys
	count    *taskCounters

	base  time.Time // since when time counts if there is no last
	last  time.Time // when it was done last, by the clock of the leader that had it done; zero: not known
	saved [2]int64  // base and last as they are in the stable store

	done bool   // in the life of this process, or there was nothing to do
	seen uint64 // upkeep.written at that time

	notBefore time.Time     // the leader has tried, or looked, in vain
	pause     time.Duration // after the next failure; 0 if the last try has not failed
}

func newUpkeep(cfg UpkeepConfig, count *upkeepCounters) *upkeep {
	return &upkeep{kick: make(chan struct{}, 1), tasks: [2]*task{
		{kind: command.Vacuum, interval: cfg.Vacuum, keys: keysVacuum, count: &count.vacuum},
		{kind: command.Optimize, interval: cfg.Optimize, keys: keysOptimize, count: &count.optimize}, // behind VACUUM, which changes no statistics
	}}
}

func (u *upkeep) wake() {
	select {
	case u.kick <- struct{}{}:
	default:
	}
}

// applied notes that e, which is upkeep, was applied. FSM goroutine only.
func (u *upkeep) applied(e *command.Entry, resp *command.Response, took time.Duration, replayed bool) {
	for _, r := range resp.Results {
		if r.Error != "" {
			return // the leader has it done again
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, t := range u.tasks {
		if t.kind != e.Upkeep {
			continue
		}
		t.ran(e.Time, u.written.Load())
		if !replayed {
			t.count.done.Add(1)
			t.count.time.Add(took.Milliseconds())
		}
	}
	u.wake()
}

// ran notes that the task was done, or found needless, at a time and behind the entry seen.
func (t *task) ran(at time.Time, seen uint64) {
	if at.After(t.last) {
		t.last = at
	}
	t.done, t.seen = true, seen
	t.notBefore, t.pause = time.Time{}, 0
}

// replaced is called when the database has become another one, which may have been tidied up just before: time counts
// anew.
func (u *upkeep) replaced() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, t := range u.tasks {
		t.base, t.done = time.Now(), false
	}
	u.wake()
}

// next returns when the task is due. A time in the future, from before the clock was set back, counts as now.
func (t *task) next(now time.Time) time.Time {
	if t.base.After(now) {
		t.base = now
	}
	if t.last.After(now) {
		t.last = now
	}
	due := t.base
	if t.last.After(due) {
		due = t.last
	}
	if due = due.Add(t.interval); t.notBefore.After(due) {
		due = t.notBefore
	}
	return due
}

// failed sets when the task is tried again, and reports whether it is the first failure in a row.
func (t *task) failed(now time.Time) (first bool) {
	first = t.pause == 0
	t.pause = min(max(2*t.pause, upkeepRetry), t.interval)
	t.notBefore = now.Add(t.pause)
	return first
}

// openUpkeep reads from the stable store when upkeep was done last. The values of what is turned off are emptied, as in
// rqlite, so that time counts from the next start with the flag.
func (s *Store) openUpkeep() error {
	now := time.Now()
	for _, t := range s.fsm.upkeep.tasks {
		var err error
		if t.saved[0], err = s.readTime(t.keys.base); err != nil {
			return err
		}
		if t.saved[1], err = s.readTime(t.keys.last); err != nil {
			return err
		}
		if t.interval > 0 {
			t.base, t.last = timeOf(t.saved[0]), timeOf(t.saved[1])
			if t.base.IsZero() {
				t.base = now
			}
			t.next(now)
		}
	}
	return s.saveUpkeep()
}

func timeOf(nanos int64) time.Time {
	if nanos == 0 {
		return time.Time{}
	}
	return time.Unix(0, nanos)
}

func nanosOf(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// readTime returns the time under key in nanoseconds, 0 if nobody has noted one there.
func (s *Store) readTime(key []byte) (int64, error) {
	data, err := s.logs.get(key)
	if err != nil || len(data) != 8 {
		return 0, err
	}
	return int64(binary.LittleEndian.Uint64(data)), nil
}

// saveUpkeep writes what has changed to the stable store. That is never a part of applying an entry, which would wait for the
// sync: if a crash comes first the entry is applied again, unless a snapshot was faster.
func (s *Store) saveUpkeep() error {
	u := s.fsm.upkeep
	for _, t := range u.tasks {
		u.mu.Lock()
		now := [2]int64{}
		if t.interval > 0 {
			now = [2]int64{nanosOf(t.base), nanosOf(t.last)}
		}
		before := t.saved
		t.saved = now // what can't be written ends the node
		u.mu.Unlock()
		for i, key := range [][]byte{t.keys.base, t.keys.last} {
			if now[i] == before[i] {
				continue
			}
			var value []byte
			if now[i] != 0 {
				value = binary.LittleEndian.AppendUint64(nil, uint64(now[i]))
			}
			if err := s.logs.set(key, value); err != nil {
				return err
			}
		}
	}
	return nil
}

// runUpkeep has done what is due while this node leads, and saves what it has learnt about it from the log.
func (s *Store) runUpkeep(ctx context.Context) error {
	for {
		if err := s.saveUpkeep(); err != nil {
			s.logs.fail(err)
			return nil
		}
		changed := s.lead.changed.wait()
		var due <-chan time.Time
		if s.raft.State() == raft.Leader {
			if wait := s.doUpkeep(ctx); wait > 0 {
				due = time.After(wait)
			}
		}
		select {
		case <-ctx.Done():
			if err := s.saveUpkeep(); err != nil {
				s.log.Warn("time of the last upkeep not saved", "err", err)
			}
			return nil
		case <-s.fsm.upkeep.kick:
		case <-changed:
		case <-due:
		}
	}
}

// doUpkeep does what is due, and returns after which time it has to be called again; 0 is never.
func (s *Store) doUpkeep(ctx context.Context) (wait time.Duration) {
	u := s.fsm.upkeep
	for _, t := range u.tasks {
		if t.interval == 0 {
			continue
		}
		u.mu.Lock()
		left := time.Until(t.next(time.Now()))
		u.mu.Unlock()
		if left <= 0 {
			s.doTask(ctx, t)
			u.mu.Lock()
			left = time.Until(t.next(time.Now()))
			u.mu.Unlock()
		}
		left = max(left, time.Millisecond) // a little later at worst
		if wait == 0 || left < wait {
			wait = left
		}
	}
	return wait
}

// doTask does what is due, or sets when to try again.
func (s *Store) doTask(ctx context.Context, t *task) {
	begun := time.Now()
	index, err := s.tryTask(ctx, t)
	u, level := s.fsm.upkeep, slog.LevelDebug
	switch {
	case err == nil && index > 0:
		s.log.Info("automatic upkeep done", "task", t.kind.String(), "index", index, "took", time.Since(begun))
	case err == nil, errors.Is(err, errNotNow), errors.Is(err, ErrNotLeader), errors.Is(err, ErrNotOpen),
		errors.Is(err, ErrLeadershipLost), ctx.Err() != nil:
		u.mu.Lock()
		t.notBefore = time.Now().Add(min(upkeepLook, t.interval))
		u.mu.Unlock()
	default:
		t.count.failed.Add(1)
		u.mu.Lock()
		if t.failed(time.Now()) {
			level = slog.LevelWarn // said once: further tries will hardly end in another way
		}
		u.mu.Unlock()
		s.log.Log(ctx, level, "automatic upkeep failed", "task", t.kind.String(), "err", err)
	}
}

// tryTask puts the entry of a task into the log, and returns its index; 0 if there is nothing to do.
func (s *Store) tryTask(ctx context.Context, t *task) (index uint64, err error) {
	transfers := s.fsm.transfers
	if !transfers.turn.try() {
		return 0, errNotNow
	}
	defer transfers.turn.give()
	if _, err := s.leaderTerm(ctx); err != nil {
		return 0, err
	}
	if s.Ready() != nil || transfers.open.Load() > 0 || transfers.booting.Load() {
		return 0, errNotNow
	}
	statements, err := s.planTask(ctx, t)
	if err != nil || len(statements) == 0 {
		return 0, err
	}
	req := &command.Request{Kind: command.Execute}
	for _, sql := range statements {
		req.Statements = append(req.Statements, command.Statement{SQL: sql})
	}
	resp, err := s.propose(ctx, &command.Entry{
		Kind: req.Kind, Request: req, ForeignKeys: command.SettingOf(s.cfg.ForeignKeys), Extensions: inEntries(s.extensions), Upkeep: t.kind,
	})
	if err != nil {
		return 0, err
	}
	for i, r := range resp.Results {
		if r.Error != "" {
			return 0, fmt.Errorf("%s: %s", statements[i], r.Error)
		}
	}
	return resp.Index, nil
}

// planTask returns the statements that a task consists of now, none if there is nothing to do: nothing was written since it was
// done last, or SQLite finds nothing worth while.
func (s *Store) planTask(ctx context.Context, t *task) ([]string, error) {
	u := s.fsm.upkeep
	u.mu.Lock()
	idle := t.done && t.seen == u.written.Load() || s.fsm.changed.Load() == 0
	u.mu.Unlock()
	if idle {
		return nil, nil
	}
	if t.kind == command.Vacuum {
		if err := s.db.AskSpace(vacuumCopies); errors.Is(err, db.ErrNoSpace) {
			return nil, fmt.Errorf("%w: %w", ErrNoSpace, err)
		} else if err != nil {
			return nil, err
		}
		return []string{"VACUUM"}, nil
	}
	if err := s.fsm.turn.await(ctx); err != nil {
		return nil, err
	}
	statements, err := s.db.Optimize()
	seen := u.written.Load()
	s.fsm.turn.give()
	if err == nil && len(statements) == 0 {
		u.mu.Lock()
		t.ran(time.Now(), seen) // as in rqlite: to look at it is to do it
		u.mu.Unlock()
		u.wake()
	}
	return statements, err
}

// vacuumStats is "auto_vacuum" in /status, in rqlite's form.
type vacuumStats struct {
	Last *time.Time `json:"last_vacuum,omitempty"`
	Next time.Time  `json:"next_vacuum_after"`
}

func (u *upkeep) vacuumStats() vacuumStats {
	u.mu.Lock()
	defer u.mu.Unlock()
	t := u.tasks[0] // VACUUM
	since := t.base
	if t.last.After(since) {
		since = t.last
	}
	st := vacuumStats{Next: since.Add(t.interval).UTC()}
	if !t.last.IsZero() {
		last := t.last.UTC()
		st.Last = &last
	}
	return st
}
