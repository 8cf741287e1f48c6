package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"rqlited/internal/certs"
)

// TLS says how nodes encrypt what they say to each other: all of a connection, from before its first byte on. The
// zero value is not at all. Listen and Dial are set both or neither, and the same way on all nodes.
type TLS struct {
	Listen *tls.Config                   // of the port
	Dial   func(host string) *tls.Config // of a connection to host
}

func (t TLS) enabled() bool { return t.Dial != nil }

func (t TLS) check() error {
	if (t.Listen == nil) != (t.Dial == nil) {
		return errors.New("TLS is set for one direction only")
	}
	return nil
}

// client encrypts conn, which was dialled to addr. It is bounded by ctx, and closes conn if it fails.
func (t TLS) client(ctx context.Context, conn net.Conn, addr string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err == nil {
		encrypted := tls.Client(conn, t.Dial(host))
		if err = encrypted.HandshakeContext(ctx); err == nil {
			return encrypted, nil
		}
	}
	conn.Close()
	if hungUp(err) {
		return nil, &plainPeerError{addr, err}
	}
	return nil, fmt.Errorf("tls handshake with %s: %w", addr, err)
}

// plainPeerError means that a node hung up when it was greeted in TLS.
type plainPeerError struct {
	addr string
	err  error
}

func (e *plainPeerError) Error() string {
	return fmt.Sprintf("tls handshake with %s: the node hung up, as one does that has no -node-cert: %v", e.addr, e.err)
}

func (e *plainPeerError) Unwrap() error { return e.err }

// hungUp reports whether err says that the other side closed the connection without a word.
func hungUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET)
}

// lowest returns the connection below all wrappers: the one that knows a file descriptor, and closes at once.
func lowest(conn net.Conn) net.Conn {
	for {
		c, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			return conn
		}
		conn = c.NetConn()
	}
}

// What a client that is no peer sends first.
const (
	byteHTTP  = 'G' // of GET
	byteHello = 0x16
)

// greeter takes up the connections of a port: it decrypts them, and finds out who does not speak as this node does.
// A node that is about to join first asks, over HTTP and then over HTTPS, whether this is the port of an HTTP server
// (see probe.go). That is no reason for a complaint; all else that fails is one.
type greeter struct {
	tls   *tls.Config // nil: nothing is encrypted
	log   *slog.Logger
	lines *certs.Complaints

	begun atomic.Int64 // handshakes

	mu     sync.Mutex
	asking map[string]time.Time // when a host asked over HTTP; guarded by mu
}

const (
	probeWindow = 2 * probeTimeout // between the two questions of a node
	maxAsking   = 1024             // hosts

	lingerTime  = 500 * time.Millisecond
	lingerBytes = 64 << 10
)

func newGreeter(cfg *tls.Config, log *slog.Logger) *greeter {
	return &greeter{tls: cfg, log: log, lines: certs.NewComplaints(log), asking: map[string]time.Time{}}
}

// greet returns conn, decrypted if need be, and its first byte. The deadline of conn has to be set.
func (g *greeter) greet(ctx context.Context, conn net.Conn) (net.Conn, byte, error) {
	if g.tls != nil {
		g.begun.Add(1)
		encrypted := tls.Server(conn, g.tls)
		if err := encrypted.HandshakeContext(ctx); err != nil {
			g.handshakeFailed(conn, err)
			linger(conn)
			return nil, 0, err
		}
		conn = encrypted
	}
	var first [1]byte
	if _, err := conn.Read(first[:]); err != nil {
		return nil, 0, err
	}
	switch first[0] {
	case byteHTTP:
		if g.tls == nil {
			g.asks(hostOf(conn))
		} else {
			g.asked(hostOf(conn)) // this was the second question
		}
	case byteHello:
		if !g.asked(hostOf(conn)) {
			g.complain(conn, "the peer speaks TLS, this node has no -node-cert")
		}
	}
	return conn, first[0], nil
}

// linger waits a little for the peer to close conn. The peer has been told in TLS why it is refused, and may be
// sending on: closing with that unread would take the reason from it.
func linger(conn net.Conn) {
	c, ok := conn.(interface{ CloseWrite() error })
	if !ok || c.CloseWrite() != nil || conn.SetReadDeadline(time.Now().Add(lingerTime)) != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, conn, lingerBytes)
}

// handshakeFailed complains, unless the other side is none that wanted to talk to a node, or has left.
func (g *greeter) handshakeFailed(conn net.Conn, err error) {
	if head, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		switch head.RecordHeader[0] {
		case byteHTTP:
			g.asks(hostOf(conn))
		case byteRaft, byteCalls:
			g.complain(conn, "the peer does not speak TLS, this node has a -node-cert")
		}
		return
	}
	if hungUp(err) || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed) || g.asked(hostOf(conn)) {
		return
	}
	g.complain(conn, err.Error())
}

func (g *greeter) complain(conn net.Conn, reason string) {
	g.lines.Warn("connection of a peer refused", reason, slog.String("peer", conn.RemoteAddr().String()))
}

// asks notes that host asks whether this is the port of an HTTP server.
func (g *greeter) asks(host string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.asking) >= maxAsking {
		clear(g.asking) // costs a needless complaint at most
	}
	g.asking[host] = time.Now()
}

// asked reports whether host has asked just now, so that it is expected to ask again, once.
func (g *greeter) asked(host string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	at, ok := g.asking[host]
	delete(g.asking, host)
	return ok && time.Since(at) < probeWindow
}

func hostOf(conn net.Conn) string {
	addr := conn.RemoteAddr().String()
	if host, _, err := net.SplitHostPort(addr); err == nil {
		return host
	}
	return addr
}
