package http

import (
	"errors"
	"net/http"
	"reflect"
	"testing"
	"time"

	"rqlited/command"
	"rqlited/store"
)

func write(id, n int64, time float64) command.Result {
	return command.Result{Write: &command.Write{LastInsertID: id, RowsAffected: n}, Time: time}
}

func rows(columns, types []string, values ...[]any) command.Result {
	return command.Result{Rows: &command.Rows{Columns: columns, Types: types, Values: values}}
}

func failed(text string) command.Result { return command.Result{Error: text} }

func answerOf(results ...command.Result) *command.Response {
	return &command.Response{Results: results}
}

// TestStatements compares whole bodies with those that rqlite sends.
func TestStatements(t *testing.T) {
	foo := []string{"id", "name", "age"}
	fooTypes := []string{"integer", "text", "integer"}
	count := rows([]string{"count(*)"}, []string{"integer"}, []any{int64(10)})
	prepared := failed("near \"BAD\": syntax error")
	readError := command.Result{Rows: &command.Rows{}, Error: "integer overflow"}
	tests := []struct {
		name         string
		method, path string
		resp         *command.Response
		want         string
	}{
		{"create", "POST", "/db/execute", answerOf(write(0, 0, 0)), `{"results":[{}]}`},
		{"insert", "POST", "/db/execute", answerOf(write(1, 1, 0)), `{"results":[{"last_insert_id":1,"rows_affected":1}]}`},
		{"update of nothing", "POST", "/db/execute", answerOf(write(3, 0, 0)), `{"results":[{"last_insert_id":3}]}`},
		{"delete before any insert", "POST", "/db/execute", answerOf(write(0, 2, 0)), `{"results":[{"rows_affected":2}]}`},
		{"failed insert", "POST", "/db/execute", answerOf(write(9, 1, 0), failed("UNIQUE constraint failed: foo.name")),
			`{"results":[{"last_insert_id":9,"rows_affected":1},{"error":"UNIQUE constraint failed: foo.name"}]}`},
		{"escaped error", "POST", "/db/execute", answerOf(failed("CHECK constraint failed: c>0")),
			`{"results":[{"error":"CHECK constraint failed: c\u003e0"}]}`},
		{"returning", "POST", "/db/execute", answerOf(rows(foo, fooTypes, []any{int64(9), "r", int64(25)})),
			`{"results":[{"columns":["id","name","age"],"types":["integer","text","integer"],"values":[[9,"r",25]]}]}`},
		{"raft index", "POST", "/db/execute?raft_index", &command.Response{Results: answerOf(write(3, 1, 0)).Results, Index: 322},
			`{"results":[{"last_insert_id":3,"rows_affected":1}],"raft_index":322}`},
		{"index not asked for", "POST", "/db/execute", &command.Response{Index: 322}, `{"results":[]}`},
		{"no index to tell", "POST", "/db/query?raft_index", &command.Response{}, `{"results":[]}`},

		{"found", "POST", "/db/query", answerOf(rows(foo, fooTypes, []any{int64(1), "fiona", int64(20)})),
			`{"results":[{"columns":["id","name","age"],"types":["integer","text","integer"],"values":[[1,"fiona",20]]}]}`},
		{"not found", "GET", "/db/query?q=SELECT+1", answerOf(rows(foo[:2], fooTypes[:2])),
			`{"results":[{"columns":["id","name"],"types":["integer","text"]}]}`},
		{"bad table", "GET", "/db/query?q=SELECT+1", answerOf(failed("no such table: nope")), `{"results":[{"error":"no such table: nope"}]}`},
		{"comment", "GET", "/db/query?q=--", answerOf(command.Result{Rows: &command.Rows{}}), `{"results":[{}]}`},
		{"comment without rows", "GET", "/db/query?q=--", answerOf(command.Result{}), `{"results":[{}]}`},
		{"no q", "GET", "/db/query", &command.Response{}, `{"results":[]}`},
		{"values of all types", "GET", "/db/query?q=SELECT+1", answerOf(rows(
			[]string{"i", "r", "t", "b", "o", "n"}, []string{"integer", "real", "text", "blob", "boolean", ""},
			[]any{int64(-9223372036854775808), 1.5, "it's <b>", []byte{0, 1, 255}, true, nil})),
			`{"results":[{"columns":["i","r","t","b","o","n"],"types":["integer","real","text","blob","boolean",""],` +
				`"values":[[-9223372036854775808,1.5,"it's \u003cb\u003e","AAH/",true,null]]}]}`},
		{"blobs as arrays", "GET", "/db/query?q=SELECT+1&blob_array", answerOf(rows([]string{"b"}, []string{"blob"},
			[]any{[]byte{0, 1, 255}}, []any{[]byte{}})),
			`{"results":[{"columns":["b"],"types":["blob"],"values":[[[0,1,255]],[[]]]}]}`},
		{"infinity", "GET", "/db/query?q=SELECT+1e999", answerOf(count, rows([]string{"1e999"}, []string{"real"}, []any{inf})),
			`{"results":[{"columns":["count(*)"],"types":["integer"],"values":[[10]]},{"error":"JSON cannot represent the value +Inf"}]}`},

		{"mixed", "POST", "/db/request", answerOf(write(15, 1, 0), rows(foo[:2], fooTypes[:2], []any{int64(15), "s1"}), write(15, 1, 0)),
			`{"results":[{"last_insert_id":15,"rows_affected":1},{"columns":["id","name"],"types":["integer","text"],"values":[[15,"s1"]]},{"last_insert_id":15,"rows_affected":1}]}`},
		{"mixed, associative", "POST", "/db/request?associative", answerOf(write(16, 1, 0.000038494),
			command.Result{Rows: rows(foo[:2], fooTypes[:2], []any{int64(16), "s3"}).Rows, Time: 0.00001917}, failed("no such column: bad"), prepared, readError),
			`{"results":[{"last_insert_id":16,"rows_affected":1,"time":0.000038494,"rows":null},{"types":{"id":"integer","name":"text"},"rows":[{"id":16,"name":"s3"}],"time":0.00001917},{"error":"no such column: bad"},{"error":"near \"BAD\": syntax error"},{"rows":[],"error":"integer overflow"}]}`},
		{"associative", "POST", "/db/query?associative", answerOf(
			rows(foo, fooTypes, []any{int64(1), "fiona", int64(20)}), count, failed("no such table: nope"), rows(foo, fooTypes)),
			`{"results":[{"types":{"age":"integer","id":"integer","name":"text"},"rows":[{"age":20,"id":1,"name":"fiona"}]},{"types":{"count(*)":"integer"},"rows":[{"count(*)":10}]},{"rows":[],"error":"no such table: nope"},{"types":{"age":"integer","id":"integer","name":"text"},"rows":[]}]}`},
		{"associative, same names", "POST", "/db/query?associative", answerOf(rows([]string{"id", "a", "id"}, []string{"integer", "", "text"}, []any{int64(1), nil, "last"})),
			`{"results":[{"types":{"a":"","id":"text"},"rows":[{"a":null,"id":"last"}]}]}`},
		{"associative, no columns", "POST", "/db/query?associative", answerOf(command.Result{Rows: &command.Rows{}}), `{"results":[{"rows":[]}]}`},
		{"associative create", "POST", "/db/execute?associative", answerOf(write(0, 0, 0)), `{"results":[{"rows":null}]}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture()
			f.db.resp = tt.resp
			r := f.do(t, tt.method, tt.path, `["x"]`)
			check(t, r, http.StatusOK, tt.want)
			if got := r.Header.Get("X-Rqlite-Served-By"); got != "127.0.0.1:14001" {
				t.Errorf("X-Rqlite-Served-By = %q", got)
			}
		})
	}
}

func TestPretty(t *testing.T) {
	f := newFixture()
	f.db.resp = answerOf(write(3, 1, 0.000088882), failed("no such table: bar"), write(3, 0, 0.000055511), write(0, 0, 0))
	const want = `{
    "results": [
        {
            "last_insert_id": 3,
            "rows_affected": 1,
            "time": 0.000088882
        },
        {
            "error": "no such table: bar"
        },
        {
            "last_insert_id": 3,
            "time": 0.000055511
        },
        {}
    ]
}`
	check(t, f.do(t, "POST", "/db/execute?pretty", `["x"]`), http.StatusOK, want)
	f.db.resp = nil
	check(t, f.do(t, "POST", "/db/execute?pretty", `["x"]`), http.StatusOK, "{\n    \"results\": []\n}")
}

// TestTimings checks the one member whose value cannot be known: that it is there, and where.
func TestTimings(t *testing.T) {
	var b []byte
	w := writerFunc(func(p []byte) { b = append(b, p...) })
	e := &encoder{form: form{timings: true, raftIndex: true}, w: w}
	e.finish(&command.Response{Results: []command.Result{write(3, 1, 0.000047571)}, Index: 322}, "", 481913*time.Nanosecond)
	want := `{"results":[{"last_insert_id":3,"rows_affected":1,"time":0.000047571}],"time":0.000481913,"raft_index":322}`
	if string(b) != want {
		t.Errorf("envelope = %s; want %s", b, want)
	}
}

// TestErrorMatrix holds what becomes of the errors of the database.
func TestErrorMatrix(t *testing.T) {
	tests := []struct {
		name string
		path string
		err  error
		code int
		want string
	}{
		{"not open", "/db/execute", store.ErrNotOpen, 200, `{"results":[],"error":"store not open"}`},
		{"not ready", "/db/query", store.ErrNotReady, 200, `{"results":[],"error":"store not ready"}`},
		{"no leader", "/db/execute", store.ErrNoLeader, 503, "leader not found\n"},
		{"not leader", "/db/request", store.ErrNotLeader, 503, "leader not found\n"},
		{"no leader, redirect", "/db/execute?redirect", store.ErrNoLeader, 500, "leader not found\n"},
		{"unauthorized execute", "/db/execute", store.ErrUnauthorized, 401, "remote Execute not authorized\n"},
		{"unauthorized query", "/db/query", store.ErrUnauthorized, 401, "remote query not authorized\n"},
		{"unauthorized request", "/db/request", store.ErrUnauthorized, 401, "remote Request not authorized\n"},
		{"leadership lost", "/db/execute", store.ErrLeadershipLost, 200, `{"results":[],"error":"leadership lost while committing log"}`},
		{"stale", "/db/query?level=none", store.ErrStaleRead, 200, `{"results":[],"error":"stale read"}`},
		{"state machine behind", "/db/query", &store.FSMTimeoutError{Index: 340}, 200, `{"results":[],"error":"index 340: timeout waiting for fsm"}`},
		{"refused", "/db/execute", &store.RequestError{Msg: "disallowed pragma"}, 200, `{"results":[],"error":"disallowed pragma"}`},
		{"network", "/db/execute", errors.New("read tcp 127.0.0.1:49792->127.0.0.1:14112: i/o timeout"), 200,
			`{"results":[],"error":"read tcp 127.0.0.1:49792-\u003e127.0.0.1:14112: i/o timeout"}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture()
			f.db.err = tt.err
			r := f.do(t, "POST", tt.path, `["x"]`)
			check(t, r, tt.code, tt.want)
			if by, ok := r.Header["X-Rqlite-Served-By"]; ok {
				t.Errorf("X-Rqlite-Served-By = %q; want none", by)
			}
		})
	}
}

