package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"
	"unsafe"

	"rqlited/command"
	"rqlited/internal/budget"
	"rqlited/internal/certs"
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
	Backup(ctx context.Context, req *command.BackupRequest, w io.Writer) error
	Load(ctx context.Context, r io.Reader) (index uint64, err error)
}

// Authorizer says whether a user may do what needs a permission of the credentials file: Permit returns nil
// if so, auth.ErrDenied if not, and auth.ErrBusy if that can't be told just now.
type Authorizer interface {
	Permit(username, password, permission string) error
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

	// Memory bounds, in bytes, what all calls take that are being read and carried out. Zero means 1 GiB.
	Memory int64

	// Grace is how long calls may still run once the Service is being closed. Zero means 5 s.
	Grace time.Duration

	Logger *slog.Logger // nil discards
}

func (c ServiceConfig) withDefaults() ServiceConfig {
	c.Idle = cmp.Or(c.Idle, 10*time.Minute)
	c.Stall = cmp.Or(c.Stall, 30*time.Second)
	c.Memory = cmp.Or(c.Memory, 1<<30)
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

	lines  *certs.Complaints
	memory *budget.Budget

	drain context.CancelFunc // ends the acceptor, and connections once they have answered
	abort context.CancelFunc // ends calls under way
	done  sync.WaitGroup     // the acceptor, and one for each connection

	counts serviceCounts
}

// NewService starts to answer the calls that arrive on ln.
func NewService(ln net.Listener, node Node, cfg ServiceConfig) *Service {
	cfg = cfg.withDefaults()
	s := &Service{cfg: cfg, log: cfg.Logger, node: node, ln: ln, lines: certs.NewComplaints(cfg.Logger), memory: budget.New(cfg.Memory)}
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
	for {
		if err := s.exchange(ctx, idle, p); err != nil {
			if refused(err) {
				s.lines.Warn("call refused", err.Error(), slog.String("peer", conn.RemoteAddr().String()))
			}
			return
		}
	}
}

// exchange waits for the next call and answers it.
func (s *Service) exchange(ctx, idle context.Context, p *caller) error {
	claim := s.memory.Claim()
	defer claim.Release()
	c, in, err := s.next(idle, p, claim)
	if err != nil && !isFull(err) {
		return err
	}
	work(p.Conn, true)
	defer work(p.Conn, false)
	failed := s.obstacle(&c, claim, err)
	if failed == nil {
		switch c.typ {
		case callBackupStream:
			return s.backupStream(ctx, p, &c)
		case callLoadStream:
			return s.loadStream(ctx, p, &c)
		}
	}
	out, err := s.respond(ctx, p, &c, failed)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err // a call that was cut short has no answer: its outcome is unknown
	}
	prove(p.Conn)
	if err := writeFrame(p, out, s.cfg.Stall); err != nil {
		return err
	}
	p.in, p.out = reusable(in), reusable(out)
	return nil
}

// obstacle says why c is not carried out: because of full, for which there is only the beginning of it, because of what it
// would take, or because of who makes it.
func (s *Service) obstacle(c *call, claim *budget.Claim, full error) error {
	if full != nil {
		return &store.OverloadError{Msg: full.Error()}
	}
	s.counts.count(c.typ)
	if err := fits(c, claim); err != nil {
		return err
	}
	return s.refusal(c)
}

// respond returns the answer to c, which is not carried out if the caller leaves. A file that it has comes on the connection,
// where its end shows.
func (s *Service) respond(ctx context.Context, p *caller, c *call, failed error) ([]byte, error) {
	if c.file == nil {
		watched, end := p.watch(ctx)
		defer end()
		ctx = watched
	}
	return s.answer(ctx, p.out, c, failed, p)
}

// fits says why the statements of c, if it has any, cannot be taken.
func fits(c *call, claim *budget.Claim) error {
	if c.typ != callExecute && c.typ != callQuery && c.typ != callRequest {
		return nil
	}
	statements, params, err := command.CountRequest(c.body)
	if err != nil {
		return nil // whoever decodes it says so
	}
	if statements > command.MaxStatements {
		return &store.RequestError{Msg: fmt.Sprintf("request has more than %d statements", command.MaxStatements)}
	}
	if params > command.MaxParams {
		return &store.RequestError{Msg: fmt.Sprintf("request has more than %d parameters", command.MaxParams)}
	}
	const perStatement, perParam = 2 * unsafe.Sizeof(command.Statement{}), 2 * unsafe.Sizeof(command.Param{}) // while a slice grows
	if err := claim.Raise(int64(2*len(c.body)) + int64(statements)*int64(perStatement) + int64(params)*int64(perParam)); err != nil {
		return &store.OverloadError{Msg: err.Error()}
	}
	return nil
}

// next waits for the next call, which refers to the message returned with it. If there is no room for that, the call has no
// more than a type and comes with a *budget.FullError, and the rest has been skipped. A SQLite file in it is left on the connection.
func (s *Service) next(idle context.Context, p *caller, claim *budget.Claim) (c call, in []byte, err error) {
	r := &callReader{caller: p, idle: idle, wait: s.cfg.Idle, stall: s.cfg.Stall}
	size, err := readLength(r, maxLoadFrame)
	if err != nil {
		return c, nil, err
	}
	if in, err = readBody(r, min(size, firstChunk), p.in[:0], claim); err != nil {
		return c, nil, err
	}
	if size > frameChunk {
		if c, ok := fileCall(in, size, r); ok {
			return c, in, nil
		}
		if size > maxFrame {
			return c, nil, fmt.Errorf("frame of %d bytes: %w", size, ErrTooLarge)
		}
	}
	in, full := readBody(r, size, in, claim)
	if !isFull(full) {
		if full == nil {
			c, full = decodeCall(in)
		}
		return c, in, full
	}
	if c.typ, err = beginningOfCall(in); err == nil {
		_, err = io.CopyN(io.Discard, r, int64(size-len(in)))
	}
	if err != nil {
		return c, nil, err
	}
	return c, in, full
}

func isFull(err error) bool {
	_, full := errors.AsType[*budget.FullError](err)
	return full
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
