package sqlgen

import (
	"fmt"
	"slices"
	"strings"
)

var types = map[kind][]string{
	anything:  {"", "NUMERIC", "ANY THING"},
	integers:  {"INTEGER", "INT", "BIGINT", "BOOLEAN"},
	reals:     {"REAL", "DOUBLE", "FLOAT"},
	texts:     {"TEXT", "VARCHAR(20)", "TEXT COLLATE NOCASE", "CLOB"},
	blobs:     {"BLOB", "BLOB", ""},
	documents: {"TEXT", "JSON", "BLOB"},
	moments:   {"TEXT", "DATETIME", "TIMESTAMP", ""},
}

var strictTypes = map[kind][]string{
	anything: {"ANY"}, integers: {"INTEGER", "INT"}, reals: {"REAL"}, texts: {"TEXT"}, blobs: {"BLOB"}, documents: {"ANY"}, moments: {"ANY"},
}

var defaults = map[kind][]string{
	anything:  {"(random())", "(randomblob(8))", "CURRENT_TIMESTAMP", "7", "(strftime('%f', 'now'))", "(last_insert_rowid())", "(changes())"},
	integers:  {"(random())", "(unixepoch())", "0", "-1", "(abs(random())%50)", "(total_changes())"},
	reals:     {"(julianday('now'))", "(unixepoch('subsec'))", "0.5", "(random()/1e10)"},
	texts:     {"CURRENT_TIMESTAMP", "(datetime('now'))", "'x'", "(hex(randomblob(5)))", "CURRENT_TIME", "CURRENT_DATE"},
	blobs:     {"(randomblob(16))", "x'00ff'", "(zeroblob(3))"},
	documents: {"'{}'", "(json_object('at', datetime('now'), 'r', random()))", "(jsonb('[1]'))"},
	moments:   {"CURRENT_TIMESTAMP", "(datetime('now', 'localtime'))", "(strftime('%Y-%m-%d %H:%M:%f', 'now'))", "(julianday())", "(datetime('now', '+1 day'))"},
}

func createTable(g *Generator) string {
	t := table{name: tableNames[g.n(len(tableNames))], strict: g.chance(20), withoutRowid: g.chance(18)}
	var defs, rest []string
	switch {
	case t.withoutRowid && g.chance(50):
		t.columns = []column{{name: "k", kind: texts, key: true}, {name: "n", kind: integers}}
		defs, rest = []string{"k TEXT NOT NULL", "n INTEGER"}, []string{"PRIMARY KEY (k, n)"}
	case t.withoutRowid:
		t.columns = []column{{name: "k", kind: integers, key: true}}
		defs = []string{"k INT PRIMARY KEY"}
	case g.chance(75):
		t.idKey = true
		t.columns = []column{{name: "id", kind: integers, key: true}}
		defs = []string{"id INTEGER PRIMARY KEY" + g.pick("", "", " AUTOINCREMENT")}
	case g.chance(40):
		t.columns = []column{{name: "k", kind: texts, key: true}}
		defs = []string{"k TEXT PRIMARY KEY ON CONFLICT " + g.pick("ABORT", "IGNORE", "REPLACE", "FAIL", "ROLLBACK")}
	}
	names := slices.Clone(columnNames)
	g.dice.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	if !slices.Contains(names[:4], "a") { // views and others speak of it
		names[0] = "a"
	}
	for _, name := range names[:2+g.n(3)] {
		c, def := g.columnDef(t, name)
		t.columns = append(t.columns, c)
		defs = append(defs, def)
	}
	if g.chance(15) {
		defs = append(defs, g.generatedColumn(&t))
	}
	rest = append(rest, g.constraints(t)...)
	options := ""
	if t.strict {
		options = " STRICT"
	}
	if t.withoutRowid {
		options = strings.TrimPrefix(options+", WITHOUT ROWID", ",")
	}
	drop := fmt.Sprintf("DROP TABLE IF EXISTS %s; ", ident(t.name))
	if g.chance(15) {
		drop = ""
	}
	g.world.put(t)
	return fmt.Sprintf("%sCREATE TABLE %s(%s)%s", drop, ident(t.name), strings.Join(append(defs, rest...), ", "), options)
}

