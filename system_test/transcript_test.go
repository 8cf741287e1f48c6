package system

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestTranscripts plays what a single node answers, case by case.
func TestTranscripts(t *testing.T) {
	t.Parallel()
	playTranscripts(t, "testdata/transcripts")
}

// TestConformance plays rqlite's reference of its HTTP API, by its sections. Where the answer here is
// another one on purpose, the transcript has both, and why.
func TestConformance(t *testing.T) {
	t.Parallel()
	playTranscripts(t, "testdata/conformance")
}

// playTranscripts plays each transcript of the directory on nodes of its own and expects the answers
// byte for byte, but for what cannot be known beforehand.
func playTranscripts(t *testing.T, dir string) {
	names, err := filepath.Glob(filepath.Join(dir, "*.txt"))
	if err != nil || len(names) == 0 {
		t.Fatalf("%s: %v, %v", dir, names, err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txt"), func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			if err := os.CopyFS(s.dir, os.DirFS("testdata/files")); err != nil {
				t.Fatal(err)
			}
			s.playAll(name, readTranscript(t, name))
		})
	}
}

// playAll plays what was read from a file, to its end, on one node if it says nothing else.
func (s *stage) playAll(name string, all []*exchange) {
	s.t.Helper()
	for _, x := range all {
		if x.direction == "" && s.nodes == nil {
			s.direct("nodes 1")
		}
		if d := s.play(x); d != "" {
			s.t.Errorf("%s:%d: %s\n%s", name, x.line, x.name(), d)
		}
	}
}

// readTranscript reads a file of the format that testdata/README.md describes.
func readTranscript(t *testing.T, name string) []*exchange {
	t.Helper()
	var all []*exchange
	var x *exchange
	var last byte    // what the line before began with
	var text *string // where lines of a body go; nil before the first
	for i, line := range strings.Split(readFile(t, ".", name), "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		mark, rest := line[0], strings.TrimPrefix(line[1:], " ")
		if mark != last {
			text = nil
		}
		switch {
		case mark == '=':
			all, x = append(all, &exchange{line: i + 1, direction: rest}), nil
		case mark == '>' && (last != '>' || x == nil):
			method, url, _ := strings.Cut(rest, " ")
			url, saved, _ := strings.Cut(url, " > ")
			x = &exchange{line: i + 1, method: method, url: url, saved: saved, headers: map[string]string{}}
			all = append(all, x)
		case mark == '>':
			text = put(rest, x.headers, &x.body, text)
		case x != nil && mark == '!':
			x.why += rest
		case x != nil && mark == '-' && x.why != "":
			if last != mark {
				x.rqlite = &reply{status: rest, headers: map[string]string{}}
				break
			}
			text = put(rest, x.rqlite.headers, &x.rqlite.body, text)
		case x != nil && mark == '<':
			if last != mark {
				x.want = reply{status: rest, headers: map[string]string{}}
				break
			}
			text = put(rest, x.want.headers, &x.want.body, text)
		default:
			t.Fatalf("%s:%d: cannot read %q", name, i+1, line)
		}
		last = mark
	}
	for _, x := range all {
		if x.direction == "" && x.want.status == "" || (x.why == "") != (x.rqlite == nil) {
			t.Fatalf("%s:%d: has no answer, or a reason without rqlite's answer", name, x.line)
		}
	}
	return all
}

var headerLine = regexp.MustCompile(`^[A-Z][A-Za-z-]+: `)

// put puts a line where it belongs: among the headers, or into the body once that has begun.
func put(line string, headers map[string]string, body, begun *string) *string {
	if begun != nil {
		*body += "\n" + line
		return body
	}
	if headerLine.MatchString(line) {
		key, value, _ := strings.Cut(line, ": ")
		headers[key] = value
		return nil
	}
	*body = line
	return body
}

