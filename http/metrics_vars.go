package http

import "github.com/prometheus/client_golang/prometheus"

// family is a metric whose values are counters of /debug/vars, which are counted once, for both.
type family struct {
	name, help string
	label      string // that tells the sources apart; empty if there is one
	gauge      bool
	from       []source
}

// source is one counter of /debug/vars.
type source struct{ vars, key, value string } // value is that of the label

// summary is the number of some things, and how long they took.
type summary struct {
	name, help  string
	vars        string
	count, time string
	unit        float64 // of time, in seconds
}

const (
	micro = 1e-6
	milli = 1e-3
)

// families are the metrics that are read from /debug/vars.
var families = []family{
	{name: "rqlited_http_statements_total", help: "Statements received, by endpoint.", label: "endpoint", from: []source{
		{"http", "execute_stmts_rx", "/db/execute"}, {"http", "query_stmts_rx", "/db/query"}, {"http", "request_stmts_rx", "/db/request"},
		{"http", "queued_executions_num_stmts_rx", "queue"},
	}},
	{name: "rqlited_http_panics_total", help: "Requests whose handler panicked.", from: []source{{vars: "http", key: "panics"}}},
	{name: "rqlited_http_leader_not_found_total", help: "Requests answered with 503 as no leader was known.",
		from: []source{{vars: "http", key: "leader_not_found"}}},
	{name: "rqlited_http_connections", help: "Connections of clients that are open.", gauge: true, from: []source{{vars: "limits", key: "connections"}}},
	{name: "rqlited_http_connections_limit", help: "Connections of clients that may be open.", gauge: true,
		from: []source{{vars: "limits", key: "connections_limit"}}},
	{name: "rqlited_http_connections_evicted_total", help: "Connections closed to make room for others.",
		from: []source{{vars: "limits", key: "connections_evicted"}}},
	{name: "rqlited_http_refused_total", help: "Connections and requests refused as the node was full.", label: "what",
		from: []source{{"limits", "connections_refused", "connection"}, {"limits", "requests_refused", "request"}}},
	{name: "rqlited_http_body_bytes", help: "Memory claimed for bodies of requests that are under way.", gauge: true,
		from: []source{{vars: "limits", key: "body_bytes"}}},
	{name: "rqlited_http_body_bytes_limit", help: "Memory that may be claimed for them.", gauge: true,
		from: []source{{vars: "limits", key: "body_bytes_limit"}}},
	{name: "rqlited_auth_checks_total", help: "Permissions checked, by result.", label: "result",
		from: []source{{"http", "auth_ok", "ok"}, {"http", "auth_fail", "fail"}}},

	{name: "rqlited_queue_calls_total", help: "Calls that queued a write.", from: []source{{vars: "http", key: "queued_executions"}}},
	{name: "rqlited_queue_wait_calls_total", help: "Calls that queued a write and waited until it was carried out.",
		from: []source{{vars: "http", key: "queued_executions_wait"}}},
	{name: "rqlited_queue_wait_timeouts_total", help: "Waits for queued writes that ended before these were carried out.",
		from: []source{{vars: "http", key: "queued_executions_wait_timeout"}}},
	{name: "rqlited_queue_full_total", help: "Queued writes refused as the queue was full for all the time that the client gave.",
		from: []source{{vars: "queue", key: "num_full"}}},
	{name: "rqlited_queue_batches_total", help: "Batches of queued writes that were carried out.",
		from: []source{{vars: "http", key: "queued_executions_ok"}}},
	{name: "rqlited_queue_batches_due_total", help: "Batches of queued writes that were not full, by why they were sent: their time had come, or room was needed.",
		label: "reason", from: []source{{"queue", "num_timeout", "timeout"}, {"queue", "num_flush", "flush"}}},
	{name: "rqlited_queue_statements_total", help: "Statements of queued writes, by how far they have come.", label: "stage",
		from: []source{{"queue", "objects_rx", "queued"}, {"http", "queued_executions_num_stmts_tx", "sent"}, {"queue", "objects_tx", "done"}}},
	{name: "rqlited_queue_attempt_failures_total", help: "Attempts to carry a batch of queued writes out that have failed, by reason; most are repeated.",
		label: "reason", from: []source{
			{"http", "queued_executions_no_leader", "no_leader"}, {"http", "queued_executions_not_leader", "not_leader"},
			{"http", "queued_executions_leadership_lost", "leadership_lost"}, {"http", "queued_executions_unknown_error", "unknown"},
		}},
	{name: "rqlited_queue_refused_requests_total", help: "Queued writes given up as they were refused for good.",
		from: []source{{vars: "http", key: "queued_executions_refused"}}},
	{name: "rqlited_queue_repeated_batches_total", help: "Batches of queued writes that may have been carried out twice.",
		from: []source{{vars: "http", key: "queued_executions_repeated"}}},
	{name: "rqlited_queue_found_batches_total", help: "Batches of queued writes of unknown outcome that turned out to have been carried out.",
		from: []source{{vars: "http", key: "queued_executions_found"}}},
	{name: "rqlited_queue_statement_errors_total", help: "Statements of queued writes that failed in SQLite.",
		from: []source{{vars: "http", key: "queued_executions_stmt_errors"}}},

	{name: "rqlited_raft_leader_changes_total", help: "Times that this node has learned of another leader, or of none.",
		from: []source{{vars: "store", key: "leader_changes_observed"}}},
	{name: "rqlited_raft_failed_heartbeats_total", help: "Heartbeats to other nodes that have failed.",
		from: []source{{vars: "store", key: "failed_heartbeat_observed"}}},
	{name: "rqlited_raft_proposal_failures_total", help: "Entries proposed by this node that were refused, or of which it does not know the outcome.",
		from: []source{{vars: "store", key: "num_proposals_failed"}}},
	{name: "rqlited_raft_verify_leader_failures_total", help: "Checks of the leadership, for linearizable reads, that have failed.",
		from: []source{{vars: "store", key: "num_verify_leader_failed"}}},
	{name: "rqlited_raft_entries_total", help: "Entries proposed by this node, by whether they were compressed.", label: "compressed",
		from: []source{{"proto", "num_compressed_requests", "yes"}, {"proto", "num_uncompressed_requests", "no"}}},
	{name: "rqlited_raft_entry_bytes_total", help: "Bytes of the entries proposed by this node, by whether they were compressed.", label: "compressed",
		from: []source{{"proto", "num_compressed_bytes", "yes"}, {"proto", "num_uncompressed_bytes", "no"}}},
	{name: "rqlited_raft_joins_total", help: "Nodes that were let into the cluster here, by what that changed.", label: "result", from: []source{
		{"store", "num_joins", "joined"}, {"store", "num_ignored_joins", "ignored"}, {"store", "num_removed_before_joins", "replaced"},
	}},
	{name: "rqlited_raft_reaped_nodes_total", help: "Dead nodes removed from the cluster by this leader, by result.", label: "result",
		from: []source{{"store", "nodes_reaped_ok", "ok"}, {"store", "nodes_reaped_failed", "fail"}}},

	{name: "rqlited_snapshots_total", help: "Snapshots taken of this node's database, by kind.", label: "kind",
		from: []source{{"store", "num_snapshots_full", "full"}, {"store", "num_snapshots_incremental", "incremental"}}},
	{name: "rqlited_snapshot_failures_total", help: "Snapshots that were begun and not published.", from: []source{{vars: "store", key: "num_snapshots_failed"}}},
	{name: "rqlited_snapshot_installs_total", help: "Snapshots received from a leader.", from: []source{{vars: "snapshot", key: "installs"}}},
	{name: "rqlited_snapshot_restores_total", help: "Snapshots that became the database, by when.", label: "when",
		from: []source{{"store", "num_restores_start", "start"}, {"store", "num_restores", "install"}}},
	{name: "rqlited_snapshot_restore_failures_total", help: "Snapshots that could not become the database.", from: []source{{vars: "store", key: "num_restores_failed"}}},
	{name: "rqlited_snapshot_skipped_restores_total", help: "Starts that kept the database, as it equals the newest snapshot.",
		from: []source{{vars: "store", key: "num_restores_start_skipped"}}},
	{name: "rqlited_snapshot_compactions_total", help: "Chains of snapshots rewritten, by whether in part or in full.", label: "extent",
		from: []source{{"snapshot", "merges", "part"}, {"snapshot", "full_compactions", "full"}}},
	{name: "rqlited_snapshot_skipped_compactions_total", help: "Compactions that were not begun for want of room on the disk.",
		from: []source{{vars: "snapshot", key: "compactions_skipped"}}},
	{name: "rqlited_snapshot_bytes_total", help: "Bytes of snapshots, by what for: changed is what they hold, compacted what compactions have written, written all that was.", label: "kind",
		from: []source{{"snapshot", "num_bytes_changed", "changed"}, {"snapshot", "num_bytes_compacted", "compacted"}, {"snapshot", "num_bytes_written", "written"}}},
	{name: "rqlited_snapshot_damaged_files_total", help: "Files of snapshots found damaged.", from: []source{{vars: "store", key: "num_snapshots_damaged"}}},
	{name: "rqlited_snapshot_lost_total", help: "Damaged chains of snapshots, by what was done: salvaged in part, or discarded.", label: "action",
		from: []source{{"store", "num_snapshots_salvaged", "salvaged"}, {"store", "num_snapshots_discarded", "discarded"}}},

	{name: "rqlited_hash_checks_total", help: "Comparisons of this leader's database with those of the members.", from: []source{{vars: "store", key: "num_hash_checks"}}},
	{name: "rqlited_hash_mismatches_total", help: "Members whose database differed from that of this leader, each time.",
		from: []source{{vars: "store", key: "num_hash_mismatches"}}},
	{name: "rqlited_hash_unanswered_total", help: "Members that had nothing to compare with, each time.", from: []source{{vars: "store", key: "num_hash_unanswered"}}},
	{name: "rqlited_transfers_total", help: "Databases that were backed up, loaded or booted from as a whole.", label: "kind",
		from: []source{{"store", "num_backups", "backup"}, {"store", "num_loads", "load"}, {"store", "num_boots", "boot"}}},

	{name: "rqlited_upkeep_total", help: "Times that the database was tidied up automatically, by how; every node does it.", label: "task",
		from: []source{{"store", "num_auto_vacuums", "vacuum"}, {"store", "num_auto_optimizes", "optimize"}}},
	{name: "rqlited_upkeep_failures_total", help: "Attempts of this leader to have the database tidied up that have failed, by how.", label: "task",
		from: []source{{"store", "num_auto_vacuums_failed", "vacuum"}, {"store", "num_auto_optimizes_failed", "optimize"}}},

	{name: "rqlited_sqlite_statements_total", help: "Statements run by SQLite, by kind; writes are run on every node.", label: "kind",
		from: []source{{"db", "executions", "write"}, {"db", "queries", "read"}}},
	{name: "rqlited_sqlite_statement_errors_total", help: "Statements that failed in SQLite, by kind.", label: "kind",
		from: []source{{"db", "execution_errors", "write"}, {"db", "query_errors", "read"}}},
	{name: "rqlited_sqlite_checkpoints_total", help: "Attempts to move the WAL into the database, by result; readers are in the way of a busy one.", label: "result",
		from: []source{{"db", "checkpoints", "ok"}, {"db", "checkpoint_busy_errors", "busy"}, {"db", "checkpoint_errors", "fail"}}},

	{name: "rqlited_forwarded_requests_total", help: "Requests that this node has passed on to the leader, by kind.", label: "kind", from: []source{
		{"proxy", "remote_executions", "execute"}, {"proxy", "remote_queries", "query"}, {"proxy", "remote_requests", "request"},
		{"proxy", "remote_remove_node", "remove"}, {"proxy", "remote_stepdowns", "stepdown"},
		{"proxy", "remote_backups", "backup"}, {"proxy", "remote_loads", "load"},
	}},
	{name: "rqlited_forward_failures_total", help: "Requests passed on to the leader that it did not carry out, by kind.", label: "kind", from: []source{
		{"proxy", "remote_executions_failed", "execute"}, {"proxy", "remote_queries_failed", "query"}, {"proxy", "remote_requests_failed", "request"},
	}},
	{name: "rqlited_peer_call_failures_total", help: "Calls of other nodes that had no answer.", from: []source{{vars: "cluster", key: "num_client_calls_failed"}}},
	{name: "rqlited_peer_call_retries_total", help: "Attempts to call other nodes that were repeated.", from: []source{{vars: "cluster", key: "num_client_retries"}}},
	{name: "rqlited_peer_call_timeouts_total", help: "Attempts to call other nodes whose time was up, by what the node waited for.", label: "direction",
		from: []source{{"cluster", "num_client_read_timeouts", "read"}, {"cluster", "num_client_write_timeouts", "write"}}},
	{name: "rqlited_peer_forced_connections_total", help: "Calls of other nodes that needed a new connection as those at hand were of no use.",
		from: []source{{vars: "cluster", key: "num_client_force_new_conn"}}},
	{name: "rqlited_peer_open_connections", help: "Connections for calls to other nodes that are open.", gauge: true, from: []source{{vars: "cluster", key: "client_conns_open"}}},
	{name: "rqlited_peer_idle_connections", help: "Those of them that wait for a call.", gauge: true, from: []source{{vars: "cluster", key: "client_conns_idle"}}},
	{name: "rqlited_peer_requests_total", help: "Calls received from other nodes, by kind.", label: "kind", from: []source{
		{"cluster", "num_execute_req", "execute"}, {"cluster", "num_query_req", "query"}, {"cluster", "num_request_req", "request"},
		{"cluster", "num_get_node_api_req", "meta"}, {"cluster", "num_join_req", "join"}, {"cluster", "num_notify_req", "notify"},
		{"cluster", "num_remove_node_req", "remove"}, {"cluster", "num_stepdown_req", "stepdown"}, {"cluster", "num_hash_req", "hash"},
		{"cluster", "num_backup_req", "backup"}, {"cluster", "num_load_req", "load"},
	}},
	{name: "rqlited_mux_connections_total", help: "Connections to the Raft port, by what became of them.", label: "result", from: []source{
		{"mux", "num_connections_handled", "ok"}, {"mux", "num_unregistered_handlers", "unknown"},
		{"mux", "num_connections_rejected", "rejected"}, {"cluster", "num_conn_rejected", "rejected_calls"},
	}},
	{name: "rqlited_mux_open_connections", help: "Connections at the Raft port that are open, by what for; those that this node has dialled are among Raft's.", label: "kind", gauge: true,
		from: []source{{"mux", "num_open_raft", "raft"}, {"mux", "num_open_calls", "calls"}}},
}

