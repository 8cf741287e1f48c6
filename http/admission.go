package http

import (
	"net/http"
	"sync"
)

// admission bounds the requests that are under way at a time, from the end of their headers to that of
// their answers. There may be as many as connections. Over HTTP/2 a client could have many of them on
// each of its connections; beyond half of the bound each connection has one.
type admission struct {
	limit int // immutable

	mu      sync.Mutex
	active  int   // guarded by mu
	refused int64 // guarded by mu
}

// enter lets a request in, which then leaves, or says why not. The connection may be nil.
func (a *admission) enter(c *clientConn) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var err error
	switch {
	case c != nil && c.surplus:
		err = busy("%d clients' connections with requests on them are open, which is all that this node takes", c.of.limit)
	case a.active >= a.limit:
		err = busy("%d requests are under way, which is all that this node takes", a.limit)
	case c != nil && c.active > 0 && a.active >= a.limit/2:
		err = tooMany("%d requests are under way on this connection: while this node has more than %d of all clients it takes one on each", c.active, a.limit/2)
	}
	if err != nil {
		a.refused++
		return err
	}
	a.active++
	if c != nil {
		c.active++
	}
	return nil
}

func (a *admission) leave(c *clientConn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.active--
	if c != nil {
		c.active--
	}
}

// vars adds to the "limits" map of /debug/vars.
func (a *admission) vars(m map[string]int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	m["requests"] = int64(a.active)
	m["requests_limit"] = int64(a.limit)
	m["requests_refused"] = a.refused
}

// admit lets r in and returns what ends it, or answers why not.
func (s *Server) admit(w http.ResponseWriter, r *http.Request) (leave func()) {
	c := connOf(r.Context())
	if err := s.admission.enter(c); err != nil {
		w.Header().Set("Connection", "close") // nobody reads what else it sends
		s.fail(w, r, err)
		return nil
	}
	return func() { s.admission.leave(c) }
}

// limitVars returns the "limits" map of /debug/vars: what there is of what is bounded, and the bounds.
func (s *Server) limitVars() map[string]int64 {
	m := map[string]int64{"body_bytes": s.bodies.Used(), "body_bytes_limit": s.cfg.Limits.Bodies}
	s.conns.vars(m)
	s.admission.vars(m)
	return m
}
