package http

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"

	"rqlited/store"
)

// nodeCollector is the prometheus.Collector of what has a value now: the state of the node, of Raft, the
// snapshots, the database, the queue and the certificates. It keeps nothing, and waits for nothing.
type nodeCollector struct {
	s     *Server
	descs map[string]*prometheus.Desc // by name without the prefix
}

// gauges are what a nodeCollector tells: name, help, names of labels.
var gauges = []struct {
	name, help string
	labels     []string
}{
	{"build_info", "Always 1; the labels say what is running.", []string{"version", "commit", "go_version"}},
	{"store_open", "1 if the data directory has been opened. Until then nothing is told of what is in it.", nil},
	{"ready", "1 if this node serves requests, as /readyz says.", nil},
	{"failed", "1 if the node has met a failure and is about to end.", nil},
	{"disk_free_bytes", "Free bytes on the disk that holds the data directory.", nil},

	{"raft_state", "1 for the state that this node is in, 0 for the others.", []string{"state"}},
	{"raft_leader_known", "1 if this node knows a leader.", nil},
	{"raft_voter", "1 if this node has a vote.", nil},
	{"raft_servers", "Members of the cluster as this node knows them, by whether they vote.", []string{"suffrage"}},
	{"raft_term", "Raft's term.", nil},
	{"raft_commit_index", "Newest entry that is known to be committed.", nil},
	{"raft_applied_index", "Newest entry that Raft has passed on to be applied.", nil},
	{"raft_last_log_index", "Newest entry in the log, or in the newest snapshot.", nil},
	{"raft_fsm_pending_batches", "Committed batches of entries that wait to be applied.", nil},
	{"raft_last_contact_seconds", "Time since the leader was heard of; 0 on the leader, missing if it never was.", nil},
	{"raft_log_size_bytes", "Size of the log's file, which does not shrink.", nil},
	{"raft_log_writes_total", "Writes to the log's file.", nil},
	{"raft_log_write_seconds_total", "Time that they took, the wait for the disk included.", nil},
	{"fsm_index", "Newest entry that was applied to the database.", nil},

	{"snapshot_index", "Entry that the newest snapshot ends with; 0 if there is none.", nil},
	{"snapshot_term", "Term of that entry.", nil},
	{"snapshot_timestamp_seconds", "When the newest snapshot was published; missing if there is none.", nil},
	{"snapshot_size_bytes", "Size of the files of the snapshots.", nil},
	{"snapshot_files", "Files that make up the newest snapshot.", nil},
	{"snapshot_superseded", "Older snapshots that are still kept for whoever wants to read them.", nil},
	{"snapshot_readers", "Snapshots that are being read.", nil},
	{"snapshot_failed", "1 if no snapshot can be published until the next start.", nil},

	{"sqlite_file_size_bytes", "Size of the database's main file.", nil},
	{"sqlite_wal_size_bytes", "Size of the WAL, which the next snapshot empties.", nil},
	{"sqlite_size_bytes", "Size of the database, changes in the WAL included.", nil},
	{"sqlite_pages", "Pages of the database, those in the WAL included.", nil},
	{"sqlite_page_size_bytes", "Size of a page.", nil},
	{"sqlite_connections", "Connections to the database, by what for and whether they are in use.", []string{"pool", "state"}},
	{"sqlite_max_connections", "Most connections there may be, by what for.", []string{"pool"}},
	{"sqlite_connection_waits_total", "Waits for a connection, by what for.", []string{"pool"}},
	{"sqlite_connection_wait_seconds_total", "Time that was waited for a connection, by what for.", []string{"pool"}},

	{"queue_pending_requests", "Queued writes that are not decided.", nil},
	{"queue_capacity_requests", "Most queued writes there may be.", nil},
	{"queue_size_bytes", "Memory that queued writes take.", nil},
	{"queue_capacity_bytes", "Most memory they may take.", nil},

	{"tls_certificate_expiry_timestamp_seconds", "When the certificate of a port ends, by port.", []string{"port"}},
	{"tls_handshakes_total", "TLS handshakes begun by those who connect, by port.", []string{"port"}},
}

func newNodeCollector(s *Server) *nodeCollector {
	c := &nodeCollector{s: s, descs: make(map[string]*prometheus.Desc, len(gauges))}
	for _, g := range gauges {
		c.descs[g.name] = prometheus.NewDesc("rqlited_"+g.name, g.help, g.labels, nil)
	}
	return c
}

