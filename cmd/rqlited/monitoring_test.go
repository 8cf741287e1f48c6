package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"rqlited/internal/certs/certstest"
)

// monitored is a running node that has been used a little, with TLS at both ports.
type monitored struct {
	t      *testing.T
	client http.Client
	base   string
}

func startMonitored(t *testing.T) *monitored {
	a := certstest.NewAuthority(t)
	files := a.Write(t, t.TempDir(), "node", "localhost", "127.0.0.1")
	p := start(t, "-node-id", "n1", "-http-allow-origin", "*", "-http-cert", files.Cert, "-http-key", files.Key,
		"-node-cert", files.Cert, "-node-key", files.Key, "-node-ca-cert", files.CA, t.TempDir())
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(a.PEM())
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	m := &monitored{t: t, client: http.Client{Transport: transport}, base: "https://" + p.await("node starting").HTTP}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		p.signals <- syscall.SIGTERM
		if code, failures := p.end(); code != 0 || len(failures) > 0 {
			t.Errorf("exit code %d, errors %v; want 0 and none", code, failures)
		}
	})
	for awaited := map[string]bool{"node started": true, "leader changed": true}; len(awaited) > 0; { // in any order
		e, running := <-p.log
		if !running {
			t.Fatal("the node has ended")
		}
		delete(awaited, e.Msg)
	}
	m.ask("POST", "/db/execute", `["CREATE TABLE foo (id INTEGER PRIMARY KEY)", "INSERT INTO foo VALUES(1)", "nonsense"]`)
	m.ask("GET", "/db/query?q=SELECT+1", "")
	m.ask("POST", "/db/request?level=linearizable", `["SELECT 2", "INSERT INTO foo VALUES(2)"]`)
	m.ask("POST", "/db/execute?queue&wait", `["INSERT INTO foo VALUES(3)"]`)
	m.ask("POST", "/snapshot", "")
	return m
}

// ask returns the body of a successful answer.
func (m *monitored) ask(method, path, body string) []byte {
	m.t.Helper()
	r, err := http.NewRequest(method, m.base+path, strings.NewReader(body))
	if err != nil {
		m.t.Fatal(err)
	}
	resp, err := m.client.Do(r)
	if err != nil {
		m.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		m.t.Fatalf("%s %s = %s, %v: %s", method, path, resp.Status, err, text)
	}
	return text
}

