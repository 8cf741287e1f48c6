package system

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// TestMismatchIsFound makes replicas that differ, in the one way known from outside: an operator
// takes a cluster apart into two, which go on with different writes to the same place of the log in the
// same term, and puts both together again. Raft can't tell that their histories are not one. The
// comparison of hashes does: it names who differs, and goes on saying so until that node is given the
// leader's state.
func TestMismatchIsFound(t *testing.T) {
	if !hashing {
		t.Skip("NOT TESTED: the binary has no state hashes")
	}
	t.Parallel()
	c := startCluster(t, 3)
	c[0].execute("CREATE TABLE foo (id INTEGER NOT NULL PRIMARY KEY, name TEXT)")
	insertRows(c[0], 5)
	c.equal()
	one, two := c[:1], c[1:]
	for _, n := range c {
		n.kill()
		n.flags = nil // which would have them look for each other
	}
	one.writePeers()
	two.writePeers()
	c.start()
	one.waitReady()
	two.waitReady()
	one[0].execute("INSERT INTO foo(name) VALUES ('one')")
	two[0].execute("INSERT INTO foo(name) VALUES ('two')")
	meet(t, one, two)
	for _, n := range c {
		n.kill()
	}
	c.writePeers()
	for _, n := range c {
		n.start("-hash-check-interval", "1s")
	}
	c.waitReady()
	leader := c.leader()
	if leader == one[0] { // so that there is a majority
		c.lead(two[0])
		leader = two[0]
	}
	within(t, formLimit, "the mismatch is found", func() error {
		if checks, mismatches := c.hashChecks(); mismatches == 0 {
			return fmt.Errorf("%d checks, no mismatch", checks)
		}
		return nil
	})
	found := mismatch.FindString(leader.log())
	if !strings.Contains(found, one[0].id) || !strings.Contains(found, "index=") {
		t.Errorf("the leader's line %q does not name the node and the index", found)
	}
	if got := leader.hash().Hash; got == one[0].hash().Hash || got != c.without(leader, one[0])[0].hash().Hash {
		t.Errorf("hashes: %v, %v, %v; want the first to be another", one[0].hash(), two[0].hash(), two[1].hash())
	}

	one[0].kill() // the remedy: the node starts empty
	one[0].forgetAll()
	one[0].start("-join", leader.raftAddr)
	c.equal()
}

// meet brings two clusters to the same term, and to the same end of the log.
func meet(t *testing.T, one, two cluster) {
	t.Helper()
	within(t, formLimit, "both are in the same term and at the same index", func() error {
		a, err := one.leader().status()
		if err != nil {
			return err
		}
		b, err := two.leader().status()
		if err != nil {
			return err
		}
		switch a, b := a.Store.Raft, b.Store.Raft; {
		case a.Term < b.Term:
			one[0].kill()
			one[0].start()
			one.waitReady()
		case b.Term < a.Term:
			two.swap()
			two.waitReady()
		case a.LastLogIndex < b.LastLogIndex:
			one[0].execute("INSERT INTO foo(name) VALUES ('one more')")
		case b.LastLogIndex < a.LastLogIndex:
			two.leader().execute("INSERT INTO foo(name) VALUES ('two more')")
		default:
			return two.waitSame(b.LastLogIndex)
		}
		return errors.New("not yet")
	})
}

// waitSame returns an error if not all nodes have the log up to this index, and nothing more.
func (c cluster) waitSame(index uint64) error {
	for _, n := range c {
		s, err := n.status()
		if err != nil {
			return err
		}
		if r := s.Store.Raft; r.LastLogIndex != index || r.AppliedIndex != index {
			return fmt.Errorf("%s is at %d, applied %d; want %d", n.id, r.LastLogIndex, r.AppliedIndex, index)
		}
	}
	return nil
}
