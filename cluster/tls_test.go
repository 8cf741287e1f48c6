package cluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"rqlited/command"
	"rqlited/internal/certs"
	"rqlited/internal/certs/certstest"
	"rqlited/store"
)

// tlsOf returns the TLS of a node of the authority that calls itself name.
func tlsOf(t *testing.T, a *certstest.Authority, name string, c certs.Clients) TLS {
	t.Helper()
	id, err := certs.Open(a.Write(t, t.TempDir(), name, "127.0.0.1"), nil)
	if err != nil {
		t.Fatal(err)
	}
	listen, err := id.Server(c)
	if err != nil {
		t.Fatal(err)
	}
	return TLS{listen, func(host string) *tls.Config { return id.Client(host, certs.Servers{}) }}
}

// said is a log that tests read while it is written.
type said struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

func (s *said) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(b)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func (s *said) logger() *slog.Logger { return slog.New(slog.NewTextHandler(s, nil)) }

// startSecure has a node with t answer calls, and returns its address and what it says.
func startSecure(t *testing.T, cfg TLS) (addr string, log *said) {
	t.Helper()
	log = &said{}
	m := startMux(t, Config{TLS: cfg, Logger: log.logger()})
	s := NewService(m.Calls(), &fakeNode{
		commit: 7,
		join:   func(store.Server) error { return nil },
		do: func(context.Context, *command.Request) (*command.Response, error) {
			return &command.Response{}, nil
		},
	}, ServiceConfig{})
	t.Cleanup(func() { s.Close() })
	return m.Addr(), log
}

// TestTLSPeers is the table of who reaches whom, and what both of them say if not.
func TestTLSPeers(t *testing.T) {
	ours, other := certstest.NewAuthority(t), certstest.NewAuthority(t)
	anyone, members := certs.Clients{}, certs.Clients{Verify: true, CommonName: "member"}
	tests := []struct {
		name           string
		server, client TLS
		clientErr      string // "" is an answer
		serverLog      string // "" is nothing
	}{
		{"plain", TLS{}, TLS{}, "", ""},
		{"encrypted", tlsOf(t, ours, "a", anyone), tlsOf(t, ours, "b", anyone), "", ""},
		{"mutual", tlsOf(t, ours, "member", members), tlsOf(t, ours, "member", members), "", ""},
		{"other name", tlsOf(t, ours, "member", members), tlsOf(t, ours, "b", anyone),
			"read protobuf length: remote error: tls: bad certificate", `matches CN \"member\"`},
		{"unknown server", tlsOf(t, other, "a", anyone), tlsOf(t, ours, "b", anyone),
			"tls: failed to verify certificate: x509: certificate signed by unknown authority", "remote error: tls: bad certificate"},
		{"plain to encrypted", tlsOf(t, ours, "a", anyone), TLS{}, "read protobuf length: ", "the peer does not speak TLS, this node has a -node-cert"},
		{"encrypted to plain", TLS{}, tlsOf(t, ours, "a", anyone), "hung up, as one does that has no -node-cert", "the peer speaks TLS, this node has no -node-cert"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			addr, log := startSecure(t, tt.server)
			c := newTestClient(t, ClientConfig{TLS: tt.client})
			_, err := c.Join(withTimeout(t), addr, store.Server{ID: "n", Addr: "h:1"}, Credentials{})
			if tt.clientErr == "" && err != nil || !strings.Contains(textOf(err), tt.clientErr) {
				t.Errorf("Join() = %v; want %q", err, tt.clientErr)
			}
			// The node may say it after it has hung up.
			for ctx := withTimeout(t); !strings.Contains(log.String(), tt.serverLog); {
				if ctx.Err() != nil {
					t.Fatalf("the node says %q; want %q", log, tt.serverLog)
				}
			}
			if tt.serverLog == "" && log.String() != "" {
				t.Errorf("the node says %q; want nothing", log)
			}
		})
	}
}

// TestTLSRaft sends a message of Raft over TLS, and has both ends cut by Close.
func TestTLSRaft(t *testing.T) {
	a := certstest.NewAuthority(t)
	cfg := tlsOf(t, a, "member", certs.Clients{Verify: true, CommonName: "member"})
	m, peer := startMux(t, Config{TLS: cfg}), startMux(t, Config{TLS: cfg})
	serveRaft(t, m)
	transport := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: peer.Layer(), MaxPool: 1, Timeout: patience, Logger: quiet(),
	})
	defer transport.Close()
	var resp raft.RequestVoteResponse
	err := transport.RequestVote("n1", raft.ServerAddress(m.Addr()), &raft.RequestVoteRequest{RPCHeader: header, Term: 42}, &resp)
	if err != nil || resp.Term != 42 {
		t.Errorf("RequestVote() = %+v, %v; want term 42", resp, err)
	}
	if got := m.Status().TLS; got != "enabled" {
		t.Errorf("tls of the status = %q; want enabled", got)
	}
	if got := m.Counters()["num_tls_cert_fetched"]; got != 1 {
		t.Errorf("num_tls_cert_fetched = %d; want 1", got)
	}
}

