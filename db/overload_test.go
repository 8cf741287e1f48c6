package db

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"rqlited/command"
)

// TestRunawayRead checks that reads end with their time, and with their client, wherever they are.
func TestRunawayRead(t *testing.T) {
	tests := []struct {
		name string
		sqls []string
	}{
		{"no rows", []string{endless}},
		{"many rows", []string{"WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s) SELECT i FROM s WHERE i % 1000 = 0"}},
		{"several statements", []string{"SELECT 1", endless, endless}},
		{"several in a text", []string{"SELECT 1; " + endless}},
		{"sorting", []string{"WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s) SELECT i FROM s ORDER BY -i"}},
		{"a join", []string{"WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s LIMIT 10000) SELECT count(*) FROM s a, s b, s c, s d WHERE a.i * b.i = c.i * d.i + 0.5"}},
		{"text", []string{"WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s) SELECT max(length(replace(hex(randomblob(1000)), 'A', 'BC'))) FROM s"}},
		{"JSON", []string{"SELECT count(*) FROM s2, json_each(json_array(1, 2, 3)) a, json_each(json_array(1, 2, 3)) b WHERE a.value < s2.i"}},
	}
	d := openNew(t)
	exec(t, d, "CREATE VIEW s2 AS WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s) SELECT i FROM s")
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, req := range []command.Request{
				{DBTimeout: 50 * time.Millisecond}, {DBTimeout: 50 * time.Millisecond, Transaction: true}, {}, {Transaction: true},
			} {
				req.Kind, req.Statements = command.Query, statements(tt.sqls...)
				ctx, leave := context.WithCancel(t.Context())
				if req.DBTimeout == 0 {
					time.AfterFunc(50*time.Millisecond, leave)
				}
				start := time.Now()
				resp, err := d.Query(ctx, &req)
				took := time.Since(start)
				leave()
				switch {
				case req.DBTimeout == 0 && !errors.Is(err, context.Canceled):
					t.Errorf("Query = %v after its client has gone", err)
				case req.DBTimeout > 0 && req.Transaction && !errors.Is(err, errTransactionTimeout):
					t.Errorf("Query = %v after its time, in a transaction", err)
				case req.DBTimeout > 0 && !req.Transaction && (err != nil || resp.Results[len(resp.Results)-1].Error != msgQueryTimeout):
					t.Errorf("Query = %v, %v after its time", resp, err)
				}
				if took > 5*time.Second {
					t.Errorf("ended after %s", took)
				}
			}
		})
	}
	if got := value(t, d, "SELECT 1"); got != int64(1) {
		t.Errorf("a read after these = %v", got)
	}
}

// TestReadsWait checks that reads wait for others, and neither for ever nor in any number.
func TestReadsWait(t *testing.T) {
	d := open(t, testPath(t), Config{MaxReaders: 2, MaxWaiting: 1, MaxWait: 300 * time.Millisecond})
	ctx, leave := context.WithCancel(t.Context())
	ask := func(ctx context.Context, sql string) <-chan error {
		done := make(chan error, 1)
		go func() {
			_, err := d.Query(ctx, &command.Request{Kind: command.Query, Statements: statements(sql)})
			done <- err
		}()
		return done
	}
	running := []<-chan error{ask(ctx, endless), ask(ctx, endless)}
	until := func(what string, cond func() bool) {
		for end := time.Now().Add(10 * time.Second); ; {
			d.readers.mu.Lock()
			ok := cond()
			d.readers.mu.Unlock()
			if ok {
				return
			}
			if time.Now().After(end) {
				t.Fatal(what)
			}
		}
	}
	until("two reads run", func() bool { return len(d.readers.busy) == 2 })
	late := ask(t.Context(), "SELECT 1")
	until("one waits", func() bool { return d.readers.waiting == 1 })
	if err := <-ask(t.Context(), "SELECT 1"); err == nil || err.Error() != "db: 2 reads are under way, and 1 more are waiting" {
		t.Errorf("one more = %v", err)
	}
	if err := <-late; err == nil || err.Error() != "db: 2 reads are under way, and none has made room for another within 300ms" {
		t.Errorf("the one that waits = %v", err)
	}
	left, gone := context.WithCancel(t.Context())
	waiting := ask(left, "SELECT 1")
	until("one waits again", func() bool { return d.readers.waiting == 1 })
	gone()
	if err := <-waiting; !errors.Is(err, context.Canceled) {
		t.Errorf("one whose client has gone = %v", err)
	}
	leave()
	for _, r := range running {
		if err := <-r; !errors.Is(err, context.Canceled) {
			t.Errorf("a read that is left = %v", err)
		}
	}
	if err := <-ask(t.Context(), "SELECT 1"); err != nil {
		t.Errorf("once there is room: %v", err)
	}
}

