package db

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"rqlited/command"
)

// unending begins a statement that has rows without end.
const unending = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) "

// small are bounds that a test meets at once.
var small = bounds{value: 2 << 20, memory: 8 << 20, volume: 256 << 20, steps: 1_000_000, result: 1 << 20, room: 6 << 20}

const (
	tooMuchMemory = "error statement needs more than 8 MiB of memory"
	tooManySteps  = "error statement runs for more than 1000000 steps"
	tooLarge      = "error result is larger than 1 MiB"
	tooMuchTemp   = "error statement needs more than 6 MiB of temporary space"
	tooMuchGrowth = "error statement makes the database grow by more than 6 MiB"
	tooBig        = "error string or blob too big"
)

// hostile are entries that exhaust something, and what their last statement is told.
var hostile = []struct {
	name string
	sql  []string
	want string
}{
	// Values.
	{"huge value", []string{"INSERT INTO t VALUES(zeroblob(2000000000))"}, tooBig},
	{"huge text", []string{"INSERT INTO t VALUES(printf('%*c', 2000000000, 'x'))"}, tooBig},
	{"random bytes", []string{"INSERT INTO t VALUES(randomblob(3000000))"}, tooBig},
	{"repeated replacement", []string{"INSERT INTO t SELECT replace(hex(zeroblob(500000)), '0', 'xxxxxxxxxx')"}, tooBig},
	{"wide row", []string{"INSERT INTO w VALUES(zeroblob(1000000), zeroblob(1000000), zeroblob(1000000))"}, tooBig},

	// Memory.
	{"values side by side", []string{"SELECT count(*) FROM (SELECT DISTINCT " + strings.Repeat("zeroblob(1900000), ", 6) + "1)"}, "read " + tooMuchMemory},
	{"aggregates side by side", []string{unending + "INSERT INTO t SELECT " + strings.Repeat("length(group_concat(zeroblob(100))) + ", 30) + "1 FROM (SELECT x FROM c LIMIT 15000)"}, tooMuchMemory},
	{"JSON", []string{"INSERT INTO t SELECT " + strings.Repeat("length(json_group_array(x || printf('%.500c', 'x'))) + ", 8) + "1 FROM (" + unending + "SELECT x FROM c LIMIT 3000)"}, tooMuchMemory},
	{"long IN list", []string{"SELECT 1 IN (" + strings.Repeat("1,", 400000) + "1)"}, tooMuchMemory},
	{"window of large values", []string{unending + "INSERT INTO t SELECT max(z) OVER (ORDER BY x ROWS BETWEEN 3 PRECEDING AND 3 FOLLOWING) FROM (SELECT x, zeroblob(1900000) AS z FROM c LIMIT 20)"}, tooMuchTemp},
	{"words of a full-text index", []string{"INSERT INTO f(f, rank) VALUES('hashsize', 2000000000)", unending + "INSERT INTO f SELECT hex(randomblob(500)) FROM c LIMIT 10000"}, tooMuchMemory},
	{"in a trigger", []string{"INSERT INTO bad VALUES(1)"}, tooMuchMemory},
	{"views of views", []string{"SELECT count(*) FROM v12"}, tooMuchMemory},

	// Steps.
	{"endless read", []string{unending + "SELECT count(*) FROM c"}, "read " + tooManySteps},
	{"endless write", []string{unending + "INSERT OR REPLACE INTO k SELECT 1, x FROM c"}, tooManySteps},
	{"many finite statements", []string{"SELECT count(*) FROM n, n, n LIMIT 1", "SELECT count(*) FROM n a, n b, n c", "SELECT count(*) FROM n a, n b, n c", "SELECT count(*) FROM n a, n b, n c"}, "read " + tooManySteps},
	{"much memory for a short time", []string{unending + "SELECT count(hex(zeroblob(900000))) FROM c"}, "read " + tooManySteps},

	// Results.
	{"endless rows", []string{unending + "SELECT x FROM c"}, "read " + tooLarge},
	{"rows of nothing", []string{unending + "SELECT NULL FROM c"}, "read " + tooLarge},
	{"one large row", []string{"SELECT " + strings.Repeat("a, ", 500) + "a FROM (SELECT printf('%.10000c', 'x') AS a)"}, "read " + tooLarge},
	{"returned rows", []string{unending + "INSERT INTO t SELECT x FROM c LIMIT 30000 RETURNING a"}, "read " + tooLarge},
	{"results together", []string{"SELECT printf('%.600000c', 'x')", "SELECT printf('%.600000c', 'x')"}, "read " + tooLarge},
	{"long names", []string{`SELECT 1 AS "` + strings.Repeat("x", 600000) + `", 2 AS "` + strings.Repeat("y", 600000) + `"`}, "read " + tooLarge},

	// Disk.
	{"sort", []string{unending + "INSERT INTO t SELECT 1 FROM (SELECT x FROM c ORDER BY randomblob(1000) LIMIT -1 OFFSET 10) LIMIT 1"}, tooMuchTemp},
	{"temporary table", []string{"CREATE TEMP TABLE tmp(a)", unending + "INSERT INTO tmp SELECT randomblob(10000) FROM c"}, tooMuchTemp},
	{"materialised rows", []string{unending + ", m AS MATERIALIZED (SELECT x, randomblob(1000) AS r FROM c) SELECT count(*) FROM m"}, "read " + tooMuchTemp},
	{"two temporary files", []string{"CREATE TEMP TABLE tmp(a)", unending + "INSERT INTO tmp SELECT randomblob(10000) FROM c LIMIT 400", unending + "SELECT count(*) FROM (SELECT DISTINCT randomblob(1000) FROM c LIMIT 4000)"}, "read " + tooMuchTemp},
	{"endless insert", []string{unending + "INSERT INTO t SELECT zeroblob(5000) FROM c"}, tooMuchGrowth},

	// Settings that would move memory out of sight.
	{"settings", []string{"PRAGMA cache_size=-10000000", "PRAGMA cache_spill=0", "PRAGMA temp_store=2", "PRAGMA mmap_size=1000000000", "PRAGMA threads=8",
		"SELECT c.cache_size, t.temp_store, n.threads FROM pragma_cache_size c, pragma_temp_store t, pragma_threads n"}, "[[-2000,0,0]]"},
	{"temporary table in memory", []string{"PRAGMA temp_store=MEMORY", "CREATE TEMP TABLE tmp(a)", unending + "INSERT INTO tmp SELECT randomblob(10000) FROM c"}, tooMuchTemp},

	// This leaves a larger database, and with it more room for those after it.
	{"index", []string{unending + "INSERT INTO t SELECT x || zeroblob(4000) FROM c LIMIT 1300", "CREATE INDEX ti ON t(a)"}, tooMuchGrowth},

	// What ends well.
	{"below all bounds", []string{unending + "INSERT INTO t SELECT x FROM c LIMIT 10000", "DELETE FROM t WHERE a > 5"}, "10000/9995"},
}

