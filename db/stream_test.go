package db

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rqlited/command"
)

// collector puts results together again that come in parts.
type collector struct {
	results []command.Result
	parts   int
	open    bool
	before  func() error // called for each part
}

func (c *collector) Begin(string) bool { return true }

func (c *collector) Take(r *command.Result, more bool) error {
	c.parts++
	if c.before != nil {
		if err := c.before(); err != nil {
			return err
		}
	}
	if !c.open {
		c.results = append(c.results, command.Result{})
	}
	last := &c.results[len(c.results)-1]
	if r.Rows != nil {
		if last.Rows == nil {
			last.Rows = &command.Rows{}
		}
		if !c.open {
			last.Rows.Columns, last.Rows.Types = r.Rows.Columns, r.Rows.Types
		} else if r.Rows.Columns != nil || r.Rows.Types != nil {
			return errors.New("columns in a later part")
		}
		for _, row := range r.Rows.Values {
			last.Rows.Values = append(last.Rows.Values, append([]any{}, row...))
		}
	}
	last.Error, last.Time = r.Error, r.Time
	c.open = more
	return nil
}

const series = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c LIMIT %d) "

func manyRows(n int, columns string) string {
	return fmt.Sprintf(series, n) + "SELECT " + columns + " FROM c"
}

// TestSinkGetsTheSame compares what a sink is given with what Query returns.
func TestSinkGetsTheSame(t *testing.T) {
	d := openNew(t)
	exec(t, d, "CREATE TABLE k (i INTEGER, bo BOOLEAN, n, b BLOB, t TEXT)",
		"INSERT INTO k "+manyRows(3000, "x, x%2, CASE x%5 WHEN 0 THEN NULL WHEN 1 THEN x WHEN 2 THEN x/2.0 WHEN 3 THEN 'text' ELSE x'00ff' END, zeroblob(x%7), 'x'||x"))
	queries := []string{
		"SELECT * FROM k", "SELECT n FROM k ORDER BY typeof(n), i", "SELECT n FROM k ORDER BY typeof(n) DESC, i",
		"SELECT * FROM k WHERE 0", "", " -- nothing", "SELECT nope", "DELETE FROM k", "SELECT 1; SELECT 2",
		manyRows(batchRows, "x"), manyRows(batchRows+1, "x"), manyRows(3*batchRows, "x, 'abc'"),
		manyRows(100, "printf('%.*c', 30000, 'y')"), "PRAGMA integrity_check", "EXPLAIN SELECT * FROM k",
	}
	for _, transaction := range []bool{false, true} {
		for _, qualify := range []bool{false, true} {
			req := command.Request{Kind: command.Query, Transaction: transaction, QualifyColumns: qualify, Statements: statements(queries...)}
			want, err := d.Query(t.Context(), &req)
			if err != nil {
				t.Fatal(err)
			}
			got := &collector{}
			req.Sink = got
			resp, err := d.Query(t.Context(), &req)
			if err != nil || len(resp.Results) != 0 || got.open {
				t.Fatalf("Query = %d results, %v", len(resp.Results), err)
			}
			if len(got.results) != len(want.Results) || got.parts < 20 {
				t.Fatalf("%d results in %d parts; want %d", len(got.results), got.parts, len(want.Results))
			}
			for i := range want.Results {
				if !reflect.DeepEqual(got.results[i], want.Results[i]) {
					t.Errorf("result %d is %.300v; want %.300v", i, show(got.results[i]), show(want.Results[i]))
				}
			}
		}
	}
}

