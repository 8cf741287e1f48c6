package sqlgen

import "fmt"

// What does not have the same effect on all replicas, or not a good one, unless a node takes care.

// order stores what depends on the order of tables.
func order(g *Generator) string {
	t := g.plain()
	return fmt.Sprintf("INSERT INTO %s(%s) SELECT name FROM %s LIMIT 5", ident(t.name), g.settable(t), g.pick("pragma_table_list", "pragma_table_list WHERE schema='main'", "pragma_table_list WHERE type='table'"))
}

func orderRead(g *Generator) string {
	return "PRAGMA " + g.pick("table_list", "integrity_check", "foreign_key_check")
}

// largestRowid takes the last number, after which SQLite tries random ones.
func largestRowid(g *Generator) string {
	t := g.plain()
	if g.chance(50) {
		return fmt.Sprintf("UPDATE %s SET rowid=9223372036854775807 WHERE rowid=(SELECT max(rowid) FROM %[1]s)", ident(t.name))
	}
	return fmt.Sprintf("INSERT INTO %s(rowid, %s) VALUES(9223372036854775807, %s)", ident(t.name), g.settable(t), g.changing())
}

// ofTheNode stores what belongs to one node.
func ofTheNode(g *Generator) string {
	t := g.plain()
	return fmt.Sprintf("INSERT INTO %s(%s) SELECT %s", ident(t.name), g.settable(t), g.pick(
		"file FROM pragma_database_list", "data_version FROM pragma_data_version", "count(*) FROM pragma_database_list", "cache_size FROM pragma_cache_size",
		"journal_mode FROM pragma_journal_mode", "* FROM pragma_wal_autocheckpoint", "* FROM pragma_synchronous", "page_count FROM pragma_page_count",
		"freelist_count FROM pragma_freelist_count", "* FROM pragma_temp_store", "timeout FROM pragma_busy_timeout", "group_concat(compile_options) FROM pragma_compile_options",
		"group_concat(name) FROM pragma_function_list", "group_concat(name) FROM pragma_module_list", "sum(pgsize) FROM dbstat", "count(*) FROM sqlite_stmt", "schema_version FROM pragma_schema_version", "sqlite_version()"))
}

// excess asks for more than a statement may have under bounds that a test has made smaller, and for little under
// those of a node. All of it ends by itself, also if a part of the text is missing.
func excess(g *Generator) string {
	t := g.plain()
	many := "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c WHERE x<%d) "
	return g.pick(
		fmt.Sprintf(many, 200000)+"SELECT count(*) FROM c",
		fmt.Sprintf(many, 200000)+fmt.Sprintf("INSERT INTO %s(%s) SELECT x FROM c WHERE x%%40000=0", ident(t.name), g.settable(t)),
		fmt.Sprintf(many, 100000)+"SELECT length(group_concat(x || '                                                                                ')) FROM c",
		fmt.Sprintf(many, 10000)+fmt.Sprintf("INSERT INTO %s(%s) SELECT length(group_concat(zeroblob(1000))) FROM c", ident(t.name), g.settable(t)),
		fmt.Sprintf(many, 3000)+"SELECT zeroblob(400) FROM c",
		fmt.Sprintf(many, 300)+fmt.Sprintf("INSERT INTO %s(%s) SELECT zeroblob(30000) FROM c; DELETE FROM %[1]s WHERE length(%[2]s)=30000", ident(t.name), g.settable(t)),
		fmt.Sprintf(many, 100)+"SELECT count(*) FROM (SELECT DISTINCT randomblob(100000) FROM c)",
		"SELECT replace(hex(zeroblob(600000)), '0', hex(zeroblob(1000)))")
}
