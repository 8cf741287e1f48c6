package db

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"rqlited/command"
	"rqlited/internal/sqlgen"
)

var (
	flagPrograms = flag.Duration("programs", 0, "how long the tests with random SQL programs go on with new seeds, after the programs that always run")
	flagSeed     = flag.Uint64("seed", 0, "the only seed of the tests with random SQL programs")
)

// programSeeds calls run with the seeds of a test: those that are always the same, a new one, and
// more as long as -programs says. A failure names its seed, which -seed repeats.
func programSeeds(t *testing.T, always []uint64, run func(t *testing.T, seed uint64)) {
	one := func(seed uint64) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Logf("repeat with: go test ./db -run '^%s$' -seed %d", strings.SplitN(t.Name(), "/", 2)[0], seed)
			run(t, seed)
		})
	}
	if *flagSeed != 0 {
		one(*flagSeed)
		return
	}
	fresh := uint64(time.Now().UnixNano())
	for _, seed := range append(always, fresh) {
		one(seed)
	}
	for end := time.Now().Add(*flagPrograms); time.Now().Before(end) && !t.Failed(); {
		fresh++
		one(fresh)
	}
}

// programEntry is one entry of the log that a program makes, with what it was made of.
type programEntry struct {
	batch sqlgen.Batch
	data  []byte // encoded
}