func (g *Generator) columnDef(t table, name string) (column, string) {
	c := column{name: name, kind: kind(g.n(int(moments) + 1))}
	choices := types[c.kind]
	if t.strict {
		choices = strictTypes[c.kind]
	}
	def := ident(name) + " " + g.pick(choices...)
	if g.chance(35) {
		def += " DEFAULT " + g.pick(defaults[c.kind]...)
		if g.chance(20) {
			def += " NOT NULL" + g.pick("", " ON CONFLICT REPLACE", " ON CONFLICT IGNORE")
		}
	}
	if g.chance(7) {
		def += " UNIQUE" + g.pick("", "", " ON CONFLICT REPLACE", " ON CONFLICT ROLLBACK", " ON CONFLICT FAIL")
	}
	if g.chance(8) {
		def += fmt.Sprintf(" CHECK (%s)", g.check(c))
	}
	if c.kind == integers && g.chance(25) {
		if p := g.table(ordinary); p.idKey {
			def += fmt.Sprintf(" REFERENCES %s(id)%s%s%s", ident(p.name), g.pick("", " ON DELETE CASCADE", " ON DELETE SET NULL", " ON DELETE RESTRICT", " ON DELETE SET DEFAULT"),
				g.pick("", "", " ON UPDATE CASCADE", " ON UPDATE SET NULL"), g.pick("", "", " DEFERRABLE INITIALLY DEFERRED"))
		}
	}
	return c, def
}

func (g *Generator) check(c column) string {
	n := ident(c.name)
	return g.pick(n+" IS NOT 13", "length("+n+")<400000", "typeof("+n+")<>'blob' OR length("+n+")<>7", n+" IS NULL OR "+n+"<>50", "json_valid("+n+", 15) IS NOT 7")
}

func (g *Generator) generatedColumn(t *table) string {
	base := ident(t.columns[g.n(len(t.columns))].name)
	c := column{name: "gen", kind: texts, generated: true}
	t.columns = append(t.columns, c)
	typ := g.pick("", "TEXT", "INTEGER")
	if t.strict {
		typ = "ANY"
	}
	return fmt.Sprintf("gen %s %s(%s) %s", typ, g.pick("AS ", "GENERATED ALWAYS AS "), g.pick("length("+base+")", "typeof("+base+") || 1", base+" || '!'", "hex(substr("+base+", 1, 9))", "json_type("+base+")", base+"+1"), g.pick("VIRTUAL", "STORED"))
}

func (g *Generator) constraints(t table) []string {
	var rest []string
	if g.chance(8) && len(t.columns) > 2 {
		rest = append(rest, fmt.Sprintf("UNIQUE (%s, %s)", ident(t.columns[1].name), ident(t.columns[2].name)))
	}
	if g.chance(8) {
		g.fixed = true
		rest = append(rest, fmt.Sprintf("CHECK (%s IS NOT 1)", g.leafOnly(t)))
		g.fixed = false
	}
	if g.chance(6) && t.idKey && len(t.columns) > 1 {
		rest = append(rest, fmt.Sprintf("FOREIGN KEY (%s) REFERENCES %s(id) ON DELETE CASCADE", ident(t.columns[1].name), ident(t.name)))
	}
	return rest
}

// leafOnly returns an expression that rarely fails.
func (g *Generator) leafOnly(t table) string {
	return fmt.Sprintf("%s IN (%d, %d)", g.column(t), g.n(99), g.n(99))
}

func createTableAs(g *Generator) string {
	from := g.table(ordinary)
	t := table{name: tableNames[g.n(len(tableNames))], columns: []column{{name: "a"}, {name: "b"}, {name: "c"}}}
	if t.name == from.name {
		return ""
	}
	g.world.put(t)
	return fmt.Sprintf("DROP TABLE IF EXISTS %s; CREATE TABLE %[1]s AS SELECT %s AS a, random() AS b, CURRENT_TIMESTAMP AS c FROM %s LIMIT 30", ident(t.name), g.column(from), ident(from.name))
}

