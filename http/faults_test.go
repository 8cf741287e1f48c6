package http

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"rqlited/command"
	"rqlited/store"
)

// The tests in faults_test.go provoke what has broken other stores; numbers are those of rqlite's
// tracker. docs/design/known-faults.md tells of each.

// laggingNode has applied the log up to an index, and says how it was asked.
type laggingNode struct {
	fakeNode
	has   uint64
	asked []uint64
}

func (n *laggingNode) WaitApplied(_ context.Context, index uint64) error {
	n.asked = append(n.asked, index)
	if index == 0 || index > n.has {
		return context.DeadlineExceeded
	}
	return nil
}

// TestFault1689: sync waited for index 0, which every node has, so that one that was behind, or had just
// come back, was ready (also #1693, #1694). Here it waits for what the leader has committed, asked anew each time.
func TestFault1689(t *testing.T) {
	f := newFixture()
	n := &laggingNode{fakeNode: f.node}
	committed, reachable := uint64(40), true
	f.peers.meta = func(context.Context, string) (PeerMeta, error) {
		if !reachable {
			return PeerMeta{}, context.DeadlineExceeded
		}
		return PeerMeta{CommitIndex: committed}, nil
	}
	s := NewServer(f.cfg, &f.db, n, &f.peers)
	ready := func() int {
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest("GET", "/readyz?sync", nil))
		return w.Code
	}
	for _, step := range []struct {
		name            string
		committed, has  uint64
		reachable       bool
		want, waitedFor int
	}{
		{"nothing yet", 40, 0, true, 503, 40},
		{"nearly", 40, 39, true, 503, 40},
		{"caught up", 40, 40, true, 200, 40},
		{"behind again", 60, 45, true, 503, 60},
		{"partitioned", 60, 45, false, 503, 0},
		{"healed, not yet caught up", 61, 60, true, 503, 61},
		{"caught up again", 61, 61, true, 200, 61},
	} {
		committed, reachable, n.has, n.asked = step.committed, step.reachable, step.has, nil
		if got := ready(); got != step.want {
			t.Errorf("%s: %d; want %d", step.name, got, step.want)
		}
		if want := step.waitedFor; want == 0 && len(n.asked) > 0 || want > 0 && (len(n.asked) != 1 || n.asked[0] != uint64(want)) {
			t.Errorf("%s: waited for %v; want %d", step.name, n.asked, want)
		}
	}
}

// TestFault2633: a node was ready although no query could be answered (also #2637). Here one is tried.
func TestFault2633(t *testing.T) {
	for name, harm := range map[string]func(f *fixture){
		"every query fails":   func(f *fixture) { f.db.err = &store.RequestError{Msg: "database disk image is malformed"} },
		"results are errors":  func(f *fixture) { f.db.resp = answerOf(failed("no such table: sqlite_schema")) },
		"a restore failed":    func(f *fixture) { f.node.ready = store.ErrNotReady },
		"the store is closed": func(f *fixture) { f.node.ready = store.ErrNotOpen },
	} {
		f := newFixture()
		harm(f)
		r := f.do(t, "GET", "/readyz", "")
		if got := text(t, r); r.StatusCode != http.StatusServiceUnavailable || strings.Contains(got, "db ok") {
			t.Errorf("%s: %d %q; want 503", name, r.StatusCode, got)
		}
	}
}

// TestFault2697: a user's snapshot with nothing to do was an error (also #1964).
func TestFault2697(t *testing.T) {
	f := newFixture()
	check(t, f.do(t, "POST", "/snapshot", ""), http.StatusOK, "")
	f.node.snapshotErr = store.ErrNothingNew
	for range 2 {
		check(t, f.do(t, "POST", "/snapshot", ""), http.StatusNoContent, "")
	}
}

// notOpen is a database, a node and its peers while the store is not open yet.
type notOpen struct{}

