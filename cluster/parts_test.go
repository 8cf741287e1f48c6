package cluster

import (
	"context"
	"errors"
	"io"
	"net"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"rqlited/command"
	"rqlited/store"
)

// gatherer puts results together again that come in parts. It has sent, and can't begin again, what is as
// many parts as it may take back.
type gatherer struct {
	results  []command.Result
	parts    int
	takeBack int // parts; 0: any number
	begun    []string
	open     bool
	fail     func() error // asked for each part
}

func (g *gatherer) Begin(servedBy string) bool {
	if g.takeBack > 0 && g.parts >= g.takeBack {
		return false
	}
	g.begun = append(g.begun, servedBy)
	g.results, g.parts, g.open = nil, 0, false
	return true
}

func (g *gatherer) Take(r *command.Result, more bool) error {
	g.parts++
	if g.fail != nil {
		if err := g.fail(); err != nil {
			return err
		}
	}
	if g.open {
		last := &g.results[len(g.results)-1]
		last.Rows.Values = append(last.Rows.Values, r.Rows.Values...)
		last.Error, last.Time = r.Error, r.Time
	} else {
		g.results = append(g.results, *r)
	}
	g.open = more
	return nil
}

// all returns the results of a request, of which the last part is in its response.
func (g *gatherer) all(t *testing.T, resp *command.Response) []command.Result {
	t.Helper()
	for i := range resp.Results {
		if err := g.Take(&resp.Results[i], false); err != nil {
			t.Fatal(err)
		}
	}
	return g.results
}

// manyRows returns n rows of about a hundred bytes.
func manyRows(n int) [][]any {
	values := make([][]any, n)
	for i := range values {
		values[i] = []any{int64(i), strings.Repeat("v", 100), nil, []byte{1, 2}}
	}
	return values
}

var fourColumns = command.Rows{Columns: []string{"i", "v", "n", "b"}, Types: []string{"integer", "text", "", "blob"}}

// give hands values to the sink as the rows of one statement, some at a time.
func give(sink command.Sink, values [][]any, end command.Result) error {
	rows := fourColumns
	for len(values) > 512 {
		rows.Values = values[:512]
		if err := sink.Take(&command.Result{Rows: &rows}, true); err != nil {
			return err
		}
		values, rows = values[512:], command.Rows{}
	}
	if end.Error == "" {
		rows.Values = values
	}
	end.Rows = &rows
	return sink.Take(&end, false)
}

// TestParts has a large answer go from node to node, and then a small one on the same connection.
func TestParts(t *testing.T) {
	large := manyRows(20_000)
	failed := command.Result{Rows: &command.Rows{Columns: fourColumns.Columns, Types: fourColumns.Types, Values: large[:1024]}, Error: "integer overflow"}
	rows := func(n int) *command.Rows {
		return &command.Rows{Columns: fourColumns.Columns, Types: fourColumns.Types, Values: large[:n]}
	}
	want := []command.Result{{Rows: rows(3), Time: 0.5}, {Rows: rows(20_000), Time: 1.5}, failed, {Rows: rows(2000)}, {Rows: rows(1)}}
	for _, kind := range []command.Kind{command.Query, command.Unified} {
		for _, whole := range []bool{false, true} { // the node may have the results as a whole, as those of a strong read
			node := &fakeNode{do: func(_ context.Context, req *command.Request) (*command.Response, error) {
				if len(req.Statements) == 1 {
					return &command.Response{}, give(req.Sink, large[:1], command.Result{})
				}
				if whole {
					return &command.Response{Index: 7, Results: want}, nil
				}
				return &command.Response{Index: 7}, errors.Join(
					give(req.Sink, large[:3], command.Result{Time: 0.5}),
					give(req.Sink, large, command.Result{Time: 1.5}),
					give(req.Sink, large[:1025], command.Result{Error: "integer overflow"}),
					give(req.Sink, large[:2000], command.Result{}),
					give(req.Sink, large[:1], command.Result{}))
			}}
			addr, _ := startService(t, node, ServiceConfig{})
			c := newTestClient(t, ClientConfig{})
			g := &gatherer{}
			resp, err := c.Do(withTimeout(t), addr, &command.Request{Kind: kind, Sink: g})
			if err != nil {
				t.Fatal(err)
			}
			parts := g.parts
			if got := g.all(t, resp); !reflect.DeepEqual(got, want) || resp.Index != 7 {
				t.Errorf("%s: index %d, %d results that differ", kind, resp.Index, len(got))
			}
			if parts < 10 {
				t.Errorf("%s: %d parts; want many", kind, parts)
			}
			g = &gatherer{}
			resp, err = c.Do(withTimeout(t), addr, &command.Request{Kind: kind, Sink: g, Statements: []command.Statement{{SQL: "x"}}})
			if err != nil || g.parts != 0 || len(resp.Results) != 1 {
				t.Errorf("%s: small answer: %v, %d parts", kind, err, g.parts)
			}
			if got := c.Pools()[addr]; got.Open != 1 || got.Idle != 1 {
				t.Errorf("%s: pool = %+v; want one idle connection", kind, got)
			}
		}
	}
}

