package cluster

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"rqlited/auth"
	"rqlited/command"
	"rqlited/store"
)

// oneUser permits one user what a set of permissions says.
type oneUser struct {
	name, password string
	permissions    []string
}

func (u oneUser) Permit(name, password, permission string) error {
	if name == u.name && password == u.password && slices.Contains(u.permissions, permission) {
		return nil
	}
	return auth.ErrDenied
}

func TestServicePermissions(t *testing.T) {
	voter, reader := member{id: "n", addr: "a:1", voter: true}, member{id: "n", addr: "a:1"}
	tests := []struct {
		name        string
		typ         callType
		body        []byte
		permissions string // that are needed, and suffice
	}{
		{"meta", callMeta, nil, ""},
		{"hash", callHash, []byte{}, ""},
		{"execute", callExecute, []byte{}, "execute"},
		{"query", callQuery, []byte{}, "query"},
		{"request", callRequest, []byte{}, "query execute"},
		{"remove", callRemove, []byte{}, "remove"},
		{"notify", callNotify, []byte{}, "join"},
		{"join as voter", callJoin, voter.append(nil), "join"},
		{"join as reader", callJoin, reader.append(nil), "join-read-only"},
		{"join as replica", callJoin, reader.append(nil), "join-read-replica"},
		{"stepdown", callStepdown, []byte{}, "leader-ops"},
		{"backup stream", callBackupStream, []byte{}, "backup"},
		{"load", callLoad, []byte{}, "load"},
		{"load stream", callLoadStream, []byte{}, "load"},
	}
	node := &fakeNode{
		do:       func(context.Context, *command.Request) (*command.Response, error) { return &command.Response{}, nil },
		join:     func(store.Server) error { return nil },
		notify:   func(store.Server) error { return nil },
		remove:   func(string) error { return nil },
		stepdown: func(string, bool) error { return nil },
	}
	ask := func(t *testing.T, user oneUser, creds Credentials, typ callType, body []byte) string {
		t.Helper()
		s := &Service{node: node, cfg: ServiceConfig{Auth: user}}
		c := call{typ: typ, creds: creds, body: body}
		out, err := s.answer(t.Context(), nil, &c, s.refusal(&c), nil)
		if err != nil {
			t.Fatal(err)
		}
		if typ == callMeta {
			return ""
		}
		o, err := decodeOutcome(out[frameHeader:])
		if err != nil {
			t.Fatal(err)
		}
		return o.err
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			needed := strings.Fields(tt.permissions)
			bob := Credentials{"bob", "secret"}
			may := oneUser{"bob", "secret", needed}
			if got := ask(t, may, bob, tt.typ, tt.body); got == refusedUser {
				t.Errorf("user with %q is refused", needed)
			}
			if len(needed) == 0 {
				return
			}
			if got := ask(t, may, Credentials{"bob", "wrong"}, tt.typ, tt.body); got != refusedUser {
				t.Errorf("wrong password: %q; want %q", got, refusedUser)
			}
			if got := ask(t, may, Credentials{}, tt.typ, tt.body); got != refusedUser {
				t.Errorf("nobody: %q; want %q", got, refusedUser)
			}
			may.permissions = needed[1:]
			if got := ask(t, may, bob, tt.typ, tt.body); got != refusedUser {
				t.Errorf("user with %q: %q; want %q", needed[1:], got, refusedUser)
			}
		})
	}
}

