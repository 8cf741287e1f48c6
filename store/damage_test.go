package store

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"rqlited/command"
	"rqlited/db"
)

// TestDamageWhileRunning damages the snapshots of a leader. It cannot feed a follower with them, so
// it has to take another one.
func TestDamageWhileRunning(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"*.base", "*.delta"} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			leader := newCluster(t, 1, nil)[0]
			leader.grow(t, 1)
			leader.damageFile(t, file, false)
			n := newNode(t, "n2")
			n.open(t)
			if err := leader.Join(t.Context(), Server{ID: "n2", Addr: n.cfg.Addr, Voter: true}); err != nil {
				t.Fatal(err)
			}
			n.waitRows(t, fooSum, leader.rows(t, command.Weak, fooSum))
			eventually(t, "readiness", n.Ready)
			if c := leader.Counters(); c["num_snapshots_damaged"] != 1 || c["num_snapshots_full"] != 2 {
				t.Errorf("%d files were found to be damaged, and %d images taken; want 1, 2", c["num_snapshots_damaged"], c["num_snapshots_full"])
			}
			leader.exec(t, "INSERT INTO foo(v) VALUES('e')")
			leader.snapshot(t, 1)
			fullRestart(t, leader)
			waitLeader(t, leader, n)
			n.waitRows(t, fooSum, leader.rows(t, command.None, fooSum))
		})
	}
}

// TestDamagedPage flips a bit of the live database while the node is stopped, so that nothing but the
// page itself tells. The start is quick; the first read of the page ends the node.
func TestDamagedPage(t *testing.T) {
	t.Parallel()
	n := newSingle(t)
	n.exec(t, "CREATE TABLE foo (id INTEGER PRIMARY KEY, v TEXT)")
	n.exec(t, "INSERT INTO foo(v) VALUES('a'), (hex(zeroblob(200000))), ('c')")
	n.snapshot(t, 1)
	want := n.rows(t, command.Weak, fooSum)
	n.close(t)
	name := filepath.Join(n.cfg.Dir, dbFile)
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(flipBit(name), os.Chtimes(name, time.Time{}, info.ModTime())); err != nil {
		t.Fatal(err)
	}
	n.open(t)
	if c := n.Counters(); c["num_restores_start_skipped"] != 1 {
		t.Error("the live database was not kept: that is not what this test is for")
	}
	waitLeader(t, n)
	if got, err := n.tryRows(t.Context(), command.Weak, fooSum); err == nil {
		t.Errorf("a read of a damaged page = %q", got)
	}
	if err := n.Wait(); !errors.Is(err, db.ErrDamaged) {
		t.Errorf("Wait = %v; want db.ErrDamaged", err)
	}
	if err := n.Ready(); !errors.Is(err, ErrNotReady) {
		t.Errorf("Ready = %v; want ErrNotReady", err)
	}
	n.restart(t)
	waitLeader(t, n)
	if got := n.rows(t, command.Weak, fooSum); got != want {
		t.Errorf("rows = %q; want %q", got, want)
	}
	if c := n.Counters(); c["num_restores_start"] != 1 {
		t.Error("the snapshot was not restored")
	}
}
