package db

import (
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"sync"
	"testing"
	"time"

	"rqlited/command"
)

const endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT count(*) FROM c"

func TestQuery(t *testing.T) {
	d := openNew(t)
	exec(t, d, setup, "INSERT INTO t(n) VALUES('a'),('b')")
	tests := []struct{ sql, want string }{
		{"SELECT n FROM t", `[["a"],["b"]]`},
		{"SELECT n FROM t WHERE id=9", "null"},
		{"SELECT 1; SELECT 2", "[[2]]"},
		{"SELECT 1; -- nothing", "null"},
		{"SELECT 1; -- nothing", "null"}, // a second time it might come from the cache
		{"SELECT 1 -- nothing", "[[1]]"},
		{"", ""},
		{" ; -- nothing", "null"},
		{"SELECT nope", "read error no such column: nope"},
		{"EXPLAIN QUERY PLAN DELETE FROM t WHERE n='a'", `[[4,0,39,"SEARCH t USING INDEX sqlite_autoindex_t_1 (n=?)"]]`},
		{"INSERT INTO t(n) VALUES('c')", "read error " + msgWrite},
		{"INSERT INTO t(n) VALUES('c') RETURNING id", "read error " + msgWrite},
		{"SELECT 1; DELETE FROM t", "read error " + msgWrite},
		{"DELETE FROM t; SELECT 1", "[[1]]"}, // only the last is run
		{"CREATE TEMP TABLE x(a)", "read error " + msgWrite},
		{"PRAGMA user_version=7", "read error " + msgWrite},
		{"PRAGMA incremental_vacuum", "read error " + msgWrite},
		{"PRAGMA journal_mode", `[["wal"]]`},
		{"VACUUM", "read error " + msgWrite},
		{"VACUUM INTO '/nonexistent'", "read error " + msgWrite},
		{"BEGIN", "read error " + msgTransaction},
		{"COMMIT", "read error " + msgTransaction},
		{"SAVEPOINT a", "read error " + msgTransaction},
		{"ATTACH ':memory:' AS x", "read error ATTACH is not allowed"},
		{"PRAGMA query_only=0", "read error disallowed pragma"},
		{"PRAGMA wal_checkpoint(TRUNCATE)", "read error disallowed pragma"},
		{"PRAGMA foreign_keys=ON", "null"},
		{"PRAGMA foreign_keys", "[[0]]"}, // the line before has not left anything
		{"SELECT * FROM pragma_table_info('t') WHERE name='id'", `[[0,"id","INTEGER",0,null,1]]`},
		{"SELECT count(*) FROM t", "[[2]]"},
	}
	for _, transaction := range []bool{false, true} {
		for _, tt := range tests {
			req := command.Request{Kind: command.Query, Transaction: transaction, Statements: statements(tt.sql)}
			resp, err := d.Query(t.Context(), &req)
			if err != nil {
				t.Fatal(err)
			}
			if got := show(resp.Results...); got != tt.want {
				t.Errorf("%s: %s, want %s", tt.sql, got, tt.want)
			}
		}
	}
	if stats := d.readers.stats(); stats.InUse != 0 {
		t.Errorf("%d connections were not given back", stats.InUse)
	}
}

// TestQueryTransaction runs a request in one transaction: it sees one state, whatever is written.
func TestQueryTransaction(t *testing.T) {
	d := openNew(t)
	exec(t, d, setup)
	c, err := d.readers.get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.exec("BEGIN"); err != nil {
		t.Fatal(err)
	}
	count := command.Statement{SQL: "SELECT count(*) FROM t"}
	for _, insert := range []string{"INSERT INTO t(n) VALUES('a')", "INSERT INTO t(n) VALUES('b')"} {
		rows, err := c.query(&count, false, nil)
		if err != nil || rows.Values[0][0] != int64(0) {
			t.Errorf("count is %v, %v; want 0", rows, err)
		}
		exec(t, d, insert)
	}
	if err := d.readers.put(c); err != nil {
		t.Fatal(err)
	}
	if n := value(t, d, count.SQL); n != int64(2) {
		t.Errorf("count is %v, want 2", n)
	}
}