// TestReadMemory checks that reads share a bound on their memory, which is theirs again when they have ended.
func TestReadMemory(t *testing.T) {
	const limit = 8 << 20
	d := open(t, testPath(t), Config{ReadMemory: limit})
	exec(t, d, "CREATE TABLE t (v)", "WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s LIMIT 20000) INSERT INTO t SELECT randomblob(1000) FROM s")
	for _, sql := range []string{
		"SELECT length(zeroblob(20000000) || 'x')",
		"SELECT length(group_concat(hex(v))) FROM t",
		"SELECT length(json_group_array(hex(v))) FROM t",
		"PRAGMA cache_size = 100000; SELECT count(DISTINCT v || 'x') FROM t, (SELECT 1) WHERE length(group_concat(v)) > 0",
		"SELECT 1 WHERE 1 IN (" + strings.Repeat("1, ", 100_000) + "1)",
	} {
		r := query(t, d, sql).Results[0]
		if want := "reads that are under way need more than 8 MiB of memory"; r.Error != want && !strings.HasPrefix(sql, "PRAGMA") {
			t.Errorf("%.60s = %.200s; want %s", sql, show(r), want)
		}
	}
	// What fits on disk is sorted there, and a second time as well.
	for range 3 {
		if got := value(t, d, "SELECT length(v) FROM (SELECT v FROM t ORDER BY v DESC LIMIT 1 OFFSET 19000)"); got != int64(1000) {
			t.Errorf("sorted: %v", got)
		}
		if got := value(t, d, "SELECT length(hex(zeroblob(1000000)))"); got != int64(2000000) {
			t.Errorf("some MB: %v", got)
		}
	}
	if used := d.nowhere.memoryUsed(); used != 0 {
		t.Errorf("%d bytes are still counted", used)
	}
}