// TestPartsNotAskedFor calls as rqlite does: the answer is one message. So is the answer of a node that
// does not know of parts.
func TestPartsNotAskedFor(t *testing.T) {
	want := []command.Result{{Rows: &command.Rows{Columns: fourColumns.Columns, Types: fourColumns.Types, Values: manyRows(5000)}}}
	sinks := make(chan command.Sink, 1)
	addr, _ := startService(t, &fakeNode{do: func(_ context.Context, req *command.Request) (*command.Response, error) {
		sinks <- req.Sink
		return &command.Response{Results: want}, nil
	}}, ServiceConfig{})
	resp, err := newTestClient(t, ClientConfig{}).Do(withTimeout(t), addr, &command.Request{Kind: command.Query})
	if err != nil || !reflect.DeepEqual(resp.Results, want) || <-sinks != nil {
		t.Errorf("Do() = %v, or the answer is another", err)
	}

	old := startPeer(t, func(p *peer, conn net.Conn, _ int) {
		p.read(conn)
		conn.Write(endFrame(command.AppendResponse(beginFrame(nil), command.Query, &command.Response{Results: want}, "")))
	})
	g := &gatherer{}
	resp, err = newTestClient(t, ClientConfig{}).Do(withTimeout(t), old.addr, &command.Request{Kind: command.Query, Sink: g})
	if err != nil || g.parts != 0 || !reflect.DeepEqual(resp.Results, want) {
		t.Errorf("Do() = %v, %d parts, or the answer is another", err, g.parts)
	}
}

// TestPartsFail ends answers in their middle. There is another attempt as long as nothing has reached the client.
func TestPartsFail(t *testing.T) {
	part := func(next uint64) []byte {
		b := command.AppendResponse(beginFrame(nil), command.Query, &command.Response{Results: []command.Result{{Rows: &fourColumns}}}, "")
		return endFrame(command.AppendVarint(b, fieldFollowing, next))
	}
	last := func(text string) []byte {
		return endFrame(command.AppendResponse(beginFrame(nil), command.Query, nil, text))
	}
	tests := []struct {
		name     string
		frames   [][]byte
		takeBack int
		want     error // nil: any
		attempts int64
	}{
		{"hangs up before", nil, 1, io.EOF, 2},
		{"hangs up amid rows", [][]byte{part(followsRows)}, 1, io.EOF, 1},
		{"hangs up, taken back", [][]byte{part(followsRows)}, 2, io.EOF, 2},
		{"hangs up amid a part", [][]byte{part(followsRows), part(followsRows)[:12]}, 1, io.ErrUnexpectedEOF, 1},
		{"error amid rows", [][]byte{part(followsRows), last("store not open")}, 1, store.ErrNotOpen, 1},
		{"error between results", [][]byte{part(followsResult), last("stale read")}, 1, store.ErrStaleRead, 1},
		{"ends amid rows", [][]byte{part(followsRows), last("")}, 1, ErrMalformed, 1},
		{"followed by something unknown", [][]byte{part(3)}, 1, ErrMalformed, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := startPeer(t, func(p *peer, conn net.Conn, _ int) {
				if p.read(conn) {
					for _, f := range tt.frames {
						conn.Write(f)
					}
				}
			})
			c := newTestClient(t, ClientConfig{})
			g := &gatherer{takeBack: tt.takeBack}
			_, err := c.Do(withTimeout(t), p.addr, &command.Request{Kind: command.Query, Sink: g})
			if !errors.Is(err, tt.want) || err == nil {
				t.Errorf("Do() = %v; want %v", err, tt.want)
			}
			if got := p.seen.Load(); got != tt.attempts {
				t.Errorf("%d attempts; want %d", got, tt.attempts)
			}
			// One that has given its error can go on; the others would be poison.
			open := c.Pools()[p.addr].Open
			if reusable := errors.Is(err, store.ErrNotOpen) || errors.Is(err, store.ErrStaleRead) || tt.name == "ends amid rows"; open != 0 && !reusable {
				t.Errorf("%d connections are kept", open)
			}
		})
	}
}