func TestQueryTimeout(t *testing.T) {
	d := openNew(t)
	for _, transaction := range []bool{false, true} {
		req := command.Request{Kind: command.Query, Transaction: transaction, DBTimeout: 20 * time.Millisecond, Statements: statements("SELECT 1", endless, "SELECT 2")}
		resp, err := d.Query(t.Context(), &req)
		if transaction {
			if !errors.Is(err, errTransactionTimeout) {
				t.Errorf("Query of a transaction = %v, want %v", err, errTransactionTimeout)
			}
		} else if err != nil {
			t.Fatal(err)
		} else if got, want := show(resp.Results...), "[[1]]; read error query timeout; read error query timeout"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		req.DBTimeout = 1
		if _, err := d.Query(t.Context(), &req); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Query without time = %v, want DeadlineExceeded", err)
		}
	}
	if got := value(t, d, "SELECT 3"); got != int64(3) {
		t.Errorf("after a timeout a query returns %v", got)
	}
}

func TestQueryCanceled(t *testing.T) {
	d := openNew(t)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	_, err := d.Query(ctx, &command.Request{Kind: command.Query, Statements: statements(endless)})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Query = %v, want Canceled", err)
	}
}

func TestCloseEndsQueries(t *testing.T) {
	d, err := Open(testPath(t), Config{})
	if err != nil {
		t.Fatal(err)
	}
	c, err := d.readers.get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		q := reading{d: d, c: c.conn, req: &command.Request{Kind: command.Query, Statements: statements(endless)}}
		done <- errors.Join(q.run(context.Background()), d.readers.put(c))
	}()
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; !errors.Is(err, ErrClosed) {
		t.Errorf("Query = %v, want ErrClosed", err)
	}
	if _, err := d.Query(context.Background(), &command.Request{}); !errors.Is(err, ErrClosed) {
		t.Errorf("Query after Close = %v, want ErrClosed", err)
	}
}

func TestReadersAreBounded(t *testing.T) {
	d := open(t, testPath(t), Config{MaxReaders: 1})
	c, err := d.readers.get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := d.Query(ctx, &command.Request{Kind: command.Query}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Query with no reader left = %v, want DeadlineExceeded", err)
	}
	if err := d.readers.put(c); err != nil {
		t.Fatal(err)
	}
	if s := d.readers.stats(); s.WaitCount != 1 || s.WaitDuration == 0 || s.Idle != 1 {
		t.Errorf("stats are %+v", s)
	}
}

// TestReadersWithoutBound: closing such a database went through as many places as there are numbers.
func TestReadersWithoutBound(t *testing.T) {
	d := open(t, testPath(t), Config{MaxReaders: math.MaxInt})
	if s := d.readers.stats(); s.MaxOpen != 0 {
		t.Errorf("MaxOpen = %d; want 0, which is no limit", s.MaxOpen)
	}
}

func TestQueriesWhileWriting(t *testing.T) {
	d := openNew(t)
	exec(t, d, setup)
	var wg sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	for range 3 {
		wg.Go(func() {
			last := int64(0)
			for ctx.Err() == nil {
				resp, err := d.Query(context.Background(), &command.Request{Kind: command.Query, Statements: statements("SELECT count(*) FROM t")})
				if err != nil {
					t.Error(err)
					return
				}
				n := resp.Results[0].Rows.Values[0][0].(int64)
				if n < last {
					t.Errorf("count went from %d back to %d", last, n)
				}
				last = n
			}
		})
	}
	for i := range 300 {
		exec(t, d, fmt.Sprintf("INSERT INTO t(n) VALUES(%d)", i))
		if n := value(t, d, "SELECT count(*) FROM t"); n != int64(i+1) {
			t.Fatalf("after write %d the count is %v", i, n)
		}
	}
	stop()
	wg.Wait()
}