// summaries are those of the same kind that tell times.
var summaries = []summary{
	{"rqlited_queue_wait_seconds", "Time that a queued write has waited until it was decided.", "queue", "num_decided", "wait_us", micro},
	{"rqlited_raft_proposal_duration_seconds", "Time from handing an entry to Raft to its being committed and applied here.", "store", "num_proposals", "proposal_duration_us", micro},
	{"rqlited_raft_verify_leader_duration_seconds", "Time that a check of the leadership took, for linearizable reads.", "store", "num_verify_leader", "verify_leader_duration", milli},
	{"rqlited_fsm_apply_duration_seconds", "Time that applying an entry to the database took.", "store", "fsm_applies", "fsm_apply_duration_us", micro},
	{"rqlited_snapshot_duration_seconds", "Time that a snapshot took from its capture to its publication.", "store", "num_snapshots", "snapshot_persist_duration", milli},
	{"rqlited_snapshot_compaction_duration_seconds", "Time that a compaction took.", "snapshot", "reap_total", "reap_execute_duration_ms", milli},
	{"rqlited_upkeep_vacuum_duration_seconds", "Time that an automatic VACUUM took, during which writes wait.", "store", "num_auto_vacuums", "auto_vacuum_duration", milli},
	{"rqlited_upkeep_optimize_duration_seconds", "Time that the ANALYZEs of an automatic optimization took, during which writes wait.", "store", "num_auto_optimizes", "auto_optimize_duration", milli},
	{"rqlited_sqlite_checkpoint_duration_seconds", "Time that an attempt to move the WAL took, during which writes wait.", "db", "checkpoint_total", "checkpoint_duration_ms", milli},
	{"rqlited_peer_call_duration_seconds", "Time that a call of another node took, repetitions included.", "cluster", "num_client_calls", "client_call_duration_us", micro},
}