// prepareHostile makes what the hostile entries need.
func prepareHostile() []string {
	sql := []string{
		"CREATE TABLE t (a)", "CREATE TABLE w (a, b, c)", "CREATE TABLE k (id INTEGER PRIMARY KEY, a)", "CREATE TABLE n (a)", "CREATE VIRTUAL TABLE f USING fts5(a, content='')",
		unending + "INSERT INTO n SELECT x FROM c LIMIT 50",
		"CREATE TABLE bad (a)",
		"CREATE TRIGGER tr AFTER INSERT ON bad BEGIN INSERT INTO t SELECT count(*) FROM (SELECT DISTINCT " + strings.Repeat("zeroblob(1900000), ", 6) + "1); END",
		"CREATE VIEW v0 AS SELECT a + 1 AS a FROM n LIMIT 10",
	}
	for i := 1; i <= 12; i++ {
		sql = append(sql, fmt.Sprintf("CREATE VIEW v%d AS SELECT * FROM v%d UNION ALL SELECT * FROM v%d", i, i-1, i-1))
	}
	return sql
}

// tryRequest applies statements, of which any may fail, as a Unified request.
func tryRequest(t testing.TB, d *DB, sql ...string) *command.Response {
	t.Helper()
	req := command.Request{Kind: command.Unified, Statements: statements(sql...)}
	for i := range req.Statements {
		req.Statements[i].Returning = scanSQL(sql[i]).returning
	}
	return request(t, d, req)
}

