package http

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"

	"rqlited/store"
)

// nodeInfo is how /nodes and /leader show a node.
type nodeInfo struct {
	ID        string  `json:"id,omitempty"`
	APIAddr   string  `json:"api_addr,omitempty"`
	Addr      string  `json:"addr"`
	Version   string  `json:"version"`
	Voter     bool    `json:"voter"`
	Reachable bool    `json:"reachable"`
	Leader    bool    `json:"leader"`
	Time      float64 `json:"time,omitempty"`   // seconds
	TimeText  string  `json:"time_s,omitempty"` // the same, for people
	Error     string  `json:"error,omitempty"`
}

// nodes serves GET /nodes.
func (s *Server) nodes(w http.ResponseWriter, c *call) error {
	servers, err := s.node.Servers()
	if err != nil {
		return &statusError{http.StatusServiceUnavailable, "store nodes: " + store.Text(err)}
	}
	if !c.params.has("nonvoters") {
		servers = slices.DeleteFunc(slices.Clone(servers), func(sv store.Server) bool { return !sv.Voter })
	}
	infos := s.askAll(c, servers)
	if c.params.get("ver") == "2" {
		return writeJSON(w, c, map[string]any{"nodes": infos})
	}
	byID := make(map[string]nodeInfo, len(infos))
	for _, info := range infos {
		byID[info.ID] = info
	}
	return writeJSON(w, c, byID)
}

// askAll asks all servers at once and returns the answers ordered by id.
func (s *Server) askAll(c *call, servers []store.Server) []nodeInfo {
	leader, _ := s.node.Leader()
	infos := make([]nodeInfo, len(servers))
	panicked := make([]any, len(servers))
	var asked sync.WaitGroup
	for i, sv := range servers {
		asked.Go(func() {
			defer func() { panicked[i] = recover() }() // nobody else would: it would end the process
			infos[i] = s.ask(c, sv, leader.Addr)
		})
	}
	asked.Wait()
	for _, v := range panicked {
		if v != nil {
			panic(v)
		}
	}
	slices.SortFunc(infos, func(a, b nodeInfo) int { return cmp.Compare(a.ID, b.ID) })
	return infos
}

// ask asks one server about itself.
func (s *Server) ask(c *call, sv store.Server, leaderAddr string) nodeInfo {
	ctx, cancel := c.within()
	defer cancel()
	info := nodeInfo{ID: sv.ID, Addr: sv.Addr, Voter: sv.Voter}
	start := time.Now()
	meta, err := s.peers.Meta(ctx, sv.Addr, c.params.retries)
	took := time.Since(start)
	// A connection may notice the deadline that it has from ctx before ctx does.
	deadline, bounded := ctx.Deadline()
	if err != nil && (errors.Is(ctx.Err(), context.DeadlineExceeded) || bounded && !time.Now().Before(deadline)) {
		info.Error = "timeout waiting for node to respond"
		return info
	}
	if err != nil {
		info.Error = store.Text(err)
		return info
	}
	info.APIAddr = meta.URL
	info.Version = meta.Version
	info.Reachable = true
	info.Leader = sv.Addr == leaderAddr
	info.Time = took.Seconds()
	info.TimeText = took.String()
	return info
}

// writeJSON answers with what encoding/json makes of v, for answers whose size does not matter.
func writeJSON(w http.ResponseWriter, c *call, v any) error {
	b, err := marshal(v, c.params.has("pretty"))
	if err != nil {
		return err
	}
	_, _ = w.Write(b) // a client that has gone needs no answer
	return nil
}

func marshal(v any, pretty bool) ([]byte, error) {
	if pretty {
		return json.MarshalIndent(v, "", "    ")
	}
	return json.Marshal(v)
}
