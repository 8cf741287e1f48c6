package http

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rqlited/command"
	"rqlited/store"
)

// randomResult returns a result, and whether it is one of rows, which may come in parts.
func randomResult(rng *rand.Rand, large bool) (command.Result, bool) {
	switch rng.IntN(8) {
	case 0:
		return write(rng.Int64N(3), rng.Int64N(3), rng.Float64()*float64(rng.IntN(2))), false
	case 1:
		return failed("no such table: <nope>"), false
	case 2:
		return command.Result{Rows: &command.Rows{}}, false
	case 3:
		return command.Result{}, false
	}
	names := []string{"a", "b", "a", "<c>", "d\"", "é"}
	types := []string{"integer", "text", "", "blob", "boolean", "varchar(10)"}
	n := 1 + rng.IntN(len(names))
	r := rows(names[:n], types[:n])
	count := rng.IntN(6)
	if large {
		count = rng.IntN(4000)
	}
	for range count {
		row := make([]any, n)
		for i := range row {
			row[i] = randomValue(rng)
		}
		r.Rows.Values = append(r.Rows.Values, row)
	}
	r.Time = rng.Float64() * float64(rng.IntN(2))
	switch {
	case rng.IntN(8) == 0:
		r = command.Result{Rows: &command.Rows{}, Error: "integer overflow"}
	case !large && count > 0 && rng.IntN(8) == 0:
		r.Rows.Values[rng.IntN(count)][rng.IntN(n)] = -inf
	}
	return r, true
}

func randomValue(rng *rand.Rand) any {
	switch rng.IntN(7) {
	case 0:
		return rng.Int64() - rng.Int64()
	case 1:
		return rng.NormFloat64() * 1e20
	case 2:
		return strings.Repeat("x\xff<\u2028\\\"\n", rng.IntN(4))
	case 3:
		return []byte(strings.Repeat("\x00\xfe", rng.IntN(4)))
	case 4:
		return rng.IntN(2) == 0
	case 5:
		return ""
	}
	return nil
}

// takeParts gives r to the sink in parts of random size, as a database does that reads on in between. A
// statement that fails may have yielded rows before.
func takeParts(rng *rand.Rand, sink command.Sink, r command.Result, before [][]any) error {
	rest := r
	if r.Error != "" {
		rest = command.Result{Rows: &command.Rows{Columns: []string{"a", "b"}, Types: []string{"integer", ""}, Values: before}}
	}
	values := rest.Rows.Values
	part := &command.Rows{Columns: rest.Rows.Columns, Types: rest.Rows.Types}
	for len(values) > 0 && (r.Error != "" || rng.IntN(4) > 0) {
		n := 1 + rng.IntN(len(values))
		part.Values, values = values[:n], values[n:]
		if err := sink.Take(&command.Result{Rows: part}, true); err != nil {
			return err
		}
		part = &command.Rows{}
	}
	if r.Error != "" {
		return sink.Take(&r, false)
	}
	part.Values = values
	return sink.Take(&command.Result{Rows: part, Time: r.Time}, false)
}

// TestStreamedEqualsWhole compares answers that are encoded while they come with such that are encoded as a
// whole: they are the same, byte for byte.
func TestStreamedEqualsWhole(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for i := range 600 {
		large := i%20 == 0
		f := form{
			kind:        []command.Kind{command.Query, command.Unified}[rng.IntN(2)],
			associative: rng.IntN(2) == 0, blobArray: rng.IntN(2) == 0, pretty: rng.IntN(2) == 0,
			timings: rng.IntN(2) == 0, raftIndex: rng.IntN(2) == 0,
		}
		resp := &command.Response{Index: rng.Uint64N(2)}
		var got bytes.Buffer
		writes := 0
		e := &encoder{form: f, w: writerFunc(func(b []byte) { writes++; got.Write(b) })}
		if rng.IntN(4) == 0 { // an attempt that comes to nothing
			_ = e.Take(&command.Result{Rows: &command.Rows{Columns: []string{"gone"}, Types: []string{""}}}, rng.IntN(2) == 0)
			if !e.Begin("") {
				t.Fatal("Begin() = false, and nothing was written")
			}
		}
		inParts := rng.IntN(4) > 0
		for range rng.IntN(5) {
			r, isRows := randomResult(rng, large)
			resp.Results = append(resp.Results, r)
			switch {
			case !inParts:
			case !isRows || e.sent && r.Error != "": // else the error stands behind rows, see below
				_ = e.Take(&r, false)
			default:
				_ = takeParts(rng, e, r, [][]any{{int64(1), nil}, {inf, nil}, {int64(2), "x"}}[:rng.IntN(4)])
			}
		}
		errText := ""
		if !inParts && rng.IntN(8) == 0 {
			errText = "stale <read>"
		}
		want := wholeAnswer(t, f, resp, errText, 481913*time.Nanosecond)
		last := *resp
		if inParts {
			last.Results = nil
		}
		e.finish(&last, errText, 481913*time.Nanosecond)
		if !bytes.Equal(got.Bytes(), want) {
			t.Fatalf("%+v: answer in %d writes is\n%.2000s; want\n%.2000s", f, writes, got.Bytes(), want)
		}
		if len(want) < flushAt && writes != 1 {
			t.Fatalf("answer of %d bytes in %d writes; want one", len(want), writes)
		}
	}
}

