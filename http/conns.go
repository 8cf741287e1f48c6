package http

import (
	"container/list"
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"sync"
	"syscall"
	"time"

	"rqlited/internal/budget"
	"rqlited/internal/certs"
)

const (
	// surplusConns is how many connections beyond the bound are there to be told so, and surplusTime how
	// long each of them has to ask. More are closed at once.
	surplusConns = 64
	surplusTime  = 5 * time.Second

	// hurryTime is what a client has for taking a piece of its answer while too many others take their time.
	hurryTime = time.Second
)

// conns bounds the connections that clients have open. When there are as many as there may be, one that
// can be spared makes room for a new one: that which has been without a request for the longest, since a
// client may lose an idle connection at any time; else that whose client has been keeping the node
// waiting for the longest. So nobody keeps others out by doing nothing, or little. Only if requests are
// being worked on for all of them is a new one refused. All methods are safe for concurrent use.
type conns struct {
	limit      int // immutable
	takers     int // how many may take their answers slowly; immutable
	complaints *certs.Complaints

	mu      sync.Mutex
	open    int       // guarded by mu; surplus ones not included
	surplus int       // guarded by mu
	idle    list.List // guarded by mu; of *clientConn without a request, the one that became idle first in front
	slow    list.List // guarded by mu; of *clientConn whose client does not send, or not take, what it should
	taking  int       // guarded by mu; calls of Write
	evicted int64     // guarded by mu
	refused int64     // guarded by mu
}

// clientConn is a connection of a client.
type clientConn struct {
	net.Conn
	of      *conns
	surplus bool      // beyond the bound; immutable
	accept  time.Time // immutable

	idle   *list.Element // in of.idle, and guarded by of.mu, as is all below; nil while requests are under way
	slow   *list.Element // in of.slow; nil unless waits > 0
	waits  int           // for the client
	gone   bool
	active int // requests under way; guarded by the server's admission
}

// take makes conn one of the clients' connections, and another make room for it if need be. It returns nil, and conn
// is closed, if there is no room even to say so. That is so with a scarce descriptor: then another one makes room for
// the connection that follows.
func (cs *conns) take(conn net.Conn, scarce bool) *clientConn {
	cs.mu.Lock()
	var victim *clientConn
	if scarce || cs.open >= cs.limit {
		victim = cs.evict()
	}
	c := &clientConn{Conn: conn, of: cs, surplus: cs.open >= cs.limit, accept: time.Now()}
	room := true
	switch {
	case scarce:
		cs.refused++
		room = false
	case !c.surplus:
		cs.open++
		c.idle = cs.idle.PushBack(c)
	case cs.surplus < surplusConns:
		cs.surplus++
		cs.refused++
	default:
		cs.refused++
		room = false
	}
	cs.mu.Unlock()
	if victim != nil {
		victim.Conn.Close()
	}
	if !room {
		conn.Close()
		return nil
	}
	return c
}

// evict forgets the connection that can be spared first, if there is one, which the caller then closes.
// It needs mu.
func (cs *conns) evict() *clientConn {
	for _, l := range []*list.List{&cs.idle, &cs.slow} {
		if first := l.Front(); first != nil {
			c := first.Value.(*clientConn)
			cs.forget(c)
			cs.evicted++
			return c
		}
	}
	return nil
}

// forget needs mu.
func (cs *conns) forget(c *clientConn) {
	if c.gone {
		return
	}
	c.gone = true
	if c.surplus {
		cs.surplus--
	} else {
		cs.open--
	}
	drop(&cs.idle, &c.idle)
	drop(&cs.slow, &c.slow)
}

// drop removes an element, if there is one, from its list.
func drop(l *list.List, e **list.Element) {
	if *e != nil {
		l.Remove(*e)
		*e = nil
	}
}

// waitsFor notes, until over is called, that the request cannot go on without the client.
func (c *clientConn) waitsFor() (over func()) {
	if c == nil || c.surplus {
		return func() {}
	}
	cs := c.of
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if c.waits++; c.slow == nil && !c.gone {
		c.slow = cs.slow.PushBack(c)
	}
	return func() {
		cs.mu.Lock()
		defer cs.mu.Unlock()
		if c.waits--; c.waits == 0 {
			drop(&cs.slow, &c.slow)
		}
	}
}

