package db

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"testing"
	"time"

	"rqlited/command"
)

func BenchmarkApplyInsert(b *testing.B) {
	d := openNew(b)
	exec(b, d, "CREATE TABLE t (id INTEGER PRIMARY KEY, n TEXT, v REAL)")
	e := &command.Entry{Kind: command.Execute, Seed: 1, Request: &command.Request{Kind: command.Execute, Statements: []command.Statement{{
		SQL: "INSERT INTO t(n, v) VALUES(?, ?)", Params: []command.Param{{Value: "some text"}, {Value: 1.5}}}}}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.Apply(e); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkApplyBatch(b *testing.B) {
	d := openNew(b)
	exec(b, d, "CREATE TABLE t (id INTEGER PRIMARY KEY, n TEXT, v REAL)")
	st := command.Statement{SQL: "INSERT INTO t(n, v) VALUES(?, ?)", Params: []command.Param{{Value: "some text"}, {Value: 1.5}}}
	req := &command.Request{Kind: command.Execute, Transaction: true}
	for range 100 {
		req.Statements = append(req.Statements, st)
	}
	e := &command.Entry{Kind: command.Execute, Seed: 1, Request: req}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.Apply(e); err != nil {
			b.Fatal(err)
		}
	}
}

// noSink takes results and drops them.
type noSink struct{}

func (noSink) Begin(string) bool                { return true }
func (noSink) Take(*command.Result, bool) error { return nil }

func benchmarkQuery(b *testing.B, sql string, sink command.Sink) {
	d := openNew(b)
	exec(b, d, "CREATE TABLE t (id INTEGER PRIMARY KEY, n TEXT, v REAL)",
		"WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c WHERE x<10000) INSERT INTO t(n, v) SELECT 'text ' || x, x/3.0 FROM c")
	req := &command.Request{Kind: command.Query, Statements: statements(sql), Sink: sink}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := d.Query(b.Context(), req); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkQueryOne(b *testing.B)  { benchmarkQuery(b, "SELECT * FROM t WHERE id=5000", nil) }
func BenchmarkQueryMany(b *testing.B) { benchmarkQuery(b, "SELECT * FROM t", nil) }
func BenchmarkQueryOneToSink(b *testing.B) {
	benchmarkQuery(b, "SELECT * FROM t WHERE id=5000", noSink{})
}
func BenchmarkQueryManyToSink(b *testing.B) { benchmarkQuery(b, "SELECT * FROM t", noSink{}) }

func BenchmarkPrepareUnified(b *testing.B) {
	d := openNew(b)
	exec(b, d, setup)
	req := &command.Request{Kind: command.Unified, Statements: statements("SELECT * FROM t WHERE id=?")}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.Prepare(req); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCapture captures and publishes 4 MiB of change in databases of two sizes: the time, the
// longest pause of the writer and the memory are to be the same. "pause" is the longest time that a
// write had to wait for, "publish" that of Published, which nobody waits for.
func BenchmarkCapture(b *testing.B) {
	for _, mib := range []int{64, 1024} {
		b.Run(fmt.Sprintf("%dMiB", mib), func(b *testing.B) { benchmarkCapture(b, mib) })
	}
}

func benchmarkCapture(b *testing.B, mib int) {
	d := openNew(b)
	exec(b, d, "CREATE TABLE t (id INTEGER PRIMARY KEY, v BLOB)")
	const rows = 1024 // of 1 KiB in each MiB
	for i := range mib {
		exec(b, d, fmt.Sprintf("WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<%d) INSERT INTO t SELECT %d*%d+i, randomblob(900) FROM c", rows, i, rows))
	}
	head := ""
	publish := func() (capture, published time.Duration, memory uint64) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		start := time.Now()
		c, err := d.Capture(head)
		capture = time.Since(start)
		if err != nil {
			b.Fatal(err)
		}
		buf := make([]byte, c.PageSize())
		for err == nil {
			_, err = c.Next(buf)
		}
		if !errors.Is(err, io.EOF) {
			b.Fatal(err)
		}
		head = fmt.Sprintf("1-%d", time.Now().UnixNano())
		start = time.Now()
		if err := c.Published(head); err != nil {
			b.Fatal(err)
		}
		published = time.Since(start)
		c.Release()
		runtime.ReadMemStats(&after)
		return capture, published, after.TotalAlloc - before.TotalAlloc
	}
	publish()
	var pause, longest time.Duration
	var memory uint64
	round := 0
	for b.Loop() {
		b.StopTimer()
		round++
		for i := range 1000 { // each another page
			exec(b, d, fmt.Sprintf("UPDATE t SET v=randomblob(900) WHERE id=%d", (i*7919+round*13)%(mib*rows)+1))
		}
		b.StartTimer()
		capture, published, allocated := publish()
		pause, longest, memory = max(pause, capture), max(longest, published), max(memory, allocated)
	}
	b.ReportMetric(float64(pause.Microseconds())/1000, "ms/pause")
	b.ReportMetric(float64(longest.Microseconds())/1000, "ms/publish")
	b.ReportMetric(float64(memory)/1024, "KiB")
}
