package http

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rqlited/command"
	"rqlited/store"
)

// memListener accepts the ends of pipes, so that a test owns both ends and the clock.
type memListener struct {
	conns  chan net.Conn
	closed chan struct{}
}

func newMemListener() *memListener {
	return &memListener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *memListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *memListener) Close() error {
	close(l.closed)
	return nil
}

func (l *memListener) Addr() net.Addr { return &net.UnixAddr{Name: "mem", Net: "mem"} }

// dial returns a client's end of a new connection.
func (l *memListener) dial(t *testing.T) net.Conn {
	client, server := net.Pipe()
	l.conns <- server
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// dbFunc is a Database that is a function.
type dbFunc func(ctx context.Context, req *command.Request) (*command.Response, error)

func (f dbFunc) Do(ctx context.Context, req *command.Request) (*command.Response, error) {
	return f(ctx, req)
}

func (dbFunc) Backup(context.Context, *command.BackupRequest, command.Forward, io.Writer) error {
	return store.ErrNotOpen
}

func (dbFunc) Load(context.Context, io.Reader, int64, command.Forward) (string, error) {
	return "", store.ErrNotOpen
}

// serve runs test against a Server for db, on the bubble's clock.
func serve(t *testing.T, db dbFunc, test func(t *testing.T, s *Server, l *memListener)) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture()
		f.cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
		f.cfg.Limits.Body = 1 << 20
		s := NewServer(f.cfg, db, &f.node, &f.peers)
		l := newMemListener()
		served := make(chan error, 1)
		go func() { served <- s.Serve(l, nil) }()
		test(t, s, l)
		_ = s.srv.Close() // cuts what the test has left open
		if err := <-served; err != nil {
			t.Errorf("Serve = %v", err)
		}
		<-time.After(time.Hour) // connections end by themselves, some of them after a pause
	})
}

// answered returns a Database with one answer.
func answered(resp *command.Response) dbFunc {
	return func(context.Context, *command.Request) (*command.Response, error) { return resp, nil }
}

// exchange sends text and returns the status line that comes back, or the error.
func exchange(conn net.Conn, text string) string {
	go func() { _, _ = io.WriteString(conn, text) }()
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(line)
}

func post(body string, length int) string {
	return fmt.Sprintf("POST /db/execute HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", length, body)
}

// TestSilentClients checks that each way of not going on ends, after the time that it may take.
func TestSilentClients(t *testing.T) {
	tests := []struct {
		name, sent, want string
		after            time.Duration
	}{
		{"in the header", "POST /db/exec", "HTTP/1.1 400 Bad Request", 30 * time.Second},
		{"in the body", post(`["a`, 7), "HTTP/1.1 408 Request Timeout", 30 * time.Second},
		{"in a body that nobody wants", "POST /status HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\n\r\n", "HTTP/1.1 405 Method Not Allowed", 30 * time.Second},
		{"before a request", "", "EOF", 30 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			serve(t, answered(&command.Response{}), func(t *testing.T, _ *Server, l *memListener) {
				start := time.Now()
				if got := exchange(l.dial(t), tt.sent); got != tt.want {
					t.Errorf("answer = %q; want %q", got, tt.want)
				}
				if took := time.Since(start); took != tt.after {
					t.Errorf("answered after %s; want %s", took, tt.after)
				}
			})
		})
	}
}

