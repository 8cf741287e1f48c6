package db

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"rqlited/command"
)

// oddities makes statements that a client may send and that break what can be broken by SQL: the tables
// behind virtual tables, statistics, sequences, settings, the schema.
type oddities struct{ dice *rand.Rand }

func (o oddities) one(choices ...string) string { return choices[o.dice.IntN(len(choices))] }

func (o oddities) value() string {
	switch o.dice.IntN(8) {
	case 0:
		return "NULL"
	case 1:
		return fmt.Sprint(o.dice.Int64() >> o.dice.IntN(64))
	case 2:
		return o.one("9223372036854775807", "-9223372036854775808", "9223372036854775806", "0", "-1", "1e308", "9e999", "0.1")
	case 3:
		return fmt.Sprintf("x'%x'", o.dice.Uint64()>>o.dice.IntN(64)<<8) + ""
	case 4:
		return fmt.Sprintf("randomblob(%d)", o.dice.IntN(200))
	case 5:
		return fmt.Sprintf("zeroblob(%d)", o.dice.IntN(5000))
	case 6:
		return o.one("'a'", "'a b c'", "'automerge=8'", "'%'", "''", "'[[0,0],[1,0],[0,1],[0,0]]'", "json('{\"a\":[1,2]}')", "datetime('now','localtime')")
	}
	return "random()"
}

func (o oddities) table() string {
	return o.one("t", "u", "w", "a", "v", "f3", "f4", "f5", "fc", "r", "g", "f3_content", "f3_segments", "f3_segdir", "f4_content", "f4_segments",
		"f4_segdir", "f4_docsize", "f4_stat", "f5_data", "f5_idx", "f5_content", "f5_docsize", "f5_config", "r_node", "r_parent", "r_rowid",
		"g_node", "g_parent", "g_rowid", "sqlite_schema", "sqlite_sequence", "sqlite_stat1", "sqlite_temp_schema", "voc", "aux", "tok", "dbstat",
		"pragma_table_info", "json_each", "nowhere")
}

func (o oddities) column() string {
	return o.one("rowid", "id", "x", "y", "c", "block", "root", "level", "idx", "start_block", "leaves_end_block", "end_block", "k", "v", "sz", "pgno", "segid", "term",
		"data", "nodeno", "parentnode", "value", "blockid", "docid", "size", "name", "seq", "stat", "tbl", "sql", "f3", "f4", "f5", "_shape")
}