// TestPartsTimeout waits for the second part longer than the timeout, which the first has kept.
func TestPartsTimeout(t *testing.T) {
	released := make(chan struct{})
	addr, _ := startService(t, &fakeNode{do: func(ctx context.Context, req *command.Request) (*command.Response, error) {
		defer close(released)
		if err := req.Sink.Take(&command.Result{Rows: &fourColumns}, true); err != nil {
			return nil, err
		}
		<-ctx.Done() // the caller hangs up
		return nil, ctx.Err()
	}}, ServiceConfig{})
	g := &gatherer{takeBack: 1}
	_, err := newTestClient(t, ClientConfig{}).Do(withTimeout(t), addr, &command.Request{Kind: command.Query, Sink: g, Forward: command.Forward{Timeout: 50 * time.Millisecond}})
	if ne, ok := errors.AsType[net.Error](err); !ok || !ne.Timeout() || g.parts != 1 {
		t.Errorf("Do() = %v after %d parts; want a timeout after one", err, g.parts)
	}
	<-released
}

// TestPartsGone loses the client before and amid an answer: the node that is asked hears of it, and stops.
func TestPartsGone(t *testing.T) {
	enough := errors.New("client gone")
	for _, amid := range []bool{false, true} {
		ctx, leave := context.WithCancel(withTimeout(t))
		stopped := make(chan error, 1)
		addr, s := startService(t, &fakeNode{do: func(ctx context.Context, req *command.Request) (*command.Response, error) {
			if !amid {
				leave()
				<-ctx.Done()
				stopped <- ctx.Err()
				return nil, ctx.Err()
			}
			rows := fourColumns
			rows.Values = manyRows(512)
			for {
				err := req.Sink.Take(&command.Result{Rows: &rows}, true)
				if err == nil {
					err = ctx.Err()
				}
				if err != nil {
					stopped <- err
					return nil, err
				}
				rows.Columns, rows.Types = nil, nil
			}
		}}, ServiceConfig{})
		n := 0
		g := &gatherer{takeBack: 1, fail: func() error {
			if n++; n > 5 {
				return enough
			}
			return nil
		}}
		c := newTestClient(t, ClientConfig{})
		_, err := c.Do(ctx, addr, &command.Request{Kind: command.Query, Sink: g})
		if want := map[bool]error{false: context.Canceled, true: enough}[amid]; !errors.Is(err, want) {
			t.Errorf("Do() = %v; want %v", err, want)
		}
		if err := <-stopped; err == nil {
			t.Error("the node was not told")
		}
		if got := c.Pools()[addr].Open; got != 0 {
			t.Errorf("%d connections are kept", got)
		}
		if err := s.Close(); err != nil { // waits for the connection
			t.Error(err)
		}
		leave()
	}
}

// TestWatch has a peer stay, leave, and go on with its next call while one is carried out.
func TestWatch(t *testing.T) {
	for _, tt := range []struct {
		name  string
		after time.Duration // what the peer does
		does  func(far net.Conn)
		early string
		left  bool
	}{
		{"stays", 0, func(net.Conn) {}, "", false},
		{"leaves at once", 0, func(far net.Conn) { far.Close() }, "", true},
		{"leaves later", time.Minute, func(far net.Conn) { far.Close() }, "", true},
		{"goes on", time.Minute, func(far net.Conn) { far.Write([]byte("xy")) }, "x", false},
	} {
		for _, took := range []time.Duration{0, 2 * time.Minute} {
			synctest.Test(t, func(t *testing.T) {
				near, far := net.Pipe()
				defer far.Close()
				defer near.Close()
				p := &caller{Conn: near}
				ctx, end := p.watch(t.Context())
				go func() {
					time.Sleep(tt.after)
					tt.does(far)
				}()
				time.Sleep(took)
				synctest.Wait()
				if left := ctx.Err() != nil; left != (tt.left && took > 0) {
					t.Errorf("%s: the context has ended after %s: %t", tt.name, took, left)
				}
				end()
				if took > 0 && string(p.early) != tt.early {
					t.Errorf("%s: early is %q; want %q", tt.name, p.early, tt.early)
				}
				near.Close() // what was not read does not keep the peer
				time.Sleep(time.Hour)
			})
		}
	}
}

