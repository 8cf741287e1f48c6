package http

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"sync/atomic"
	"time"

	"rqlited/internal/budget"
	"rqlited/internal/certs"
)

// Server serves the HTTP API of one node. It is safe for concurrent use.
type Server struct {
	cfg   Config // immutable
	db    Database
	node  Node
	peers Peers
	log   *slog.Logger

	routes   []route // immutable
	counters counters
	metrics  *metrics
	queue    *queue
	started  time.Time
	srv      *http.Server
	bounds

	lastBackup atomic.Pointer[time.Time] // nil before the first
}

// bounds are what all clients together may have.
type bounds struct {
	conns     conns
	admission admission
	bodies    *budget.Budget
}

const (
	// maxHeader bounds, in bytes, the request line and the headers.
	maxHeader = 64 << 10

	// Over HTTP/2, maxStreams bounds the requests under way on a connection, and maxBuffered the bytes of bodies
	// that it holds for handlers which do not read them.
	maxStreams  = 100
	maxBuffered = 256 << 10
)

// NewServer returns a Server that answers for db, n and p. Serve starts it.
func NewServer(cfg Config, db Database, n Node, p Peers) *Server {
	s := &Server{cfg: cfg.withDefaults(), db: db, node: n, peers: p, started: time.Now()}
	s.log = s.cfg.Logger
	s.routes = s.table()
	s.queue = newQueue(s.cfg.Queue, db, n, s.log, &s.counters, uint64(s.started.UnixNano()))
	s.metrics = newMetrics(s)
	s.bodies = budget.New(s.cfg.Limits.Bodies)
	s.admission.limit = s.cfg.Limits.Conns
	s.conns.limit = s.cfg.Limits.Conns
	s.conns.takers = s.cfg.Limits.Takers
	s.conns.complaints = certs.NewComplaints(s.log)
	s.srv = &http.Server{
		Handler:           s,
		ConnContext:       withConn,
		ConnState:         s.conns.changed,
		MaxHeaderBytes:    maxHeader,
		ReadHeaderTimeout: s.cfg.Limits.Stall,
		IdleTimeout:       s.cfg.Limits.Idle,
		ErrorLog:          newErrorLog(s.log),

		// Over HTTP/2 the deadlines of answer are those of one request. What the requests of a client share is
		// its connection, which ends if the client takes nothing from it, or does not answer when asked.
		HTTP2: &http.HTTP2Config{
			SendPingTimeout:  s.cfg.Limits.Stall,
			PingTimeout:      s.cfg.Limits.Stall,
			WriteByteTimeout: 2 * s.cfg.Limits.Stall,

			MaxConcurrentStreams:          maxStreams,
			MaxReceiveBufferPerConnection: maxBuffered,
			MaxReceiveBufferPerStream:     maxBuffered,
		},

		// OPTIONS * is answered like OPTIONS on any other target.
		DisableGeneralOptionsHandler: true,
	}
	return s
}

// Serve answers requests that arrive at ln, with TLS if secure is not nil, until Shutdown. It returns
// nil if it was Shutdown that ended it, and closes ln in any case.
func (s *Server) Serve(ln net.Listener, secure *tls.Config) error {
	ln = s.conns.listener(ln)
	if secure != nil {
		ln = tls.NewListener(ln, secure)
	}
	if err := s.srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve http at %s: %w", ln.Addr(), err)
	}
	return nil
}

// FlushQueue refuses queued writes from now on, and waits until those accepted are carried out. If
// ctx ends before, its cause is returned, and they are tried until Shutdown gives them up.
func (s *Server) FlushQueue(ctx context.Context) error { return s.queue.flush(ctx) }

// Shutdown stops accepting and waits until the requests under way are answered and the queued
// writes carried out. If ctx ends before, the connections are closed, which ends their contexts, the
// queued writes are given up, each of which is logged, and ctx's error is returned.
func (s *Server) Shutdown(ctx context.Context) error {
	s.queue.close() // requests that wait for it can end
	err := s.srv.Shutdown(ctx)
	if err != nil {
		err = fmt.Errorf("drain http requests: %w", errors.Join(err, s.srv.Close()))
	}
	s.queue.stop(ctx)
	return err
}

// ServeHTTP answers one request: headers, OPTIONS, query parameters and routing come before
// anything that an endpoint does, in this order.
func (s *Server) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w := newAnswer(rw, s.cfg.Limits.Stall)
	rt, found := s.route(r.URL.Path)
	defer s.metrics.begin(w, r, rt)()
	defer w.end()
	defer s.survive(w, r)
	s.setHeaders(w.Header())
	leave := s.admit(w, r)
	if leave == nil {
		return
	}
	defer leave()
	if r.Method == http.MethodOptions {
		w.WriteHeader(http.StatusOK)
		return
	}
	p, err := parseParams(r.URL.RawQuery)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	if !found {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	if err := s.serve(w, r, rt, p); err != nil {
		s.fail(w, r, err)
	}
}

// setHeaders sets the headers that every answer carries.
func (s *Server) setHeaders(h http.Header) {
	h.Set("X-Rqlite-Version", s.cfg.Version)
	h.Set("Access-Control-Allow-Methods", "OPTIONS, GET, POST")
	allowed := "Content-Type"
	if s.cfg.Auth != nil {
		allowed = "Content-Type, Authorization"
		h.Set("Access-Control-Allow-Credentials", "true")
		h.Set("Www-Authenticate", `Basic realm="rqlite"`)
	}
	h.Set("Access-Control-Allow-Headers", allowed)
	if s.cfg.AllowOrigin != "" {
		h.Set("Access-Control-Allow-Origin", s.cfg.AllowOrigin)
	}
}

// survive turns a panic of a handler into an answer, so that one request cannot end the process.
// An answer that has begun cannot become an error any more: its connection is cut instead, so that
// the client does not take a part for the whole.
func (s *Server) survive(w *answer, r *http.Request) {
	v := recover()
	if v == nil {
		return
	}
	if v == http.ErrAbortHandler {
		panic(v) // net/http's way to cut a connection
	}
	s.counters.add(panics, 1)
	s.log.Error("request handler panicked", "method", r.Method, "path", r.URL.Path, "panic", v, "stack", string(debug.Stack()))
	if w.begun {
		panic(http.ErrAbortHandler)
	}
	http.Error(w, "internal error", http.StatusInternalServerError)
}
