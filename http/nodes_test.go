package http

import (
	"context"
	"errors"
	"net/http"
	"regexp"
	"testing"
	"testing/synctest"
	"time"

	"rqlited/store"
)

// threeNodes makes f a cluster in which c1 leads, c2 hangs, c3 is gone, and c4 has no vote.
func threeNodes(f *fixture) {
	f.node.servers = []store.Server{
		{ID: "c1", Addr: "127.0.0.1:14102", Voter: true},
		{ID: "c3", Addr: "127.0.0.1:14122", Voter: true},
		{ID: "c2", Addr: "127.0.0.1:14112", Voter: true},
		{ID: "c4", Addr: "127.0.0.1:14132"},
	}
	f.peers.meta = func(ctx context.Context, addr string) (PeerMeta, error) {
		switch addr {
		case "127.0.0.1:14102":
			return PeerMeta{URL: "http://127.0.0.1:14101", Version: "10"}, nil
		case "127.0.0.1:14112":
			deadline, _ := ctx.Deadline()
			<-time.After(time.Until(deadline)) // as a connection does, which knows the deadline and not ctx
			return PeerMeta{}, errors.New("read tcp: i/o timeout")
		case "127.0.0.1:14132":
			<-time.After(204386 * time.Nanosecond) // by the clock of the bubble
			return PeerMeta{URL: "http://127.0.0.1:14131", Version: "10"}, nil
		}
		return PeerMeta{}, errors.New("dial tcp 127.0.0.1:14122: connect: connection refused")
	}
}

const (
	c1 = `{"id":"c1","api_addr":"http://127.0.0.1:14101","addr":"127.0.0.1:14102","version":"10","voter":true,"reachable":true,"leader":true,"time_s":"0s"}`
	c2 = `{"id":"c2","addr":"127.0.0.1:14112","version":"","voter":true,"reachable":false,"leader":false,"error":"timeout waiting for node to respond"}`
	c3 = `{"id":"c3","addr":"127.0.0.1:14122","version":"","voter":true,"reachable":false,"leader":false,"error":"dial tcp 127.0.0.1:14122: connect: connection refused"}`
	c4 = `{"id":"c4","api_addr":"http://127.0.0.1:14131","addr":"127.0.0.1:14132","version":"10","voter":false,"reachable":true,"leader":false,"time":0.000204386,"time_s":"204.386µs"}`
)

func TestNodes(t *testing.T) {
	tests := []struct{ path, want string }{
		{"/nodes", `{"c1":` + c1 + `,"c2":` + c2 + `,"c3":` + c3 + `}`},
		{"/nodes?nonvoters", `{"c1":` + c1 + `,"c2":` + c2 + `,"c3":` + c3 + `,"c4":` + c4 + `}`},
		{"/nodes?ver=2&timeout=300ms", `{"nodes":[` + c1 + `,` + c2 + `,` + c3 + `]}`},
		{"/nodes?ver=2&nonvoters", `{"nodes":[` + c1 + `,` + c2 + `,` + c3 + `,` + c4 + `]}`},
		{"/nodes?ver=3&nonvoters", `{"c1":` + c1 + `,"c2":` + c2 + `,"c3":` + c3 + `,"c4":` + c4 + `}`},
	}
	for _, tt := range tests {
		t.Run(tt.path, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture()
				threeNodes(f)
				check(t, f.do(t, "GET", tt.path, ""), http.StatusOK, tt.want)
			})
		})
	}
}

func TestNodesElsewhere(t *testing.T) {
	f := newFixture()
	f.node.leaderless = true
	synctest.Test(t, func(t *testing.T) {
		check(t, f.do(t, "GET", "/nodes?pretty&ver=2", ""), http.StatusOK, `{
    "nodes": [
        {
            "id": "n1",
            "api_addr": "http://127.0.0.1:14001",
            "addr": "127.0.0.1:14002",
            "version": "10",
            "voter": true,
            "reachable": true,
            "leader": false,
            "time_s": "0s"
        }
    ]
}`)
	})
	f.node.servers = nil
	check(t, f.do(t, "GET", "/nodes", ""), http.StatusOK, `{}`)
	check(t, f.do(t, "GET", "/nodes?ver=2", ""), http.StatusOK, `{"nodes":[]}`)
	f.node.serversErr = store.ErrNotOpen
	check(t, f.do(t, "GET", "/nodes", ""), http.StatusServiceUnavailable, "store nodes: store not open\n")
}

// TestNodesPanic checks that a panic outside the goroutine of the request is survived, too.
func TestNodesPanic(t *testing.T) {
	f := newFixture()
	f.peers.meta = func(context.Context, string) (PeerMeta, error) { panic("broken") }
	check(t, f.do(t, "GET", "/nodes", ""), http.StatusInternalServerError, "internal error\n")
}

// TestNodesTime checks that a real clock gives both forms of the time.
func TestNodesTime(t *testing.T) {
	got := text(t, newFixture().do(t, "GET", "/nodes", ""))
	want := regexp.MustCompile(`^\{"n1":\{"id":"n1",.*"leader":true,"time":[0-9.e-]+,"time_s":"[0-9.]+[nµm]?s"\}\}$`)
	if !want.MatchString(got) {
		t.Errorf("nodes = %s; want %s", got, want)
	}
}

func TestLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture()
		threeNodes(f)
		check(t, f.do(t, "GET", "/leader", ""), http.StatusOK, c1)
		f.node.leaderless = true
		check(t, f.do(t, "GET", "/leader", ""), http.StatusServiceUnavailable, "leader not found\n")
	})
}

