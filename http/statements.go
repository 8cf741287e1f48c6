package http

import (
	"context"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"rqlited/command"
	"rqlited/store"
)

// within returns the context of a call bounded by its timeout parameter.
func (c *call) within() (context.Context, context.CancelFunc) {
	return context.WithTimeout(c.Context(), c.params.timeout)
}

// execute serves POST /db/execute.
func (s *Server) execute(w http.ResponseWriter, c *call) error {
	if c.params.has("queue") {
		return s.enqueue(w, c)
	}
	return s.run(w, c, command.Execute, executeStmts, "Execute")
}

// query serves GET and POST /db/query.
func (s *Server) query(w http.ResponseWriter, c *call) error {
	return s.run(w, c, command.Query, queryStmts, "query")
}

// unified serves POST /db/request.
func (s *Server) unified(w http.ResponseWriter, c *call) error {
	return s.run(w, c, command.Unified, requestStmts, "Request")
}

// run answers a request of kind k. Act is what the leader refuses, if it does.
func (s *Server) run(w http.ResponseWriter, c *call, k command.Kind, count counter, act string) error {
	start := time.Now()
	stmts, err := s.statements(w, c, k)
	if err != nil {
		return err
	}
	s.counters.add(count, len(stmts))
	req := c.params.request(k, c.caller)
	req.Statements = stmts

	out := newEncoder(formOf(c.params, k), w)
	if loggedText(req) && !validText(stmts) {
		out.finish(nil, "string field contains invalid UTF-8", time.Since(start))
		return nil
	}
	if k != command.Execute {
		req.Sink = out
	}
	resp, err := s.db.Do(c.Context(), req)
	switch {
	case err == nil:
		out.servedBy = s.servedBy(resp.ServedBy)
		out.finish(resp, "", time.Since(start))
	case !out.Begin(""):
		// A part is with the client. What it belongs to says in a later place that it is one.
		_, text := statusOf(remoteError(err, act))
		out.finish(nil, text, time.Since(start))
	case inBand(err):
		out.finish(nil, store.Text(err), time.Since(start))
	case req.Forward.Never && leaderUnknown(err):
		return s.redirect(w, c)
	default:
		return remoteError(err, act)
	}
	return nil
}

// servedBy returns the address of the node that answered: this one if nobody says otherwise.
func (s *Server) servedBy(addr string) string {
	if addr == "" {
		return s.cfg.Addr
	}
	return addr
}

// statements reads the statements of a request.
func (s *Server) statements(w http.ResponseWriter, c *call, k command.Kind) ([]command.Statement, error) {
	if c.Method == http.MethodGet {
		return []command.Statement{{SQL: c.params.get("q")}}, nil
	}
	body, err := s.readBody(w, c)
	if err != nil {
		return nil, err
	}
	if k != command.Unified && strings.HasPrefix(c.Header.Get("Content-Type"), "text/plain") {
		return []command.Statement{{SQL: string(body)}}, nil
	}
	return decodeStatements(body, s.cfg.Limits.Statements)
}

// loggedText reports whether the text of req's statements may become part of a log entry.
func loggedText(req *command.Request) bool {
	return req.Kind != command.Query || req.Level == command.Strong || req.Level == command.Linearizable
}

// validText reports whether all SQL is UTF-8. Nodes of rqlite cannot read a log entry where it is
// not, so it must not get there. Only raw bodies can hold such text: JSON strings are repaired.
func validText(stmts []command.Statement) bool {
	for i := range stmts {
		if !utf8.ValidString(stmts[i].SQL) {
			return false
		}
	}
	return true
}
