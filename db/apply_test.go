package db

import (
	"strings"
	"testing"
	"time"

	"rqlited/command"
)

const setup = "CREATE TABLE t (id INTEGER PRIMARY KEY, n TEXT UNIQUE NOT NULL)"

func TestExecute(t *testing.T) {
	tests := []struct {
		name string
		sql  []string
		want string
		rows int64 // in t afterwards
	}{
		{"counters", []string{"INSERT INTO t(n) VALUES('a')", "INSERT INTO t(n) VALUES('b'),('c')", "UPDATE t SET n=n||'x'", "DELETE FROM t WHERE id=9"}, "1/1; 3/2; 3/3; 3/0", 3},
		{"connection's counters", []string{"INSERT INTO t(n) VALUES('a')", "CREATE TABLE u(a)", "SELECT 1", "PRAGMA user_version"}, "1/1; 1/1; 1/1; 1/1", 1},
		{"no counters at first", []string{"CREATE TABLE u(a)", "SELECT 1"}, "0/0; 0/0", 0},
		{"empty text is skipped", []string{"", "INSERT INTO t(n) VALUES('a')", ""}, "1/1", 1},
		{"no statement", []string{" ", ";", "-- nothing", "/* nothing */;"}, "0/0; 0/0; 0/0; 0/0", 0},
		{"errors do not stop", []string{"INSERT INTO t(n) VALUES('a')", "INSERT INTO t(n) VALUES('a')", "SELEC", "INSERT INTO t(n) VALUES('b')"}, `1/1; error UNIQUE constraint failed: t.n; error near "SELEC": syntax error; 2/1`, 2},
		{"several in one text", []string{"INSERT INTO t(n) VALUES('a'); INSERT INTO t(n) VALUES('b');", "INSERT INTO t(n) VALUES('c'); INSERT INTO t(n) VALUES('c'); INSERT INTO t(n) VALUES('d')"}, "2/1; error UNIQUE constraint failed: t.n", 3},
		{"a transaction of its own", []string{"BEGIN", "INSERT INTO t(n) VALUES('a')", "COMMIT"}, "0/0; 1/1; 1/1", 1},
		{"a transaction left open", []string{"INSERT INTO t(n) VALUES('a')", "BEGIN", "INSERT INTO t(n) VALUES('b')", "SELEC"}, `1/1; error ` + msgOpen + `; error ` + msgOpen + `; error near "SELEC": syntax error`, 1},
		{"a savepoint left open", []string{"SAVEPOINT s", "INSERT INTO t(n) VALUES('b')"}, `error ` + msgOpen + `; error ` + msgOpen, 0},
		{"rolled back by conflict", []string{"INSERT INTO t(n) VALUES('a')", "BEGIN", "INSERT INTO t(n) VALUES('b')", "INSERT OR ROLLBACK INTO t(n) VALUES('a')"}, "1/1; 1/1; 2/1; error UNIQUE constraint failed: t.n", 1},
		{"attach", []string{"ATTACH ':memory:' AS x", "DETACH x"}, "error ATTACH is not allowed; error DETACH is not allowed", 0},
		{"pragma", []string{"PRAGMA synchronous(2)", "-- x\nPRAGMA main.journal_mode=DELETE", "PRAGMA wal_checkpoint"}, "error disallowed pragma; error disallowed pragma; error disallowed pragma", 0},
		{"pragma optimize", []string{"PRAGMA optimize"}, "error " + msgOptimize, 0},
		{"vacuum", []string{"INSERT INTO t(n) VALUES('a')", "VACUUM", "REINDEX", "ANALYZE"}, "1/1; 1/1; 1/1; 1/1", 1},
		{"vacuum into", []string{"VACUUM INTO '/nonexistent/x'"}, "error VACUUM INTO is not allowed", 0},
		{"extensions", []string{"SELECT load_extension('x')"}, "error not authorized", 0},
		{"schema table", []string{"DELETE FROM sqlite_schema"}, "error table sqlite_master may not be modified", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := openNew(t)
			exec(t, d, setup)
			got := show(request(t, d, command.Request{Kind: command.Execute, Statements: statements(tt.sql...)}).Results...)
			if got != tt.want {
				t.Errorf("results are\n%s; want\n%s", got, tt.want)
			}
			if rows := value(t, d, "SELECT count(*) FROM t"); rows != tt.rows {
				t.Errorf("%v rows in t, want %d", rows, tt.rows)
			}
			next := command.Request{Kind: command.Unified, Statements: statements("SELECT last_insert_rowid(), changes(), total_changes()")}
			if got := show(request(t, d, next).Results...); got != "[[0,0,0]]" {
				t.Errorf("the next entry sees the counters %s, want 0", got)
			}
		})
	}
}