// names returns the metrics of a scrape, a summary or histogram with its parts.
func names(scrape []byte) map[string]bool {
	all := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^([a-z_:0-9]+)[ {]`).FindAllSubmatch(scrape, -1) {
		all[string(m[1])] = true
	}
	return all
}

// TestMonitoring looks at a node with the eyes of monitoring.
func TestMonitoring(t *testing.T) {
	m := startMonitored(t)
	m.ask("GET", "/metrics", "")
	scrape := m.ask("GET", "/metrics", "")
	t.Run("conventions", func(t *testing.T) {
		problems, err := promlint.New(bytes.NewReader(scrape)).Lint()
		if err != nil || len(problems) > 0 {
			t.Errorf("promlint finds %v, %v", problems, err)
		}
	})
	t.Run("dashboard", func(t *testing.T) { testDashboard(t, names(scrape)) })
	t.Run("alerts", func(t *testing.T) {
		doc, err := os.ReadFile("../../docs/monitoring.md")
		if err != nil {
			t.Fatal(err)
		}
		_, rules, _ := strings.Cut(string(doc), "## Alerts")
		rules, _, _ = strings.Cut(rules, "## Metrics")
		missing(t, rules, names(scrape))
	})
	t.Run("values", func(t *testing.T) { testValues(t, string(scrape)) })
	t.Run("vars", func(t *testing.T) { testVars(t, m.ask("GET", "/debug/vars", "")) })
	t.Run("status", func(t *testing.T) { testStatus(t, m.ask("GET", "/status", "")) })
}

// missing reports metrics that a text names and a scrape does not have.
func missing(t *testing.T, text string, exist map[string]bool) {
	t.Helper()
	used := regexp.MustCompile(`\b(rqlited|go|process)_[a-z_]*[a-z]`).FindAllString(text, -1)
	if len(used) < 10 {
		t.Errorf("only %d metrics are used", len(used))
	}
	for _, name := range used {
		if !exist[name] && name != "go_version" {
			t.Errorf("%s is in no scrape", name)
		}
	}
}

func testDashboard(t *testing.T, exist map[string]bool) {
	data, err := os.ReadFile("../../docs/grafana.json")
	if err != nil {
		t.Fatal(err)
	}
	var dash struct {
		SchemaVersion int
		Panels        []struct {
			ID      int
			Type    string
			Title   string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr string }
		}
		Templating struct {
			List []struct{ Name, Definition string }
		}
	}
	if err := json.Unmarshal(data, &dash); err != nil {
		t.Fatal(err)
	}
	if dash.SchemaVersion < 36 {
		t.Errorf("schema version %d", dash.SchemaVersion)
	}
	var exprs []string
	ids := map[int]bool{}
	taken := map[[2]int]string{}
	for _, p := range dash.Panels {
		if ids[p.ID] || (p.Type != "row") != (len(p.Targets) > 0) {
			t.Errorf("panel %q: id %d, %d targets", p.Title, p.ID, len(p.Targets))
		}
		ids[p.ID] = true
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				at := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				if other := taken[at]; other != "" || at[0] >= 24 {
					t.Errorf("panel %q lies upon %q, or beside the grid", p.Title, other)
				}
				taken[at] = p.Title
			}
		}
		for _, target := range p.Targets {
			exprs = append(exprs, target.Expr)
		}
	}
	for _, v := range dash.Templating.List {
		exprs = append(exprs, v.Definition)
	}
	missing(t, strings.Join(exprs, "\n"), exist)
}

// testValues compares what is known of the node with what it tells.
func testValues(t *testing.T, scrape string) {
	for _, line := range []string{
		`rqlited_ready 1`, `rqlited_store_open 1`, `rqlited_failed 0`, `rqlited_raft_state{state="Leader"} 1`, `rqlited_raft_leader_known 1`,
		`rqlited_raft_voter 1`, `rqlited_raft_servers{suffrage="voter"} 1`, `rqlited_raft_last_contact_seconds 0`,
		`rqlited_sqlite_pages 2`, `rqlited_sqlite_page_size_bytes 4096`, `rqlited_sqlite_size_bytes 8192`, `rqlited_sqlite_wal_size_bytes 0`,
		`rqlited_snapshots_total{kind="full"} 1`, `rqlited_snapshot_files 1`, `rqlited_snapshot_failed 0`,
		`rqlited_sqlite_statements_total{kind="write"} 5`, `rqlited_sqlite_statement_errors_total{kind="write"} 1`, `rqlited_sqlite_statements_total{kind="read"} 2`,
		`rqlited_raft_proposal_duration_seconds_count 3`, `rqlited_queue_batches_total 1`, `rqlited_sqlite_checkpoints_total{result="ok"} 1`,
		`rqlited_http_requests_total{code="200",endpoint="/db/execute",method="POST"} 2`,
	} {
		if !strings.Contains(scrape, "\n"+line+"\n") {
			name, _, _ := strings.Cut(line, " ")
			i := strings.Index(scrape, "\n"+name)
			found, _, _ := strings.Cut(scrape[i+1:], "\n")
			t.Errorf("no line %q, but %q", line, found)
		}
	}
}

// testVars expects the counters that /metrics reads, and those of rqlite with their true values.
func testVars(t *testing.T, body []byte) {
	var vars map[string]json.RawMessage
	if err := json.Unmarshal(body, &vars); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int64{
		"store.num_snapshots": 1, "store.num_user_snapshots": 1, "store.num_uncompressed_commands": 3, "store.num_restores": 0,
		"http.user_snapshots": 1, "http.executions": 2, "http.tls_cert_fetched": 1, "snapshot.sink_full_total": 1, "snapshot.persist_size": 8192,
		"snapshot.upgrade_ok": 0, "uploader.num_uploads_ok": 0, "proto.num_requests": 3, "db.executions": 5, "db.execution_errors": 1, "db.requests": 1,
		"db.checkpoints": 1, "queue.objects_tx": 1, "cluster.num_client_calls": 0, "mux.num_open_calls": 0,
	} {
		name, counter, _ := strings.Cut(path, ".")
		var m map[string]int64
		if err := json.Unmarshal(vars[name], &m); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got, ok := m[counter]; !ok || got != want {
			t.Errorf("%s = %d, %v; want %d", path, got, ok, want)
		}
	}
}

// testStatus compares the answer with one of rqlite: each member is there, of the same kind and in the same order.
func testStatus(t *testing.T, body []byte) {
	data, err := os.ReadFile("testdata/status.json")
	if err != nil {
		t.Fatal(err)
	}
	var theirs, ours any
	if err := json.Unmarshal(data, &theirs); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(body, &ours); err != nil {
		t.Fatal(err)
	}
	compareStatus(t, "", theirs, ours)
	want := paths(t, data)
	got := slices.DeleteFunc(paths(t, body), func(path string) bool { return !slices.Contains(want, path) })
	if !slices.Equal(got, want) {
		t.Errorf("members are in the order %q; want %q", got, want)
	}
}

// paths returns the members of all objects in a text in their order, each once.
func paths(t *testing.T, text []byte) (all []string) {
	dec := json.NewDecoder(bytes.NewReader(text))
	seen := map[string]bool{}
	var value func(path string)
	value = func(path string) {
		tok, err := dec.Token()
		if err != nil {
			t.Fatal(err)
		}
		for tok == json.Delim('{') && dec.More() {
			name, err := dec.Token()
			if err != nil {
				t.Fatal(err)
			}
			member := fmt.Sprintf("%s.%s", path, name)
			if !seen[member] {
				seen[member] = true
				all = append(all, member)
			}
			value(member)
		}
		for tok == json.Delim('[') && dec.More() {
			value(path + "[]")
		}
		if _, nested := tok.(json.Delim); nested {
			if _, err := dec.Token(); err != nil {
				t.Fatal(err)
			}
		}
	}
	value("")
	return all
}

func compareStatus(t *testing.T, path string, theirs, ours any) {
	if got, want := fmt.Sprintf("%T", ours), fmt.Sprintf("%T", theirs); got != want {
		t.Errorf("%s is a %s; want a %s", path, got, want)
		return
	}
	switch theirs := theirs.(type) {
	case map[string]any:
		members := ours.(map[string]any)
		for _, name := range slices.Sorted(maps.Keys(theirs)) {
			if _, there := members[name]; !there {
				t.Errorf("%s.%s is missing", path, name)
				continue
			}
			compareStatus(t, strings.TrimPrefix(path+"."+name, "."), theirs[name], members[name])
		}
	case []any:
		if members := ours.([]any); len(theirs) > 0 && len(members) > 0 {
			compareStatus(t, path+"[]", theirs[0], members[0])
		}
	}
}
