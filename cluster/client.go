package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"rqlited/command"
	"rqlited/store"
)

const (
	callTimeout   = 30 * time.Second // of an attempt, unless the user says otherwise
	joinTimeout   = 5 * time.Second  // of joining and of notifying
	maxRedirects  = 10               // from one node to the leader it believes in
	refusedUser   = "unauthorized"
	refusedLeader = "not leader"
)

// ClientConfig configures a Client. NewClient copies it.
type ClientConfig struct {
	LocalAddr      string        // advertised Raft address of this node
	Local          func() Meta   // what this node tells about itself; asking it needs no network
	TLS            TLS           // only its Dial is used
	ConnectTimeout time.Duration // of connecting and of the TLS handshake; zero means 30 s
	Logger         *slog.Logger  // nil discards
}

// Client calls other nodes. It is safe for concurrent use.
//
// Each attempt of a call has a deadline. A call that only reads is repeated up to the number of
// retries, and then once more on a new connection. A write is repeated only while it is certain
// that no node has read all of it, since otherwise it could be applied twice.
type Client struct {
	cfg ClientConfig
	log *slog.Logger

	mu    sync.Mutex
	pools map[string]*pool // by address; nil once closed; guarded by mu

	counts clientCounts
}

// NewClient returns a Client, which opens connections as it needs them.
func NewClient(cfg ClientConfig) *Client {
	cfg.ConnectTimeout = cmp.Or(cfg.ConnectTimeout, 30*time.Second)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Client{cfg: cfg, log: cfg.Logger, pools: map[string]*pool{}}
}

// Close closes the idle connections. Those in use are closed when their calls end.
func (c *Client) Close() error {
	c.mu.Lock()
	pools := c.pools
	c.pools = nil
	c.mu.Unlock()
	for _, p := range pools {
		for conn, ok := c.pop(p); ok; conn, ok = c.pop(p) {
			c.discard(p, conn)
		}
	}
	return nil
}

// Pools describes the connections to other nodes, by Raft address.
func (c *Client) Pools() map[string]PoolStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	pools := make(map[string]PoolStatus, len(c.pools))
	for addr, p := range c.pools {
		pools[addr] = PoolStatus{Idle: len(p.idle), MaxOpen: maxOpen, Open: p.open}
	}
	return pools
}

// Do has the node at addr run req, as req.Forward says. If the answer comes in parts the results go to
// req.Sink, but for those in the last part. Errors:
//   - those of store that the node reported;
//   - *UnauthorizedError: the node does not permit it to the user;
//   - *CallError: there was no answer; it is a store.ErrUnknown if a write may have been applied.
func (c *Client) Do(ctx context.Context, addr string, req *command.Request) (*command.Response, error) {
	body := command.AppendRequest([]byte{}, req)
	p := policy{
		timeout:    req.Forward.Timeout,
		retries:    req.Forward.Retries,
		repeatable: req.Kind == command.Query,
	}
	if req.Sink != nil && req.Kind != command.Execute {
		body = command.AppendBool(body, fieldParts, true)
		p.parts = &partReader{kind: req.Kind, sink: req.Sink, addr: addr}
	}
	answer, err := c.call(ctx, addr, &call{
		typ:   requestCall(req.Kind),
		creds: Credentials{req.Forward.Username, req.Forward.Password},
		load:  req.Forward.Load,
		body:  body,
	}, p)
	if err != nil {
		return nil, err
	}
	resp, text, err := command.DecodeResponse(req.Kind, answer)
	if err == nil && text != "" {
		return nil, remoteError(text, acts[requestCall(req.Kind)])
	}
	if err == nil {
		err = p.parts.complete(resp)
	}
	if err != nil {
		return nil, &CallError{Addr: addr, Sent: true, Err: err}
	}
	return resp, nil
}

// acts are the names of what a user may not do, in the words that users know.
var acts = map[callType]string{
	callExecute:  "Execute",
	callQuery:    "query",
	callRequest:  "Request",
	callRemove:   "remove node",
	callStepdown: "stepdown",
	callJoin:     "join",
	callNotify:   "notify",
	callHash:     "hash",

	callBackupStream: "backup",
	callLoad:         "load",
	callLoadStream:   "load",
}

