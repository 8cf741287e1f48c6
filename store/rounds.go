package store

import "sync"

// rounds shares something costly among those who want it done: callers that come while a round is
// under way share the next, so that each gets what was begun after it had asked.
type rounds[T any] struct {
	mu   sync.Mutex
	next *round[T]     // guarded by mu; nil if nobody waits for one that has not begun
	kick chan struct{} // of capacity 1: there is a next
}

// round is something to wait for.
type round[T any] struct {
	done  chan struct{}
	value T     // written before done is closed
	err   error // likewise
}

func newRounds[T any]() rounds[T] { return rounds[T]{kick: make(chan struct{}, 1)} }

func newRound[T any]() *round[T] { return &round[T]{done: make(chan struct{})} }

// end tells all who wait. It is called once.
func (r *round[T]) end(value T, err error) {
	r.value, r.err = value, err
	close(r.done)
}

// join returns the next round to begin.
func (r *rounds[T]) join() *round[T] {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.next == nil {
		r.next = newRound[T]()
	}
	select {
	case r.kick <- struct{}{}:
	default:
	}
	return r.next
}

// begin returns the round that is to be run now, or nil.
func (r *rounds[T]) begin() *round[T] {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.next
	r.next = nil
	return n
}
