package cluster

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"testing"

	"github.com/hashicorp/go-msgpack/v2/codec"
	"github.com/hashicorp/raft"

	"rqlited/command"
	"rqlited/store"
)

// FuzzAnswer gives a Service any bytes for a call: it answers or refuses, and what it has decoded
// means the same when it is encoded again.
func FuzzAnswer(f *testing.F) {
	for _, g := range goldenCalls(f) {
		f.Add(unhex(f, g.Request)[frameHeader:])
	}
	for _, g := range goldenOfOurs(f) {
		f.Add(unhex(f, g.Request)[frameHeader:])
	}
	f.Add([]byte{8, 99})
	f.Add([]byte{8, 0xea, 7}) // type 1002
	inParts := command.AppendBool(command.AppendRequest(nil, &command.Request{Kind: command.Query, Statements: make([]command.Statement, 3)}), fieldParts, true)
	f.Add(appendCall(nil, &call{typ: callQuery, body: inParts}))
	node := &fakeNode{
		do: func(_ context.Context, req *command.Request) (*command.Response, error) {
			return &command.Response{Results: make([]command.Result, len(req.Statements))}, nil
		},
		join:     func(store.Server) error { return nil },
		notify:   func(store.Server) error { return nil },
		remove:   func(string) error { return nil },
		stepdown: func(string, bool) error { return nil },
	}
	node.hashAt = func(_ context.Context, index uint64) (store.StateHash, error) {
		return store.StateHash{Index: index, Hash: "00"}, nil
	}
	s := &Service{node: node, log: slog.New(slog.DiscardHandler)}
	near, far := net.Pipe()
	f.Cleanup(func() { near.Close(); far.Close() })
	go io.Copy(io.Discard, far) // parts before the last
	f.Fuzz(func(t *testing.T, in []byte) {
		c, err := decodeCall(in)
		var out []byte
		if err == nil {
			out, err = s.answer(t.Context(), nil, &c, s.refusal(&c), &caller{Conn: near, stall: patience})
		}
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("answer() = %v; want %v", err, ErrMalformed)
			}
			return
		}
		if body, err := readFrame(bytes.NewReader(out), nil); err != nil || len(body) != len(out)-frameHeader {
			t.Errorf("answer is no frame: %v", err)
		}
		again, err := decodeCall(appendCall(nil, &c))
		if err != nil || again.typ != c.typ || again.creds != c.creds || !bytes.Equal(again.body, c.body) {
			t.Errorf("decodeCall(appendCall(%+v)) = %+v, %v", c, again, err)
		}
	})
}

// FuzzFrame reads frames from any bytes: never more than there are.
func FuzzFrame(f *testing.F) {
	f.Add(endFrame(append(beginFrame(nil), "body"...)))
	f.Add(bytes.Repeat([]byte{0xff}, frameHeader))
	f.Fuzz(func(t *testing.T, in []byte) {
		body, err := readFrame(bytes.NewReader(in), nil)
		if err == nil && !bytes.HasPrefix(in[frameHeader:], body) {
			t.Errorf("readFrame(%x) = %x", in, body)
		}
		if cap(body) > 4*(len(in)+frameChunk) {
			t.Errorf("readFrame took %d bytes for %d", cap(body), len(in))
		}
	})
}

// FuzzGuard sends any bytes as Raft's: what comes out is what went in, up to a message that is
// not in order, and what Raft decodes of it does not panic.
func FuzzGuard(f *testing.F) {
	f.Add(rpc(f, raftAppendEntries, appendRequest([]byte("a"), []byte("b"))))
	f.Add(rpc(f, raftInstallSnapshot, installation, []byte("bytes")...))
	f.Add(rpc(f, 1, raft.RequestVoteRequest{RPCHeader: header, Term: 4}))
	f.Add([]byte{0, 0x81, 0xa1, 'x', 0xdf, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, in []byte) {
		out, g := guarded(in)
		if !bytes.HasPrefix(in, out) {
			t.Fatalf("guard(%x) = %x", in, out)
		}
		if g.err == io.EOF && len(out) != len(in) {
			t.Fatalf("guard accepted %d of %d bytes", len(out), len(in))
		}
		if len(out) == 0 || g.err != io.EOF {
			return
		}
		decodeAsRaft(t, out)
	})
}

// decodeAsRaft does with the first message of stream what Raft does that can panic.
func decodeAsRaft(t *testing.T, stream []byte) {
	dec := codec.NewDecoder(bytes.NewReader(stream[1:]), &codec.MsgpackHandle{})
	switch stream[0] {
	case raftAppendEntries:
		var req raft.AppendEntriesRequest
		if err := dec.Decode(&req); err != nil {
			return // Raft closes the connection
		}
		for i, e := range req.Entries {
			if e.Index != req.PrevLogEntry+1+uint64(i) {
				t.Errorf("entry %d has index %d after %d", i, e.Index, req.PrevLogEntry)
			}
			if e.Type == raft.LogConfiguration {
				raft.DecodeConfiguration(e.Data)
			}
		}
	case raftInstallSnapshot:
		var req raft.InstallSnapshotRequest
		if err := dec.Decode(&req); err != nil {
			return
		}
		raft.DecodeConfiguration(req.Configuration)
		if req.Size < 0 || req.Size > maxSnapshot {
			t.Errorf("snapshot of %d bytes", req.Size)
		}
	}
}