// TestCountersCarryOver shows in results what SQLite's connection has counted, as long as it lives,
// also if it had to be replaced meanwhile.
func TestCountersCarryOver(t *testing.T) {
	d := openNew(t)
	exec(t, d, setup)
	for _, st := range []struct{ sql, want string }{
		{"INSERT INTO t(n) VALUES('a'),('b')", "2/2"},
		{"CREATE TABLE u(a)", "2/2"},
		{"UPDATE t SET n='c' WHERE id=9", "2/0"},
		{"DELETE FROM t WHERE id=1", "2/1"},
		{"PRAGMA cache_size=100", "2/1"},
		{"CREATE TEMP TABLE v(a)", "2/1"},
		{"SELECT 1", "2/1"},
		{"INSERT INTO t(id, n) VALUES(7, 'd')", "7/1"},
	} {
		if got := show(exec(t, d, st.sql).Results...); got != st.want {
			t.Errorf("%s: %s, want %s", st.sql, got, st.want)
		}
	}
}

func TestExecuteTransaction(t *testing.T) {
	const fk = "CREATE TABLE c (p REFERENCES t(id) DEFERRABLE INITIALLY DEFERRED)"
	tests := []struct {
		name string
		kind command.Kind
		sql  []string
		want string
		rows int64
	}{
		{"all", command.Execute, []string{"INSERT INTO t(n) VALUES('a')", "INSERT INTO t(n) VALUES('b')"}, "1/1; 2/1", 2},
		{"stops at an error", command.Execute, []string{"INSERT INTO t(n) VALUES('a')", "INSERT INTO t(n) VALUES('a')", "INSERT INTO t(n) VALUES('b')"}, "1/1; error UNIQUE constraint failed: t.n", 0},
		{"stops if it can't prepare", command.Execute, []string{"INSERT INTO t(n) VALUES('a')", "SELECT bad", "INSERT INTO t(n) VALUES('b')"}, "1/1; error no such column: bad", 0},
		{"unified goes on if it can't prepare", command.Unified, []string{"INSERT INTO t(n) VALUES('a')", "SELECT bad", "INSERT INTO t(n) VALUES('b')"}, "1/1; error no such column: bad; 2/1", 2},
		{"unified stops at an error", command.Unified, []string{"INSERT INTO t(n) VALUES('a')", "SELECT abs(-9223372036854775808)", "INSERT INTO t(n) VALUES('b')"}, "1/1; read error integer overflow", 0},
		{"BEGIN inside", command.Execute, []string{"INSERT INTO t(n) VALUES('a')", "BEGIN", "INSERT INTO t(n) VALUES('b')"}, "1/1; error cannot start a transaction within a transaction", 0},
		{"COMMIT inside", command.Execute, []string{"INSERT INTO t(n) VALUES('a')", "COMMIT", "INSERT INTO t(n) VALUES('b')"}, "request error cannot commit - no transaction is active", 2},
		{"COMMIT and BEGIN inside", command.Execute, []string{"INSERT INTO t(n) VALUES('a')", "COMMIT", "BEGIN", "INSERT INTO t(n) VALUES('b')"}, "1/1; 1/1; 1/1; 2/1", 2},
		{"deferred constraint", command.Execute, []string{"INSERT INTO t(n) VALUES('a')", "INSERT INTO c VALUES(77)"}, "request error FOREIGN KEY constraint failed", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := open(t, testPath(t), Config{ForeignKeys: true})
			exec(t, d, setup, fk)
			resp := request(t, d, command.Request{Kind: tt.kind, Transaction: true, Statements: statements(tt.sql...)})
			got := show(resp.Results...)
			if resp.Error != "" {
				got += "request error " + resp.Error
			}
			if got != tt.want {
				t.Errorf("results are\n%s; want\n%s", got, tt.want)
			}
			if rows := value(t, d, "SELECT count(*) FROM t"); rows != tt.rows {
				t.Errorf("%v rows in t, want %d", rows, tt.rows)
			}
			exec(t, d, "BEGIN", "COMMIT") // nothing was left open
		})
	}
}

