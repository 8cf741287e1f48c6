package store

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// applied describes the newest command that the state machine has applied, or the snapshot that
// it was restored from.
type applied struct {
	index, term uint64
	at          time.Time // this node's clock
	appendedAt  time.Time // the leader's clock; zero after a restore
}

// progress is how far the state machine has come. The FSM goroutine publishes, anybody waits.
type progress struct {
	now     atomic.Pointer[applied]
	failure *latch
	closing <-chan struct{}

	mu      sync.Mutex
	waiters []waiter // guarded by mu
}

type waiter struct {
	index uint64
	ch    chan struct{}
}

func newProgress(failure *latch, closing <-chan struct{}) *progress {
	p := &progress{failure: failure, closing: closing}
	p.now.Store(&applied{})
	return p
}

func (p *progress) index() uint64 { return p.now.Load().index }

// publish makes a the newest state and wakes those who waited for it.
func (p *progress) publish(a applied) {
	p.now.Store(&a)
	p.failure.state.Store(a.index)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiters = slices.DeleteFunc(p.waiters, func(w waiter) bool {
		if w.index > a.index {
			return false
		}
		close(w.ch)
		return true
	})
}

// wait returns nil as soon as index has been applied, the cause of the end of ctx, or why it will
// not be applied any more.
func (p *progress) wait(ctx context.Context, index uint64) (err error) {
	if p.index() >= index {
		return nil
	}
	w := waiter{index, make(chan struct{})}
	p.mu.Lock()
	if p.index() >= index { // published since: nobody would wake us
		p.mu.Unlock()
		return nil
	}
	p.waiters = append(p.waiters, w)
	p.mu.Unlock()
	select {
	case <-w.ch:
		return nil
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-p.failure.ch:
		err = fmt.Errorf("%w: %w", ErrNotReady, p.failure.err)
	case <-p.closing:
		err = ErrNotOpen
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiters = slices.DeleteFunc(p.waiters, func(o waiter) bool { return o.ch == w.ch })
	return err
}
