package http

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rqlited/command"
	"rqlited/internal/certs"
	"rqlited/internal/certs/certstest"
)

// secure returns settings of TLS for the connections of a memListener.
func secure(t *testing.T) *tls.Config {
	t.Helper()
	id, err := certs.Open(certstest.NewAuthority(t).Write(t, t.TempDir(), "x", "host.test"), nil)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := id.Server(certs.Clients{})
	if err != nil {
		t.Fatal(err)
	}
	perHandshake := cfg.GetConfigForClient
	cfg.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		c, err := perHandshake(hello)
		c.SessionTicketsDisabled = true // a pipe holds nothing, and clients write before they would read a ticket
		return c, err
	}
	return cfg
}

// stuckConn is a client's end that stops taking bytes when told to.
type stuckConn struct {
	net.Conn
	stuck chan struct{} // closed: nothing more is read
	over  chan struct{}
}

func (c *stuckConn) Read(b []byte) (int, error) {
	select {
	case <-c.stuck:
		<-c.over
		return 0, io.EOF
	default:
		return c.Conn.Read(b)
	}
}

// http2Client returns a client that speaks HTTP/2 over one connection, which is given to it once.
func http2Client(conn net.Conn) *http.Client {
	dialled := make(chan net.Conn, 1)
	dialled <- conn
	return &http.Client{Transport: &http.Transport{
		ForceAttemptHTTP2: true,
		HTTP2:             &http.HTTP2Config{MaxReceiveBufferPerStream: 64 << 10},
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			select {
			case c := <-dialled:
				return c, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		},
	}}
}

// large answers with more than a client takes at once, unless it is asked for little.
func large(ctx context.Context, req *command.Request) (*command.Response, error) {
	size := 4 << 20
	if req.Statements[0].SQL == "small" {
		size = 1
	}
	return answerOf(rows([]string{"a"}, []string{"text"}, []any{strings.Repeat("x", size)})), nil
}

// serveHTTP2 runs test with a client that speaks HTTP/2 to a Server for large, on the bubble's clock.
func serveHTTP2(t *testing.T, test func(t *testing.T, client *http.Client, conn *stuckConn)) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture()
		f.cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
		s := NewServer(f.cfg, dbFunc(large), &f.node, &f.peers)
		l := newMemListener()
		served := make(chan error, 1)
		go func() { served <- s.Serve(l, secure(t)) }()
		conn := &stuckConn{l.dial(t), make(chan struct{}), make(chan struct{})}
		client := http2Client(conn)
		test(t, client, conn)
		close(conn.over)
		_ = conn.Close()
		client.CloseIdleConnections()
		_ = s.srv.Close()
		if err := <-served; err != nil {
			t.Errorf("Serve = %v", err)
		}
		<-time.After(time.Hour)
	})
}

func postTo(t *testing.T, client *http.Client, body io.Reader) *http.Response {
	t.Helper()
	r, err := client.Post("https://host.test/db/query", "application/json", body)
	if err != nil {
		t.Fatal(err)
	}
	if r.ProtoMajor != 2 {
		t.Fatalf("protocol = %s; want HTTP/2", r.Proto)
	}
	return r
}

// small asks for little and expects to get it at once.
func small(t *testing.T, client *http.Client) {
	t.Helper()
	begun := time.Now()
	r := postTo(t, client, strings.NewReader(`["small"]`))
	if got := text(t, r); r.StatusCode != http.StatusOK || !strings.Contains(got, `[["x"]]`) {
		t.Errorf("answer = %d %q; want one row", r.StatusCode, got)
	}
	if took := time.Since(begun); took > 0 {
		t.Errorf("the answer took %s", took)
	}
}

// TestHTTP2SlowAnswer has a client not take an answer. Its other requests are answered, and the one that it does
// not take is given up after the time that it has.
func TestHTTP2SlowAnswer(t *testing.T) {
	serveHTTP2(t, func(t *testing.T, client *http.Client, _ *stuckConn) {
		r := postTo(t, client, strings.NewReader(`["large"]`))
		synctest.Wait()
		small(t, client)
		time.Sleep(59 * time.Second)
		small(t, client)
		time.Sleep(2 * time.Second)
		n, err := io.Copy(io.Discard, r.Body)
		if err == nil || n >= 4<<20 {
			t.Errorf("read %d bytes, %v after a minute; want a part and an error", n, err)
		}
		small(t, client)
	})
}