func (o oddities) statement() string {
	t := o.table()
	switch o.dice.IntN(22) {
	case 0, 1:
		return fmt.Sprintf("UPDATE OR %s %s SET %s=%s WHERE random()%%3=0", o.one("ABORT", "IGNORE", "REPLACE", "FAIL", "ROLLBACK"), t, o.column(), o.value())
	case 2:
		return fmt.Sprintf("DELETE FROM %s WHERE random()%%2=0", t)
	case 3, 4:
		values := []string{o.value()}
		for range o.dice.IntN(6) {
			values = append(values, o.value())
		}
		return fmt.Sprintf("INSERT OR %s INTO %s VALUES(%s)", o.one("ABORT", "IGNORE", "REPLACE", "FAIL", "ROLLBACK"), t, strings.Join(values, ","))
	case 5:
		return fmt.Sprintf("INSERT INTO %s(%s) VALUES(%s)", t, o.column(), o.value())
	case 6:
		f := o.one("f3", "f4", "f5")
		return fmt.Sprintf("INSERT INTO %s(%s) VALUES('%s')", f, f, o.one("optimize", "rebuild", "integrity-check", "merge=2,2", "merge=100,8", "automerge=2", "automerge=0", "delete-all", "flush", "nonsense"))
	case 7:
		return fmt.Sprintf("INSERT INTO f5(f5, rank) VALUES('%s', %s)", o.one("merge", "automerge", "usermerge", "crisismerge", "pgsz", "hashsize", "secure-delete", "rank", "delete", "integrity-check", "deletemerge"),
			o.one("1", "0", "-5", "64", "100000", "'bm25(10)'", o.value()))
	case 8:
		return fmt.Sprintf("%s FROM %s WHERE %s IN (SELECT rowid FROM %s WHERE %s MATCH '%s')", o.one("DELETE", "SELECT count(*)"), t, o.column(), o.one("f3", "f4", "f5"), o.one("f3", "f4", "f5", "x"), o.one("a", "a*", "b OR c", "\"a b\"", "NEAR(a b)", "x:a", "^a", "("))
	case 9:
		f := o.one("f3", "f4", "f5")
		return fmt.Sprintf("INSERT INTO %s(x) SELECT %s FROM %s WHERE %s MATCH '%s'", f, o.one("x", "x||' '||x", "snippet("+f+")", "offsets("+f+")", "matchinfo("+f+")", "optimize("+f+")"), f, f, o.one("a", "a*", "z*"))
	case 10:
		return fmt.Sprintf("PRAGMA %s=%s", o.one("case_sensitive_like", "max_page_count", "page_size", "auto_vacuum", "encoding", "foreign_keys", "ignore_check_constraints", "recursive_triggers", "cache_size",
			"temp_store", "mmap_size", "threads", "secure_delete", "reverse_unordered_selects", "trusted_schema", "legacy_alter_table", "user_version", "application_id", "incremental_vacuum", "busy_timeout",
			"cache_spill", "cell_size_check", "checkpoint_fullfsync", "defer_foreign_keys", "journal_size_limit", "read_uncommitted", "automatic_index", "analysis_limit", "count_changes", "journal_mode", "locking_mode",
			"query_only", "writable_schema", "schema_version", "hard_heap_limit", "data_version", "shrink_memory", "integrity_check", "foreign_key_check", "table_info", "optimize"), o.one("0", "1", "2", "-1", "100", "f5", "EXCLUSIVE", "RESET", "'UTF-16'", "DELETE"))
	case 11:
		return o.one("VACUUM", "REINDEX", "ANALYZE", "ANALYZE t", "REINDEX NOCASE", "VACUUM temp", "REINDEX tlike")
	case 12:
		return o.one("BEGIN", "BEGIN IMMEDIATE", "BEGIN EXCLUSIVE", "COMMIT", "ROLLBACK", "SAVEPOINT s", "RELEASE s", "ROLLBACK TO s")
	case 13:
		return fmt.Sprintf("ALTER TABLE %s %s", t, o.one("RENAME TO "+o.table(), "RENAME COLUMN "+o.column()+" TO "+o.column(), "DROP COLUMN "+o.column(), "ADD COLUMN "+o.column()+" DEFAULT (1)", "ADD COLUMN gen AS (random())", "ADD COLUMN nn NOT NULL DEFAULT 5 CHECK(nn<0)"))
	case 14:
		return fmt.Sprintf("DROP %s IF EXISTS %s", o.one("TABLE", "TABLE", "VIEW", "INDEX", "TRIGGER"), t)
	case 15:
		return fmt.Sprintf("CREATE VIRTUAL TABLE %s USING %s(%s)", o.table(), o.one("fts3", "fts4", "fts5", "rtree", "rtree_i32", "geopoly", "fts5vocab", "fts4aux", "fts3tokenize", "dbstat", "json_each", "pragma_table_info", "nowhere"),
			o.one("x", "x, y", "id, a, b", "f5, row", "f5, instance", "f4", "x, tokenize=porter", "x, content=t", "x, content=''", "x, content='', contentless_delete=1", "x, prefix='1 2'", "x, detail=none", "x, columnsize=0", "x, tokenize='trigram'",
				"x, tokenize=\"unicode61 tokenchars '\"", "", "id, a", "id,a,b,c,d,e,f,g,h,i,j", "x, locale=1", "x, order=desc", "x, compress=upper, uncompress=lower", "x, languageid=l", "x, notindexed=x", "rank", "rowid", "main, f5, col"))
	case 16:
		return fmt.Sprintf("CREATE %s %s AS SELECT %s FROM %s", o.one("TABLE", "VIEW", "TEMP TABLE", "TEMP VIEW"), o.table(), o.one("*", "1", "a.*, b.*", o.column()), o.one(t, t+" a, "+t+" b", "(SELECT 1)"))
	case 17:
		return fmt.Sprintf("CREATE TRIGGER tr%d %s %s ON %s BEGIN %s; END", o.dice.IntN(5), o.one("BEFORE", "AFTER", "INSTEAD OF"), o.one("INSERT", "UPDATE", "DELETE"), t,
			o.one("SELECT RAISE(ABORT,'x')", "SELECT RAISE(ROLLBACK,'x')", "SELECT RAISE(FAIL,'x')", "SELECT RAISE(IGNORE)", "DELETE FROM "+o.table(), "INSERT INTO u VALUES(1,2)", "UPDATE "+o.table()+" SET x=1", "INSERT INTO "+t+" DEFAULT VALUES"))
	case 18:
		return fmt.Sprintf("CREATE %s INDEX i%d ON %s(%s) WHERE %s", o.one("", "UNIQUE"), o.dice.IntN(5), t, o.one("x", "x LIKE 'a%'", "x||y", "abs(x)", o.column()), o.one("x LIKE 'A%'", "x IS NOT NULL", "1", "rowid>3"))
	case 19:
		return fmt.Sprintf("INSERT INTO %s SELECT * FROM %s ORDER BY random() LIMIT 50", o.table(), t)
	case 20:
		return fmt.Sprintf("SELECT %s FROM %s", o.one("count(*)", "rtreecheck('r')", "rtreecheck('g')", "optimize(f3)", "max(rowid)", "rtreenode(2, data)", "geopoly_json(_shape)", "bm25(f5)", "fts5(1)", "load_extension('x')", "fts3_tokenizer('simple')", "highlight(f5,0,'a','b')"), t)
	}
	return fmt.Sprintf("INSERT INTO %s VALUES(%s,%s,%s)", o.one("t", "r", "w"), o.value(), o.value(), o.value())
}

