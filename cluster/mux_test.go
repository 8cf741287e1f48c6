package cluster

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// closed fails the test unless the peer of conn closes it without a word.
func closed(t testing.TB, conn net.Conn) {
	t.Helper()
	b, err := io.ReadAll(conn)
	if len(b) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read %q, %v; want a closed connection", b, err)
	}
}

func TestMuxFirstByte(t *testing.T) {
	m := startMux(t, Config{})
	tests := map[string]struct {
		send []byte
		half net.Listener // nil: closed
	}{
		"raft":  {[]byte{byteRaft, 0xaa}, m.Layer()},
		"calls": {[]byte{byteCalls, 0xaa}, m.Calls()},
		"http":  {[]byte("GET /status HTTP/1.1\r\n\r\n"), nil},
		"tls":   {[]byte{0x16, 3, 1}, nil},
		"zero":  {[]byte{0}, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			conn := dialRaw(t, m.Addr())
			if _, err := conn.Write(tt.send); err != nil {
				t.Fatal(err)
			}
			if tt.half == nil {
				closed(t, conn)
				return
			}
			accepted, err := tt.half.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer accepted.Close()
			if raw, ok := accepted.(*guard); ok {
				accepted = raw.Conn // the byte after the first is no message
			}
			var b [1]byte
			if _, err := io.ReadFull(accepted, b[:]); err != nil || b[0] != 0xaa {
				t.Errorf("first byte after the handshake is %x, %v; want aa", b, err)
			}
		})
	}
	if got := m.Counters()["num_unregistered_handlers"]; got != 3 {
		t.Errorf("num_unregistered_handlers = %d; want 3", got)
	}
}

func TestMuxSilence(t *testing.T) {
	m := startMux(t, Config{FirstByte: time.Millisecond})
	closed(t, dialRaw(t, m.Addr()))
}

func TestMuxLimits(t *testing.T) {
	m := startMux(t, Config{MaxCalls: 2})
	calls := m.Calls()
	var held []net.Conn
	for range 2 {
		conn := dialRaw(t, m.Addr())
		if _, err := conn.Write([]byte{byteCalls}); err != nil {
			t.Fatal(err)
		}
		accepted, err := calls.Accept()
		if err != nil {
			t.Fatal(err)
		}
		prove(accepted) // a node's, and heard of a moment ago: it is not to be spared
		held = append(held, accepted)
	}
	conn := dialRaw(t, m.Addr())
	if _, err := conn.Write([]byte{byteCalls}); err != nil {
		t.Fatal(err)
	}
	closed(t, conn)
	if m.Rejected() != 1 {
		t.Errorf("Rejected() = %d; want 1", m.Rejected())
	}
	held[0].Close()
	held[0].Close() // counts once
	conn = dialRaw(t, m.Addr())
	if _, err := conn.Write([]byte{byteCalls}); err != nil {
		t.Fatal(err)
	}
	if accepted, err := calls.Accept(); err != nil {
		t.Errorf("Accept() = %v after a connection was closed", err)
	} else {
		accepted.Close()
	}
}

// TestMuxSpares fills each half with connections of strangers, which give way to those of nodes, the oldest first.
func TestMuxSpares(t *testing.T) {
	m := startMux(t, Config{MaxNew: 2, MaxCalls: 2, MaxRaft: 2})
	for _, first := range []string{"", string([]byte{byteCalls}), string([]byte{byteRaft})} {
		h := m.fresh
		if first != "" {
			h = m.halfOf(first[0])
		}
		dial := func() net.Conn {
			conn := dialRaw(t, m.Addr())
			if _, err := io.WriteString(conn, first); err != nil {
				t.Fatal(err)
			}
			return conn
		}
		held := func(n int) {
			for got := -1; got != n; runtime.Gosched() {
				h.mu.Lock()
				got = h.accepted
				h.mu.Unlock()
			}
		}
		oldest := dial()
		held(1)
		dial()
		held(2)
		dial()
		closed(t, oldest)
		held(2)
	}
	if got := m.Counters()["num_connections_evicted"]; got < 3 {
		t.Errorf("num_connections_evicted = %d; want 3, and one more for each that came by a full half", got)
	}
}