func createIndex(g *Generator) string {
	t := g.table(ordinary)
	name := indexNames[g.n(len(indexNames))]
	on := g.column(t)
	if g.chance(40) {
		on += g.pick("", " DESC", " COLLATE NOCASE") + ", " + g.column(t)
	}
	if g.chance(20) {
		on = g.pick("length("+g.column(t)+")", "lower("+g.column(t)+")", g.column(t)+" || ''", "typeof("+g.column(t)+"), "+g.column(t), "hex("+g.column(t)+")")
	}
	where := ""
	if g.chance(25) {
		where = " WHERE " + g.pick(g.column(t)+" IS NOT NULL", g.column(t)+">10", "typeof("+g.column(t)+")='text'")
	}
	g.world.indexes = add(g.world.indexes, name)
	drop := fmt.Sprintf("DROP INDEX IF EXISTS %s; ", name)
	if g.chance(20) {
		drop = ""
	}
	unique := ""
	if g.chance(15) {
		unique = "UNIQUE "
	}
	return fmt.Sprintf("%sCREATE %sINDEX %s ON %s(%s)%s", drop, unique, name, ident(t.name), on, where)
}

func createView(g *Generator) string {
	t := g.table(ordinary)
	name := viewNames[g.n(len(viewNames))]
	g.world.views = add(g.world.views, name)
	trigger := ""
	if to := g.plain(); g.chance(60) {
		trigger = fmt.Sprintf("; CREATE TRIGGER IF NOT EXISTS %s_insert INSTEAD OF INSERT ON %[1]s BEGIN INSERT INTO %s(%s) VALUES(new.a || %s); END", name, ident(to.name), g.settable(to), g.changing())
		trigger += fmt.Sprintf("; CREATE TRIGGER IF NOT EXISTS %s_delete INSTEAD OF DELETE ON %[1]s BEGIN UPDATE %s SET %s=old.a WHERE rowid=(SELECT max(rowid) FROM %[2]s); END", name, ident(to.name), g.settable(to))
	}
	return fmt.Sprintf("DROP VIEW IF EXISTS %s; CREATE VIEW %[1]s(a, b, c) AS %s%[3]s", name, g.pick(
		fmt.Sprintf("SELECT %s, random(), strftime('%%f', 'now') FROM %s ORDER BY 1 LIMIT 9", g.column(t), ident(t.name)),
		fmt.Sprintf("SELECT %s, %s, count(*) FROM %s GROUP BY 1, 2", g.column(t), g.column(t), ident(t.name)),
		fmt.Sprintf("SELECT %s, changes(), last_insert_rowid() FROM %s", g.column(t), ident(t.name)),
		fmt.Sprintf("SELECT %s, row_number() OVER (ORDER BY %s), rowid FROM %s", g.column(t), g.column(t), ident(t.name))), trigger)
}

// createTrigger makes a trigger that writes what the entry decides. What it inserts into has a bound, so
// that chains of triggers come to an end.
func createTrigger(g *Generator) string {
	name := triggerNames[g.n(len(triggerNames))]
	t, to := g.table(ordinary), g.plain()
	event := g.pick("INSERT", "UPDATE", "DELETE", "INSERT", "UPDATE OF "+g.column(t))
	on, when := ident(t.name), g.pick("BEFORE", "AFTER", "AFTER")
	if len(g.world.views) > 0 && g.chance(25) {
		on, when, event = g.world.views[g.n(len(g.world.views))], "INSTEAD OF", g.pick("INSERT", "UPDATE", "DELETE")
	}
	row := "new"
	if event == "DELETE" {
		row = "old"
	}
	from := "a"
	if when != "INSTEAD OF" {
		from = g.column(t)
	}
	var body []string
	for range 1 + g.n(2) {
		c := g.settable(to)
		bounded := fmt.Sprintf("WHERE (SELECT count(*) FROM %s)<150", ident(to.name))
		body = append(body, g.pick(
			fmt.Sprintf("INSERT INTO %s(%s) SELECT %s.%s %s", ident(to.name), c, row, from, bounded),
			fmt.Sprintf("INSERT OR IGNORE INTO %s(%s) SELECT %s %s", ident(to.name), c, g.changing(), bounded),
			fmt.Sprintf("INSERT INTO %s(%s) SELECT printf('%%d %%d %%d', changes(), total_changes(), last_insert_rowid()) %s", ident(to.name), c, bounded),
			fmt.Sprintf("UPDATE %s SET %s=%s WHERE rowid=(SELECT min(rowid) FROM %[1]s)", ident(to.name), c, g.changing()),
			fmt.Sprintf("DELETE FROM %s WHERE rowid=(SELECT max(rowid) FROM %[1]s) AND random()%%3=0", ident(to.name)),
			fmt.Sprintf("SELECT RAISE(%s, 'raised by %s') WHERE random()%%%d=0", g.pick("ABORT", "FAIL", "ROLLBACK", "IGNORE"), name, 5+g.n(9)),
			fmt.Sprintf("SELECT RAISE(IGNORE) WHERE %s.%s=5", row, from)))
	}
	cond := ""
	if g.chance(30) {
		cond = fmt.Sprintf(" WHEN %s.%s %s", row, from, g.pick("IS NOT NULL", ">10", "<>'a'"))
	}
	g.world.triggers = add(g.world.triggers, name)
	return fmt.Sprintf("DROP TRIGGER IF EXISTS %s; CREATE TRIGGER %[1]s %s %s ON %s%s BEGIN %s; END", name, when, event, on, cond, strings.Join(body, "; "))
}

