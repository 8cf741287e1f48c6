package main

import (
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rqlited/command"
	"rqlited/db"
	"rqlited/snapshot"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestEngine checks that what is measured is what the table says: a database of that size, of which
// each snapshot holds changeMiB.
func TestEngine(t *testing.T) {
	e := &engine{dir: t.TempDir(), size: minSize}
	var err error
	e.db, err = db.Open(filepath.Join(e.dir, "db.sqlite"), db.Config{})
	must(t, err)
	must(t, e.open(snapshot.Config{CompactDeltas: -1}))
	defer func() { must(t, errors.Join(e.store.Close(), e.db.Close())) }()
	must(t, e.fill())

	resp, err := e.db.Query(t.Context(), &command.Request{Kind: command.Query,
		Statements: []command.Statement{{SQL: "SELECT COUNT(*) FROM big"}}})
	must(t, err)
	if got := resp.Results[0].Rows.Values[0][0]; got != int64(minSize*pagesInMiB) {
		t.Errorf("rows = %v; want %d", got, minSize*pagesInMiB)
	}
	for round, want := range []float64{minSize, changeMiB, changeMiB} {
		before := e.store.Stats()
		if round > 0 {
			must(t, e.change())
		}
		c, err := e.snapshot()
		must(t, err)
		after := e.store.Stats()
		if grown := mib(after.Size - before.Size); grown < want || grown > 1.1*want {
			t.Errorf("snapshot %d has %.2f MiB; want a little over %.0f", round, grown, want)
		}
		if c.capture <= 0 || c.whole < c.capture || c.written < after.Size-before.Size {
			t.Errorf("cost of snapshot %d = %+v, its size is %d", round, c, after.Size-before.Size)
		}
	}
}

func TestTable(t *testing.T) {
	var tab table
	tab.column("1 MiB")
	tab.set("a", "%d", 1)
	tab.column("2 MiB")
	tab.spread("b", []time.Duration{3 * time.Millisecond, time.Millisecond, 2 * time.Millisecond})
	tab.set("a", "%d", 20)
	var b strings.Builder
	must(t, tab.print(&b))
	want := "     1 MiB      2 MiB\n  a      1         20\n  b         2.0 / 3.0\n"
	if got := b.String(); got != want {
		t.Errorf("table is\n%swant\n%s", got, want)
	}
}

func TestRunRefuses(t *testing.T) {
	for _, args := range [][]string{nil, {"bin/rqlited"}, {"bin/rqlited", "7"}, {"bin/rqlited", "big"}, {"bin/rqlited", "100000"}} {
		if err := run(t.Context(), args, io.Discard, io.Discard); err == nil {
			t.Errorf("run(%q) succeeded", args)
		}
	}
}
