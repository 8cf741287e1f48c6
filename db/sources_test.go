package db

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"rqlited/command"
)

// What a name of SQLite can tell, as docs/design/consistency.md has it.
const (
	same     = "depends on its arguments and the database alone"
	entry    = "the entry decides"
	refused  = "refused in a statement that writes"
	neverRun = "refused"
	silent   = "tells nothing"
	setting  = "a setting: ends with the entry, or can't be set"
)

// functions classifies each function of the build. bm25 and matchinfo depend on the C library and the byte order.
var functions = map[string]string{
	same: `-> ->> abs avg bm25 char coalesce concat concat_ws count cume_dist dense_rank first_value format fts5 fts5_get_locale fts5_insttoken geopoly_area geopoly_bbox
		geopoly_blob geopoly_ccw geopoly_contains_point geopoly_debug geopoly_group_bbox geopoly_json geopoly_overlap geopoly_regular geopoly_svg geopoly_within geopoly_xform glob
		group_concat hex highlight if ifnull iif instr json json_array json_array_insert json_array_length json_error_position json_extract json_group_array json_group_object
		json_insert json_object json_patch json_pretty json_quote json_remove json_replace json_set json_type json_valid jsonb jsonb_array jsonb_array_insert jsonb_extract
		jsonb_group_array jsonb_group_object jsonb_insert jsonb_object jsonb_patch jsonb_remove jsonb_replace jsonb_set lag last_value lead length like likelihood likely lower
		ltrim match matchinfo max min nth_value ntile nullif octet_length offsets optimize percent_rank printf quote rank replace round row_number rtreecheck rtreedepth rtreenode
		rtrim sign snippet string_agg substr substring subtype sum total trim typeof unhex unicode unistr unistr_quote unlikely upper zeroblob`,
	entry:    `changes current_date current_time current_timestamp date datetime julianday last_insert_rowid random randomblob strftime time timediff total_changes unixepoch`,
	refused:  `fts5_locale fts5_source_id sqlite_compileoption_get sqlite_compileoption_used sqlite_source_id sqlite_version`,
	neverRun: `fts3_tokenizer load_extension`,
	silent:   `sqlite_log`,
}

// modules classifies each module of virtual tables but those of PRAGMAs.
var modules = map[string]string{
	same:    `fts3 fts3tokenize fts4 fts4aux fts5 fts5vocab geopoly json_each json_tree rtree rtree_i32`,
	refused: `dbstat`,
}

// pragmaClasses classifies each PRAGMA by what a write could read from it like from a table.
var pragmaClasses = map[string]string{
	same:  `application_id encoding foreign_key_check foreign_key_list index_info index_list index_xinfo integrity_check quick_check table_info table_list table_xinfo user_version`,
	entry: `foreign_keys`,
	refused: `analysis_limit auto_vacuum automatic_index busy_timeout cache_size cache_spill cell_size_check checkpoint_fullfsync collation_list compile_options count_changes data_version
		database_list defer_foreign_keys empty_result_callbacks freelist_count full_column_names fullfsync function_list hard_heap_limit ignore_check_constraints journal_mode
		journal_size_limit legacy_alter_table locking_mode max_page_count mmap_size module_list optimize page_count page_size pragma_list query_only read_uncommitted
		recursive_triggers reverse_unordered_selects schema_version secure_delete short_column_names soft_heap_limit synchronous temp_store temp_store_directory threads
		trusted_schema wal_autocheckpoint wal_checkpoint writable_schema`,
	setting: `case_sensitive_like incremental_vacuum shrink_memory`, // not tables
}

var collations = map[string]string{same: `BINARY NOCASE RTRIM`}

// TestSourcesAreClassified fails if SQLite has a function, module, PRAGMA or collation that nobody has judged,
// as after an upgrade.
func TestSourcesAreClassified(t *testing.T) {
	d := openNew(t)
	tests := []struct {
		sql     string
		classes map[string]string
	}{
		{"SELECT DISTINCT name FROM pragma_function_list", functions},
		{"SELECT name FROM pragma_module_list WHERE name NOT LIKE 'pragma#_%' ESCAPE '#' UNION SELECT 'json_each' UNION SELECT 'json_tree'", modules},
		{"SELECT name FROM pragma_pragma_list", pragmaClasses},
		{"SELECT name FROM pragma_collation_list", collations},
	}
	for _, tt := range tests {
		known := map[string]bool{}
		for _, names := range tt.classes {
			for name := range strings.FieldsSeq(names) {
				if known[name] {
					t.Errorf("%s is in two classes", name)
				}
				known[name] = true
			}
		}
		for _, row := range query(t, d, tt.sql).Results[0].Rows.Values {
			name := row[0].(string)
			if !known[name] {
				t.Errorf("%s is in no class", name)
			}
			delete(known, name)
		}
		for name := range known {
			t.Errorf("%s does not exist", name)
		}
	}
}

