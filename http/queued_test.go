package http

import (
	"context"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rqlited/command"
	"rqlited/store"
)

// queued sends one request to a new Server, on the clock of a bubble, and shuts the Server down.
func (f *fixture) queued(t *testing.T, target, body string, header ...string) (r *http.Response, took time.Duration) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(f.cfg, &f.db, &f.node, &f.peers)
		start := time.Now()
		w := httptest.NewRecorder()
		req := httptest.NewRequest("POST", target, strings.NewReader(body))
		for _, line := range header {
			name, value, _ := strings.Cut(line, ": ")
			req.Header.Set(name, value)
		}
		s.ServeHTTP(w, req)
		took = time.Since(start)
		if err := s.Shutdown(t.Context()); err != nil {
			t.Errorf("Shutdown = %v", err)
		}
		r = w.Result()
	})
	return r, took
}

// TestQueuedWrite compares answers to queued writes byte for byte. The clock of a bubble starts in
// 2000, and so do the sequence numbers.
func TestQueuedWrite(t *testing.T) {
	const ok = `{"results":[],"sequence_number":946684800000000000}`
	tests := []struct {
		name, query, body string
		code              int
		want              string
		took              time.Duration
		asked             int // requests to the database
	}{
		{"plain", "", `["x"]`, 200, ok, 0, 1},
		{"pretty", "&pretty", `["x"]`, 200, "{\n    \"results\": [],\n    \"sequence_number\": 946684800000000000\n}", 0, 1},
		{"parameters that mean nothing", "&redirect&raft_index&associative&transaction&retries=9&db_timeout=1ns", `["x"]`, 200, ok, 0, 1},
		{"waiting", "&wait", `["x"]`, 200, ok, 50 * time.Millisecond, 1},
		{"waiting with timings", "&wait&timings", `["x"]`, 200,
			`{"results":[],"time":0.05,"sequence_number":946684800000000000}`, 50 * time.Millisecond, 1},
		{"waiting too short", "&wait&timeout=49ms", `["x"]`, 408, "queue wait timeout\n", 49 * time.Millisecond, 1},
		{"empty list as a mark", "&wait", `[]`, 200, ok, 50 * time.Millisecond, 0},
		{"empty body as a mark", "&wait", ``, 200, ok, 50 * time.Millisecond, 0},
		{"empty list", "", `[]`, 400, "no statements\n", 0, 0},
		{"empty body", "", ``, 400, "invalid JSON body\n", 0, 0},
		{"blank body", "&wait", ` `, 400, "invalid JSON body\n", 0, 0},
		{"object", "", `{}`, 400, "invalid request\n", 0, 0},
		{"number", "&wait", `["x",1]`, 400, "invalid request\n", 0, 0},
		{"cut off", "", `["x","y`, 400, "invalid JSON body\n", 0, 0},
		{"raw", "", `INSERT`, 400, "invalid JSON body\n", 0, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture()
			r, took := f.queued(t, "/db/execute?queue"+tt.query, tt.body, "Content-Type: text/plain")
			check(t, r, tt.code, tt.want)
			if took != tt.took || len(f.db.asked) != tt.asked {
				t.Errorf("took %s and %d requests to the database; want %s, %d", took, len(f.db.asked), tt.took, tt.asked)
			}
			if got := r.Header.Get("X-Rqlite-Served-By"); got != "" {
				t.Errorf("X-Rqlite-Served-By = %q; want none", got)
			}
		})
	}
}

// TestQueuedRequest shows what becomes of a queued write.
func TestQueuedRequest(t *testing.T) {
	f := newFixture()
	f.cfg.Queue.Transaction = true
	f.queued(t, "/db/execute?queue", `["x",["y",1,"z"]]`, "Authorization: Basic Ym9iOnNlY3JldDE=")
	want := []*command.Request{{
		Kind:        command.Execute,
		Transaction: true,
		Statements: []command.Statement{
			{SQL: "x"}, {SQL: "y", Params: []command.Param{{Value: int64(1)}, {Value: "z"}}},
		},
		Forward: command.Forward{Timeout: 30 * time.Second, Username: "bob", Password: "secret1"},
	}}
	for _, req := range f.db.asked {
		if req.Seed == 0 {
			t.Error("the write has no seed to be found by")
		}
		req.Seed = 0 // any
	}
	if !reflect.DeepEqual(f.db.asked, want) {
		t.Errorf("asked %+v; want %+v", f.db.asked[0], want[0])
	}
}

