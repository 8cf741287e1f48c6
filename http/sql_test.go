package http

import (
	"errors"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"rqlited/store"
)

func TestAnalyse(t *testing.T) {
	const random = `["SELECT random(), date('now')"]`
	tests := []struct {
		name, method, target, body string
		code                       int
		want                       string // a regular expression
	}{
		{"get", "GET", "/db/sql?q=select%201", "", 200, `{"results":\[{"original":"select 1","rewritten":"SELECT 1"}\]}`},
		{"no query", "GET", "/db/sql", "", 400, "query not specified\n"},
		{"empty query", "GET", "/db/sql?q=", "", 400, "query parameter not set\n"},
		{"post", "POST", "/db/sql", `["SELECT random()",["INSERT INTO foo(x) VALUES(?)",1],"BAD SQL",""]`, 200,
			`{"results":\[{"original":"SELECT random\(\)","rewritten":"SELECT \d{1,19}"},` +
				`{"original":"INSERT INTO foo\(x\) VALUES\(\?\)","rewritten":"INSERT INTO \\"foo\\" \(\\"x\\"\) VALUES \(\?\)"},` +
				`{"original":"BAD SQL","error":"near \\"BAD\\": syntax error"},{"original":"","error":"EOF"}\]}`},
		{"both", "POST", "/db/sql", random, 200, `.*"rewritten":"SELECT \d+, date\(24\d{5}\.\d{9}\)"}\]}`},
		{"norwrandom", "POST", "/db/sql?norwrandom", random, 200, `.*"rewritten":"SELECT random\(\), date\(24\d{5}\.\d{9}\)"}\]}`},
		{"norwtime", "POST", "/db/sql?norwtime", random, 200, `.*"rewritten":"SELECT \d+, date\('now'\)"}\]}`},
		{"pretty", "POST", "/db/sql?pretty", `["SELECT 1"]`, 200,
			"{\n    \"results\": \\[\n        {\n            \"original\": \"SELECT 1\",\n            \"rewritten\": \"SELECT 1\"\n        }\n    \\]\n}"},
		{"timings", "POST", "/db/sql?timings", `["SELECT 1"]`, 200, `{"results":\[{"original":"SELECT 1","rewritten":"SELECT 1"}\],"time":[0-9.e-]+}`},
		{"raw", "POST", "/db/sql", "SELECT 1", 400, "invalid JSON body\n"},
		{"long", "POST", "/db/sql", `["` + strings.Repeat(" ", 1<<20) + `","SELECT 1"]`, 413, "statements to analyse have more than 1048576 bytes\n"},
		{"nothing", "POST", "/db/sql", "[]", 400, "no statements\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture()
			r := f.do(t, tt.method, tt.target, tt.body, "Content-Type: text/plain")
			got := text(t, r)
			if r.StatusCode != tt.code || !regexp.MustCompile("^(?:"+tt.want+")$").MatchString(got) {
				t.Errorf("answer = %d %s; want %d %s", r.StatusCode, got, tt.code, tt.want)
			}
			if len(f.db.asked) > 0 {
				t.Error("something was run")
			}
			if served := r.Header.Get("X-Rqlite-Served-By"); served != "" {
				t.Errorf("served by %s; want nobody", served)
			}
		})
	}
}

func TestReap(t *testing.T) {
	tests := []struct {
		name   string
		deltas int
		err    error
		code   int
		body   string
	}{
		{"nothing to do", 0, nil, 200, "{\"snapshots_reaped\":0,\"wals_checkpointed\":0}\n"},
		{"done", 3, nil, 200, "{\"snapshots_reaped\":3,\"wals_checkpointed\":3}\n"},
		{"not open", 0, store.ErrNotOpen, 500, "store not open\n"},
		{"failed", 0, errors.New("no room"), 500, "no room\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture()
			f.node.deltas, f.node.compactErr = tt.deltas, tt.err
			r := f.do(t, "POST", "/reap", "")
			check(t, r, tt.code, tt.body)
			if got := r.Header.Get("Content-Type"); tt.code == 200 && got != jsonType {
				t.Errorf("Content-Type = %s; want %s", got, jsonType)
			}
		})
	}
}

// TestCounted checks that calls are counted, those that were refused too.
func TestCounted(t *testing.T) {
	f := newFixture()
	s := NewServer(f.cfg, &f.db, &f.node, &f.peers)
	for _, method := range []string{"GET", "POST", "PUT"} {
		f.send(s, method, "/db/sql?q=x", "[]")
		f.send(s, method, "/reap", "")
	}
	got := s.counters.stats()
	if got["sql_analyze"] != 3 || got["user_reaps"] != 3 {
		t.Errorf("sql_analyze = %d, user_reaps = %d; want 3 and 3", got["sql_analyze"], got["user_reaps"])
	}
}

func TestLicenses(t *testing.T) {
	r := newFixture().do(t, "GET", "/licenses", "")
	if got := r.Header.Get("Content-Type"); got != textType || r.StatusCode != http.StatusOK {
		t.Errorf("answer = %d %s; want 200 %s", r.StatusCode, got, textType)
	}
	if got := text(t, r); !strings.Contains(got, "MIT License") || !strings.Contains(got, "SQLite is in the public domain") {
		t.Errorf("/licenses = %.200q", got)
	}
}

func TestExtensions(t *testing.T) {
	tests := []struct {
		part any
		want string
	}{
		{nil, "{}"},
		{map[string][]string{"names": {"a.so"}}, `{"names":["a.so"]}`},
	}
	for _, tt := range tests {
		f := newFixture()
		if tt.part != nil {
			f.cfg.Status = map[string]func() any{"extensions": func() any { return tt.part }}
		}
		check(t, f.do(t, "GET", "/extensions", ""), 200, tt.want)
		check(t, f.do(t, "GET", "/status?key=extensions", ""), 200, tt.want)
	}
}