func TestTypes(t *testing.T) {
	d := openNew(t)
	exec(t, d, `CREATE TABLE k (i INTEGER, bo BOOLEAN, bl BOOL, d DATE, dt datetime, ts TIMESTAMP, v VARCHAR(10), c CHAR(5), j JSON, b BLOB, t TEXT, n, dec DECIMAL(10,2))`)
	tests := []struct {
		name, insert, sql string
		types             []string
		want              string
	}{
		{"declared", "1, 2, 2, '2024-01-02', '2024-01-02T03:04:05Z', 1700000000, 'v', 'c', '{}', x'00ff', x'41', 7, 1.5", "SELECT * FROM k",
			[]string{"integer", "boolean", "bool", "date", "datetime", "timestamp", "varchar(10)", "char(5)", "json", "blob", "text", "integer", "decimal(10,2)"},
			`[[1,true,2,"2024-01-02T00:00:00Z","2024-01-02T03:04:05Z","2023-11-14T22:13:20Z","v","c","{}","AP8=","A",7,1.5]]`},
		{"other classes", "'x', -1, 1, 'no date', 1700000000123, '2024-01-02 03:04:05.5+02:00', x'41', x'41', x'41', 't', 1, x'41', 2", "SELECT * FROM k",
			[]string{"integer", "boolean", "bool", "date", "datetime", "timestamp", "varchar(10)", "char(5)", "json", "blob", "text", "text", "decimal(10,2)"},
			`[["x",false,1,"0001-01-01T00:00:00Z","2023-11-14T22:13:20.123Z","2024-01-02T03:04:05.5+02:00","A","QQ==","A","t","1","A",2]]`},
		{"more", "NULL, 1.5, 0, 2.5, NULL, '', NULL, NULL, NULL, NULL, NULL, NULL, NULL", "SELECT bo, bl, d, ts, n, n+1 AS e FROM k",
			[]string{"boolean", "bool", "date", "timestamp", "", ""}, `[[1.5,0,2.5,"0001-01-01T00:00:00Z",null,null]]`},
		{"first row decides", "1,1,1,1,1,1,1,1,1,1,1,1,1", "SELECT 1 UNION ALL SELECT x'41'", []string{"integer"}, `[[1],["QQ=="]]`},
		{"first row is a blob", "1,1,1,1,1,1,1,1,1,1,1,1,1", "SELECT x'41' UNION ALL SELECT x'42'", []string{"text"}, `[["A"],["B"]]`},
		{"first row is null", "1,1,1,1,1,1,1,1,1,1,1,1,1", "SELECT NULL UNION ALL SELECT x'42'", []string{""}, `[[null],["B"]]`},
		{"real", "1,1,1,1,1,1,1,1,1,1,1,1,1", "SELECT 1.5, max(ts) FROM k", []string{"real", "integer"}, `[[1.5,1]]`},
		{"no rows", "1,1,1,1,1,1,1,1,1,1,1,1,1", "SELECT i, n, 1 FROM k WHERE 0", []string{"integer", "", ""}, `null`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			exec(t, d, "DELETE FROM k", "INSERT INTO k VALUES("+tt.insert+")")
			r := query(t, d, tt.sql).Results[0]
			if got := show(r); got != tt.want {
				t.Errorf("values are\n%s; want\n%s", got, tt.want)
			}
			if !reflect.DeepEqual(r.Rows.Types, tt.types) {
				t.Errorf("types are %q, want %q", r.Rows.Types, tt.types)
			}
		})
	}
}