func remoteError(text, act string) error {
	if text == refusedUser {
		return &UnauthorizedError{Act: act}
	}
	return store.FromText(text)
}

// Meta asks the node at addr about itself. An attempt ends after 30 s, all of them with ctx.
func (c *Client) Meta(ctx context.Context, addr string, retries int) (Meta, error) {
	if addr == c.cfg.LocalAddr && c.cfg.Local != nil {
		c.counts.metaLocal.Add(1)
		return c.cfg.Local(), nil
	}
	answer, err := c.call(ctx, addr, &call{typ: callMeta}, policy{retries: retries, repeatable: true})
	if err != nil {
		return Meta{}, err
	}
	m, err := decodeMeta(answer)
	if err != nil {
		return Meta{}, &CallError{Addr: addr, Sent: true, Err: err}
	}
	return m, nil
}

// Join asks the node at addr, and from there on whoever it takes for the leader, to take self
// into the cluster. It returns the address of the node that did. It fails with store.ErrForeignKeys or
// store.ErrExtensions if the cluster does not take self as it is.
func (c *Client) Join(ctx context.Context, addr string, self store.Server, user Credentials) (string, error) {
	m := member{self.ID, self.Addr, self.Voter, self.ForeignKeys, self.Extensions}
	for range 1 + maxRedirects {
		o, err := c.once(ctx, addr, &call{typ: callJoin, creds: user, body: m.append([]byte{})}, joinTimeout)
		if err != nil {
			return "", err
		}
		if o.err == refusedLeader && o.leader != "" && o.leader != addr {
			addr = o.leader
			continue
		}
		return addr, remoteError(o.err, acts[callJoin])
	}
	return "", fmt.Errorf("join: %d redirects without finding the leader", maxRedirects)
}

// Notify tells the node at addr that self wants to form a cluster with it. It fails as Join does.
func (c *Client) Notify(ctx context.Context, addr string, self store.Server, user Credentials) error {
	m := member{id: self.ID, addr: self.Addr, foreignKeys: self.ForeignKeys, extensions: self.Extensions}
	return c.act(ctx, addr, &call{typ: callNotify, creds: user, body: m.append([]byte{})}, joinTimeout)
}

// Remove has the leader at addr remove the server id from the cluster. Zero timeout means 30 s.
func (c *Client) Remove(ctx context.Context, addr, id string, user Credentials, timeout time.Duration) error {
	return c.act(ctx, addr, &call{typ: callRemove, creds: user, body: member{id: id}.append([]byte{})}, timeout)
}

// Stepdown has the leader at addr give up leadership, to the server id unless it is empty.
func (c *Client) Stepdown(ctx context.Context, addr, id string, wait bool, user Credentials, timeout time.Duration) error {
	return c.act(ctx, addr, &call{typ: callStepdown, creds: user, body: stepdown{id, wait}.append([]byte{})}, timeout)
}

// act makes a call that yields no data and is never repeated.
func (c *Client) act(ctx context.Context, addr string, cl *call, timeout time.Duration) error {
	o, err := c.once(ctx, addr, cl, timeout)
	if err != nil {
		return err
	}
	return remoteError(o.err, acts[cl.typ])
}

func (c *Client) once(ctx context.Context, addr string, cl *call, timeout time.Duration) (outcome, error) {
	answer, err := c.call(ctx, addr, cl, policy{timeout: timeout, once: true})
	if err != nil {
		return outcome{}, err
	}
	o, err := decodeOutcome(answer)
	if err != nil {
		return outcome{}, &CallError{Addr: addr, Sent: true, Err: err}
	}
	return o, nil
}

// policy says how often a call is tried.
type policy struct {
	timeout    time.Duration // of an attempt; zero means callTimeout
	retries    int
	repeatable bool // a node may carry it out twice
	once       bool

	parts *partReader // takes an answer in parts, each of which may take the timeout; nil if there is only one
}

