package http

import (
	"context"
	"errors"
	"testing"

	"rqlited/store"
)

func TestReadyz(t *testing.T) {
	full := errors.New("apply log entry 12: db.sqlite: database or disk is full")
	const theFailure = "[+]node not ok: (apply log entry 12: db.sqlite: database or disk is full)"
	tests := []struct {
		name string
		path string
		set  fixture // what differs from a healthy node
		meta error
		code int
		want string
	}{
		{"ready", "/readyz", fixture{}, nil, 200, "[+]node ok\n[+]leader ok\n[+]store ok\n[+]db ok"},
		{"sync", "/readyz?sync", fixture{}, nil, 200, "[+]node ok\n[+]leader ok\n[+]store ok\n[+]sync ok\n[+]db ok"},
		{"noleader", "/readyz?noleader", fixture{node: fakeNode{leaderless: true}}, nil, 200, "[+]node ok"},
		{"no leader", "/readyz", fixture{node: fakeNode{leaderless: true}}, nil, 503, "[+]node ok\n[+]leader does not exist"},
		{"leader silent", "/readyz", fixture{}, errors.New("i/o timeout"), 503, "[+]node ok\n[+]leader not contactable: i/o timeout"},
		{"not ready", "/readyz", fixture{node: fakeNode{ready: store.ErrNotReady}}, nil, 503, "[+]node ok\n[+]leader ok\n[+]store not ready"},
		{"failed", "/readyz", fixture{node: fakeNode{failed: full}}, nil, 503, theFailure},
		{"failed, noleader", "/readyz?noleader", fixture{node: fakeNode{failed: full}}, nil, 503, theFailure},
		{"failed and cut off", "/readyz", fixture{node: fakeNode{failed: full, leaderless: true}}, nil, 503, theFailure},
		{"behind", "/readyz?sync", fixture{node: fakeNode{applied: context.DeadlineExceeded}}, nil, 503,
			"[+]node ok\n[+]leader ok\n[+]store ok\n[+]sync timeout waiting for commit index"},
		{"behind, no sync", "/readyz", fixture{node: fakeNode{applied: context.DeadlineExceeded}}, nil, 200, "[+]node ok\n[+]leader ok\n[+]store ok\n[+]db ok"},
		{"database closed", "/readyz", fixture{db: fakeDB{err: &store.RequestError{Msg: "sql: database is closed"}}}, nil, 503,
			"[+]node ok\n[+]leader ok\n[+]store ok\n[+]db not ok: (sql: database is closed, [])"},
		{"database failing", "/readyz", fixture{db: fakeDB{resp: answerOf(failed("disk I/O error"))}}, nil, 503,
			"[+]node ok\n[+]leader ok\n[+]store ok\n[+]db not ok: (disk I/O error, [])"},
		{"database slow", "/readyz?timeout=1ns", fixture{}, nil, 503,
			"[+]node ok\n[+]leader ok\n[+]store ok\n[+]db not ok: (context deadline exceeded, [])"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture()
			tt.set.node.servers = f.node.servers
			f.db, f.node = tt.set.db, tt.set.node
			f.peers.meta = func(context.Context, string) (PeerMeta, error) { return PeerMeta{CommitIndex: 7}, tt.meta }
			r := f.do(t, "GET", tt.path, "")
			check(t, r, tt.code, tt.want)
			if got := r.Header.Get("Content-Type"); got != textType {
				t.Errorf("Content-Type = %q; want %q", got, textType)
			}
			if want := tt.path == "/readyz?sync"; (f.node.waitedFor == 7) != want {
				t.Errorf("waited for index %d", f.node.waitedFor)
			}
		})
	}
}