func (notOpen) Do(context.Context, *command.Request) (*command.Response, error) {
	return nil, store.ErrNotOpen
}
func (notOpen) Backup(context.Context, *command.BackupRequest, command.Forward, io.Writer) error {
	return store.ErrNotOpen
}
func (notOpen) Load(context.Context, io.Reader, int64, command.Forward) (string, error) {
	return "", store.ErrNotOpen
}
func (notOpen) Boot(context.Context, io.Reader) error       { return store.ErrNotOpen }
func (notOpen) Servers() ([]store.Server, error)            { return nil, store.ErrNotOpen }
func (notOpen) Leader() (store.Server, bool)                { return store.Server{}, false }
func (notOpen) Ready() error                                { return store.ErrNotOpen }
func (notOpen) Failed() error                               { return nil }
func (notOpen) Check(*command.Request) error                { return store.ErrNotOpen }
func (notOpen) Watch(uint64) (func() (bool, error), func()) { return nil, nil }
func (notOpen) Compact(context.Context) (int, error)        { return 0, store.ErrNotOpen }
func (notOpen) Hash(context.Context) (store.StateHash, error) {
	return store.StateHash{}, store.ErrNotOpen
}
func (notOpen) WaitApplied(context.Context, uint64) error { return store.ErrNotOpen }
func (notOpen) Snapshot(context.Context, uint64) error    { return store.ErrNotOpen }
func (notOpen) Meta(context.Context, string, int) (PeerMeta, error) {
	return PeerMeta{}, store.ErrNotOpen
}
func (notOpen) LeaderAPI(context.Context) (string, error) { return "", store.ErrNotOpen }
func (notOpen) Remove(context.Context, string, command.Forward) (string, error) {
	return "", store.ErrNotOpen
}
func (notOpen) Stepdown(context.Context, string, bool, command.Forward) (string, error) {
	return "", store.ErrNotOpen
}

// TestFault1698: a query that came while the store was being opened ended the process (also #1700).
// Here every path answers from the first moment, and none says that all is well.
func TestFault1698(t *testing.T) {
	s := NewServer(newFixture().cfg, notOpen{}, notOpen{}, notOpen{})
	requests := []struct{ method, path, body string }{
		{"GET", "/", ""}, {"POST", "/db/execute", `["DELETE FROM t"]`}, {"GET", "/db/query?q=SELECT+1", ""}, {"POST", "/db/query?level=strong", `["SELECT 1"]`},
		{"POST", "/db/request?level=linearizable", `["SELECT 1"]`}, {"POST", "/snapshot", ""}, {"DELETE", "/remove", `{"id":"n1"}`},
		{"GET", "/leader", ""}, {"POST", "/leader?wait", ""}, {"GET", "/status", ""}, {"GET", "/status?key=store", ""}, {"GET", "/nodes?nonvoters", ""},
		{"GET", "/db/hash", ""}, {"GET", "/readyz", ""}, {"GET", "/readyz?sync", ""}, {"GET", "/debug/vars", ""}, {"POST", "/db/load", "x"}, {"POST", "/db/load", "SQLite format 3"}, {"POST", "/boot", "x"}, {"GET", "/db/backup", ""}, {"GET", "/nowhere", ""},
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for _, r := range requests {
				w := httptest.NewRecorder()
				s.ServeHTTP(w, httptest.NewRequest(r.method, r.path, strings.NewReader(r.body)))
				got := w.Body.String()
				if strings.Contains(got, "internal error") {
					t.Errorf("%s %s: %d %q", r.method, r.path, w.Code, got)
				}
				if strings.HasPrefix(r.path, "/readyz") && w.Code != http.StatusServiceUnavailable {
					t.Errorf("%s: %d %q; want 503", r.path, w.Code, got)
				}
				if strings.HasPrefix(r.path, "/db/") && strings.Contains(got, `"results":[{`) {
					t.Errorf("%s: %d %q although there is no database", r.path, w.Code, got)
				}
			}
		})
	}
	all.Wait()
}