// entry returns the entry as a node reads it from its log.
func (p *programEntry) entry(t testing.TB) *command.Entry {
	t.Helper()
	e, err := command.DecodeEntry(p.data)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// writer turns the batches of a program into entries, as a leader does.
type entryWriter struct {
	g           *sqlgen.Generator
	dice        *rand.Rand
	judge       *DB // classifies statements; its schema is that of the entries so far
	foreignKeys bool
	clock       time.Time
	refused     int
}

func newEntryWriter(seed uint64, judge *DB, foreignKeys bool) *entryWriter {
	return &entryWriter{g: sqlgen.New(seed), dice: rand.New(rand.NewPCG(seed, 1)), judge: judge, foreignKeys: foreignKeys,
		clock: time.Date(2023, 11, 14, 22, 13, 20, 0, time.UTC)}
}

// next returns the next entry that is not refused.
func (w *entryWriter) next(t testing.TB) programEntry {
	t.Helper()
	for {
		b := w.g.Next()
		req := requestOf(b)
		if _, err := w.judge.Prepare(req); err != nil {
			w.refused++
			continue
		}
		w.clock = w.clock.Add(time.Duration(w.dice.Int64N(int64(36 * time.Hour)))) // ends of months and of years are passed
		e := &command.Entry{Kind: req.Kind, Request: req, Time: w.clock, Seed: w.dice.Uint64() | 1, ForeignKeys: command.Off}
		if w.foreignKeys {
			e.ForeignKeys = command.On
		}
		data, err := command.EncodeEntry(nil, e)
		if err != nil {
			t.Fatal(err)
		}
		return programEntry{b, data}
	}
}

func requestOf(b sqlgen.Batch) *command.Request {
	req := &command.Request{Kind: command.Execute, Transaction: b.Transaction}
	if b.Unified {
		req.Kind = command.Unified
	}
	for _, s := range b.Statements {
		st := command.Statement{SQL: s.SQL}
		for _, v := range s.Args {
			st.Params = append(st.Params, command.Param{Value: v})
		}
		for _, name := range slices.Sorted(maps.Keys(s.Named)) {
			st.Params = append(st.Params, command.Param{Name: name, Value: s.Named[name]})
		}
		req.Statements = append(req.Statements, st)
	}
	return req
}

// asker answers one query.
type asker func(sql string) command.Result

// ask asks a database.
func ask(t testing.TB, d *DB) asker {
	return func(sql string) command.Result {
		t.Helper()
		return query(t, d, sql).Results[0]
	}
}

// askAnew asks a database through a connection that nobody has used before.
func askAnew(t testing.TB, d *DB) asker {
	return func(sql string) (res command.Result) {
		t.Helper()
		c, err := openConn(d.path, openReadOnly, reader, d.nowhere, nil)
		if err != nil {
			t.Fatal(err)
		}
		if res.Rows, err = c.query(&command.Statement{SQL: sql}, false, nil); err != nil {
			res = command.Result{Rows: &command.Rows{}, Error: err.Error()}
		}
		if err := c.close(); err != nil {
			t.Error(err)
		}
		return res
	}
}

func (ask asker) rows(t testing.TB, sql string) [][]any {
	t.Helper()
	r := ask(sql)
	if r.Error != "" {
		t.Fatalf("%s: %s", sql, r.Error)
	}
	return r.Rows.Values
}

// state returns everything that SQL sees in the database, a row in each line: the schema, all
// tables, those behind virtual tables and SQLite's own among them, and what describes the whole.
func state(t testing.TB, ask asker) []string {
	t.Helper()
	var out []string
	add := func(prefix, sql string) {
		var lines []string
		for _, row := range ask.rows(t, sql) {
			lines = append(lines, prefix+fmt.Sprintf("%q", row))
		}
		slices.Sort(lines)
		out = append(out, lines...)
	}
	add("header ", "SELECT encoding, user_version, application_id, auto_vacuum, page_size FROM pragma_encoding, pragma_user_version, pragma_application_id, pragma_auto_vacuum, pragma_page_size")
	add("schema ", "SELECT type, name, tbl_name, quote(sql) FROM sqlite_schema")
	for _, row := range ask.rows(t, "SELECT s.name, l.wr FROM sqlite_schema s JOIN pragma_table_list l ON l.schema='main' AND l.name=s.name WHERE s.type='table' AND s.rootpage>0 ORDER BY s.name") {
		name := row[0].(string)
		var cols []string
		for _, c := range ask.rows(t, "SELECT name FROM pragma_table_xinfo("+quoted(name, '\'')+")") {
			q := quoted(c[0].(string), '"')
			cols = append(cols, "typeof("+q+") || ' ' || CASE typeof("+q+") WHEN 'real' THEN printf('%!.20g', "+q+") WHEN 'null' THEN '' WHEN 'blob' THEN hex("+q+") ELSE hex("+q+") || ' ' || quote("+q+") END")
		}
		if row[1].(int64) == 0 {
			cols = append(cols, "'rowid ' || rowid")
		}
		add(name+" ", "SELECT "+strings.Join(cols, ", ")+" FROM "+quoted(name, '"'))
	}
	return out
}

func quoted(s string, q byte) string {
	quote := string([]byte{q})
	return quote + strings.ReplaceAll(s, quote, quote+quote) + quote
}

// checks returns what SQLite finds wrong with the database.
func checks(t testing.TB, ask asker) string {
	t.Helper()
	return show(ask("PRAGMA integrity_check"), ask("PRAGMA foreign_key_check"))
}

// difference says where two states differ first.
func difference(got, want []string) string {
	for i := range max(len(got), len(want)) {
		g, w := "(nothing)", "(nothing)"
		if i < len(got) {
			g = got[i]
		}
		if i < len(want) {
			w = want[i]
		}
		if g != w {
			at := 0
			for at < min(len(g), len(w)) && g[at] == w[at] {
				at++
			}
			begin, same := g[:min(at, 80)], g[min(at, 80):at]
			same = same[max(0, len(same)-200):]
			return fmt.Sprintf("line %d from byte %d on:\ngot  %.80q … %.600q\nwant %.80q … %.600q", i+1, at, begin, same+g[at:], begin, same+w[at:])
		}
	}
	return ""
}

// differentResults compares the results of an entry.
func differentResults(n int, got, want string, b sqlgen.Batch) string {
	diff := difference(strings.Split(got, "\n"), strings.Split(want, "\n"))
	if diff == "" {
		return ""
	}
	return fmt.Sprintf("results of entry %d differ in %s\nof %s", n, diff, describe(b))
}

// describe writes a batch for a person.
func describe(b sqlgen.Batch) string {
	var out strings.Builder
	fmt.Fprintf(&out, "transaction %t, unified %t", b.Transaction, b.Unified)
	for i, st := range b.Statements {
		fmt.Fprintf(&out, "\n%3d. %.2000s", i+1, st.SQL)
		if len(st.Args)+len(st.Named) > 0 {
			fmt.Fprintf(&out, "\n     with %.300q %.300q", st.Args, fmt.Sprint(st.Named))
		}
	}
	return out.String()
}

// TestProgramsReachDeep counts what becomes of the statements of programs, so that these do not end up
// as a list of errors: each class must be met often, and succeed often enough, and all kinds of errors must be met.
func TestProgramsReachDeep(t *testing.T) {
	t.Parallel()
	c := census{made: map[string]int{}, good: map[string]int{}, errors: map[string]int{}}
	for _, seed := range []uint64{1, 2} { // always the same: rare statements would be missed by chance
		c.run(t, seed, 1500)
	}
	c.made["refused"] += c.refused
	all, good := 0, 0
	for _, class := range slices.Sorted(maps.Keys(c.made)) {
		m, g := c.made[class], c.good[class]
		all, good = all+m, good+g
		t.Logf("%-18s %6d %3d%%", class, m, 100*g/m)
		least := 25
		switch class {
		case "wrong", "spoilt", "view write", "largest rowid":
			least = 5
		case "refused", "of the node":
			least = 0
		}
		if m < 4 || g*100 < m*least {
			t.Errorf("%d of %d statements of class %q succeed", g, m, class)
		}
	}
	t.Logf("%-18s %6d %3d%%; %d KiB at most", "all", all, 100*good/all, c.largest>>10)
	if good*100 < all*62 || good*100 > all*88 {
		t.Errorf("%d of %d statements succeed", good, all)
	}
	if c.largest < 300<<10 || c.largest > 30<<20 {
		t.Errorf("the largest database has %d bytes", c.largest)
	}
	texts := slices.Sorted(maps.Keys(c.errors))
	for _, want := range []string{"UNIQUE constraint failed", "CHECK constraint failed", "NOT NULL constraint failed", "FOREIGN KEY constraint failed", "rtree constraint failed",
		"syntax error", "incomplete input", "no such table", "no such column", "datatype mismatch", "cannot store TEXT value in", "not enough args", "raised by", "integer overflow",
		"malformed JSON", "fts5: syntax error", "transaction not ended",
		"cannot start a transaction within a transaction", "no such savepoint"} {
		if !slices.ContainsFunc(texts, func(s string) bool { return strings.Contains(s, want) }) {
			t.Errorf("no statement fails with %q", want)
		}
	}
	for _, text := range texts {
		if c.errors[text] > all/200 {
			t.Logf("%6d %s", c.errors[text], text)
		}
	}
}

type census struct {
	made, good map[string]int // statements by class
	errors     map[string]int
	refused    int
	largest    int64 // bytes
}

func (c *census) run(t *testing.T, seed uint64, batches int) {
	d := open(t, testPath(t), Config{ForeignKeys: true})
	w := newEntryWriter(seed, d, true)
	for n := range batches {
		p := w.next(t)
		results := apply(t, d, p.entry(t)).Results
		for _, st := range p.batch.Statements {
			if st.SQL == "" {
				continue // has no result
			}
			c.made[st.Class()]++
			if len(results) == 0 {
				continue // after an error that has ended the transaction
			}
			if results[0].Error == "" {
				c.good[st.Class()]++
			} else {
				c.errors[results[0].Error]++
			}
			results = results[1:]
		}
		if n%100 == 99 {
			captured(t, d)
			c.largest = max(c.largest, value(t, d, "SELECT page_count*page_size FROM pragma_page_count, pragma_page_size").(int64))
		}
	}
	c.refused += w.refused
}
