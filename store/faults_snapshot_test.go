package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"rqlited/command"
	"rqlited/internal/vfs"
)

// TestFault1228: a recovery built the database in memory. Here it allocates the same for any size.
func TestFault1228(t *testing.T) {
	const limit = 8 << 20
	n := newTwice(t)
	n.exec(t, "CREATE TABLE bulk (v)", "INSERT INTO bulk SELECT zeroblob(1000000) FROM (WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<16) SELECT i FROM c)")
	n.snapshot(t, 1)
	n.addTwice(t, 2)
	n.kill(t)
	n.writePeers(t, n)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	n.lead(t)
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > limit || n.Counters()["num_recoveries"] != 1 {
		t.Errorf("the recovery of 16 MB has allocated %d bytes; want at most %d", got, limit)
	}
	n.wantTwice(t, "recovered", 2)
}

// TestFault1293: after peers.json was put into a new directory, with no log and no snapshot in it, later
// starts failed.
func TestFault1293(t *testing.T) {
	t.Parallel()
	n := newNode(t, "n1")
	n.hurry()
	n.writePeers(t, n)
	n.lead(t)
	n.exec(t, strings.Split(twiceTables, "; ")...)
	for i := range 3 {
		n.addTwice(t, 1)
		n.kill(t)
		n.lead(t)
		n.wantTwice(t, fmt.Sprintf("start %d", i), i+1)
		if servers, err := n.Servers(); err != nil || len(servers) != 1 || servers[0] != n.server() {
			t.Errorf("start %d: members are %v, %v", i, servers, err)
		}
	}
}

// hideSnapshots makes every attempt to publish fail until the function it returns is called.
func (n *node) hideSnapshots(t *testing.T) (show func()) {
	t.Helper()
	dir := filepath.Join(n.cfg.Dir, snapshotsDir)
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.Rename(dir+".away", dir); err != nil {
			t.Fatal(err)
		}
	}
}

// addTable writes to pages of its own: what is lost of an attempt is not in the next one by chance.
func (n *node) addTable(t *testing.T, i int) {
	t.Helper()
	n.exec(t, fmt.Sprintf("CREATE TABLE t%d (v)", i), fmt.Sprintf("INSERT INTO t%d VALUES(%d)", i, i))
}

// wantTables checks what addTable has written up to i.
func (n *node) wantTables(t *testing.T, i int) {
	t.Helper()
	for i := range i {
		if got := n.rows(t, command.Weak, fmt.Sprintf("SELECT v FROM t%d", i)); got != fmt.Sprint(i) {
			t.Errorf("table t%d holds %q; want %d", i, got, i)
		}
	}
	if got := n.rows(t, command.Weak, "PRAGMA integrity_check"); got != "ok" {
		t.Errorf("integrity check: %s", got)
	}
}

// TestFault2490: what a failed attempt had captured was kept and shipped later, by rules that grew with each
// fault (also #2491, #2501, #2502). Here three attempts fail in writing, with writes between, and the fourth has
// it all.
func TestFault2490(t *testing.T) {
	t.Parallel()
	n := newTwice(t)
	n.exec(t, "CREATE TABLE bulk (v)", "INSERT INTO bulk VALUES(zeroblob(200000))")
	n.snapshot(t, 1)
	head, _ := n.snaps.Head()
	show := n.hideSnapshots(t)
	for i := range 3 {
		n.addTable(t, i)
		if err := n.Snapshot(t.Context(), 1); err == nil || errors.Is(err, ErrNothingNew) {
			t.Errorf("attempt %d = %v; want an error", i, err)
		}
		if now, _ := n.snaps.Head(); now.ID != head.ID {
			t.Errorf("head is %s; want %s", now.ID, head.ID)
		}
	}
	show()
	n.addTwice(t, 1)
	n.snapshot(t, 1)
	if c := n.Counters(); c["num_snapshots_full"] != 1 {
		t.Errorf("%d images; want one, and a delta", c["num_snapshots_full"])
	}
	n.kill(t)
	n.dropMarker(t)
	n.lead(t)
	n.wantTwice(t, "after a full restore", 1)
	n.wantTables(t, 3)
}