func drop(g *Generator) string {
	switch g.n(6) {
	case 0:
		if len(g.world.tables) > 4 {
			t := g.world.tables[g.n(len(g.world.tables))]
			g.world.drop(t.name)
			return "DROP TABLE " + ident(t.name)
		}
	case 1:
		return "DROP VIEW " + g.pick(viewNames...)
	case 2, 3:
		return "DROP INDEX " + g.pick("IF EXISTS ", "") + g.pick(indexNames...)
	}
	return "DROP TRIGGER " + g.pick("IF EXISTS ", "") + g.pick(triggerNames...)
}

// dropUsers drops what may stand in the way of ALTER TABLE: a view or a trigger that speaks of a
// table that is gone.
func (g *Generator) dropUsers() string {
	if g.chance(25) {
		return ""
	}
	g.world.views, g.world.triggers = nil, nil
	var out strings.Builder
	for _, name := range viewNames {
		fmt.Fprintf(&out, "DROP VIEW IF EXISTS %s; ", name)
	}
	for _, name := range triggerNames {
		fmt.Fprintf(&out, "DROP TRIGGER IF EXISTS %s; ", name)
	}
	return out.String()
}

// renameTable takes a name that createTable does not use, and so gives one back to it.
func renameTable(g *Generator) string {
	t := g.table(ordinary)
	from, to := t.name, g.pick("x0", "x1")
	if from == to {
		return ""
	}
	g.world.drop(from)
	t.name = to
	g.world.put(t)
	return fmt.Sprintf("%sDROP TABLE IF EXISTS %s; ALTER TABLE %s RENAME TO %[2]s", g.dropUsers(), ident(to), ident(from))
}

func renameColumn(g *Generator) string {
	t := g.table(ordinary)
	i := slices.IndexFunc(t.columns, func(c column) bool { return !c.key && c.name != "a" && c.name != "gen" })
	to := g.pick(columnNames...)
	if i < 0 || slices.ContainsFunc(t.columns, func(c column) bool { return c.name == to }) {
		return ""
	}
	from := t.columns[i].name
	t.columns = slices.Clone(t.columns)
	t.columns[i].name = to
	g.world.put(t)
	return fmt.Sprintf("%sALTER TABLE %s RENAME COLUMN %s TO %s", g.dropUsers(), ident(t.name), ident(from), ident(to))
}

func addColumn(g *Generator) string {
	t := g.table(ordinary)
	name := g.pick(columnNames...)
	if slices.ContainsFunc(t.columns, func(c column) bool { return c.name == name }) || len(t.columns) > 7 {
		return ""
	}
	c := column{name: name, kind: kind(g.n(int(moments) + 1))}
	choices := types[c.kind]
	if t.strict {
		choices = strictTypes[c.kind]
	}
	t.columns = append(slices.Clone(t.columns), c)
	g.world.put(t)
	return fmt.Sprintf("ALTER TABLE %s ADD COLUMN %s %s%s", ident(t.name), ident(name), g.pick(choices...), g.pick("", " DEFAULT 5", " DEFAULT 'x' NOT NULL", " DEFAULT NULL"))
}

func dropColumn(g *Generator) string {
	t := g.table(ordinary)
	i := slices.IndexFunc(t.columns, func(c column) bool { return !c.key && c.name != "a" })
	if i < 0 || len(t.columns) < 3 {
		return ""
	}
	name := t.columns[i].name
	t.columns = slices.Delete(slices.Clone(t.columns), i, i+1)
	g.world.put(t)
	return fmt.Sprintf("%sALTER TABLE %s DROP COLUMN %s", g.dropUsers(), ident(t.name), ident(name))
}
