package system

import "testing"

// TestHostileShadowTables writes to the tables behind virtual tables, of which a node that was
// started later must not know more, or less, than one that has the virtual table open.
func TestHostileShadowTables(t *testing.T) {
	t.Parallel()
	beHostile(t, []hostile{
		{"full-text index, page size behind its back", []string{
			"CREATE VIRTUAL TABLE NAME USING fts5(a, b)", "INSERT INTO NAME VALUES ('one two', 'three')", "INSERT INTO NAME_config VALUES ('pgsz', 32)",
		}, []string{"INSERT INTO NAME VALUES (hex(randomblob(500)), hex(randomblob(2000)))"}},
		{"full-text index, version behind its back", []string{
			"CREATE VIRTUAL TABLE NAME USING fts5(a, b)", "INSERT INTO NAME VALUES ('one two', 'three')", "DELETE FROM NAME_config", "INSERT INTO NAME_config VALUES ('version', 99)",
		}, []string{"INSERT INTO NAME VALUES ('q', 'q')"}},
		{"R-tree with a node that is none", []string{
			"CREATE VIRTUAL TABLE NAME USING rtree(id, a, b)", "INSERT INTO NAME VALUES (1, 1, 2)", "UPDATE NAME_node SET data = x'00'", "INSERT INTO NAME VALUES (2, 1, 2)",
		}, []string{"INSERT INTO NAME VALUES (3, 1, 2)"}},
		{"R-tree of another depth", []string{
			"CREATE VIRTUAL TABLE NAME USING rtree(id, a, b)", "INSERT INTO NAME VALUES (1, 1, 2)", "UPDATE NAME_node SET data = x'0005' || substr(data, 3) WHERE nodeno = 1",
		}, []string{"INSERT INTO NAME VALUES (2, 1, 2)", "DELETE FROM NAME WHERE id = 1"}},
	})
}
