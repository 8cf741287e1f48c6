package system

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// disk is a file system of its own.
type disk struct {
	t   *testing.T
	dir string
}

// newDisk mounts a disk of so many kilobytes. A node on it has to be made later, so that it is
// gone when the disk goes.
func newDisk(t *testing.T, kilobytes int) *disk {
	t.Helper()
	d := &disk{t: t, dir: t.TempDir()}
	if err := syscall.Mount("tmpfs", d.dir, "tmpfs", 0, size(kilobytes)); errors.Is(err, syscall.EPERM) {
		t.Skip("NOT TESTED: what a full disk does; only root may mount one:", err)
	} else if err != nil {
		t.Fatalf("mount %s: %v", d.dir, err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(d.dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", d.dir, err)
		}
	})
	return d
}

// grow gives the disk more space.
func (d *disk) grow(kilobytes int) {
	d.t.Helper()
	if err := syscall.Mount("tmpfs", d.dir, "tmpfs", syscall.MS_REMOUNT, size(kilobytes)); err != nil {
		d.t.Fatalf("remount %s: %v", d.dir, err)
	}
}

func size(kilobytes int) string { return fmt.Sprintf("size=%dk", kilobytes) }

// on puts the node on the disk, before its first start.
func (n *node) on(d *disk) *node {
	n.dir = filepath.Join(d.dir, "data")
	return n
}

// plenty is more than any node needs here, in kilobytes.
const plenty = 256 << 10

// full matches what a node says when its disk is full.
var full = regexp.MustCompile(`(?i)(no space left|disk is full)`)

// stoppedFull checks that the node, which has ended or is about to, ends because its disk is full,
// and that the line which says why it ends says so.
func (n *node) stoppedFull(logged int) {
	n.t.Helper()
	if code := n.wait(10 * time.Second); code != 1 {
		n.t.Errorf("%s: exit code when the disk is full = %d; want 1", n.id, code)
	}
	var last []string
	for line := range strings.Lines(n.log()[logged:]) {
		if strings.Contains(line, `level=ERROR msg="node failed"`) {
			last = append(last, line)
		}
	}
	if len(last) != 1 || !full.MatchString(last[0]) || !reasons.MatchString(last[0]) {
		n.t.Errorf("%s: lines that say why it has ended: %q; want one, that the disk is full, and what for", n.id, last)
	}
}

// reasons matches what a node was doing when its disk ran full: the log entry that it could not
// apply or append, or the snapshot.
var reasons = regexp.MustCompile(`log entry \d+|capture database|raft\.db|snapshot \d+-\d+-\d+|db\.sqlite`)

// fooState and ledgerState are what a witness asks for.
const (
	fooState    = "SELECT count(*), count(*) = ifnull(max(id), 0) AND total(length(name)) = 20000 * count(*) FROM foo"
	ledgerState = "SELECT count(*), count(*) = (SELECT n FROM counter) FROM ledger"
)

// settled is what becomes of a member whose disk may be too small.
type settled int

const (
	inSync  settled = iota
	stopped         // it could not apply what the others have applied
	waits           // it is not ready, since there is no room for the snapshot that it needs
)

// settle waits until one of these holds; logged is where the log of this process begins.
func (n *node) settle(logged int) (how settled) {
	n.t.Helper()
	_, err := poll(formLimit, pollEvery, func() error {
		err := n.readyz("sync&timeout=2s")
		if err != nil && n.running() && noRoom.MatchString(n.log()[logged:]) {
			how = waits
			return nil
		}
		return err
	})
	if err == nil {
		return how
	}
	if n.running() {
		n.t.Fatalf("%s is not in sync, does not say why, and has not stopped: %v", n.id, err)
	}
	n.stoppedFull(logged)
	return stopped
}

// noRoom matches what a member says each time it can't receive a snapshot.
var noRoom = regexp.MustCompile(`(?m)failed to copy snapshot.*no space left`)

// sizes are the disks to try, in kilobytes: one from each part of the range, or, in the long
// form, all in small steps.
func sizes(rng *rand.Rand) (all []int) {
	const from, to = 1 << 10, 18 << 10
	if long() {
		for kb := from; kb < to; kb += 256 {
			all = append(all, kb)
		}
		return all
	}
	const parts = 6
	for i := range parts {
		all = append(all, from+(i*(to-from)+rng.IntN(to-from))/parts)
	}
	return all
}

// inTurns calls f with some of the sizes at a time.
func inTurns(sizes []int, f func(some []int)) {
	for len(sizes) > 0 {
		n := min(6, len(sizes))
		f(sizes[:n])
		sizes = sizes[n:]
	}
}