// TestTLSProbe expects that a node may ask what a port speaks, twice, and is not complained about, while the
// same without asking is.
func TestTLSProbe(t *testing.T) {
	a := certstest.NewAuthority(t)
	for _, cfg := range []TLS{{}, tlsOf(t, a, "a", certs.Clients{}), tlsOf(t, a, "a", certs.Clients{Verify: true})} {
		addr, log := startSecure(t, cfg)
		if speaksHTTP(withTimeout(t), addr) {
			t.Error("a node was taken for an HTTP server")
		}
		// A call is answered after what the probe left is done with.
		if _, err := newTestClient(t, ClientConfig{TLS: clientOf(t, a, cfg)}).Meta(withTimeout(t), addr, 0); err != nil {
			t.Error(err)
		}
		if got := log.String(); got != "" {
			t.Errorf("the node says %q; want nothing", got)
		}
	}

	web := httptest.NewUnstartedServer(http.NotFoundHandler()) // one that even wants a certificate
	web.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	web.TLS = tlsOf(t, a, "web", certs.Clients{Verify: true}).Listen
	web.StartTLS()
	defer web.Close()
	if !speaksHTTP(withTimeout(t), web.Listener.Addr().String()) {
		t.Error("an HTTPS server was not recognised")
	}
}

func clientOf(t *testing.T, a *certstest.Authority, server TLS) TLS {
	if !server.enabled() {
		return TLS{}
	}
	return tlsOf(t, a, "client", certs.Clients{})
}

// TestTLSFlood has a peer fail again and again, and counts the lines.
func TestTLSFlood(t *testing.T) {
	addr, log := startSecure(t, TLS{})
	for range 50 {
		conn := dialRaw(t, addr)
		if _, err := conn.Write([]byte{byteHello}); err != nil {
			t.Fatal(err)
		}
		closed(t, conn)
	}
	if got := strings.Count(log.String(), "\n"); got != 3 {
		t.Errorf("%d lines; want 3", got)
	}
}

// TestTLSSilence connects and then does not shake hands to the end.
func TestTLSSilence(t *testing.T) {
	cfg := tlsOf(t, certstest.NewAuthority(t), "a", certs.Clients{})
	m := startMux(t, Config{TLS: cfg, FirstByte: 20 * time.Millisecond})
	for _, text := range []string{"", "\x16", "\x16\x03\x01\x02\x00\x01"} {
		conn := dialRaw(t, m.Addr())
		if _, err := io.WriteString(conn, text); err != nil {
			t.Fatal(err)
		}
		if b, _ := io.ReadAll(conn); len(b) > 0 && b[0] != 0x15 { // an alert is allowed
			t.Errorf("after %q: read %x; want a closed connection", text, b)
		}
	}
	conn, err := tls.Dial("tcp", m.Addr(), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if n, err := conn.Read(make([]byte, 1)); n > 0 || err == nil {
		t.Errorf("read %d bytes without a first byte; want a closed connection", n)
	}
}

// TestTLSPool expects that the end of an encrypted connection is seen before a write is lost on it.
func TestTLSPool(t *testing.T) {
	a := certstest.NewAuthority(t)
	cfg := tlsOf(t, a, "a", certs.Clients{})
	addr, _ := startSecure(t, cfg)
	conn, err := dial(withTimeout(t), addr, byteCalls, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if !alive(conn) {
		t.Error("a new connection is taken for a dead one")
	}

	m := startMux(t, Config{TLS: cfg})
	conn, err = dial(withTimeout(t), m.Addr(), byteCalls, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	theirs, err := m.Calls().Accept()
	if err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	for ctx := withTimeout(t); alive(conn); {
		if ctx.Err() != nil {
			t.Fatal("a connection that the peer has closed is taken for a live one")
		}
	}
}

func TestTLSConfig(t *testing.T) {
	_, err := Listen(Config{Addr: "127.0.0.1:0", TLS: TLS{Listen: &tls.Config{}}})
	if err == nil || !strings.Contains(err.Error(), "TLS is set for one direction only") {
		t.Errorf("Listen() = %v; want a refusal", err)
	}
}

// TestGreeterForgets looks at what is remembered of those who asked.
func TestGreeterForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGreeter(nil, slog.New(slog.DiscardHandler))
		g.asks("a")
		if !g.asked("a") || g.asked("a") || g.asked("b") {
			t.Error("a host that asked once is not expected once")
		}
		g.asks("a")
		time.Sleep(probeWindow)
		if g.asked("a") {
			t.Error("a host is expected for ever")
		}
		for i := range 3 * maxAsking {
			g.asks(fmt.Sprint(i))
		}
		if len(g.asking) > maxAsking {
			t.Errorf("%d hosts are remembered; want at most %d", len(g.asking), maxAsking)
		}
	})
}

// TestTLSCloseDoesNotWait closes a port whose peer has stopped reading.
func TestTLSCloseDoesNotWait(t *testing.T) {
	cfg := tlsOf(t, certstest.NewAuthority(t), "a", certs.Clients{})
	m := startMux(t, Config{TLS: cfg})
	peer, err := dial(withTimeout(t), m.Addr(), byteCalls, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	theirs, err := m.Calls().Accept()
	if err != nil {
		t.Fatal(err)
	}
	below := lowest(theirs)
	if err := below.SetWriteDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	for size := 1 << 16; size > 0; size /= 4 { // until the network takes no more, in pieces of any size
		for err = nil; err == nil; {
			_, err = below.Write(make([]byte, size))
			_ = below.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
		}
	}
	begun := time.Now()
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begun); took > 3*time.Second {
		t.Errorf("Close took %s", took)
	}
}
