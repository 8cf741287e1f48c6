package system

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
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
	for _, n := range c.without(behind) { // whoever leads later
		truncateLog(n)
	}
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
// while the others go on writing and taking snapshots. What it is given in the end is one state, not
// pages of several. (P3)
func TestCatchUpSlowly(t *testing.T) {
	t.Parallel()
	rng := newRand(t)
	c := startCluster(t, 3, often...)
	blobs(c[0], 20)
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

// blobs fills a table of that many megabytes, which do not become fewer by compression.
func blobs(n *node, megabytes int) {
	n.t.Helper()
	n.repeat("CREATE TABLE IF NOT EXISTS blob (id INTEGER PRIMARY KEY, v BLOB)")
	for mb := range megabytes {
		n.repeat(fmt.Sprintf(`WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM s WHERE i < 200)
			INSERT OR IGNORE INTO blob SELECT %d * 200 + i, randomblob(5000) FROM s`, mb))
	}
}

// TestFault2759 lets a follower receive a snapshot while it compacts its own: it was killed in the
// middle of a compaction, which is due again as soon as it starts. (P4)
func TestFault2759(t *testing.T) {
	t.Parallel()
	rng := newRand(t)
	c := startCluster(t, 3, "-raft-snap-wal-size", "0")
	l := newLedger(c[0])
	blobs(c[0], 12)
	behind := c.without(c.leader())[0]
	rest := c.without(behind)
	both := 0
	for round, start := 0, time.Now(); both < 2 && round < 6 || again(round, start); round++ {
		l.begin(c, 2, rng.Uint64())
		snapshotUntilCompaction(behind)
		l.end()
		l.begin(rest, 2, rng.Uint64())
		l.progress(t, 20)
		for _, n := range rest {
			truncateLog(n)
		}
		l.progress(t, 20)
		rest.swap()

		var bases atomic.Int32
		w := newWatch(t, behind.dir, func(m moment) {
			if (moment{"snapshots/*.base", appears}).matches(m) {
				bases.Add(1)
			}
		})
		behind.start()
		l.sound(behind)
		w.close()
		if bases.Load() > 1 {
			both++
		}
		l.end()
		l.verify(c)
	}
	if both == 0 {
		t.Error("no install has met a compaction")
	}
	t.Logf("%d installs met a compaction", both)
	behind.kill()
	behind.forgetDatabase()
	behind.start()
	l.verify(c)
	c.snapshotsWentWell()
}

// snapshotUntilCompaction takes large snapshots until the node rewrites its base, and kills it then.
func snapshotUntilCompaction(n *node) {
	n.t.Helper()
	tr := n.trap(moment{"snapshots/*.base", changes}, blow{signal: syscall.SIGKILL})
	if !tr.await(formLimit, func() error {
		n.sql(requestLimit, "/db/execute", "UPDATE blob SET v = randomblob(5000) WHERE id % 4 = 0")
		n.snapshot() // either may fail: it may be on its way down
		return errors.New("go on")
	}) {
		n.t.Fatalf("%s: no compaction", n.id)
	}
	n.wait(10 * time.Second)
}
