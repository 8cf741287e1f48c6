package system

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"
)

// truncateLog takes a snapshot and leaves the node next to no log before it, so that whoever is
// behind must be given the snapshot.
func truncateLog(n *node) {
	n.t.Helper()
	within(n.t, requestLimit, n.id+" truncates its log", func() error {
		a, err := n.do(requestLimit, http.MethodPost, "/snapshot?trailing_logs=1", "", "")
		if err == nil && a.status != http.StatusOK {
			err = fmt.Errorf("/snapshot: %d %s", a.status, a.body)
		}
		return err
	})
}

// TestCatchUpBySnapshot adds a node, and brings back one, that the log can no longer help.
func TestCatchUpBySnapshot(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	bulk(c[0], "big", 2000)
	behind := c.without(c.leader())[0]
	behind.kill()
	leader := c.without(behind).leader()
	for i := range 30 {
		leader.execute(fmt.Sprintf("UPDATE big SET v = 'round %d' WHERE id %% 30 = %d", i, i))
	}
	truncateLog(leader)
	leader.execute("INSERT INTO big(v) VALUES ('after the snapshot')")
	behind.start()
	c.equal()
	late := c.join(t, "late")
	c = append(c, late)
	c.equal()
	for _, n := range []*node{behind, late} {
		if got := (cluster{n}).counter("store", "num_restores"); got != 1 {
			t.Errorf("%s: %d restores; want 1", n.id, got)
		}
	}
	leader.execute("DELETE FROM big WHERE id % 3 = 0")
	want := c.equal()
	for _, n := range []*node{behind, late} { // what they capture now is based on what they were given
		n.mustSnapshot()
		n.kill()
		n.forgetDatabase()
		n.start()
	}
	c.holds(want)
	c.snapshotsWentWell()
}

// TestCatchUpSlowly wipes a follower and stutters it while it is given a database of many pages,
// while the others go on writing and taking snapshots.
func TestCatchUpSlowly(t *testing.T) {
	t.Parallel()
	rng := newRand(t)
	c := startCluster(t, 3, often...)
	c[0].execute("CREATE TABLE blob (id INTEGER PRIMARY KEY, v BLOB)")
	for range 4 {
		c[0].execute(`WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM s WHERE i < 1000)
			INSERT INTO blob(v) SELECT randomblob(5000) FROM s`)
	}
	l := newLedger(c[0])
	wiped := c.without(c.leader())[0]
	wiped.kill()
	if err := os.RemoveAll(wiped.dir); err != nil {
		t.Fatal(err)
	}
	rest := c.without(wiped)
	l.begin(rest, 4, rng.Uint64())
	l.progress(t, 200)
	truncateLog(rest.leader())

	wiped.start()
	ctx, stop := context.WithCancel(context.Background())
	var stutter sync.WaitGroup
	stutter.Go(func() { // its own signals, since only the test itself may end the test
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			wiped.proc.cmd.Process.Signal(syscall.SIGSTOP)
			<-tick.C
			wiped.proc.cmd.Process.Signal(syscall.SIGCONT)
			<-tick.C
		}
	})
	l.progress(t, 1000) // with so short a log, each transfer is out of date when it ends
	l.end()
	_, err := poll(formLimit, pollEvery, func() error { return wiped.readyz("sync&timeout=2s") })
	stop()
	stutter.Wait()
	if err != nil {
		t.Fatalf("%s, stuttering, is not in sync within %s: %v", wiped.id, formLimit, err)
	}
	if n := (cluster{wiped}).counter("store", "num_restores"); n == 0 {
		t.Errorf("%s caught up without a snapshot", wiped.id)
	}
	l.verify(c)
	c.snapshotsWentWell()
}
