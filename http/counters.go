package http

import "sync/atomic"

// counter is an index of counters.
type counter int

const (
	noCounter counter = iota - 1
	authFail
	authOK
	executeStmts
	executions
	leaderNotFound
	panics
	queries
	queryStmts
	readyChecks
	requestStmts
	requests
	statusCalls
	userSnapshots
	numCounters
)

// counterNames are the names in the "http" map of /debug/vars.
var counterNames = [numCounters]string{
	authFail:       "auth_fail",
	authOK:         "auth_ok",
	executeStmts:   "execute_stmts_rx",
	executions:     "executions",
	leaderNotFound: "leader_not_found",
	panics:         "panics",
	queries:        "queries",
	queryStmts:     "query_stmts_rx",
	readyChecks:    "num_readyz",
	requestStmts:   "request_stmts_rx",
	requests:       "requests",
	statusCalls:    "num_status",
	userSnapshots:  "user_snapshots",
}

// counters count events since the start of the process.
type counters [numCounters]atomic.Int64

func (c *counters) add(n counter, delta int) { c[n].Add(int64(delta)) }

// stats returns the current values by name.
func (c *counters) stats() map[string]int64 {
	m := make(map[string]int64, numCounters)
	for i := range c {
		m[counterNames[i]] = c[i].Load()
	}
	return m
}