// TestLateError fails statements that have yielded rows: with a sink these are there.
func TestLateError(t *testing.T) {
	d := openNew(t)
	sql := manyRows(3*batchRows, fmt.Sprintf("CASE WHEN x=%d THEN abs(-9223372036854775807-1) ELSE x END", 2*batchRows+7))
	req := command.Request{Kind: command.Query, Statements: statements(sql, "SELECT 1")}
	resp, err := d.Query(t.Context(), &req)
	if err != nil || show(resp.Results...) != "read error integer overflow; [[1]]" {
		t.Errorf("Query = %.100s, %v", show(resp.Results...), err)
	}
	got := &collector{}
	req.Sink = got
	if _, err := d.Query(t.Context(), &req); err != nil {
		t.Fatal(err)
	}
	if n := len(got.results[0].Rows.Values); n != 2*batchRows || got.results[0].Error != "integer overflow" || show(got.results[1]) != "[[1]]" {
		t.Errorf("%d rows, then %q, then %s", n, got.results[0].Error, show(got.results[1]))
	}
}

// TestSinkEnds ends requests between two parts: nothing is left running.
func TestSinkEnds(t *testing.T) {
	d := openNew(t)
	enough := errors.New("enough")
	endlessRows := manyRows(-1, "x")
	for _, transaction := range []bool{false, true} {
		ctx, cancel := context.WithCancel(t.Context())
		for _, tt := range []struct {
			name   string
			before func() error
			want   error
		}{
			{"sink", func() error { return enough }, enough},
			{"context", func() error { cancel(); return nil }, context.Canceled},
		} {
			n := 0
			sink := &collector{before: func() error {
				if n++; n < 5 {
					return nil
				}
				return tt.before()
			}}
			_, err := d.Query(ctx, &command.Request{Kind: command.Query, Transaction: transaction, Sink: sink, Statements: statements("SELECT 1", endlessRows, "SELECT 2")})
			if !errors.Is(err, tt.want) || len(sink.results) != 2 {
				t.Errorf("%s: Query = %v with %d results; want %v", tt.name, err, len(sink.results), tt.want)
			}
			if s := d.readers.stats(); s.InUse != 0 || s.Open != 1 {
				t.Errorf("%s: connections: %+v", tt.name, s)
			}
		}
	}
	exec(t, d, setup, "INSERT INTO t(n) VALUES('a')")
	c, err := d.Capture("")
	if err != nil {
		t.Fatalf("Capture = %v: a read goes on", err)
	}
	c.Release()
}

// TestSlowSink keeps a read waiting. Within its pace it may take any time; a sink that is slower is cut, as is
// the read.
func TestSlowSink(t *testing.T) {
	d := openNew(t)
	for _, tt := range []struct {
		name string
		wait time.Duration // for about 64 KiB
		want error
	}{
		{"steady", 240 * time.Millisecond, nil},
		{"slow", 300 * time.Millisecond, errSlow},
		{"silent", time.Minute, errSlow},
	} {
		synctest.Test(t, func(t *testing.T) {
			sink := &collector{before: func() error { time.Sleep(tt.wait); return nil }}
			start := time.Now()
			_, err := d.Query(t.Context(), &command.Request{Kind: command.Query, Sink: sink, Timings: true, DBTimeout: time.Minute,
				Statements: statements(manyRows(1200*8, "printf('%.*c', 8200, 'y')"))})
			took := time.Since(start)
			if !errors.Is(err, tt.want) {
				t.Errorf("%s: Query = %v after %s and %d parts; want %v", tt.name, err, took, sink.parts, tt.want)
			}
			if tt.want != nil && took > 5*time.Minute || tt.want == nil && took < 4*time.Minute {
				t.Errorf("%s: the query held its state for %s", tt.name, took)
			}
			if r := sink.results[0]; tt.want == nil && (r.Error != "" || r.Time > 60) {
				t.Errorf("%s: %q, time is %v: the sink's counts", tt.name, r.Error, r.Time)
			}
		})
	}
}

// TestSlowTransaction has a transaction wait between its statements, whose results are small.
func TestSlowTransaction(t *testing.T) {
	d := openNew(t)
	synctest.Test(t, func(t *testing.T) {
		sink := &collector{before: func() error { time.Sleep(time.Second); return nil }}
		sql := make([]string, 100)
		for i := range sql {
			sql[i] = "SELECT 1"
		}
		_, err := d.Query(t.Context(), &command.Request{Kind: command.Query, Transaction: true, Sink: sink, Statements: statements(sql...)})
		if !errors.Is(err, errSlow) || len(sink.results) != 31 {
			t.Errorf("Query = %v after %d results; want %v after 31", err, len(sink.results), errSlow)
		}
	})
}

