package cluster

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"io"
	"math"
	"os"
	"reflect"
	"testing"

	"rqlited/command"
	"rqlited/store"
)

// goldenCall is what was said between two nodes of rqlite: a request and the frame that answered
// it. Ours is the answer of this package where it is meant to be another than that of release 10.
type goldenCall struct {
	Name                       string
	Request, Answer, Old, Ours string // hexadecimal; Old is of release 8.22.1 where it differs
}

func goldenCalls(t testing.TB) []goldenCall { return readCalls(t, "testdata/calls.json") }

// goldenOfOurs is what rqlite does not say: calls and fields of ours.
func goldenOfOurs(t testing.TB) []goldenCall { return readCalls(t, "testdata/ours.json") }

func readCalls(t testing.TB, name string) []goldenCall {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var calls []goldenCall
	if err := json.Unmarshal(data, &calls); err != nil {
		t.Fatal(err)
	}
	return calls
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var (
	rowsOfRPC = &command.Rows{
		Columns: []string{"a", "b"},
		Types:   []string{"integer", "text"},
		Values:  [][]any{{int64(1), "x"}, {int64(2), "y"}},
	}
	countOfRPC = &command.Rows{
		Columns: []string{"COUNT(*)"},
		Types:   []string{"integer"},
		Values:  [][]any{{int64(2)}},
	}
	inserted = &command.Write{LastInsertID: 1, RowsAffected: 1}
)

// goldenResponses are the responses that stand in the answers.
var goldenResponses = map[string]*command.Response{
	"execute": {Index: 3, Results: []command.Result{{Write: &command.Write{}}, {Write: inserted}}},
	"execute with timings": {Index: 4, Results: []command.Result{
		{Write: &command.Write{LastInsertID: 2, RowsAffected: 1}, Time: math.Float64frombits(0x3f0ddb074d264e73)},
	}},
	"execute error":         {Index: 5, Results: []command.Result{{Error: "no such table: nosuch"}}},
	"query none":            {Results: []command.Result{{Rows: rowsOfRPC}}},
	"query weak":            {Results: []command.Result{{Rows: rowsOfRPC}}},
	"query strong":          {Index: 6, Results: []command.Result{{Rows: countOfRPC}}},
	"query auto(3)":         {Results: []command.Result{{Rows: countOfRPC}}},
	"query linearizable(4)": {Results: []command.Result{{Rows: countOfRPC}}},
	"request (execute-query)": {Index: 7, Writes: 1, Results: []command.Result{
		{Rows: countOfRPC}, {Write: &command.Write{LastInsertID: 3, RowsAffected: 1}},
	}},
}

// TestGoldenAnswers sends recorded requests and expects the recorded answers.
func TestGoldenAnswers(t *testing.T) {
	for _, g := range goldenCalls(t) {
		if g.Answer == "" && g.Ours == "" {
			continue // a backup, which TestBackupRefused is about
		}
		t.Run(g.Name, func(t *testing.T) {
			node := &fakeNode{
				commit: 2,
				do: func(context.Context, *command.Request) (*command.Response, error) {
					return goldenResponses[g.Name], nil
				},
				join:     func(store.Server) error { return nil },
				notify:   func(store.Server) error { return nil },
				remove:   func(string) error { return nil },
				stepdown: func(string, bool) error { return store.ErrNodeNotFound },
			}
			addr, _ := startService(t, node, ServiceConfig{URL: "http://127.0.0.1:15511", Version: "10"})
			want := g.Answer
			if g.Ours != "" {
				want = g.Ours
			}
			if got := hex.EncodeToString(say(t, addr, unhex(t, g.Request))); got != want {
				t.Errorf("answer\n got %s\nwant %s", got, want)
			}
		})
	}
}

// say sends one frame and returns the one that answers it.
func say(t testing.TB, addr string, frame []byte) []byte {
	t.Helper()
	conn := dialRaw(t, addr)
	if _, err := conn.Write(append([]byte{byteCalls}, frame...)); err != nil {
		t.Fatal(err)
	}
	answer := beginFrame(nil)
	size, err := readLength(conn, maxFrame)
	if err != nil {
		t.Fatal(err)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(conn, body); err != nil {
		t.Fatal(err)
	}
	return endFrame(append(answer, body...))
}

// TestGoldenRequests makes the calls that were recorded and expects the same bytes, and reads the
// answers of both releases.
func TestGoldenRequests(t *testing.T) {
	statement := func(level command.Level, kind command.Kind, sql ...string) *command.Request {
		r := &command.Request{Kind: kind, Level: level}
		for _, s := range sql {
			r.Statements = append(r.Statements, command.Statement{SQL: s})
		}
		return r
	}
	const insert = "INSERT INTO rpc(b) VALUES('x')"
	timed := statement(0, command.Execute, "INSERT INTO rpc(b) VALUES('y')")
	timed.Timings, timed.Transaction = true, true
	requests := map[string]*command.Request{
		"execute":                 statement(0, command.Execute, "CREATE TABLE IF NOT EXISTS rpc(a INTEGER PRIMARY KEY, b TEXT)", insert),
		"execute with timings":    timed,
		"execute error":           statement(0, command.Execute, "INSERT INTO nosuch VALUES(1)"),
		"query none":              statement(command.None, command.Query, "SELECT * FROM rpc"),
		"query weak":              statement(command.Weak, command.Query, "SELECT * FROM rpc"),
		"query strong":            statement(command.Strong, command.Query, "SELECT COUNT(*) FROM rpc"),
		"query auto(3)":           statement(command.Auto, command.Query, "SELECT COUNT(*) FROM rpc"),
		"query linearizable(4)":   statement(command.Linearizable, command.Query, "SELECT COUNT(*) FROM rpc"),
		"request (execute-query)": statement(0, command.Unified, "SELECT COUNT(*) FROM rpc", "INSERT INTO rpc(b) VALUES('z')"),
	}
	golden := map[string]goldenCall{}
	for _, g := range goldenCalls(t) {
		golden[g.Name] = g
	}
	for name, req := range requests {
		for release, answer := range map[string]string{"8": golden[name].Old, "10": golden[name].Answer} {
			if answer == "" {
				continue
			}
			t.Run(name+" "+release, func(t *testing.T) {
				addr := scripted(t, unhex(t, golden[name].Request), unhex(t, answer))
				got, err := newTestClient(t, ClientConfig{}).Do(withTimeout(t), addr, req)
				if err != nil {
					t.Fatal(err)
				}
				want := *goldenResponses[name]
				if release == "8" {
					want.Index, want.Writes = 0, 0 // not told
					for i := range got.Results {   // times differ from run to run
						got.Results[i].Time = want.Results[i].Time
					}
				}
				if !reflect.DeepEqual(got, &want) {
					t.Errorf("Do() = %+v; want %+v", got, &want)
				}
			})
		}
	}
}

// TestGoldenMemberCalls does the same for the calls that yield no data.
func TestGoldenMemberCalls(t *testing.T) {
	ctx := withTimeout(t)
	user := Credentials{}
	calls := map[string]func(c *Client, addr string) error{
		"node meta": func(c *Client, addr string) error {
			m, err := c.Meta(ctx, addr, 0)
			if want := (Meta{"http://127.0.0.1:15511", 2, "10", false}); err == nil && m != want {
				t.Errorf("Meta() = %+v; want %+v", m, want)
			}
			return err
		},
		"notify": func(c *Client, addr string) error {
			return c.Notify(ctx, addr, store.Server{ID: "nX", Addr: "127.0.0.1:15999"}, user)
		},
		"join same id+addr": func(c *Client, addr string) error {
			_, err := c.Join(ctx, addr, store.Server{ID: "n1", Addr: "127.0.0.1:15512", Voter: true}, user)
			return err
		},
		"remove node unknown": func(c *Client, addr string) error {
			return c.Remove(ctx, addr, "nobody", user, 0)
		},
		"stepdown unknown node": func(c *Client, addr string) error {
			if err := c.Stepdown(ctx, addr, "nobody", true, user, 0); err != store.ErrNodeNotFound {
				t.Errorf("Stepdown() = %v; want %v", err, store.ErrNodeNotFound)
			}
			return nil
		},
	}
	for _, g := range goldenCalls(t) {
		if call := calls[g.Name]; call != nil {
			delete(calls, g.Name)
			t.Run(g.Name, func(t *testing.T) {
				addr := scripted(t, unhex(t, g.Request), unhex(t, g.Answer))
				if err := call(newTestClient(t, ClientConfig{}), addr); err != nil {
					t.Error(err)
				}
			})
		}
	}
	if len(calls) > 0 {
		t.Errorf("%d calls are not recorded", len(calls))
	}
}

// scripted listens as a peer that expects one request and gives one answer.
func scripted(t testing.TB, request, answer []byte) string {
	t.Helper()
	m := startMux(t, Config{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := m.Calls().Accept()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		got := make([]byte, len(request))
		if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, request) {
			t.Errorf("request\n got %x, %v\nwant %x", got, err, request)
			return
		}
		if _, err := conn.Write(answer); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() { <-done })
	return m.Addr()
}
