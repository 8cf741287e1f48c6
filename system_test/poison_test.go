package system

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// poison is a request that asks for as much memory as SQL can.
type poison struct {
	name string
	path string
	sqls []string
}

// count is a table expression with n rows.
func count(n int) string {
	return fmt.Sprintf("(WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT %d) SELECT x FROM c)", n)
}

// times repeats a text with commas between.
func times(n int, text string) string {
	return strings.TrimSuffix(strings.Repeat(text+",", n), ",")
}

// wide are the columns of a table that has as many as SQLite allows.
func wide() string {
	var cols []string
	for i := range 2000 {
		cols = append(cols, fmt.Sprintf("c%d", i))
	}
	return strings.Join(cols, ",")
}

// many is the same statement often.
func many(n int, sql string) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = sql
	}
	return all
}

// poisons all reach the log: what only reads is sent with a write, as one request.
func poisons() []poison {
	const write = "INSERT INTO foo(v) VALUES ('with a read')"
	const execute, request = "/db/execute?", "/db/request?"
	return []poison{
		{"gigantic result of a recursion", request, []string{write, "SELECT x, x, x FROM " + count(50_000_000)}},
		{"gigantic result of long rows", request, []string{write, "SELECT hex(zeroblob(500000)) FROM " + count(3000)}},
		{"gigantic result of a join", request, []string{write, "SELECT a.v, b.v, c.v FROM some a, some b, some c"}},
		{"gigantic results of many statements", request, append(many(2000, "SELECT hex(zeroblob(500000))"), write)},
		{"long value in a result", request, []string{write, "SELECT hex(zeroblob(450000000))"}},
		{"long blob", execute, []string{"INSERT INTO foo(v) VALUES (randomblob(900000000))"}},
		{"long zeros", execute, []string{"INSERT INTO foo(v) VALUES (zeroblob(999999999))"}},
		{"long zeros, updated", execute, []string{"INSERT INTO foo(v) VALUES (zeroblob(100000000))", "UPDATE foo SET v = v || v || v || v WHERE length(v) > 1000000", "DELETE FROM foo WHERE length(v) > 1000000"}},
		{"longer than any value", execute, []string{"INSERT INTO foo(v) VALUES (zeroblob(3000000000))"}},
		{"hex of hex", execute, []string{"INSERT INTO foo(v) SELECT hex(hex(hex(zeroblob(100000000))))"}},
		{"replace", execute, []string{"INSERT INTO foo(v) SELECT replace(hex(zeroblob(400000)), '0', hex(zeroblob(600)))"}},
		{"replace thrice", execute, []string{"INSERT INTO foo(v) SELECT replace(replace(replace('aaaaaaaaaa', 'a', hex(zeroblob(500))), '0', hex(zeroblob(50))), '0', hex(zeroblob(500)))"}},
		{"group_concat", execute, []string{"INSERT INTO foo(v) SELECT group_concat(hex(zeroblob(100000))) FROM " + count(5000)}},
		{"group_concat of many groups", execute, []string{"INSERT INTO foo(v) SELECT length(max(g)) FROM (SELECT group_concat(hex(zeroblob(50000))) AS g FROM " + count(20000) + " GROUP BY x % 20)"}},
		{"json_group_array", execute, []string{"INSERT INTO foo(v) SELECT json_group_array(hex(zeroblob(100000))) FROM " + count(5000)}},
		{"printf", execute, []string{"INSERT INTO foo(v) VALUES (printf('%.900000000d', 1))", "INSERT INTO foo(v) VALUES (printf('%900000000s', 'x'))", "INSERT INTO foo(v) VALUES (printf('%*s', 2000000000, 'x'))"}},
		{"printf of many", execute, []string{"INSERT INTO foo(v) VALUES (printf('" + strings.Repeat("%500000d", 2000) + "'" + strings.Repeat(", 1", 2000) + "))"}},
		{"many values at a time", execute, []string{"INSERT INTO foo(v) SELECT length(" + strings.Join(many(90, "hex(zeroblob(40000000))"), ") + length(") + ")"}},
		{"many long arguments", execute, []string{"INSERT INTO foo(v) SELECT length(coalesce(" + times(90, "nullif(zeroblob(30000000), randomblob(30000000))") + "))"}},
		{"wide row", execute, []string{"CREATE TABLE wide (" + wide() + ")", "INSERT INTO wide VALUES (" + times(2000, "randomblob(1000000)") + ")"}},
		{"wide rows", execute, []string{"INSERT INTO wide SELECT " + times(2000, "randomblob(20000)") + " FROM " + count(10), "UPDATE wide SET c0 = c1 || c2, c1999 = c1998 || c3", "DELETE FROM wide"}},
		{"long IN list", execute, []string{"DELETE FROM foo WHERE id IN (" + times(200_000, "123456789") + ")"}},
		{"long VALUES", execute, []string{"INSERT INTO foo(v) SELECT count(*) FROM (VALUES " + times(200_000, "(1)") + ")"}},
		{"sort of many rows", execute, []string{"INSERT INTO foo(v) SELECT max(r) FROM (SELECT random() AS r FROM " + count(10_000_000) + " ORDER BY r LIMIT 10000000)"}},
		{"sort of long rows", execute, []string{"INSERT INTO foo(v) SELECT length(b) FROM (SELECT randomblob(1000000) AS b FROM " + count(1000) + " ORDER BY b LIMIT 1)"}},
		{"window over long rows", execute, []string{"INSERT INTO foo(v) SELECT max(n) FROM (SELECT length(first_value(b) OVER (ORDER BY x ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)) AS n FROM (SELECT x, randomblob(1000000) AS b FROM " + count(1000) + "))"}},
		{"distinct long rows", execute, []string{"INSERT INTO foo(v) SELECT count(*) FROM (SELECT DISTINCT randomblob(1000000) FROM " + count(1000) + ")"}},
		{"materialized recursion", execute, []string{"INSERT INTO foo(v) WITH RECURSIVE c(x, b) AS (SELECT 1, zeroblob(1000000) UNION SELECT x + 1, randomblob(1000000) FROM c LIMIT 1000) SELECT length(b) FROM c WHERE x = 1"}},
		{"doubling recursion", execute, []string{"INSERT INTO foo(v) WITH RECURSIVE c(s) AS (SELECT 'ab' UNION ALL SELECT s || s FROM c LIMIT 40) SELECT length(max(s)) FROM c"}},
		{"RETURNING everything", execute, []string{"UPDATE some SET v = v RETURNING *, hex(zeroblob(1000000))"}},
		{"RETURNING of an INSERT", request, []string{"INSERT INTO foo(v) SELECT x FROM " + count(1_000_000) + " RETURNING *, v || v || v", "DELETE FROM foo WHERE id > 10"}},
		{"temporary table", execute, []string{"CREATE TEMP TABLE t AS SELECT randomblob(1000000) AS b FROM " + count(1000), "INSERT INTO foo(v) SELECT count(*) FROM t"}},
		{"big transaction", execute, []string{"INSERT INTO foo(v) SELECT randomblob(100000) FROM " + count(4000), "DELETE FROM foo WHERE id > 10"}},
		{"recursive trigger", execute, []string{"PRAGMA recursive_triggers = ON", "CREATE TRIGGER again AFTER INSERT ON deep BEGIN INSERT INTO deep VALUES (new.n + 1, randomblob(1000000)); END", "INSERT INTO deep VALUES (1, NULL)", "DROP TRIGGER again", "DELETE FROM deep"}},
		{"JSON", execute, []string{"INSERT INTO foo(v) SELECT length(json_object('a', json('[' || replace(hex(zeroblob(5000000)), '0', '[],') || '0]')))", "INSERT INTO foo(v) SELECT count(*) FROM json_each('[' || replace(hex(zeroblob(5000000)), '0', '0,') || '0]')"}},
		{"like a bomb", execute, []string{"INSERT INTO foo(v) SELECT hex(zeroblob(20000)) LIKE '" + strings.Repeat("%0", 20) + "1'"}},
		{"full-text index", execute, []string{"CREATE VIRTUAL TABLE words USING fts5(w)", "INSERT INTO words SELECT replace(hex(randomblob(30000000)), 'A', ' ')", "DROP TABLE words"}},
	}
}