func TestRedirect(t *testing.T) {
	f := newFixture()
	f.db.err = store.ErrNotLeader
	f.peers.api = "http://127.0.0.1:14101"
	r := f.do(t, "POST", "/db/execute?redirect&timings", `["nonsense"]`)
	check(t, r, http.StatusMovedPermanently, "")
	if got, want := r.Header.Get("Location"), "http://127.0.0.1:14101/db/execute?redirect&timings"; got != want {
		t.Errorf("Location = %q; want %q", got, want)
	}
	if got := r.Header.Get("Content-Type"); got != jsonType {
		t.Errorf("Content-Type = %q; want %q", got, jsonType)
	}
	if !f.db.asked[0].Forward.Never {
		t.Error("the request may be forwarded")
	}
}

// TestRequest compares what the database is asked with what the client asked.
func TestRequest(t *testing.T) {
	stmts := []command.Statement{{SQL: "x"}}
	fwd := command.Forward{Timeout: 30 * time.Second}
	tests := []struct {
		name         string
		method, path string
		body, ctype  string
		want         command.Request
	}{
		{"plain query", "POST", "/db/query", `["x"]`, "", command.Request{
			Kind: command.Query, Statements: stmts, Level: command.Weak, LinearizableTimeout: 10 * time.Second, Forward: fwd}},
		{"all of a query", "POST",
			"/db/query?level=NONE&freshness=1s&freshness_strict&timings&transaction&qualify_columns&db_timeout=5ms&linearizable_timeout=2s&timeout=3s&retries=4&redirect",
			`["x"]`, "", command.Request{
				Kind: command.Query, Statements: stmts, Transaction: true, QualifyColumns: true, Timings: true,
				Level: command.None, Freshness: time.Second, FreshnessStrict: true, LinearizableTimeout: 2 * time.Second,
				DBTimeout: 5 * time.Millisecond, Forward: command.Forward{Timeout: 3 * time.Second, Retries: 4, Never: true}}},
		{"auto of a query", "POST", "/db/query?level=auto&freshness=1s", `["x"]`, "", command.Request{
			Kind: command.Query, Statements: stmts, Level: command.Auto, Freshness: time.Second, LinearizableTimeout: 10 * time.Second, Forward: fwd}},
		{"auto of both", "POST", "/db/request?level=auto&freshness=1s&freshness_strict", `["x"]`, "", command.Request{
			Kind: command.Unified, Statements: stmts, Level: command.Auto, Freshness: time.Second, FreshnessStrict: true, Forward: fwd}},
		{"get", "GET", "/db/query?q=SELECT+1&q=SELECT+2", "", "", command.Request{
			Kind: command.Query, Statements: []command.Statement{{SQL: "SELECT 1"}}, Level: command.Weak, LinearizableTimeout: 10 * time.Second, Forward: fwd}},
		{"raw query", "POST", "/db/query", "SELECT 1; SELECT 2", "text/plain; charset=utf-8", command.Request{
			Kind: command.Query, Statements: []command.Statement{{SQL: "SELECT 1; SELECT 2"}}, Level: command.Weak, LinearizableTimeout: 10 * time.Second, Forward: fwd}},
		{"execute", "POST", "/db/execute?transaction&level=strong&freshness=1s&qualify_columns&timeout=0s&db_timeout=-1s&retries=-1", `["x"]`, "", command.Request{
			Kind: command.Execute, Statements: stmts, Transaction: true, Forward: fwd}},
		{"raw execute", "POST", "/db/execute", "x", "text/plain", command.Request{Kind: command.Execute, Statements: stmts, Forward: fwd}},
		{"unified", "POST", "/db/request?level=linearizable&linearizable_timeout=5s", `["x"]`, "", command.Request{
			Kind: command.Unified, Statements: stmts, Level: command.Linearizable, Forward: fwd}},
		{"other types are JSON", "POST", "/db/execute", `["x"]`, "application/xml", command.Request{Kind: command.Execute, Statements: stmts, Forward: fwd}},
		{"longer path", "POST", "/db/executeXYZ", `["x"]`, "", command.Request{Kind: command.Execute, Statements: stmts, Forward: fwd}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture()
			f.do(t, tt.method, tt.path, tt.body, "Content-Type: "+tt.ctype)
			for _, req := range f.db.asked {
				if _, streams := req.Sink.(*encoder); streams == (req.Kind == command.Execute) {
					t.Errorf("sink of %s = %T", req.Kind, req.Sink)
				}
				req.Sink = nil
			}
			if len(f.db.asked) != 1 || !reflect.DeepEqual(*f.db.asked[0], tt.want) {
				t.Errorf("asked %+v; want %+v", f.db.asked, tt.want)
			}
		})
	}
}

