package cluster

import (
	"cmp"
	"context"
	"log/slog"
	"net"
	"sync"
	"time"

	"rqlited/command"
	"rqlited/store"
)

// Node is the part of the store that peers may use.
type Node interface {
	Do(ctx context.Context, req *command.Request) (*command.Response, error)
	Leader() (store.Server, bool)
	CommitIndex() uint64
	HashAt(ctx context.Context, index uint64) (store.StateHash, error)
	Notify(ctx context.Context, sv store.Server) error
	Join(ctx context.Context, sv store.Server) error
	Remove(ctx context.Context, id string) error
	Stepdown(ctx context.Context, id string, wait bool) error
}

// Authorizer says whether a user may do what needs a permission of the credentials file.
type Authorizer interface {
	Permitted(username, password, permission string) bool
}

// ServiceConfig configures a Service. NewService copies it.
type ServiceConfig struct {
	URL     string // base URL of this node's HTTP API, scheme included
	Version string // release, as peers see it

	Auth Authorizer // nil permits everything

	// Idle is how long a connection may be without a call. Some peers keep connections and
	// fail the calls that find them closed, so it should be minutes. Zero means 10 min.
	Idle time.Duration

	// Stall is how long a peer may pause within a call or an answer. Zero means 30 s.
	Stall time.Duration

	// Grace is how long calls may still run once the Service is being closed. Zero means 5 s.
	Grace time.Duration

	Logger *slog.Logger // nil discards
}

func (c ServiceConfig) withDefaults() ServiceConfig {
	c.Idle = cmp.Or(c.Idle, 10*time.Minute)
	c.Stall = cmp.Or(c.Stall, 30*time.Second)
	c.Grace = cmp.Or(c.Grace, 5*time.Second)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Service answers the calls of peers, on this node and without calling further.
type Service struct {
	cfg  ServiceConfig
	log  *slog.Logger
	node Node
	ln   net.Listener

	drain context.CancelFunc // ends the acceptor, and connections once they have answered
	abort context.CancelFunc // ends calls under way
	done  sync.WaitGroup     // the acceptor, and one for each connection

	counts serviceCounts
}

// NewService starts to answer the calls that arrive on ln.
func NewService(ln net.Listener, node Node, cfg ServiceConfig) *Service {
	cfg = cfg.withDefaults()
	s := &Service{cfg: cfg, log: cfg.Logger, node: node, ln: ln}
	ctx, abort := context.WithCancel(context.Background())
	drained, drain := context.WithCancel(ctx)
	s.drain, s.abort = drain, abort
	s.done.Go(func() { s.accept(ctx, drained) })
	return s
}

// Close ends the service: no call is accepted any more, those under way may end within Grace, and
// are then cancelled. It waits for them.
func (s *Service) Close() error {
	err := s.ln.Close()
	s.drain()
	grace := time.AfterFunc(s.cfg.Grace, s.abort)
	defer grace.Stop()
	s.done.Wait()
	s.abort()
	return err
}

// accept runs until the listener is closed. A call may run until ctx ends, a connection waits for
// one until idle ends.
func (s *Service) accept(ctx, idle context.Context) {
	for {
		conn, err := s.ln.Accept()
		if err != nil {
			return
		}
		s.done.Go(func() { s.serve(ctx, idle, conn) })
	}
}

// serve answers the calls on conn, one after the other, until it makes no sense.
func (s *Service) serve(ctx, idle context.Context, conn net.Conn) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	// A read that is under way ends; a call and its answer do not.
	defer context.AfterFunc(idle, func() { conn.SetReadDeadline(time.Unix(0, 1)) })()

	p := &caller{Conn: conn, stall: s.cfg.Stall}
	var in, out []byte
	for {
		var err error
		if in, err = s.next(idle, p, in); err == nil {
			out, err = s.answer(ctx, out, in, p)
		}
		if err == nil {
			err = ctx.Err() // a call that was cut short has no answer: its outcome is unknown
		}
		if err == nil {
			err = writeFrame(conn, out, s.cfg.Stall)
		}
		if err != nil {
			if refused(err) {
				s.log.Warn("call refused", "peer", conn.RemoteAddr().String(), "err", err)
			}
			return
		}
		in, out = reusable(in), reusable(out)
	}
}

// next waits for the next call.
func (s *Service) next(idle context.Context, p *caller, buf []byte) ([]byte, error) {
	r := &callReader{caller: p, idle: idle, wait: s.cfg.Idle, stall: s.cfg.Stall}
	return readFrame(r, buf)
}

// callReader gives a peer one time to begin a call and another to go on with it.
type callReader struct {
	caller      *caller
	idle        context.Context
	wait, stall time.Duration
}

func (r *callReader) Read(p []byte) (int, error) {
	if early := r.caller.early; len(early) > 0 {
		n := copy(p, early)
		r.caller.early = early[n:]
		r.wait = r.stall
		return n, nil
	}
	if err := r.caller.SetReadDeadline(time.Now().Add(r.wait)); err != nil {
		return 0, err
	}
	if err := r.idle.Err(); err != nil {
		return 0, err // after the deadline: the end of idle sets one as well
	}
	n, err := r.caller.Read(p[:min(len(p), frameChunk)])
	r.wait = r.stall
	return n, err
}

// reusable returns b for another message, unless it is too large to keep.
func reusable(b []byte) []byte {
	if cap(b) > 16*frameChunk {
		return nil
	}
	return b[:0]
}
