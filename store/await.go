package store

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"

	"github.com/hashicorp/raft"
)

// await waits for the Raft future that start returns, or for ctx, whichever comes first. Neither
// futures nor the queue before them know contexts, so an abandoned one is left to finish by itself.
func (s *Store) await(ctx context.Context, start func() raft.Future) error {
	done := make(chan error, 1)
	s.gate.hold()
	go func() {
		defer s.gate.leave()
		f := start()
		s.endWithRaft(f)
		done <- f.Error()
	}()
	select {
	case err := <-done:
		return translate(err)
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrUnknown, context.Cause(ctx))
	case <-s.closing:
		return fmt.Errorf("%w: %w", ErrUnknown, ErrNotOpen)
	}
}

// endWithRaft has f fail once Raft has ended. Raft answers what it has taken out of its queue, but not what is left in there
// then: who waits for that would do so for ever. Futures of the queue have a channel for that, which Raft leaves nil.
func (s *Store) endWithRaft(f raft.Future) {
	v := reflect.Indirect(reflect.ValueOf(f))
	if v.Kind() != reflect.Struct {
		return
	}
	if ch := v.FieldByName("ShutdownCh"); ch.IsValid() && ch.CanSet() && ch.IsNil() {
		ch.Set(reflect.ValueOf(s.raftEnded))
	}
}

// translate says in this package's words what became of something that was given to Raft.
func translate(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return ErrNotLeader
	case errors.Is(err, raft.ErrLeadershipLost):
		return ErrLeadershipLost
	case errors.Is(err, raft.ErrEnqueueTimeout):
		return ErrLogBusy
	case errors.Is(err, raft.ErrRaftShutdown):
		return fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	return err
}

// gate counts what is under way, so that Close can wait for it.
type gate struct {
	mu     sync.Mutex
	n      int           // guarded by mu
	closed bool          // guarded by mu
	idle   chan struct{} // closed when closed and n is 0
}

func newGate() *gate { return &gate{idle: make(chan struct{})} }

// enter begins something, unless the gate is closed.
func (g *gate) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.n++
	return true
}

// hold begins a part of something that has entered, or of one of the Store's own goroutines.
func (g *gate) hold() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.n++
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.n--
	g.checkIdle()
}

// close lets nothing in any more; idle is closed once all has left.
func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	g.checkIdle()
}

// checkIdle needs mu.
func (g *gate) checkIdle() {
	if !g.closed || g.n > 0 {
		return
	}
	select {
	case <-g.idle:
	default:
		close(g.idle)
	}
}
