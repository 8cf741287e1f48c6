package system

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"
	"time"
)

// swift makes a node that is alone its own leader in no time.
var swift = []string{"-raft-heartbeat-timeout", "200ms", "-raft-election-timeout", "200ms", "-raft-leader-lease-timeout", "200ms"}

// hunt kills nodes at chosen moments while a ledger's clients write, and counts.
type hunt struct {
	t    *testing.T
	rng  *rand.Rand
	l    *ledger
	hits map[moment]int
}

func newHunt(t *testing.T, l *ledger, rng *rand.Rand) *hunt {
	h := &hunt{t: t, rng: rng, l: l, hits: map[moment]int{}}
	t.Cleanup(h.report)
	return h
}

// report says how often each moment was really hit.
func (h *hunt) report() {
	var names []string
	kills := 0
	for at, n := range h.hits {
		names = append(names, fmt.Sprintf("%3d %s", n, at))
		kills += n
	}
	slices.Sort(names)
	h.t.Logf("%d kills", kills)
	for _, name := range names {
		h.t.Log(name)
	}
}

// how varies the blow: most of them at once, some a moment later.
func (h *hunt) how() blow {
	s := blow{signal: syscall.SIGKILL}
	if h.rng.IntN(3) == 0 {
		s.lag = time.Duration(h.rng.Int64N(int64(3 * time.Millisecond)))
	}
	return s
}

// running kills a running node at a moment of a snapshot.
func (h *hunt) running(n *node, at moment) bool {
	h.t.Helper()
	return h.fell(n, n.trap(at, h.how()), provoke(n, at))
}

// starting starts the node and kills it at a moment before it is ready.
func (h *hunt) starting(n *node, at moment) bool {
	h.t.Helper()
	return h.fell(n, n.startInto(at, h.how()), func() error { return n.readyz("sync&timeout=100ms") })
}

func (h *hunt) fell(n *node, tr *trap, provoke func() error) bool {
	h.t.Helper()
	if !tr.await(30*time.Second, provoke) {
		return false
	}
	n.wait(10 * time.Second)
	h.hits[tr.at]++
	return true
}

// provoke has the node take snapshots for ever. Where at is about a base, the whole database
// changes before each.
func provoke(n *node, at moment) func() error {
	return func() error {
		if at.file == "snapshots/*.base" {
			n.sql(requestLimit, "/db/execute", "VACUUM") // this and the next may fail: it may be on its way down
		}
		n.snapshot()
		return errors.New("go on")
	}
}

// pair is a kill of a running node and one of the start that follows.
type pair struct{ running, starting moment }

// pairs has every kind of file that a node writes; where the first kill leaves litter or a database
// that must be restored, the second meets the work that this makes.
var pairs = []pair{
	{moment{"snapshots/*.delta", appears}, moment{"snapshots/*.delta", goes}},
	{moment{"snapshots/*.delta", changes}, moment{"raft.db", changes}},
	{moment{"snapshots/*.base", appears}, moment{"db.sqlite-wal", goes}},
	{moment{"snapshots/*.base", changes}, moment{"snapshots/*.base", goes}},
	{moment{"snapshots/MANIFEST.tmp", appears}, moment{"snapshots/MANIFEST.tmp", goes}},
	{moment{"snapshots/MANIFEST.tmp", changes}, moment{"db.sqlite", goes}},
	{moment{"snapshots/MANIFEST.tmp", goes}, moment{"db.sqlite.restore", appears}},
	{moment{"snapshots/MANIFEST", appears}, moment{"db.sqlite.restore", changes}},
	{moment{"db.clean", goes}, moment{"db.sqlite.restore", goes}},
	{moment{"db.sqlite", changes}, moment{"db.sqlite", appears}},
	{moment{"db.clean.tmp", appears}, moment{"db.clean.tmp", appears}},
	{moment{"db.clean.tmp", changes}, moment{"db.clean", appears}},
	{moment{"db.clean", appears}, moment{"db.sqlite-wal", appears}},
	{moment{"db.sqlite-wal", changes}, moment{"db.sqlite-wal", changes}},
	{moment{"raft.db", changes}, moment{"db.sqlite-shm", appears}},
}

// both hits both moments of a pair and starts the node again.
func (h *hunt) both(n *node, p pair) {
	h.t.Helper()
	for try := range 4 {
		if !h.running(n, p.running) {
			h.t.Fatalf("%s: %s has not come", n.id, p.running)
		}
		if try > 0 {
			n.forgetMarker() // what begins with a restore comes now
		}
		if h.starting(n, p.starting) {
			n.start()
			h.l.sound(n)
			return
		}
		h.l.sound(n) // it is up already
	}
	h.t.Errorf("%s: %s has not come in four starts", n.id, p.starting)
}

// again says whether to go on with a test whose long form lasts as long as -chaos says.
func again(round int, start time.Time) bool {
	return round == 0 || long() && time.Since(start) < *flagChaos
}

// long says whether long forms of tests are wanted.
func long() bool { return *flagChaos >= time.Minute }

