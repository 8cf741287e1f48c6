package http

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"rqlited/auth"
	"rqlited/command"
	"rqlited/store"
)

// needed says which permissions the paths of the API need, as clients of rqlite know them.
var needed = map[string]string{
	"/": "", "/console": "", "/console/": "ui",
	"/db/execute": "execute", "/db/query": "query", "/db/request": "query execute", "/db/sql": "query",
	"/db/backup": "backup", "/db/load": "load", "/boot": "load",
	"/snapshot": "snapshot", "/reap": "snapshot", "/remove": "remove", "/leader": "leader-ops", "/readyz": "ready",
	"/status": "status", "/nodes": "status", "/licenses": "status", "/db/hash": "status", "/extensions": "status", "/metrics": "status",
	"/debug/vars": "status", "/debug/pprof": "status", "/debug/pprof/cmdline": "status", "/debug/pprof/profile": "status",
	"/debug/pprof/symbol": "status",
}

// permissions are all that a credentials file can grant, and one that it can't.
var permissions = []string{
	"backup", "execute", "join", "join-read-only", "join-read-replica", "leader-ops", "load", "query", "ready", "remove",
	"snapshot", "status", "ui", "fly",
}

// user is an entry of a credentials file. The password is "pw" unless it says so.
type user struct {
	Username string   `json:"username"`
	Password string   `json:"password"`
	Perms    []string `json:"perms"`
}

// users returns the Store of a file with these users.
func users(t *testing.T, list ...user) *auth.Store {
	t.Helper()
	for i := range list {
		if list[i].Password == "" {
			list[i].Password = "pw"
		}
	}
	text, err := json.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "users.json")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := auth.Open(path, auth.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// basic is an Authorization header.
func basic(name, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(name+":"+password))
}

// ask sends a request whose client leaves at once, so that no answer takes long.
func ask(s *Server, method, path, authorization string) *http.Response {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	r := httptest.NewRequestWithContext(ctx, method, path, nil)
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w.Result()
}

// TestPermissions asks for every path of the API as every kind of user.
func TestPermissions(t *testing.T) {
	list := []user{{Username: "root", Perms: []string{"all"}}, {Username: "nobody"}}
	for _, p := range permissions {
		others := slices.DeleteFunc(slices.Clone(permissions), func(other string) bool { return other == p })
		list = append(list, user{Username: "only " + p, Perms: []string{p}}, user{Username: "not " + p, Perms: others})
	}
	f := newFixture()
	f.cfg.Auth = users(t, list...)
	s := NewServer(f.cfg, &f.db, &f.node, &f.peers)
	for _, rt := range s.routes {
		perms, known := needed[rt.path]
		if !known {
			t.Errorf("nothing says which permission %s needs", rt.path)
		}
		needs := strings.Fields(perms)
		method := http.MethodGet
		if rt.methods != nil {
			method = rt.methods[0]
		}
		expect := func(who, authorization string, want bool) {
			t.Helper()
			r := ask(s, method, rt.path, authorization)
			refused := r.StatusCode == http.StatusUnauthorized
			if refused == want {
				t.Errorf("%s %s as %s = %d; permitted: %v", method, rt.path, who, r.StatusCode, want)
			}
			if got := r.Header.Get("Www-Authenticate"); got != `Basic realm="rqlite"` {
				t.Errorf("%s %s as %s: Www-Authenticate is %q", method, rt.path, who, got)
			}
			if body := text(t, r); refused && body != "" {
				t.Errorf("%s %s as %s: refused with %q; want no body", method, rt.path, who, body)
			}
		}
		open := len(needs) == 0
		expect("anonymous", "", open)
		expect("stranger", basic("stranger", "pw"), open)
		expect("root with a wrong password", basic("root", "wrong"), open)
		expect("root with another scheme", strings.Replace(basic("root", "pw"), "Basic", "Bearer", 1), open)
		expect("root without base64", "Basic root:pw", open)
		expect("nobody", basic("nobody", "pw"), open)
		expect("root", basic("root", "pw"), true)
		for _, p := range permissions {
			only := open || len(needs) == 1 && needs[0] == p
			expect("only "+p, basic("only "+p, "pw"), only)
			expect("not "+p, basic("not "+p, "pw"), !slices.Contains(needs, p))
		}
	}
}

