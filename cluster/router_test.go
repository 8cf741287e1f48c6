package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"rqlited/command"
	"rqlited/store"
)

const localHTTP = "local:4001"

// answers is a Do that always ends the same.
func answers(resp *command.Response, err error) func(context.Context, *command.Request) (*command.Response, error) {
	return func(context.Context, *command.Request) (*command.Response, error) {
		if err != nil {
			return nil, err
		}
		r := *resp
		return &r, nil
	}
}

func newTestRouter(t testing.TB, local Local) *Router {
	t.Helper()
	c := newTestClient(t, ClientConfig{LocalAddr: "local:4002"})
	return NewRouter(local, c, RouterConfig{HTTPAddr: localHTTP})
}

func TestRouterDo(t *testing.T) {
	full := &command.Response{Index: 9, Results: []command.Result{{Write: &command.Write{LastInsertID: 4}}}}
	noLeader := store.ErrNotLeader // what a store says that is not the leader
	tests := []struct {
		name     string
		local    error // nil: it answers
		remote   error // likewise
		known    bool  // whether there is a leader
		never    bool
		want     error
		byLeader bool
	}{
		{name: "here", known: true},
		{name: "at the leader", local: noLeader, known: true, byLeader: true},
		{name: "redirect", local: noLeader, known: true, never: true, want: store.ErrNotLeader},
		{name: "nobody leads", local: noLeader, want: store.ErrNoLeader},
		{name: "another error here", local: store.ErrStaleRead, known: true, want: store.ErrStaleRead},
		{name: "deposed while it waited", local: fmt.Errorf("%w: %w", store.ErrUnknown, noLeader), known: true, want: store.ErrUnknown},
		{name: "an error there", local: noLeader, known: true, remote: store.ErrLeadershipLost, want: store.ErrLeadershipLost},
		{name: "refused there", local: noLeader, known: true, remote: store.ErrUnauthorized, want: store.ErrUnauthorized},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			addr, _ := startService(t, &fakeNode{do: answers(full, tt.remote)}, ServiceConfig{})
			local := &fakeNode{do: answers(&command.Response{Results: []command.Result{}}, tt.local)}
			if tt.known {
				local.setLeader("leader", addr)
			}
			req := &command.Request{Kind: command.Execute, Forward: command.Forward{Never: tt.never}}
			resp, err := newTestRouter(t, local).Do(withTimeout(t), req)
			if !errors.Is(err, tt.want) {
				t.Fatalf("Do() = %v; want %v", err, tt.want)
			}
			switch {
			case err != nil:
			case tt.byLeader && (resp.ServedBy != addr || resp.Index != 9):
				t.Errorf("Do() = %+v; want the leader's answer, served by %s", resp, addr)
			case !tt.byLeader && resp.ServedBy != localHTTP:
				t.Errorf("Do() served by %s; want %s", resp.ServedBy, localHTTP)
			}
		})
	}
}

// TestRouterForwards looks at what arrives at the leader.
func TestRouterForwards(t *testing.T) {
	got := make(chan *command.Request, 1)
	leader := &fakeNode{do: func(_ context.Context, req *command.Request) (*command.Response, error) {
		got <- req
		return &command.Response{}, nil
	}}
	addr, _ := startService(t, leader, ServiceConfig{Auth: oneUser{"bob", "secret", []string{"query"}}})
	local := &fakeNode{do: answers(nil, store.ErrNotLeader)}
	local.setLeader("leader", addr)
	r := newTestRouter(t, local)
	req := &command.Request{Kind: command.Query, Level: command.Auto, DBTimeout: time.Second,
		Statements: []command.Statement{{SQL: "SELECT ?", Params: []command.Param{{Value: "\xff"}}}},
		Forward:    command.Forward{Username: "bob", Password: "secret"}}
	if _, err := r.Do(withTimeout(t), req); err != nil {
		t.Fatal(err)
	}
	sent := <-got
	if sent.Level != command.Weak || req.Level != command.Auto {
		t.Errorf("level %v arrived of %v; want weak of auto", sent.Level, req.Level)
	}
	if sent.DBTimeout != time.Second || len(sent.Statements) != 1 || sent.Statements[0].Params[0].Value != "\xff" {
		t.Errorf("request arrived as %+v", sent)
	}
	if got := r.Counters()["remote_queries"]; got != 1 {
		t.Errorf("remote_queries = %d; want 1", got)
	}
	var refused *UnauthorizedError
	req.Kind = command.Execute
	if _, err := r.Do(withTimeout(t), req); !errors.As(err, &refused) || refused.Act != "Execute" {
		t.Errorf("Do() = %v; want an UnauthorizedError of Execute", err)
	}
	if got := r.Counters()["remote_executions_failed"]; got != 1 {
		t.Errorf("remote_executions_failed = %d; want 1", got)
	}
}

