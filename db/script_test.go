package db

import (
	"fmt"
	"strings"
	"testing"

	"rqlited/command"
)

// TestLongText has texts that are ended for SQLite before it gets them, and some that end otherwise.
func TestLongText(t *testing.T) {
	long := "/*" + strings.Repeat("x", cachedBytes) + "*/"
	tests := []struct{ sql, want string }{
		{long + "SELECT 1", "[[1]]"},
		{long + "SELECT 1;", "[[1]]"},
		{long + "SELECT 1; \n", "[[1]]"},
		{long + "SELECT 1; -- no more", "null"},
		{long + "SELECT 1; SELECT 2", "[[2]]"},
		{"SELECT 1; SELECT 2" + long, "[[2]]"},
		{long + "SELECT 1\x00, 2", "null"}, // as if a comment followed
		{long + "SELECT 1\x00", "[[1]]"},
		{long, "null"},
		{long + "SELECT 1, 'a", `read error unrecognized token: "'a"`},
		{long + "SELECT ?", "read error not enough args to execute query: want 1 got 0"},
	}
	d := openNew(t)
	for _, tt := range tests {
		short := strings.ReplaceAll(tt.sql, long, "/**/")
		for _, sql := range []string{tt.sql, short} {
			if got := show(query(t, d, sql).Results...); got != tt.want {
				t.Errorf("%q: %s; want %s", short, got, tt.want)
			}
		}
	}
	resp := request(t, d, command.Request{Kind: command.Execute, Statements: []command.Statement{
		{SQL: "CREATE TABLE t (id INTEGER PRIMARY KEY, v)"},
		{SQL: long + "INSERT INTO t(v) VALUES(?); INSERT INTO t(v) VALUES(?)", Params: []command.Param{{Value: "a"}, {Value: "b"}}},
		{SQL: long + "INSERT INTO t(v) VALUES('c') RETURNING id", Returning: true},
	}})
	if got := show(resp.Results...); got != "0/0; 2/1; [[3]]" {
		t.Errorf("results are %s", got)
	}
}

// BenchmarkScript runs scripts of ever more statements: the time for each of them stays the same.
func BenchmarkScript(b *testing.B) {
	for _, n := range []int{1000, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			script := "BEGIN; CREATE TABLE t (v);" + strings.Repeat("INSERT INTO \"t\" VALUES('some text that is a little longer');\n", n) + "COMMIT;"
			req, err := command.ScriptRequest(script)
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				d := openNew(b)
				if resp := request(b, d, *req); resp.Results[0].Error != "" {
					b.Fatal(resp.Results[0].Error)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/statement")
		})
	}
}