// TestRefusedSources stores what is refused, in every way, and reads it.
func TestRefusedSources(t *testing.T) {
	args := map[string]string{"fts5_locale": "'a','b'", "sqlite_compileoption_get": "0", "sqlite_compileoption_used": "'THREADSAFE'"}
	d := openNew(t)
	exec(t, d, "CREATE TABLE t(x)", "CREATE TABLE n(x)", "CREATE INDEX i ON n(x)")
	check := func(what, sql, want string) {
		t.Helper()
		resp := request(t, d, command.Request{Kind: command.Execute, Statements: statements(sql)})
		if got := resp.Results[0].Error; got != want {
			t.Errorf("%s: %s: %q, want %q", what, sql, got, want)
		}
	}
	for f := range strings.FieldsSeq(functions[refused]) {
		call := f + "(" + args[f] + ")"
		want := f + "()" + msgLocal
		exec(t, d, "CREATE TABLE d_"+f+"(a, x DEFAULT ("+call+"))", "CREATE VIEW v_"+f+" AS SELECT "+call+" AS x",
			"CREATE TABLE s_"+f+"(a)", "CREATE TRIGGER g_"+f+" AFTER INSERT ON s_"+f+" BEGIN INSERT INTO t VALUES("+call+"); END")
		check(f, "INSERT INTO t VALUES("+call+")", want)
		check(f, "INSERT INTO d_"+f+"(a) VALUES(1)", want)
		check(f, "INSERT INTO t SELECT x FROM v_"+f, want)
		check(f, "INSERT INTO s_"+f+" VALUES(1)", want)
		check(f, "CREATE TABLE c AS SELECT "+call+" AS x", want)
		check(f, "DELETE FROM t WHERE x=1 OR "+call+"='a'", "") // no row, so no call
		if got := value(t, d, "SELECT count(*) FROM v_"+f+" WHERE x IS NOT NULL"); got != int64(1) {
			t.Errorf("a read of %s gave %v", f, got)
		}
	}
	var tables []string
	for p := range strings.FieldsSeq(pragmaClasses[refused]) {
		tables = append(tables, "pragma_"+p)
	}
	for _, table := range append(tables, strings.Fields(modules[refused])...) {
		r := query(t, d, "SELECT * FROM "+table+" LIMIT 1").Results[0]
		if strings.HasPrefix(r.Error, "no such table") {
			continue // it can't be read like a table
		}
		want := table + msgLocal
		check(table, "INSERT INTO t SELECT count(*) FROM "+table, want)
		check(table, "UPDATE t SET x=(SELECT 1 FROM "+table+")", want)
		check(table, "CREATE TABLE c AS SELECT * FROM "+table, want)
		if table == "dbstat" {
			continue // which no view and no trigger may use
		}
		exec(t, d, "CREATE VIEW v_"+table+" AS SELECT count(*) AS x FROM "+table, "CREATE TABLE s_"+table+"(a)",
			"CREATE TRIGGER g_"+table+" AFTER INSERT ON s_"+table+" BEGIN INSERT INTO t SELECT x FROM v_"+table+"; END")
		check(table, "INSERT INTO s_"+table+" VALUES(1)", want)
		if got := show(request(t, d, command.Request{Kind: command.Unified, Statements: statements("SELECT x>=0 FROM v_" + table)}).Results...); table != "pragma_optimize" && got != "[[1]]" {
			t.Errorf("a read of %s in an entry: %s", table, got)
		}
	}
	for f := range strings.FieldsSeq(pragmaClasses[same] + " " + pragmaClasses[entry]) {
		table := "pragma_" + f
		if r := query(t, d, "SELECT * FROM "+table+" LIMIT 1").Results[0]; strings.HasPrefix(r.Error, "no such table") {
			t.Errorf("%s: %s", table, r.Error)
		}
		check(table, "INSERT INTO t SELECT count(*) FROM "+table, "")
	}
	if n := value(t, d, "SELECT count(*) FROM t WHERE typeof(x)<>'integer'"); n != int64(0) {
		t.Errorf("%v values were stored", n)
	}
	check("dbstat", "CREATE VIRTUAL TABLE st USING dbstat", "dbstat"+msgLocal)
	exec(t, d, "CREATE TABLE dbstat(x)", "INSERT INTO dbstat SELECT x FROM dbstat") // his own
}

// TestTokenizer shows that no address of the process is given out, or taken.
func TestTokenizer(t *testing.T) {
	d := openNew(t)
	exec(t, d, "CREATE TABLE t(x)", "CREATE TABLE df(a, x DEFAULT (fts3_tokenizer('simple')))")
	for _, sql := range []string{"SELECT fts3_tokenizer(?)", "SELECT fts3_tokenizer('simple', ?)", "INSERT INTO t VALUES(fts3_tokenizer(?))"} {
		req := command.Request{Kind: command.Query, Statements: []command.Statement{{SQL: sql, Params: []command.Param{{Value: "simple"}}}}}
		if strings.HasPrefix(sql, "INSERT") {
			req.Kind = command.Execute
		}
		if got := request(t, d, req).Results[0].Error; got != msgTokenizer {
			t.Errorf("%s: %q, want %q", sql, got, msgTokenizer)
		}
	}
	resp := request(t, d, command.Request{Kind: command.Execute, Statements: statements("INSERT INTO df(a) VALUES(1)")})
	if got := resp.Results[0].Error; got == "" {
		t.Error("a DEFAULT gave an address")
	}
}

