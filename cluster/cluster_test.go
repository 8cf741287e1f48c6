package cluster

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"rqlited/command"
	"rqlited/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what a test waits for that should take no time.
const patience = 10 * time.Second

// fakeNode is a store whose answers a test sets. A nil function fails the call.
type fakeNode struct {
	do       func(ctx context.Context, req *command.Request) (*command.Response, error)
	join     func(sv store.Server) error
	notify   func(sv store.Server) error
	remove   func(id string) error
	stepdown func(id string, wait bool) error
	hashAt   func(ctx context.Context, index uint64) (store.StateHash, error)
	backup   func(ctx context.Context, req *command.BackupRequest, w io.Writer) error
	load     func(ctx context.Context, r io.Reader) error
	commit   uint64

	mu     sync.Mutex
	leader store.Server // guarded by mu; the zero value is none
}

var errFake = errors.New("fake: unexpected call")

func (n *fakeNode) Do(ctx context.Context, req *command.Request) (*command.Response, error) {
	if n.do == nil {
		return nil, errFake
	}
	return n.do(ctx, req)
}

func (n *fakeNode) Leader() (store.Server, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.leader, n.leader != store.Server{}
}

func (n *fakeNode) setLeader(id, addr string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.leader = store.Server{ID: id, Addr: addr}
}

func (n *fakeNode) CommitIndex() uint64 { return n.commit }

func (n *fakeNode) HashAt(ctx context.Context, index uint64) (store.StateHash, error) {
	if n.hashAt == nil {
		return store.StateHash{}, errFake
	}
	return n.hashAt(ctx, index)
}

func (n *fakeNode) Backup(ctx context.Context, req *command.BackupRequest, w io.Writer) error {
	if n.backup == nil {
		return errFake
	}
	return n.backup(ctx, req, w)
}

func (n *fakeNode) Load(ctx context.Context, r io.Reader) (uint64, error) {
	if n.load == nil {
		return 0, errFake
	}
	return 1, n.load(ctx, r)
}

func (n *fakeNode) Notify(_ context.Context, sv store.Server) error {
	if n.notify == nil {
		return errFake
	}
	return n.notify(sv)
}

func (n *fakeNode) Join(_ context.Context, sv store.Server) error {
	if n.join == nil {
		return errFake
	}
	return n.join(sv)
}

func (n *fakeNode) Remove(_ context.Context, id string) error {
	if n.remove == nil {
		return errFake
	}
	return n.remove(id)
}

func (n *fakeNode) Stepdown(_ context.Context, id string, wait bool) error {
	if n.stepdown == nil {
		return errFake
	}
	return n.stepdown(id, wait)
}

// startMux opens a port on loopback.
func startMux(t testing.TB, cfg Config) *Mux {
	t.Helper()
	cfg.Addr = "127.0.0.1:0"
	m, err := Listen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Errorf("Close() = %v", err)
		}
	})
	return m
}

// startService has node answer calls on a port of its own, whose address it returns.
func startService(t testing.TB, node Node, cfg ServiceConfig) (string, *Service) {
	t.Helper()
	m := startMux(t, Config{})
	s := NewService(m.Calls(), node, cfg)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close() = %v", err)
		}
	})
	return m.Addr(), s
}

func newTestClient(t testing.TB, cfg ClientConfig) *Client {
	t.Helper()
	c := NewClient(cfg)
	t.Cleanup(func() { c.Close() })
	return c
}

// dialRaw opens a connection that a test speaks on itself.
func dialRaw(t testing.TB, addr string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func withTimeout(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}