// TestRefused holds requests that must not reach the database.
func TestRefused(t *testing.T) {
	const notText = `{"results":[],"error":"string field contains invalid UTF-8"}`
	tests := []struct {
		name         string
		method, path string
		body, ctype  string
		code         int
		want         string
	}{
		{"empty", "POST", "/db/execute", "", "", 400, "invalid JSON body\n"},
		{"raw request", "POST", "/db/request", "SELECT 1", "text/plain", 400, "invalid JSON body\n"},
		{"raw in capitals", "POST", "/db/query", "SELECT 1", "Text/Plain", 400, "invalid JSON body\n"},
		{"no text execute", "POST", "/db/execute", "SELECT '\xff'", "text/plain", 200, notText},
		{"no text strong", "POST", "/db/query?level=strong", "SELECT '\xff'", "text/plain", 200, notText},
		{"get execute", "GET", "/db/execute", "", "", 405, ""},
		{"get request", "GET", "/db/request", "", "", 405, ""},
		{"put query", "PUT", "/db/query", "", "", 405, ""},
		{"head query", "HEAD", "/db/query?q=x", "", "", 405, ""},
		{"bad parameter", "POST", "/db/execute?timeout=5", `["x"]`, "", 400, "timeout is not a valid duration\n"},
		{"too large", "POST", "/db/execute", `["` + string(make([]byte, 100)) + `"]`, "", 413, "request body is larger than 64 bytes\n"},
		{"too many", "POST", "/db/execute", `["a","b","c","d"]`, "", 413, "request has more than 3 statements\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture()
			f.cfg.Limits.Body, f.cfg.Limits.Statements = 64, 3
			check(t, f.do(t, tt.method, tt.path, tt.body, "Content-Type: "+tt.ctype), tt.code, tt.want)
			if len(f.db.asked) != 0 {
				t.Errorf("the database was asked %+v", f.db.asked)
			}
		})
	}
}

// TestServedBy checks that the address of a leader that was forwarded to is passed on.
func TestServedBy(t *testing.T) {
	f := newFixture()
	f.db.resp = &command.Response{ServedBy: "127.0.0.1:14112"}
	r := f.do(t, "POST", "/db/execute", `["x"]`, "Authorization: Basic Ym9iOnNlY3JldDE=")
	if got := r.Header.Get("X-Rqlite-Served-By"); got != "127.0.0.1:14112" {
		t.Errorf("X-Rqlite-Served-By = %q", got)
	}
	if fwd := f.db.asked[0].Forward; fwd.Username != "bob" || fwd.Password != "secret1" {
		t.Errorf("credentials = %q, %q; want bob, secret1", fwd.Username, fwd.Password)
	}
}
