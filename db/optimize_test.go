package db

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"rqlited/command"
)

// rowsOf inserts so many rows into table t(a, b).
func rowsOf(n int) string {
	return fmt.Sprintf("WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM s WHERE i<%d) INSERT INTO t(a, b) SELECT i%%7, hex(i) FROM s", n)
}

// TestOptimize goes through what PRAGMA optimize finds worth while and what not.
func TestOptimize(t *testing.T) {
	d := openNew(t)
	steps := []struct {
		name string
		sql  []string
		want string // the ANALYZE statements; empty is none
	}{
		{"empty database", nil, ""},
		{"empty tables", []string{"CREATE TABLE t(a, b)", "CREATE TABLE u(a)", "CREATE TABLE \"v'\"\"w\"(a)", "CREATE TABLE w(k PRIMARY KEY) WITHOUT ROWID"}, ""},
		{"rows", []string{rowsOf(50), "INSERT INTO \"v'\"\"w\" SELECT a FROM t", "INSERT INTO w VALUES(1)"}, `ANALYZE "main"."t" ANALYZE "main"."v'""w" ANALYZE "main"."w"`},
		{"analyzed", []string{"OPTIMIZE"}, ""},
		{"a new index", []string{"CREATE INDEX i ON t(a)"}, `ANALYZE "main"."t"`},
		{"analyzed again", []string{"OPTIMIZE"}, ""},
		{"a little growth", []string{rowsOf(100)}, ""},
		{"much growth", []string{rowsOf(3000)}, `ANALYZE "main"."t"`},
		{"analyzed a third time", []string{"OPTIMIZE"}, ""},
		{"emptied, so that statistics have to go", []string{"DELETE FROM \"v'\"\"w\""}, `ANALYZE "main"."v'""w"`},
		{"gone", []string{"OPTIMIZE"}, ""},
	}
	for _, s := range steps {
		for _, sql := range s.sql {
			if sql == "OPTIMIZE" {
				exec(t, d, mustOptimize(t, d)...)
			} else {
				exec(t, d, sql)
			}
		}
		got := mustOptimize(t, d)
		if len(got) > 0 {
			if got[0] != "PRAGMA analysis_limit=2000" || got[len(got)-1] != "PRAGMA analysis_limit=0" {
				t.Errorf("%s: bounds are %q", s.name, got)
			}
			got = got[1 : len(got)-1]
			slices.Sort(got)
		}
		if all := strings.Join(got, " "); all != s.want {
			t.Errorf("%s: %s; want %s", s.name, all, s.want)
		}
	}
}