// Write counts as waiting: a client that takes its answer does not let it wait for long. A read goes on while
// its rows are taken, and there can be so many of them only; so when clients keep half of these, others have
// to hurry.
func (c *clientConn) Write(b []byte) (int, error) {
	defer c.waitsFor()()
	cs := c.of
	cs.mu.Lock()
	cs.taking++
	hurry := cs.taking > cs.takers
	cs.mu.Unlock()
	defer func() {
		cs.mu.Lock()
		cs.taking--
		cs.mu.Unlock()
	}()
	if hurry {
		if err := c.SetWriteDeadline(time.Now().Add(hurryTime)); err != nil {
			return 0, err
		}
	}
	return c.Conn.Write(b)
}

// relieve closes a connection that can be spared for the sake of its descriptor, and reports whether there
// was one.
func (cs *conns) relieve() bool {
	cs.mu.Lock()
	victim := cs.evict()
	cs.mu.Unlock()
	if victim == nil {
		return false
	}
	victim.Conn.Close()
	return true
}

// changed is told by net/http what becomes of conn.
func (cs *conns) changed(conn net.Conn, state http.ConnState) {
	c := clientOf(conn)
	if c == nil || c.surplus {
		return
	}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	switch {
	case c.gone:
	case state == http.StateActive:
		drop(&cs.idle, &c.idle)
	case state == http.StateIdle && c.idle == nil:
		c.idle = cs.idle.PushBack(c)
	}
}

// vars adds to the "limits" map of /debug/vars.
func (cs *conns) vars(m map[string]int64) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	m["connections"] = int64(cs.open + cs.surplus)
	m["connections_idle"] = int64(cs.idle.Len())
	m["connections_limit"] = int64(cs.limit)
	m["connections_evicted"] = cs.evicted
	m["connections_refused"] = cs.refused
}

// clientOf returns the clientConn that conn is or, with TLS, is made of; nil if there is none.
func clientOf(conn net.Conn) *clientConn {
	if c, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = c.NetConn()
	}
	c, _ := conn.(*clientConn)
	return c
}

func (c *clientConn) Close() error {
	c.of.mu.Lock()
	c.of.forget(c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}

func (c *clientConn) SetReadDeadline(t time.Time) error  { return c.Conn.SetReadDeadline(c.until(t)) }
func (c *clientConn) SetWriteDeadline(t time.Time) error { return c.Conn.SetWriteDeadline(c.until(t)) }
func (c *clientConn) SetDeadline(t time.Time) error      { return c.Conn.SetDeadline(c.until(t)) }

// until returns the deadline t, or an earlier one on a connection that has little time.
func (c *clientConn) until(t time.Time) time.Time {
	if end := c.accept.Add(surplusTime); c.surplus && (t.IsZero() || t.After(end)) {
		return end
	}
	return t
}

// boundedListener accepts the connections that conns takes.
type boundedListener struct {
	net.Listener
	conns *conns

	closing sync.Once
	closed  chan struct{}
}

func (cs *conns) listener(ln net.Listener) net.Listener {
	return &boundedListener{Listener: ln, conns: cs, closed: make(chan struct{})}
}

// passing are errors of accept that pass. A lack of descriptors is relieved by closing what can be spared.
var passing = []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED, syscall.EINTR}

// Accept returns the next connection. What keeps it from accepting for a while ends nothing.
func (l *boundedListener) Accept() (net.Conn, error) {
	const firstPause, lastPause = 5 * time.Millisecond, time.Second
	pause := firstPause
	for {
		conn, err := l.Listener.Accept()
		if err == nil {
			pause = firstPause
			if c := l.conns.take(conn, budget.Scarce(conn)); c != nil {
				return c, nil
			}
			continue
		}
		if !slices.ContainsFunc(passing, func(e error) bool { return errors.Is(err, e) }) {
			return nil, err
		}
		l.conns.complaints.Warn("connection not accepted", err.Error())
		if l.conns.relieve() {
			pause = firstPause
		}
		l.rest(pause)
		pause = min(2*pause, lastPause)
	}
}

// rest waits, but not for a listener that is closed.
func (l *boundedListener) rest(pause time.Duration) {
	select {
	case <-time.After(pause):
	case <-l.closed:
	}
}

func (l *boundedListener) Close() error {
	l.closing.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type connKey struct{}

// withConn returns ctx with the connection, for what is asked on it.
func withConn(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, clientOf(conn))
}

// connOf returns the connection of a request; nil if it came by none that is counted.
func connOf(ctx context.Context) *clientConn {
	c, _ := ctx.Value(connKey{}).(*clientConn)
	return c
}
