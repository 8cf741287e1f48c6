package rewrite

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"rqlited/command"
	"rqlited/db"
	"rqlited/internal/sqlgen"
)

// pair is a database for the statements as they are made, and one for what becomes of them.
type pair struct {
	plain, anew *db.DB
	clock       time.Time
	seed        uint64
}

func newPair(t *testing.T, seed uint64) *pair {
	open := func() *db.DB {
		d, err := db.Open(filepath.Join(t.TempDir(), "db.sqlite"), db.Config{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		})
		return d
	}
	return &pair{plain: open(), anew: open(), clock: time.Date(2023, 11, 14, 22, 13, 20, 0, time.UTC), seed: seed}
}

// apply runs a batch with a clock and a seed that are the same for both databases.
func (p *pair) apply(t *testing.T, d *db.DB, b sqlgen.Batch) []command.Result {
	t.Helper()
	resp, err := d.Apply(&command.Entry{Kind: kindOf(b), Request: requestOf(b), Time: p.clock, Seed: p.seed})
	if err != nil {
		t.Fatal(err)
	}
	return resp.Results
}

func kindOf(b sqlgen.Batch) command.Kind {
	if b.Unified {
		return command.Unified
	}
	return command.Execute
}

func requestOf(b sqlgen.Batch) *command.Request {
	req := &command.Request{Kind: kindOf(b), Transaction: b.Transaction}
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

// show tells a result but for the names of columns, which are those of expressions as they are written.
func show(r command.Result) string {
	if r.Rows != nil {
		return fmt.Sprintf("%q %s", r.Rows.Values, r.Error)
	}
	return fmt.Sprintf("%+v %s", r.Write, r.Error)
}

// state is the hash of all that is in d.
func state(t *testing.T, d *db.DB) string {
	t.Helper()
	h, err := d.BeginHash()
	if err != nil {
		t.Fatal(err)
	}
	sum, err := h.Sum(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// TestProgramsMeanTheSame runs random programs as they are and written anew, with clock and random numbers
// held, so that results and databases have to be equal. What fails as it is may fail otherwise, or
// not at all, when it is written anew; it is not part of the comparison.
func TestProgramsMeanTheSame(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		present bool
	}{{"nothing replaced", false}, {"time replaced", true}}
	for _, tt := range tests {
		for _, seed := range []uint64{1, uint64(time.Now().UnixNano())} {
			t.Run(fmt.Sprint(tt.name, " ", seed), func(t *testing.T) {
				t.Parallel()
				program(t, seed, tt.present)
			})
		}
	}
}

func program(t *testing.T, seed uint64, present bool) {
	p := newPair(t, seed)
	g := sqlgen.New(seed)
	dice := rand.New(rand.NewPCG(seed, 1))
	var compared, changed int
	for n := range 100 {
		b := g.Next()
		if _, err := p.plain.Prepare(requestOf(b)); err != nil {
			continue // refused
		}
		p.clock = p.clock.Add(time.Duration(dice.Int64N(int64(36 * time.Hour)))).Truncate(time.Millisecond)
		p.seed++
		var from Sources
		if present {
			from.Now = p.clock
		}
		want := p.apply(t, p.plain, b)
		anew := b
		anew.Statements = slices.Clone(b.Statements)
		for i, s := range b.Statements {
			text, err := Text(s.SQL, from)
			switch {
			case i >= len(want) || want[i].Error != "":
				continue
			case want[i].Rows != nil && strings.Contains(s.SQL, ";"):
				continue // the answer is that of what follows it, a comment even
			case err != nil && strings.Trim(s.SQL, "; \n\t") != "" && err.Error() != "EOF":
				t.Errorf("Text(%q) = %v; SQLite can run it", s.SQL, err)
				continue
			case err != nil:
				continue
			}
			compared++
			if text != s.SQL {
				changed++
			}
			anew.Statements[i].SQL = text
		}
		got := p.apply(t, p.anew, anew)
		for i := range want {
			if g, w := show(got[i]), show(want[i]); g != w {
				t.Fatalf("batch %d, statement %d:\n%s\n= %.500s\n%s\n= %.500s", n, i, b.Statements[i].SQL, w, anew.Statements[i].SQL, g)
			}
		}
		if n%25 == 0 {
			if g, w := state(t, p.anew), state(t, p.plain); g != w {
				t.Fatalf("batch %d: the states differ after %v", n, anew.Statements)
			}
		}
	}
	if compared < 100 || changed < compared/3 {
		t.Errorf("%d statements compared, %d of them written anew", compared, changed)
	}
}

// TestRandomReplaced runs programs without their random numbers: SQLite takes whatever it took before.
func TestRandomReplaced(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	p := newPair(t, seed)
	g := sqlgen.New(seed)
	from := Sources{Now: p.clock, Random: rand.New(rand.NewPCG(seed, 2)).Uint64}
	replaced := 0
	for range 250 {
		b := g.Next()
		if _, err := p.plain.Prepare(requestOf(b)); err != nil {
			continue
		}
		for _, s := range b.Statements {
			text, err := Text(s.SQL, from)
			if err != nil || text == s.SQL || !strings.Contains(s.SQL, "random") {
				continue
			}
			// A schema that is only looked at tells what is wrong with a statement, not with its values.
			explain := func(sql string) string {
				resp, err := p.plain.Query(t.Context(), &command.Request{Kind: command.Query, Statements: []command.Statement{{SQL: "EXPLAIN " + sql}}})
				if err != nil {
					return err.Error()
				}
				if resp.Results[0].Error != "" && !strings.HasPrefix(resp.Results[0].Error, "not enough args") {
					return resp.Results[0].Error
				}
				return ""
			}
			if explain(s.SQL) != "" {
				continue
			}
			replaced++
			if got := explain(text); got != "" {
				t.Errorf("%s\nhas become\n%s\nwhich is: %s", s.SQL, text, got)
			}
		}
		p.apply(t, p.plain, b)
	}
	if replaced < 10 {
		t.Errorf("%d statements with random numbers", replaced)
	}
}

// TestDayToMillisecond checks that SQLite finds the millisecond that a day number was made of.
func TestDayToMillisecond(t *testing.T) {
	p := newPair(t, 1)
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	dice := rand.New(rand.NewPCG(seed, 3))
	first, last := time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(9999, 12, 31, 23, 59, 59, 999e6, time.UTC)
	days := []time.Time{first, last, time.Unix(0, 0)}
	for range 1000 {
		days = append(days, time.UnixMilli(first.UnixMilli()+dice.Int64N(last.UnixMilli()-first.UnixMilli())))
	}
	for _, day := range days {
		text, err := Text("SELECT strftime('%Y-%m-%d %H:%M:%f', 'now')", Sources{Now: day})
		if err != nil {
			t.Fatal(err)
		}
		resp, err := p.plain.Query(t.Context(), &command.Request{Kind: command.Query, Statements: []command.Statement{{SQL: text}}})
		if err != nil {
			t.Fatal(err)
		}
		if got, want := resp.Results[0].Rows.Values[0][0], day.UTC().Format("2006-01-02 15:04:05.000"); got != want {
			t.Errorf("%s = %v; want %s", text, got, want)
		}
	}
}

// FuzzText checks that what was written anew stays as it is when that is done again.
func FuzzText(f *testing.F) {
	for _, sql := range []string{
		"SELECT random(), date('now'), a.b, [c], `d`, -1 - - 2 * 3 FROM t ORDER BY 1 DESC", "INSERT INTO foo(x) VALUES(?)",
		"CREATE TABLE t AS SELECT 1; CREATE TRIGGER t BEGIN x; END;", "WITH a(b) AS (SELECT CAST(c AS d(1))) SELECT CASE 1 WHEN 2 THEN 3 END",
	} {
		f.Add(sql)
	}
	f.Fuzz(func(t *testing.T, sql string) {
		_, _ = Text(sql, fixed())
		once, err := Text(sql, Sources{})
		if err != nil {
			return
		}
		if twice, err := Text(once, Sources{}); twice != once || err != nil {
			t.Errorf("Text(%q) = %q, %v; was %q", once, twice, err, once)
		}
	})
}
