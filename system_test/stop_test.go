package system

import (
	"syscall"
	"testing"
	"time"
)

// TestFaultStopHangs stops all members at the same moment, again and again, while clients write and
// snapshots are taken. None may wait for another that has gone: all are gone in ten seconds.
func TestFaultStopHangs(t *testing.T) {
	t.Parallel()
	rounds := 8
	if long() {
		rounds = 50
	}
	rng := newRand(t)
	c := newCluster(t, 3, often...)
	c.start()
	c.waitReady()
	l := newLedger(c[0])
	l.begin(c, 4, rng.Uint64())
	for round := range rounds {
		if round > 0 {
			c.start()
			c.waitReady()
		}
		l.progress(t, 20)
		start := time.Now()
		for _, n := range c {
			n.signal(syscall.SIGTERM)
		}
		for _, n := range c {
			if code := n.wait(10*time.Second - time.Since(start)); code != 0 {
				t.Errorf("round %d: %s: exit code after SIGTERM = %d; want 0", round, n.id, code)
			}
		}
		t.Logf("round %d: all gone after %s", round, time.Since(start).Round(time.Millisecond))
	}
	c.start()
	c.waitReady()
	l.end()
	l.verify(c)
}