// fillFlags make members on small disks take snapshots, which need space too.
var fillFlags = []string{"-raft-snap", "50", "-raft-snap-int", "200ms", "-raft-snap-wal-size", "262144"}

// TestFaultDiskFullFollower has members on disks of many sizes, which run full at different
// moments. A member that can't apply what the others have applied stops instead of going on without
// it, the rest does not mind, and with more space it becomes equal to them.
func TestFaultDiskFullFollower(t *testing.T) {
	t.Parallel()
	rng := newRand(t)
	count := map[settled]int{}
	inTurns(sizes(rng), func(some []int) { fillMembers(t, rng, some, count) })
	t.Logf("%d starts had room enough, %d ended, %d waited for room to receive a snapshot",
		count[inSync], count[stopped], count[waits])
	if count[stopped] == 0 {
		t.Error("no member had to stop")
	}
}

// fillMembers counts what becomes of members on disks of these sizes.
func fillMembers(t *testing.T, rng *rand.Rand, sizes []int, count map[settled]int) {
	t.Helper()
	leader := startOne(t, slices.Concat(fillFlags, swift)...)
	leader.execute("CREATE TABLE foo (id INTEGER NOT NULL PRIMARY KEY, name TEXT)")
	var members cluster
	disks := map[*node]*disk{}
	for _, kb := range sizes {
		d := newDisk(t, kb)
		n := newNode(t, fmt.Sprintf("disk%d", kb), slices.Concat(fillFlags, []string{"-raft-non-voter", "-join", leader.raftAddr})...).on(d)
		n.start()
		n.waitReady(formLimit)
		members, disks[n] = append(members, n), d
	}
	var acked atomic.Int64
	rows := func() int { return int(acked.Load()) }
	var witnesses []*witness
	for _, n := range members {
		witnesses = append(witnesses, n.witness(fooState, rows))
	}
	for range 170 {
		leader.execute([]any{"INSERT INTO foo(name) VALUES (?)", randomText(rng, 20000)})
		acked.Add(1)
	}
	for i, n := range members {
		how := n.settle(0)
		count[how]++
		witnesses[i].end()
		if how == stopped {
			logged := len(n.log())
			n.start() // nothing has become better
			w := n.witness(fooState, rows)
			count[n.settle(logged)]++
			w.end()
		}
	}
	for _, n := range members {
		disks[n].grow(plenty)
		if !n.running() {
			n.start()
		}
	}
	for range 10 {
		leader.execute([]any{"INSERT INTO foo(name) VALUES (?)", randomText(rng, 20000)})
	}
	all := append(cluster{leader}, members...)
	all.equal()
	for _, n := range all { // to make room for the next
		n.kill()
	}
}

// TestFaultDiskFullAlone does so with nodes that are alone: what they have acknowledged is there
// when they have space again.
func TestFaultDiskFullAlone(t *testing.T) {
	t.Parallel()
	rng := newRand(t)
	inTurns(sizes(rng), func(some []int) { fillAlone(t, rng, some) })
}

func fillAlone(t *testing.T, rng *rand.Rand, sizes []int) {
	t.Helper()
	var nodes cluster
	var disks []*disk
	var ledgers []*ledger
	var witnesses []*witness
	for _, kb := range sizes {
		d := newDisk(t, kb)
		n := newNode(t, fmt.Sprintf("disk%d", kb), slices.Concat(fillFlags, swift)...).on(d)
		nodes, disks = append(nodes, n), append(disks, d)
	}
	nodes.start()
	nodes.waitReady()
	for _, n := range nodes {
		l := newLedger(n)
		l.noise = 20000
		l.begin(cluster{n}, 2, rng.Uint64())
		ledgers, witnesses = append(ledgers, l), append(witnesses, n.witness(ledgerState, l.acknowledged))
	}
	for i, n := range nodes {
		l := ledgers[i]
		within(t, 2*formLimit, n.id+" stops because its disk is full", func() error {
			if n.running() {
				return fmt.Errorf("%d writes have been acknowledged", l.acknowledged())
			}
			return nil
		})
		l.end()
		n.stoppedFull(0)
		witnesses[i].end()
		disks[i].grow(plenty)
		n.start()
		l.begin(cluster{n}, 2, rng.Uint64())
		l.progress(t, 10)
		l.end()
		l.verify(cluster{n})
		n.kill()
	}
}

// TestFaultDiskFullLeader fills the disk of a leader. Another takes over.
func TestFaultDiskFullLeader(t *testing.T) {
	t.Parallel()
	rng := newRand(t)
	for round, start := 0, time.Now(); again(round, start); round++ {
		fillLeader(t, rng)
	}
}