// TestColumnNames makes tables and views with columns of the same name.
func TestColumnNames(t *testing.T) {
	const six = "SELECT 1 a, 2 a, 3 a, 4 a, 5 a, 6 a"
	tests := []struct {
		name string
		sql  []string
		want string // the last error
	}{
		{"six", []string{"CREATE TABLE t AS " + six}, msgColumns},
		{"six of a join", []string{"CREATE TABLE b(x)", "CREATE TABLE t AS SELECT * FROM b, b b2, b b3, b b4, b b5, b b6"}, msgColumns},
		{"WITH", []string{"CREATE TABLE t AS WITH c AS (" + six + ") SELECT * FROM c"}, msgColumns},
		{"comments", []string{"/* AS */ CREATE /*;*/ TEMP TABLE IF NOT EXISTS \"AS\" AS -- SELECT\n" + six + " -- ;\n ; -- end"}, msgColumns},
		{"UNION", []string{"CREATE TABLE t AS " + six + " UNION SELECT 1,2,3,4,5,6 ORDER BY 1 LIMIT 5"}, msgColumns},
		{"VALUES", []string{"CREATE TABLE t AS VALUES(1,2,3,4,5,6,7)"}, ""},
		{"view", []string{"CREATE VIEW v AS " + six, "CREATE TABLE t AS SELECT * FROM v"}, msgColumns},
		{"names of a view", []string{"CREATE VIEW v AS " + six, "CREATE TABLE b(x)", "INSERT INTO b SELECT name FROM pragma_table_xinfo('v')"}, msgColumns},
		{"names, while there is such a view", []string{"CREATE TEMP VIEW v AS " + six, "CREATE TABLE b(x)", "INSERT INTO b SELECT name FROM pragma_table_info('b')"}, msgColumns},
		{"five", []string{"CREATE TABLE t AS SELECT 1 a, 2 a, 3 a, 4 a, 5 a"}, ""},
		{"such names given", []string{`CREATE TABLE t AS SELECT 1 "a:1", 2 "a:7", 3 "b:5", 4 "a:2"`}, ""},
		{"names of another view", []string{"CREATE VIEW v AS SELECT 1 a, 2 a", "CREATE TABLE b(x)", "INSERT INTO b SELECT name FROM pragma_table_info('v')"}, ""},
		{"a broken view", []string{"CREATE VIEW v AS SELECT * FROM nowhere", "CREATE TABLE b(x)", "INSERT INTO b SELECT name FROM pragma_table_info('b')"}, ""},
		{"bound", []string{"CREATE TABLE t AS SELECT ? a, 2 a"}, ""},
		{"not a table", []string{"CREATE TABLE t AS SELECT * FROM nowhere"}, "no such table: nowhere"},
		{"explained", []string{"EXPLAIN CREATE TABLE t AS " + six}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := openNew(t)
			resp := request(t, d, command.Request{Kind: command.Execute, Statements: statements(tt.sql...)})
			if got := resp.Results[len(resp.Results)-1].Error; got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
			if n := value(t, d, "SELECT count(*) FROM sqlite_schema WHERE sql GLOB '*:[0-9][0-9]*'"); n != int64(0) {
				t.Error("a random name was stored")
			}
		})
	}
}

// TestSourcesAreDocumented keeps the tables for people equal to those that decide.
func TestSourcesAreDocumented(t *testing.T) {
	doc := consistencyDoc(t)
	names := strings.Fields(functions[refused] + " " + functions[neverRun] + " " + functions[entry] + " " + modules[refused] + " " + pragmaClasses[same] + " " + pragmaClasses[entry])
	for name := range pragmas {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if !strings.Contains(doc, "`"+name+"`") && !strings.Contains(doc, "`"+name+"()`") {
			t.Errorf("%s is missing in consistency.md", name)
		}
	}
	for _, msg := range []string{msgPragma, msgAttach, msgDetach, msgVacuumInto, msgTransaction, msgOptimize, "…" + msgLocal, msgTokenizer, msgColumns,
		fmt.Sprintf(msgRowid, "…"), fmt.Sprintf(msgFull, "…"), msgTakenBack, msgOpen, msgNotADBFile, msgSequence, msgManyLoads, msgWrite, "not authorized", "table … may not be modified"} {
		if !strings.Contains(doc, "`"+msg+"`") {
			t.Errorf("the message %q is missing in consistency.md", msg)
		}
	}
}

func consistencyDoc(t *testing.T) string {
	t.Helper()
	doc, err := os.ReadFile(filepath.Join("..", "docs", "design", "consistency.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(doc)
}