// TestBounds applies hostile entries to a database that is used all the time, with whatever it has cached,
// and to one whose connection is new for each entry. Results and content must be equal, and the next
// statement must work. At last the log is applied again from its start.
func TestBounds(t *testing.T) {
	t.Parallel()
	used, fresh, again := open(t, testPath(t), Config{bounds: small}), open(t, testPath(t), Config{bounds: small}), open(t, testPath(t), Config{bounds: small})
	setup := prepareHostile()
	for _, d := range []*DB{used, fresh, again} {
		exec(t, d, setup...)
	}
	warm := []string{"INSERT INTO k(a) VALUES(1)", "INSERT INTO f VALUES('some words')", "SELECT count(*) FROM n", "UPDATE k SET a=a+1", "DELETE FROM t"}
	var log [][]string
	for _, tt := range hostile {
		t.Run(tt.name, func(t *testing.T) {
			if err := fresh.reopenWriter(); err != nil {
				t.Fatal(err)
			}
			oldUsed, oldFresh := used.writer, fresh.writer
			got, other := show(tryRequest(t, used, tt.sql...).Results...), show(tryRequest(t, fresh, tt.sql...).Results...)
			if !oldUsed.used.like(oldFresh.used) {
				t.Errorf("used on a used connection %+v, and on a new one %+v", oldUsed.used, oldFresh.used)
			}
			if got != other {
				t.Fatalf("results differ:\n%s\n%s", got, other)
			}
			results := strings.Split(got, "; ")
			if last := results[len(results)-1]; last != tt.want {
				t.Errorf("last result is %.300s, want %s", last, tt.want)
			}
			if a, b := dump(t, used), dump(t, fresh); a != b {
				t.Errorf("databases differ:\n%.1000s\n%.1000s", a, b)
			}
			for _, d := range []*DB{used, fresh} {
				exec(t, d, warm...)
			}
			log = append(log, tt.sql, warm)
		})
	}
	for _, sql := range log {
		tryRequest(t, again, sql...)
	}
	if a, b := dump(t, used), dump(t, again); a != b {
		t.Errorf("applied again, databases differ:\n%.1000s\n%.1000s", a, b)
	}
}

// like says whether two replicas may have used u and v: the same, but for some objects that SQLite makes once for
// a connection (its error message, the caches of full-text tables).
func (u usage) like(v usage) bool {
	return max(u.memory-v.memory, v.memory-u.memory) < 4<<10 && max(u.volume-v.volume, v.volume-u.volume) < 64<<10 && u.steps == v.steps && u.result == v.result
}

// TestBoundInTransaction: a bound may take back the statement alone or its whole transaction, as SQLite does
// with the code that it makes of it. The results must say which.
func TestBoundInTransaction(t *testing.T) {
	const back = "error " + msgTakenBack
	tests := []struct {
		name string
		sql  []string
		want string
		rows int64 // in the table afterwards
	}{
		{"memory, of one statement", []string{"BEGIN", "INSERT INTO t VALUES(1)", "INSERT INTO t SELECT zeroblob(1900000) FROM t, (SELECT DISTINCT " + strings.Repeat("zeroblob(1900000), ", 6) + "1)", "INSERT INTO t VALUES(2)", "COMMIT"},
			"null; 1/1; " + tooMuchMemory + "; 2/1; null", 2},
		{"steps", []string{"INSERT INTO t VALUES(0)", "BEGIN", "INSERT INTO t VALUES(1)", unending + "INSERT OR REPLACE INTO k SELECT 1, x FROM c", "INSERT INTO t VALUES(2)", "COMMIT"},
			"1/1; read " + back + "; " + back + "; " + tooManySteps + "; 2/1; read error cannot commit - no transaction is active", 2},
		{"result of a read", []string{"BEGIN", "INSERT INTO t VALUES(1)", unending + "SELECT x FROM c", "COMMIT"}, "null; 1/1; read " + tooLarge + "; null", 1},
		{"result of a write", []string{"BEGIN", "INSERT INTO t VALUES(1)", unending + "INSERT INTO t SELECT x FROM c LIMIT 30000 RETURNING a", "INSERT INTO t VALUES(2)"},
			"read " + back + "; " + back + "; read " + tooLarge + "; 1/1", 1},
		{"prepare", []string{"BEGIN", "INSERT INTO t VALUES(1)", "SELECT 1 IN (" + strings.Repeat("1,", 400000) + "1)", "COMMIT"}, "null; 1/1; " + tooMuchMemory + "; null", 1},
		{"growth", []string{"BEGIN", "INSERT INTO t VALUES(1)", unending + "INSERT INTO t SELECT zeroblob(5000) FROM c", "COMMIT"}, "null; 1/1; " + tooMuchGrowth + "; null", 1},
		{"temporary space", []string{"BEGIN", "INSERT INTO t VALUES(1)", unending + "INSERT INTO t SELECT 1 FROM (SELECT x FROM c ORDER BY randomblob(1000) LIMIT -1 OFFSET 10) LIMIT 1", "COMMIT"}, "null; 1/1; " + tooMuchTemp + "; null", 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := open(t, testPath(t), Config{bounds: small})
			exec(t, d, "CREATE TABLE t (a)", "CREATE TABLE k (id INTEGER PRIMARY KEY, a)")
			if got := show(tryRequest(t, d, tt.sql...).Results...); got != tt.want {
				t.Errorf("results are\n%.600s, want\n%s", got, tt.want)
			}
			if got := value(t, d, "SELECT count(*) FROM t"); got != tt.rows {
				t.Errorf("%v rows, want %d", got, tt.rows)
			}
			exec(t, d, "INSERT INTO t VALUES('works')")
		})
	}
}

