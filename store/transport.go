package store

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

const (
	transportPool    = 5                // idle connections kept for each peer
	transportTimeout = 10 * time.Second // of one remote call; a snapshot gets more, by its size
)

// errVoteWithheld stops an election that this node could win with a log that it does not have, or
// without one that it had.
var errVoteWithheld = errors.New("store: no election until the log has been replaced")

// transport is Raft's network transport with five changes: an election is not begun while the log
// is void or the node is silent, a silent node hears nothing of the elections of others, a peer too
// old to know the pre-vote counts as if it had said so, a pipeline ends where Raft stops
// listening to it, and snapshots may have connections of their own, on which they are compressed.
type transport struct {
	*raft.NetworkTransport
	snaps  *raft.NetworkTransport // nil: they are sent as they are
	logs   *logStore
	calls  <-chan raft.RPC // what Raft gets to hear
	closed chan struct{}
	close  func() error // once
	filter sync.WaitGroup
}

func newTransport(l *layer, logs *logStore, log hclog.Logger) *transport {
	t := &transport{
		NetworkTransport: raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
			Stream: l, MaxPool: transportPool, Timeout: transportTimeout, Logger: log,
		}),
		logs:   logs,
		closed: make(chan struct{}),
	}
	t.calls = t.NetworkTransport.Consumer()
	if logs.silent() {
		t.calls = t.filtered(t.calls)
	}
	t.close = sync.OnceValue(func() error {
		close(t.closed)
		t.filter.Wait()
		err := t.NetworkTransport.Close()
		if t.snaps != nil {
			err = errors.Join(err, t.snaps.Close())
		}
		return err
	})
	return t
}

// compress makes t compress the snapshots that it sends. It is called before t is used.
func (t *transport) compress(l *layer, log hclog.Logger) {
	t.snaps = raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: &compressedLayer{layer: l, gone: make(chan struct{})}, Timeout: transportTimeout, Logger: log,
	})
}

// InstallSnapshot sends a snapshot to a peer.
func (t *transport) InstallSnapshot(id raft.ServerID, target raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	if t.snaps != nil {
		return t.snaps.InstallSnapshot(id, target, args, resp, data)
	}
	return t.NetworkTransport.InstallSnapshot(id, target, args, resp, data)
}

// Consumer implements raft.Transport.
func (t *transport) Consumer() <-chan raft.RPC { return t.calls }

// Close ends the transport and its goroutine.
func (t *transport) Close() error { return t.close() }

// filtered passes calls on, but refuses those that ask a silent node for its vote. Raft itself
// would grant it, since it does not know that the log was longer. Once the node speaks again, Raft's
// log is as long as that, and this only passes on.
func (t *transport) filtered(calls <-chan raft.RPC) <-chan raft.RPC {
	out := make(chan raft.RPC)
	t.filter.Go(func() {
		for {
			select {
			case rpc := <-calls:
				if t.logs.silent() && refuse(rpc) {
					continue
				}
				select {
				case out <- rpc:
				case <-t.closed:
					return
				}
			case <-t.closed:
				return
			}
		}
	})
	return out
}

// refuse answers a call that is part of an election, and reports whether it was one.
func refuse(rpc raft.RPC) bool {
	header := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}
	switch c := rpc.Command.(type) {
	case *raft.RequestVoteRequest:
		rpc.Respond(&raft.RequestVoteResponse{RPCHeader: header, Term: c.Term}, nil)
	case *raft.RequestPreVoteRequest:
		rpc.Respond(&raft.RequestPreVoteResponse{RPCHeader: header, Term: c.Term}, nil)
	case *raft.TimeoutNowRequest:
		rpc.Respond(&raft.TimeoutNowResponse{RPCHeader: header}, errVoteWithheld)
	default:
		return false
	}
	return true
}

func (t *transport) RequestVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	if t.logs.withheld() {
		return errVoteWithheld
	}
	return t.NetworkTransport.RequestVote(id, target, args, resp)
}

func (t *transport) RequestPreVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	if t.logs.withheld() {
		return errVoteWithheld
	}
	var err error
	for range transportPool + 1 { // pooled connections to a peer that has restarted end as well
		if err = t.NetworkTransport.RequestPreVote(id, target, args, resp); !errors.Is(err, io.EOF) {
			return err
		}
	}
	// Servers before Raft 1.7 close the connection on a call they do not know. Raft takes these
	// two words for a grant; without it such a cluster might never elect a leader.
	return fmt.Errorf("unexpected command: %w", err)
}

// AppendEntriesPipeline opens a pipeline of calls to a peer.
func (t *transport) AppendEntriesPipeline(id raft.ServerID, target raft.ServerAddress) (raft.AppendPipeline, error) {
	inner, err := t.NetworkTransport.AppendEntriesPipeline(id, target)
	if err != nil {
		return nil, err
	}
	return newPipeline(inner), nil
}