// TestPartsEarlyCall sends the next call before the answer to the last: it is not lost.
func TestPartsEarlyCall(t *testing.T) {
	proceed := make(chan struct{})
	var calls atomic.Int64
	addr, _ := startService(t, &fakeNode{do: func(ctx context.Context, req *command.Request) (*command.Response, error) {
		if calls.Add(1) == 1 {
			<-proceed
		}
		return &command.Response{}, errors.Join(ctx.Err(), give(req.Sink, manyRows(1000), command.Result{}))
	}}, ServiceConfig{})
	conn := dialRaw(t, addr)
	body := command.AppendBool(command.AppendRequest([]byte{}, &command.Request{Kind: command.Query}), fieldParts, true)
	frame := endFrame(appendCall(beginFrame(nil), &call{typ: callQuery, body: body}))
	if _, err := conn.Write(append(append([]byte{byteCalls}, frame...), frame...)); err != nil {
		t.Fatal(err)
	}
	close(proceed)
	for range 2 {
		for {
			answer, err := readFrame(conn, nil)
			if err != nil {
				t.Fatal(err)
			}
			if next, err := following(answer); err != nil {
				t.Fatal(err)
			} else if next == followsNothing {
				break
			}
		}
	}
	if got := calls.Load(); got != 2 {
		t.Errorf("%d calls; want 2", got)
	}
}

// TestPartsUnauthorized asks for parts as somebody who may not read.
func TestPartsUnauthorized(t *testing.T) {
	addr, _ := startService(t, &fakeNode{}, ServiceConfig{Auth: oneUser{"bob", "secret", []string{"execute"}}})
	g := &gatherer{}
	_, err := newTestClient(t, ClientConfig{}).Do(withTimeout(t), addr, &command.Request{Kind: command.Query, Sink: g, Forward: command.Forward{Username: "bob", Password: "secret"}})
	if !errors.Is(err, store.ErrUnauthorized) || g.parts != 0 {
		t.Errorf("Do() = %v after %d parts; want %v", err, g.parts, store.ErrUnauthorized)
	}
}

// TestRouterParts looks at who is said to answer, and that nobody else is asked once a part is with the client.
func TestRouterParts(t *testing.T) {
	var turns atomic.Int64
	leader, _ := startService(t, &fakeNode{do: func(_ context.Context, req *command.Request) (*command.Response, error) {
		if turns.Add(1) == 1 {
			return nil, store.ErrNotLeader
		}
		return &command.Response{}, give(req.Sink, manyRows(1000), command.Result{})
	}}, ServiceConfig{})
	local := &fakeNode{do: answers(nil, store.ErrNotLeader)}
	local.setLeader("leader", leader)
	g := &gatherer{takeBack: 1}
	resp, err := newTestRouter(t, local).Do(withTimeout(t), &command.Request{Kind: command.Query, Sink: g})
	if err != nil || resp.ServedBy != leader || len(g.all(t, resp)[0].Rows.Values) != 1000 {
		t.Errorf("Do() = %+v, %v", resp, err)
	}
	if want := []string{localHTTP, leader, localHTTP, leader}; !reflect.DeepEqual(g.begun, want) {
		t.Errorf("asked %q; want %q", g.begun, want)
	}

	deposed := &fakeNode{do: func(_ context.Context, req *command.Request) (*command.Response, error) {
		return nil, errors.Join(give(req.Sink, manyRows(1000), command.Result{}), store.ErrNotLeader)
	}}
	deposed.setLeader("leader", leader)
	before := turns.Load()
	g = &gatherer{takeBack: 1}
	if _, err := newTestRouter(t, deposed).Do(withTimeout(t), &command.Request{Kind: command.Query, Sink: g}); !errors.Is(err, errBegun) {
		t.Errorf("Do() = %v; want %v", err, errBegun)
	}
	if turns.Load() != before {
		t.Error("the leader was asked as well")
	}
}

// TestPartsConcurrently shares the connections between many answers.
func TestPartsConcurrently(t *testing.T) {
	addr, _ := startService(t, &fakeNode{do: func(_ context.Context, req *command.Request) (*command.Response, error) {
		return &command.Response{}, give(req.Sink, manyRows(len(req.Statements)), command.Result{})
	}}, ServiceConfig{})
	c := newTestClient(t, ClientConfig{})
	ctx := withTimeout(t)
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			for i := range 20 {
				n := 1 + (worker*977+i*613)%3000
				g := &gatherer{}
				resp, err := c.Do(ctx, addr, &command.Request{Kind: command.Query, Sink: g, Statements: make([]command.Statement, n)})
				if err != nil {
					t.Error(err)
					return
				}
				if got := len(g.all(t, resp)[0].Rows.Values); got != n {
					t.Errorf("%d rows; want %d", got, n)
				}
			}
		})
	}
	wg.Wait()
}