func mustOptimize(t *testing.T, d *DB) []string {
	t.Helper()
	got, err := d.Optimize()
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// TestOptimizeBounds has so many tables that each is looked at for a shorter time.
func TestOptimizeBounds(t *testing.T) {
	d := openNew(t)
	var sql []string
	for i := range 150 {
		sql = append(sql, fmt.Sprintf("CREATE TABLE t%d(a PRIMARY KEY)", i), fmt.Sprintf("INSERT INTO t%d VALUES(1)", i))
	}
	exec(t, d, sql...)
	got := mustOptimize(t, d)
	if len(got) != 152 || got[0] != "PRAGMA analysis_limit=666" {
		t.Errorf("%d statements, the first is %q", len(got), got[0])
	}
}

// TestOptimizeChangesNothing asks, beside readers and an announced capture, and expects neither a byte nor the WAL changed.
func TestOptimizeChangesNothing(t *testing.T) {
	d := openNew(t)
	exec(t, d, "CREATE TABLE t(a, b)", "CREATE TABLE u(a PRIMARY KEY)", rowsOf(100))
	before, seen := dump(t, d), d.seen
	for range 3 {
		mustOptimize(t, d)
	}
	now, err := d.writer.walView()
	if err != nil || now != seen || dump(t, d) != before {
		t.Errorf("the WAL was %+v and is %+v, %v", seen, now, err)
	}
	exec(t, d, "INSERT INTO u VALUES(1)")
}

// TestAskSpace asks for more than any disk has.
func TestAskSpace(t *testing.T) {
	d := openNew(t)
	exec(t, d, "CREATE TABLE t(a)")
	if err := d.AskSpace(1); err != nil {
		t.Errorf("AskSpace(1) = %v", err)
	}
	if err := d.AskSpace(1 << 40); !errors.Is(err, ErrNoSpace) {
		t.Errorf("AskSpace(1<<40) = %v; want %v", err, ErrNoSpace)
	}
}

// TestOptimizeLayouts has two databases of the same content whose rows lie in other pages, as replicas taken over from
// rqlite do. ANALYZE within the bounds of PRAGMA optimize must say the same about both, though it
// reads a part of the rows only.
func TestOptimizeLayouts(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	dice := rand.New(rand.NewPCG(seed, 0))
	for round := range 5 {
		grown := openNew(t)
		exec(t, grown, "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b)", "CREATE INDEX i ON t(a, b)", "CREATE INDEX j ON t(b) WHERE a > 3",
			"CREATE TABLE w(k, n, PRIMARY KEY(k, n)) WITHOUT ROWID", "CREATE TABLE plain(x)")
		for range 6 {
			n := 1 + dice.IntN(4000)
			exec(t, grown, rowsOf(n),
				fmt.Sprintf("INSERT OR IGNORE INTO w SELECT a, id FROM t WHERE id%%%d=0", 1+dice.IntN(9)),
				fmt.Sprintf("DELETE FROM t WHERE id < %d AND id%%%d>0", dice.IntN(8000), 1+dice.IntN(20)),
				"INSERT INTO plain SELECT zeroblob(200) FROM t LIMIT 500")
		}
		packed := openNew(t)
		if err := packed.Replace(copyOf(t, grown, packed), ""); err != nil {
			t.Fatal(err)
		}
		exec(t, packed, "PRAGMA page_size=1024; PRAGMA auto_vacuum=2", "VACUUM", "REINDEX")
		plan := mustOptimize(t, grown)
		if len(plan) != 5 {
			t.Fatalf("round %d: plan is %q", round, plan)
		}
		for _, d := range []*DB{grown, packed} {
			exec(t, d, plan...)
		}
		const stats = "SELECT rowid, * FROM sqlite_stat1 ORDER BY rowid"
		if a, b := show(query(t, grown, stats).Results...), show(query(t, packed, stats).Results...); a != b {
			t.Errorf("round %d: statistics are %s and %s", round, a, b)
		}
		if a, b := hashFromScratch(t, grown), hashFromScratch(t, packed); a != b {
			t.Errorf("round %d: hashes are %s and %s", round, a, b)
		}
	}
}

// copyOf returns the name of a copy of d in the directory of another database.
func copyOf(t *testing.T, d, beside *DB) string {
	t.Helper()
	b, err := d.BeginBackup()
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(filepath.Dir(beside.path), "image")
	f, err := d.fs.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Write(t.Context(), f, &command.BackupRequest{Format: command.BackupBinary}); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestOptimizePrograms lets random programs run on two databases, of which one has a new connection for each entry. What one of them finds worth
// while is an entry for both, and VACUUM now and then: they stay equal, and none of these statements fails.
func TestOptimizePrograms(t *testing.T) {
	t.Parallel()
	programSeeds(t, []uint64{1, 2, 3}, func(t *testing.T, seed uint64) {
		steady, fresh := openNew(t), openNew(t)
		w := newEntryWriter(seed, steady, false)
		both := func(next func() *command.Entry) (a, b *command.Response) {
			a = apply(t, steady, next())
			b = apply(t, fresh, next())
			if err := fresh.reopenWriter(); err != nil {
				t.Fatal(err)
			}
			return a, b
		}
		analyzed := 0
		for i := range 120 {
			p := w.next(t)
			both(func() *command.Entry { return p.entry(t) })
			if i%10 > 0 {
				continue
			}
			plan := mustOptimize(t, steady)
			if i%40 == 0 {
				plan = append(plan, "VACUUM")
			}
			analyzed += len(plan)
			a, b := both(func() *command.Entry {
				req := &command.Request{Kind: command.Execute, Statements: statements(plan...)}
				return &command.Entry{Kind: req.Kind, Request: req, Seed: 1, Time: w.clock, Upkeep: command.Optimize}
			})
			for n, r := range a.Results {
				if r.Error != "" || b.Results[n].Error != "" {
					t.Fatalf("entry %d: %s: %s, %s", i, plan[n], r.Error, b.Results[n].Error)
				}
			}
		}
		if d := difference(state(t, ask(t, fresh)), state(t, ask(t, steady))); d != "" {
			t.Error(d)
		}
		if a, b := hashFromScratch(t, steady), hashFromScratch(t, fresh); a != b {
			t.Errorf("hashes are %s and %s", a, b)
		}
		if analyzed < 20 {
			t.Errorf("%d statements in all", analyzed)
		}
	})
}