// TestFault1905: what had been captured was lost when Raft did not want it, because a change of the
// membership was outstanding, or when it could not be written. Raft does not say that it does not want it: it
// releases the capture. TestFault2490 has those that cannot be written.
func TestFault1905(t *testing.T) {
	t.Parallel()
	n := newTwice(t)
	n.exec(t, "CREATE TABLE bulk (v)", "INSERT INTO bulk VALUES(zeroblob(200000))")
	n.snapshot(t, 1)
	for i := range 3 {
		n.addTable(t, i)
		c, err := n.fsm.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		n.addTwice(t, 1) // while it is under way
		c.Release()
	}
	silent := listen(t, "127.0.0.1:0")
	defer silent.Close()
	if err := n.Join(t.Context(), Server{ID: "late", Addr: silent.Addr().String()}); err != nil {
		t.Fatal(err)
	}
	n.addTable(t, 3)
	n.snapshot(t, 1) // right behind the change
	if c := n.Counters(); c["num_snapshots_full"] != 1 {
		t.Errorf("%d images; want one, and a delta", c["num_snapshots_full"])
	}
	if err := n.Remove(t.Context(), "late"); err != nil {
		t.Fatal(err)
	}
	n.kill(t)
	n.dropMarker(t)
	n.lead(t)
	n.wantTwice(t, "after a full restore", 3)
	n.wantTables(t, 4)
}

// TestFault1608: what had been captured was not given back when there was no place to write it to.
func TestFault1608(t *testing.T) {
	t.Parallel()
	n := newTwice(t)
	if err := n.snaps.Store.Close(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		n.addTwice(t, 1)
		if err := n.Snapshot(t.Context(), 1); !errors.Is(err, errUncovered) && (err == nil || !strings.Contains(err.Error(), "store is closed")) {
			t.Errorf("Snapshot into a closed store = %v; want that it says so", err)
		}
		c, err := n.fsm.Snapshot() // which is refused as long as another capture is held
		if err != nil {
			t.Fatal(err)
		}
		c.Release()
	}
	n.restart(t)
	waitLeader(t, n)
	n.snapshot(t, 1)
	n.wantTwice(t, "after a restart", 3)
}

