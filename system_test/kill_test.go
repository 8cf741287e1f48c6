package system

import (
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"
)

// often makes snapshots frequent, so that kills meet them.
var often = []string{"-raft-snap", "50", "-raft-snap-int", "500ms", "-raft-snap-wal-size", "65536"}

// TestKill kills nodes of a cluster that eight clients write to, one victim or set of victims
// after the other, and starts them again.
func TestKill(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		victims func(c cluster) cluster
		serving bool // the rest still has a majority
	}{
		{"leader", func(c cluster) cluster { return cluster{c.leader()} }, true},
		{"follower", func(c cluster) cluster { return c.without(c.leader())[:1] }, true},
		{"both followers", func(c cluster) cluster { return c.without(c.leader()) }, false},
		{"all", func(c cluster) cluster { return c }, false},
	}
	rng := newRand(t)
	c := startCluster(t, 3, often...)
	l := newLedger(c[0])
	l.begin(c, 8, rng.Uint64())
	for _, tt := range tests {
		l.progress(t, 100)
		victims := tt.victims(c)
		for _, n := range victims {
			n.kill()
		}
		if tt.serving {
			l.progress(t, 100)
		}
		victims.start()
		c.waitReady()
		t.Logf("%s killed and back", tt.name)
	}
	l.progress(t, 100)
	l.end()
	l.verify(c)

	for _, n := range c { // and what is on disk says the same without the help of the working database
		n.kill()
		n.forgetDatabase()
	}
	c.start()
	l.verify(c)
}

// TestPausedLeader freezes the leader: another takes over, and the old one, when it wakes up,
// believes for a moment that it still leads.
func TestPausedLeader(t *testing.T) {
	t.Parallel()
	rng := newRand(t)
	c := startCluster(t, 3, often...)
	l := newLedger(c[0])
	l.begin(c, 4, rng.Uint64())
	for range 2 {
		l.progress(t, 50)
		old := c.leader()
		old.pause()
		rest := c.without(old)
		within(t, formLimit, "another leader", func() error {
			leader, err := rest.tryLeader()
			if err == nil && leader == old {
				return fmt.Errorf("still %s", old.id)
			}
			return err
		})
		l.progress(t, 10) // a client that asks the frozen node waits until it gives up
		old.resume()
		c.waitReady()
	}
	l.end()
	l.verify(c)
}

// TestChaos kills and freezes nodes at random while sixteen clients write.
func TestChaos(t *testing.T) {
	t.Parallel()
	rng := newRand(t)
	c := startCluster(t, 3, often...)
	l := newLedger(c[0])
	l.begin(c, 16, rng.Uint64())
	end := time.Now().Add(*flagChaos)
	for time.Now().Before(end) {
		calm(rng, 500*time.Millisecond, 2*time.Second)
		strike(t, c, rng)
	}
	c.waitReady()
	l.progress(t, 50) // the cluster serves again
	l.end()
	l.verify(c)
}

// strike does one harm to the cluster and repairs it after a while.
func strike(t *testing.T, c cluster, rng *rand.Rand) {
	t.Helper()
	n := c[rng.IntN(len(c))]
	switch what := rng.IntN(10); {
	case what < 5:
		t.Logf("kill %s", n.id)
		n.kill()
		calm(rng, 0, 2*time.Second)
		n.start()
	case what < 6:
		t.Logf("kill %s and forget its database", n.id)
		n.kill()
		n.forgetDatabase()
		n.start()
	case what < 7:
		t.Logf("snapshot on %s, killed at once", n.id)
		if err := n.snapshot(); err != nil {
			t.Logf("%s: %v", n.id, err) // it may be starting, or busy with another
		}
		n.kill()
		n.start()
	case what < 8:
		t.Logf("stop %s", n.id)
		n.signal(syscall.SIGTERM)
		if code := n.wait(30 * time.Second); code != 0 && code != 1 { // 1: it was still looking for the others
			t.Errorf("%s: exit code after SIGTERM = %d; want 0 or 1", n.id, code)
		}
		n.start()
	case what < 9:
		t.Logf("freeze %s", n.id)
		n.pause()
		calm(rng, time.Second, 3*time.Second)
		n.resume()
	default:
		t.Log("kill all")
		for _, n := range c {
			n.kill()
		}
		c.start()
	}
}

// calm lets the cluster work for a random time.
func calm(rng *rand.Rand, from, to time.Duration) {
	timer := time.NewTimer(from + time.Duration(rng.Int64N(int64(to-from))))
	defer timer.Stop()
	<-timer.C
}
