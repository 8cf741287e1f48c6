package sqlgen

import (
	"fmt"
	"math/rand/v2"
)

// Statement is one element of a request. It has positional values, or named ones, or none.
type Statement struct {
	SQL   string
	Args  []any          // nil, int64, float64, bool, string, []byte
	Named map[string]any // the same, by name without prefix

	class string
}

// Class says what the statement was made as, for statistics.
func (s Statement) Class() string { return s.class }

// Batch is one request.
type Batch struct {
	Statements  []Statement
	Transaction bool // all or nothing
	Unified     bool // reads and writes; else all are writes
}

// Generator makes a program. It is used by one goroutine.
type Generator struct {
	dice    *rand.Rand
	world   world
	batches int
	serial  int // of names and values that shall be new
	params  params
	depth   int  // of the expression being made
	fixed   bool // the expression may contain what is deterministic only
}

// New returns the program of a seed.
func New(seed uint64) *Generator {
	return &Generator{dice: rand.New(rand.NewPCG(seed, 0x5eed))}
}

// shape makes a batch of one kind.
type shape struct {
	weight int
	make   func(g *Generator, b *Batch)
}

var shapes = []shape{
	{42, plainBatch},
	{16, transactionBatch},
	{20, unifiedBatch},
	{5, committedBatch},
	{3, rolledBackBatch},
	{2, openBatch},
	{5, savepointBatch},
	{5, temporaryBatch},
	{5, settingsBatch},
	{2, refusedBatch},
}

// Next returns the next batch.
func (g *Generator) Next() Batch {
	g.batches++
	var b Batch
	switch {
	case len(g.world.tables) < 3 || g.batches%30 == 0:
		g.setup(&b)
	case g.batches%6 == 0:
		g.trim(&b)
	default:
		total := 0
		for _, s := range shapes {
			total += s.weight
		}
		n := g.n(total)
		for _, s := range shapes {
			if n -= s.weight; n < 0 {
				s.make(g, &b)
				break
			}
		}
	}
	return b
}

// setup makes tables, so that there is something to work on.
func (g *Generator) setup(b *Batch) {
	name := g.pick(tableNames...)
	g.world.drop(name)
	g.fixedText(b, "drop table", "DROP TABLE IF EXISTS "+ident(name))
	b.Statements = append(b.Statements, g.statement(structural[:1]))
	for range 2 + g.n(2) {
		b.Statements = append(b.Statements, g.statement(structural))
	}
	for range 2 + g.n(3) {
		b.Statements = append(b.Statements, g.statement(writes))
	}
}

// trim keeps the database small.
func (g *Generator) trim(b *Batch) {
	t := g.world.tables[g.batches/6%len(g.world.tables)]
	key := "rowid"
	if t.withoutRowid {
		key = ident(t.columns[0].name)
	}
	switch t.kind {
	case fullText:
		g.fixedText(b, "trim", fmt.Sprintf("DELETE FROM %s WHERE rowid NOT IN (SELECT rowid FROM %[1]s ORDER BY rowid DESC LIMIT 40)", ident(t.name)))
		return
	case ordinary:
		for _, c := range t.columns {
			if c.kind == blobs && !c.generated && g.chance(40) {
				g.fixedText(b, "trim", fmt.Sprintf("UPDATE %s SET %s=substr(%[2]s, 1, %d) WHERE length(%[2]s)>20000", ident(t.name), ident(c.name), 1+g.n(3000)))
			}
		}
	}
	g.fixedText(b, "trim", fmt.Sprintf("DELETE FROM %[1]s WHERE %[2]s NOT IN (SELECT %[2]s FROM %[1]s ORDER BY %[3]s LIMIT %[4]d)", ident(t.name), key, g.column(t), 30+g.n(120)))
}

// fixedText adds a statement without values.
func (g *Generator) fixedText(b *Batch, class, sql string) {
	b.Statements = append(b.Statements, Statement{SQL: sql, class: class})
}

func (g *Generator) some(b *Batch, list []maker, from, to int) {
	for range from + g.n(to-from+1) {
		b.Statements = append(b.Statements, g.statement(list))
	}
}

func (g *Generator) list(lists ...[]maker) []maker { return lists[g.n(len(lists))] }