// begunSnapshot is a snapshot as Raft takes it, step by step.
func (n *node) begunSnapshot(t *testing.T) (raft.FSMSnapshot, raft.SnapshotSink) {
	t.Helper()
	c, err := n.fsm.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	k, err := n.snaps.Create(raft.SnapshotVersionMax, n.fsm.progress.index(), n.raft.CurrentTerm(), n.configuration(), 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c, k
}

// killingFS calls kill before each step that can be seen after a kill, once armed.
type killingFS struct {
	vfs.FS
	mu   sync.Mutex
	kill func(when string) // guarded by mu; nil: not armed
}

func (k *killingFS) arm(kill func(when string)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.kill = kill
}

func (k *killingFS) before(act, name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.kill != nil {
		k.kill("before " + act + " " + filepath.Base(name))
	}
}

func (k *killingFS) Create(name string) (vfs.File, error) {
	k.before("create", name)
	return k.FS.Create(name)
}

func (k *killingFS) Rename(from, to string) error {
	k.before("rename to", to)
	return k.FS.Rename(from, to)
}

func (k *killingFS) Remove(name string) error {
	k.before("remove", name)
	return k.FS.Remove(name)
}

// TestFault2512: a kill between the marker and the publication of the increment it spoke of made the next
// start apply entries again. Here the process is killed before each step that a kill can leave undone, and starts
// from each of the directories that are left.
func TestFault2512(t *testing.T) {
	t.Parallel()
	n := newNode(t, "n1")
	n.hurry()
	fsys := &killingFS{FS: vfs.OS}
	n.cfg.fs = fsys
	n.writePeers(t, n)
	n.lead(t)
	n.exec(t, strings.Split(twiceTables+"; CREATE TABLE bulk (v); INSERT INTO bulk VALUES(zeroblob(200000))", "; ")...)
	n.addTwice(t, 2)
	n.snapshot(t, 1)
	n.addTwice(t, 2)
	old, _ := n.snaps.Head()
	left := map[string]string{}
	kill := func(when string) { left[when] = copyDir(t, n.cfg.Dir) }
	fsys.arm(kill)
	c, k := n.begunSnapshot(t)
	if err := c.Persist(k); err != nil {
		t.Fatal(err)
	}
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	c.Release()
	fsys.arm(nil)
	kill("at the end")
	n.close(t)
	n.cfg.fs = nil
	kept := map[string]bool{}
	for when, dir := range left {
		n.cfg.Dir = dir
		n.lead(t)
		n.wantTwice(t, when, 4)
		head, _ := n.snaps.Head()
		kept[head.ID] = kept[head.ID] || n.Counters()["num_restores_start_skipped"] == 1
		n.close(t)
	}
	if len(left) < 5 || !kept[old.ID] || len(kept) != 2 {
		t.Errorf("killed at %d moments, live databases kept: %v: not what this test is for", len(left), kept)
	}
}

// TestFaultRecoveryAndMarker: the start decided to keep the live database, the recovery made a newer
// snapshot, and entries in between were lost, for good with the next snapshot. Upstream that had no number.
func TestFaultRecoveryAndMarker(t *testing.T) {
	t.Parallel()
	n := newTwice(t)
	n.addTwice(t, 10)
	n.snapshot(t, 1)
	n.addTwice(t, 20)
	n.kill(t)
	n.writePeers(t, n)
	n.lead(t)
	n.wantTwice(t, "recovered", 30)
	n.addTwice(t, 1)
	n.snapshot(t, 1)
	n.kill(t)
	n.dropMarker(t)
	n.lead(t)
	n.wantTwice(t, "after a full restore", 31)
}

// TestFault2537: snapshots waited for reads, which waited for Raft, which waited for the snapshot
// (also #2538, #2544, #2549).
func TestFault2537(t *testing.T) {
	t.Parallel()
	n := newNode(t, "n1")
	n.cfg.Snapshot.WALSize, n.cfg.Snapshot.Interval = 64<<10, 10*time.Millisecond
	n.hurry()
	n.writePeers(t, n)
	n.lead(t)
	n.exec(t, strings.Split(twiceTables+"; CREATE TABLE bulk (v)", "; ")...)
	const writers, each = 4, 12
	ctx, cancel := context.WithTimeout(t.Context(), waitFor)
	defer cancel()
	var mu sync.Mutex
	var longest time.Duration
	do := func(req *command.Request) {
		begin := time.Now()
		if _, err := n.Do(ctx, req); err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		longest = max(longest, time.Since(begin))
	}
	var all sync.WaitGroup
	for range writers {
		all.Go(func() {
			for range each {
				do(request(command.Execute, command.Weak, "INSERT INTO bulk VALUES(zeroblob(30000))", "INSERT INTO list VALUES(1)", "UPDATE counter SET n=n+1"))
				do(request(command.Query, command.Strong, "SELECT count(*) FROM bulk a, bulk b"))
				do(request(command.Query, command.Linearizable, "SELECT count(*) FROM bulk"))
			}
		})
	}
	all.Wait()
	if longest > 5*time.Second {
		t.Errorf("a request took %s", longest)
	}
	eventually(t, "snapshots", func() error {
		if c := n.Counters(); c["num_wal_snapshots"] == 0 {
			return errors.New("none: not what this test is for")
		}
		return nil
	})
	n.close(t)
	n.dropMarker(t)
	n.lead(t)
	n.wantTwice(t, "after a full restore", writers*each)
}

// TestFault2747: the process was killed when an install had been published and not yet restored, and the
// next start kept the database of before at the index of the install (also #2750, #2754, #2756). Here the install has other
// rows than the database that is marked as clean.
func TestFault2747(t *testing.T) {
	t.Parallel()
	n := newTwice(t)
	n.addTwice(t, 2)
	n.snapshot(t, 1)
	_, sent := n.openHead(t)
	n.addTwice(t, 3)
	n.snapshot(t, 1)
	marked, _ := n.snaps.Head()
	n.install(t, marked.Index+10, marked.Term+1, sent)
	n.kill(t)
	n.lead(t)
	n.wantTwice(t, "after the install", 2)
	if head, _ := n.snaps.Head(); head.Index != marked.Index+10 || n.fsm.progress.index() < head.Index {
		t.Errorf("head is %s, applied index %d; want index %d", head.ID, n.fsm.progress.index(), marked.Index+10)
	}
	if c := n.Counters(); c["num_restores_start"] != 1 {
		t.Errorf("%d restores at the start; want 1", c["num_restores_start"])
	}
	n.addTwice(t, 1)
	n.snapshot(t, 1)
	n.kill(t)
	n.dropMarker(t)
	n.lead(t)
	n.wantTwice(t, "after a full restore", 3)
}

// TestFault2759: a restore took index and term of whatever snapshot was the newest, and went on after
// an error behind the exchange of the files, so that entries were applied twice (also #2760, #2761, #2763).
func TestFault2759(t *testing.T) {
	t.Parallel()
	n := newTwice(t)
	n.addTwice(t, 2)
	n.snapshot(t, 1)
	lower, sent := n.openHead(t)
	n.addTwice(t, 3)
	n.snapshot(t, 1)
	higher, _ := n.snaps.Head()
	_, again := n.openHead(t)
	if err := n.fsm.Restore(sent); err != nil {
		t.Fatal(err)
	}
	if got := n.fsm.progress.index(); got != lower.Index || lower.Index >= higher.Index {
		t.Errorf("applied index after the restore of %s = %d", lower.ID, got)
	}
	if err := n.Snapshot(t.Context(), 1); err == nil {
		t.Error("a capture upon what is not the head was published")
	}
	if now, _ := n.snaps.Head(); now.ID != higher.ID {
		t.Errorf("head is %s; want %s", now.ID, higher.ID)
	}
	// The directory that stands in the way of the marker makes the restore fail behind the exchange.
	inTheWay := filepath.Join(n.cfg.Dir, "db.clean.tmp", "x")
	if err := os.MkdirAll(inTheWay, 0o755); err != nil {
		t.Fatal(err)
	}
	before := n.fsm.progress.index()
	if err := n.fsm.Restore(again); err == nil {
		t.Fatal("the restore has not failed: not what this test is for")
	}
	_, err := n.Do(t.Context(), request(command.Execute, command.Weak, "INSERT INTO list VALUES(1)"))
	if got := n.fsm.progress.index(); err == nil || n.failure.get() == nil || got != before {
		t.Errorf("the node goes on behind a restore that failed: %v, index %d; want %d", err, got, before)
	}
	if err := os.RemoveAll(filepath.Dir(inTheWay)); err != nil {
		t.Fatal(err)
	}
	n.kill(t)
	n.lead(t)
	n.wantTwice(t, "after a restart", 5)
}

// slowReader is a reader of a snapshot that stops half-way until it is let on.
type slowReader struct {
	io.ReadCloser
	reached, goOn chan struct{}
	read          bool
}

func (r *slowReader) WrappedReadCloser() io.ReadCloser { return r.ReadCloser }

func (r *slowReader) Read(p []byte) (int, error) {
	if r.read {
		<-r.goOn
	} else {
		p = p[:min(len(p), 1000)]
		r.read = true
		defer close(r.reached)
	}
	return r.ReadCloser.Read(p)
}

// TestFault1672: a node said that it was ready while it was being given the database, or was reading it in
// (also #1677).
func TestFault1672(t *testing.T) {
	t.Parallel()
	t.Run("restoring", func(t *testing.T) {
		n := newTwice(t)
		n.snapshot(t, 1)
		_, rc := n.openHead(t)
		slow := &slowReader{ReadCloser: rc, reached: make(chan struct{}), goOn: make(chan struct{})}
		done := make(chan error)
		go func() { done <- n.fsm.Restore(slow) }()
		<-slow.reached
		if err := n.Ready(); !errors.Is(err, ErrNotReady) {
			t.Errorf("Ready amid a restore = %v; want ErrNotReady", err)
		}
		close(slow.goOn)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if err := n.Ready(); err != nil {
			t.Errorf("Ready after the restore = %v", err)
		}
	})
	t.Run("joining", func(t *testing.T) {
		n := newTwice(t)
		n.exec(t, "CREATE TABLE bulk (v)", "INSERT INTO bulk VALUES(zeroblob(5000000))")
		n.addTwice(t, 5)
		n.snapshot(t, 1)
		late := newNode(t, "n2")
		late.open(t)
		if err := n.Join(t.Context(), Server{ID: "n2", Addr: late.cfg.Addr}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "readiness", late.Ready)
		if got := late.rows(t, command.None, twiceCount); got != "5 5" {
			t.Errorf("a node that says it is ready has %q; want 5 5", got)
		}
	})
}

// newDeafPeer returns a server that needs a snapshot, and does not read it when it comes.
func newDeafPeer(t *testing.T) *raft.NetworkTransport {
	t.Helper()
	ln := listen(t, "127.0.0.1:0")
	trans := raft.NewNetworkTransport(newLayer(tcpLayer{ln}, ln.Addr().String()), 1, waitFor, io.Discard)
	stop := make(chan struct{})
	t.Cleanup(func() {
		close(stop)
		trans.Close()
	})
	go func() {
		for {
			select {
			case <-stop:
				return
			case rpc := <-trans.Consumer():
				if req, ok := rpc.Command.(*raft.AppendEntriesRequest); ok {
					rpc.Respond(&raft.AppendEntriesResponse{Term: req.Term, NoRetryBackoff: true}, nil)
				}
			}
		}
	}()
	return trans
}

// TestFault2642: a transfer to a node that had stopped reading kept a lock, so that no snapshot was taken and the
// process could not be stopped (also #2687, #2694, #2698).
func TestFault2642(t *testing.T) {
	t.Parallel()
	n := newTwice(t)
	n.exec(t, "CREATE TABLE bulk (v)", "INSERT INTO bulk VALUES(zeroblob(16000000))")
	n.snapshot(t, 1)
	peer := newDeafPeer(t)
	if err := n.Join(t.Context(), Server{ID: "n2", Addr: string(peer.LocalAddr())}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the transfer", func() error {
		if n.snaps.Stats().Readers == 0 {
			return errors.New("not begun")
		}
		return nil
	})
	for range 3 {
		n.addTwice(t, 1)
		n.snapshot(t, 1)
	}
	if n.snaps.Stats().Readers == 0 {
		t.Error("the transfer has ended: not what this test is for")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := n.Close(ctx); err != nil {
		t.Errorf("Close = %v", err)
	}
	n.Store = nil
	n.lead(t)
	n.wantTwice(t, "after a restart", 3)
}

// TestFaultStopHangs: of three nodes that were stopped at one time, one waited without end for another to take
// over.
func TestFaultStopHangs(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3, nil)
	leader := waitLeader(t, nodes...)
	var all sync.WaitGroup
	begin := time.Now()
	for _, n := range nodes {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			if n == leader {
				if err := n.Stepdown(ctx, "", true); err != nil {
					t.Logf("Stepdown = %v", err) // nobody may be left
				}
			}
			if err := n.Close(ctx); err != nil {
				t.Errorf("Close(%s) = %v", n.cfg.NodeID, err)
			}
			n.Store = nil
		})
	}
	all.Wait()
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("the stop took %s", took)
	}
}