func TestStepdown(t *testing.T) {
	const json = "application/json"
	tests := []struct {
		name        string
		path        string
		ctype, body string
		err         error
		code        int
		want        string
		id          string // that Stepdown was asked for
		wait, never bool
	}{
		{"no wait", "/leader", "", "", nil, 200, "", "", false, true},
		{"wait", "/leader?wait", "", "", nil, 200, "", "", true, false},
		{"target", "/leader", json, `{"id":"c2"}`, nil, 200, "", "c2", false, true},
		{"null target", "/leader", json, `{"id": null}`, nil, 200, "", "", false, true},
		{"other type", "/leader", json + "; charset=utf-8", `{"id":"c2"}`, nil, 200, "", "", false, true},
		{"bad JSON", "/leader", json, `{"id":1}`, nil, 400,
			"invalid JSON: json: cannot unmarshal number into Go struct field .id of type string\n", "", false, false},
		{"not open", "/leader", "", "", store.ErrNotOpen, 503, "stepdown: store not open\n", "", false, true},
		{"no leader", "/leader", "", "", store.ErrNoLeader, 200, "", "", false, true},
		{"no leader, wait", "/leader?wait", "", "", store.ErrNoLeader, 503, "leader not found\n", "", true, false},
		{"no leader, redirect", "/leader?wait&redirect", "", "", store.ErrNotLeader, 500, "leader not found\n", "", true, true},
		{"unauthorized", "/leader?wait", "", "", store.ErrUnauthorized, 401, "remote stepdown not authorized\n", "", true, false},
		{"to itself", "/leader", "", "", store.ErrSelfStepdown, 500, "stepdown: cannot step down to the current Leader\n", "", false, true},
		{"to nobody known", "/leader", "", "", store.ErrNodeNotFound, 500, "stepdown: node not found in cluster\n", "", false, true},
		{"alone", "/leader?wait", "", "", store.ErrNoPeer, 500, "stepdown: cannot find peer\n", "", true, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture()
			f.peers.err = tt.err
			r := f.do(t, "POST", tt.path, tt.body, "Content-Type: "+tt.ctype)
			check(t, r, tt.code, tt.want)
			if p := &f.peers; p.id != tt.id || p.wait != tt.wait || p.fwd.Never != tt.never {
				t.Errorf("Stepdown(%q, %v, never %v); want %q, %v, %v", p.id, p.wait, p.fwd.Never, tt.id, tt.wait, tt.never)
			}
			if _, ok := r.Header["X-Rqlite-Served-By"]; ok != (tt.err == nil && tt.code == 200) {
				t.Errorf("X-Rqlite-Served-By is there: %v", ok)
			}
		})
	}
}

func TestRemove(t *testing.T) {
	tests := []struct {
		path, body string
		err        error
		code       int
		want       string
	}{
		{"/remove", `{"id":"c2"}`, nil, 200, ""},
		{"/remove", `{"id":"c2"}`, store.ErrNoLeader, 503, "leader not found\n"},
		{"/remove", `{"id":"c2"}`, store.ErrNotOpen, 500, "store not open\n"},
		{"/remove", `{"id":"c2"}`, store.ErrUnauthorized, 401, "remote remove node not authorized\n"},
		{"/remove?redirect", `{"id":"c2"}`, store.ErrNotLeader, 301, ""},
		{"/remove", ``, nil, 400, ""},
		{"/remove", `{}`, nil, 400, ""},
		{"/remove", `{"ID":"c2"}`, nil, 400, ""},
		{"/remove", `{"id":2}`, nil, 400, ""},
		{"/remove", `{"id":"c2","x":"y"}`, nil, 400, ""},
		{"/remove", `["c2"]`, nil, 400, ""},
		{"/remove", `{"id":"c2"`, nil, 400, ""},
	}
	for _, tt := range tests {
		f := newFixture()
		f.peers.err, f.peers.api, f.peers.servedBy = tt.err, "http://127.0.0.1:14101", "127.0.0.1:14102"
		r := f.do(t, "DELETE", tt.path, tt.body)
		check(t, r, tt.code, tt.want)
		asked := tt.code != 400
		if (f.peers.id == "c2") != asked {
			t.Errorf("%s: removed %q", tt.body, f.peers.id)
		}
		if by := r.Header.Get("X-Rqlite-Served-By"); (by == "127.0.0.1:14102") != (tt.code == 200) {
			t.Errorf("%s: X-Rqlite-Served-By = %q", tt.body, by)
		}
	}
}

func TestSnapshot(t *testing.T) {
	tests := []struct {
		path     string
		err      error
		code     int
		want     string
		trailing uint64
	}{
		{"/snapshot", nil, 200, "", 0},
		{"/snapshot?trailing_logs=5", nil, 200, "", 5},
		{"/snapshot", store.ErrNothingNew, 204, "", 0},
		{"/snapshot", store.ErrNotOpen, 500, "store not open\n", 0},
		{"/snapshot", errors.New("disk full"), 500, "disk full\n", 0},
	}
	for _, tt := range tests {
		f := newFixture()
		f.node.snapshotErr = tt.err
		check(t, f.do(t, "POST", tt.path, ""), tt.code, tt.want)
		if f.node.trailing != tt.trailing {
			t.Errorf("%s: trailing = %d; want %d", tt.path, f.node.trailing, tt.trailing)
		}
	}
}