// TestHTTP2SlowBody has a client not send the end of a body.
func TestHTTP2SlowBody(t *testing.T) {
	serveHTTP2(t, func(t *testing.T, client *http.Client, _ *stuckConn) {
		body, end := io.Pipe()
		go func() { _, _ = io.WriteString(end, `["lar`) }()
		begun, answered := time.Now(), make(chan *http.Response, 1)
		go func() { answered <- postTo(t, client, body) }()
		synctest.Wait()
		small(t, client)
		r := <-answered
		check(t, r, http.StatusRequestTimeout, "client stopped sending the request body for 30s\n")
		if took := time.Since(begun); took != 30*time.Second {
			t.Errorf("the answer took %s; want 30s", took)
		}
		_ = end.Close()
	})
}

// TestHTTP2StuckConnection has a client take nothing at all any more: its connection is closed.
func TestHTTP2StuckConnection(t *testing.T) {
	serveHTTP2(t, func(t *testing.T, client *http.Client, conn *stuckConn) {
		small(t, client)
		close(conn.stuck)
		go func() {
			if r, err := client.Post("https://host.test/db/query", "", strings.NewReader(`["large"]`)); err == nil {
				_ = r.Body.Close()
			}
		}()
		synctest.Wait()
		time.Sleep(2 * time.Minute)
		_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
		if _, err := conn.Conn.Write([]byte{0}); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("Write = %v on a connection that should have been closed", err)
		}
	})
}

// TestPauseWithinAnswer has an answer pause for longer than a client may.
func TestPauseWithinAnswer(t *testing.T) {
	for _, proto := range []int{1, 2} {
		synctest.Test(t, func(t *testing.T) {
			handler := func(w http.ResponseWriter, r *http.Request) {
				a := newAnswer(w, time.Second)
				defer a.end()
				for range 3 {
					_, _ = a.Write(bytes.Repeat([]byte("x"), flushAt))
					time.Sleep(time.Hour)
					if r.Context().Err() != nil {
						return
					}
				}
			}
			srv := &http.Server{Handler: http.HandlerFunc(handler)}
			l := newMemListener()
			go func() { _ = srv.Serve(tls.NewListener(l, secure(t))) }()
			client := http2Client(l.dial(t))
			if proto == 1 {
				client.Transport.(*http.Transport).ForceAttemptHTTP2 = false
			}
			r, err := client.Get("https://host.test/")
			if err != nil {
				t.Fatal(err)
			}
			n, err := io.Copy(io.Discard, r.Body)
			if r.ProtoMajor != proto || err != nil || n != 3*flushAt {
				t.Errorf("%s: %d bytes, %v; want HTTP/%d and %d bytes", r.Proto, n, err, proto, 3*flushAt)
			}
			client.CloseIdleConnections()
			_ = srv.Close()
			<-time.After(time.Hour)
		})
	}
}

// TestErrorLog gives the log what net/http says.
func TestErrorLog(t *testing.T) {
	var out bytes.Buffer
	l := newErrorLog(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	})))
	l.Printf("http: TLS handshake error from %v: %v", "[::1]:5", "tls: no: really")
	l.Printf("http: TLS handshake error from %v: %v", "1.2.3.4:5", "EOF")
	l.Printf("http: TLS handshake error from %v: %v", "1.2.3.4:5", "read tcp 1.2.3.4:5->1.2.3.4:6: read: connection reset by peer")
	l.Printf("http: Accept error")
	want := "level=WARN msg=\"tls handshake failed\" client=[::1]:5 err=\"tls: no: really\"\n" +
		"level=WARN msg=\"http server\" err=\"http: Accept error\"\n"
	if out.String() != want {
		t.Errorf("log = %q; want %q", out.String(), want)
	}
	out.Reset()
	for range 100 {
		l.Printf("http: TLS handshake error from %v: %v", "1.2.3.4:5", "tls: no")
	}
	if got := strings.Count(out.String(), "\n"); got != 3 {
		t.Errorf("%d lines more; want 3", got)
	}
}
