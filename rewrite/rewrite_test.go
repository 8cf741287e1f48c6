package rewrite

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

// fixed are sources of which each random number is 1 more than the one before.
func fixed() Sources {
	n := uint64(0)
	return Sources{
		Now:    time.Date(2026, 11, 23, 1, 9, 43, 123e6, time.FixedZone("elsewhere", -5*60*60)),
		Random: func() uint64 { n++; return n<<7 | n<<1 },
	}
}

const now = "2461367.756749109" // of fixed, in UTC

func TestText(t *testing.T) {
	tests := []struct{ sql, want string }{
		{"SELECT random()", "SELECT 65"},
		{"INSERT INTO foo(x) VALUES(?)", `INSERT INTO "foo" ("x") VALUES (?)`},
		{"SELECT 1", "SELECT 1"},
		{"select  a,b /* c */ from  t -- d\nwhere x is not null;", `SELECT "a", "b" FROM "t" WHERE "x" IS NOT NULL`},
		{"SELECT 1;; SELECT random();", "SELECT 1; SELECT 65"},

		// random
		{"SELECT RANDOM( ), Random(1, (2)), \"random\"()", "SELECT 65, 130, 195"},
		{"SELECT random() FROM t ORDER BY random() LIMIT abs(random())", `SELECT 65 FROM "t" ORDER BY random() LIMIT abs(130)`},
		{"SELECT a FROM t ORDER BY (SELECT random())", `SELECT "a" FROM "t" ORDER BY (SELECT random())`},
		{"SELECT sum(a) OVER (PARTITION BY random() ORDER BY random()), random()", `SELECT sum("a") OVER (PARTITION BY 65 ORDER BY random()), 130`},
		{"SELECT * FROM (SELECT random() ORDER BY 1) WHERE random()>1", `SELECT * FROM (SELECT 65 ORDER BY 1) WHERE 130 > 1`},
		{"WITH c AS (SELECT random()) SELECT * FROM c", `WITH "c" AS (SELECT 65) SELECT * FROM "c"`},
		{"INSERT INTO t VALUES((SELECT random())),(random())", `INSERT INTO "t" VALUES ((SELECT 65)), (130)`},
		{"UPDATE t SET a=(SELECT random())", `UPDATE "t" SET "a" = (SELECT 65)`},
		{"SELECT random FROM random WHERE t.random=1", `SELECT "random" FROM "random" WHERE "t"."random" = 1`},
		{"INSERT INTO random(random) SELECT 'random()'", `INSERT INTO "random" ("random") SELECT 'random()'`},
		{"WITH random(a) AS (VALUES(1)), date(now) AS (VALUES(2)) SELECT 1", `WITH "random" ("a") AS (VALUES (1)), "date" ("now") AS (VALUES (2)) SELECT 1`},
		{"SELECT randomblob(2), RANDOMBLOB(0), randomblob(0x1)", "SELECT x'0102', x'03', x'04'"},
		{"SELECT randomblob(-1), randomblob(1+1), randomblob('1'), randomblob(?)", "SELECT randomblob(-1), randomblob(1 + 1), randomblob('1'), randomblob(?)"},
		{"SELECT 1 ORDER BY randomblob(1)", "SELECT 1 ORDER BY randomblob(1)"},

		// time
		{"SELECT date('now'), TIME(\"NOW\",'localtime'), datetime(now)", "SELECT date(" + now + "), TIME(" + now + ", 'localtime'), datetime(" + now + ")"},
		{"SELECT julianday('now')-unixepoch('Now')", "SELECT julianday(" + now + ") - unixepoch(" + now + ")"},
		{"SELECT strftime('%Y','now','utc'), strftime('now'), strftime('now','x')", "SELECT strftime('%Y', " + now + ", 'utc'), strftime('now'), strftime('now', 'x')"},
		{"SELECT timediff('now',a), timediff(a,'now'), timediff('now','now')", `SELECT timediff(` + now + `, "a"), timediff("a", ` + now + `), timediff(` + now + ", " + now + ")"},
		{"SELECT date('now ') || date('now'||'') || date(x,'now')", `SELECT date('now ') || date('now' || '') || date("x", 'now')`},
		{"SELECT date(), datetime(), strftime('%Y'), current_timestamp, current_date, Current_Time", "SELECT date(), datetime(), strftime('%Y'), CURRENT_TIMESTAMP, CURRENT_DATE, CURRENT_TIME"},
		{"SELECT a FROM t ORDER BY date('now')", `SELECT "a" FROM "t" ORDER BY date(` + now + ")"},
		{"SELECT datetime(date('now'),'now')", "SELECT datetime(date(" + now + "), 'now')"},
		{"INSERT INTO t AS date VALUES(1) ON CONFLICT(a) DO UPDATE SET b=date('now')", `INSERT INTO "t" AS "date" VALUES (1) ON CONFLICT ("a") DO UPDATE SET "b" = date(` + now + ")"},

		// schemas
		{"CREATE TABLE t(a DEFAULT (random()), b  DEFAULT (date('now')))", "CREATE TABLE t(a DEFAULT (random()), b  DEFAULT (date('now')))"},
		{"create view v as select random()", "create view v as select random()"},
		{"CREATE TRIGGER r AFTER INSERT ON t BEGIN UPDATE t SET a=CASE 1 WHEN 1 THEN 2 END; SELECT random(); END; select random()",
			"CREATE TRIGGER r AFTER INSERT ON t BEGIN UPDATE t SET a=CASE 1 WHEN 1 THEN 2 END; SELECT random(); END; SELECT 65"},
		{"ALTER TABLE t ADD COLUMN c DEFAULT (random()) -- x", "ALTER TABLE t ADD COLUMN c DEFAULT (random())"},
		{"PRAGMA main.user_version = 5 ;", "PRAGMA main.user_version = 5"},
		{"CREATE TABLE t(a) ; PRAGMA foreign_keys(1)", "CREATE TABLE t(a); PRAGMA foreign_keys(1)"},
		{"CREATE TEMP TABLE IF NOT EXISTS t AS  SELECT a+b, random( ) AS c, date('now') /**/ FROM x", "CREATE TEMP TABLE IF NOT EXISTS t AS  SELECT a+b, 65 AS c, date(" + now + ") /**/ FROM x"},
		{"explain query plan create table t(a)", "EXPLAIN QUERY PLAN create table t(a)"},

		// what tokens become
		{"SELECT [a b], `c\"d`, \"e\"\"f\", 'g''h', X'00ff', :a, @b, $c::d(e), ?1, 1.5e-3, .5, 1_000, 0xFF", `SELECT "a b", "c""d", "e""f", 'g''h', X'00ff', :a, @b, $c::d(e), ?1, 1.5e-3, .5, 1_000, 0xFF`},
		{"SELECT -1, - -1, a-1, a - -1, +a, ~a, (-1), a*b, count(*), t.*", `SELECT -1, - -1, "a" - 1, "a" - -1, +"a", ~"a", (-1), "a" * "b", count(*), "t".*`},
		{"SELECT a->'b'->>'c', a||b, a<=b, a<>b, a!=b, a==b, a<<1>>2&3|4%5", `SELECT "a" -> 'b' ->> 'c', "a" || "b", "a" <= "b", "a" <> "b", "a" != "b", "a" == "b", "a" << 1 >> 2 & 3 | 4 % 5`},
		{"SELECT CAST(a AS varchar(10)), CAST(b AS double precision) AS text", `SELECT CAST("a" AS varchar (10)), CAST("b" AS double precision) AS "text"`},
		{"SELECT case when a then 1 else 2 end AS end, key, t.key, replace(a,'b','c') AS replace", `SELECT CASE WHEN "a" THEN 1 ELSE 2 END AS "end", key, "t"."key", replace("a", 'b', 'c') AS "replace"`},
		{"select a from t left join u using(b) where a like 'x' escape '!' group by (a) having 1 order by a desc nulls last limit 1 offset 2",
			`SELECT "a" FROM "t" LEFT JOIN "u" USING ("b") WHERE "a" LIKE 'x' ESCAPE '!' GROUP BY ("a") HAVING 1 ORDER BY "a" DESC NULLS LAST LIMIT 1 OFFSET 2`},
		{"replace into t values(true,false,null)", `REPLACE INTO "t" VALUES (TRUE, FALSE, NULL)`},
		{"insert or ignore into main.t(a) select x is true from json_each('[1]')", `INSERT OR IGNORE INTO "main"."t" ("a") SELECT "x" IS TRUE FROM json_each('[1]')`},
		{"select sum(a) filter(where b) over w from t window w as (rows between 1 preceding and current row)",
			`SELECT sum("a") FILTER (WHERE "b") OVER "w" FROM "t" WINDOW "w" AS (ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)`},
		{"with recursive c as not materialized (select 1) delete from t where a in c returning *", `WITH RECURSIVE "c" AS NOT MATERIALIZED (SELECT 1) DELETE FROM "t" WHERE "a" IN "c" RETURNING *`},
		{"begin immediate; rollback to savepoint a; release a; drop table if exists t; vacuum main into 'x'; end",
			`BEGIN IMMEDIATE; ROLLBACK TO SAVEPOINT "a"; RELEASE "a"; DROP TABLE IF EXISTS "t"; VACUUM "main" INTO 'x'; END`},
		{"SELECT 1\x00 FROM", "SELECT 1"},
		{"\ufeffSELECT 1 /* open", "SELECT 1"},
	}
	for _, tt := range tests {
		if got, err := Text(tt.sql, fixed()); got != tt.want || err != nil {
			t.Errorf("Text(%q) =\n     %s, %v; want\n     %s", tt.sql, got, err, tt.want)
		}
	}
}