// TestBoundInRequestTransaction: a request that is a transaction ends with the statement that meets a bound.
func TestBoundInRequestTransaction(t *testing.T) {
	for _, sql := range []string{unending + "INSERT OR REPLACE INTO k SELECT 1, x FROM c", unending + "INSERT INTO k(a) SELECT zeroblob(5000) FROM c",
		unending + "INSERT INTO k(a) SELECT x FROM c LIMIT 30000 RETURNING a"} {
		d := open(t, testPath(t), Config{bounds: small})
		exec(t, d, "CREATE TABLE k (id INTEGER PRIMARY KEY, a)")
		req := command.Request{Kind: command.Execute, Transaction: true, Statements: statements("INSERT INTO k VALUES(1, 1)", sql, "INSERT INTO k VALUES(2, 2)")}
		req.Statements[1].Returning = scanSQL(sql).returning
		resp := request(t, d, req)
		if len(resp.Results) != 2 || resp.Results[1].Error == "" {
			t.Errorf("%s: results are %s, want two and the last an error", sql, show(resp.Results...))
		}
		if got := value(t, d, "SELECT count(*) FROM k"); got != int64(0) {
			t.Errorf("%s: %v rows, want 0", sql, got)
		}
	}
}

// TestBoundParameter binds more than a value may have.
func TestBoundParameter(t *testing.T) {
	d := open(t, testPath(t), Config{bounds: small})
	exec(t, d, "CREATE TABLE t (a)")
	for _, v := range []any{strings.Repeat("x", small.value+1), make([]byte, small.value+1)} {
		req := command.Request{Kind: command.Execute, Statements: []command.Statement{{SQL: "INSERT INTO t VALUES(?)", Params: []command.Param{{Value: v}}}, {SQL: "INSERT INTO t VALUES(1)"}}}
		if got, want := show(request(t, d, req).Results...), tooBig+"; "; !strings.HasPrefix(got, want) || strings.HasSuffix(got, "big") {
			t.Errorf("results are %s, want %s and a success", got, want)
		}
	}
}

// TestBoundsAreOfTheEntry: the statements of an entry share a bound, and an entry does not inherit what
// another has used up.
func TestBoundsAreOfTheEntry(t *testing.T) {
	d := open(t, testPath(t), Config{bounds: small})
	exec(t, d, "CREATE TABLE n (a)", unending+"INSERT INTO n SELECT x FROM c LIMIT 50")
	for range 20 {
		exec(t, d, "INSERT INTO n SELECT a.a FROM n a, n b, n c WHERE a.a + b.a + c.a < 0")
	}
	grow := unending + "INSERT INTO n SELECT zeroblob(50000) FROM c LIMIT 70"
	if got, want := show(tryRequest(t, d, grow, grow).Results...), "120/70; "+tooMuchGrowth; got != want {
		t.Errorf("two statements that grow the database give %s, want %s", got, want)
	}
	if got, want := show(tryRequest(t, d, grow).Results...), "190/70"; got != want {
		t.Errorf("the second alone gives %s, want %s", got, want)
	}
}

