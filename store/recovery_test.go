package store

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rqlited/command"
)

const ghostSum = "SELECT (SELECT count(*) FROM sqlite_master), (SELECT count(*) FROM foo), (SELECT coalesce(sum(length(v)),0) FROM foo)"

// TestRecoveryLowerInstall recovers three nodes of which one has entries that the others lack. The
// leader then sends that one a snapshot that is lower than its own. Whatever follows, an increment,
// a restart, a full restore, it must have the others' database.
func TestRecoveryLowerInstall(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3, nil)
	old := waitLeader(t, nodes...)
	others := without(nodes, old)
	old.exec(t, "CREATE TABLE foo (id INTEGER PRIMARY KEY, v TEXT)")
	for i := range 50 {
		old.exec(t, fmt.Sprintf("INSERT INTO foo(v) VALUES(hex(zeroblob(%d)))", 1000+i))
	}
	for _, n := range others {
		if err := n.WaitApplied(t.Context(), old.CommitIndex()); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range others {
		n.close(t)
	}
	// Entries that only the old leader has. Nobody was told that they are there.
	for _, q := range []string{"CREATE TABLE ghost (v TEXT)", "UPDATE foo SET v='ghost' WHERE id%7=0", "INSERT INTO ghost VALUES('g')"} {
		if _, err := old.Do(t.Context(), request(command.Execute, command.Weak, q)); err == nil {
			t.Fatal("a write without a quorum succeeded")
		}
	}
	old.close(t)
	for _, n := range nodes {
		n.writePeers(t, nodes...)
	}
	for _, n := range others {
		n.open(t)
	}
	leader := waitLeader(t, others...)
	leader.exec(t, "INSERT INTO foo(v) VALUES('b')")
	want := leader.rows(t, command.Weak, ghostSum)

	old.open(t)
	higher, _ := old.snaps.Head()
	old.waitRows(t, ghostSum, want)
	if lower, _ := old.snaps.Head(); lower.Index >= higher.Index {
		t.Fatalf("installed %s over %s: that is not what this test is for", lower.ID, higher.ID)
	}
	check := func(step string) {
		t.Helper()
		want := leader.rows(t, command.Weak, ghostSum)
		if err := old.WaitApplied(t.Context(), leader.CommitIndex()); err != nil {
			t.Fatal(err)
		}
		if got := old.rows(t, command.None, ghostSum); got != want {
			t.Errorf("%s: %q; want %q", step, got, want)
		}
		if got := old.rows(t, command.None, "PRAGMA integrity_check"); got != "ok" {
			t.Errorf("%s: integrity check: %s", step, got)
		}
	}
	check("after the install")
	fullRestart(t, old)
	check("after a full restore of the install")
	leader = waitLeader(t, nodes...)
	leader.exec(t, "CREATE TABLE bar (v TEXT)", "INSERT INTO foo(v) VALUES('c')")
	check("after a write")
	old.snapshot(t, 0)
	check("after an increment")
	leader.exec(t, "UPDATE foo SET v='d' WHERE id%5=0")
	check("after another write")
	old.snapshot(t, 1)
	fullRestart(t, old)
	leader = waitLeader(t, nodes...)
	check("after a full restore of the increments")
}

// fullRestart restarts n from its newest snapshot.
func fullRestart(t *testing.T, n *node) {
	t.Helper()
	n.close(t)
	if err := os.Remove(filepath.Join(n.cfg.Dir, "db.clean")); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	n.open(t)
	if n.Counters()["num_restores_start"] != 1 {
		t.Error("the restart did not restore the snapshot")
	}
}