// begunRows returns an encoder that has written some rows of its second result, and with what.
func begunRows(t *testing.T, f form) (*encoder, *bytes.Buffer) {
	t.Helper()
	var out bytes.Buffer
	e := &encoder{form: f, w: &out}
	count := rows([]string{"n"}, []string{"integer"}, []any{int64(1)})
	long := rows([]string{"v"}, []string{"text"}, []any{strings.Repeat("x", flushAt)}, []any{"last"})
	if err := errors.Join(e.Take(&count, false), e.Take(&long, true)); err != nil {
		t.Fatal(err)
	}
	if out.Len() == 0 || e.Begin("") {
		t.Fatal("nothing was written")
	}
	return e, &out
}

// TestLateErrors puts errors behind rows that the client has already.
func TestLateErrors(t *testing.T) {
	const arrays, objects = `["last"]]`, `{"v":"last"}]`
	tests := []struct {
		name string
		end  func(e *encoder)
		want string
	}{
		{"of the statement", func(e *encoder) {
			_ = e.Take(&command.Result{Rows: &command.Rows{}, Error: "integer overflow"}, false)
			e.finish(&command.Response{}, "", 0)
		}, `,"error":"integer overflow"}]}`},
		{"of the statement, which another follows", func(e *encoder) {
			_ = e.Take(&command.Result{Rows: &command.Rows{}, Error: "query timeout"}, false)
			_ = e.Take(&command.Result{Rows: &command.Rows{}, Error: "query timeout"}, false)
			e.finish(&command.Response{}, "", 0)
		}, `,"error":"query timeout"},{ROWS"error":"query timeout"}]}`},
		{"of a value", func(e *encoder) {
			_ = e.Take(&command.Result{Rows: &command.Rows{Values: [][]any{{"x"}, {inf}}}}, true)
			_ = e.Take(&command.Result{Rows: &command.Rows{Values: [][]any{{"y"}}}}, true)
			_ = e.Take(&command.Result{Rows: &command.Rows{Values: [][]any{{"z"}}}, Time: 1}, false)
			e.finish(&command.Response{}, "", 0)
		}, `,"error":"JSON cannot represent the value +Inf"}]}`},
		{"of the request", func(e *encoder) { e.finish(nil, "read protobuf length: EOF", 0) },
			`,"error":"read protobuf length: EOF"}],"error":"read protobuf length: EOF"}`},
		{"of the request, between statements", func(e *encoder) {
			_ = e.Take(&command.Result{Rows: &command.Rows{}}, false)
			e.finish(nil, "store not open", 0)
		}, `}],"error":"store not open"}`},
	}
	for _, tt := range tests {
		for _, associative := range []bool{false, true} {
			t.Run(fmt.Sprint(tt.name, associative), func(t *testing.T) {
				e, out := begunRows(t, form{kind: command.Query, associative: associative})
				tt.end(e)
				want := arrays + strings.Replace(tt.want, "ROWS", "", 1)
				if associative {
					want = objects + strings.Replace(tt.want, "ROWS", `"rows":[],`, 1)
				}
				if !strings.HasSuffix(out.String(), want) || !json.Valid(out.Bytes()) {
					t.Errorf("answer ends %.200s; want %s", out.String()[max(0, out.Len()-200):], want)
				}
			})
		}
	}
}

// TestIndent compares the white space with that of encoding/json, for text that comes in any pieces.
func TestIndent(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for _, text := range []string{
		`{}`, `[]`, `[[],{}]`, `{"a":[],"b":{"c":[1,2,{}]},"d":"[{,:}]\"\\"}`, `"\\\"{"`, `[1.5e-7,null,true,"\\",{"\\":"\""}]`,
	} {
		var want bytes.Buffer
		if err := json.Indent(&want, []byte(text), "", "    "); err != nil {
			t.Fatal(err)
		}
		for range 20 {
			var n indenter
			var got []byte
			for rest := text; rest != ""; {
				k := 1 + rng.IntN(len(rest))
				got = n.append(got, []byte(rest[:k]))
				rest = rest[k:]
			}
			if !bytes.Equal(got, want.Bytes()) {
				t.Fatalf("indented %s is\n%s; want\n%s", text, got, want.Bytes())
			}
		}
	}
}

// streamDB answers every request with rows until it is told to stop, and then with err.
type streamDB struct {
	Database // of which nothing else is asked

	parts int // 0: no end
	err   error
	ended chan error // of Take, or of the context
}