// TestRouterDeposedLeader forwards to a node that is no leader any more; the one that this node
// then knows answers.
func TestRouterDeposedLeader(t *testing.T) {
	newAddr, _ := startService(t, &fakeNode{do: answers(&command.Response{Index: 5}, nil)}, ServiceConfig{})
	local := &fakeNode{do: answers(nil, store.ErrNotLeader)}
	oldAddr, _ := startService(t, &fakeNode{do: func(context.Context, *command.Request) (*command.Response, error) {
		local.setLeader("new", newAddr)
		return nil, store.ErrNotLeader
	}}, ServiceConfig{})
	local.setLeader("old", oldAddr)
	resp, err := newTestRouter(t, local).Do(withTimeout(t), &command.Request{Kind: command.Execute})
	if err != nil || resp.ServedBy != newAddr {
		t.Errorf("Do() = %+v, %v; want an answer of %s", resp, err, newAddr)
	}
}

// TestRouterBecomesLeader is elected while it looks for the leader.
func TestRouterBecomesLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		local := &fakeNode{do: func(context.Context, *command.Request) (*command.Response, error) {
			if asked.Add(1) == 1 {
				return nil, store.ErrNotLeader
			}
			return &command.Response{}, nil
		}}
		local.setLeader("local", "local:4002")
		resp, err := newTestRouter(t, local).Do(t.Context(), &command.Request{Kind: command.Execute})
		if err != nil || resp.ServedBy != localHTTP {
			t.Errorf("Do() = %+v, %v; want an answer of this node", resp, err)
		}
	})
}

// TestRouterGivesUp never finds the two views of leadership to agree.
func TestRouterGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		local := &fakeNode{do: answers(nil, store.ErrNotLeader)}
		local.setLeader("local", "local:4002")
		begun := time.Now()
		_, err := newTestRouter(t, local).Do(t.Context(), &command.Request{Kind: command.Execute})
		if !errors.Is(err, store.ErrNoLeader) || store.Text(err) != "leader not found" {
			t.Errorf("Do() = %v; want %v", err, store.ErrNoLeader)
		}
		if took := time.Since(begun); took != 1500*time.Millisecond {
			t.Errorf("Do() took %s; want 1.5s", took)
		}
	})
}

func TestRouterMembers(t *testing.T) {
	leader := &fakeNode{
		remove:   func(id string) error { return map[string]error{"n2": nil, "n3": store.ErrNotReady}[id] },
		stepdown: func(id string, wait bool) error { return map[string]error{"n2": nil}[id] },
	}
	addr, _ := startService(t, leader, ServiceConfig{URL: "http://leader.test:4001"})
	local := &fakeNode{
		remove:   func(string) error { return store.ErrNotLeader },
		stepdown: func(string, bool) error { return store.ErrNotLeader },
	}
	r := newTestRouter(t, local)
	ctx := withTimeout(t)
	if _, err := r.LeaderAPI(ctx); !errors.Is(err, store.ErrNoLeader) {
		t.Errorf("LeaderAPI() = %v; want %v", err, store.ErrNoLeader)
	}
	local.setLeader("leader", addr)
	if by, err := r.Remove(ctx, "n2", command.Forward{}); by != addr || err != nil {
		t.Errorf("Remove() = %s, %v; want %s", by, err, addr)
	}
	if _, err := r.Remove(ctx, "n3", command.Forward{}); !errors.Is(err, store.ErrNotReady) {
		t.Errorf("Remove() = %v; want %v", err, store.ErrNotReady)
	}
	if by, err := r.Stepdown(ctx, "n2", true, command.Forward{}); by != addr || err != nil {
		t.Errorf("Stepdown() = %s, %v; want %s", by, err, addr)
	}
	if _, err := r.Remove(ctx, "n2", command.Forward{Never: true}); !errors.Is(err, store.ErrNotLeader) {
		t.Errorf("Remove() = %v; want %v", err, store.ErrNotLeader)
	}
	if url, err := r.LeaderAPI(ctx); url != "http://leader.test:4001" || err != nil {
		t.Errorf("LeaderAPI() = %s, %v", url, err)
	}
	if m, err := r.Meta(ctx, addr, 0); m.URL != "http://leader.test:4001" || err != nil {
		t.Errorf("Meta() = %+v, %v", m, err)
	}
}