func TestRollbackOnError(t *testing.T) {
	d := openNew(t)
	exec(t, d, setup)
	script := "BEGIN; INSERT INTO t(n) VALUES('a'); INSERT INTO t(n) VALUES('a'); COMMIT"
	resp := request(t, d, command.Request{Kind: command.Execute, RollbackOnError: true, Statements: statements(script, "INSERT INTO t(n) VALUES('b')")})
	if got, want := show(resp.Results...), "error UNIQUE constraint failed: t.n"; got != want {
		t.Errorf("results are %s, want %s", got, want)
	}
	if n := value(t, d, "SELECT count(*) FROM t"); n != int64(0) {
		t.Errorf("%v rows are left", n)
	}
}

func TestUnified(t *testing.T) {
	d := openNew(t)
	exec(t, d, setup, "INSERT INTO t(n) VALUES('a')")
	tests := []struct {
		sql    string
		want   string
		writes int
	}{
		{"INSERT INTO t(n) VALUES('b')", "2/1", 1},
		{"SELECT n FROM t ORDER BY n", `[["a"],["b"]]`, 0},
		{"SELECT nope", "error no such column: nope", 0},
		{"SELECT 1; SELECT 2", "[[2]]", 0},
		{"SELECT 1; ", "[[1]]", 0},
		{"SELECT 1;;; -- c", "null", 0},
		{"INSERT INTO t(n) VALUES('c') RETURNING id;; -- c", "[[3]]", 1},
		{"DELETE FROM t WHERE n='c' RETURNING n;", `[["c"]]`, 1},
		{"EXPLAIN QUERY PLAN INSERT INTO t(n) VALUES('z')", "null", 0},
		{"PRAGMA user_version", "[[0]]", 0},
		{"PRAGMA user_version=3", "3/0", 1}, // EXPLAIN has set the second to 0
		{"BEGIN", "read error " + msgOpen, 0},
		{";", "0/0", 1},
	}
	for _, tt := range tests {
		req := command.Request{Kind: command.Unified, Statements: statements(tt.sql)}
		if _, err := d.Prepare(&req); err != nil {
			t.Fatal(err)
		}
		resp := request(t, d, req)
		if got := show(resp.Results...); got != tt.want || resp.Writes != tt.writes {
			t.Errorf("%s: %s, %d writes; want %s, %d", tt.sql, got, resp.Writes, tt.want, tt.writes)
		}
	}
}

func TestReturning(t *testing.T) {
	d := openNew(t)
	exec(t, d, setup)
	sts := statements("INSERT INTO t(n) VALUES('a'),('b') RETURNING id, n", "INSERT INTO t(n) VALUES('a') RETURNING id")
	sts[0].Returning, sts[1].Returning = true, true
	for _, kind := range []command.Kind{command.Execute, command.Unified} {
		exec(t, d, "DELETE FROM t")
		resp := request(t, d, command.Request{Kind: kind, Statements: sts})
		if got, want := show(resp.Results...), `[[1,"a"],[2,"b"]]; read error UNIQUE constraint failed: t.n`; got != want {
			t.Errorf("%s: %s, want %s", kind, got, want)
		}
	}
}

