package http

import (
	"maps"
	"net/http"
	"slices"
	"testing"

	"rqlited/auth"
)

func TestHeaders(t *testing.T) {
	open := http.Header{
		"X-Rqlite-Version":             {"10"},
		"Access-Control-Allow-Methods": {"OPTIONS, GET, POST"},
		"Access-Control-Allow-Headers": {"Content-Type"},
	}
	guarded := maps.Clone(open)
	guarded["Access-Control-Allow-Headers"] = []string{"Content-Type, Authorization"}
	guarded["Access-Control-Allow-Credentials"] = []string{"true"}
	guarded["Www-Authenticate"] = []string{`Basic realm="rqlite"`}
	with := func(h http.Header, name, value string) http.Header {
		h = maps.Clone(h)
		h.Set(name, value)
		return h
	}
	tests := []struct {
		name         string
		method, path string
		origin       string
		auth         Authorizer
		code         int
		want         http.Header
	}{
		{"options", "OPTIONS", "/nonsense?timeout=x", "", nil, 200, open},
		{"not found", "GET", "/nonsense", "", nil, 404, open},
		{"origin", "GET", "/nonsense", "*", nil, 404, with(open, "Access-Control-Allow-Origin", "*")},
		{"options with auth", "OPTIONS", "/db/execute", "", credentials{}, 200, guarded},
		{"not found with auth", "GET", "/nonsense", "", credentials{}, 404, guarded},
		{"unauthorized", "POST", "/db/execute", "", credentials{}, 401, with(guarded, "Content-Type", jsonType)},
		{"unauthorized comes before the method", "GET", "/db/execute", "", credentials{}, 401, with(guarded, "Content-Type", jsonType)},
		{"method", "GET", "/db/execute", "", nil, 405, with(open, "Content-Type", jsonType)},
		{"remove", "GET", "/remove", "", nil, 405, open},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture()
			f.cfg.AllowOrigin, f.cfg.Auth = tt.origin, tt.auth
			r := f.do(t, tt.method, tt.path, "")
			check(t, r, tt.code, "")
			if !maps.EqualFunc(r.Header, tt.want, func(a, b []string) bool { return len(a) == 1 && a[0] == b[0] }) {
				t.Errorf("header = %v; want %v", r.Header, tt.want)
			}
		})
	}
}

// credentials permits each user, by name, what is listed. Passwords are the names.
type credentials map[string][]string

func (c credentials) Permit(username, password, permission string) error {
	if username == password && slices.Contains(c[username], permission) {
		return nil
	}
	return auth.ErrDenied
}

func TestRoutes(t *testing.T) {
	tests := []struct {
		method, path string
		code         int
	}{
		{"GET", "/", 302},
		{"PUT", "/", 302},
		{"GET", "/statusXYZ", 200},
		{"GET", "/nodes/abc", 200},
		{"GET", "/readyzzz", 200},
		{"DELETE", "/remove/x", 400},
		{"POST", "/debug/vars", 200},
		{"GET", "/debug/vars/", 404},
		{"GET", "/leader/", 404},
		{"POST", "/snapshot/", 404},
		{"GET", "//db/query", 404},
		{"GET", "/db/hash", 200},
		{"HEAD", "/db/hash", 405},
		{"POST", "/db/hash", 405},
		{"GET", "/db/hash/", 404},
		{"GET", "/db", 404},
		{"GET", "/db/", 404},
		{"GET", "/db/sql", 400},
		{"GET", "/db/sqlXYZ?q=x", 200},
		{"PUT", "/db/sql", 405},
		{"GET", "/reap", 405},
		{"POST", "/reap/", 404},
		{"GET", "/licenses", 200},
		{"GET", "/licenses/", 404},
		{"POST", "/licenses", 405},
		{"GET", "/extensions", 200},
		{"GET", "/extensions/", 404},
		{"POST", "/extensions", 405},
		{"POST", "/db/loadXYZ", 200},
		{"GET", "/db/load", 405},
		{"GET", "/db/backup/x", 200},
		{"HEAD", "/db/backup", 405},
		{"POST", "/boot", 200},
		{"POST", "/boot/", 404},
		{"GET", "/join", 404},
		{"GET", "/Status", 404},
		{"POST", "/status", 405},
		{"POST", "/nodes", 405},
		{"PUT", "/leader", 405},
		{"POST", "/readyz", 405},
		{"GET", "/snapshot", 405},
		{"POST", "/remove", 405},
		{"GET", "/debug/pprof", 200},
		{"GET", "/debug/pprof/goroutine?debug=1", 200},
		{"GET", "/debug/pprof/trace", 404},
		{"GET", "/nonsense?retries=x", 400},
	}
	for _, tt := range tests {
		f := newFixture()
		r := f.do(t, tt.method, tt.path, "")
		if r.StatusCode != tt.code {
			t.Errorf("%s %s = %d; want %d", tt.method, tt.path, r.StatusCode, tt.code)
		}
		if empty := tt.code == 404 && tt.path != "/debug/pprof/trace" || tt.code == 405; empty && text(t, r) != "" {
			t.Errorf("%s %s has a body", tt.method, tt.path)
		}
	}
	if loc := newFixture().do(t, "GET", "/", "").Header.Get("Location"); loc != "/status" {
		t.Errorf("Location of / = %q; want /status", loc)
	}
}

// TestTextError checks the form of errors that have a text.
func TestTextError(t *testing.T) {
	r := newFixture().do(t, "POST", "/db/execute", "{}")
	check(t, r, 400, "invalid request\n")
	if got := r.Header.Get("Content-Type"); got != textType {
		t.Errorf("Content-Type = %q; want %q", got, textType)
	}
	if got := r.Header.Get("X-Content-Type-Options"); got != "nosniff" {
		t.Errorf("X-Content-Type-Options = %q; want nosniff", got)
	}
}