// TestKillAtMoments kills a node that is alone, as it touches each of its files.
func TestKillAtMoments(t *testing.T) {
	t.Parallel()
	rng := newRand(t)
	n := startOne(t, append(often, swift...)...)
	l := newLedger(n)
	h := newHunt(t, l, rng)
	l.begin(cluster{n}, 4, rng.Uint64())
	for round, start := 0, time.Now(); again(round, start); round++ {
		for _, p := range pairs {
			h.both(n, p)
		}
	}
	l.end()
	l.verify(cluster{n})
	n.kill()
	n.forgetDatabase()
	n.start()
	l.verify(cluster{n})
}

// TestKillMembersAtMoments does so with leaders and followers.
func TestKillMembersAtMoments(t *testing.T) {
	t.Parallel()
	rng := newRand(t)
	c := startCluster(t, 3, often...)
	l := newLedger(c[0])
	h := newHunt(t, l, rng)
	l.begin(c, 4, rng.Uint64())
	role := rng.IntN(2)
	for round, start := 0, time.Now(); again(round, start); round++ {
		for i, p := range pairs {
			victim := c.leader()
			if (i+round+role)%2 == 0 {
				victim = c.without(victim)[rng.IntN(2)]
			}
			h.both(victim, p)
		}
	}
	l.end()
	l.verify(c)
	for _, n := range c {
		n.kill()
		n.forgetDatabase()
	}
	c.start()
	l.verify(c)
}

// TestKillInstallAtMoments kills a follower as it receives a snapshot and becomes what it says.
func TestKillInstallAtMoments(t *testing.T) {
	t.Parallel()
	moments := []moment{ // in the order in which they come, so that one install may serve several
		{"snapshots/*.base", appears},
		{"snapshots/*.base", changes},
		{"snapshots/MANIFEST.tmp", appears},
		{"snapshots/MANIFEST.tmp", changes},
		{"snapshots/MANIFEST", appears},
		{"db.sqlite.restore", appears},
		{"db.sqlite.restore", changes},
		{"db.clean", goes},
		{"db.sqlite-wal", goes},
		{"db.sqlite.restore", goes},
		{"db.sqlite", appears},
		{"db.sqlite-wal", appears},
		{"db.clean.tmp", appears},
		{"db.clean", appears},
		{"db.sqlite-wal", changes},
	}
	rng := newRand(t)
	c := startCluster(t, 3, "-raft-snap-wal-size", "0")
	l := newLedger(c[0])
	h := newHunt(t, l, rng)
	bulk(c[0], "big", 20000)
	l.begin(c, 4, rng.Uint64())
	behind := c.without(c.leader())[0]
	for round, start := 0, time.Now(); again(round, start); round++ {
		for _, at := range moments {
			h.install(c, behind, at)
		}
	}
	behind.start()
	l.progress(t, 20)
	l.end()
	l.verify(c)
	behind.kill()
	behind.forgetDatabase()
	behind.start()
	l.verify(c)
}

// install kills the follower, which is down when install returns, at a moment of an install. The
// one that it is in the middle of may do, else it gets another.
func (h *hunt) install(c cluster, behind *node, at moment) {
	h.t.Helper()
	rest := c.without(behind)
	for try := range 4 {
		if behind.running() {
			h.l.sound(behind)
			behind.mustSnapshot() // a marker to lose, a chain to replace
			behind.kill()
		}
		if try > 0 || len(h.hits) == 0 {
			h.l.progress(h.t, 20)
			for _, n := range rest {
				truncateLog(n)
			}
			h.l.progress(h.t, 20)
		}
		rest.swap() // a leader that has tried to reach the follower in vain waits ever longer
		if h.starting(behind, at) {
			return
		}
	}
	h.t.Errorf("%s: %s has not come in four installs", behind.id, at)
}

// swap has the leader of two nodes give way to the other.
func (c cluster) swap() {
	c[0].t.Helper()
	c.lead(c.without(c.leader())[0])
}

// TestKillRecoveryAtMoments kills a node as it takes over a peers.json. The next start goes on
// with it, whatever was done already.
func TestKillRecoveryAtMoments(t *testing.T) {
	t.Parallel()
	moments := []moment{
		{"db.clean", goes},
		{"db.sqlite", goes},
		{"db.sqlite.restore", appears},
		{"db.sqlite.restore", changes},
		{"db.sqlite.restore", goes},
		{"db.sqlite", appears},
		{"db.sqlite-wal", changes},
		{"snapshots/*.base", appears},
		{"snapshots/*.base", changes},
		{"snapshots/MANIFEST.tmp", appears},
		{"snapshots/MANIFEST", appears},
		{"raft.db", changes},
		{"raft/peers.json", goes},
		{"raft/peers.info", appears},
		{"db.clean.tmp", appears},
		{"db.clean", appears},
	}
	rng := newRand(t)
	n := startOne(t, swift...)
	l := newLedger(n)
	h := newHunt(t, l, rng)
	for round, start := 0, time.Now(); again(round, start); round++ {
		for _, at := range moments {
			l.begin(cluster{n}, 4, rng.Uint64())
			l.progress(t, 20)
			n.mustSnapshot()
			l.progress(t, 20)
			n.kill()
			l.end()
			cluster{n}.writePeers()
			if !h.starting(n, at) {
				t.Fatalf("%s: %s has not come", n.id, at)
			}
			h.starting(n, moments[rng.IntN(len(moments))]) // and once more, wherever it is now
			if n.running() {
				n.kill()
			}
			n.start()
			l.sound(n)
			n.peersTaken()
		}
	}
	l.verify(cluster{n})
}
