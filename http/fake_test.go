package http

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"rqlited/command"
	"rqlited/store"
)

// fakeDB answers every request alike, and keeps what it was asked.
type fakeDB struct {
	resp  *command.Response
	err   error
	asked []*command.Request

	backup   string // what one consists of
	backups  []*command.BackupRequest
	loaded   string // by the last Load
	size     int64  // as it was told
	servedBy string
	fwd      command.Forward // of the last Backup or Load
}

func (d *fakeDB) Do(ctx context.Context, req *command.Request) (*command.Response, error) {
	d.asked = append(d.asked, req)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if d.resp == nil && d.err == nil {
		return &command.Response{}, nil
	}
	return d.resp, d.err
}

// Backup writes backup, and then fails as Load and Do do.
func (d *fakeDB) Backup(ctx context.Context, req *command.BackupRequest, f command.Forward, w io.Writer) error {
	d.backups, d.fwd = append(d.backups, req), f
	if d.backup != "" {
		if _, err := io.WriteString(w, d.backup); err != nil {
			return err
		}
	}
	return d.err
}

// Load reads all, unless it fails.
func (d *fakeDB) Load(ctx context.Context, r io.Reader, size int64, f command.Forward) (string, error) {
	d.fwd, d.size = f, size
	if leaderUnknown(d.err) {
		return "", d.err
	}
	b, err := io.ReadAll(r)
	d.loaded = string(b)
	return d.servedBy, errors.Join(err, d.err)
}

// fakeNode is a node of a cluster whose first server leads.
type fakeNode struct {
	servers     []store.Server
	serversErr  error
	leaderless  bool
	ready       error
	failed      error
	refusal     error // of Check
	appliedHere bool  // what a watched write is told
	appliedErr  error
	applied     error
	waitedFor   uint64
	snapshotErr error
	trailing    uint64
	hash        func(ctx context.Context) (store.StateHash, error)
	fakeFiles
}

// fakeFiles keeps what was booted, and fails with boot and compactErr.
type fakeFiles struct {
	boot       error
	booted     string
	deltas     int // that a compaction has taken in
	compactErr error
}

func (n *fakeFiles) Boot(_ context.Context, r io.Reader) error {
	b, err := io.ReadAll(r)
	n.booted = string(b)
	return errors.Join(err, n.boot)
}

func (n *fakeNode) Servers() ([]store.Server, error) { return n.servers, n.serversErr }

func (n *fakeNode) Leader() (store.Server, bool) {
	if n.leaderless || len(n.servers) == 0 {
		return store.Server{}, false
	}
	return n.servers[0], true
}

func (n *fakeNode) Ready() error { return n.ready }

func (n *fakeNode) Failed() error { return n.failed }

func (n *fakeNode) Check(*command.Request) error { return n.refusal }

func (n *fakeNode) Watch(uint64) (func() (bool, error), func()) {
	return func() (bool, error) { return n.appliedHere, n.appliedErr }, func() {}
}

func (n *fakeNode) Compact(context.Context) (int, error) { return n.deltas, n.compactErr }

func (n *fakeNode) Hash(ctx context.Context) (store.StateHash, error) { return n.hash(ctx) }

func (n *fakeNode) WaitApplied(_ context.Context, index uint64) error {
	n.waitedFor = index
	return n.applied
}

func (n *fakeNode) Snapshot(_ context.Context, trailing uint64) error {
	n.trailing = trailing
	return n.snapshotErr
}

// fakePeers answers Meta by address, and everything else with err.
type fakePeers struct {
	meta     func(ctx context.Context, addr string) (PeerMeta, error)
	api      string // of the leader; empty is an error
	servedBy string
	err      error

	id   string // of the last Remove or Stepdown
	wait bool
	fwd  command.Forward
}

func (p *fakePeers) Meta(ctx context.Context, addr string, _ int) (PeerMeta, error) {
	return p.meta(ctx, addr)
}

func (p *fakePeers) LeaderAPI(context.Context) (string, error) {
	if p.api == "" {
		return "", store.ErrNoLeader
	}
	return p.api, nil
}

func (p *fakePeers) Remove(_ context.Context, id string, f command.Forward) (string, error) {
	p.id, p.fwd = id, f
	return p.servedBy, p.err
}

func (p *fakePeers) Stepdown(_ context.Context, id string, wait bool, f command.Forward) (string, error) {
	p.id, p.wait, p.fwd = id, wait, f
	return p.servedBy, p.err
}

// fixture is a Server with everything it asks.
type fixture struct {
	db    fakeDB
	node  fakeNode
	peers fakePeers
	cfg   Config
}

// newFixture returns the fakes of a healthy cluster of one.
func newFixture() *fixture {
	f := &fixture{cfg: Config{Version: "10", Addr: "127.0.0.1:14001", RaftAddr: "127.0.0.1:14002"}}
	f.node.servers = []store.Server{{ID: "n1", Addr: "127.0.0.1:14002", Voter: true}}
	f.peers.meta = func(context.Context, string) (PeerMeta, error) {
		return PeerMeta{URL: "http://127.0.0.1:14001", CommitIndex: 7, Version: "10"}, nil
	}
	f.node.hash = func(context.Context) (store.StateHash, error) {
		return store.StateHash{Index: 12, Hash: "000102030405060708090a0b0c0d0e0f"}, nil
	}
	return f
}

// do sends one request to a new Server. Header lines are given as "Name: value".
func (f *fixture) do(t *testing.T, method, target, body string, header ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	NewServer(f.cfg, &f.db, &f.node, &f.peers).ServeHTTP(w, r)
	return w.Result()
}

// send sends one request, as user "u", to a Server that is there already.
func (f *fixture) send(s *Server, method, target, body string) {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.SetBasicAuth("u", "u")
	s.ServeHTTP(httptest.NewRecorder(), r)
}

// text returns the body of a response.
func text(t *testing.T, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// check compares status and body of a response.
func check(t *testing.T, r *http.Response, code int, body string) {
	t.Helper()
	if got := text(t, r); r.StatusCode != code || got != body {
		t.Errorf("answer = %d %q; want %d %q", r.StatusCode, got, code, body)
	}
}
