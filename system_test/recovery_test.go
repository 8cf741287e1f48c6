package system

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// insertRows adds rows, one log entry each.
func insertRows(n *node, rows int) {
	n.t.Helper()
	for range rows {
		n.execute("INSERT INTO foo(name) VALUES ('row')")
	}
}

func countRows(n *node) string {
	n.t.Helper()
	return n.query("none", "SELECT count(*) FROM foo")[0]
}

// TestRecoverySnapshot recovers nodes that were killed with log entries after their last snapshot:
// the working database, which equals that snapshot, must not be taken for the recovered state.
func TestRecoverySnapshot(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, 3} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			c := startCluster(t, size)
			c[0].execute("CREATE TABLE foo (id INTEGER NOT NULL PRIMARY KEY, name TEXT)")
			insertRows(c[0], 10)
			c.snapshotAndInsert(20)
			c.writePeers()
			c.start()
			c.haveRows("30")
			for _, n := range c {
				n.peersTaken()
			}
			insertRows(c[0], 1)
			c.snapshotAndInsert(0)
			for _, n := range c {
				n.forgetMarker()
			}
			c.start()
			c.haveRows("31")
		})
	}
}

// snapshotAndInsert has all nodes take a snapshot, adds rows and kills them all.
func (c cluster) snapshotAndInsert(rows int) {
	c[0].t.Helper()
	c.waitReady()
	for _, n := range c {
		n.mustSnapshot()
	}
	insertRows(c[0], rows)
	c.waitReady()
	for _, n := range c {
		n.kill()
	}
}

// haveRows checks the number of rows of every node, once it is ready, and that they are equal.
func (c cluster) haveRows(want string) {
	c[0].t.Helper()
	c.waitReady()
	for _, n := range c {
		if got := countRows(n); got != want {
			n.t.Fatalf("%s: %s rows; want %s", n.id, got, want)
		}
	}
	c.equal()
}

// TestRecoveryTwice recovers a node that has nothing new since its last recovery, and once more
// with a kill shortly after the start.
func TestRecoveryTwice(t *testing.T) {
	t.Parallel()
	n := startOne(t)
	n.execute("CREATE TABLE foo (id INTEGER NOT NULL PRIMARY KEY, name TEXT)")
	insertRows(n, 5)
	want := n.content()
	for i := range 4 {
		n.kill()
		cluster{n}.writePeers()
		if i == 2 {
			n.start()
			within(t, formLimit, "the recovery is under way or done", func() error {
				if err := n.alive(); err != nil {
					return err
				}
				_, err := os.Stat(filepath.Join(n.dir, "raft", "peers.info"))
				return err
			})
			continue // killed at once
		}
		n.start()
		n.has(want)
	}
}

// TestRecoveryKilled kills a node at many moments of its recovery; the next start finishes it.
func TestRecoveryKilled(t *testing.T) {
	t.Parallel()
	rng := newRand(t)
	n := startOne(t)
	n.execute("CREATE TABLE foo (id INTEGER NOT NULL PRIMARY KEY, name TEXT)")
	for range 8 {
		insertRows(n, 3)
		want := n.content()
		n.kill()
		cluster{n}.writePeers()
		n.start()
		calm(rng, 0, 60*time.Millisecond)
		n.kill()
		n.start()
		n.has(want)
	}
}

// TestRecoveryEmpty puts peers.json into directories that hold nothing else.
func TestRecoveryEmpty(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, 3} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			c := newCluster(t, size)
			for _, n := range c {
				n.flags = nil
			}
			c.writePeers()
			c.start()
			c.waitReady()
			c[0].execute("CREATE TABLE foo (id INTEGER NOT NULL PRIMARY KEY, name TEXT)")
			insertRows(c[0], 3)
			want := c.equal()
			for range 2 {
				for _, n := range c {
					n.kill()
				}
				c.start()
				c.holds(want)
			}
			if members, err := c[0].members(); err != nil || len(members) != size {
				t.Errorf("%d members, %v; want %d", len(members), err, size)
			}
		})
	}
}

// TestRecoveryNewAddress moves two of three nodes to other addresses, the way clusters are
// restored elsewhere: the third is given up, the file has no non_voter, the flags name nobody.
func TestRecoveryNewAddress(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	c[0].execute("CREATE TABLE foo (id INTEGER NOT NULL PRIMARY KEY, name TEXT)")
	insertRows(c[0], 10)
	want := c.equal()
	for _, n := range c {
		n.kill()
	}
	c = c[:2]
	for _, n := range c {
		n.httpAddr, n.raftAddr, n.flags = reserveAddr(t), reserveAddr(t), nil
	}
	for _, n := range c {
		writeFile(t, n.dir, "raft/peers.json", fmt.Sprintf(
			`[{"id": %q, "address": %q}, {"id": %q, "address": %q}]`, c[0].id, c[0].raftAddr, c[1].id, c[1].raftAddr))
	}
	c.start()
	c.holds(want)
	c.expectMembers("n1", "n2")
	insertRows(c[0], 1)
	c.equal()
}

// TestRecoveryBadPeers starts a node with a peers.json that cannot be meant: it refuses, changes
// nothing, and starts when the file is right.
func TestRecoveryBadPeers(t *testing.T) {
	t.Parallel()
	n := startOne(t)
	n.execute("CREATE TABLE foo (id INTEGER NOT NULL PRIMARY KEY, name TEXT)")
	insertRows(n, 3)
	want := n.content()
	n.kill()
	for _, text := range []string{
		"", "{}", "[]", `[{"id":"","address":"127.0.0.1:1"}]`, `[{"id":"n1","address":"nowhere"}]`,
		`[{"id":"n1","address":"http://127.0.0.1:1"}]`,
		`[{"id":"n1","address":"127.0.0.1:1","non_voter":true}]`,
		`[{"id":"n1","address":"127.0.0.1:1"},{"id":"n1","address":"127.0.0.1:2"}]`,
		`[{"id":"n1","address":"127.0.0.1:1"},{"id":"n2","address":"127.0.0.1:1"}]`,
	} {
		writeFile(t, n.dir, "raft/peers.json", text)
		refused(t, n, "peers.json")
	}
	cluster{n}.writePeers()
	n.start()
	n.has(want)
}
