package http

import (
	"errors"
	"net/http"
	"net/http/pprof"
	"slices"
	"strings"

	"rqlited/auth"
	"rqlited/internal/budget"
)

const (
	jsonType = "application/json; charset=utf-8"
	textType = "text/plain; charset=utf-8"
)

// call is a request on its way through a handler.
type call struct {
	*http.Request
	params *params
	caller caller
	claim  *budget.Claim // of the body
}

// caller are the credentials that came with a request; empty if none did.
type caller struct{ username, password string }

// route is one endpoint.
type route struct {
	path    string
	prefix  bool     // path is the beginning of the paths served
	methods []string // nil is any
	perms   []string // all of them are needed
	ctype   string   // Content-Type of the answer, errors without text included; empty leaves it open
	count   counter  // counts calls, rejected ones included
	serve   func(http.ResponseWriter, *call) error
}

// table is the whole HTTP surface: what is not listed does not exist.
func (s *Server) table() []route {
	get, post := []string{http.MethodGet}, []string{http.MethodPost}
	getPost := []string{http.MethodGet, http.MethodPost}
	status := []string{"status"}
	return []route{
		{path: "/", count: noCounter, serve: s.root},
		{path: "/db/execute", prefix: true, methods: post, perms: []string{"execute"}, ctype: jsonType, count: executions, serve: s.execute},
		{path: "/db/query", prefix: true, methods: getPost, perms: []string{"query"}, ctype: jsonType, count: queries, serve: s.query},
		{path: "/db/request", prefix: true, methods: post, perms: []string{"query", "execute"}, ctype: jsonType, count: requests, serve: s.unified},
		{path: "/db/sql", prefix: true, methods: getPost, perms: []string{"query"}, ctype: jsonType, count: analyses, serve: s.analyse},
		{path: "/db/backup", prefix: true, methods: get, perms: []string{"backup"}, count: backups, serve: s.backup},
		{path: "/db/load", prefix: true, methods: post, perms: []string{"load"}, count: loads, serve: s.load},
		{path: "/boot", methods: post, perms: []string{"load"}, count: boots, serve: s.boot},
		{path: "/db/hash", methods: get, perms: status, ctype: jsonType, count: noCounter, serve: s.hash},
		{path: "/snapshot", methods: post, perms: []string{"snapshot"}, count: userSnapshots, serve: s.snapshot},
		{path: "/reap", methods: post, perms: []string{"snapshot"}, ctype: jsonType, count: userReaps, serve: s.reap},
		{path: "/remove", prefix: true, methods: []string{http.MethodDelete}, perms: []string{"remove"}, count: noCounter, serve: s.remove},
		{path: "/status", prefix: true, methods: get, perms: status, ctype: jsonType, count: statusCalls, serve: s.status},
		{path: "/extensions", methods: get, perms: status, ctype: jsonType, count: noCounter, serve: s.extensions},
		{path: "/licenses", methods: get, perms: status, ctype: textType, count: noCounter, serve: s.license},
		{path: "/nodes", prefix: true, methods: get, perms: status, ctype: jsonType, count: noCounter, serve: s.nodes},
		{path: "/leader", methods: getPost, perms: []string{"leader-ops"}, ctype: jsonType, count: noCounter, serve: s.leader},
		{path: "/readyz", prefix: true, methods: get, perms: []string{"ready"}, ctype: textType, count: readyChecks, serve: s.readyz},
		{path: "/metrics", methods: get, perms: status, count: noCounter, serve: s.scrape},
		{path: "/debug/vars", perms: status, ctype: jsonType, count: noCounter, serve: s.vars},
		{path: "/debug/pprof/cmdline", perms: status, count: noCounter, serve: plain(pprof.Cmdline)},
		{path: "/debug/pprof/profile", perms: status, count: noCounter, serve: plain(pprof.Profile)},
		{path: "/debug/pprof/symbol", perms: status, count: noCounter, serve: plain(pprof.Symbol)},
		{path: "/debug/pprof", prefix: true, perms: status, count: noCounter, serve: plain(pprof.Index)},
	}
}

// plain adapts a handler of the standard library, which reports its errors itself.
func plain(h http.HandlerFunc) func(http.ResponseWriter, *call) error {
	return func(w http.ResponseWriter, c *call) error {
		h(w, c.Request)
		return nil
	}
}

// route returns the first route of the table that path belongs to. Paths are taken as they are:
// nothing is cleaned, and a trailing slash counts.
func (s *Server) route(path string) (*route, bool) {
	i := slices.IndexFunc(s.routes, func(rt route) bool {
		return path == rt.path || rt.prefix && strings.HasPrefix(path, rt.path)
	})
	if i < 0 {
		return nil, false
	}
	return &s.routes[i], true
}

// serve checks permission and method, in this order, and has the route answer.
func (s *Server) serve(w http.ResponseWriter, r *http.Request, rt *route, p *params) error {
	if rt.count != noCounter {
		s.counters.add(rt.count, 1)
	}
	if rt.ctype != "" {
		w.Header().Set("Content-Type", rt.ctype)
	}
	c := &call{Request: r, params: p, claim: s.bodies.Claim()}
	defer c.claim.Release()
	c.caller.username, c.caller.password, _ = r.BasicAuth()
	for _, perm := range rt.perms {
		if err := s.permit(c.caller, perm); err != nil {
			return err
		}
	}
	if rt.methods != nil && !slices.Contains(rt.methods, r.Method) {
		return errMethod
	}
	return rt.serve(w, c)
}

// permit checks and counts one permission.
func (s *Server) permit(c caller, perm string) error {
	if s.cfg.Auth != nil {
		if err := s.cfg.Auth.Permit(c.username, c.password, perm); err != nil {
			s.counters.add(authFail, 1)
			if errors.Is(err, auth.ErrBusy) {
				return busy("%s", err)
			}
			return errUnauthorized
		}
	}
	s.counters.add(authOK, 1)
	return nil
}

// root sends browsers to something to look at.
func (s *Server) root(w http.ResponseWriter, c *call) error {
	http.Redirect(w, c.Request, "/status", http.StatusFound)
	return nil
}

// redirect sends the client to the leader, with the same path and parameters.
func (s *Server) redirect(w http.ResponseWriter, c *call) error {
	ctx, cancel := c.within()
	defer cancel()
	base, err := s.peers.LeaderAPI(ctx)
	if err != nil {
		s.log.Debug("client not redirected", "err", err)
		return errNoRedirect
	}
	w.Header().Set("Location", base+c.URL.EscapedPath()+"?"+c.URL.RawQuery)
	w.WriteHeader(http.StatusMovedPermanently)
	return nil
}
