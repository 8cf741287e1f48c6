package system

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// TestForeignKeysJoin has nodes join a cluster that enforces foreign keys otherwise. They are told
// so and end; the cluster goes on without them.
func TestForeignKeysJoin(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, cluster, node, want string }{
		{"on", "-fk=true", "-fk=false", "foreign keys are on in this cluster and off on the node that asks (-fk): all nodes must agree"},
		{"off", "-fk=false", "-fk=true", "foreign keys are off in this cluster and on on the node that asks (-fk): all nodes must agree"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			first := startOne(t, append([]string{tt.cluster}, swift...)...)
			first.execute("CREATE TABLE foo (id INTEGER PRIMARY KEY)")
			for _, flags := range [][]string{{tt.node}, {tt.node, "-raft-non-voter"}} {
				late := newNode(t, "late", append([]string{"-join", first.raftAddr, "-join-interval", "200ms", "-join-attempts", "50"}, flags...)...)
				start := time.Now()
				late.start()
				if code := late.wait(20 * time.Second); code != 1 {
					t.Errorf("%v: exit code = %d; want 1", flags, code)
				}
				if took := time.Since(start); took > 8*time.Second {
					t.Errorf("%v: ended after %s; there was nothing to wait for", flags, took)
				}
				if got := strings.Count(late.log(), tt.want); got == 0 {
					t.Errorf("%v: the log lacks %q:\n%s", flags, tt.want, tail(late.log(), 10))
				}
			}
			cluster{first}.expectMembers("n1")
			first.execute("INSERT INTO foo VALUES (1)")
			right := cluster{first}.join(t, "right", tt.cluster)
			cluster{first, right}.equal()
		})
	}
}

// TestForeignKeysForming has three nodes form a cluster of which one enforces foreign keys
// otherwise. Nobody knows yet which of them is right, but they do not become one cluster, and who
// ends says why.
func TestForeignKeysForming(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	odd := c[2]
	c[0].start()
	c[1].start()
	odd.start("-fk")
	within(t, formLimit, "a node has ended", func() error {
		if c.running() == len(c) {
			return errors.New("all of them run")
		}
		return nil
	})
	for _, n := range c {
		n.proc.cmd.Process.Kill() // it may be ending just now
		code := n.wait(10 * time.Second)
		if code >= 0 && (code != 1 || !mentions(n.log(), "all nodes must agree")) { // else it was killed
			t.Errorf("%s: exit code = %d; want 1 and a reason:\n%s", n.id, code, tail(n.log(), 10))
		}
	}
	c.start()
	c.waitReady()
	c[0].execute("CREATE TABLE foo (id INTEGER PRIMARY KEY)")
	c.equal()
}
