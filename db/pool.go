package db

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// pool hands out connections that only read.
type pool struct {
	path  string
	cfg   Config
	role  role
	shim  shim
	slots chan struct{} // one element for each connection in use

	// opening is held for reading while a connection is opened, and for writing while the files
	// under the path are exchanged.
	opening sync.RWMutex

	mu         sync.Mutex
	idle       []*pooled            // guarded by mu; the last one used is the first to be used again
	busy       map[*pooled]struct{} // guarded by mu
	generation int                  // guarded by mu; of the files
	closed     bool                 // guarded by mu
	gate       gate                 // guarded by mu
	waiting    int                  // guarded by mu; calls of get that wait for a slot
	waits      int64                // guarded by mu; calls of get that had to wait
	waited     time.Duration        // guarded by mu
}

// gate keeps reads from beginning.
type gate struct {
	inside  int           // reads that have passed and not ended
	opens   chan struct{} // closed when reads may begin again; nil if they may
	drained chan struct{} // closed when nobody is inside; nil if nobody waits for that
}

type pooled struct {
	*conn
	generation int
}

func newPool(path string, cfg Config, r role, v shim, size int) *pool {
	return &pool{path: path, cfg: cfg, role: r, shim: v, slots: make(chan struct{}, size), busy: make(map[*pooled]struct{})}
}

// get returns a connection, which the caller gives back with put.
func (p *pool) get(ctx context.Context) (*pooled, error) {
	if err := p.slot(ctx); err != nil {
		return nil, err
	}
	if err := p.enter(ctx); err != nil {
		<-p.slots
		return nil, err
	}
	c, err := p.take()
	if err != nil {
		p.leave()
		<-p.slots
	}
	return c, err
}

func (p *pool) slot(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case p.slots <- struct{}{}:
		return nil
	default:
	}
	p.mu.Lock()
	full := p.waiting >= p.cfg.MaxWaiting
	if !full {
		p.waiting++
	}
	p.mu.Unlock()
	if full {
		return &OverloadError{fmt.Sprintf("%d reads are under way, and %d more are waiting", cap(p.slots), p.cfg.MaxWaiting)}
	}
	defer func() {
		p.mu.Lock()
		p.waiting--
		p.mu.Unlock()
	}()
	late := &OverloadError{fmt.Sprintf("%d reads are under way, and none has made room for another within %s", cap(p.slots), p.cfg.MaxWait)}
	limited, cancel := context.WithTimeoutCause(ctx, p.cfg.MaxWait, late)
	defer cancel()
	err := p.wait(limited, p.slots, nil)
	if err != nil && context.Cause(limited) == late {
		return late
	}
	return err
}

// enter waits until reads may begin.
func (p *pool) enter(ctx context.Context) error {
	for {
		p.mu.Lock()
		opens := p.gate.opens
		if opens == nil {
			p.gate.inside++
		}
		p.mu.Unlock()
		if opens == nil {
			return nil
		}
		if err := p.wait(ctx, nil, opens); err != nil {
			return err
		}
	}
}

func (p *pool) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gate.inside--
	if p.gate.inside == 0 && p.gate.drained != nil {
		close(p.gate.drained)
		p.gate.drained = nil
	}
}

// hold lets no read begin until letGo is called, and returns when those under way have ended, but
// after the given time at the latest.
func (p *pool) hold(limit time.Duration) {
	drained := make(chan struct{})
	p.mu.Lock()
	p.gate.opens = make(chan struct{})
	if p.gate.inside == 0 {
		close(drained)
	} else {
		p.gate.drained = drained
	}
	p.mu.Unlock()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-drained:
	case <-timer.C:
	}
}

func (p *pool) letGo() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.gate.opens)
	p.gate.opens, p.gate.drained = nil, nil
}

// wait waits for a place in slots or for opens to be closed; one of them is nil.
func (p *pool) wait(ctx context.Context, slots chan<- struct{}, opens <-chan struct{}) error {
	start := time.Now()
	defer func() {
		p.mu.Lock()
		p.waits++
		p.waited += time.Since(start)
		p.mu.Unlock()
	}()
	select {
	case slots <- struct{}{}:
		return nil
	case <-opens:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// take returns an idle connection or a new one. The caller has a slot.
func (p *pool) take() (*pooled, error) {
	p.opening.RLock()
	defer p.opening.RUnlock()
	c, generation, err := p.takeIdle()
	if c != nil || err != nil {
		return c, err
	}
	opened, err := openReader(p.path, p.cfg, p.role, p.shim)
	if err != nil {
		return nil, err
	}
	c = &pooled{opened, generation}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, errors.Join(ErrClosed, c.close())
	}
	p.busy[c] = struct{}{}
	return c, nil
}

func (p *pool) takeIdle() (c *pooled, generation int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, 0, ErrClosed
	}
	if n := len(p.idle); n > 0 {
		c = p.idle[n-1]
		p.idle = p.idle[:n-1]
		p.busy[c] = struct{}{}
	}
	return c, p.generation, nil
}

// openReader opens a connection that reads. It reads once, so that SQLite opens all files now.
func openReader(path string, cfg Config, r role, v shim) (*conn, error) {
	c, err := openConn(path, openReadOnly, r, v, cfg.Extensions)
	if err != nil {
		return nil, err
	}
	if err := c.exec("PRAGMA query_only=ON; PRAGMA synchronous=OFF; " + foreignKeys(cfg) + "; SELECT 1 FROM sqlite_schema LIMIT 1"); err != nil {
		return nil, errors.Join(err, c.close())
	}
	c.bounds = cfg.bounds
	return c, nil
}

// put takes a connection back. One with state of a request on it, or of replaced files, is closed.
func (p *pool) put(c *pooled) error {
	defer func() {
		p.leave()
		<-p.slots
	}()
	var err error
	if c.inTransaction() {
		err = c.exec("ROLLBACK")
	}
	c.rest()
	p.mu.Lock()
	delete(p.busy, c)
	reuse := err == nil && !c.tainted && !p.closed && c.generation == p.generation
	if reuse {
		c.resume()
		p.idle = append(p.idle, c)
	}
	p.mu.Unlock()
	if !reuse {
		err = errors.Join(err, c.close())
	}
	return err
}

// exchange calls f, which exchanges the files, while no connection is opened, and then lets no
// connection to the old files be used again. Queries under way go on with the old files.
func (p *pool) exchange(f func() error) error {
	p.opening.Lock()
	defer p.opening.Unlock()
	p.mu.Lock()
	p.generation++
	idle := p.idle
	p.idle = nil
	p.mu.Unlock()
	err := closeAll(idle)
	return errors.Join(err, f())
}

// close ends the queries and waits for them.
func (p *pool) close() error {
	p.mu.Lock()
	p.closed = true
	idle := p.idle
	p.idle = nil
	for c := range p.busy {
		c.interrupt()
	}
	p.mu.Unlock()
	for range cap(p.slots) {
		p.slots <- struct{}{} // until nobody holds one
	}
	for range cap(p.slots) {
		<-p.slots // for those that come too late, to see that
	}
	return closeAll(idle)
}

func closeAll(conns []*pooled) error {
	var errs []error
	for _, c := range conns {
		errs = append(errs, c.close())
	}
	return errors.Join(errs...)
}
