package cluster

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"rqlited/command"
	"rqlited/internal/certs"
	"rqlited/internal/certs/certstest"
	"rqlited/store"
)

// peer is a node that a test speaks for: serve is called for every connection, with its number,
// and the connection closed afterwards.
type peer struct {
	addr string
	seen atomic.Int64 // requests
}

func startPeer(t testing.TB, serve func(p *peer, conn net.Conn, number int)) *peer {
	t.Helper()
	m := startMux(t, Config{})
	p := &peer{addr: m.Addr()}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for number := 0; ; number++ {
			conn, err := m.Calls().Accept()
			if err != nil {
				return
			}
			serve(p, conn, number)
			conn.Close()
		}
	}()
	t.Cleanup(func() {
		m.Calls().Close()
		m.Close()
		<-done
	})
	return p
}

// read takes one request.
func (p *peer) read(conn net.Conn) bool {
	_, err := readFrame(conn, nil)
	if err == nil {
		p.seen.Add(1)
	}
	return err == nil
}

// refuse takes a request and hangs up without an answer.
func refuse(p *peer, conn net.Conn, _ int) { p.read(conn) }

// freeze takes requests and does not answer.
func freeze(p *peer, conn net.Conn, _ int) {
	for p.read(conn) {
	}
}

var emptyAnswer = make([]byte, frameHeader)

// TestClientStaleConnection has a node close a connection that a call has used. The next write
// finds out before it sends, and so needs no luck.
func TestClientStaleConnection(t *testing.T) {
	hungUp := make(chan struct{}, 1)
	p := startPeer(t, func(p *peer, conn net.Conn, number int) {
		if !p.read(conn) {
			return
		}
		conn.Write(emptyAnswer)
		if number == 0 {
			conn.(*heldConn).Conn.(*net.TCPConn).CloseWrite()
			hungUp <- struct{}{}
			io.Copy(io.Discard, conn)
			return
		}
		io.Copy(io.Discard, conn)
	})
	c := newTestClient(t, ClientConfig{})
	defer c.Close()
	write := &command.Request{Kind: command.Execute}
	if _, err := c.Do(withTimeout(t), p.addr, write); err != nil {
		t.Fatal(err)
	}
	<-hungUp
	waitUntil(t, func() bool { return c.idleDead(p.addr) })
	if _, err := c.Do(withTimeout(t), p.addr, write); err != nil {
		t.Errorf("Do() = %v over a connection that the node had closed", err)
	}
	if got := p.seen.Load(); got != 2 {
		t.Errorf("the node saw %d requests; want 2", got)
	}
	if got := c.Counters()["num_client_force_new_conn"]; got != 1 {
		t.Errorf("num_client_force_new_conn = %d; want 1", got)
	}
}

// idleDead reports whether the idle connection to addr has been closed by the node.
func (c *Client) idleDead(addr string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	idle := c.pools[addr].idle
	return len(idle) == 1 && !alive(idle[0].Conn)
}

func waitUntil(t testing.TB, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !done(); {
		if time.Now().After(deadline) {
			t.Fatalf("not so after %s", patience)
		}
		<-time.After(time.Millisecond)
	}
}

// TestClientRepeats counts how often a node gets a request that it does not answer.
func TestClientRepeats(t *testing.T) {
	tests := []struct {
		name    string
		kind    command.Kind
		retries int
		want    int64
		unknown bool
	}{
		{"write", command.Execute, 0, 1, true},
		{"write with retries", command.Execute, 5, 1, true},
		{"unified", command.Unified, 5, 1, true},
		{"read", command.Query, 0, 2, false},
		{"read with one retry", command.Query, 1, 2, false},
		{"read with retries", command.Query, 3, 4, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := startPeer(t, refuse)
			req := &command.Request{Kind: tt.kind, Forward: command.Forward{Retries: tt.retries}}
			_, err := newTestClient(t, ClientConfig{}).Do(withTimeout(t), p.addr, req)
			if err == nil || err.Error() != "read protobuf length: EOF" {
				t.Errorf("Do() = %v; want read protobuf length: EOF", err)
			}
			if got := errors.Is(err, store.ErrUnknown); got != tt.unknown {
				t.Errorf("Do() = %v: outcome unknown is %v; want %v", err, got, tt.unknown)
			}
			if got := p.seen.Load(); got != tt.want {
				t.Errorf("the node saw %d requests; want %d", got, tt.want)
			}
		})
	}
}

