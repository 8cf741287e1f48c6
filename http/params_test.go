package http

import (
	"math"
	"net/url"
	"strconv"
	"testing"
	"time"

	"rqlited/command"
)

func TestParseParamsErrors(t *testing.T) {
	tests := []struct{ query, want string }{
		{"a=%zz", `invalid URL escape "%zz"`},
		{"q=SELECT 1;", "invalid semicolon separator in query"},
		{"timeout=5", "timeout is not a valid duration"},
		{"timeout=", "timeout is not a valid duration"},
		{"timeout", "timeout is not a valid duration"},
		{"freshness=x", "freshness is not a valid duration"},
		{"db_timeout=1", "db_timeout is not a valid duration"},
		{"linearizable_timeout=1d", "linearizable_timeout is not a valid duration"},
		{"retries=", "retries is not a valid integer"},
		{"retries=1.5", "retries is not a valid integer"},
		{"trailing_logs=0x10", "trailing_logs is not a valid integer"},
		{"freshness_strict", "freshness_strict requires freshness"},
		{"q=", "query parameter not set"},
		{"q", "query parameter not set"},
		{"timeout=1s&timeout=5", ""}, // the first value counts
		{"Timeout=5", ""},            // another name
		{"pretty=false&x=y", ""},
	}
	for _, tt := range tests {
		t.Run(tt.query, func(t *testing.T) {
			_, err := parseParams(tt.query)
			got := ""
			if err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("parseParams(%q) = %q; want %q", tt.query, got, tt.want)
			}
		})
	}
}

func TestParseParams(t *testing.T) {
	p, err := parseParams("pretty=false&timeout=1h2m&freshness=500ms&db_timeout=0s&linearizable_timeout=0s&retries=3&trailing_logs=-1")
	if err != nil {
		t.Fatal(err)
	}
	p.values = nil
	want := params{timeout: 62 * time.Minute, freshness: 500 * time.Millisecond, retries: 3, trailing: math.MaxUint64}
	if got := *p; got.timeout != want.timeout || got.freshness != want.freshness || got.dbTimeout != 0 ||
		got.linearizableTimeout != 0 || got.retries != want.retries || got.trailing != want.trailing {
		t.Errorf("parseParams = %+v; want %+v", got, want)
	}
}

// FuzzParams parses any query string: it is refused, with few words, or each parameter is what it says.
func FuzzParams(f *testing.F) {
	for _, s := range []string{
		"", "pretty&timings=false", "q=SELECT+1&q=SELECT+2", "a=%zz", "q=SELECT 1;", "timeout=5", "timeout=1h2m&db_timeout=-1s", "freshness_strict", "freshness=1ms&freshness_strict",
		"retries=9223372036854775808", "trailing_logs=-1", "level=Strong&redirect", "q=", "linearizable_timeout=0s", "timeout=2562047h47m16.854775808s", "=&=&&%00=%ff",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, query string) {
		p, err := parseParams(query)
		if err != nil {
			if code, text := statusOf(err); code != 400 || len(text) > 100 {
				t.Fatalf("parseParams(%q) = %d %q", query, code, text)
			}
			return
		}
		want, err := url.ParseQuery(query)
		if err != nil {
			t.Fatalf("parseParams(%q) succeeds; url.ParseQuery fails with %v", query, err)
		}
		for name, got := range map[string]time.Duration{"timeout": p.timeout, "freshness": p.freshness, "db_timeout": p.dbTimeout, "linearizable_timeout": p.linearizableTimeout} {
			d, err := time.ParseDuration(want.Get(name))
			if _, given := want[name]; given && (err != nil || d > 0 && got != d) {
				t.Fatalf("parseParams(%q): %s = %s; want %s, %v", query, name, got, d, err)
			}
			if got < 0 || name == "timeout" && got == 0 {
				t.Fatalf("parseParams(%q): %s = %s", query, name, got)
			}
		}
		if n, err := strconv.Atoi(want.Get("retries")); want.Has("retries") && (err != nil || p.retries != max(n, 0)) {
			t.Fatalf("parseParams(%q): retries = %d; want %d, %v", query, p.retries, n, err)
		}
		if want.Has("freshness_strict") && !want.Has("freshness") || want.Has("q") && want.Get("q") == "" {
			t.Fatalf("parseParams(%q) succeeds", query)
		}
		for _, k := range []command.Kind{command.Execute, command.Query, command.Unified} {
			if r := p.request(k, caller{}); r.Transaction != want.Has("transaction") || r.Forward.Never != want.Has("redirect") {
				t.Fatalf("parseParams(%q): request = %+v", query, r)
			}
		}
	})
}