// TestEveryone gives everyone a part of what /db/request needs, and a user the rest.
func TestEveryone(t *testing.T) {
	f := newFixture()
	f.cfg.Auth = users(t, user{Username: "*", Perms: []string{"query"}}, user{Username: "bob", Perms: []string{"execute"}})
	s := NewServer(f.cfg, &f.db, &f.node, &f.peers)
	tests := []struct {
		method, path, authorization string
		permitted                   bool
	}{
		{"GET", "/db/query", "", true},
		{"GET", "/db/query", basic("bob", "wrong"), true},
		{"POST", "/db/execute", "", false},
		{"POST", "/db/request", "", false},
		{"POST", "/db/request", basic("bob", "pw"), true},
		{"POST", "/db/request", basic("bob", "wrong"), false},
	}
	for _, tt := range tests {
		if r := ask(s, tt.method, tt.path, tt.authorization); (r.StatusCode != http.StatusUnauthorized) != tt.permitted {
			t.Errorf("%s %s with %q = %d; permitted: %v", tt.method, tt.path, tt.authorization, r.StatusCode, tt.permitted)
		}
	}
	if got := s.counters.stats(); got["auth_ok"] != 6 || got["auth_fail"] != 3 { // a permission counts for itself
		t.Errorf("auth_ok = %d, auth_fail = %d; want 6 and 3", got["auth_ok"], got["auth_fail"])
	}
}

// TestOrder holds what comes before the permission, and what comes after it.
func TestOrder(t *testing.T) {
	tests := []struct {
		method, target, authorization string
		code                          int
	}{
		{"OPTIONS", "/db/execute?timeout=x", "", 200},
		{"POST", "/db/execute?timeout=x", "", 400}, // bad parameter
		{"GET", "/nonsense", "", 404},
		{"GET", "/", "", 302},
		{"GET", "/db/execute", "", 401},
		{"GET", "/db/execute", basic("bob", "pw"), 405},
		{"POST", "/db/execute?redirect", "", 401},
		{"POST", "/db/execute", basic("bob", "pw"), 400}, // no body
	}
	for _, tt := range tests {
		f := newFixture()
		f.cfg.Auth = users(t, user{Username: "bob", Perms: []string{"execute"}})
		f.db.err, f.peers.api = store.ErrNotLeader, "http://leader:4001"
		s := NewServer(f.cfg, &f.db, &f.node, &f.peers)
		if r := ask(s, tt.method, tt.target, tt.authorization); r.StatusCode != tt.code {
			t.Errorf("%s %s with %q = %d; want %d", tt.method, tt.target, tt.authorization, r.StatusCode, tt.code)
		}
		if len(f.db.asked) > 0 {
			t.Errorf("%s %s reached the database", tt.method, tt.target)
		}
	}
}

// TestCredentialsForwarded checks that every call that may go to the leader carries who asked, also
// if this node asks nobody for credentials: the leader may.
func TestCredentialsForwarded(t *testing.T) {
	want := command.Forward{Username: "bob", Password: "pw"}
	header := "Authorization: " + basic("bob", "pw")
	f := newFixture()
	f.do(t, "POST", "/db/execute", `["x"]`, header)
	f.do(t, "POST", "/db/query", `["x"]`, header)
	f.do(t, "POST", "/db/request", `["x"]`, header)
	if len(f.db.asked) != 3 {
		t.Fatalf("%d requests; want 3", len(f.db.asked))
	}
	for _, req := range f.db.asked {
		if got := req.Forward; got.Username != want.Username || got.Password != want.Password {
			t.Errorf("kind %v: credentials %q, %q; want bob's", req.Kind, got.Username, got.Password)
		}
	}
	for _, tt := range []struct{ method, path, body string }{{"DELETE", "/remove", `{"id":"x"}`}, {"POST", "/leader?wait", ""}} {
		f.peers.fwd = command.Forward{}
		f.do(t, tt.method, tt.path, tt.body, header)
		if got := f.peers.fwd; got.Username != want.Username || got.Password != want.Password {
			t.Errorf("%s: credentials %q, %q; want bob's", tt.path, got.Username, got.Password)
		}
	}
}