// call makes a call and returns the message that answers it. Its error is a *CallError or
// ErrClosed.
func (c *Client) call(ctx context.Context, addr string, cl *call, p policy) (answer []byte, err error) {
	begun := time.Now()
	answer, err = c.tries(ctx, addr, cl, p)
	c.counts.called(begun, err)
	return answer, err
}

// tries is call, as often as p allows.
func (c *Client) tries(ctx context.Context, addr string, cl *call, p policy) ([]byte, error) {
	pool, err := c.enter(addr)
	if err != nil {
		return nil, err
	}
	defer c.leave(addr, pool)
	frame := endFrame(appendCall(beginFrame(nil), cl))
	if len(frame) > maxFrame+frameHeader {
		return nil, &CallError{Addr: addr, Err: fmt.Errorf("request of %d bytes: %w", len(frame), ErrTooLarge)}
	}
	p.timeout = cmp.Or(p.timeout, callTimeout)
	attempts := max(1, p.retries)
	forced := false
	for n := 0; ; n++ {
		last := n == attempts
		answer, renewed, err := c.attempt(ctx, addr, pool, frame, &p, last)
		if renewed && !forced {
			c.counts.fresh.Add(1)
			forced = true
		}
		if err == nil {
			return answer, nil
		}
		err.Sent = err.Sent && !p.repeatable
		if last || p.once || ctx.Err() != nil || err.Sent || p.parts != nil && !p.parts.again() {
			return nil, err
		}
		c.counts.retry(cl.typ)
		c.log.Debug("call tried again", "peer", addr, "attempt", n+1, "err", err)
	}
}

// attempt sends frame and waits for the answer, once. It reports whether it had to open a
// connection although there was one, or was asked to.
func (c *Client) attempt(ctx context.Context, addr string, pool *pool, frame []byte, p *policy, fresh bool,
) (answer []byte, renewed bool, failed *CallError) {
	attempt, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	conn, renewed, err := c.take(attempt, addr, pool, fresh)
	if err != nil {
		return nil, renewed, &CallError{Addr: addr, Err: cause(ctx, err)}
	}
	deadline, _ := attempt.Deadline()
	answer, sent, err := exchange(ctx, conn, frame, deadline, p)
	if err == nil {
		c.give(pool, conn)
		return answer, renewed, nil
	}
	c.drop(pool, conn)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		if sent {
			c.counts.readTimeouts.Add(1)
		} else {
			c.counts.writeTimeouts.Add(1)
		}
	}
	return nil, renewed, &CallError{Addr: addr, Sent: sent, Err: cause(ctx, err)}
}

// cause returns err, which the network reported, unless it is because the caller went away.
func cause(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return context.Cause(ctx)
	}
	return err
}

// exchange sends frame on conn and reads the answer, or the last part of it. It reports whether the network has
// taken all of frame, without which no node acts on it.
func exchange(ctx context.Context, conn net.Conn, frame []byte, deadline time.Time, p *policy) (answer []byte, sent bool, err error) {
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, false, err
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		conn.SetDeadline(time.Unix(0, 1))
	})
	defer func() {
		if !stop() {
			<-stopped // or it could disturb the next call on conn
		}
	}()
	if _, err := conn.Write(frame); err != nil {
		return nil, false, fmt.Errorf("write protobuf bytes: %w", err)
	}
	for {
		size, err := readLength(conn, maxFrame)
		if err != nil {
			return nil, true, fmt.Errorf("read protobuf length: %w", err)
		}
		answer, err = readBody(conn, size, reusable(answer), nil)
		if err != nil {
			return nil, true, fmt.Errorf("read protobuf bytes: %w", err)
		}
		if p.parts == nil {
			return answer, true, nil
		}
		more, err := p.parts.take(answer)
		if err != nil || !more {
			return answer, true, err
		}
		if err := conn.SetDeadline(time.Now().Add(p.timeout)); err != nil {
			return nil, true, err
		}
		if ctx.Err() != nil {
			return nil, true, context.Cause(ctx) // its deadline may have been replaced just now
		}
	}
}
