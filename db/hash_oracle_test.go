package db

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"rqlited/command"
)

// oracle says the same as a hash, slowly: it asks SQLite for all there is, value by value.
func oracle(t testing.TB, d *DB) string {
	t.Helper()
	rows := func(sql string) []string {
		r := query(t, d, sql).Results[0]
		if r.Error != "" {
			t.Fatalf("%s: %s", sql, r.Error)
		}
		var lines []string
		for _, row := range r.Rows.Values {
			lines = append(lines, fmt.Sprintf("%q", row))
		}
		slices.Sort(lines)
		return lines
	}
	out := sha256.New()
	write := func(lines []string) { fmt.Fprintf(out, "%d\n%s\n", len(lines), strings.Join(lines, "\n")) }
	write(rows("SELECT encoding, user_version, application_id FROM pragma_encoding, pragma_user_version, pragma_application_id"))
	write(rows("SELECT type, name, tbl_name, quote(sql) FROM sqlite_schema"))
	for _, table := range query(t, d, "SELECT s.name, l.wr FROM sqlite_schema s JOIN pragma_table_list l ON l.schema='main' AND l.name=s.name WHERE s.type='table' AND s.rootpage>0 ORDER BY s.name").Results[0].Rows.Values {
		name := table[0].(string)
		var cols []string
		if table[1].(int64) == 0 {
			cols = append(cols, "rowid || ''")
		}
		for _, c := range query(t, d, "SELECT name FROM pragma_table_xinfo('"+name+"')").Results[0].Rows.Values {
			q := `"` + c[0].(string) + `"`
			cols = append(cols, "typeof("+q+")", "CASE typeof("+q+") WHEN 'real' THEN printf('%!.20g', "+q+") ELSE hex("+q+") END")
		}
		fmt.Fprintln(out, name)
		write(rows("SELECT " + strings.Join(cols, ", ") + ` FROM "` + name + `"`))
	}
	return fmt.Sprintf("%x", out.Sum(nil))
}

// twins notices if hash and oracle disagree on what is equal.
type twins struct{ byOracle, byHash map[string]string }

func (w *twins) check(t testing.TB, d *DB, hash string) {
	t.Helper()
	if w.byHash == nil {
		w.byOracle, w.byHash = map[string]string{}, map[string]string{}
	}
	o := oracle(t, d)
	if h, ok := w.byOracle[o]; ok && h != hash {
		t.Fatalf("hash is %s, and was %s of the same content", hash, h)
	}
	if former, ok := w.byHash[hash]; ok && former != o {
		t.Fatalf("hash is %s as before, but the content differs", hash)
	}
	w.byOracle[o], w.byHash[hash] = hash, o
}

// hashProgram is a random life of a database with hashes in between.
type hashProgram struct {
	t    *testing.T
	d    *DB
	dice *rand.Rand
	s    chain
	w    twins
	held []*pooled
	busy int // captures refused
}

func TestHashIncremental(t *testing.T) {
	for pageSize := walMinPage; pageSize <= walMaxPage; pageSize *= 2 {
		for autoVacuum := range 3 {
			t.Run(fmt.Sprintf("%d bytes, auto_vacuum %d", pageSize, autoVacuum), func(t *testing.T) {
				t.Parallel()
				seed := uint64(time.Now().UnixNano())
				t.Log("seed", seed)
				p := &hashProgram{t: t, dice: rand.New(rand.NewPCG(seed, 0)), s: chain{images: map[string][]byte{}},
					d: open(t, testPath(t), Config{ReadersGrace: time.Millisecond})}
				image := imageFile(t, p.d, fmt.Sprintf("PRAGMA page_size=%d; PRAGMA auto_vacuum=%d; CREATE TABLE t (id INTEGER PRIMARY KEY, a, b); CREATE INDEX i ON t(a); CREATE TABLE w (k, n, PRIMARY KEY(k, n)) WITHOUT ROWID", pageSize, autoVacuum))
				if err := p.d.Replace(image, ""); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(p.releaseReaders)
				for range 12 {
					p.step()
				}
				t.Logf("%d states, %d captures refused", len(p.w.byHash), p.busy)
			})
		}
	}
}

func (p *hashProgram) step() {
	p.write()
	switch p.dice.IntN(10) {
	case 0:
		p.held = append(p.held, holdReader(p.t, p.d))
	case 1, 2:
		p.releaseReaders()
	case 3, 4, 5:
		p.capture()
		if p.dice.IntN(2) == 0 {
			p.write()
		}
	case 6:
		p.beside()
	case 7:
		p.cancel()
	}
	if p.dice.IntN(3) == 0 {
		return // more than one step between hashes
	}
	got := hashNow(p.t, p.d)
	if want := hashFromScratch(p.t, p.d); got != want {
		p.t.Fatalf("hash is %s, from scratch %s", got, want)
	}
	p.w.check(p.t, p.d, got)
}