// TestTimeoutAmidRows ends a statement by its timeout after some of its rows.
func TestTimeoutAmidRows(t *testing.T) {
	d := openNew(t)
	for _, transaction := range []bool{false, true} {
		sink := &collector{}
		req := command.Request{Kind: command.Query, Transaction: transaction, Sink: sink, DBTimeout: 50 * time.Millisecond,
			Statements: statements(manyRows(-1, "x"), "SELECT 1")}
		_, err := d.Query(t.Context(), &req)
		if transaction {
			if !errors.Is(err, errTransactionTimeout) || len(sink.results) != 1 {
				t.Errorf("Query = %v, %d results", err, len(sink.results))
			}
			continue
		}
		if err != nil || len(sink.results) != 2 {
			t.Fatalf("Query = %v, %d results", err, len(sink.results))
		}
		if r := sink.results[0]; r.Error != msgQueryTimeout || len(r.Rows.Values) == 0 {
			t.Errorf("%d rows, then %q", len(r.Rows.Values), r.Error)
		}
		if got := show(sink.results[1]); got != "read error query timeout" {
			t.Errorf("the statement behind it: %s", got)
		}
	}
}

// TestWholeResultIsBounded reads more than may be kept: one statement, or all of a request.
func TestWholeResultIsBounded(t *testing.T) {
	d := open(t, testPath(t), Config{bounds: bounds{result: 1 << 20}})
	large := manyRows(10, "printf('%.*c', 50000, 'y')")
	resp := query(t, d, large, large, large, "SELECT 1")
	var errs []string
	for _, r := range resp.Results {
		errs = append(errs, r.Error)
	}
	if got := strings.Join(errs, ";"); got != ";;result is larger than 1 MiB;result is larger than 1 MiB" {
		t.Errorf("errors are %q", got)
	}
	resp = query(t, d, manyRows(100000, "x"), "SELECT 1")
	if got := resp.Results[0].Error; got != "result is larger than 1 MiB" {
		t.Errorf("error is %q", got)
	}
	if got := value(t, d, "SELECT 3"); got != int64(3) {
		t.Errorf("the next request reads %v", got)
	}
	sink := &collector{}
	if _, err := d.Query(t.Context(), &command.Request{Kind: command.Query, Sink: sink, Statements: statements(manyRows(100000, "x"))}); err != nil || len(sink.results[0].Rows.Values) != 100000 {
		t.Errorf("Query with a sink = %v, %d rows", err, len(sink.results[0].Rows.Values))
	}
}

// countSink keeps nothing, and notes how large the heap grows.
type countSink struct {
	rows, parts int
	most        uint64
}

func (c *countSink) Begin(string) bool { return true }

func (c *countSink) Take(r *command.Result, _ bool) error {
	c.rows += len(r.Rows.Values)
	if c.parts++; c.parts%64 == 0 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		c.most = max(c.most, m.HeapAlloc)
	}
	return nil
}

// TestSinkMemory reads 100 MiB of rows. Memory does not grow with them.
func TestSinkMemory(t *testing.T) {
	d := openNew(t)
	runtime.GC()
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	sink := &countSink{}
	if _, err := d.Query(t.Context(), &command.Request{Kind: command.Query, Sink: sink, Statements: statements(manyRows(100_000, "printf('%.*c', 1000, 'y')"))}); err != nil {
		t.Fatal(err)
	}
	if grown := int64(sink.most) - int64(before.HeapAlloc); sink.rows != 100_000 || grown > 16<<20 {
		t.Errorf("%d rows took %d KiB of memory", sink.rows, grown>>10)
	}
}