// heavyRequest bounds a request that is meant to take long.
const heavyRequest = 10 * time.Minute

// mostMemory bounds the memory of a node at any time: its peak of resident bytes (VmHWM). A statement may
// use 512 MiB in SQLite and an entry may have 64 MiB of results; page cache, log, Go's garbage and the
// rendering of the answer come on top. The race detector takes a multiple of what is Go's.
func mostMemory() int64 {
	if *flagRace {
		return 5 << 29
	}
	return 3 << 29
}

// TestPoison sends statements that exhaust memory, if nothing bounds it, to a cluster with ordinary
// flags. Each gets an answer; no node ends, none needs more memory than it may; and since each is in the
// log, all nodes survive its replay too.
func TestPoison(t *testing.T) {
	if !long() {
		t.Skip("NOT TESTED in the short form: statements that use up all memory; they take minutes")
	}
	c := startCluster(t, 3)
	c[0].execute("CREATE TABLE foo (id INTEGER PRIMARY KEY, v)", "CREATE TABLE some (id INTEGER PRIMARY KEY, v)", "CREATE TABLE deep (n, b)")
	c[0].execute("INSERT INTO some(v) SELECT printf('%050d', x) FROM " + count(1000))
	for i, p := range poisons() {
		t.Run(p.name, func(t *testing.T) { p.give(t, c, c[i%3]) })
	}
	c.sameHash()
	for _, n := range c {
		n.kill()
		n.forgetDatabase()
		n.start()
		c.waitReady()
	}
	c.sameHash()
	for _, n := range c {
		if got := n.peak(); got > mostMemory() {
			t.Errorf("%s has used %d MiB in the replay; want at most %d", n.id, got>>20, mostMemory()>>20)
		}
	}
}

