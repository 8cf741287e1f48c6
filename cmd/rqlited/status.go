package main

import httpd "rqlited/http"

// apiConfig returns the settings of the HTTP API, with the parts of /status and /debug/vars that
// other packages know.
func (n *node) apiConfig() httpd.Config {
	return httpd.Config{
		Version:     version,
		Addr:        n.cfg.http.public(),
		BindAddr:    n.cfg.http.bind,
		RaftAddr:    n.cfg.raft.public(),
		AllowOrigin: n.cfg.http.allowOrigin,
		Build:       httpd.Build{Commit: commit},
		Status: map[string]func() any{
			"cluster":    n.clusterStatus,
			"extensions": func() any { return map[string][]string{"names": {}} },
			"mux":        n.muxStatus,
			"store":      n.late.stats,
		},
		Logger: n.log,
	}
}

func (n *node) clusterStatus() any {
	return map[string]string{
		"addr":     n.cfg.raft.public(),
		"api_addr": n.cfg.http.public(),
		"https":    "false",
	}
}

func (n *node) muxStatus() any {
	return map[string]string{
		"addr":     n.mux.Addr(),
		"handlers": "\x01\x02", // the first bytes that the port knows, as rqlite reports them
		"timeout":  "30s",
		"tls":      "disabled",
	}
}