// statusKeys are the keys of /status that rqlite has, and clients and monitoring may read.
var statusKeys = strings.Fields(`
	build.build_time build.commit build.compiler_command build.compiler_toolchain build.version cluster.addr
	cluster.api_addr cluster.https extensions.dir extensions.names http.auth http.bind_addr
	http.cluster.local_node_addr http.cluster.timeout http.queue._default.batch_size
	http.queue._default.max_size http.queue._default.sequence_number http.queue._default.timeout
	http.tls.enabled mux.addr mux.handlers mux.timeout mux.tls network.interfaces node.current_time
	node.start_time node.uptime os.executable os.hostname os.page_size os.pid os.ppid runtime.GOARCH
	runtime.GOMAXPROCS runtime.GOOS runtime.kubernetes_hint runtime.num_cpu runtime.num_goroutine
	runtime.version store.addr store.apply_timeout store.cdc.enabled store.cdc.registered store.commit_timeout
	store.db_applied_index store.db_conf.fk_constraints store.dir store.dir_size store.dir_size_friendly
	store.election_timeout store.fsm_index store.fsm_term store.fsm_update_time store.heartbeat_timeout
	store.leader.addr store.leader.node_id store.leader_appended_at_time store.no_freelist_sync store.node_id
	store.nodes store.observer.dropped store.observer.observed store.open store.raft.applied_index
	store.raft.bolt.TxStats.PageCount store.raft.bolt.TxStats.PageAlloc store.raft.bolt.TxStats.CursorCount
	store.raft.bolt.TxStats.NodeCount store.raft.bolt.TxStats.NodeDeref store.raft.bolt.TxStats.Rebalance
	store.raft.bolt.TxStats.RebalanceTime store.raft.bolt.TxStats.Split store.raft.bolt.TxStats.Spill
	store.raft.bolt.TxStats.SpillTime store.raft.bolt.TxStats.Write store.raft.bolt.TxStats.WriteTime
	store.raft.bolt.FreePageN store.raft.bolt.PendingPageN store.raft.bolt.FreeAlloc
	store.raft.bolt.FreelistInuse store.raft.bolt.TxN store.raft.bolt.OpenTxN store.raft.commit_index
	store.raft.config.LocalID store.raft.config.HeartbeatTimeout store.raft.config.ElectionTimeout
	store.raft.config.LeaderLeaseTimeout store.raft.config.CommitTimeout store.raft.config.SnapshotInterval
	store.raft.config.SnapshotThreshold store.raft.config.MaxAppendEntries store.raft.config.ShutdownOnRemove
	store.raft.config.LogLevel store.raft.config.NoSnapshotRestoreOnStart store.raft.fsm_pending
	store.raft.last_contact store.raft.last_log_index store.raft.last_log_term store.raft.last_snapshot_index
	store.raft.last_snapshot_term store.raft.latest_configuration store.raft.latest_configuration_index
	store.raft.log_size store.raft.log_size_friendly store.raft.num_peers store.raft.protocol_version
	store.raft.protocol_version_max store.raft.protocol_version_min store.raft.snapshot_version_max
	store.raft.snapshot_version_min store.raft.state store.raft.term store.raft.transport.command_commit_index
	store.raft.transport.compress_snap store.raft.transport.leader_commit_index store.raft.voter store.ready
	store.reap_read_only_timeout store.reap_timeout store.request_marshaler.compression_batch
	store.request_marshaler.compression_size store.request_marshaler.force_compression store.snapshot_interval
	store.snapshot_store.dir store.snapshot_store.dir_size store.snapshot_store.snapshots
	store.snapshot_threshold store.sqlite3.compile_options store.sqlite3.conn_pool_stats.ro.max_open_connections
	store.sqlite3.conn_pool_stats.ro.open_connections store.sqlite3.conn_pool_stats.ro.in_use
	store.sqlite3.conn_pool_stats.ro.idle store.sqlite3.conn_pool_stats.ro.wait_count
	store.sqlite3.conn_pool_stats.ro.wait_duration store.sqlite3.conn_pool_stats.ro.max_idle_closed
	store.sqlite3.conn_pool_stats.ro.max_idle_time_closed store.sqlite3.conn_pool_stats.ro.max_lifetime_closed
	store.sqlite3.conn_pool_stats.rw.max_open_connections store.sqlite3.conn_pool_stats.rw.open_connections
	store.sqlite3.conn_pool_stats.rw.in_use store.sqlite3.conn_pool_stats.rw.idle
	store.sqlite3.conn_pool_stats.rw.wait_count store.sqlite3.conn_pool_stats.rw.wait_duration
	store.sqlite3.conn_pool_stats.rw.max_idle_closed store.sqlite3.conn_pool_stats.rw.max_idle_time_closed
	store.sqlite3.conn_pool_stats.rw.max_lifetime_closed store.sqlite3.db_size store.sqlite3.db_size_friendly
	store.sqlite3.extensions store.sqlite3.last_modified store.sqlite3.mem_stats.cache_size
	store.sqlite3.mem_stats.freelist_count store.sqlite3.mem_stats.hard_heap_limit
	store.sqlite3.mem_stats.max_page_count store.sqlite3.mem_stats.page_count store.sqlite3.mem_stats.page_size
	store.sqlite3.mem_stats.soft_heap_limit store.sqlite3.path store.sqlite3.pragmas.ro.busy_timeout
	store.sqlite3.pragmas.ro.foreign_keys store.sqlite3.pragmas.ro.journal_mode
	store.sqlite3.pragmas.ro.synchronous store.sqlite3.pragmas.ro.wal_autocheckpoint
	store.sqlite3.pragmas.rw.busy_timeout store.sqlite3.pragmas.rw.foreign_keys
	store.sqlite3.pragmas.rw.journal_mode store.sqlite3.pragmas.rw.synchronous
	store.sqlite3.pragmas.rw.wal_autocheckpoint store.sqlite3.ro_dsn store.sqlite3.rw_dsn store.sqlite3.size
	store.sqlite3.transaction.ro store.sqlite3.transaction.rw store.sqlite3.version store.sqlite3.wal_size
	store.strong_read_term store.trailing_logs store.sqlite3.conn_pool_stats.ro store.sqlite3.conn_pool_stats.rw
	store.sqlite3.pragmas.ro store.sqlite3.pragmas.rw`)