var oddSetup = []string{
	"CREATE TABLE t(id INTEGER PRIMARY KEY, x, y)", "CREATE INDEX tlike ON t(x) WHERE x LIKE 'a%'", "CREATE INDEX texpr ON t(x LIKE 'A%', y)",
	"CREATE TABLE u(x UNIQUE, y)", "CREATE TABLE w(x, y, c, PRIMARY KEY(x, y)) WITHOUT ROWID", "CREATE TABLE a(id INTEGER PRIMARY KEY AUTOINCREMENT, x)",
	"CREATE VIEW v AS SELECT * FROM t", "CREATE VIRTUAL TABLE f3 USING fts3(x)", "CREATE VIRTUAL TABLE f4 USING fts4(x, prefix='1')", "CREATE VIRTUAL TABLE f5 USING fts5(x)",
	"CREATE VIRTUAL TABLE fc USING fts5(x, content=t, content_rowid=id)", "CREATE VIRTUAL TABLE r USING rtree(id, x, y)", "CREATE VIRTUAL TABLE g USING geopoly(c)",
	"CREATE VIRTUAL TABLE voc USING fts5vocab(f5, row)", "CREATE VIRTUAL TABLE aux USING fts4aux(f4)", "CREATE VIRTUAL TABLE tok USING fts3tokenize(porter)",
	"INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n LIMIT 60) SELECT i, 'a b '||i, 'A' FROM n",
	"INSERT INTO f3 SELECT x FROM t", "INSERT INTO f4 SELECT x FROM t", "INSERT INTO f5 SELECT x FROM t", "INSERT INTO r SELECT id, id, id+1 FROM t", "INSERT INTO u SELECT id, x FROM t",
	"INSERT INTO g(_shape) VALUES('[[0,0],[1,0],[0,1],[0,0]]')", "INSERT INTO a(x) VALUES(1)", "ANALYZE",
}

// TestNothingStops sends statements that break everything that SQL can break. Whatever SQLite says to them is a
// result; an error of Apply would stop every node, again at each start.
func TestNothingStops(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	for round := range 25 {
		o := oddities{rand.New(rand.NewPCG(seed, uint64(round)))}
		d := openNew(t)
		exec(t, d, oddSetup...)
		for n := range 40 {
			req := &command.Request{Kind: command.Execute, Transaction: o.dice.IntN(3) == 0, RollbackOnError: o.dice.IntN(6) == 0}
			if o.dice.IntN(2) == 0 {
				req.Kind = command.Unified
			}
			var sql []string
			for range 1 + o.dice.IntN(5) {
				sql = append(sql, o.statement())
			}
			req.Statements = statements(sql...)
			if _, err := d.Apply(&command.Entry{Kind: req.Kind, Request: req, Seed: o.dice.Uint64() | 1, Time: time.Unix(1700000000, 0)}); err != nil {
				var se *sqlError
				errors.As(err, &se)
				t.Fatalf("round %d, entry %d: %v %+v, after\n%s", round, n, err, se, strings.Join(sql, "\n"))
			}
		}
	}
}
