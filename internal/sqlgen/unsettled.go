package sqlgen

import "fmt"

// unsettled says whether programs contain what does not have the same effect on all replicas as long
// as db lets it pass as it is.
const unsettled = false

func init() {
	if unsettled {
		writes = append(writes,
			maker{"largest rowid", 3, largestRowid},
			maker{"of the node", 3, ofTheNode},
			maker{"excess", 1, excess})
	}
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
		"count(*) FROM pragma_function_list", "sum(pgsize) FROM dbstat", "count(*) FROM sqlite_stmt", "schema_version FROM pragma_schema_version", "sqlite_version()"))
}

// excess asks for more than one statement may have.
func excess(g *Generator) string {
	t := g.plain()
	return g.pick(
		"WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT count(*) FROM c",
		"SELECT replace(hex(zeroblob(600000)), '0', hex(zeroblob(1000)))",
		fmt.Sprintf("INSERT INTO %s(%s) WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT x FROM c", ident(t.name), g.settable(t)),
		"WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT length(group_concat(x)) FROM c",
		"WITH RECURSIVE c(x) AS (SELECT randomblob(1000000) UNION SELECT randomblob(1000000) FROM c) SELECT count(*) FROM c")
}
