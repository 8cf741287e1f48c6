package http

import (
	"bytes"
	"context"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"rqlited/command"
	"rqlited/internal/certs"
	"rqlited/internal/certs/certstest"
	"rqlited/store"
)

// storeMetrics are those of a follower that works.
func storeMetrics() (store.Metrics, bool) {
	m := store.Metrics{FSMIndex: 41, DiskFree: 1 << 30}
	m.Raft = store.RaftMetrics{State: "Follower", LeaderKnown: true, Voters: 3, NonVoters: 1, Term: 5, CommitIndex: 42, LastContact: 1500e6}
	m.Database.Pages, m.Database.PageSize = 7, 4096
	m.Database.Readers.InUse = 2
	m.Snapshots.Index = 40
	return m, true
}

// samples returns the values of a scrape by series.
func samples(t *testing.T, body string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for line := range strings.Lines(body) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		name, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if i := strings.LastIndex(line, "} "); i >= 0 {
			name, value = line[:i+1], strings.TrimSpace(line[i+2:])
		}
		if !ok {
			t.Fatalf("line %q", line)
		}
		all[name] = value
	}
	return all
}

// scrapeOf asks s for its metrics.
func scrapeOf(t *testing.T, s *Server) map[string]string {
	t.Helper()
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	r := w.Result()
	if ctype := r.Header.Get("Content-Type"); r.StatusCode != http.StatusOK || !strings.HasPrefix(ctype, "text/plain; version=0.0.4") {
		t.Fatalf("GET /metrics = %s, %s", r.Status, ctype)
	}
	return samples(t, text(t, r))
}

func expectSamples(t *testing.T, got, want map[string]string) {
	t.Helper()
	for name, v := range want {
		if got[name] != v {
			t.Errorf("%s = %q; want %q", name, got[name], v)
		}
	}
}

func TestMetrics(t *testing.T) {
	f := newFixture()
	f.cfg.Metrics = storeMetrics
	f.cfg.Vars = map[string]func() map[string]int64{
		"store": func() map[string]int64 {
			return map[string]int64{"num_snapshots_full": 2, "num_proposals": 4, "proposal_duration_us": 2_500_000}
		},
	}
	id, err := certs.Open(certstest.NewAuthority(t).Write(t, t.TempDir(), "x", "host.test"), nil)
	if err != nil {
		t.Fatal(err)
	}
	f.cfg.Certificates = map[string]*certs.Identity{"http": id}
	f.db.resp = &command.Response{Results: []command.Result{{Write: &command.Write{}}}}
	s := NewServer(f.cfg, &f.db, &f.node, &f.peers)
	f.send(s, "POST", "/db/execute", `["a","b"]`)
	f.send(s, "POST", "/db/execute", `[`)
	f.send(s, "GET", "/db/execute", "")
	f.send(s, "POST", "/db/query?timeout=x", `["a"]`)
	f.send(s, "OPTIONS", "/db/query", "")
	got := scrapeOf(t, s)
	expectSamples(t, got, map[string]string{
		`rqlited_http_requests_total{code="200",endpoint="/db/execute",method="POST"}`:   "1",
		`rqlited_http_requests_total{code="400",endpoint="/db/execute",method="POST"}`:   "1",
		`rqlited_http_requests_total{code="405",endpoint="/db/execute",method="GET"}`:    "1",
		`rqlited_http_requests_total{code="400",endpoint="/db/query",method="POST"}`:     "1",
		`rqlited_http_requests_total{code="200",endpoint="/db/query",method="OPTIONS"}`:  "1",
		`rqlited_http_request_duration_seconds_count{endpoint="/db/execute"}`:            "3",
		`rqlited_http_request_duration_seconds_bucket{endpoint="/db/execute",le="+Inf"}`: "3",
		`rqlited_http_request_bytes_total{endpoint="/db/execute"}`:                       "10",
		`rqlited_http_requests_in_flight`:                                                "1",
		`rqlited_http_statements_total{endpoint="/db/execute"}`:                          "2",
		`rqlited_store_open`:                                      "1",
		`rqlited_ready`:                                           "1",
		`rqlited_failed`:                                          "0",
		`rqlited_raft_state{state="Follower"}`:                    "1",
		`rqlited_raft_state{state="Leader"}`:                      "0",
		`rqlited_raft_servers{suffrage="nonvoter"}`:               "1",
		`rqlited_raft_last_contact_seconds`:                       "1.5",
		`rqlited_raft_proposal_duration_seconds_sum`:              "2.5",
		`rqlited_raft_proposal_duration_seconds_count`:            "4",
		`rqlited_fsm_index`:                                       "41",
		`rqlited_snapshots_total{kind="full"}`:                    "2",
		`rqlited_snapshots_total{kind="incremental"}`:             "0",
		`rqlited_snapshot_index`:                                  "40",
		`rqlited_sqlite_size_bytes`:                               "28672",
		`rqlited_sqlite_connections{pool="query",state="in_use"}`: "2",
		`rqlited_queue_capacity_requests`:                         "1024",
		`rqlited_tls_handshakes_total{port="http"}`:               "0",
		`rqlited_build_info{commit="unknown",go_version="` + runtime.Version() + `",version="10"}`: "1",
	})
	if got[`rqlited_tls_certificate_expiry_timestamp_seconds{port="http"}`] == "" || got["go_goroutines"] == "" {
		t.Error("certificate or Go runtime is missing")
	}
	if _, there := got["rqlited_snapshot_timestamp_seconds"]; there {
		t.Error("a snapshot that does not exist has a time")
	}
}