func plainBatch(g *Generator, b *Batch) {
	if g.chance(25) {
		g.some(b, structural, 1, 2)
	}
	g.some(b, writes, 1, 5)
	if g.chance(12) {
		g.some(b, upkeep, 1, 1)
	}
	if g.chance(8) {
		b.Statements = append(b.Statements, g.script())
	}
	if g.chance(8) {
		g.some(b, wrong, 1, 1)
	}
	if g.chance(5) {
		g.some(b, unwanted, 1, 1)
		g.some(b, writes, 0, 1)
	}
}

func transactionBatch(g *Generator, b *Batch) {
	b.Transaction = true
	if g.chance(8) {
		g.some(b, structural, 1, 1)
	}
	g.some(b, writes, 1, 4)
	if g.chance(5) {
		g.some(b, g.list(wrong, unwanted), 1, 1)
	}
	if g.chance(5) {
		g.fixedText(b, "transaction", g.pick("COMMIT", "ROLLBACK", "BEGIN"))
		g.some(b, writes, 1, 2)
	}
}

func unifiedBatch(g *Generator, b *Batch) {
	b.Unified = true
	b.Transaction = g.chance(25)
	for range 2 + g.n(5) {
		switch n := g.n(20); {
		case n < 11:
			g.some(b, reads, 1, 1)
		case n < 18:
			g.some(b, writes, 1, 1)
		case n < 19:
			g.some(b, g.list(wrong, unwanted), 1, 1)
		default:
			g.some(b, structural, 1, 1)
		}
	}
}

func committedBatch(g *Generator, b *Batch) {
	b.Unified = g.chance(50)
	g.fixedText(b, "transaction", g.pick("BEGIN", "BEGIN IMMEDIATE", "BEGIN EXCLUSIVE", "BEGIN TRANSACTION"))
	if g.chance(30) {
		g.fixedText(b, "pragma", "PRAGMA defer_foreign_keys=ON")
	}
	g.some(b, writes, 1, 5)
	g.fixedText(b, "transaction", g.pick("COMMIT", "END"))
	g.some(b, writes, 0, 1)
}

func rolledBackBatch(g *Generator, b *Batch) {
	b.Unified = g.chance(50)
	before := g.world.clone()
	g.fixedText(b, "transaction", "BEGIN")
	g.some(b, writes, 1, 4)
	g.some(b, structural, 0, 1)
	g.fixedText(b, "transaction", "ROLLBACK")
	g.world = before
	g.some(b, writes, 0, 2)
}

// openBatch leaves a transaction open.
func openBatch(g *Generator, b *Batch) {
	b.Unified = g.chance(50)
	before := g.world.clone()
	g.some(b, writes, 0, 2)
	g.fixedText(b, "transaction", g.pick("BEGIN", "BEGIN IMMEDIATE", "SAVEPOINT open"))
	g.some(b, writes, 1, 3)
	g.some(b, structural, 0, 1)
	g.some(b, reads, 0, 1)
	g.world = before
}

func savepointBatch(g *Generator, b *Batch) {
	b.Unified, b.Transaction = g.chance(40), g.chance(40)
	g.fixedText(b, "savepoint", "SAVEPOINT a")
	g.some(b, writes, 1, 2)
	g.fixedText(b, "savepoint", "SAVEPOINT b")
	g.some(b, writes, 1, 2)
	g.fixedText(b, "savepoint", g.pick("ROLLBACK TO b", "RELEASE b", "ROLLBACK TO a", "RELEASE absent"))
	g.some(b, writes, 0, 2)
	g.fixedText(b, "savepoint", g.pick("RELEASE a", "RELEASE a", "ROLLBACK TO a"))
}

