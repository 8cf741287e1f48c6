package http

import (
	"net/http"
	"strings"

	"rqlited/command"
	"rqlited/store"
)

// readyz serves GET /readyz. Every line begins alike, whether it tells good or bad news: clients
// go by the status.
func (s *Server) readyz(w http.ResponseWriter, c *call) error {
	lines, ready := s.readiness(c)
	if !ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_, _ = w.Write([]byte("[+]" + strings.Join(lines, "\n[+]"))) // a client that has gone needs no answer
	return nil
}

// readiness returns what was found, and whether the node is ready. The parts that have to wait for
// something are bounded by the timeout one by one.
func (s *Server) readiness(c *call) (lines []string, ready bool) {
	if err := s.node.Failed(); err != nil {
		return []string{"node not ok: (" + store.Text(err) + ")"}, false // whatever else it might still do
	}
	lines = []string{"node ok"}
	if c.params.has("noleader") {
		return lines, true
	}
	leader, ok := s.node.Leader()
	if !ok {
		return append(lines, "leader does not exist"), false
	}
	meta, err := s.leaderMeta(c, leader.Addr)
	if err != nil {
		return append(lines, "leader not contactable: "+store.Text(err)), false
	}
	lines = append(lines, "leader ok")
	if s.node.Ready() != nil {
		return append(lines, "store not ready"), false
	}
	lines = append(lines, "store ok")
	if c.params.has("sync") {
		if s.caughtUp(c, meta.CommitIndex) != nil {
			return append(lines, "sync timeout waiting for commit index"), false
		}
		lines = append(lines, "sync ok")
	}
	if text := s.probe(c); text != "" {
		return append(lines, "db not ok: ("+text+", [])"), false
	}
	return append(lines, "db ok"), true
}

func (s *Server) leaderMeta(c *call, addr string) (PeerMeta, error) {
	ctx, cancel := c.within()
	defer cancel()
	return s.peers.Meta(ctx, addr, c.params.retries)
}

func (s *Server) caughtUp(c *call, index uint64) error {
	ctx, cancel := c.within()
	defer cancel()
	return s.node.WaitApplied(ctx, index)
}

// probe asks the local database the least that can be asked, and returns what is wrong with it.
func (s *Server) probe(c *call) string {
	ctx, cancel := c.within()
	defer cancel()
	resp, err := s.db.Do(ctx, &command.Request{
		Kind:       command.Query,
		Level:      command.None,
		Statements: []command.Statement{{SQL: "SELECT 1"}},
	})
	if err != nil {
		return store.Text(err)
	}
	for _, r := range resp.Results {
		if r.Error != "" {
			return r.Error
		}
	}
	return ""
}
