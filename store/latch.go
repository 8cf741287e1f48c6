package store

import (
	"fmt"
	"sync"
	"sync/atomic"
)

// latch keeps the first error that ends the node, and tells whoever waits for it.
type latch struct {
	once  sync.Once
	ch    chan struct{} // closed once err is set
	err   error
	state atomic.Uint64 // index of the newest entry applied: whoever repairs the node wants to know
}

func newLatch() *latch { return &latch{ch: make(chan struct{})} }

// set keeps err, and with it the state that the node stops at, unless an earlier one is kept, and reports whether
// it does. Err says what failed and names the file, for it becomes the one line about the end of the node.
func (l *latch) set(err error) (first bool) {
	l.once.Do(func() {
		l.err = fmt.Errorf("%w (state is at index %d)", err, l.state.Load())
		close(l.ch)
		first = true
	})
	return first
}

// get returns the error kept, or nil.
func (l *latch) get() error {
	select {
	case <-l.ch:
		return l.err
	default:
		return nil
	}
}

// signal wakes all who wait for a change of something that is kept elsewhere.
type signal struct {
	mu sync.Mutex
	ch chan struct{} // guarded by mu; nil if nobody waits
}

// wait returns a channel that the next wake closes. Look at what may change after this call.
func (s *signal) wait() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch == nil {
		s.ch = make(chan struct{})
	}
	return s.ch
}

func (s *signal) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch != nil {
		close(s.ch)
		s.ch = nil
	}
}