// temporaryBatch makes what ends with the connection, and uses it.
func temporaryBatch(g *Generator, b *Batch) {
	b.Unified, b.Transaction = g.chance(50), g.chance(30)
	from := g.plain()
	switch g.n(4) {
	case 0:
		g.fixedText(b, "temp", "CREATE TEMP TABLE tmp(a INTEGER PRIMARY KEY, b DEFAULT (random()), c DEFAULT CURRENT_TIMESTAMP)")
		g.fixedText(b, "temp", fmt.Sprintf("INSERT INTO tmp(a) SELECT rowid FROM %s LIMIT 9", ident(from.name)))
	case 1:
		g.fixedText(b, "temp", fmt.Sprintf("CREATE TEMP TABLE tmp AS SELECT random() AS a, changes() AS b, * FROM %s LIMIT 5", ident(from.name)))
	case 2:
		g.fixedText(b, "temp", fmt.Sprintf("CREATE TEMP VIEW tmp AS SELECT total_changes() AS a, last_insert_rowid() AS b FROM %s LIMIT 3", ident(from.name)))
	case 3:
		// It hides a table of the database for the rest of the batch.
		g.fixedText(b, "temp", fmt.Sprintf("CREATE TEMP TABLE %s(a, b)", ident(from.name)))
		g.fixedText(b, "temp", fmt.Sprintf("INSERT INTO %s(a, b) VALUES(random(), strftime('%%f', 'now'))", ident(from.name)))
		g.fixedText(b, "temp", "CREATE TEMP TABLE tmp(a, b)")
	}
	if g.chance(40) {
		g.fixedText(b, "temp", fmt.Sprintf("CREATE TEMP TRIGGER tr_tmp AFTER INSERT ON main.%s BEGIN UPDATE %s SET %s=random() WHERE rowid=new.rowid; END", ident(from.name), ident(from.name), g.settable(from)))
	}
	to := g.plain()
	g.fixedText(b, "temp", fmt.Sprintf("INSERT OR IGNORE INTO main.%s(%s) SELECT a + b FROM tmp", ident(to.name), g.settable(to)))
	g.some(b, writes, 1, 3)
	if b.Unified {
		g.fixedText(b, "temp", "SELECT count(*), min(b) FROM tmp")
	}
}

// settingsBatch changes a setting of the connection, and does what depends on it.
func settingsBatch(g *Generator, b *Batch) {
	b.Unified = g.chance(50)
	b.Transaction = g.chance(20)
	g.fixedText(b, "pragma", "PRAGMA "+g.pick(
		"foreign_keys=ON", "foreign_keys=OFF", "recursive_triggers=ON", "case_sensitive_like=ON", "defer_foreign_keys=ON",
		"reverse_unordered_selects=ON", "ignore_check_constraints=ON", "automatic_index=OFF", "cell_size_check=ON",
		"legacy_alter_table=ON", "full_column_names=ON", "short_column_names=OFF", "cache_size=10",
		"analysis_limit=3", "secure_delete=ON", "foreign_keys(1)", "main.foreign_keys=1"))
	if g.chance(10) {
		g.fixedText(b, "pragma", "PRAGMA "+g.pick("temp_store=MEMORY", "temp_store=FILE", // an error if there is a transaction and temp has been used
			"count_changes=ON")) // a write returns a row
	}
	g.some(b, writes, 1, 4)
	if t := g.table(ordinary); g.chance(50) {
		g.fixedText(b, "delete", fmt.Sprintf("DELETE FROM %s WHERE %s LIKE 'A%%' OR %[2]s LIKE 'é_%%'", ident(t.name), g.column(t)))
	}
	if b.Unified {
		g.some(b, reads, 1, 2)
	}
}

// refusedBatch contains a statement that a node does not run.
func refusedBatch(g *Generator, b *Batch) {
	b.Unified = g.chance(50)
	g.some(b, writes, 0, 2)
	g.fixedText(b, "refused", g.pick(
		"ATTACH 'x.db' AS x", "ATTACH ':memory:' AS m", "DETACH x", "VACUUM INTO 'copy.db'", "VACUUM main INTO '/tmp/copy.db'",
		"PRAGMA journal_mode=DELETE", "PRAGMA wal_checkpoint(TRUNCATE)", "PRAGMA synchronous=FULL", "PRAGMA query_only=ON",
		"PRAGMA writable_schema=ON", "PRAGMA locking_mode=EXCLUSIVE", "PRAGMA optimize", "PRAGMA wal_autocheckpoint=5",
		"SELECT load_extension('x')", "PRAGMA main.journal_mode=OFF", "PRAGMA schema_version=9"))
	g.some(b, writes, 0, 2)
}
