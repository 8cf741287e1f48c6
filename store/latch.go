package store

import "sync"

// latch keeps the first error that ends the node, and tells whoever waits for it.
type latch struct {
	once sync.Once
	ch   chan struct{} // closed once err is set
	err  error
}

func newLatch() *latch { return &latch{ch: make(chan struct{})} }

// set keeps err unless an earlier one is kept, and reports whether it does.
func (l *latch) set(err error) (first bool) {
	l.once.Do(func() {
		l.err = err
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