// TestStatusKeys looks for each key by itself and in the whole document.
func TestStatusKeys(t *testing.T) {
	t.Parallel()
	n := startOne(t)
	n.execute("CREATE TABLE foo (id INTEGER PRIMARY KEY)")
	var whole map[string]any
	if err := n.get("/status?pretty", &whole); err != nil {
		t.Fatal(err)
	}
	for _, key := range statusKeys {
		value := any(whole)
		for part := range strings.SplitSeq(key, ".") {
			m, ok := value.(map[string]any)
			if value = m[part]; !ok || value == nil {
				t.Errorf("/status has no %s", key)
				break
			}
		}
		a, err := n.do(requestLimit, http.MethodGet, "/status?key="+key, "", "")
		if err != nil || a.status != http.StatusOK || !json.Valid([]byte(a.body)) || (a.body == "{}" && key != "store.open") {
			t.Errorf("/status?key=%s = %+v, %v", key, a, err)
		}
	}
	want := fmt.Sprintf(`"nodes":[{"id":"n1","addr":%q,"suffrage":"voter"}]`, n.raftAddr)
	if a, err := n.do(requestLimit, http.MethodGet, "/status", "", ""); err != nil || !strings.Contains(a.body, want) {
		t.Errorf("/status = %+v, %v; want it to contain %s", a, err, want)
	}
	a, err := n.do(requestLimit, http.MethodGet, "/status?key=store.snapshot_store.snapshots", "", "")
	if err != nil || !strings.HasPrefix(a.body, "[") {
		t.Errorf("store.snapshot_store.snapshots = %+v, %v; want a list", a, err)
	}
}