func TestParams(t *testing.T) {
	p := func(values ...any) (ps []command.Param) {
		for _, v := range values {
			if named, ok := v.(command.Param); ok {
				ps = append(ps, named)
			} else {
				ps = append(ps, command.Param{Value: v})
			}
		}
		return ps
	}
	named := func(name string, v any) command.Param { return command.Param{Name: name, Value: v} }
	tests := []struct {
		name   string
		sql    string
		params []command.Param
		want   string // as a read
	}{
		{"all types", "SELECT ?,?,?,?,?,?", p(nil, int64(1), 2.5, true, "x\x00y", []byte("b")), `[[null,1,2.5,1,"x\u0000y","b"]]`},
		{"too many", "SELECT ?", p(int64(1), int64(2)), "[[1]]"},
		{"too few", "SELECT ?,?", p(int64(1)), "read error not enough args to execute query: want 2 got 1"},
		{"none", "SELECT ?", nil, "read error not enough args to execute query: want 1 got 0"},
		{"names", "SELECT $a, @b, :c", p(named("c", int64(3)), named("a", int64(1)), named("b", int64(2))), "[[1,2,3]]"},
		{"name not in the text", "SELECT :a", p(named("x", int64(1)), named("a", int64(2))), "[[2]]"},
		{"unknown name counts", "SELECT :a", p(named("x", int64(1))), "[[null]]"},
		{"position for a name", "SELECT :a", p(int64(5)), "[[5]]"},
		{"name for a position", "SELECT ?", p(named("a", int64(5))), "[[null]]"},
		{"numbers", "SELECT ?2, ?1", p(int64(1), int64(2)), "[[2,1]]"},
		{"bad name", "SELECT :a", p(named(":a", int64(1))), `read error name ":a" does not begin with a letter`},
		{"two statements", "SELECT ?; SELECT ?", p(int64(1), int64(2)), "[[2]]"},
		{"two statements, too few", "SELECT ?; SELECT ?,?", p(int64(1), int64(2)), "read error not enough args to execute query: want 2 got 1"},
	}
	d := openNew(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			req := command.Request{Kind: command.Query, Statements: []command.Statement{{SQL: tt.sql, Params: tt.params}}}
			for range 2 { // prepared, and from the cache
				if got := show(request(t, d, req).Results...); got != tt.want {
					t.Errorf("%s; want %s", got, tt.want)
				}
			}
		})
	}
}

