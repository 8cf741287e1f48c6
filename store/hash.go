package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"rqlited/db"
)

const (
	// marksKept is how many marks a node remembers the hashes of. The leader asks for the newest.
	marksKept = 16

	// hashPatience is how long captures are refused for the sake of a hash. One that is cut short
	// after that keeps what it has read, so that tries of this length come to an end.
	hashPatience = 10 * time.Second

	// cutForCapture and cutForMark bound the wait for the end of a hash that is being cut short. It
	// looks about before it reads a page.
	cutForCapture = time.Second
	cutForMark    = 50 * time.Millisecond
)

var (
	// errHashing means that a capture was refused because a hash is being computed.
	errHashing = fmt.Errorf("%w: the state of the database is being hashed", db.ErrBusy)

	// errHashCut ends a hash that was in the way of something that can't wait, or not any longer.
	errHashCut = fmt.Errorf("%w: a snapshot, or another hash, goes first", ErrBusy)
)

// HashVersion numbers the definition of the state hash. A change of db's definition of it must raise this: hashes of two
// definitions differ though the databases are equal.
const HashVersion = 1

// StateHash is the hash of the whole database behind the log entry Index. Entries of Raft's own change
// nothing: they count once it is certain that no command is on its way, so that nodes at rest agree.
type StateHash struct {
	Index uint64 `json:"index"`
	Hash  string `json:"hash"`
}

// HashPeers asks other nodes for their HashAt.
type HashPeers interface {
	// HashAt fails with ErrHashVersion if the node computes hashes by another definition.
	HashAt(ctx context.Context, addr string, index uint64) (StateHash, error)
}

// Hash returns the hash of this node's database as it is now, or a moment later. Callers that come
// while one is being computed share the next. It fails with ErrNotOpen, with ErrNotReady if
// this node has failed or does not have all that it once had, and with the cause of the end of ctx;
// other errors are those of the disk.
func (s *Store) Hash(ctx context.Context) (StateHash, error) {
	if !s.gate.enter() {
		return StateHash{}, ErrNotOpen
	}
	defer s.gate.leave()
	for {
		if err := s.hashable(); err != nil {
			return StateHash{}, err
		}
		h, err := s.waitHash(ctx, s.fsm.hashes.asked.join())
		if !errors.Is(err, errHashCut) {
			return h, err
		}
		// The next goes on from there.
	}
}

// HashAt returns the hash of this node's database at the mark of that index. It waits until the mark
// has been applied here and its hash is known. It fails with ErrNoHash if there is none to wait for,
// and otherwise as Hash does.
func (s *Store) HashAt(ctx context.Context, index uint64) (StateHash, error) {
	if !s.gate.enter() {
		return StateHash{}, ErrNotOpen
	}
	defer s.gate.leave()
	if err := s.hashable(); err != nil {
		return StateHash{}, err
	}
	if err := s.fsm.progress.wait(ctx, index); err != nil {
		return StateHash{}, err
	}
	r := s.fsm.hashes.at(index)
	if r == nil {
		return StateHash{}, fmt.Errorf("%w: index %d", ErrNoHash, index)
	}
	h, err := s.waitHash(ctx, r)
	if errors.Is(err, ErrBusy) {
		err = fmt.Errorf("%w: index %d: %w", ErrNoHash, index, err)
	}
	return h, err
}

func (s *Store) waitHash(ctx context.Context, r *round[StateHash]) (StateHash, error) {
	select {
	case <-r.done:
		return r.value, r.err
	case <-ctx.Done():
		return StateHash{}, context.Cause(ctx)
	case <-s.closing:
		return StateHash{}, ErrNotOpen
	}
}

// hashable returns why the database of this node is not worth a hash, or nil.
func (s *Store) hashable() error {
	if err := s.failure.get(); err != nil {
		return fmt.Errorf("%w: %w", ErrNotReady, err)
	}
	if s.fsm.restoring.Load() {
		return fmt.Errorf("%w: a snapshot is being restored", ErrNotReady)
	}
	return s.whole()
}

// runHashes computes hashes, one after the other.
func (s *Store) runHashes(ctx context.Context) error {
	h := s.fsm.hashes
	for {
		select {
		case <-ctx.Done():
			return nil
		case run := <-h.pending:
			h.sum(ctx, run)
		case <-h.asked.kick:
			if r := h.asked.begin(); r != nil {
				s.hashNow(ctx, r)
			}
		}
	}
}

// hashNow computes the hash of the newest state. Its callers are bounded by contexts of their own.
func (s *Store) hashNow(ctx context.Context, r *round[StateHash]) {
	for {
		run, err := s.pin(ctx, r)
		if err == nil {
			s.fsm.hashes.sum(ctx, run)
			return
		}
		if !errors.Is(err, db.ErrBusy) {
			r.end(StateHash{}, err)
			return
		}
		select { // a mark has come in between
		case mark := <-s.fsm.hashes.pending:
			s.fsm.hashes.sum(ctx, mark)
		case <-ctx.Done():
			r.end(StateHash{}, ErrNotOpen)
			return
		}
	}
}

// hashes are the state hashes of this node. One is computed at a time.
type hashes struct {
	asked rounds[StateHash] // for those who want to know the state of now

	// pending is a mark whose state is pinned. There is never a second one: db pins one state at
	// a time, and what is taken from here is summed.
	pending chan *hashRun

	// replayed is where the log ended when the node was started. The leader that set a mark up to
	// there has asked for it before, if at all, and is not kept waiting by a start that has to
	// hash old states. Immutable.
	replayed uint64

	current atomic.Pointer[hashRun] // under way; nil if there is none
	newest  atomic.Pointer[hashed]  // that is known; nil if there is none

	inWay   *hashRun  // kept a capture waiting; FSM goroutine only
	refused time.Time // when a capture was refused first, since the last that was not; FSM goroutine only

	mu    sync.Mutex
	marks []mark // the newest, in the order of the log; guarded by mu
}

