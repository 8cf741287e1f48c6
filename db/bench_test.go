package db

import (
	"testing"

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

func benchmarkQuery(b *testing.B, sql string) {
	d := openNew(b)
	exec(b, d, "CREATE TABLE t (id INTEGER PRIMARY KEY, n TEXT, v REAL)",
		"WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c WHERE x<10000) INSERT INTO t(n, v) SELECT 'text ' || x, x/3.0 FROM c")
	req := &command.Request{Kind: command.Query, Statements: statements(sql)}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := d.Query(b.Context(), req); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkQueryOne(b *testing.B)  { benchmarkQuery(b, "SELECT * FROM t WHERE id=5000") }
func BenchmarkQueryMany(b *testing.B) { benchmarkQuery(b, "SELECT * FROM t") }

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