// Describe implements prometheus.Collector.
func (c *nodeCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *nodeCollector) Collect(ch chan<- prometheus.Metric) {
	out := told{c.descs, ch}
	s := c.s
	m, open := s.cfg.Metrics()
	out.gauge("build_info", 1, s.cfg.Version, s.cfg.Build.Commit, runtime.Version())
	out.gauge("store_open", is(open))
	out.gauge("ready", is(s.node.Ready() == nil))
	out.gauge("failed", is(s.node.Failed() != nil))
	queued := s.queue.load()
	out.gauge("queue_pending_requests", float64(queued.requests))
	out.gauge("queue_capacity_requests", float64(s.cfg.Queue.Capacity))
	out.gauge("queue_size_bytes", float64(queued.bytes))
	out.gauge("queue_capacity_bytes", float64(s.cfg.Queue.Bytes))
	for port, id := range s.cfg.Certificates {
		out.gauge("tls_certificate_expiry_timestamp_seconds", float64(id.Expires().Unix()), port)
		out.counter("tls_handshakes_total", float64(id.Handshakes()), port)
	}
	if !open {
		return
	}
	if m.DiskFree >= 0 {
		out.gauge("disk_free_bytes", float64(m.DiskFree))
	}
	out.raft(&m)
	out.snapshots(&m)
	out.sqlite(&m)
}

// told is where the values of one scrape go.
type told struct {
	descs map[string]*prometheus.Desc
	ch    chan<- prometheus.Metric
}

func (t told) gauge(name string, v float64, labels ...string) {
	t.ch <- prometheus.MustNewConstMetric(t.descs[name], prometheus.GaugeValue, v, labels...)
}

func (t told) counter(name string, v float64, labels ...string) {
	t.ch <- prometheus.MustNewConstMetric(t.descs[name], prometheus.CounterValue, v, labels...)
}

func is(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (t told) raft(m *store.Metrics) {
	r := &m.Raft
	for _, state := range []string{"Leader", "Follower", "Candidate", "Shutdown"} {
		t.gauge("raft_state", is(r.State == state), state)
	}
	t.gauge("raft_leader_known", is(r.LeaderKnown))
	t.gauge("raft_voter", is(r.Voter))
	t.gauge("raft_servers", float64(r.Voters), "voter")
	t.gauge("raft_servers", float64(r.NonVoters), "nonvoter")
	t.gauge("raft_term", float64(r.Term))
	t.gauge("raft_commit_index", float64(r.CommitIndex))
	t.gauge("raft_applied_index", float64(r.AppliedIndex))
	t.gauge("raft_last_log_index", float64(r.LastIndex))
	t.gauge("raft_fsm_pending_batches", float64(r.FSMPending))
	if r.LastContact >= 0 {
		t.gauge("raft_last_contact_seconds", r.LastContact.Seconds())
	}
	t.gauge("raft_log_size_bytes", float64(m.Log.Size))
	t.counter("raft_log_writes_total", float64(m.Log.Writes))
	t.counter("raft_log_write_seconds_total", m.Log.WriteTime.Seconds())
	t.gauge("fsm_index", float64(m.FSMIndex))
}

func (t told) snapshots(m *store.Metrics) {
	s := &m.Snapshots
	t.gauge("snapshot_index", float64(s.Index))
	t.gauge("snapshot_term", float64(s.Term))
	if !s.Time.IsZero() {
		t.gauge("snapshot_timestamp_seconds", float64(s.Time.UnixMilli())*milli)
	}
	t.gauge("snapshot_size_bytes", float64(s.Size))
	t.gauge("snapshot_files", float64(len(s.Snapshots)))
	t.gauge("snapshot_superseded", float64(s.Superseded))
	t.gauge("snapshot_readers", float64(s.Readers))
	t.gauge("snapshot_failed", is(s.Failed != ""))
}

func (t told) sqlite(m *store.Metrics) {
	d := &m.Database
	t.gauge("sqlite_file_size_bytes", float64(d.FileSize))
	t.gauge("sqlite_wal_size_bytes", float64(d.WALSize))
	t.gauge("sqlite_size_bytes", float64(d.Pages*d.PageSize))
	t.gauge("sqlite_pages", float64(d.Pages))
	t.gauge("sqlite_page_size_bytes", float64(d.PageSize))
	pool := d.Readers
	for _, name := range []string{"query", "classify"} {
		t.gauge("sqlite_connections", float64(pool.InUse), name, "in_use")
		t.gauge("sqlite_connections", float64(pool.Idle), name, "idle")
		t.gauge("sqlite_max_connections", float64(pool.MaxOpen), name)
		t.counter("sqlite_connection_waits_total", float64(pool.WaitCount), name)
		t.counter("sqlite_connection_wait_seconds_total", pool.WaitDuration.Seconds(), name)
		pool = d.Statements
	}
}