// pipeline closes itself after the first answer that is not a success. Raft consumes no answer
// after that one, so a call that waits for its turn would wait for ever: replication to that peer
// would stand still, and Raft could not be shut down.
type pipeline struct {
	raft.AppendPipeline
	answers chan raft.AppendFuture
	once    sync.Once
	closed  chan struct{}
}

func newPipeline(inner raft.AppendPipeline) *pipeline {
	p := &pipeline{AppendPipeline: inner, answers: make(chan raft.AppendFuture), closed: make(chan struct{})}
	go p.relay() // ends with Close, which Raft calls
	return p
}

func (p *pipeline) Consumer() <-chan raft.AppendFuture { return p.answers }

func (p *pipeline) Close() error {
	p.once.Do(func() { close(p.closed) })
	return p.AppendPipeline.Close()
}

func (p *pipeline) relay() {
	for {
		var f raft.AppendFuture
		select {
		case f = <-p.AppendPipeline.Consumer():
		case <-p.closed:
			return
		}
		last := f.Error() != nil || !f.Response().Success || f.Response().Term > f.Request().Term
		select {
		case p.answers <- f:
		case <-p.closed:
			return
		}
		if last {
			p.Close()
			return
		}
	}
}

// layer is the stream layer that Raft is given: the configured one, with the advertised address,
// and with a list of its connections, so that they can be cut when a peer keeps Raft waiting.
type layer struct {
	raft.StreamLayer
	addr   advertised
	closed chan struct{} // closed by cut
	gone   chan struct{} // closed by Close

	mu    sync.Mutex
	conns map[*conn]struct{} // guarded by mu; nil after cut
}

// advertised is an address as other nodes know it.
type advertised string

func (advertised) Network() string  { return "tcp" }
func (a advertised) String() string { return string(a) }

type conn struct {
	net.Conn
	layer   *layer
	inbound bool
}

func (c *conn) Close() error {
	c.layer.mu.Lock()
	delete(c.layer.conns, c)
	c.layer.mu.Unlock()
	return c.Conn.Close()
}

func newLayer(inner raft.StreamLayer, addr string) *layer {
	return &layer{
		StreamLayer: inner,
		addr:        advertised(addr),
		closed:      make(chan struct{}),
		gone:        make(chan struct{}),
		conns:       make(map[*conn]struct{}),
	}
}

func (l *layer) Addr() net.Addr { return l.addr }

func (l *layer) Accept() (net.Conn, error) {
	c, err := l.StreamLayer.Accept()
	if err == nil {
		c, err = l.track(c, true)
	}
	if err != nil {
		select {
		case <-l.closed:
			<-l.gone // Raft tries again until it closes the layer itself
		default:
		}
	}
	return c, err
}

// Dial connects to a peer.
func (l *layer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	return l.dial(address, timeout, l.StreamLayer.Dial)
}

// dial connects to a peer. It returns at once when the layer is cut; a connection that comes
// about after that is closed.
func (l *layer) dial(address raft.ServerAddress, timeout time.Duration, open func(raft.ServerAddress, time.Duration) (net.Conn, error)) (net.Conn, error) {
	type result struct {
		c   net.Conn
		err error
	}
	done := make(chan result, 1)
	go func() {
		c, err := open(address, timeout)
		if err == nil {
			c, err = l.track(c, false)
		}
		done <- result{c, err}
	}()
	select {
	case r := <-done:
		return r.c, r.err
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *layer) track(c net.Conn, inbound bool) (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns == nil {
		c.Close()
		return nil, net.ErrClosed
	}
	t := &conn{c, l, inbound}
	l.conns[t] = struct{}{}
	return t, nil
}

// cutInbound closes the connections that peers have opened. They open new ones.
func (l *layer) cutInbound() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		if c.inbound {
			c.Conn.Close()
		}
	}
}

// cut closes the listener and all connections, and lets no new one come about.
func (l *layer) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns == nil {
		return
	}
	close(l.closed)
	for c := range l.conns {
		c.Conn.Close()
	}
	l.conns = nil
	l.StreamLayer.Close()
}

// Close is called once, by Raft's transport.
func (l *layer) Close() error {
	l.cut()
	close(l.gone)
	return nil
}

// compressedLayer dials compressed connections, which are among those of the layer. It accepts none: the
// layer does that.
type compressedLayer struct {
	*layer
	gone chan struct{} // closed by Close
}

func (l *compressedLayer) Accept() (net.Conn, error) {
	<-l.gone
	return nil, net.ErrClosed
}

// Dial connects to a peer.
func (l *compressedLayer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	return l.dial(address, timeout, l.StreamLayer.(CompressedDialer).DialCompressed)
}

// Close ends Accept, and leaves the layer as it is. It is called once, by Raft's transport.
func (l *compressedLayer) Close() error {
	close(l.gone)
	return nil
}