// give sends the request to a node of the cluster.
func (p poison) give(t *testing.T, c cluster, n *node) {
	for _, n := range c {
		n.forgetPeak()
	}
	start := time.Now()
	body, err := json.Marshal(p.sqls)
	if err != nil {
		t.Fatal(err)
	}
	a, err := n.do(heavyRequest, http.MethodPost, p.path+"timeout=10m&db_timeout=10m", "application/json", string(body))
	if err != nil {
		t.Fatal(err)
	}
	if a.status == http.StatusOK && !json.Valid([]byte(a.body)) {
		t.Errorf("%d bytes of answer that are no JSON", len(a.body))
	}
	c.waitReady()
	most := int64(0)
	for _, n := range c {
		most = max(most, n.peak())
	}
	t.Logf("%s, %d MiB, %d %.150q", time.Since(start).Round(10*time.Millisecond), most>>20, a.status, a.body)
	if most > mostMemory() {
		t.Errorf("a node has used %d MiB; want at most %d", most>>20, mostMemory()>>20)
	}
}

// forgetPeak has the kernel begin anew with the peak of the node's memory.
func (n *node) forgetPeak() {
	n.t.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", n.proc.cmd.Process.Pid), []byte("5"), 0); err != nil {
		n.t.Fatal(err)
	}
}

// peak returns the most memory that the node's process has had, in bytes.
func (n *node) peak() int64 {
	n.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.proc.cmd.Process.Pid))
	if err != nil {
		n.t.Fatal(err)
	}
	_, rest, _ := bytes.Cut(text, []byte("VmHWM:"))
	kilobytes, _, _ := strings.Cut(strings.TrimSpace(string(rest)), " ")
	kb, err := strconv.ParseInt(kilobytes, 10, 64)
	if err != nil {
		n.t.Fatalf("%s: peak of memory: %v", n.id, err)
	}
	return kb << 10
}