// TestClientUnreachable tries a write as often as a read, since nobody can have read it.
func TestClientUnreachable(t *testing.T) {
	m := startMux(t, Config{})
	m.Close()
	c := newTestClient(t, ClientConfig{})
	req := &command.Request{Kind: command.Execute, Forward: command.Forward{Retries: 2}}
	_, err := c.Do(withTimeout(t), m.Addr(), req)
	if err == nil || errors.Is(err, store.ErrUnknown) || err.Error() != "dial tcp "+m.Addr()+": connect: connection refused" {
		t.Errorf("Do() = %v; want connection refused", err)
	}
	if got := c.Counters()["num_client_execute_retries"]; got != 2 {
		t.Errorf("num_client_execute_retries = %d; want 2", got)
	}
	if got := len(c.Pools()); got != 0 {
		t.Errorf("%d pools are left of a node that is gone", got)
	}
}

func TestClientTimeout(t *testing.T) {
	p := startPeer(t, freeze)
	c := newTestClient(t, ClientConfig{})
	req := &command.Request{Kind: command.Execute, Forward: command.Forward{Timeout: time.Millisecond}}
	_, err := c.Do(withTimeout(t), p.addr, req)
	if err == nil || !strings.HasPrefix(err.Error(), "read protobuf length: read tcp ") || !strings.HasSuffix(err.Error(), ": i/o timeout") {
		t.Errorf("Do() = %v; want an i/o timeout", err)
	}
	if !errors.Is(err, store.ErrUnknown) {
		t.Errorf("Do() = %v; want %v", err, store.ErrUnknown)
	}
	if got := c.Counters()["num_client_read_timeouts"]; got != 1 {
		t.Errorf("num_client_read_timeouts = %d; want 1", got)
	}
}

// TestClientConnectTimeout calls a node whose kernel takes the connection, and that says nothing of TLS.
func TestClientConnectTimeout(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	a := certstest.NewAuthority(t)
	c := newTestClient(t, ClientConfig{TLS: tlsOf(t, a, "n1", certs.Clients{}), ConnectTimeout: time.Millisecond})
	_, err = c.Do(withTimeout(t), ln.Addr().String(), &command.Request{Kind: command.Query})
	if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Do() = %v; want the end of ConnectTimeout", err)
	}
}

func TestClientCancel(t *testing.T) {
	p := startPeer(t, freeze)
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("user went away")
	go func() {
		waitUntil(t, func() bool { return p.seen.Load() == 1 })
		cancel(gone)
	}()
	_, err := newTestClient(t, ClientConfig{}).Do(ctx, p.addr, &command.Request{Kind: command.Query})
	if !errors.Is(err, gone) {
		t.Errorf("Do() = %v; want %v", err, gone)
	}
	if got := p.seen.Load(); got != 1 {
		t.Errorf("the node saw %d requests; want 1", got)
	}
}

// TestClientDistrust answers with what no node would.
func TestClientDistrust(t *testing.T) {
	tests := []struct {
		name   string
		answer []byte
		want   error
	}{
		{"length over the bound", bytes.Repeat([]byte{0xff}, frameHeader), ErrTooLarge},
		{"half a length", []byte{1, 2}, io.ErrUnexpectedEOF},
		{"half an answer", []byte{200, 0, 0, 0, 0, 0, 0, 0, 8}, io.ErrUnexpectedEOF},
		{"no message", []byte{1, 0, 0, 0, 0, 0, 0, 0, 0xff}, command.ErrMalformed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := startPeer(t, func(p *peer, conn net.Conn, _ int) {
				if p.read(conn) {
					conn.Write(tt.answer)
				}
			})
			_, err := newTestClient(t, ClientConfig{}).Do(withTimeout(t), p.addr, &command.Request{Kind: command.Execute})
			if !errors.Is(err, tt.want) || !errors.Is(err, store.ErrUnknown) {
				t.Errorf("Do() = %v; want %v with unknown outcome", err, tt.want)
			}
		})
	}
}