// TestQueuedFailures has the node, or later the leader, refuse a write.
func TestQueuedFailures(t *testing.T) {
	refusal := &store.RequestError{Msg: "disallowed pragma"}
	tests := []struct {
		name, query string
		prepare     func(f *fixture)
		code        int
		want        string
	}{
		{"no leader", "", func(f *fixture) { f.node.leaderless = true }, 503, "leader not found\n"},
		{"no leader needed", "&noleader", func(f *fixture) { f.node.leaderless = true }, 200, `{"results":[],"sequence_number":946684800000000000}`},
		{"not open", "&noleader", func(f *fixture) { f.node.refusal = store.ErrNotOpen }, 503, "store not open\n"},
		{"refused at once", "", func(f *fixture) { f.node.refusal = refusal }, 200, `{"results":[],"error":"disallowed pragma"}`},
		{"refused later", "", func(f *fixture) { f.db.err = refusal }, 200, `{"results":[],"sequence_number":946684800000000000}`},
		{"refused later, waiting", "&wait", func(f *fixture) { f.db.err = refusal }, 200,
			`{"results":[],"error":"disallowed pragma","sequence_number":946684800000000000}`},
		{"not permitted there", "&wait", func(f *fixture) { f.db.err = store.ErrUnauthorized }, 401, "remote Execute not authorized\n"},
		{"error of a statement", "&wait", func(f *fixture) {
			f.db.resp = &command.Response{Results: []command.Result{{Error: "no such table: foo"}}}
		}, 200, `{"results":[],"sequence_number":946684800000000000}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture()
			tt.prepare(f)
			r, _ := f.queued(t, "/db/execute?queue"+tt.query, `["x"]`)
			check(t, r, tt.code, tt.want)
		})
	}
}

// TestQueuedUnauthorized needs the permission of any other write, before anything is read.
func TestQueuedUnauthorized(t *testing.T) {
	f := newFixture()
	f.cfg.Auth = credentials{"": {"query", "status"}}
	r, _ := f.queued(t, "/db/execute?queue", `{}`)
	check(t, r, http.StatusUnauthorized, "")
}

// TestShutdownQueue shuts a Server down while a client waits for a write that no leader takes: the
// client is told, and nothing is left running.
func TestShutdownQueue(t *testing.T) {
	noLeader := func(context.Context, *command.Request) (*command.Response, error) { return nil, store.ErrNoLeader }
	serve(t, noLeader, func(t *testing.T, s *Server, l *memListener) {
		c := l.dial(t)
		body := `["x"]`
		go c.Write([]byte("POST /db/execute?queue&wait HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n" + body))
		<-time.After(3 * time.Second)
		if err := s.FlushQueue(deadline(t, time.Second)); err == nil {
			t.Error("FlushQueue = nil without a leader")
		}
		start := time.Now()
		if err := s.Shutdown(deadline(t, 2*time.Second)); err == nil {
			t.Error("Shutdown = nil with a client that waits")
		}
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("Shutdown took %s; want 2s", took)
		}
		if s.queue.held != 0 {
			t.Errorf("%d writes are neither done nor given up", s.queue.held)
		}
	})
}

func deadline(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// TestChangesOthers looks for words, wherever they stand.
func TestChangesOthers(t *testing.T) {
	tests := []struct {
		sql  string
		want bool
	}{
		{"", false},
		{"INSERT INTO foo(name) VALUES('fiona')", false},
		{"UPDATE trend SET begins = 1, recommit = 'temporarily'", false},
		{"begin", true},
		{"/**/BEGIN;", true},
		{"INSERT INTO foo VALUES(1);commit", true},
		{"SavePoint a", true},
		{"PRAGMA foreign_keys=1", true},
		{"CREATE TEMP TABLE foo(v)", true},
		{"INSERT OR ROLLBACK INTO foo VALUES(1)", true},
		{"INSERT INTO foo VALUES('the end')", true}, // nothing lost
	}
	for _, tt := range tests {
		if got := changesOthers(tt.sql); got != tt.want {
			t.Errorf("changesOthers(%q) = %t; want %t", tt.sql, got, tt.want)
		}
	}
}