func TestServiceErrors(t *testing.T) {
	node := &fakeNode{
		do: func(_ context.Context, req *command.Request) (*command.Response, error) {
			if req.Kind == command.Query {
				return nil, fmt.Errorf("%w: %w", store.ErrUnknown, store.ErrNotOpen)
			}
			return nil, store.ErrLeadershipLost
		},
		join:     func(store.Server) error { return store.ErrNotLeader },
		notify:   func(store.Server) error { return errors.New("no such host") },
		remove:   func(string) error { return store.ErrNotLeader },
		stepdown: func(string, bool) error { return store.ErrSelfStepdown },
	}
	node.setLeader("n2", "leader:4002")
	tests := []struct {
		typ  callType
		want outcome
	}{
		{callExecute, outcome{err: "leadership lost while committing log"}},
		{callQuery, outcome{err: "leadership lost while committing log"}}, // of any unknown outcome
		{callJoin, outcome{err: "not leader", leader: "leader:4002"}},
		{callNotify, outcome{err: "no such host"}},
		{callRemove, outcome{err: "not leader"}},
		{callStepdown, outcome{err: "cannot step down to the current Leader"}},
		{callLoad, outcome{err: "remote node failed to load: " + errFake.Error()}},
		{callHash, outcome{err: errFake.Error()}},
		{callHighwater, outcome{err: "not supported yet"}},
		{callLoadChunk, outcome{err: "unsupported"}},
	}
	for _, tt := range tests {
		t.Run(bodies[tt.typ].name, func(t *testing.T) {
			s := &Service{node: node}
			out, err := s.answer(t.Context(), nil, &call{typ: tt.typ, body: []byte{}}, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := decodeOutcome(out[frameHeader:]); got != tt.want || err != nil {
				t.Errorf("answer = %+v, %v; want %+v", got, err, tt.want)
			}
		})
	}
}

// TestBackupRefused looks into the one answer that is compressed.
func TestBackupRefused(t *testing.T) {
	addr, _ := startService(t, &fakeNode{}, ServiceConfig{})
	frame := endFrame(appendCall(beginFrame(nil), &call{typ: callBackup, body: []byte{8, 1}}))
	r, err := gzip.NewReader(bytes.NewReader(say(t, addr, frame)[frameHeader:]))
	if err != nil {
		t.Fatal(err)
	}
	msg, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if o, err := decodeOutcome(msg); o.err != "not supported yet" || err != nil {
		t.Errorf("answer = %+v, %v; want not supported yet", o, err)
	}
}

func TestServiceQuietPeer(t *testing.T) {
	tests := []struct {
		name string
		cfg  ServiceConfig
		send []byte
	}{
		{"no call", ServiceConfig{Idle: time.Millisecond}, nil},
		{"half a length", ServiceConfig{Stall: time.Millisecond}, []byte{1, 2}},
		{"half a call", ServiceConfig{Stall: time.Millisecond}, []byte{200, 0, 0, 0, 0, 0, 0, 0, 8}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			addr, _ := startService(t, &fakeNode{}, tt.cfg)
			conn := dialRaw(t, addr)
			if _, err := conn.Write(append([]byte{byteCalls}, tt.send...)); err != nil {
				t.Fatal(err)
			}
			closed(t, conn)
		})
	}
}

// TestServiceClose closes a service with one call under way, which is answered, and one idle
// connection, which is closed at once.
func TestServiceClose(t *testing.T) {
	begun, finish := make(chan struct{}), make(chan struct{})
	node := &fakeNode{remove: func(string) error {
		close(begun)
		<-finish
		return nil
	}}
	addr, s := startService(t, node, ServiceConfig{})
	idle := dialRaw(t, addr)
	if _, err := idle.Write([]byte{byteCalls}); err != nil {
		t.Fatal(err)
	}
	removed := make(chan error)
	go func() {
		removed <- newTestClient(t, ClientConfig{}).Remove(t.Context(), addr, "n", Credentials{}, 0)
	}()
	<-begun
	down := make(chan error)
	go func() { down <- s.Close() }()
	closed(t, idle)
	close(finish)
	if err := <-removed; err != nil {
		t.Errorf("Remove() = %v while the service closed; want an answer", err)
	}
	if err := <-down; err != nil {
		t.Errorf("Close() = %v", err)
	}
}

// TestServiceGrace closes a service with a call that does not end by itself.
func TestServiceGrace(t *testing.T) {
	begun := make(chan struct{})
	node := &fakeNode{do: func(ctx context.Context, _ *command.Request) (*command.Response, error) {
		close(begun)
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	addr, s := startService(t, node, ServiceConfig{Grace: time.Millisecond})
	failed := make(chan error)
	go func() {
		_, err := newTestClient(t, ClientConfig{}).Do(t.Context(), addr, &command.Request{Kind: command.Execute})
		failed <- err
	}()
	<-begun
	if err := s.Close(); err != nil {
		t.Errorf("Close() = %v", err)
	}
	if err := <-failed; !errors.Is(err, store.ErrUnknown) {
		t.Errorf("Do() = %v; want %v", err, store.ErrUnknown)
	}
}

func TestServiceCounters(t *testing.T) {
	node := &fakeNode{join: func(store.Server) error { return nil }}
	addr, s := startService(t, node, ServiceConfig{URL: "https://example.test:4001"})
	c := newTestClient(t, ClientConfig{})
	for range 2 { // on one connection
		if _, err := c.Join(withTimeout(t), addr, store.Server{ID: "n", Addr: "a:1"}, Credentials{}); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.Counters()["num_join_req"]; got != 2 {
		t.Errorf("num_join_req = %d; want 2", got)
	}
	if got := c.Pools()[addr]; got.Open != 1 || got.Idle != 1 {
		t.Errorf("pool = %+v; want one idle connection", got)
	}
	if got, want := s.Status(), (ServiceStatus{addr, "example.test:4001", "true"}); got != want {
		t.Errorf("Status() = %+v; want %+v", got, want)
	}
}