// write changes something: what randomWrites does, and what is a trap for a hash that remembers.
func (p *hashProgram) write() {
	randomWrites(p.t, p.d, p.dice)
	choices := [][]string{
		// The same length: SQLite writes over the overflow pages that differ, and no other.
		{"UPDATE t SET b=CAST(substr(b, 1, length(b)-1) || char(random()&63) AS BLOB) WHERE id=(SELECT id FROM t WHERE length(b)>2000 ORDER BY random() LIMIT 1)"},
		{"UPDATE t SET b=CAST(substr(b, 1, length(b)/2) || char(random()&63) || substr(b, length(b)/2+2) AS BLOB) WHERE length(b)>2000"},
		{"INSERT OR IGNORE INTO w SELECT randomblob(5+abs(random())%3000), a FROM t ORDER BY random() LIMIT 20"},
		{"DELETE FROM w WHERE k IN (SELECT k FROM w ORDER BY random() LIMIT 10)"},
		{"UPDATE w SET n=n+1"},
		{"INSERT INTO t(a, b) SELECT a, b FROM t ORDER BY random() LIMIT 30"},
		{"DELETE FROM t WHERE id>(SELECT max(id)/2 FROM t)"},
		{"UPDATE t SET id=-id WHERE id=(SELECT max(id) FROM t)"},
		{"CREATE TABLE IF NOT EXISTS x AS SELECT * FROM w", "ALTER TABLE w RENAME TO w2", "ALTER TABLE x RENAME TO w3", "ALTER TABLE w2 RENAME TO w", "ALTER TABLE w3 RENAME TO x"},
		{"DROP TABLE IF EXISTS x"},
		{"ALTER TABLE t ADD COLUMN c DEFAULT 5", "INSERT INTO t(a, c) VALUES(1, 2)", "ALTER TABLE t DROP COLUMN c"},
		{"DELETE FROM t"},
		{"INSERT INTO t(b) VALUES(zeroblob(150000))"},
		{"ANALYZE"},
		{"CREATE VIRTUAL TABLE IF NOT EXISTS f USING fts5(x)", "INSERT INTO f SELECT hex(a) || ' ' || hex(substr(b, 1, 20)) FROM t LIMIT 50"},
		{"DROP TABLE IF EXISTS f"},
		{"PRAGMA user_version=" + fmt.Sprint(p.dice.IntN(3))},
	}
	for range 1 + p.dice.IntN(3) {
		sql := choices[p.dice.IntN(len(choices))]
		// A statement that fails is as good as another.
		apply(p.t, p.d, &command.Entry{Kind: command.Execute, Seed: p.dice.Uint64() | 1, Request: &command.Request{Statements: statements(sql...)}})
	}
}

func (p *hashProgram) capture() {
	c, err := p.d.Capture(p.s.head)
	if errors.Is(err, ErrBusy) {
		p.busy++
		return
	}
	if errors.Is(err, ErrNothingNew) {
		return
	}
	if err != nil {
		p.t.Fatal(err)
	}
	if p.dice.IntN(3) == 0 {
		c.Release()
		return
	}
	p.s.publish(p.t, c, p.s.read(p.t, c))
}

// beside pins a state, and writes and captures before it is hashed, or is not.
func (p *hashProgram) beside() {
	want := hashFromScratch(p.t, p.d)
	h := beginHash(p.t, p.d)
	for range p.dice.IntN(3) {
		p.write()
		p.capture()
	}
	if p.dice.IntN(3) == 0 {
		h.Close()
		return
	}
	if got := sumOf(p.t, h); got != want {
		p.t.Fatalf("hash of a pinned state is %s, from scratch %s", got, want)
	}
}

// cancel ends a hash midway.
func (p *hashProgram) cancel() {
	ctx := &countdown{Context: context.Background(), left: p.dice.IntN(60)}
	if _, err := beginHash(p.t, p.d).Sum(ctx); err != nil && !errors.Is(err, context.Canceled) {
		p.t.Fatal(err)
	}
}

// countdown ends after it was asked a number of times.
type countdown struct {
	context.Context
	left int
}

func (c *countdown) Err() error {
	if c.left--; c.left < 0 {
		return context.Canceled
	}
	return nil
}

func (p *hashProgram) releaseReaders() {
	for _, c := range p.held {
		if err := p.d.readers.put(c); err != nil {
			p.t.Fatal(err)
		}
	}
	p.held = nil
}

// TestHashHistories makes the same content in many ways, and once in a while one that differs.
func TestHashHistories(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	dice := rand.New(rand.NewPCG(seed, 0))
	var w twins
	rows := make([]string, 80)
	for i := range rows {
		size := dice.IntN(300)
		if dice.IntN(8) == 0 {
			size = dice.IntN(20000)
		}
		rows[i] = fmt.Sprintf("(%d, %d, printf('%%0%dd', %d))", dice.Int64()>>dice.IntN(55)&^0xff|int64(i), dice.IntN(100), size, i)
	}
	for _, pageSize := range []int{walMinPage, 4096, walMaxPage} {
		for autoVacuum := range 3 {
			d := openImage(t, fmt.Sprintf("PRAGMA page_size=%d; PRAGMA auto_vacuum=%d; CREATE TABLE x (y)", pageSize, autoVacuum))
			tables := []string{"CREATE TABLE t (id INTEGER PRIMARY KEY, a, b)", "CREATE TABLE w (id, a, b, PRIMARY KEY(a, id)) WITHOUT ROWID", "CREATE INDEX i ON t(b)"}
			dice.Shuffle(2, func(i, j int) { tables[i], tables[j] = tables[j], tables[i] })
			exec(t, d, tables...)
			dice.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
			for _, r := range rows {
				exec(t, d, "INSERT OR REPLACE INTO t VALUES "+r, "INSERT OR REPLACE INTO w VALUES "+r)
				if dice.IntN(20) == 0 {
					exec(t, d, "INSERT INTO x SELECT b FROM t", "DELETE FROM w WHERE id%2=0", "INSERT INTO w SELECT * FROM t WHERE id%2=0", "DELETE FROM x")
				}
				if dice.IntN(25) == 0 {
					exec(t, d, "VACUUM")
				}
			}
			exec(t, d, "DROP TABLE x")
			w.check(t, d, hashNow(t, d))
			exec(t, d, "UPDATE t SET a=a+1 WHERE id=(SELECT id FROM t ORDER BY random() LIMIT 1)")
			w.check(t, d, hashNow(t, d))
		}
	}
	if n := len(w.byHash); n < 2 || n > 10 {
		t.Errorf("%d hashes", n)
	}
}