// varsKeys are the counters of /debug/vars that rqlite has: the first word of a line is the group.
var varsKeys = `
cdc.service batcher_events_write batcher_reads batcher_write_ignored batcher_writes dropped_failed_to_send
	fifo_enqueue_ignored fifo_size hwm_ignored num_bytes_tx num_events_tx_failed num_events_tx_ok retries
	snapshot_sync
cluster num_backup_req num_broadcast_hwm_req num_client_execute_retries num_client_force_new_conn
	num_client_load_retries num_client_query_retries num_client_read_timeouts num_client_request_retries
	num_client_retries num_client_write_timeouts num_conn_rejected num_execute_req num_get_node_api_req
	num_get_node_api_req_local num_get_node_api_req_retries num_get_node_api_resp num_hwm_update_dropped
	num_join_req num_load_req num_notify_req num_query_req num_remove_node_req num_request_req num_stepdown_req
db backup_sleeps backup_step_dones backup_step_errors checkpoint_busy_errors checkpoint_duration_ms
	checkpoint_errors checkpoint_invariant_errors checkpoint_partial checkpoint_total checkpoint_wal_truncated
	checkpointed_moves checkpoints commit_hooks compacted_wal_size create_compacted_wal_duration_ms
	dropped_cdc_events execute_transactions execution_errors executions executions_force_queries open_duration_ms
	precompact_wal_size preupdates preupdates_callback_errors preupdates_errors queries query_errors
	query_transactions request_transactions requests update_hooks update_hooks_callback_errors
	update_hooks_errors
db.wal compact_frames_input compact_frames_output compact_frames_ratio compact_scan_duration_ms
	compact_scan_errors compact_write_duration_ms
downloader download_bytes num_downloads_fail num_downloads_ok
http auth_fail auth_ok backups boot execute_stmts_rx executions leader_not_found loads num_readyz num_status
	queries query_stmts_rx queued_executions queued_executions_failed queued_executions_leadership_lost
	queued_executions_no_leader queued_executions_not_leader queued_executions_num_stmts_rx
	queued_executions_num_stmts_tx queued_executions_ok queued_executions_unknown_error queued_executions_wait
	queued_executions_wait_timeout request_stmts_rx requests sql_analyze tls_cert_fetched ui user_reaps
	user_snapshots
mux num_connections_handled num_tls_cert_fetched num_unregistered_handlers
proto num_compressed_bytes num_compressed_requests num_compression_misses num_precompressed_bytes num_requests
	num_uncompressed_bytes num_uncompressed_requests
proxy remote_backups remote_executions remote_executions_failed remote_loads remote_queries
	remote_queries_failed remote_remove_node remote_requests remote_requests_failed remote_stepdowns
queue num_flush num_timeout objects_rx objects_tx
snapshot auto_reap_duration_ms persist_duration_ms persist_size read_timeout_total reap_errors
	reap_execute_duration_ms reap_plan_recovered reap_snapshots reap_total reap_wals sink_errors
	sink_full_crc32_duration_ms sink_full_total sink_incremental_total upgrade_fail upgrade_ok
snapshot.plan calc_crc32_duration_ms checkpoint_duration_ms
sql.processor num_parser_panics num_rewritten_stmts
store auto_optimize_duration auto_vacuum_duration failed_heartbeat_observed fsm_apply_duration_us
	leader_changes_dropped leader_changes_observed nodes_reaped_failed nodes_reaped_ok num_auto_optimizes
	num_auto_optimizes_failed num_auto_restores num_auto_restores_failed num_auto_restores_skipped
	num_auto_vacuums num_auto_vacuums_failed num_backups num_boots num_compressed_commands num_db_stats_errors
	num_ignored_joins num_joins num_loads num_provider_checks num_provider_provides num_provider_provides_fail
	num_recoveries num_removed_before_joins num_restores num_restores_failed num_restores_start
	num_restores_start_skipped num_snapshot_persists num_snapshot_persists_failed num_snapshots
	num_snapshots_failed num_snapshots_full num_snapshots_incremental num_uncompressed_commands
	num_user_snapshots num_user_snapshots_failed num_verify_leader num_verify_leader_failed num_wal_snapshots
	num_wal_snapshots_failed snapshot_crc32_create_duration snapshot_create_duration snapshot_persist_duration
	snapshot_sync_duration verify_leader_duration
uploader last_upload_bytes num_sum_get_fail num_uploads_fail num_uploads_ok num_uploads_skipped
	num_uploads_skipped_id total_upload_bytes`

// TestDebugVars checks the counters' names and that a snapshot asked for is counted once.
func TestDebugVars(t *testing.T) {
	t.Parallel()
	c := cluster{startOne(t)}
	c[0].execute("CREATE TABLE foo (id INTEGER PRIMARY KEY)")
	c[0].mustSnapshot()
	for line := range strings.SplitSeq(strings.TrimSpace(strings.ReplaceAll(varsKeys, "\n\t", " ")), "\n") {
		words := strings.Fields(line)
		for _, name := range words[1:] {
			c.counter(words[0], name)
		}
	}
	if got := c.counter("http", "user_snapshots"); got != 1 {
		t.Errorf("http.user_snapshots = %d after one POST /snapshot; want 1", got)
	}
	if got := c.counter("store", "num_snapshots"); got < 1 {
		t.Errorf("store.num_snapshots = %d after a snapshot; want more", got)
	}
	c[0].kill()
	c[0].start()
	c.waitReady()
	skipped, done := c.counter("store", "num_restores_start_skipped"), c.counter("store", "num_restores_start")
	if skipped != 1 || done != 0 {
		t.Errorf("after a kill: %d restores skipped, %d done; want 1 and 0", skipped, done)
	}
}