// TestMuxClose leaves a connection in every state there is.
func TestMuxClose(t *testing.T) {
	m := startMux(t, Config{Advertise: "example.test:4002"})
	if got := m.Layer().Addr().String(); got != "example.test:4002" {
		t.Errorf("Addr() = %s; want the advertised address", got)
	}
	port := m.ln.Addr().String()
	silent, waiting, used := dialRaw(t, port), dialRaw(t, port), dialRaw(t, port)
	for _, conn := range []net.Conn{used, waiting} {
		if _, err := conn.Write([]byte{byteCalls}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.Calls().Accept(); err != nil {
		t.Fatal(err)
	}
	dialled, err := m.Layer().Dial(raft.ServerAddress(port), patience)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	for _, conn := range []net.Conn{silent, waiting, used} {
		closed(t, conn)
	}
	if _, err := dialled.Write([]byte{1}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write() = %v on a dialled connection after Close", err)
	}
	if _, err := m.Layer().Dial(raft.ServerAddress(port), patience); err == nil {
		t.Error("Dial() succeeded after Close")
	}
	if _, err := m.Layer().Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept() = %v after Close", err)
	}
}

// TestGarbage throws bytes at the port that would harm a node that believes them, and then shows
// that it still answers calls and Raft's messages, and took little memory.
func TestGarbage(t *testing.T) {
	m := startMux(t, Config{})
	node := &fakeNode{commit: 7}
	s := NewService(m.Calls(), node, ServiceConfig{})
	defer s.Close()
	votes := serveRaft(t, m)

	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	var attacks [][]byte
	add := func(b ...byte) { attacks = append(attacks, b) }
	add(append([]byte{byteCalls}, bytes.Repeat([]byte{0xff}, 8)...)...)
	add(append([]byte{byteCalls}, 0, 0, 0, 0x40, 0, 0, 0, 0)...) // 1 GiB, of which nothing follows
	add(append([]byte{byteCalls}, endFrame(append(beginFrame(nil), 8, 99))...)...)
	add(append([]byte{byteCalls}, endFrame(append(beginFrame(nil), 0xff, 0xff))...)...)
	add(append([]byte{byteCalls}, endFrame(beginFrame(nil))...)...)
	for kind := range byte(8) {
		add(byteRaft, kind)
		add(append([]byte{byteRaft, kind}, bytes.Repeat([]byte{0xff}, 64)...)...)
		// every claim of a length that msgpack knows, in the place of the message and of a field
		for _, head := range []byte{0xc6, 0xc9, 0xdb, 0xdd, 0xdf} {
			add(byteRaft, kind, head, 0xff, 0xff, 0xff, 0xff)
			for _, field := range []string{"Entries", "Configuration", "Peers", "Addr", "Other", "Term"} {
				msg := append([]byte{byteRaft, kind, 0x81, 0xa0 | byte(len(field))}, field...)
				add(append(msg, head, 0xff, 0xff, 0xff, 0xff)...)
			}
		}
		add(append([]byte{byteRaft, kind, 0x81, 0xa1, 'x'}, bytes.Repeat([]byte{0x91}, 1<<16)...)...)
	}
	timeOf4GiB := append([]byte("\x01\x00\x81\xa7Entries\x91\x81\xaaAppendedAt"), 0xdb, 0xff, 0xff, 0xff, 0xff)
	add(timeOf4GiB...)
	huge := installation
	huge.Size = 1 << 62
	add(append([]byte{byteRaft}, rpc(t, raftInstallSnapshot, huge)...)...)
	for range 100 {
		b := make([]byte, rnd.IntN(2000))
		for i := range b {
			b[i] = byte(rnd.Uint32())
		}
		attacks = append(attacks, b)
		attacks = append(attacks, append([]byte{byteCalls}, b...), append([]byte{byteRaft}, b...))
	}

	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for _, attack := range attacks {
		conn := dialRaw(t, m.Addr())
		conn.Write(attack) // the other side may have closed it already
		conn.(*net.TCPConn).CloseWrite()
		closed(t, conn)
		conn.Close()
	}
	runtime.ReadMemStats(&after)
	// Raft's own buffers are 260 kB for each of its connections, garbage at once.
	const perConnection, rest = 320 << 10, 64 << 20
	if took, bound := after.TotalAlloc-before.TotalAlloc, uint64(len(attacks)*perConnection+rest); took > bound {
		t.Errorf("%d connections took %d MiB in all; want at most %d", len(attacks), took>>20, bound>>20)
	}

	meta, err := newTestClient(t, ClientConfig{}).Meta(withTimeout(t), m.Addr(), 0)
	if err != nil || meta.CommitIndex != 7 {
		t.Errorf("Meta() = %+v, %v; want commit index 7", meta, err)
	}
	peer := startMux(t, Config{})
	transport := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{Stream: peer.Layer(), MaxPool: 1, Timeout: patience})
	defer transport.Close()
	var resp raft.RequestVoteResponse
	err = transport.RequestVote("n1", raft.ServerAddress(m.Addr()), &raft.RequestVoteRequest{RPCHeader: header, Term: 42}, &resp)
	if err != nil || resp.Term != 42 || votes() != 1 {
		t.Errorf("RequestVote() = %+v, %v after %d votes; want term 42 after 1", resp, err, votes())
	}
}

// serveRaft answers Raft's messages on m with the library's transport. It returns a function that
// counts requests to vote of term 42.
func serveRaft(t *testing.T, m *Mux) func() int {
	t.Helper()
	transport := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: m.Layer(), MaxPool: 1, Timeout: patience, Logger: quiet(),
	})
	votes := make(chan int, 1)
	votes <- 0
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case msg := <-transport.Consumer():
				if req, ok := msg.Command.(*raft.RequestVoteRequest); ok && req.Term == 42 {
					votes <- 1 + <-votes
				}
				if msg.Reader != nil {
					io.Copy(io.Discard, msg.Reader)
				}
				msg.Respond(&raft.RequestVoteResponse{RPCHeader: header, Term: 42}, nil)
			case <-stop:
				return
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-stopped
		transport.Close()
	})
	return func() int {
		n := <-votes
		votes <- n
		return n
	}
}
