package store

import (
	"fmt"
	"sync"
)

// Watch notes, from now on until end is called, whether the write of that seed is applied here.
// Applied tells. Once an entry that was put into the log later than any attempt at the write was
// made has been applied here too, its answer is final: what does not stand before that entry in the
// log of its leader stands before it in no other, and never will. Only an attempt that has not yet
// reached any log by then, on a leader that was stopped with the call in its hands for example, could
// come after it.
//
// Applied fails with ErrUnknown if a snapshot was installed meanwhile, in which the write may be.
func (s *Store) Watch(seed uint64) (applied func() (bool, error), end func()) {
	w := s.fsm.writes.watch(seed)
	return func() (bool, error) { return s.fsm.writes.applied(w) }, func() { s.fsm.writes.end(seed) }
}

// writeRegistry holds the writes that somebody watches, by seed.
type writeRegistry struct {
	mu      sync.Mutex
	watched map[uint64]*watchedWrite // guarded by mu
}

// watchedWrite is guarded by the registry's mu.
type watchedWrite struct{ applied, missed bool }

func newWriteRegistry() *writeRegistry {
	return &writeRegistry{watched: map[uint64]*watchedWrite{}}
}

func (r *writeRegistry) watch(seed uint64) *watchedWrite {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := &watchedWrite{}
	r.watched[seed] = w
	return w
}

func (r *writeRegistry) end(seed uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.watched, seed)
}

func (r *writeRegistry) applied(w *watchedWrite) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if w.missed && !w.applied {
		return false, fmt.Errorf("%w: a snapshot has taken the place of log entries", ErrUnknown)
	}
	return w.applied, nil
}

// note says that the entry of that seed is applied.
func (r *writeRegistry) note(seed uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if w, ok := r.watched[seed]; ok {
		w.applied = true
	}
}

// miss says that entries were skipped.
func (r *writeRegistry) miss() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, w := range r.watched {
		w.missed = true
	}
}