// varsCollector is the prometheus.Collector of families and summaries.
type varsCollector struct {
	counted   func(vars string) map[string]int64
	families  []*prometheus.Desc
	summaries []*prometheus.Desc
}

func newVarsCollector(counted func(vars string) map[string]int64) *varsCollector {
	c := &varsCollector{counted: counted}
	for _, f := range families {
		var labels []string
		if f.label != "" {
			labels = []string{f.label}
		}
		c.families = append(c.families, prometheus.NewDesc(f.name, f.help, labels, nil))
	}
	for _, s := range summaries {
		c.summaries = append(c.summaries, prometheus.NewDesc(s.name, s.help, nil, nil))
	}
	return c
}

// Describe implements prometheus.Collector.
func (c *varsCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.families {
		ch <- d
	}
	for _, d := range c.summaries {
		ch <- d
	}
}

// Collect implements prometheus.Collector. Each map is read once, so that what belongs together is of one moment.
func (c *varsCollector) Collect(ch chan<- prometheus.Metric) {
	maps := map[string]map[string]int64{}
	read := func(vars, key string) float64 {
		if maps[vars] == nil {
			maps[vars] = c.counted(vars)
		}
		return float64(maps[vars][key])
	}
	for i, f := range families {
		kind := prometheus.CounterValue
		if f.gauge {
			kind = prometheus.GaugeValue
		}
		for _, from := range f.from {
			var labels []string
			if f.label != "" {
				labels = []string{from.value}
			}
			ch <- prometheus.MustNewConstMetric(c.families[i], kind, read(from.vars, from.key), labels...)
		}
	}
	for i, s := range summaries {
		ch <- prometheus.MustNewConstSummary(c.summaries[i], uint64(read(s.vars, s.count)), read(s.vars, s.time)*s.unit, nil)
	}
}
