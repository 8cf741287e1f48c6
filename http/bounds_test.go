package http

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rqlited/auth"
	"rqlited/command"
	"rqlited/store"
)

// bound is a row of the table of bounds in docs/design/http-api.md.
type bound struct {
	name, answer, text string
}

// documented returns the rows of the table whose answer comes by HTTP: those with a text.
func documented(t *testing.T) map[string]bound {
	t.Helper()
	doc, err := os.ReadFile("../docs/design/http-api.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(doc), "\n## Bounds\n")
	section, _, _ := strings.Cut(rest, "\n## ")
	all := map[string]bound{}
	for line := range strings.Lines(section) {
		cells := strings.Split(line, "|")
		if len(cells) != 7 || !strings.Contains(cells[4], "`") {
			continue
		}
		b := bound{strings.TrimSpace(cells[1]), strings.TrimSpace(cells[3]), strings.Trim(strings.TrimSpace(cells[4]), "`")}
		all[b.name] = b
	}
	return all
}

// matches reports whether an answer is what the row says, in which N stands for a number.
func (b bound) matches(code int, text string) bool {
	want := regexp.MustCompile(`\bN\b`).ReplaceAllString(regexp.QuoteMeta(b.text), "[0-9]+")
	return strconv.Itoa(code) == b.answer && regexp.MustCompile(`^`+want+`\n?$`).MatchString(text)
}

// provocations go beyond a bound and return the answer.
var provocations = map[string]func(t *testing.T) (code int, text string){
	"request body": func(t *testing.T) (int, string) {
		return provoke(t, nil, "POST", "/db/execute", strings.Repeat(" ", 64<<20+1))
	},
	"statements of a request": func(t *testing.T) (int, string) {
		return provoke(t, nil, "POST", "/db/execute", `["x"`+strings.Repeat(`,"x"`, command.MaxStatements)+`]`)
	},
	"parameters of a request": func(t *testing.T) (int, string) {
		return provoke(t, nil, "POST", "/db/execute", `[["x"`+strings.Repeat(`,1`, command.MaxParams+1)+`]]`)
	},
	"statements of a call of `/db/sql`": func(t *testing.T) (int, string) {
		return provoke(t, nil, "POST", "/db/sql", `["`+strings.Repeat("x", 1<<20+1)+`"]`)
	},
	"nesting of JSON": func(t *testing.T) (int, string) {
		return provoke(t, nil, "POST", "/db/execute", strings.Repeat("[", maxDepth+1))
	},
	"bodies that are under way": func(t *testing.T) (int, string) {
		return provoke(t, func(_ *fixture, s *Server) {
			if err := s.bodies.Claim().Raise(s.cfg.Limits.Bodies); err != nil {
				t.Fatal(err)
			}
		}, "POST", "/db/execute", `["`+strings.Repeat("x", 1<<20)+`"]`)
	},
	"requests under way": func(t *testing.T) (int, string) {
		return provoke(t, func(_ *fixture, s *Server) { s.admission.active = s.admission.limit }, "GET", "/readyz", "")
	},
	"reads that wait for a connection": func(t *testing.T) (int, string) {
		return provoke(t, func(f *fixture, _ *Server) {
			f.db.err = &store.OverloadError{Msg: "256 reads are under way, and 1024 more are waiting"}
		}, "POST", "/db/query", `["x"]`)
	},
	"wait of a read for a connection": func(t *testing.T) (int, string) {
		return provoke(t, func(f *fixture, _ *Server) {
			f.db.err = &store.OverloadError{Msg: "256 reads are under way, and none has made room for another within 10s"}
		}, "POST", "/db/query", `["x"]`)
	},
	"passwords being checked": func(t *testing.T) (int, string) {
		return provoke(t, func(_ *fixture, s *Server) { s.cfg.Auth = busyAuthorizer{} }, "POST", "/db/query", `["x"]`)
	},
	"requests in the write queue": func(t *testing.T) (int, string) {
		return provoke(t, func(_ *fixture, s *Server) { s.queue.held = s.queue.cfg.Capacity }, "POST", "/db/execute?queue&timeout=1ms", `["x"]`)
	},
	"one request in the write queue": func(t *testing.T) (int, string) {
		return provoke(t, func(_ *fixture, s *Server) { s.queue.cfg.Bytes = 1000 }, "POST", "/db/execute?queue", `["`+strings.Repeat("x", 1000)+`"]`)
	},
	"silence in a body":                     silence,
	"requests of one connection, by HTTP/2": manyOnOne,
	"connections":                           oneTooMany,
}

type busyAuthorizer struct{}

func (busyAuthorizer) Permit(string, string, string) error { return auth.ErrBusy }

// provoke sends a request to a new Server that prepare has changed.
func provoke(t *testing.T, prepare func(*fixture, *Server), method, target, body string) (int, string) {
	t.Helper()
	f := newFixture()
	s := NewServer(f.cfg, &f.db, &f.node, &f.peers)
	if prepare != nil {
		prepare(f, s)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest(method, target, strings.NewReader(body)))
	if code := w.Code; code == http.StatusServiceUnavailable && w.Header().Get("Retry-After") == "" {
		t.Errorf("status %d without Retry-After", code)
	}
	return w.Code, w.Body.String()
}

func silence(t *testing.T) (code int, said string) {
	serve(t, answered(&command.Response{}), func(t *testing.T, _ *Server, l *memListener) {
		code, said = converse(t, l.dial(t), post(`["a`, 7))
	})
	return code, said
}

// converse sends text and returns what is answered.
func converse(t *testing.T, conn net.Conn, sent string) (int, string) {
	t.Helper()
	go func() { _, _ = io.WriteString(conn, sent) }()
	r, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, text(t, r)
}

// manyOnOne lets a second request onto a connection while the node is half full.
func manyOnOne(t *testing.T) (int, string) {
	a := &admission{limit: 4}
	other, own := &clientConn{}, &clientConn{}
	for _, c := range []*clientConn{other, own} {
		if err := a.enter(c); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.enter(&clientConn{}); err != nil {
		t.Errorf("another connection: %v", err)
	}
	return statusOf(a.enter(own))
}

// block is a Database whose requests end with the test.
func block(ctx context.Context, _ *command.Request) (*command.Response, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// oneTooMany has a request under way on as many connections as there may be.
func oneTooMany(t *testing.T) (code int, said string) {
	serve(t, block, func(t *testing.T, s *Server, l *memListener) {
		s.conns.limit = 3
		for range 3 {
			go func() { _ = exchange(l.dial(t), post(`["a"]`, 5)) }()
		}
		synctest.Wait()
		code, said = converse(t, l.dial(t), post(`["a"]`, 5))
	})
	return code, said
}

// TestBounds goes beyond each bound, and expects the answer that the documentation promises.
func TestBounds(t *testing.T) {
	rows := documented(t)
	if got, want := slices.Sorted(maps.Keys(provocations)), slices.Sorted(maps.Keys(rows)); !slices.Equal(got, want) {
		t.Fatalf("tested are %q; the documentation has %q", got, want)
	}
	for name, f := range provocations {
		t.Run(name, func(t *testing.T) {
			if code, text := f(t); !rows[name].matches(code, text) {
				t.Errorf("answer = %d %.200q; want %s %q", code, text, rows[name].answer, rows[name].text)
			}
		})
	}
}

// TestLongHeader checks the bound on the header, which net/http answers for.
func TestLongHeader(t *testing.T) {
	serve(t, answered(&command.Response{}), func(t *testing.T, _ *Server, l *memListener) {
		long := strings.Repeat("x", maxHeader+8<<10)
		if got, want := exchange(l.dial(t), "GET /db/query?q="+long+" HTTP/1.1\r\nHost: x\r\n\r\n"), "HTTP/1.1 431 Request Header Fields Too Large"; got != want {
			t.Errorf("answer = %q; want %q", got, want)
		}
		if got, want := exchange(l.dial(t), "GET /readyz?x="+long[:maxHeader-1000]+" HTTP/1.1\r\nHost: x\r\n\r\n"), "HTTP/1.1 200 OK"; got != want {
			t.Errorf("answer = %q; want %q", got, want)
		}
	})
}

// TestEviction checks who makes room: first who has been idle for the longest, then who keeps the node waiting for
// the longest; and that nobody does on whose behalf something is done.
func TestEviction(t *testing.T) {
	serve(t, block, func(t *testing.T, s *Server, l *memListener) {
		s.conns.limit = 4
		worked := l.dial(t)
		go func() { _, _ = io.WriteString(worked, post(`["a"]`, 5)) }()
		synctest.Wait()
		var order []net.Conn // the next to go in front
		for _, sent := range []string{post("[", 1000), "", post("[", 1000), "POST /db/exec"} {
			<-time.After(time.Second)
			conn := l.dial(t)
			if sent != "" {
				go func() { _, _ = io.WriteString(conn, sent) }()
			}
			synctest.Wait()
			if len(order) == 3 { // it has thrown one out already: the one that says nothing
				expectClosed(t, "silent", order[1])
				order = []net.Conn{conn, order[0], order[2]}
				break
			}
			order = append(order, conn)
		}
		for i, name := range []string{"trickling header", "older body", "newer body"} {
			<-time.After(time.Second)
			conn := l.dial(t)
			synctest.Wait()
			expectClosed(t, name, order[i])
			go func() { _, _ = io.WriteString(conn, post(`["a"]`, 5)) }()
			synctest.Wait()
		}
		if got := s.conns.evicted; got != 4 {
			t.Errorf("%d connections evicted; want 4", got)
		}
		if code, _ := converse(t, l.dial(t), post(`["a"]`, 5)); code != http.StatusServiceUnavailable {
			t.Errorf("answer = %d; want 503", code)
		}
	})
}

// expectClosed fails the test unless the other side has closed conn by now.
func expectClosed(t *testing.T, name string, conn net.Conn) {
	t.Helper()
	_ = conn.SetReadDeadline(time.Now())
	if _, err := io.ReadAll(conn); err != nil {
		t.Errorf("%s connection is open: %v", name, err)
	}
}

// TestSurplus checks that those beyond the bound have little time to be told so, that even more are closed at
// once, and that both leave nothing behind.
func TestSurplus(t *testing.T) {
	serve(t, block, func(t *testing.T, s *Server, l *memListener) {
		s.conns.limit = 1
		go func() { _ = exchange(l.dial(t), post(`["a"]`, 5)) }()
		synctest.Wait()
		start := time.Now()
		var silent []net.Conn
		for range surplusConns {
			silent = append(silent, l.dial(t))
		}
		synctest.Wait()
		extra := l.dial(t)
		synctest.Wait()
		expectClosed(t, "extra", extra)
		if _, err := io.ReadAll(silent[0]); err != nil || time.Since(start) != surplusTime {
			t.Errorf("a silent connection ended with %v after %s; want %s", err, time.Since(start), surplusTime)
		}
		synctest.Wait()
		if s.conns.open != 1 || s.conns.surplus != 0 || s.conns.refused != surplusConns+1 {
			t.Errorf("%d open, %d surplus, %d refused; want 1, 0, %d", s.conns.open, s.conns.surplus, s.conns.refused, surplusConns+1)
		}
	})
}

// TestHurry checks that clients which take their answers slowly have less time when there are too many of them.
func TestHurry(t *testing.T) {
	long := strings.Repeat("x", 10*flushAt)
	resp := answerOf(rows([]string{"a"}, []string{"text"}, []any{long}))
	serve(t, answered(resp), func(t *testing.T, s *Server, l *memListener) {
		s.conns.takers = 1
		var conns []net.Conn
		for range 2 {
			conn := l.dial(t)
			conns = append(conns, conn)
			go func() { _, _ = io.WriteString(conn, post(`["a"]`, 5)) }()
			synctest.Wait()
		}
		<-time.After(2 * time.Second)
		if _, err := io.ReadAll(conns[1]); err != nil || s.conns.taking != 1 {
			t.Errorf("the second is not cut off: %v; %d are taking", err, s.conns.taking)
		}
		if r, err := http.ReadResponse(bufio.NewReader(conns[0]), nil); err != nil || len(text(t, r)) < len(long) {
			t.Errorf("the first does not get its answer: %v", err)
		}
	})
}

// TestExpectContinue checks that a body that will not be taken is not asked for.
func TestExpectContinue(t *testing.T) {
	ask := func(length int) string {
		return fmt.Sprintf("POST /db/execute HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n", length)
	}
	serve(t, answered(&command.Response{}), func(t *testing.T, s *Server, l *memListener) {
		if got, want := exchange(l.dial(t), ask(1<<20+1)), "HTTP/1.1 413 Request Entity Too Large"; got != want {
			t.Errorf("too large: %q; want %q", got, want)
		}
		if got, want := exchange(l.dial(t), ask(5)), "HTTP/1.1 100 Continue"; got != want {
			t.Errorf("small: %q; want %q", got, want)
		}
		if err := s.bodies.Claim().Raise(s.cfg.Limits.Bodies); err != nil {
			t.Fatal(err)
		}
		if got, want := exchange(l.dial(t), ask(1<<20)), "HTTP/1.1 503 Service Unavailable"; got != want {
			t.Errorf("without room: %q; want %q", got, want)
		}
		if got, want := exchange(l.dial(t), ask(5)), "HTTP/1.1 100 Continue"; got != want {
			t.Errorf("small, without room: %q; want %q", got, want)
		}
	})
}

// TestPipelining sends several requests before it reads an answer.
func TestPipelining(t *testing.T) {
	asked := 0
	db := func(context.Context, *command.Request) (*command.Response, error) {
		asked++
		return answerOf(write(int64(asked), 1, 0)), nil
	}
	serve(t, db, func(t *testing.T, s *Server, l *memListener) {
		conn := l.dial(t)
		go func() { _, _ = io.WriteString(conn, strings.Repeat(post(`["a"]`, 5), 50)) }()
		in := bufio.NewReader(conn)
		for i := range 50 {
			r, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatal(err)
			}
			check(t, r, http.StatusOK, fmt.Sprintf(`{"results":[{"last_insert_id":%d,"rows_affected":1}]}`, i+1))
		}
		synctest.Wait()
		if s.admission.active != 0 || s.conns.idle.Len() != 1 || s.conns.slow.Len() != 0 || s.bodies.Used() != 0 {
			t.Errorf("left: %v", s.limitVars())
		}
	})
}

// TestClaimedLength checks that a client gets no memory for bytes that it only announces.
func TestClaimedLength(t *testing.T) {
	serve(t, answered(&command.Response{}), func(t *testing.T, s *Server, l *memListener) {
		conn := l.dial(t)
		go func() { _, _ = io.WriteString(conn, post("[", 1<<20)) }()
		synctest.Wait()
		if got := s.bodies.Used(); got != 0 {
			t.Errorf("%d bytes are claimed for a byte", got)
		}
		_ = conn.Close()
	})
}