// TestNothingOutside sends what would reach files, other databases or later users of a connection. What is not
// refused shows nothing but the database.
func TestNothingOutside(t *testing.T) {
	d := open(t, testPath(t), Config{MaxReaders: 1})
	exec(t, d, "CREATE TABLE t (a)", "CREATE VIRTUAL TABLE f USING fts5(a)")
	refused := map[string]string{
		"ATTACH '/etc/passwd' AS x":                                   msgAttach,
		"EXPLAIN ATTACH 'x' AS x":                                     msgAttach,
		"SELECT 1; ATTACH ':memory:' AS x":                            msgAttach,
		"DETACH main":                                                 msgDetach,
		"VACUUM INTO '/tmp/x'":                                        msgVacuumInto,
		"/* */ VACUUM main INTO 'file:/tmp/x?mode=rwc'":               msgVacuumInto,
		"PRAGMA temp_store_directory = '/tmp'":                        msgPragma,
		"PRAGMA main.temp_store_directory('/tmp')":                    msgPragma,
		"PRAGMA data_store_directory = '/tmp'":                        msgPragma,
		"PRAGMA query_only = OFF":                                     msgPragma,
		"PRAGMA writable_schema = ON":                                 msgPragma,
		"SELECT load_extension('/tmp/x')":                             "not authorized",
		"SELECT load_extension('/tmp/x', 'y')":                        "not authorized",
		"SELECT readfile('/etc/passwd')":                              "no such function: readfile",
		"SELECT writefile('/tmp/x', 'y')":                             "no such function: writefile",
		"SELECT edit('x')":                                            "no such function: edit",
		"SELECT zipfile('/tmp/x')":                                    "no such function: zipfile",
		"SELECT fts3_tokenizer('simple')":                             msgTokenizer,
		"SELECT fts3_tokenizer('simple', x'0011223344556677')":        msgTokenizer,
		"SELECT * FROM sqlite_dbpage":                                 "no such table: sqlite_dbpage",
		"SELECT * FROM fsdir('/')":                                    "no such table: fsdir",
		"SELECT * FROM csv('/etc/passwd')":                            "no such table: csv",
		"SELECT * FROM sqlite_stmt":                                   "no such table: sqlite_stmt",
		"SELECT * FROM pragma_temp_store_directory":                   "no such table: pragma_temp_store_directory",
		"SELECT * FROM pragma_data_store_directory":                   "no such table: pragma_data_store_directory",
		"SELECT * FROM x.sqlite_schema":                               "no such table: x.sqlite_schema",
		"CREATE TEMP TABLE x (a)":                                     msgWrite,
		"CREATE TEMP VIEW t AS SELECT 'forged' AS a":                  msgWrite,
		"CREATE TEMP TRIGGER r AFTER INSERT ON t BEGIN SELECT 1; END": msgWrite,
		"CREATE VIRTUAL TABLE temp.x USING fts5(a)":                   msgWrite,
		"CREATE VIRTUAL TABLE x USING csv(filename='/etc/passwd')":    msgWrite,
		"BEGIN": msgTransaction,
	}
	harmless := []string{
		"PRAGMA temp_store_directory", "PRAGMA lock_proxy_file", "PRAGMA key = 'x'", "PRAGMA activate_extensions('x')", "PRAGMA trusted_schema = ON",
		"PRAGMA case_sensitive_like = ON", "PRAGMA busy_timeout = 1", "PRAGMA foreign_keys = ON", "PRAGMA temp_store = MEMORY", "PRAGMA mmap_size = 1000000", "PRAGMA journal_size_limit = 1",
		"PRAGMA reverse_unordered_selects = ON", "PRAGMA cache_size = 1000000", "SELECT * FROM dbstat('x')", "SELECT * FROM sqlite_temp_schema", "SELECT * FROM pragma_database_list",
		"EXPLAIN CREATE TEMP TABLE x (a)",
	}
	state := func() string {
		return show(query(t, d, "SELECT name FROM pragma_database_list WHERE name <> 'temp'", "SELECT count(*) FROM sqlite_temp_schema", "PRAGMA query_only", "PRAGMA busy_timeout",
			"PRAGMA foreign_keys", "PRAGMA case_sensitive_like", "SELECT 'a' LIKE 'A'", "PRAGMA trusted_schema", "PRAGMA reverse_unordered_selects", "PRAGMA cache_size",
			"PRAGMA temp_store", "PRAGMA mmap_size", "SELECT count(*) FROM t").Results...)
	}
	before := state()
	ask := func(sql string) string {
		req := &command.Request{Kind: command.Query, Statements: statements(sql)}
		if _, err := d.Prepare(req); err != nil {
			var e *RefusedError
			if !errors.As(err, &e) {
				t.Fatal(err)
			}
			return e.Msg
		}
		resp, err := d.Query(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		return resp.Results[0].Error
	}
	for sql, want := range refused {
		if got := ask(sql); got != want {
			t.Errorf("%s = %q; want %q", sql, got, want)
		}
	}
	for _, sql := range slices.Concat(harmless, harmless) {
		if got := ask(sql); got != "" {
			t.Errorf("%s = %q", sql, got)
		}
		if got := state(); got != before {
			t.Fatalf("%s leaves on the connection: %s; before: %s", sql, got, before)
		}
	}
	// The same through the log: on the writer's connection.
	for sql := range refused {
		resp := request(t, d, command.Request{Kind: command.Execute, Statements: statements(sql)})
		if strings.HasPrefix(sql, "CREATE TEMP") || sql == "BEGIN" || strings.Contains(sql, "temp.x") {
			continue // they end with their entry
		}
		if resp.Results[0].Error == "" && !strings.HasPrefix(sql, "SELECT") {
			t.Errorf("%s in an entry succeeds: %s", sql, fmt.Sprint(resp.Results))
		}
	}
	if got := state(); got != before {
		t.Errorf("after entries: %s; before: %s", got, before)
	}
}
