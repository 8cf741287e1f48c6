package store

import (
	"errors"
	"testing"

	"rqlited/command"
)

// TestWatch looks for writes on the nodes that did not apply for them: who asked for one and got no
// answer finds out what became of it.
func TestWatch(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3, nil)
	leader := waitLeader(t, nodes...)
	leader.exec(t, "CREATE TABLE foo (v TEXT)")
	const here, never = 7, 8
	for _, n := range nodes {
		appliedHere, endHere := n.Watch(here)
		appliedNever, endNever := n.Watch(never)
		req := request(command.Execute, command.Weak, "INSERT INTO foo VALUES('a')")
		req.Seed = here
		if _, err := leader.Do(t.Context(), req); err != nil {
			t.Fatal(err)
		}
		mark := leader.exec(t, "SELECT 1")
		if err := n.WaitApplied(t.Context(), mark.Index); err != nil {
			t.Fatal(err)
		}
		if applied, err := appliedHere(); !applied || err != nil {
			t.Errorf("%s: a write is applied = %t, %v; want true", n.cfg.NodeID, applied, err)
		}
		if applied, err := appliedNever(); applied || err != nil {
			t.Errorf("%s: a write that nobody made is applied = %t, %v; want false", n.cfg.NodeID, applied, err)
		}
		endHere()
		endNever()
		if left := len(n.fsm.writes.watched); left != 0 {
			t.Errorf("%s still watches %d writes", n.cfg.NodeID, left)
		}
	}
}

// TestWatchRestore restores a snapshot: what was applied before is known, and of the rest nothing.
func TestWatchRestore(t *testing.T) {
	t.Parallel()
	n := newSingle(t)
	n.exec(t, "CREATE TABLE foo (v TEXT)")
	before, endBefore := n.Watch(7)
	defer endBefore()
	missed, endMissed := n.Watch(8)
	defer endMissed()
	req := request(command.Execute, command.Weak, "INSERT INTO foo VALUES('a')")
	req.Seed = 7
	if _, err := n.Do(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	n.snapshot(t, 0)
	_, rc := n.openHead(t)
	if err := n.fsm.Restore(rc); err != nil {
		t.Fatal(err)
	}
	if applied, err := before(); !applied || err != nil {
		t.Errorf("a write before the restore is applied = %t, %v; want true", applied, err)
	}
	if _, err := missed(); !errors.Is(err, ErrUnknown) {
		t.Errorf("a write that may be in the snapshot: %v; want ErrUnknown", err)
	}
}
