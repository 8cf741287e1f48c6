package cluster

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"rqlited/command"
	"rqlited/store"
)

const extensionsOfN4 = "00112233445566778899aabbccddeeff a.so\n"

var errExtensions = store.FromText("the node that asks does not have the SQLite extensions of the node asked (-extensions-path), and there is no cluster yet: it has besides a.so: all nodes must have the same")

// ourNode answers what testdata/ours.json asks.
func ourNode() *fakeNode {
	return &fakeNode{
		join: func(sv store.Server) error {
			if sv != (store.Server{ID: "n4", Addr: "a:1", Voter: true, ForeignKeys: command.On}) {
				return errFake
			}
			return errKeysOff
		},
		notify: func(sv store.Server) error {
			if sv.Extensions == extensionsOfN4 {
				return errExtensions
			}
			if sv != (store.Server{ID: "n4", Addr: "a:1", ForeignKeys: command.Off}) {
				return errFake
			}
			return nil
		},
		hashAt: func(_ context.Context, index uint64) (store.StateHash, error) {
			if index != 12 {
				return store.StateHash{}, store.ErrNoHash
			}
			return store.StateHash{Index: 12, Hash: "000102030405060708090a0b0c0d0e0f"}, nil
		},
	}
}

// TestGoldenOfOurs pins the bytes of our own calls and fields, on both sides.
func TestGoldenOfOurs(t *testing.T) {
	self := store.Server{ID: "n4", Addr: "a:1", Voter: true, ForeignKeys: command.On}
	calls := map[string]func(c *Client, addr string) error{
		"join, foreign keys on": func(c *Client, addr string) error {
			_, err := c.Join(t.Context(), addr, self, Credentials{})
			if err != errKeysOff {
				t.Errorf("Join() = %v; want %v", err, errKeysOff)
			}
			return nil
		},
		"notify, foreign keys off": func(c *Client, addr string) error {
			return c.Notify(t.Context(), addr, store.Server{ID: "n4", Addr: "a:1", ForeignKeys: command.Off}, Credentials{})
		},
		"notify, extensions": func(c *Client, addr string) error {
			sv := store.Server{ID: "n4", Addr: "a:1", ForeignKeys: command.Off, Extensions: extensionsOfN4}
			if err := c.Notify(t.Context(), addr, sv, Credentials{}); err != errExtensions || !errors.Is(err, store.ErrExtensions) {
				t.Errorf("Notify() = %v; want %v", err, errExtensions)
			}
			return nil
		},
		"hash": func(c *Client, addr string) error {
			h, err := c.HashAt(t.Context(), addr, 12)
			if want := (store.StateHash{Index: 12, Hash: "000102030405060708090a0b0c0d0e0f"}); err == nil && h != want {
				t.Errorf("HashAt() = %+v; want %+v", h, want)
			}
			return err
		},
		"no hash": func(c *Client, addr string) error {
			if _, err := c.HashAt(t.Context(), addr, 13); !errors.Is(err, store.ErrNoHash) {
				t.Errorf("HashAt() = %v; want %v", err, store.ErrNoHash)
			}
			return nil
		},
	}
	for _, g := range goldenOfOurs(t) {
		t.Run(g.Name, func(t *testing.T) {
			addr, _ := startService(t, ourNode(), ServiceConfig{})
			if got := hex.EncodeToString(say(t, addr, unhex(t, g.Request))); got != g.Answer {
				t.Errorf("answer\n got %s\nwant %s", got, g.Answer)
			}
			addr = scripted(t, unhex(t, g.Request), unhex(t, g.Answer))
			if err := calls[g.Name](newTestClient(t, ClientConfig{}), addr); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestForeignKeysUnknown refuses to guess what a value of a later version means.
func TestForeignKeysUnknown(t *testing.T) {
	for _, tail := range []string{"\xd0\x3e\x03", "\xd0\x3e\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "\xd2\x3e\x01x"} {
		if m, err := decodeMember([]byte("\x0a\x01n" + tail)); !errors.Is(err, ErrMalformed) {
			t.Errorf("decodeMember(%x) = %+v, %v; want %v", tail, m, err, ErrMalformed)
		}
	}
	if m, err := decodeMember([]byte("\x0a\x01n")); err != nil || m.foreignKeys != command.Unset {
		t.Errorf("decodeMember of a node of rqlite = %+v, %v; want unset", m, err)
	}
}

// TestNodeRefused expects the node that refuses to say so, of what a human has to settle.
func TestNodeRefused(t *testing.T) {
	tests := []struct {
		name string
		err  error
		said bool
	}{
		{"foreign keys", errKeysOff, true},
		{"extensions", errExtensions, true},
		{"address", store.ErrAddrInUse, true},
		{"not leader", store.ErrNotLeader, false},
		{"none", nil, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			answer := func(store.Server) error { return tt.err }
			for _, typ := range []callType{callJoin, callNotify} {
				said := tt.said && typ == callJoin // who notifies is notified, and says it himself
				var log bytes.Buffer
				s := &Service{node: &fakeNode{join: answer, notify: answer}, log: slog.New(slog.NewTextHandler(&log, nil))}
				if _, err := s.answer(t.Context(), nil, &call{typ: typ, body: member{id: "n4"}.append(nil)}, nil, nil); err != nil {
					t.Fatal(err)
				}
				if got := strings.Contains(log.String(), `msg="node refused" node=n4`); got != said {
					t.Errorf("call %d logs %q; want a line: %v", typ, log.String(), said)
				}
			}
		})
	}
}

// TestHashAtWaits has a node wait for a hash as long as its caller does, and no longer.
func TestHashAtWaits(t *testing.T) {
	ended := make(chan time.Duration, 2)
	node := &fakeNode{hashAt: func(ctx context.Context, _ uint64) (store.StateHash, error) {
		begun := time.Now()
		<-ctx.Done()
		ended <- time.Since(begun)
		return store.StateHash{}, ctx.Err()
	}}
	addr, _ := startService(t, node, ServiceConfig{})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	h, err := newTestClient(t, ClientConfig{}).HashAt(ctx, addr, 12)
	if err == nil || h != (store.StateHash{}) {
		t.Errorf("HashAt() = %+v, %v; want an error", h, err)
	}
	select {
	case took := <-ended:
		if took > 50*time.Millisecond+patience/2 {
			t.Errorf("the node waited %s", took)
		}
	case <-time.After(patience):
		t.Error("the node waits for nobody")
	}
}

// TestHashAtAnswers goes through answers that are none.
func TestHashAtAnswers(t *testing.T) {
	ask := unhex(t, goldenOfOurs(t)[2].Request)
	frame := func(h hashed) []byte { return endFrame(h.append(beginFrame(nil))) }
	tests := []struct {
		name   string
		answer []byte
		want   string
	}{
		{"of another index", frame(hashed{hash: store.StateHash{Index: 11, Hash: "00"}}), "hash of index 11 instead of 12: command: malformed message"},
		{"nothing", frame(hashed{}), "hash of index 0 instead of 12: command: malformed message"},
		{"no message", endFrame(append(beginFrame(nil), 0xff)), "command: malformed message: unexpected EOF"},
		{"of another version", frame(hashed{hash: store.StateHash{Index: 12, Hash: "00"}, version: 2}),
			"store: computes another version of the hash: 2, and this node 1"},
		{"of no version", frame(hashed{hash: store.StateHash{Index: 12, Hash: "00"}}),
			"store: computes another version of the hash: 0, and this node 1"},
		{"an error", frame(hashed{err: "context deadline exceeded"}), "context deadline exceeded"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h, err := newTestClient(t, ClientConfig{}).HashAt(t.Context(), scripted(t, ask, tt.answer), 12)
			if textOf(err) != tt.want || h != (store.StateHash{}) {
				t.Errorf("HashAt() = %+v, %v; want %s", h, err, tt.want)
			}
		})
	}
}

// TestHashAtOfAnother asks a node that does not know the call: it closes the connection, each time.
func TestHashAtOfAnother(t *testing.T) {
	m := startMux(t, Config{})
	closing := make(chan struct{})
	go func() {
		defer close(closing)
		for {
			conn, err := m.Calls().Accept()
			if err != nil {
				return
			}
			readFrame(conn, nil)
			conn.Close()
		}
	}()
	_, err := newTestClient(t, ClientConfig{}).HashAt(withTimeout(t), m.Addr(), 12)
	if e, ok := errors.AsType[*CallError](err); !ok || e.Sent {
		t.Errorf("HashAt() = %v; want a *CallError of a call that changes nothing", err)
	}
	m.Close()
	<-closing
}
