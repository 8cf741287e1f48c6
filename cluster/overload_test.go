package cluster

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"

	"rqlited/command"
	"rqlited/store"
)

// TestServicePeerGone checks that a call whose peer hangs up is cancelled, and that a peer which waits is not
// taken for one that has gone.
func TestServicePeerGone(t *testing.T) {
	begun, over := make(chan struct{}), make(chan error)
	node := &fakeNode{do: func(ctx context.Context, req *command.Request) (*command.Response, error) {
		if req.Statements[0].SQL == "short" {
			return &command.Response{}, ctx.Err()
		}
		close(begun)
		<-ctx.Done()
		over <- ctx.Err()
		return nil, ctx.Err()
	}}
	m := startMux(t, Config{})
	s := NewService(m.Calls(), node, ServiceConfig{})
	defer s.Close()
	c := newTestClient(t, ClientConfig{})
	ask := func(ctx context.Context, sql string) error {
		_, err := c.Do(ctx, m.Addr(), &command.Request{Kind: command.Query, Statements: []command.Statement{{SQL: sql}}})
		return err
	}
	for range 3 { // on one connection
		if err := ask(withTimeout(t), "short"); err != nil {
			t.Fatal(err)
		}
	}
	ctx, leave := context.WithCancel(withTimeout(t))
	answered := make(chan error, 1)
	go func() { answered <- ask(ctx, "long") }()
	<-begun
	leave()
	if err := <-over; !errors.Is(err, context.Canceled) {
		t.Errorf("the call ended with %v; want %v", err, context.Canceled)
	}
	if err := <-answered; !errors.Is(err, context.Canceled) {
		t.Errorf("Do() = %v; want %v", err, context.Canceled)
	}
}

// TestServicePipelined sends a call before the one ahead of it is answered, as no node does.
func TestServicePipelined(t *testing.T) {
	m := startMux(t, Config{})
	s := NewService(m.Calls(), &fakeNode{commit: 7}, ServiceConfig{})
	defer s.Close()
	conn := dialRaw(t, m.Addr())
	frame := endFrame(appendCall(beginFrame(nil), &call{typ: callMeta}))
	if _, err := conn.Write(append([]byte{byteCalls}, bytes.Repeat(frame, 3)...)); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		answer, err := readFrame(conn, nil)
		if err != nil {
			t.Fatal(err)
		}
		if meta, err := decodeMeta(answer); err != nil || meta.CommitIndex != 7 {
			t.Errorf("meta = %+v, %v", meta, err)
		}
	}
}

// TestServiceMemory checks that calls which would take too much memory together are answered so, and that those
// which take little go on.
func TestServiceMemory(t *testing.T) {
	node := &fakeNode{do: func(context.Context, *command.Request) (*command.Response, error) { return &command.Response{}, nil }}
	m := startMux(t, Config{})
	s := NewService(m.Calls(), node, ServiceConfig{Memory: 1 << 20})
	defer s.Close()

	hog := dialRaw(t, m.Addr())
	begun := binary.LittleEndian.AppendUint64([]byte{byteCalls}, 64<<20)
	if _, err := hog.Write(append(begun, make([]byte, 2<<20)...)); err != nil {
		t.Fatal(err)
	}
	for s.memory.Used() < 1<<20 {
		if _, err := hog.Write(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	c := newTestClient(t, ClientConfig{})
	for _, tt := range []struct {
		size int
		want error
	}{{1000, nil}, {1 << 20, store.ErrOverloaded}, {1000, nil}} {
		for _, kind := range []command.Kind{command.Execute, command.Query, command.Unified} {
			req := &command.Request{Kind: kind, Statements: []command.Statement{{SQL: strings.Repeat("x", tt.size)}}}
			_, err := c.Do(withTimeout(t), m.Addr(), req)
			if !errors.Is(err, tt.want) {
				t.Errorf("%s of %d bytes = %v; want %v", kind, tt.size, err, tt.want)
			}
			if err != nil && !strings.Contains(err.Error(), "all of the 1048576 bytes") {
				t.Errorf("the error %q does not name the bound", err)
			}
		}
	}
	hog.Close()
	for s.memory.Used() > 0 {
		runtime.Gosched()
	}
	req := &command.Request{Kind: command.Execute, Statements: []command.Statement{{SQL: strings.Repeat("x", 1<<20)}}}
	if _, err := c.Do(withTimeout(t), m.Addr(), req); err != nil {
		t.Errorf("once there is room: %v", err)
	}
}

// TestServiceCounts checks the bounds of statements and parameters, which a short message can have a great many of.
func TestServiceCounts(t *testing.T) {
	s := &Service{node: &fakeNode{}}
	statements := bytes.Repeat([]byte{0x12, 0}, command.MaxStatements+1)
	params := bytes.Repeat([]byte{0x12, 0}, command.MaxParams+1)
	message := func(num byte, body []byte) []byte {
		return append(binary.AppendUvarint([]byte{num<<3 | 2}, uint64(len(body))), body...)
	}
	for want, body := range map[string][]byte{
		"request has more than 262144 statements":  message(1, statements),
		"request has more than 4194304 parameters": message(1, message(2, params)),
	} {
		m := startMux(t, Config{})
		s = NewService(m.Calls(), &fakeNode{}, ServiceConfig{})
		conn := dialRaw(t, m.Addr())
		frame := endFrame(appendCall(beginFrame(nil), &call{typ: callExecute, body: body}))
		if _, err := (&net.Buffers{{byteCalls}, frame}).WriteTo(conn); err != nil {
			t.Fatal(err)
		}
		answer, err := readFrame(conn, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, text, err := command.DecodeResponse(command.Execute, answer); err != nil || text != want {
			t.Errorf("answer = %q, %v; want %q", text, err, want)
		}
		if err := s.Close(); err != nil && !errors.Is(err, io.EOF) {
			t.Error(err)
		}
	}
}
