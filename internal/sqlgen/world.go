package sqlgen

import (
	"slices"
	"strings"
)

// The names that tables, columns and so on get. They are few, so that statements meet each
// other's work and a wrong belief is corrected soon.
var (
	tableNames   = []string{"t0", "t1", "t2", "t3", "t4", "t5", `we"ird ü`, "select"}
	columnNames  = []string{"a", "b", "c", "d", "e", "größe", "order"}
	viewNames    = []string{"v0", "v1", "v2"}
	indexNames   = []string{"i0", "i1", "i2", "i3", "i4", "i5"}
	triggerNames = []string{"g0", "g1", "g2", "g3", "g4", "g5"}
	ftsNames     = []string{"f0", "f1", "f2"}
	rtreeNames   = []string{"r0", "r1"}
)

// kind is the values that a column is meant for.
type kind int

const (
	anything kind = iota
	integers
	reals
	texts
	blobs
	documents // JSON
	moments
)

type tableKind int

const (
	ordinary tableKind = iota
	fullText
	boxes // an R-tree
)

type column struct {
	name      string
	kind      kind
	generated bool
	key       bool
}

type table struct {
	name         string
	kind         tableKind
	columns      []column
	withoutRowid bool
	strict       bool
	idKey        bool   // has an INTEGER PRIMARY KEY named id
	option       string // of a virtual table
}

// world is what the generator believes to exist. Tables are values: a change replaces one.
type world struct {
	tables                   []table
	views, indexes, triggers []string
	choice                   struct{ table, x, y, set string } // two columns with an index each, and one to set
}

func (w world) clone() world {
	return world{slices.Clone(w.tables), slices.Clone(w.views), slices.Clone(w.indexes), slices.Clone(w.triggers), w.choice}
}

// put adds t or replaces the table of that name.
func (w *world) put(t table) {
	w.drop(t.name)
	w.tables = append(w.tables, t)
}

func (w *world) drop(name string) {
	if w.choice.table == ident(name) {
		w.choice.table = ""
	}
	w.tables = slices.DeleteFunc(slices.Clone(w.tables), func(t table) bool { return t.name == name })
}

func add(names []string, name string) []string {
	if slices.Contains(names, name) {
		return names
	}
	return append(slices.Clone(names), name)
}

func ident(name string) string {
	plain := name != "order" && name != "select"
	for _, r := range name {
		plain = plain && (r == '_' || 'a' <= r && r <= 'z' || '0' <= r && r <= '9')
	}
	if plain {
		return name
	}
	return `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

func (g *Generator) n(n int) int { return g.dice.IntN(n) }

func (g *Generator) chance(percent int) bool { return g.dice.IntN(100) < percent }

func (g *Generator) pick(choices ...string) string { return choices[g.n(len(choices))] }

// table returns some table of the kind. There is always an ordinary one; of other kinds the name is
// empty if there is none.
func (g *Generator) table(k tableKind) table {
	var fit []table
	for _, t := range g.world.tables {
		if t.kind == k {
			fit = append(fit, t)
		}
	}
	if len(fit) > 0 {
		return fit[g.n(len(fit))]
	}
	if k != ordinary {
		return table{}
	}
	return table{name: "t0", columns: []column{{name: "a"}}}
}

// plain returns an ordinary table of which a row can be made from one column, if there is one.
func (g *Generator) plain() table {
	t := g.table(ordinary)
	for range 6 {
		if !t.withoutRowid && (t.idKey || !t.columns[0].key) {
			break
		}
		t = g.table(ordinary)
	}
	return t
}

// column returns the name of some column of t.
func (g *Generator) column(t table) string {
	if len(t.columns) == 0 || g.chance(1) {
		return g.pick("rowid", "nowhere")
	}
	return ident(t.columns[g.n(len(t.columns))].name)
}

// stored returns the columns of t that can be set.
func (t table) stored() []column {
	return slices.DeleteFunc(slices.Clone(t.columns), func(c column) bool { return c.generated })
}

// settable returns the name of a column that can be set, and not the key if there is another.
func (g *Generator) settable(t table) string { return ident(g.target(t).name) }

func (g *Generator) target(t table) column {
	fit := slices.DeleteFunc(t.stored(), func(c column) bool { return c.key })
	if len(fit) == 0 {
		fit = t.stored()
	}
	if len(fit) == 0 {
		return column{name: "a"}
	}
	return fit[g.n(len(fit))]
}
