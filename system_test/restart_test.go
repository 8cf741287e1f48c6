package system

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"
)

// TestRestartScenario stops a whole cluster in peace, gives every node a peers.json with the
// members it has anyway, and starts it again. Nodes that stop one after the other usually end at
// different log indexes; each turns its log into a snapshot of its own, and whoever is ahead of
// the new leader must accept a snapshot that is older than its own. (P2)
func TestRestartScenario(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	c[0].execute("CREATE TABLE foo (id INTEGER NOT NULL PRIMARY KEY, name TEXT)")
	for round := range *flagRounds {
		for i := range 10 {
			c[i%3].execute([]any{"INSERT INTO foo(name) VALUES (?)", fmt.Sprintf("round %d, row %d", round, i)})
		}
		want := c.equal()
		if got := len(want["foo"]); got != 10*(round+1) {
			t.Fatalf("%d rows before the restart; want %d", got, 10*(round+1))
		}
		for _, n := range c {
			n.stop()
		}
		c.writePeers()
		c.start()
		for _, n := range c { // as an operator's script does it
			_, err := poll(formLimit, 500*time.Millisecond, func() error { return n.readyz("sync&timeout=5s") })
			if err != nil {
				t.Fatalf("round %d: %s is not ready within %s: %v", round, n.id, formLimit, err)
			}
			n.peersTaken()
		}
		c.holds(want)
		c.snapshotsWentWell()
	}
}

// TestRestartScenarioLastAlone is the same with the order that nearly always puts the last node
// ahead: it becomes leader when the others have gone, so it owns an entry that nobody else has,
// and it is started when the others have already elected a leader without it. (P2)
func TestRestartScenarioLastAlone(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	c[0].execute("CREATE TABLE foo (id INTEGER NOT NULL PRIMARY KEY, name TEXT)")
	c[0].execute("INSERT INTO foo(name) VALUES ('a')")
	first := c.leader()
	first.stop()
	second := c.without(first).leader()
	second.stop()
	last := c.without(first, second)[0]
	last.stop()
	c.writePeers()
	cluster{first, second}.start()
	cluster{first, second}.waitReady()
	cluster{first, second}.leader().execute("INSERT INTO foo(name) VALUES ('b')")
	want := cluster{first, second}.equal()
	last.start()
	last.waitReady(formLimit)
	c.holds(want)
	c.snapshotsWentWell()
}

// TestRestartScenarioDiverged makes a leader that is ahead of the others by entries that change
// the schema and a seventh of all rows, and that nobody else has. Recovery makes them part of its
// own snapshot; the others go on without them. When it returns it has to take the others' older
// snapshot, forget its own for good, and build all that follows on the one it was given. (P1)
func TestRestartScenarioDiverged(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	c[0].execute("CREATE TABLE foo (id INTEGER NOT NULL PRIMARY KEY, name TEXT)", "INSERT INTO foo(name) VALUES ('a')")
	bulk(c[0], "big", 1500)
	before := c.equal()

	ahead := c.leader()
	others := c.without(ahead)
	divergeAndKill(t, ahead, others)
	c.writePeers()
	others.start()
	others.waitReady()
	others[0].execute("INSERT INTO foo(name) VALUES ('b')")
	want := others.equal()
	if got := others[0].query("none", "SELECT name FROM foo ORDER BY id"); !slices.Equal(got, []string{"a", "b"}) {
		t.Fatalf("rows of the two = %v; want a, b", got)
	}
	if d := (content{"big": want["big"]}).diff(content{"big": before["big"]}); d != "" {
		t.Fatalf("the two have changed rows of the one they never heard of: %s", d)
	}

	ahead.start()
	t.Logf("in sync after %s", ahead.waitReady(formLimit))
	c.holds(want)
	c.snapshotsWentWell()

	ahead.kill()
	ahead.forgetDatabase()
	ahead.start()
	ahead.waitReady(formLimit)
	c.holds(want)

	// What is captured now must be based on the snapshot that was installed.
	others[0].execute("UPDATE big SET v = 'later' WHERE id % 11 = 0", "INSERT INTO foo(name) VALUES ('c')")
	want = c.equal()
	ahead.mustSnapshot()
	ahead.kill()
	ahead.forgetDatabase()
	ahead.start()
	ahead.waitReady(formLimit)
	c.holds(want)
	c.snapshotsWentWell()
}

// bulk creates a table of rows of about 100 bytes.
func bulk(n *node, table string, rows int) {
	n.t.Helper()
	n.repeat(
		"CREATE TABLE IF NOT EXISTS "+table+" (id INTEGER PRIMARY KEY, v TEXT)",
		fmt.Sprintf(`WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM s WHERE i < %d)
			INSERT OR IGNORE INTO %s SELECT i, printf('%%0100d', i*7919) FROM s`, rows, table),
	)
}

// divergeAndKill gives the leader entries that its followers, being frozen, cannot get, and then
// kills it and, before they can hear of anything, them.
func divergeAndKill(t *testing.T, leader *node, followers cluster) {
	t.Helper()
	before, err := leader.status()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range followers {
		n.pause()
	}
	// All at once, since the leader resigns when it has not heard of a follower for half a second.
	var writes sync.WaitGroup
	for _, stmts := range [][]any{
		{"CREATE TABLE ghost (id INTEGER PRIMARY KEY, v TEXT)", "INSERT INTO ghost(v) VALUES ('ghost')"},
		{"UPDATE big SET v = 'ghost' WHERE id % 7 = 0"},
		{"INSERT INTO foo(name) VALUES ('ghost0')"},
		{"INSERT INTO foo(name) VALUES ('ghost1')"},
	} {
		writes.Go(func() {
			if a, err := leader.sql(300*time.Millisecond, "/db/execute", stmts...); err == nil {
				t.Errorf("the leader acknowledged %v without a quorum: %s", stmts, a.body)
			}
		})
	}
	writes.Wait()
	after, err := leader.status()
	if err != nil {
		t.Fatal(err)
	}
	if got := after.Store.Raft.LastLogIndex - before.Store.Raft.LastLogIndex; got < 4 {
		t.Fatalf("the leader's log has grown by %d entries; want the 4 that nobody else has", got)
	}
	leader.kill()
	for _, n := range followers {
		n.kill()
	}
}