// TestTemporaryFiles: they lie beside the database and have no name; what a crash has left goes at the start.
func TestTemporaryFiles(t *testing.T) {
	d := openNew(t)
	if err := d.writer.exec("CREATE TEMP TABLE tmp AS " + unending + "SELECT zeroblob(1000000) FROM c LIMIT 10"); err != nil {
		t.Fatal(err)
	}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc:", err)
	}
	found := false
	for _, fd := range fds {
		name, _ := os.Readlink("/proc/self/fd/" + fd.Name()) // some are closed by now
		found = found || strings.HasPrefix(name, d.path+tempSuffix) && strings.HasSuffix(name, " (deleted)")
	}
	if !found {
		t.Error("no deleted temporary file beside the database is open")
	}
	path := testPath(t)
	litter := path + tempSuffix + "17"
	if err := os.WriteFile(litter, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	open(t, path, Config{})
	if _, err := os.Stat(litter); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s after a start: %v, want that it does not exist", filepath.Base(litter), err)
	}
}

// inChild runs the test that calls it again in a process of its own, for what can't be undone in a process,
// and returns true there.
func inChild(t *testing.T) bool {
	t.Helper()
	const key = "RQLITED_TEST_CHILD"
	if os.Getenv(key) != "" {
		return true
	}
	p, err := os.StartProcess(os.Args[0], []string{os.Args[0], "-test.run=^" + t.Name() + "$", "-test.timeout=1m"},
		&os.ProcAttr{Env: append(os.Environ(), key+"=1"), Files: []*os.File{nil, os.Stderr, os.Stderr}})
	if err != nil {
		t.Fatal(err)
	}
	if state, err := p.Wait(); err != nil || !state.Success() {
		t.Errorf("in a process of its own: %v, %v", state, err)
	}
	return false
}

// TestRealNoMemory: memory that the machine does not give is no result.
func TestRealNoMemory(t *testing.T) {
	if !inChild(t) {
		return
	}
	d := openNew(t)
	exec(t, d, "CREATE TABLE t (a)")
	if err := d.writer.exec("PRAGMA hard_heap_limit=20000000"); err != nil { // of the whole process, below all bounds
		t.Fatal(err)
	}
	for _, sql := range []string{"INSERT INTO t VALUES(hex(zeroblob(15000000)))", "SELECT 1 IN (" + strings.Repeat("1,", 1000000) + "1)"} {
		_, err := d.Apply(&command.Entry{Kind: command.Execute, Request: &command.Request{Kind: command.Execute, Statements: statements(sql)}})
		var e *sqlError
		if !errors.As(err, &e) || e.code != codeNoMem || !machineError(e) {
			t.Errorf("Apply without memory = %v, want SQLITE_NOMEM", err)
		}
	}
}

// TestProcessMemory meets the bounds of a real cluster, and looks at what the process has needed.
func TestProcessMemory(t *testing.T) {
	t.Parallel()
	if !inChild(t) {
		return
	}
	d := openNew(t)
	exec(t, d, "CREATE TABLE t (a)")
	for sql, want := range map[string]string{
		"INSERT INTO t SELECT count(*) FROM (SELECT DISTINCT " + strings.Repeat("zeroblob(120000000), ", 6) + "1)": "error statement needs more than 512 MiB of memory",
		"SELECT 1 IN (" + strings.Repeat("1,", 4000000) + "1)":                                                     "error statement needs more than 512 MiB of memory",
		"SELECT zeroblob(60000000), zeroblob(60000000)":                                                            "read error result is larger than 64 MiB",
	} {
		if got := show(tryRequest(t, d, sql).Results...); got != want {
			t.Errorf("%.60s: %s, want %s", sql, got, want)
		}
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Skip("no /proc:", err)
	}
	_, after, _ := strings.Cut(string(status), "VmHWM:")
	kib, err := strconv.Atoi(strings.Fields(after)[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("process memory: at most %d MiB", kib>>10)
	// What an entry may need: 512 MiB while it is run and 512 MiB of the statement that is being prepared, 64 MiB of rows
	// twice over, and some for the process itself, which is more under the race detector.
	if kib > 1200<<10 {
		t.Errorf("the process has needed %d MiB, want at most 1200", kib>>10)
	}
}

// TestStandardBounds keeps the table for people equal to the numbers that hold.
func TestStandardBounds(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join("..", "docs", "design", "consistency.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{size(int64(standard.value)), size(standard.memory), size(standard.volume), size(standard.result), size(standard.room), strconv.FormatInt(standard.steps, 10)} {
		if !strings.Contains(string(doc), want) {
			t.Errorf("%q is missing in consistency.md", want)
		}
	}
}