// TestErrors has texts that are not SQL, with the words that SQLite has for them.
func TestErrors(t *testing.T) {
	tests := []struct{ sql, want string }{
		{"BAD SQL", `near "BAD": syntax error`},
		{"SELECT 1; BAD", `near "BAD": syntax error`},
		{"EXPLAIN BAD", `near "BAD": syntax error`},
		{"(SELECT 1)", `near "(": syntax error`},
		{"1", `near "1": syntax error`},
		{"SELECT", "incomplete input"},
		{"EXPLAIN", "incomplete input"},
		{"SELECT (1", "incomplete input"},
		{"SELECT random(", "incomplete input"},
		{"SELECT 1)", `near ")": syntax error`},
		{"CREATE TABLE t(a))", `near ")": syntax error`},
		{"SELECT FROM t", `near "FROM": syntax error`},
		{"SELECT a, FROM t", `near "FROM": syntax error`},
		{"SELECT a FROM t WHERE;", `near ";": syntax error`},
		{"SELECT a FROM t WHERE", "incomplete input"},
		{"SELECT 1 + ", "incomplete input"},
		{"SELECT 1 2", `near "2": syntax error`},
		{"SELECT 'abc", `unrecognized token: "'abc"`},
		{"SELECT x'0", `unrecognized token: "x'0"`},
		{"SELECT 1a", `unrecognized token: "1a"`},
		{"SELECT ^1", `unrecognized token: "^"`},
		{"SELECT [a", `unrecognized token: "[a"`},
		{"SELECT " + strings.Repeat("(", 20000), "parser stack overflow"},
		{"SELECT randomblob(1000000), randomblob(100000)", "string or blob too big"},
	}
	for _, tt := range tests {
		if got, err := Text(tt.sql, fixed()); err == nil || err.Error() != tt.want {
			t.Errorf("Text(%.80q) = %q, %v; want %s", tt.sql, got, err, tt.want)
		}
	}
	for _, sql := range []string{"", " ", ";", "-- nothing", "/* x"} {
		if _, err := Text(sql, fixed()); !errors.Is(err, io.EOF) {
			t.Errorf("Text(%q): %v; want %v", sql, err, io.EOF)
		}
	}
}

// TestOff checks that what is not asked for stays.
func TestOff(t *testing.T) {
	const sql = "SELECT random(), randomblob(1), date('now')"
	on := fixed()
	tests := []struct {
		from Sources
		want string
	}{
		{Sources{}, sql},
		{Sources{Now: on.Now}, "SELECT random(), randomblob(1), date(" + now + ")"},
		{Sources{Random: on.Random}, "SELECT 65, x'02', date('now')"},
	}
	for _, tt := range tests {
		if got, err := Text(sql, tt.from); got != tt.want || err != nil {
			t.Errorf("Text = %q, %v; want %q", got, err, tt.want)
		}
	}
}