// TestRecoveryAddress gives a node on its own another address, which is the everyday use of a recovery.
// TestCrash interrupts it.
func TestRecoveryAddress(t *testing.T) {
	t.Parallel()
	n := newSingle(t)
	n.exec(t, "CREATE TABLE foo (v TEXT)", "INSERT INTO foo VALUES('a')")
	n.snapshot(t, 0)
	n.exec(t, "INSERT INTO foo VALUES('b')")
	n.close(t)
	n.cfg.Addr = newNode(t, "n1").cfg.Addr
	n.writePeers(t, n)
	n.open(t)
	waitLeader(t, n)
	if got := n.rows(t, command.Weak, "SELECT v FROM foo"); got != "a,b" {
		t.Errorf("rows = %q; want a,b", got)
	}
	if c := n.Counters(); c["num_restores_start"] != 1 || c["num_recoveries"] != 1 {
		t.Errorf("counters are %v", c)
	}
	servers, err := n.Servers()
	if err != nil || len(servers) != 1 || servers[0].Addr != n.cfg.Addr {
		t.Errorf("servers are %v, %v", servers, err)
	}
	if _, err := os.Stat(filepath.Join(n.cfg.Dir, raftDir, peersFile)); !os.IsNotExist(err) {
		t.Errorf("peers.json: %v", err)
	}
	n.exec(t, "INSERT INTO foo VALUES('c')")
	n.restart(t)
	waitLeader(t, n)
	if got := n.rows(t, command.Weak, "SELECT v FROM foo"); got != "a,b,c" {
		t.Errorf("rows after a restart = %q; want a,b,c", got)
	}
}

// TestRecoveryTwice recovers again with no log entry in between: two snapshots at one index.
func TestRecoveryTwice(t *testing.T) {
	t.Parallel()
	n := newSingle(t)
	n.exec(t, "CREATE TABLE foo (v TEXT)", "INSERT INTO foo VALUES('a')")
	n.close(t)
	for range 3 {
		n.writePeers(t, n, newNode(t, "other")) // without a quorum nothing is appended
		n.open(t)
		if got := n.rows(t, command.None, "SELECT v FROM foo"); got != "a" {
			t.Errorf("rows = %q; want a", got)
		}
		n.close(t)
	}
	n.writePeers(t, n)
	n.open(t)
	waitLeader(t, n)
	n.exec(t, "INSERT INTO foo VALUES('b')")
	if got := n.rows(t, command.Weak, "SELECT v FROM foo"); got != "a,b" {
		t.Errorf("rows = %q; want a,b", got)
	}
}

// TestRecoveryEmpty forms a cluster of new nodes by peers.json.
func TestRecoveryEmpty(t *testing.T) {
	t.Parallel()
	nodes := []*node{newNode(t, "n1"), newNode(t, "n2"), newNode(t, "n3")}
	for _, n := range nodes {
		n.writePeers(t, nodes...)
		n.open(t)
	}
	leader := waitLeader(t, nodes...)
	leader.exec(t, "CREATE TABLE foo (v TEXT)", "INSERT INTO foo VALUES('a')")
	for _, n := range nodes {
		n.waitRows(t, "SELECT v FROM foo", "a")
	}
	leader.snapshot(t, 0)
	for _, n := range nodes {
		n.restart(t)
	}
	leader = waitLeader(t, nodes...)
	if got := leader.rows(t, command.Linearizable, "SELECT v FROM foo"); got != "a" {
		t.Errorf("rows after a restart = %q; want a", got)
	}
}

// TestRecoveryEmptyJoinsData gives one membership to a node with data and to new ones.
func TestRecoveryEmptyJoinsData(t *testing.T) {
	t.Parallel()
	n := newCluster(t, 1, nil)[0]
	n.exec(t, "CREATE TABLE foo (v TEXT)", "INSERT INTO foo VALUES('a')")
	n.close(t)
	nodes := []*node{n, newNode(t, "n2"), newNode(t, "n3")}
	for _, n := range nodes {
		n.writePeers(t, nodes...)
	}
	n.open(t) // first: new nodes alone could form a cluster without the data
	nodes[1].open(t)
	waitLeader(t, nodes...)
	nodes[2].open(t)
	for _, n := range nodes {
		n.waitRows(t, "SELECT v FROM foo", "a")
	}
}

func TestRecoveryRefused(t *testing.T) {
	t.Parallel()
	n := newSingle(t)
	n.exec(t, "CREATE TABLE foo (v TEXT)")
	n.close(t)
	name := filepath.Join(n.cfg.Dir, raftDir, peersFile)
	if err := os.WriteFile(name, []byte(`[{"id":"","address":"http://x"}]`), 0o644); err != nil {
		t.Fatal(err)
	}
	err := n.tryOpen(t)
	if err == nil || !strings.Contains(err.Error(), "id is empty") || !strings.Contains(err.Error(), "is a URL") {
		t.Errorf("Open = %v; want all faults of peers.json", err)
	}
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	n.open(t)
	waitLeader(t, n)
	n.rows(t, command.Weak, "SELECT * FROM foo")
}
