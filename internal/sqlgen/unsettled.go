package sqlgen

import "fmt"

// What programs contain only if it has been settled in db, because until then it does not have the
// same effect on all replicas, or not a good one.
const (
	// withOrder: what goes through all tables does so in the order of a hash table of the connection,
	// which depends on what it has created and dropped before.
	withOrder = false

	// withPast: effects of earlier entries on the connection. A changes() in a DEFAULT, FTS5's
	// 'rebuild' and 'delete-all', which write a number that the connection has read before or not, PRAGMA temp_store in
	// a transaction, and changes() under PRAGMA count_changes.
	withPast = false

	withLastRowid = false // the largest rowid, after which SQLite tries random ones
	withNode      = false // values that belong to a node
	withExcess    = false // statements without a bound
)

func init() {
	if withOrder {
		writes = append(writes, maker{"order", 2, order})
		reads = append(reads, maker{"order read", 2, orderRead})
	}
	if withPast {
		defaults[anything] = append(defaults[anything], "(changes())")
	}
	if withLastRowid {
		writes = append(writes, maker{"largest rowid", 3, largestRowid})
	}
	if withNode {
		writes = append(writes, maker{"of the node", 3, ofTheNode})
	}
	if withExcess {
		writes = append(writes, maker{"excess", 1, excess})
	}
}

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