// TestMetricsBeforeOpen scrapes a node that has not opened its store: there is an answer, without
// numbers that would not be true.
func TestMetricsBeforeOpen(t *testing.T) {
	f := newFixture()
	f.node.ready, f.node.servers = store.ErrNotOpen, nil
	got := scrapeOf(t, NewServer(f.cfg, &f.db, &f.node, &f.peers))
	expectSamples(t, got, map[string]string{
		"rqlited_store_open": "0", "rqlited_ready": "0", "rqlited_queue_pending_requests": "0", `rqlited_snapshots_total{kind="full"}`: "0",
	})
	for name := range got {
		if strings.HasPrefix(name, "rqlited_raft_commit_index") || strings.HasPrefix(name, "rqlited_sqlite_pages") {
			t.Errorf("%s is told of a store that is not open", name)
		}
	}
}

// TestMetricsBounded lets a client make up what it can: no time series may come of it.
func TestMetricsBounded(t *testing.T) {
	f := newFixture()
	s := NewServer(f.cfg, &f.db, &f.node, &f.peers)
	f.send(s, "GET", "/db/query/a?q=SELECT", "")
	f.send(s, "BREW", "/nonsense", "")
	f.send(s, "GET", "/metrics", "")
	before := len(scrapeOf(t, s))
	for i, suffix := range []string{"1", "2/3", "%22", "%E2%82%AC", "x{y}"} {
		f.send(s, "GET", "/db/query/"+suffix+"?q=SELECT", "")
		f.send(s, "BREW"+strconv.Itoa(i), "/nonsense"+suffix, "")
	}
	got := scrapeOf(t, s)
	if len(got) != before {
		t.Errorf("%d time series, %d before", len(got), before)
	}
	expectSamples(t, got, map[string]string{
		`rqlited_http_requests_total{code="200",endpoint="/db/query",method="GET"}`: "6",
		`rqlited_http_requests_total{code="404",endpoint="other",method="other"}`:   "6",
	})
}

// TestMetricsQueue follows a queued write.
func TestMetricsQueue(t *testing.T) {
	f := newFixture()
	f.db.resp = answerOf(write(1, 1, 0))
	s := NewServer(f.cfg, &f.db, &f.node, &f.peers)
	f.send(s, "POST", "/db/execute?queue&wait", `["a"]`)
	got := scrapeOf(t, s)
	expectSamples(t, got, map[string]string{
		"rqlited_queue_calls_total": "1", "rqlited_queue_wait_calls_total": "1", "rqlited_queue_batches_total": "1", "rqlited_queue_wait_seconds_count": "1",
		`rqlited_queue_statements_total{stage="done"}`: "1", "rqlited_queue_full_total": "0",
	})
	if sum := got["rqlited_queue_wait_seconds_sum"]; sum == "" || sum == "0" {
		t.Errorf("queued writes have waited %q s; want the time that a batch waits", sum)
	}
	if err := s.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// described returns the help texts of all metrics that a Server can tell, by name, those of the Go
// runtime and the process aside.
func described(t *testing.T) map[string]string {
	t.Helper()
	f := newFixture()
	s := NewServer(f.cfg, &f.db, &f.node, &f.peers)
	ch := make(chan *prometheus.Desc, 1000)
	s.metrics.registry.Describe(ch)
	close(ch)
	form := regexp.MustCompile(`^Desc\{fqName: "([^"]+)", help: "([^"]*)"`)
	all := map[string]string{}
	for d := range ch {
		m := form.FindStringSubmatch(d.String())
		if m == nil {
			t.Fatalf("description %s", d)
		}
		if !strings.HasPrefix(m[1], "go_") && !strings.HasPrefix(m[1], "process_") {
			all[m[1]] = m[2]
		}
	}
	return all
}

func TestMetricsDescribed(t *testing.T) {
	for name, help := range described(t) {
		if !strings.HasPrefix(name, "rqlited_") {
			t.Errorf("%s does not say whose it is", name)
		}
		if !strings.HasSuffix(help, ".") || len(help) < 10 {
			t.Errorf("%s: help is %q; want a sentence", name, help)
		}
	}
}

// TestMetricsDocumented compares the list in the document with what there is.
func TestMetricsDocumented(t *testing.T) {
	doc, err := os.ReadFile("../docs/monitoring.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(rqlited_[a-z_]+)[`{].*\\| (.*) \\|$").FindAllSubmatch(doc, -1) {
		listed[string(m[1])] = string(m[2])
	}
	exist := described(t)
	for _, name := range slices.Sorted(maps.Keys(exist)) {
		if listed[name] != exist[name] {
			t.Errorf("%s is %q; docs/monitoring.md says %q", name, exist[name], listed[name])
		}
	}
	for name := range listed {
		if exist[name] == "" {
			t.Errorf("docs/monitoring.md lists %s, which does not exist", name)
		}
	}
	for _, name := range regexp.MustCompile(`rqlited_[a-z_]*[a-z]`).FindAll(doc, -1) {
		if base := bytes.TrimSuffix(bytes.TrimSuffix(bytes.TrimSuffix(name, []byte("_bucket")), []byte("_sum")), []byte("_count")); exist[string(name)] == "" && exist[string(base)] == "" {
			t.Errorf("docs/monitoring.md speaks of %s, which does not exist", name)
		}
	}
}
