package main

import (
	"maps"

	"rqlited/cluster"
	httpd "rqlited/http"
	"rqlited/store"
)

// apiConfig returns the settings of the HTTP API, with the parts of /status and /debug/vars that
// other packages know.
func (n *node) apiConfig(router *cluster.Router) httpd.Config {
	queue := n.cfg.http.queue
	queue.Bytes = n.room.queued()
	return httpd.Config{
		Version:     version,
		Addr:        n.cfg.http.public(),
		BindAddr:    n.cfg.http.bind,
		RaftAddr:    n.cfg.raft.public(),
		AllowOrigin: n.cfg.http.allowOrigin,
		TLS:         n.cfg.http.tls.status(),
		Build:       httpd.Build{Commit: commit},
		Monitoring: httpd.Monitoring{
			Status: map[string]func() any{
				"cluster":    func() any { return n.service.Status() },
				"extensions": n.late.extensions,
				"mux":        func() any { return n.mux.Status() },
				"store":      n.late.status,
			},
			Vars: map[string]func() map[string]int64{
				"cluster":  n.clusterCounters,
				"db":       n.late.counters((*store.Store).DatabaseCounters),
				"mux":      n.mux.Counters,
				"proto":    n.late.counters((*store.Store).EntryCounters),
				"proxy":    router.Counters,
				"snapshot": n.late.counters((*store.Store).SnapshotCounters),
				"store":    n.late.counters((*store.Store).Counters),
			},
			Metrics:      n.late.metrics,
			Pools:        n.pools,
			Certificates: n.tls.shown,
		},
		Limits: n.room.clients(n.cfg.store.MaxReaders),
		Queue:  queue,
		Logger: n.log,
	}
}

// pools returns the connections to other nodes, or nil if none was needed yet.
func (n *node) pools() any {
	if pools := n.client.Pools(); len(pools) > 0 {
		return pools
	}
	return nil
}

// clusterCounters joins what the two sides of a call count.
func (n *node) clusterCounters() map[string]int64 {
	counters := n.service.Counters()
	maps.Copy(counters, n.client.Counters())
	counters["num_conn_rejected"] = n.mux.Rejected()
	return counters
}