// TestSlowClient checks that a body may take long if it goes on, and that the answer may take
// longer than the time a client may be silent.
func TestSlowClient(t *testing.T) {
	db := func(ctx context.Context, req *command.Request) (*command.Response, error) {
		select {
		case <-time.After(time.Hour):
			return answerOf(write(int64(len(req.Statements[0].SQL)), 1, 0)), nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	serve(t, db, func(t *testing.T, _ *Server, l *memListener) {
		conn := l.dial(t)
		go func() {
			_, _ = io.WriteString(conn, post("", 14))
			for _, c := range `["0123456789"]` {
				<-time.After(29 * time.Second)
				_, _ = io.WriteString(conn, string(c))
			}
		}()
		r, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		check(t, r, http.StatusOK, `{"results":[{"last_insert_id":10,"rows_affected":1}]}`)
	})
}

// TestStalledReader checks that a client that does not take its answer is cut off.
func TestStalledReader(t *testing.T) {
	long := strings.Repeat("x", 10*flushAt)
	resp := answerOf(rows([]string{"a"}, []string{"text"}, []any{long}, []any{long}))
	serve(t, answered(resp), func(t *testing.T, _ *Server, l *memListener) {
		conn := l.dial(t)
		r, err := func() (*http.Response, error) {
			go func() { _, _ = io.WriteString(conn, post(`["a"]`, 5)) }()
			return http.ReadResponse(bufio.NewReader(conn), nil)
		}()
		if err != nil {
			t.Fatal(err)
		}
		<-time.After(61 * time.Second)
		if _, err := io.ReadAll(r.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("read after a pause: %v; want %v", err, io.ErrUnexpectedEOF)
		}
	})
}

// TestReusedConnection checks that no deadline of one request is left over for the next.
func TestReusedConnection(t *testing.T) {
	serve(t, answered(answerOf(write(1, 1, 0))), func(t *testing.T, _ *Server, l *memListener) {
		conn := l.dial(t)
		in := bufio.NewReader(conn)
		for range 3 {
			go func() { _, _ = io.WriteString(conn, post(`["a"]`, 5)) }()
			r, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatal(err)
			}
			check(t, r, http.StatusOK, `{"results":[{"last_insert_id":1,"rows_affected":1}]}`)
			<-time.After(100 * time.Second)
		}
	})
}

func TestPanic(t *testing.T) {
	db := func(context.Context, *command.Request) (*command.Response, error) { panic("broken") }
	serve(t, db, func(t *testing.T, s *Server, l *memListener) {
		if got, want := exchange(l.dial(t), post(`["a"]`, 5)), "HTTP/1.1 500 Internal Server Error"; got != want {
			t.Errorf("answer = %q; want %q", got, want)
		}
		if got := s.counters[panics].Load(); got != 1 {
			t.Errorf("panics = %d; want 1", got)
		}
	})
}

// TestPanicWithinAnswer checks that an answer that cannot be finished does not look finished.
func TestPanicWithinAnswer(t *testing.T) {
	bad := struct{}{} // no value that a result may hold
	resp := answerOf(rows([]string{"a"}, []string{"text"}, []any{strings.Repeat("x", flushAt)}, []any{bad}))
	serve(t, answered(resp), func(t *testing.T, _ *Server, l *memListener) {
		conn := l.dial(t)
		go func() { _, _ = io.WriteString(conn, post(`["a"]`, 5)) }()
		r, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(r.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("read = %v; want %v", err, io.ErrUnexpectedEOF)
		}
	})
}

// TestShutdown checks that a request under way is answered, and that one that does not end is cut
// off when the time is over.
func TestShutdown(t *testing.T) {
	db := func(ctx context.Context, req *command.Request) (*command.Response, error) {
		d, err := time.ParseDuration(req.Statements[0].SQL)
		if err != nil {
			return nil, err
		}
		select {
		case <-time.After(d):
			return answerOf(write(1, 1, 0)), nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	tests := []struct {
		took, want string
		err        error
	}{
		{`["9s"]`, "HTTP/1.1 200 OK", nil},
		{`["1h"]`, "EOF", context.DeadlineExceeded},
	}
	for _, tt := range tests {
		t.Run(tt.took, func(t *testing.T) {
			serve(t, db, func(t *testing.T, s *Server, l *memListener) {
				conn := l.dial(t)
				got := make(chan string, 1)
				go func() { got <- exchange(conn, post(tt.took, len(tt.took))) }()
				synctest.Wait() // the request is being answered
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				if err := s.Shutdown(ctx); !errors.Is(err, tt.err) {
					t.Errorf("Shutdown = %v; want %v", err, tt.err)
				}
				if got := <-got; got != tt.want {
					t.Errorf("answer = %q; want %q", got, tt.want)
				}
			})
		})
	}
}

// TestTooLarge checks the bound of a body that says how long it is, and of one that does not.
func TestTooLarge(t *testing.T) {
	tests := []struct{ name, sent string }{
		{"known length", post("", 1<<20+1)},
		{"chunked", "POST /db/execute HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n100001\r\n" + strings.Repeat(" ", 1<<20+1) + "\r\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			serve(t, answered(&command.Response{}), func(t *testing.T, _ *Server, l *memListener) {
				if got, want := exchange(l.dial(t), tt.sent), "HTTP/1.1 413 Request Entity Too Large"; got != want {
					t.Errorf("answer = %q; want %q", got, want)
				}
			})
		})
	}
}

func TestServeError(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	f := newFixture()
	if err := NewServer(f.cfg, &f.db, &f.node, &f.peers).Serve(l, nil); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve = %v; want %v", err, net.ErrClosed)
	}
}

// TestTLS checks that a listener with TLS is served HTTP/2 as well, and what plain HTTP gets.
func TestTLS(t *testing.T) {
	other := httptest.NewTLSServer(nil) // lends its certificate, and a client that trusts it
	defer other.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := newFixture()
	s := NewServer(f.cfg, &f.db, &f.node, &f.peers)
	served := make(chan error, 1)
	secure := &tls.Config{Certificates: other.TLS.Certificates, NextProtos: []string{"h2", "http/1.1"}, MinVersion: tls.VersionTLS12}
	go func() { served <- s.Serve(l, secure) }()

	client := other.Client()
	client.Transport.(*http.Transport).ForceAttemptHTTP2 = true
	r, err := client.Post("https://"+l.Addr().String()+"/db/execute", "", strings.NewReader(`["a"]`))
	if err != nil {
		t.Fatal(err)
	}
	check(t, r, http.StatusOK, `{"results":[]}`)
	if r.ProtoMajor != 2 {
		t.Errorf("protocol = %s; want HTTP/2", r.Proto)
	}
	if r, err = http.Get("http://" + l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	check(t, r, http.StatusBadRequest, "Client sent an HTTP request to an HTTPS server.\n")

	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Errorf("Serve = %v", err)
	}
}