func TestClientRemoteErrors(t *testing.T) {
	tests := []struct {
		kind command.Kind
		text string
		want error
	}{
		{command.Execute, "not leader", store.ErrNotLeader},
		{command.Execute, "leadership lost while committing log", store.ErrLeadershipLost},
		{command.Query, "stale read", store.ErrStaleRead},
		{command.Execute, "unauthorized", store.ErrUnauthorized},
	}
	for _, tt := range tests {
		t.Run(tt.text, func(t *testing.T) {
			p := startPeer(t, answering(outcome{err: tt.text}))
			_, err := newTestClient(t, ClientConfig{}).Do(withTimeout(t), p.addr, &command.Request{Kind: tt.kind})
			if !errors.Is(err, tt.want) {
				t.Errorf("Do() = %v; want %v", err, tt.want)
			}
		})
	}
}

// answering returns a node that gives every request the same answer.
func answering(o outcome) func(p *peer, conn net.Conn, _ int) {
	return func(p *peer, conn net.Conn, _ int) {
		for p.read(conn) {
			conn.Write(endFrame(o.append(beginFrame(nil))))
		}
	}
}

func TestUnauthorizedText(t *testing.T) {
	tests := map[callType]string{
		callExecute:  "remote Execute not authorized",
		callQuery:    "remote query not authorized",
		callRequest:  "remote Request not authorized",
		callRemove:   "remote remove node not authorized",
		callStepdown: "remote stepdown not authorized",
	}
	for typ, want := range tests {
		if err := remoteError("unauthorized", acts[typ]); err.Error() != want {
			t.Errorf("remoteError() = %q; want %q", err, want)
		}
	}
}

func TestClientJoin(t *testing.T) {
	self := store.Server{ID: "n3", Addr: "n3:4002", Voter: true}
	leader := startPeer(t, answering(outcome{}))
	follower := startPeer(t, answering(outcome{err: "not leader", leader: leader.addr}))
	orphan := startPeer(t, answering(outcome{err: "not leader"}))
	c := newTestClient(t, ClientConfig{})
	if got, err := c.Join(withTimeout(t), follower.addr, self, Credentials{}); got != leader.addr || err != nil {
		t.Errorf("Join() = %s, %v; want the leader", got, err)
	}
	if _, err := c.Join(withTimeout(t), orphan.addr, self, Credentials{}); !errors.Is(err, store.ErrNotLeader) {
		t.Errorf("Join() = %v; want %v", err, store.ErrNotLeader)
	}
	// Two nodes that take each other for the leader.
	var a, b *peer
	other := make(chan string, 1)
	a = startPeer(t, func(p *peer, conn net.Conn, n int) {
		addr := <-other
		other <- addr
		answering(outcome{err: "not leader", leader: addr})(p, conn, n)
	})
	b = startPeer(t, answering(outcome{err: "not leader", leader: a.addr}))
	other <- b.addr
	if _, err := c.Join(withTimeout(t), a.addr, self, Credentials{}); err == nil {
		t.Error("Join() succeeded without a leader")
	}
	if got := a.seen.Load() + b.seen.Load(); got != 1+maxRedirects {
		t.Errorf("Join() asked %d times; want %d", got, 1+maxRedirects)
	}
	c.Close() // before the peers, which wait for it
}

func TestClientLocalMeta(t *testing.T) {
	want := Meta{URL: "http://example.test:4001", CommitIndex: 3, Version: "1"}
	c := newTestClient(t, ClientConfig{LocalAddr: "unreachable.invalid:4002", Local: func() Meta { return want }})
	if got, err := c.Meta(withTimeout(t), "unreachable.invalid:4002", 0); got != want || err != nil {
		t.Errorf("Meta() = %+v, %v; want %+v", got, err, want)
	}
}

func TestClientClose(t *testing.T) {
	p := startPeer(t, func(p *peer, conn net.Conn, n int) {
		answering(outcome{})(p, conn, n) // until the client hangs up
	})
	c := NewClient(ClientConfig{})
	if err := c.Remove(withTimeout(t), p.addr, "n", Credentials{}, 0); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := c.Remove(withTimeout(t), p.addr, "n", Credentials{}, 0); !errors.Is(err, ErrClosed) {
		t.Errorf("Remove() = %v after Close; want %v", err, ErrClosed)
	}
}
