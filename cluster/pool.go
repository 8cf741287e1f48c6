package cluster

import (
	"context"
	"net"
	"slices"
	"time"
)

const (
	// maxIdle is how many connections to a node are kept.
	maxIdle = 64

	// maxOpen is how many may be in use; further calls wait. It is half of what a node accepts, so
	// that two nodes can flood a third without being turned away.
	maxOpen = 256

	// maxIdleTime is how long a connection is kept; nodes close theirs after minutes.
	maxIdleTime = 5 * time.Minute
)

// pool holds the connections to one node. Its fields except slots are guarded by Client.mu.
type pool struct {
	slots chan struct{} // holds one for each connection that is in use
	users int           // calls that use the pool
	open  int           // connections, idle or not
	idle  []idleConn    // oldest first
}

type idleConn struct {
	net.Conn
	since time.Time
}

// enter returns the pool of addr, which stays until leave.
func (c *Client) enter(addr string) (*pool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pools == nil {
		return nil, ErrClosed
	}
	p := c.pools[addr]
	if p == nil {
		p = &pool{slots: make(chan struct{}, maxOpen)}
		c.pools[addr] = p
	}
	p.users++
	return p, nil
}

// leave lets go of the pool of addr, which is forgotten once it is of no use.
func (c *Client) leave(addr string, p *pool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p.users--
	if p.users == 0 && p.open == 0 && c.pools != nil {
		delete(c.pools, addr)
	}
}

// take returns a connection to addr that the node has not closed, from p unless a new one is
// asked for. It reports whether the connection is new because none in p could be used.
func (c *Client) take(ctx context.Context, addr string, p *pool, fresh bool) (conn net.Conn, forced bool, err error) {
	select {
	case p.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, false, context.Cause(ctx)
	}
	forced = fresh
	for !fresh {
		conn, ok := c.pop(p)
		if !ok {
			break
		}
		if alive(conn) {
			return conn, false, nil
		}
		c.discard(p, conn)
		forced = true
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.ConnectTimeout)
	defer cancel()
	conn, err = dial(ctx, addr, byteCalls, c.cfg.TLS)
	if err != nil {
		<-p.slots
		return nil, forced, err
	}
	c.mu.Lock()
	p.open++
	c.mu.Unlock()
	return conn, forced, nil
}

// pop takes the connection that was used last.
func (c *Client) pop(p *pool) (net.Conn, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := len(p.idle)
	if n == 0 {
		return nil, false
	}
	conn := p.idle[n-1].Conn
	p.idle = p.idle[:n-1]
	return conn, true
}

// give puts conn, on which the last call was answered, back into p.
func (c *Client) give(p *pool, conn net.Conn) {
	_ = conn.SetDeadline(time.Time{}) // else alive would take an old one for the end of the connection
	c.mu.Lock()
	old := slices.IndexFunc(p.idle, func(i idleConn) bool { return time.Since(i.since) < maxIdleTime })
	if old < 0 {
		old = len(p.idle)
	}
	closing := slices.Clone(p.idle[:old])
	p.idle = slices.Delete(p.idle, 0, old)
	keep := c.pools != nil && len(p.idle) < maxIdle
	if keep {
		p.idle = append(p.idle, idleConn{conn, time.Now()})
	}
	p.open -= len(closing)
	c.mu.Unlock()
	for _, i := range closing {
		i.Close()
	}
	if !keep {
		c.discard(p, conn)
	}
	<-p.slots
}

// drop closes conn, on which a call failed.
func (c *Client) drop(p *pool, conn net.Conn) {
	c.discard(p, conn)
	<-p.slots
}

// discard closes conn and leaves its slot to the caller.
func (c *Client) discard(p *pool, conn net.Conn) {
	conn.Close()
	c.mu.Lock()
	p.open--
	c.mu.Unlock()
}
