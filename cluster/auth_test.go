package cluster

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rqlited/auth"
	"rqlited/command"
	"rqlited/store"
)

// credentials is a file of users of whom each may do one thing.
const credentials = `[
	{"username": "joiner", "password": "j", "perms": ["join"]},
	{"username": "reader", "password": "r", "perms": ["join-read-only"]},
	{"username": "replica", "password": "p", "perms": ["join-read-replica"]},
	{"username": "writer", "password": "w", "perms": ["execute"]},
	{"username": "backup", "password": "b", "perms": ["backup"]},
	{"username": "loader", "password": "l", "perms": ["load"]},
	{"username": "*", "perms": ["query"]}
]`

// usersOf returns the Store of a credentials file.
func usersOf(t *testing.T, content string) *auth.Store {
	t.Helper()
	path := filepath.Join(t.TempDir(), "users.json")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := auth.Open(path, auth.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestJoinAs joins and notifies a node over the network as different users.
func TestJoinAs(t *testing.T) {
	node := &fakeNode{join: func(store.Server) error { return nil }, notify: func(store.Server) error { return nil }}
	addr, _ := startService(t, node, ServiceConfig{Auth: usersOf(t, credentials)})
	client := newTestClient(t, ClientConfig{})
	tests := []struct {
		user                  Credentials
		voter, reader, notify bool // permitted
	}{
		{Credentials{}, false, false, false},
		{Credentials{"joiner", "j"}, true, false, true},
		{Credentials{"joiner", "wrong"}, false, false, false},
		{Credentials{"reader", "r"}, false, true, false},
		{Credentials{"replica", "p"}, false, true, false},
		{Credentials{"writer", "w"}, false, false, false},
	}
	for _, tt := range tests {
		judge := func(what string, err error, permitted bool) {
			t.Helper()
			if permitted && err != nil || !permitted && !errors.Is(err, store.ErrUnauthorized) {
				t.Errorf("%s as %+v = %v; permitted: %v", what, tt.user, err, permitted)
			}
		}
		_, err := client.Join(withTimeout(t), addr, store.Server{ID: "n", Addr: "a:1", Voter: true}, tt.user)
		judge("join", err, tt.voter)
		_, err = client.Join(withTimeout(t), addr, store.Server{ID: "n", Addr: "a:1"}, tt.user)
		judge("join as reader", err, tt.reader)
		judge("notify", client.Notify(withTimeout(t), addr, store.Server{ID: "n", Addr: "a:1"}, tt.user), tt.notify)
	}
}

// TestFormRefused has a node join a cluster that does not know it. If it came without credentials
// the log says what may be missing; a user who may not join has been told.
func TestFormRefused(t *testing.T) {
	addr, _ := startService(t, &fakeNode{}, ServiceConfig{Auth: usersOf(t, credentials)})
	for _, tt := range []struct {
		user Credentials
		hint int
	}{
		{Credentials{}, 1},
		{Credentials{"writer", "w"}, 0},
	} {
		var log bytes.Buffer
		err := Form(withTimeout(t), FormConfig{
			ID: "n", Addr: "127.0.0.1:1", Voter: true, Join: []string{addr}, JoinAttempts: 1, JoinAs: tt.user,
			Client: newTestClient(t, ClientConfig{}), Logger: slog.New(slog.NewTextHandler(&log, nil)),
			probe: func(context.Context, string) bool { return false },
		}, &formNode{})
		if err == nil || err.Error() != "failed to join cluster: failed to join cluster" {
			t.Errorf("Form() as %+v = %v", tt.user, err)
		}
		if got := strings.Count(log.String(), "did you forget to set -join-as?"); got != tt.hint {
			t.Errorf("as %+v the log has %d hints; want %d:\n%s", tt.user, got, tt.hint, log.String())
		}
	}
}

// TestForwardRefused forwards requests of several users, over one connection, to a leader that knows
// them better than the node that forwards.
func TestForwardRefused(t *testing.T) {
	leader := &fakeNode{
		do:       answers(&command.Response{}, nil),
		remove:   func(string) error { return nil },
		stepdown: func(string, bool) error { return nil },
		backup:   func(context.Context, *command.BackupRequest, io.Writer) error { return nil },
		load:     func(context.Context, io.Reader) error { return nil },
	}
	addr, _ := startService(t, leader, ServiceConfig{Auth: usersOf(t, credentials)})
	local := &fakeNode{
		do:       answers(nil, store.ErrNotLeader),
		remove:   func(string) error { return store.ErrNotLeader },
		stepdown: func(string, bool) error { return store.ErrNotLeader },
		backup:   func(context.Context, *command.BackupRequest, io.Writer) error { return store.ErrNotLeader },
		load:     func(context.Context, io.Reader) error { return store.ErrNotLeader },
	}
	local.setLeader("leader", addr)
	r := newTestRouter(t, local)
	do := func(kind command.Kind) func(command.Forward) error {
		return func(f command.Forward) error {
			_, err := r.Do(withTimeout(t), &command.Request{Kind: kind, Forward: f})
			return err
		}
	}
	backup := func(f command.Forward) error {
		return r.Backup(withTimeout(t), &command.BackupRequest{Format: command.BackupBinary}, f, io.Discard)
	}
	load := func(f command.Forward) error {
		_, err := r.Load(withTimeout(t), strings.NewReader("file"), -1, f)
		return err
	}
	script := func(f command.Forward) error {
		f.Load = true
		return do(command.Execute)(f)
	}
	tests := []struct {
		name     string
		call     func(f command.Forward) error
		user, pw string
		want     string // error; empty is none
	}{
		{"execute", do(command.Execute), "", "", "remote Execute not authorized"},
		{"execute", do(command.Execute), "writer", "wrong", "remote Execute not authorized"},
		{"execute", do(command.Execute), "joiner", "j", "remote Execute not authorized"},
		{"execute", do(command.Execute), "writer", "w", ""},
		{"backup", backup, "", "", "remote backup not authorized"},
		{"backup", backup, "backup", "wrong", "remote backup not authorized"},
		{"backup", backup, "writer", "w", "remote backup not authorized"},
		{"backup", backup, "backup", "b", ""},
		{"load", load, "", "", "remote load not authorized"},
		{"load", load, "backup", "b", "remote load not authorized"},
		{"load", load, "loader", "l", ""},
		{"load of a script", script, "writer", "w", "remote Execute not authorized"}, // http knows better words
		{"load of a script", script, "loader", "l", ""},
		{"execute", do(command.Execute), "loader", "l", "remote Execute not authorized"},
		{"query", do(command.Query), "", "", ""}, // as everyone may
		{"request", do(command.Unified), "", "", "remote Request not authorized"},
		{"request", do(command.Unified), "writer", "w", ""}, // as everyone may query
		{"remove", func(f command.Forward) error {
			_, err := r.Remove(withTimeout(t), "n", f)
			return err
		}, "writer", "w", "remote remove node not authorized"},
		{"stepdown", func(f command.Forward) error {
			_, err := r.Stepdown(withTimeout(t), "", true, f)
			return err
		}, "writer", "w", "remote stepdown not authorized"},
	}
	for _, tt := range tests {
		text := ""
		err := tt.call(command.Forward{Username: tt.user, Password: tt.pw})
		if err != nil {
			text = err.Error()
		}
		if text != tt.want || (err != nil) != errors.Is(err, store.ErrUnauthorized) {
			t.Errorf("%s as %q = %q; want %q", tt.name, tt.user, text, tt.want)
		}
	}
}

// TestRefusedGetNothing makes calls whose answers carry data, without permission, and then asks who
// the node is on the same connection: behind the refusal nothing may come but the answer to that.
func TestRefusedGetNothing(t *testing.T) {
	addr, s := startService(t, &fakeNode{}, ServiceConfig{URL: "http://n:4001", Auth: usersOf(t, credentials)})
	for _, typ := range []callType{callBackupStream, callLoad, callLoadStream} {
		for _, user := range []Credentials{{}, {"backup", "wrong"}, {"writer", "w"}} {
			conn := dialRaw(t, addr)
			sent := append([]byte{byteCalls}, endFrame(appendCall(beginFrame(nil), &call{typ: typ, creds: user, body: []byte{8, 2}}))...)
			sent = append(sent, endFrame(appendCall(beginFrame(nil), &call{typ: callMeta}))...)
			if _, err := conn.Write(sent); err != nil {
				t.Fatal(err)
			}
			want := endFrame(outcome{err: refusedUser}.append(beginFrame(nil)))
			want = append(want, endFrame(s.Meta().append(beginFrame(nil)))...)
			got := make([]byte, len(want))
			if n, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, want) {
				t.Errorf("call of type %d as %+v = % x, %v; want % x", typ, user, got[:n], err, want)
			}
		}
	}
}