func (d *streamDB) Do(ctx context.Context, req *command.Request) (*command.Response, error) {
	req.Sink.Begin("127.0.0.1:4002")
	values := make([][]any, 512)
	for i := range values {
		values[i] = []any{strings.Repeat("v", 100)}
	}
	r := rows([]string{"v"}, []string{"text"}, values...)
	for i := 0; d.parts == 0 || i < d.parts; i++ {
		err := req.Sink.Take(&r, true)
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			d.ended <- err
			return nil, err
		}
		r.Rows.Columns, r.Rows.Types = nil, nil
	}
	err := req.Sink.Take(&command.Result{Rows: &command.Rows{}}, false)
	d.ended <- err
	if d.err != nil {
		return nil, d.err
	}
	return &command.Response{ServedBy: "127.0.0.1:4002"}, err
}

// TestStreamedHeaders checks what is decided before the answer is there.
func TestStreamedHeaders(t *testing.T) {
	for _, parts := range []int{0, 1, 3, 40} {
		d := &streamDB{parts: parts, ended: make(chan error, 1), err: store.ErrNotOpen}
		if parts == 0 {
			d.parts = 1
			d.err = nil
		}
		f := newFixture()
		w := httptest.NewRecorder()
		NewServer(f.cfg, d, &f.node, &f.peers).ServeHTTP(w, httptest.NewRequest("GET", "/db/query?q=x", nil))
		sent := parts > 1 // with one part all that there is fits into the first write
		if sent || parts == 0 {
			if got := w.Header().Get("X-Rqlite-Served-By"); got != "127.0.0.1:4002" {
				t.Errorf("%d parts: X-Rqlite-Served-By = %q", parts, got)
			}
		} else if got := w.Header().Get("X-Rqlite-Served-By"); got != "" || w.Body.String() != `{"results":[],"error":"store not open"}` {
			t.Errorf("%d parts: served by %q, %.100s", parts, got, w.Body)
		}
		if w.Code != http.StatusOK || !json.Valid(w.Body.Bytes()) || sent != strings.HasSuffix(w.Body.String(), `]]}],"error":"store not open"}`) {
			t.Errorf("%d parts: %d, answer ends %s", parts, w.Code, w.Body.String()[max(0, w.Body.Len()-60):])
		}
	}
}

// TestSilentClient serves clients that begin to take an answer without end, and take nothing any more, or leave.
func TestSilentClient(t *testing.T) {
	for _, proto := range []int{1, 2} {
		for _, leaves := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture()
				d := &streamDB{ended: make(chan error, 1)}
				s := NewServer(f.cfg, d, &f.node, &f.peers)
				l := newMemListener()
				served := make(chan error, 1)
				go func() { served <- s.Serve(l, secure(t)) }()
				client := http2Client(l.dial(t))
				client.Transport.(*http.Transport).ForceAttemptHTTP2 = proto == 2
				r, err := client.Get("https://host.test/db/query?q=x")
				if err != nil {
					t.Fatal(err)
				}
				if _, err := io.CopyN(io.Discard, r.Body, 1<<20); err != nil || r.ProtoMajor != proto {
					t.Fatalf("%s: %v", r.Proto, err)
				}
				start, limit := time.Now(), s.cfg.Limits.Stall
				if leaves {
					_ = r.Body.Close()
					limit = 0
				}
				if err := <-d.ended; err == nil {
					t.Error("the database was not told")
				}
				const goodbye = 5 * time.Second // that TLS has, to a client that does not take it
				if took := time.Since(start); took < limit || took > limit+goodbye || leaves && took > 0 {
					t.Errorf("%s: cut off after %s; want %s", r.Proto, took, limit)
				}
				_ = r.Body.Close()
				client.CloseIdleConnections()
				_ = s.srv.Close()
				if err := <-served; err != nil {
					t.Errorf("Serve = %v", err)
				}
				<-time.After(time.Hour)
			})
		}
	}
}

// TestSmallAnswer checks that a small answer has its length, and comes in one piece.
func TestSmallAnswer(t *testing.T) {
	f := newFixture()
	f.db.resp = answerOf(rows([]string{"a"}, []string{"text"}, []any{strings.Repeat("x", 100)}))
	ts := httptest.NewServer(NewServer(f.cfg, &f.db, &f.node, &f.peers))
	defer ts.Close()
	r, err := http.Get(ts.URL + "/db/query?q=x")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body := text(t, r)
	if r.ContentLength != int64(len(body)) || !reflect.DeepEqual(r.TransferEncoding, []string(nil)) {
		t.Errorf("Content-Length = %d, Transfer-Encoding = %q; want %d and none", r.ContentLength, r.TransferEncoding, len(body))
	}
}

// BenchmarkSmallQuery is what a request of one row costs above the database.
func BenchmarkSmallQuery(b *testing.B) {
	f := newFixture()
	f.db.resp = answerOf(rows([]string{"id", "v"}, []string{"integer", "text"}, []any{int64(7), "seven"}))
	s := NewServer(f.cfg, &f.db, &f.node, &f.peers)
	b.ReportAllocs()
	for b.Loop() {
		f.db.asked = f.db.asked[:0]
		s.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", "/db/query", strings.NewReader(`["SELECT id, v FROM s WHERE id=7"]`)))
	}
}
