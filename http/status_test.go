package http

import (
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// statusFixture has a store whose part keeps the order of its members.
func statusFixture() *fixture {
	f := newFixture()
	f.cfg.BindAddr = "127.0.0.1:14001"
	f.cfg.Status = map[string]func() any{
		"store": func() any {
			return json.RawMessage(`{"raft":{"state":"Leader","voter":true,"term":2,"config":{"b":1,"a":2}},"nodes":[{"id":"n1"}],"big":1795396360844436462}`)
		},
		"mux":   func() any { return nil }, // not there yet
		"disco": func() any { return map[string]any{"mode": "dns"} },
	}
	return f
}

func TestStatusKey(t *testing.T) {
	tests := []struct{ key, want string }{
		{"build", `{"build_time":"unknown","commit":"unknown","compiler_command":"unknown","compiler_toolchain":"gc","version":"10"}`},
		{"build.version", `"10"`},
		{"build.version.x", `"10"`},
		{"http", `{"auth":"disabled","bind_addr":"127.0.0.1:14001","cluster":{"local_node_addr":"127.0.0.1:14002","timeout":"30s"},"queue":{"_default":{"batch_size":128,"max_size":1024,"sequence_number":0,"timeout":"50ms"}},"tls":{"enabled":"false"}}`},
		{"store.raft.state", `"Leader"`},
		{"store.raft.voter", `true`},
		{"store.raft.config", `{"a":2,"b":1}`},
		{"store.nodes.0", `[{"id":"n1"}]`},
		{"store.big", `1795396360844436500`},
		{"store.nothing", `{}`},
		{"nothing.at.all", `{}`},
		{"mux", `{}`},
		{"disco.mode", `"dns"`},
	}
	for _, tt := range tests {
		f := statusFixture()
		check(t, f.do(t, "GET", "/status?pretty&key="+tt.key, ""), http.StatusOK, tt.want)
	}
}

func TestStatus(t *testing.T) {
	f := statusFixture()
	r := f.do(t, "GET", "/status", "")
	body := text(t, r)
	var all map[string]json.RawMessage
	if err := json.Unmarshal([]byte(body), &all); err != nil {
		t.Fatal(err)
	}
	at := 0
	for _, name := range []string{"build", "disco", "http", "network", "node", "os", "runtime", "store"} {
		if all[name] == nil {
			t.Errorf("%s is missing", name)
		}
		i := strings.Index(body, `"`+name+`":{`)
		if i < at {
			t.Errorf("%s is out of order", name)
		}
		at = i
	}
	if len(all) != 8 {
		t.Errorf("status has %d parts; want 8", len(all))
	}
	if want := `"config":{"b":1,"a":2}`; !strings.Contains(body, want) {
		t.Errorf("status lacks %s: members of a part were reordered", want)
	}
	pretty := text(t, f.do(t, "GET", "/status?pretty", ""))
	if !strings.HasPrefix(pretty, "{\n    \"build\": {\n        \"build_time\": \"unknown\",\n") || !strings.HasSuffix(pretty, "\n}") {
		t.Errorf("pretty = %s", pretty)
	}
}

func TestStatusPools(t *testing.T) {
	f := newFixture()
	f.cfg.Pools = func() any { return map[string]map[string]int{"127.0.0.1:14012": {"idle": 1}} }
	check(t, f.do(t, "GET", "/status?key=http.cluster.conn_pool_stats", ""), http.StatusOK, `{"127.0.0.1:14012":{"idle":1}}`)
}

// TestStatusBeforeOpen checks what is there from the first moment on.
func TestStatusBeforeOpen(t *testing.T) {
	f := newFixture()
	check(t, f.do(t, "GET", "/status?key=store", ""), http.StatusOK, `{"open":false}`)
	f.cfg.AllowOrigin = "*"
	f.cfg.Auth = credentials{"": {"status"}}
	f.cfg.TLS = TLS{CertFile: "srv.pem", KeyFile: "srv.key", CAFile: "ca.pem", ClientAuth: "RequireAndVerifyClientCert"}
	check(t, f.do(t, "GET", "/status?key=http", ""), http.StatusOK,
		`{"allow_origin":"*","auth":"enabled","bind_addr":"","cluster":{"local_node_addr":"127.0.0.1:14002","timeout":"30s"},`+
			`"queue":{"_default":{"batch_size":128,"max_size":1024,"sequence_number":0,"timeout":"50ms"}},`+
			`"tls":{"ca_file":"ca.pem","cert_file":"srv.pem","client_auth":"RequireAndVerifyClientCert","enabled":"true","key_file":"srv.key","next_protos":["h2","http/1.1"]}}`)
}

func TestStatusBroken(t *testing.T) {
	f := newFixture()
	f.cfg.Status = map[string]func() any{"store": func() any { return errors.New("disk I/O error") }}
	check(t, f.do(t, "GET", "/status?key=node", ""), http.StatusInternalServerError, "store stats: disk I/O error\n")
	f.cfg.Status = map[string]func() any{"store": func() any { return func() {} }}
	check(t, f.do(t, "GET", "/status", ""), http.StatusInternalServerError, "JSON marshal: json: unsupported type: func()\n")
}

func TestVars(t *testing.T) {
	f := newFixture()
	f.cfg.Vars = map[string]func() map[string]int64{
		"ours":  func() map[string]int64 { return map[string]int64{"b": 1, "a": -2} },
		"proxy": func() map[string]int64 { return map[string]int64{"remote_backups": 3, "zz": 4} },
	}
	check(t, f.do(t, "GET", "/debug/vars?key=ours", ""), http.StatusOK, "{\n\"ours\": {\"a\": -2, \"b\": 1}\n}\n")
	check(t, f.do(t, "GET", "/debug/vars?key=proxy&pretty", ""), http.StatusOK,
		"{\n\"proxy\": {\"remote_backups\": 3, \"remote_executions\": 0, \"remote_executions_failed\": 0, \"remote_loads\": 0, \"remote_queries\": 0, "+
			"\"remote_queries_failed\": 0, \"remote_remove_node\": 0, \"remote_requests\": 0, \"remote_requests_failed\": 0, \"remote_stepdowns\": 0, \"zz\": 4}\n}\n")
	check(t, f.do(t, "GET", "/debug/vars?key=nothing", ""), http.StatusOK, "{\n\n}\n")
	check(t, f.do(t, "POST", "/debug/vars?key=nothing", ""), http.StatusOK, "{\n\n}\n")

	all := text(t, f.do(t, "GET", "/debug/vars", ""))
	var vars map[string]json.RawMessage
	if err := json.Unmarshal([]byte(all), &vars); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, n := range regexp.MustCompile(`(?m)^"([a-z.]+)": `).FindAllStringSubmatch(all, -1) {
		got = append(got, n[1])
	}
	want := []string{
		"cdc.service", "cluster", "cmdline", "db", "db.wal", "downloader", "http", "limits", "memstats", "mux", "ours", "proto", "proxy", "queue",
		"snapshot", "snapshot.plan", "sql.processor", "store", "uploader",
	}
	if !slices.Equal(got, want) {
		t.Errorf("variables = %v; want %v", got, want)
	}
	if want, _ := json.Marshal(os.Args); string(vars["cmdline"]) != string(want) {
		t.Errorf("cmdline = %s; want %s", vars["cmdline"], want)
	}
}

// TestVarsComplete compares the names with what rqlite answers, and the form with that of package expvar. No
// other part tells anything yet: the names are there from the start.
func TestVarsComplete(t *testing.T) {
	data, err := os.ReadFile("testdata/debug_vars.txt")
	if err != nil {
		t.Fatal(err)
	}
	var theirs, ours map[string]json.RawMessage
	if err := json.Unmarshal(data, &theirs); err != nil {
		t.Fatal(err)
	}
	body := text(t, newFixture().do(t, "GET", "/debug/vars", ""))
	if err := json.Unmarshal([]byte(body), &ours); err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`^"[a-z.]+": \{("[a-z0-9_]+": \d+(, )?)+\},?$`)
	for l := range strings.SplitSeq(body, "\n") {
		other := strings.HasPrefix(l, `"cmdline": [`) || strings.HasPrefix(l, `"memstats": {"`)
		if strings.HasPrefix(l, `"`) && !other && !line.MatchString(l) {
			t.Errorf("line %s", l)
		}
	}
	for name, text := range theirs {
		var known, told map[string]int64
		if err := errors.Join(json.Unmarshal(text, &known), json.Unmarshal(ours[name], &told)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for counter := range known {
			if v, ok := told[counter]; !ok || v != 0 && counter != "auth_ok" {
				t.Errorf("%s.%s = %d, %v; want 0, as nothing has happened", name, counter, v, ok)
			}
		}
	}
}

// TestCounters checks what is counted when.
func TestCounters(t *testing.T) {
	f := newFixture()
	f.cfg.Auth = credentials{"u": {"execute", "query"}}
	f.db.resp = answerOf(write(1, 1, 0))
	s := NewServer(f.cfg, &f.db, &f.node, &f.peers)
	f.send(s, "POST", "/db/execute", `["a","b"]`)
	f.send(s, "GET", "/db/execute", ``)
	f.send(s, "POST", "/db/execute", `[`)
	f.send(s, "POST", "/db/request", `["a"]`)
	f.send(s, "GET", "/db/query?q=x", ``)
	f.send(s, "GET", "/readyz", ``)
	got := s.counters.stats()
	for name, want := range map[string]int64{
		"executions": 3, "execute_stmts_rx": 2, "requests": 1, "request_stmts_rx": 1, "queries": 1, "query_stmts_rx": 1,
		"auth_ok": 6, "auth_fail": 1, "num_readyz": 1, "leader_not_found": 0,
	} {
		if got[name] != want {
			t.Errorf("%s = %d; want %d", name, got[name], want)
		}
	}
}
