package cluster

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"rqlited/internal/certs"
	"rqlited/store"
)

// half is a listener that is given its connections, and owns them.
type half struct {
	addr  address
	began time.Time
	limit int           // connections at a time
	queue chan net.Conn // delivered, not accepted yet
	done  chan struct{} // closed by shut

	refused, evicted atomic.Int64

	mu       sync.Mutex
	conns    map[*heldConn]struct{} // guarded by mu; nil once ended
	accepted int                    // those of conns that count against limit; guarded by mu
}

// address is an advertised address, which may be a name that only other machines can resolve.
type address string

func (a address) Network() string { return "tcp" }
func (a address) String() string  { return string(a) }

// heldConn is a connection of a half, which forgets it when it is closed.
type heldConn struct {
	net.Conn
	h       *half
	dialled bool // by this node: does not count against limit, which is there for peers

	heard  atomic.Int64 // when something was read from it last, as a time since h.began
	proven atomic.Bool  // what a node says has come by it
	busy   atomic.Bool  // a call of it is being carried out
}

// spareAfter is how long a proven connection has to be silent to be spared.
const spareAfter = time.Second

func (c *heldConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.heard.Store(int64(time.Since(c.h.began)))
	return n, err
}

// prove notes that what a node says has come by conn, if that is a connection of a half.
func prove(conn net.Conn) {
	if c, ok := conn.(*heldConn); ok {
		c.proven.Store(true)
	}
}

// work notes whether a call of conn is being carried out.
func work(conn net.Conn, busy bool) {
	if c, ok := conn.(*heldConn); ok {
		c.busy.Store(busy)
	}
}

func (c *heldConn) Close() error {
	c.h.release(c)
	return c.Conn.Close()
}

// NetConn returns the connection below, as tls.Conn does.
func (c *heldConn) NetConn() net.Conn { return c.Conn }

func newHalf(addr string, limit int) *half {
	return &half{
		addr:  address(addr),
		began: time.Now(),
		limit: limit,
		queue: make(chan net.Conn),
		done:  make(chan struct{}),
		conns: map[*heldConn]struct{}{},
	}
}

// open returns the number of connections.
func (h *half) open() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return int64(len(h.conns))
}

// hold makes conn a connection of h. If h is full of those that peers opened, one that can be spared is
// closed for it. If there is none, or h has ended, hold closes conn and returns nil.
func (h *half) hold(conn net.Conn, dialled bool) *heldConn {
	c := &heldConn{Conn: conn, h: h, dialled: dialled}
	c.heard.Store(int64(time.Since(h.began)))
	h.mu.Lock()
	open := h.conns != nil
	var victim *heldConn
	if open && !dialled && h.accepted >= h.limit {
		victim = h.spare()
	}
	room := dialled || h.accepted < h.limit
	if open && room {
		h.conns[c] = struct{}{}
		if !dialled {
			h.accepted++
		}
	}
	h.mu.Unlock()
	if victim != nil {
		h.evicted.Add(1)
		lowest(victim).Close()
	}
	if open && room {
		return c
	}
	if open {
		h.refused.Add(1)
	}
	conn.Close()
	return nil
}

// spare forgets, and returns, the connection that was silent for the longest of those that no node has
// proven to be its own; else of those that are silent for a while, and on which no call is being carried out. So
// strangers, who open connections and leave them, do not keep nodes out. It needs mu.
func (h *half) spare() *heldConn {
	var victim *heldConn
	for c := range h.conns {
		silent := time.Since(h.began) - time.Duration(c.heard.Load())
		if c.dialled || c.busy.Load() || c.proven.Load() && silent < spareAfter {
			continue
		}
		if victim == nil || victim.proven.Load() && !c.proven.Load() ||
			victim.proven.Load() == c.proven.Load() && c.heard.Load() < victim.heard.Load() {
			victim = c
		}
	}
	if victim != nil {
		delete(h.conns, victim)
		h.accepted--
	}
	return victim
}

// relieve closes a connection that can be spared, and reports whether there was one.
func (h *half) relieve() bool {
	h.mu.Lock()
	victim := h.spare()
	h.mu.Unlock()
	if victim == nil {
		return false
	}
	h.evicted.Add(1)
	lowest(victim).Close()
	return true
}

// release forgets c, once.
func (h *half) release(c *heldConn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, held := h.conns[c]; !held {
		return
	}
	delete(h.conns, c)
	if !c.dialled {
		h.accepted--
	}
}

// deliver waits until conn is accepted or h is shut.
func (h *half) deliver(conn net.Conn) {
	c := h.hold(conn, false)
	if c == nil {
		return
	}
	select {
	case h.queue <- c:
	case <-h.done:
		c.Close()
	}
}

// Accept returns the next connection that was delivered.
func (h *half) Accept() (net.Conn, error) {
	select {
	case conn := <-h.queue:
		return conn, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

// shut ends Accept. Connections that were accepted stay. It may be called again.
func (h *half) shut() {
	h.mu.Lock()
	defer h.mu.Unlock()
	select {
	case <-h.done:
	default:
		close(h.done)
	}
}

// end ends Accept and every connection. It may be called again.
func (h *half) end() {
	h.shut()
	h.mu.Lock()
	conns := h.conns
	h.conns = nil
	h.mu.Unlock()
	for c := range conns {
		lowest(c).Close() // TLS would take its leave, and wait for peers that don't take it
	}
}

// Addr returns the advertised address.
func (h *half) Addr() net.Addr { return h.addr }

// callsListener is the half that carries calls. Closing it leaves the connections to those who
// accepted them.
type callsListener struct{ *half }

func (l callsListener) Close() error {
	l.shut()
	return nil
}

// layer is the half that carries Raft, as Raft wants it: Raft does not close its connections.
type layer struct {
	*half
	tls TLS
	log *certs.Complaints
}

var (
	_ raft.StreamLayer       = (*layer)(nil)
	_ store.CompressedDialer = (*layer)(nil)
)

// Accept returns the next connection that a peer opened, behind a guard.
func (l *layer) Accept() (net.Conn, error) {
	conn, err := l.half.Accept()
	if err != nil {
		return nil, err
	}
	return newGuard(conn, l.log), nil
}

// Close ends Accept, dialling and every connection.
func (l *layer) Close() error {
	l.end()
	return nil
}

// Dial connects to a peer for Raft. It ends when l is closed, as does the connection.
func (l *layer) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	return l.dial(timeout, func(ctx context.Context) (net.Conn, error) {
		return dial(ctx, string(addr), byteRaft, l.tls)
	})
}

// dial opens a connection that is one of l's, unless l is closed meanwhile.
func (l *layer) dial(timeout time.Duration, open func(context.Context) (net.Conn, error)) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	var watch sync.WaitGroup
	defer watch.Wait()
	defer cancel() // before Wait
	watch.Go(func() {
		select {
		case <-l.done:
			cancel()
		case <-ctx.Done():
		}
	})
	conn, err := open(ctx)
	if err != nil {
		return nil, err
	}
	c := l.hold(conn, true)
	if c == nil {
		return nil, net.ErrClosed
	}
	return c, nil
}
