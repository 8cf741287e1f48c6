package http

import "sync/atomic"

// counter is an index of counters.
type counter int

const (
	noCounter counter = iota - 1
	analyses
	authFail
	authOK
	backups
	boots
	executeStmts
	executions
	leaderNotFound
	loads
	panics
	queries
	queryStmts
	queuedExecutions
	queuedFailed
	queuedFound
	queuedLeadershipLost
	queuedNoLeader
	queuedNotLeader
	queuedOK
	queuedRefused
	queuedRepeated
	queuedStmtErrors
	queuedStmts
	queuedStmtsSent
	queuedUnknownError
	queuedWait
	queuedWaitTimeout
	readyChecks
	requestStmts
	requests
	statusCalls
	userReaps
	userSnapshots
	numCounters
)

// counterNames are the names in the "http" map of /debug/vars.
var counterNames = [numCounters]string{
	analyses:       "sql_analyze",
	authFail:       "auth_fail",
	authOK:         "auth_ok",
	backups:        "backups",
	boots:          "boot",
	executeStmts:   "execute_stmts_rx",
	executions:     "executions",
	leaderNotFound: "leader_not_found",
	loads:          "loads",
	panics:         "panics",
	queries:        "queries",
	queryStmts:     "query_stmts_rx",

	queuedExecutions:     "queued_executions",
	queuedFailed:         "queued_executions_failed", // attempts; the reasons are among the others
	queuedFound:          "queued_executions_found",  // batches found in the log after an unknown outcome; ours
	queuedLeadershipLost: "queued_executions_leadership_lost",
	queuedNoLeader:       "queued_executions_no_leader",
	queuedNotLeader:      "queued_executions_not_leader",
	queuedOK:             "queued_executions_ok",          // batches
	queuedRefused:        "queued_executions_refused",     // requests given up; ours
	queuedRepeated:       "queued_executions_repeated",    // attempts after one of which nobody knows; ours
	queuedStmtErrors:     "queued_executions_stmt_errors", // ours
	queuedStmts:          "queued_executions_num_stmts_rx",
	queuedStmtsSent:      "queued_executions_num_stmts_tx",
	queuedUnknownError:   "queued_executions_unknown_error",
	queuedWait:           "queued_executions_wait",
	queuedWaitTimeout:    "queued_executions_wait_timeout",

	readyChecks:   "num_readyz",
	requestStmts:  "request_stmts_rx",
	requests:      "requests",
	statusCalls:   "num_status",
	userReaps:     "user_reaps",
	userSnapshots: "user_snapshots",
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