func TestParamsOfWrites(t *testing.T) {
	d := openNew(t)
	exec(t, d, "CREATE TABLE p (a, b)")
	req := command.Request{Kind: command.Execute, Statements: []command.Statement{
		{SQL: "INSERT INTO p VALUES(?,?)"},
		{SQL: "INSERT INTO p VALUES(?,?)", Params: []command.Param{{Value: int64(1)}, {Value: int64(2)}}},
		{SQL: "INSERT INTO p VALUES(?,?)"}, // the values before are not left over
		{SQL: "INSERT INTO p VALUES(?,?)", Params: []command.Param{{Value: int64(1)}}},
		{SQL: "INSERT INTO p VALUES(?,1); INSERT INTO p VALUES(2,?)", Params: []command.Param{{Value: "l"}, {Value: "r"}}},
	}}
	if got, want := show(request(t, d, req).Results...), "1/1; 2/1; 3/1; error not enough args to execute query: want 2 got 1; 5/1"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got, want := show(query(t, d, "SELECT * FROM p").Results...), `[[null,null],[1,2],[null,null],["l",1],[2,"r"]]`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestNoStateOutlivesEntry sets everything a connection can keep, and looks for it afterwards.
func TestNoStateOutlivesEntry(t *testing.T) {
	d := openNew(t)
	exec(t, d, setup, "CREATE TABLE c (p REFERENCES t(id))", "CREATE INDEX i ON t(n)", "ANALYZE")
	exec(t, d, "PRAGMA foreign_keys=ON", "PRAGMA case_sensitive_like=ON", "CREATE TEMP TABLE tmp(a)", "CREATE TEMP VIEW tv AS SELECT 1",
		"INSERT INTO t(n) VALUES('a')", "PRAGMA recursive_triggers=1", "PRAGMA ignore_check_constraints=1")
	resp := request(t, d, command.Request{Kind: command.Unified, Statements: statements(
		"PRAGMA foreign_keys", "SELECT 'A' LIKE 'a'", "SELECT * FROM tmp", "SELECT * FROM tv", "PRAGMA recursive_triggers", "PRAGMA ignore_check_constraints",
		"SELECT last_insert_rowid(), changes(), total_changes()", "INSERT INTO c VALUES(99)")})
	want := "[[0]]; [[1]]; error no such table: tmp; error no such table: tv; [[0]]; [[0]]; [[0,0,0]]; 1/1"
	if got := show(resp.Results...); got != want {
		t.Errorf("after the entry:\n%s; want\n%s", got, want)
	}
}

func TestCountersWithinEntry(t *testing.T) {
	d := openNew(t)
	exec(t, d, setup, "INSERT INTO t(n) VALUES('x'),('y')")
	for range 3 { // the second time the statement that resets the counters is at hand, after DDL it is not
		resp := request(t, d, command.Request{Kind: command.Unified, Statements: statements(
			"SELECT last_insert_rowid(), changes(), total_changes()", "INSERT INTO t(n) VALUES('a'),('b')",
			"SELECT changes(), total_changes()", "DELETE FROM t WHERE n='a'", "SELECT changes(), total_changes()",
			"DELETE FROM t WHERE n='b'", "DROP TABLE IF EXISTS u", "CREATE TABLE u(a)")})
		if got, want := show(resp.Results[:5]...), "[[0,0,0]]; 4/2; [[2,2]]; 4/1; [[1,3]]"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// TestChangesInTrigger calls changes() where SQLite answers with what an earlier statement did, and has
// statements prepared before the trigger existed.
func TestChangesInTrigger(t *testing.T) {
	d := openNew(t)
	exec(t, d, setup, "CREATE TABLE g (c)")
	insert := []string{"INSERT INTO t(n) VALUES(random()),(random())"}
	seed := uint64(0)
	run := func() {
		seed++
		resp := apply(t, d, &command.Entry{Kind: command.Execute, Seed: seed, Request: &command.Request{Statements: statements(insert...)}})
		if got := show(resp.Results...); strings.Contains(got, "error") {
			t.Fatal(got)
		}
	}
	run()
	exec(t, d, "CREATE TRIGGER tr BEFORE INSERT ON t BEGIN INSERT INTO g VALUES(changes()); END")
	exec(t, d, "DELETE FROM t WHERE id < 0", "INSERT INTO g VALUES(-1),(-1),(-1)")
	run()
	run()
	if err := d.reopenWriter(); err != nil {
		t.Fatal(err)
	}
	run()
	if got, want := show(query(t, d, "SELECT c FROM g WHERE c >= 0").Results...), "[[0],[0],[0],[0],[0],[0]]"; got != want {
		t.Errorf("changes() in a trigger was %s, want %s", got, want)
	}
}

func TestClockAndRandomNumbers(t *testing.T) {
	const table = `CREATE TABLE r (a DEFAULT (random()), b DEFAULT (randomblob(5)), c DEFAULT CURRENT_TIMESTAMP, d DEFAULT (julianday('now')));
		CREATE TABLE log (x, y);
		CREATE TRIGGER g AFTER INSERT ON r BEGIN INSERT INTO log VALUES(random(), datetime('now')); END`
	var dumps []string
	for range 2 {
		d := openNew(t)
		exec(t, d, table)
		e := &command.Entry{Kind: command.Execute, Seed: 42, Time: time.Date(2024, 2, 29, 12, 30, 15, 250e6, time.UTC), Request: &command.Request{
			Statements: statements("INSERT INTO r DEFAULT VALUES", "INSERT INTO r(a) SELECT (SELECT random()) FROM r", "WITH q AS (SELECT randomblob(3) AS z) INSERT INTO log SELECT z, random() FROM q")}}
		apply(t, d, e)
		dumps = append(dumps, dump(t, d))
		if got := value(t, d, "SELECT DISTINCT c FROM r"); got != "2024-02-29 12:30:15" {
			t.Errorf("CURRENT_TIMESTAMP was %v", got)
		}
		if got := value(t, d, "SELECT DISTINCT strftime('%H:%M:%f', d) FROM r"); got != "12:30:15.250" {
			t.Errorf("julianday('now') was %v", got)
		}
		if n := value(t, d, "SELECT count(DISTINCT a) FROM r"); n != int64(2) {
			t.Errorf("%v different random numbers, want 2", n)
		}
		e.Seed++
		apply(t, d, e)
		if n := value(t, d, "SELECT count(DISTINCT a) FROM r"); n == int64(2) {
			t.Error("another seed made no other random numbers")
		}
		real := apply(t, d, &command.Entry{Kind: command.Unified, Request: &command.Request{Kind: command.Unified, Statements: statements("DELETE FROM log", "SELECT unixepoch(), random()")}})
		now := real.Results[1].Rows.Values[0][0].(int64)
		if age := time.Now().Unix() - now; age < 0 || age > 60 {
			t.Errorf("without a time the clock was %d seconds off", age)
		}
	}
	if dumps[0] != dumps[1] {
		t.Errorf("databases differ:\n%s\n%s", dumps[0], dumps[1])
	}
	d := openNew(t)
	resp := request(t, d, command.Request{Kind: command.Execute, Statements: statements("CREATE TABLE g (x, a AS (random()))")})
	if got := show(resp.Results...); !strings.Contains(got, "non-deterministic") {
		t.Errorf("random() in a generated column: %s", got)
	}
}