func TestManyRows(t *testing.T) {
	d := openNew(t)
	const n = 3*batchRows + 7
	sql := fmt.Sprintf("WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c WHERE x<%d) SELECT x, zeroblob(x), 'text', NULL, x/2.0 FROM c", n)
	rows := query(t, d, sql).Results[0].Rows
	if len(rows.Values) != n {
		t.Fatalf("%d rows, want %d", len(rows.Values), n)
	}
	for i, row := range rows.Values {
		x := int64(i + 1)
		// The first row's blob makes the column one of texts.
		if row[0] != x || len(row[1].(string)) != i+1 || row[2] != "text" || row[3] != nil || row[4] != float64(x)/2 {
			t.Fatalf("row %d is %v", i, row)
		}
	}
}

func TestFreshColumns(t *testing.T) {
	d := openNew(t)
	exec(t, d, "CREATE TABLE f (a INTEGER)", "INSERT INTO f VALUES(1)")
	for i, change := range []string{"SELECT 1", "ALTER TABLE f ADD COLUMN b TEXT", "ALTER TABLE f RENAME COLUMN a TO z", "DROP TABLE f", "CREATE TABLE f (q REAL)"} {
		exec(t, d, change)
		want := []string{"[a] [integer]", "[a b] [integer text]", "[z b] [integer text]", "no such table: f", "[q] [real]"}[i]
		r := query(t, d, "SELECT * FROM f").Results[0]
		got := r.Error
		if got == "" {
			got = fmt.Sprint(r.Rows.Columns, " ", r.Rows.Types)
		}
		if got != want {
			t.Errorf("after %s: %s, want %s", change, got, want)
		}
	}
}

func TestQualifyColumns(t *testing.T) {
	d := openNew(t)
	exec(t, d, "CREATE TABLE p (id, name)", "CREATE TABLE c (id, pid)", "CREATE VIEW v AS SELECT * FROM p")
	for sql, want := range map[string]string{
		"SELECT * FROM p JOIN c ON c.pid=p.id":                        "[p.id p.name c.id c.pid]",
		"SELECT a.id, a.name AS x, 1+1, count(*) FROM p a GROUP BY 1": "[p.id p.x 1+1 count(*)]",
		"SELECT * FROM v": "[p.id p.name]",
	} {
		resp, err := d.Query(t.Context(), &command.Request{Kind: command.Query, QualifyColumns: true, Statements: statements(sql)})
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(resp.Results[0].Rows.Columns); got != want {
			t.Errorf("%s: %s, want %s", sql, got, want)
		}
	}
}

func TestTimings(t *testing.T) {
	d := openNew(t)
	for _, kind := range []command.Kind{command.Query, command.Execute, command.Unified} {
		resp := request(t, d, command.Request{Kind: kind, Timings: true, Statements: statements("SELECT 1", "SELECT nope")})
		if resp.Results[0].Time <= 0 || resp.Results[1].Time != 0 {
			t.Errorf("%s: times are %v, %v; want some, none", kind, resp.Results[0].Time, resp.Results[1].Time)
		}
	}
}

// TestExplainAfterSchemaChange explains the same text before and after a change of the schema. SQLite checks
// the schema of a statement when it begins to run, which one that is explained never does: kept, it would
// go on to point to tables that were freed, and end the process.
func TestExplainAfterSchemaChange(t *testing.T) {
	d := open(t, testPath(t), Config{MaxReaders: 1})
	exec(t, d, "CREATE TABLE t (a)")
	for _, tt := range []struct{ change, want string }{
		{"SELECT 1", "SCAN t"},
		{"CREATE INDEX i ON t(a)", "SEARCH t USING COVERING INDEX i (a=?)"},
		{"DROP INDEX i", "SCAN t"},
	} {
		exec(t, d, tt.change)
		query(t, d, "SELECT a FROM t") // here the reader notices the change
		r := query(t, d, "EXPLAIN QUERY PLAN SELECT a FROM t WHERE a=1").Results[0]
		if got := r.Rows.Values[0][3]; got != tt.want {
			t.Errorf("after %s: %v; want %s", tt.change, got, tt.want)
		}
		query(t, d, "EXPLAIN UPDATE t SET a=1") // names the table
	}
}