func fillLeader(t *testing.T, rng *rand.Rand) {
	t.Helper()
	c := newCluster(t, 2, fillFlags...)
	kb := 3<<10 + rng.IntN(12<<10)
	t.Logf("a disk of %d kB", kb)
	d := newDisk(t, kb)
	small := newNode(t, "small", slices.Concat(fillFlags, []string{"-join", c[0].raftAddr + "," + c[1].raftAddr, "-join-interval", "200ms", "-join-attempts", "50"})...).on(d)
	c.start()
	c.waitReady()
	small.start()
	small.waitReady(formLimit)
	all := append(cluster{small}, c...)
	l := newLedger(all.leader())
	l.noise = 20000
	all.lead(small)
	l.begin(all, 4, rng.Uint64())
	w := small.witness(ledgerState, l.acknowledged)
	within(t, 2*formLimit, "the leader stops because its disk is full", func() error {
		if small.running() {
			return fmt.Errorf("%d writes have been acknowledged", l.acknowledged())
		}
		return nil
	})
	small.stoppedFull(0)
	w.end()
	l.progress(t, 50)
	d.grow(plenty)
	small.start()
	l.sound(small)
	l.end()
	l.verify(all)
	for _, n := range all { // to make room for the next
		n.kill()
	}
}

// TestFaultDiskFullRestore starts a node that has to restore its database, and apply the log behind
// the snapshot, on a disk that is nearly full by other files. It ends with the reason, as often as it
// is started, and serves nothing; when the other files have gone it has all it had.
func TestFaultDiskFullRestore(t *testing.T) {
	t.Parallel()
	rng := newRand(t)
	d := newDisk(t, 32<<10)
	n := newNode(t, "n1", append([]string{"-raft-snap-wal-size", "0", "-raft-snap", "1000000"}, swift...)...).on(d)
	n.start()
	n.waitReady(formLimit)
	n.execute("CREATE TABLE foo (id INTEGER NOT NULL PRIMARY KEY, name TEXT)")
	insert := func(rows int) {
		for range rows {
			n.execute([]any{"INSERT INTO foo(name) VALUES (?)", randomText(rng, 20000)})
		}
	}
	insert(60)
	n.mustSnapshot()
	insert(60)
	want := n.content()
	n.kill()
	n.forgetDatabase()
	most := 6 << 10 // kilobytes; it needs about 1.2 MB for the image, and as much for the WAL and the rest of the database
	steps, ended := 6, 0
	if long() {
		steps = 40
	}
	for step := range steps {
		free := most * step / steps
		d.fill(free)
		logged := len(n.log())
		n.start()
		w := n.witness(fooState, func() int { return 120 })
		_, err := poll(formLimit, pollEvery, func() error { return n.readyz("sync&timeout=1s") })
		if err == nil {
			n.kill() // there was room enough
		} else if n.stoppedFull(logged); !t.Failed() {
			ended++
		}
		w.end()
		n.forgetDatabase()
	}
	t.Logf("%d of %d starts ended because the disk was full", ended, steps)
	if ended < steps/3 {
		t.Error("the disk was hardly ever full")
	}
	d.unfill()
	n.start()
	n.has(want)
}

// fill leaves so many kilobytes of the disk free.
func (d *disk) fill(kilobytes int) {
	d.t.Helper()
	d.unfill()
	var fs syscall.Statfs_t
	if err := syscall.Statfs(d.dir, &fs); err != nil {
		d.t.Fatal(err)
	}
	size := int64(fs.Bavail)*fs.Bsize - int64(kilobytes)<<10
	f, err := os.Create(filepath.Join(d.dir, "filler"))
	if err != nil {
		d.t.Fatal(err)
	}
	if err := errors.Join(syscall.Fallocate(int(f.Fd()), 0, 0, max(1, size)), f.Close()); err != nil {
		d.t.Fatal(err)
	}
}

// unfill gives the space back.
func (d *disk) unfill() {
	d.t.Helper()
	if err := os.Remove(filepath.Join(d.dir, "filler")); err != nil && !errors.Is(err, os.ErrNotExist) {
		d.t.Fatal(err)
	}
}

// lead makes the node the leader.
func (c cluster) lead(n *node) {
	n.t.Helper()
	within(n.t, formLimit, n.id+" leads", func() error {
		old := c.leader()
		if old == n {
			return nil
		}
		a, err := old.do(requestLimit, "POST", "/leader?wait", "application/json", fmt.Sprintf(`{"id":%q}`, n.id))
		if err == nil {
			err = fmt.Errorf("/leader: %d %s", a.status, a.body)
		}
		return err
	})
}