// mark is an entry at which every node hashes its state.
type mark struct {
	index uint64
	round *round[StateHash]
}

// hashed is a hash, and when it became known by this node's clock.
type hashed struct {
	StateHash
	at time.Time
}

// hashRun is a hash under way: a pinned state.
type hashRun struct {
	*db.Hash
	index uint64
	round *round[StateHash]
	mark  bool          // FSM goroutine only
	cut   chan struct{} // closed to end it
	once  sync.Once     // closes cut
	ended chan struct{} // closed when the state is no longer pinned
}

func newHashes(replayed uint64) *hashes {
	return &hashes{asked: newRounds[StateHash](), pending: make(chan *hashRun, 1), replayed: replayed}
}

// pin begins a hash between two entries.
func (s *Store) pin(ctx context.Context, r *round[StateHash]) (*hashRun, error) {
	if err := s.fsm.turn.await(ctx); err != nil {
		return nil, ErrNotOpen
	}
	defer s.fsm.turn.give()
	if err := s.failure.get(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotReady, err)
	}
	return s.fsm.hashes.begin(s.db, s.stateIndex(), r)
}

// stateIndex returns the index of the newest entry that the database contains, be it one of Raft's own,
// as far as that can be told: all members that are at rest return the same. The caller has the turn.
func (s *Store) stateIndex() uint64 {
	passed := s.raft.AppliedIndex() // commands up to here may still be on their way to the state machine
	index := s.fsm.progress.index()
	if s.logs.lastCommand.Load() <= index {
		return max(index, passed)
	}
	return index
}

// begin pins the state, which is that at index. The caller has the turn.
func (h *hashes) begin(d *db.DB, index uint64, r *round[StateHash]) (*hashRun, error) {
	state, err := d.BeginHash()
	if err != nil {
		return nil, err
	}
	run := &hashRun{Hash: state, index: index, round: r, cut: make(chan struct{}), ended: make(chan struct{})}
	h.current.Store(run)
	return run, nil
}

// set is called where a mark stands in the log. A hash of just any state has to make room for it, which
// takes a moment; but if that of another mark is under way, this one can't be had.
func (h *hashes) set(d *db.DB, index uint64) {
	if index <= h.replayed {
		return
	}
	m := mark{index, newRound[StateHash]()}
	if now := h.current.Load(); now != nil && !now.mark {
		now.stop(cutForMark)
	}
	run, err := h.begin(d, index, m.round)
	switch {
	case errors.Is(err, db.ErrBusy):
		m.round.end(StateHash{}, fmt.Errorf("%w: another hash was being computed", ErrBusy))
	case err != nil:
		m.round.end(StateHash{}, err)
	default:
		run.mark = true
		h.pending <- run
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.marks = append(h.marks, m)
	if n := len(h.marks) - marksKept; n > 0 {
		h.marks = slices.Delete(h.marks, 0, n)
	}
}

// at returns what to wait for at the mark of that index, or nil.
func (h *hashes) at(index uint64) *round[StateHash] {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, m := range h.marks {
		if m.index == index {
			return m.round
		}
	}
	return nil
}

// replaced is called when the database is about to become another one: the log behind that may be
// another one too, with marks at the same indexes.
func (h *hashes) replaced() {
	h.mu.Lock()
	h.marks = nil
	h.mu.Unlock()
	if run := h.current.Load(); run != nil {
		run.stop(0)
	}
}

// sum computes a hash and tells all who wait for it.
func (h *hashes) sum(ctx context.Context, run *hashRun) {
	ctx, cancel := until(ctx, run.cut, errHashCut)
	sum, err := run.Sum(ctx)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	cancel()
	h.current.CompareAndSwap(run, nil)
	close(run.ended)
	if err != nil {
		run.round.end(StateHash{}, err)
		return
	}
	v := StateHash{run.index, sum}
	h.newest.Store(&hashed{v, time.Now()})
	run.round.end(v, nil)
}

// stop cuts a hash short, and reports whether it has ended within limit.
func (r *hashRun) stop(limit time.Duration) bool {
	r.once.Do(func() { close(r.cut) })
	if limit == 0 {
		return false
	}
	select {
	case <-r.ended:
		return true
	case <-time.After(limit):
		return false
	}
}

// capture makes a capture of the database. A hash that is in its way goes first for a while, for
// it would be over soon as a rule; and meanwhile nothing is gained by trying again, for db holds up the writes
// each time.
func (h *hashes) capture(d *db.DB, head string) (*db.Capture, error) {
	if run := h.current.Load(); run != nil && !h.refused.IsZero() {
		switch {
		case time.Since(h.refused) >= hashPatience:
			if !run.stop(cutForCapture) {
				return nil, errHashing
			}
		case run == h.inWay:
			return nil, errHashing
		}
	}
	c, err := d.Capture(head)
	if !errors.Is(err, db.ErrBusy) {
		h.inWay, h.refused = nil, time.Time{}
		return c, err
	}
	if h.inWay = h.current.Load(); h.inWay == nil {
		return nil, err
	}
	if h.refused.IsZero() {
		h.refused = time.Now()
	}
	return nil, errHashing
}

// wait returns when the hash under way has ended, or may be cut short, with the cause of the end of ctx.
func (h *hashes) wait(ctx context.Context) error {
	run := h.current.Load()
	if run == nil {
		return nil
	}
	select {
	case <-run.ended:
	case <-time.After(hashPatience):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}
