package store

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"rqlited/command"
	"rqlited/snapshot"
)

// newStray returns a cluster of two that was recovered without its old leader, and that leader,
// stopped, with entries in its log that the others never had.
func newStray(t *testing.T, prepare func(stray *node)) (leader, stray *node) {
	t.Helper()
	nodes := newCluster(t, 3, nil)
	stray = waitLeader(t, nodes...)
	others := without(nodes, stray)
	stray.exec(t, "CREATE TABLE foo (v TEXT)", "INSERT INTO foo VALUES('a')")
	for _, n := range others {
		if err := n.WaitApplied(t.Context(), stray.CommitIndex()); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range others {
		n.close(t)
	}
	for i := range 3 {
		q := fmt.Sprintf("INSERT INTO foo VALUES('ghost%d')", i)
		if _, err := stray.Do(t.Context(), request(command.Execute, command.Weak, q)); err == nil {
			t.Fatal("a write without a quorum succeeded")
		}
	}
	if prepare != nil {
		prepare(stray)
	}
	stray.close(t)
	for _, n := range others {
		n.writePeers(t, nodes...)
		n.open(t)
	}
	leader = waitLeader(t, others...)
	leader.exec(t, "INSERT INTO foo VALUES('b')")
	return leader, stray
}

// TestInstallBelowSurplus starts a node with surplus log entries, from which the snapshot's own
// entry has been compacted away. The leader has no log, so it sends its snapshot: once, not for
// ever.
func TestInstallBelowSurplus(t *testing.T) {
	t.Parallel()
	leader, stray := newStray(t, func(n *node) {
		n.snapshot(t, 1)
		head, _ := n.snaps.Head()
		if first, last, err := n.logs.bounds(); err != nil || first != head.Index+1 || last < first {
			t.Fatalf("log is %d to %d behind snapshot %s, %v: that is not what this test is for", first, last, head.ID, err)
		}
	})
	stray.open(t)
	stray.waitRows(t, "SELECT v FROM foo", "a,b")
	checkSettled(t, leader, stray)
}

// TestInstallVoidsLog starts a node whose log goes on behind a snapshot that the leader then
// replaces by a lower one. Nothing of that log may survive.
func TestInstallVoidsLog(t *testing.T) {
	t.Parallel()
	leader, stray := newStray(t, nil)
	stray.addSurplus(t, leader, 6)
	stray.open(t)
	stray.waitRows(t, "SELECT v FROM foo", "a,b")
	checkSettled(t, leader, stray)
	if stray.logs.void() {
		t.Error("the log is still void")
	}
	leader.exec(t, "INSERT INTO foo VALUES('c')")
	stray.restart(t)
	stray.waitRows(t, "SELECT v FROM foo", "a,b,c")
}

// addSurplus makes a snapshot of all that n has, and adds entries behind it that nobody else has.
func (n *node) addSurplus(t *testing.T, leader *node, count uint64) {
	t.Helper()
	n.writePeers(t, leader, n)
	n.open(t)
	n.close(t)
	l := newLog(t, filepath.Join(n.cfg.Dir, logFile))
	snaps, err := snapshot.Open(filepath.Join(n.cfg.Dir, snapshotsDir), snapshot.Config{})
	if err != nil {
		t.Fatal(err)
	}
	head, _ := snaps.Head()
	surplus := entries(head.Term, head.Index+1, head.Index+count)
	for _, e := range surplus {
		e.Type = raft.LogNoop
	}
	if err := errors.Join(l.StoreLogs(surplus), l.bolt.Close(), snaps.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestInstallVoidsLogIdle is TestInstallVoidsLog in a cluster that nobody writes to. Raft learns where the log
// ends when something is appended, so the leader has to.
func TestInstallVoidsLogIdle(t *testing.T) {
	t.Parallel()
	leader, stray := newStray(t, nil)
	leader.snapshot(t, 1)
	stray.addSurplus(t, leader, 30)
	stray.open(t)
	own, _ := stray.snaps.Head()
	eventually(t, "an install", func() error {
		if head, _ := stray.snaps.Head(); head.ID == own.ID {
			return errors.New("not yet")
		}
		return nil
	})
	eventually(t, "a log", func() error {
		if stray.logs.void() {
			return errors.New("the log is still void")
		}
		return stray.Ready()
	})
	if got := stray.rows(t, command.None, "SELECT v FROM foo"); got != "a,b" {
		t.Errorf("rows = %q; want a,b", got)
	}
}

// TestAppendBehindSnapshot makes sure that the log goes on once a snapshot has been sent, also if nobody writes.
func TestAppendBehindSnapshot(t *testing.T) {
	t.Parallel()
	n := newSingle(t)
	n.exec(t, "CREATE TABLE foo (v TEXT)")
	n.snapshot(t, 0)
	_, rc := n.openHead(t)
	_, before, err := n.logs.bounds()
	if err := errors.Join(err, rc.Close()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "an entry behind the snapshot", func() error {
		if _, last, err := n.logs.bounds(); err != nil || last <= before {
			return fmt.Errorf("log ends at %d, %w", last, errors.Join(err, errors.New("as before")))
		}
		return nil
	})
}

// TestInstallBehindCommit installs a snapshot of a cluster that has never committed what this node has, while the
// node runs. Raft would apply nothing before the leader has passed the old commit index.
func TestInstallBehindCommit(t *testing.T) {
	t.Parallel()
	n := newSingle(t)
	n.exec(t, "CREATE TABLE foo (v TEXT)", "INSERT INTO foo VALUES('a')")
	n.snapshot(t, 0)
	head, rc := n.openHead(t)
	n.exec(t, "INSERT INTO foo VALUES('ghost')")
	n.install(t, head.Index, head.Term+1, rc)
	_, rc = n.openHead(t)
	if err := n.fsm.Restore(rc); err != nil {
		t.Fatal(err)
	}
	if err := n.Wait(); err == nil || !strings.Contains(err.Error(), "a restart is needed") {
		t.Errorf("Wait = %v; want that a restart is needed", err)
	}
	n.restart(t)
	n.waitRows(t, "SELECT v FROM foo", "a")
}

// checkSettled makes sure that the leader has sent its snapshot at most once.
func checkSettled(t *testing.T, leader, follower *node) {
	t.Helper()
	for i := range 20 {
		leader.exec(t, "CREATE TABLE IF NOT EXISTS bar (v INTEGER)", fmt.Sprintf("INSERT INTO bar VALUES(%d)", i))
	}
	if err := follower.WaitApplied(t.Context(), leader.CommitIndex()); err != nil {
		t.Fatal(err)
	}
	if n := follower.Counters()["num_restores"]; n > 2 { // one of them at the start
		t.Errorf("%d snapshots were restored", n)
	}
	if err := follower.Ready(); err != nil {
		t.Errorf("Ready = %v", err)
	}
}

// TestCatchUpBySnapshot joins a node when the log has been shortened.
func TestCatchUpBySnapshot(t *testing.T) {
	t.Parallel()
	leader := newCluster(t, 1, nil)[0]
	leader.exec(t, "CREATE TABLE foo (v TEXT)", "INSERT INTO foo VALUES('a')")
	for range 10 {
		leader.exec(t, "INSERT INTO foo VALUES('b')")
	}
	leader.snapshot(t, 1)
	n := newNode(t, "n2")
	n.open(t)
	if n.HasPeers() || n.Ready() == nil {
		t.Errorf("a new node: peers %t, Ready = %v", n.HasPeers(), n.Ready())
	}
	if err := leader.Join(t.Context(), Server{ID: "n2", Addr: n.cfg.Addr, Voter: true}); err != nil {
		t.Fatal(err)
	}
	want := leader.rows(t, command.Weak, "SELECT count(*) FROM foo")
	n.waitRows(t, "SELECT count(*) FROM foo", want)
	eventually(t, "readiness", n.Ready)
	if got := n.Counters()["num_restores"]; got != 1 {
		t.Errorf("num_restores = %d; want 1", got)
	}
	n.restart(t)
	n.waitRows(t, "SELECT count(*) FROM foo", want)
	if got := n.Counters()["num_restores_start_skipped"]; got != 1 {
		t.Errorf("num_restores_start_skipped = %d; want 1: a restored snapshot needs no second restore", got)
	}
}

// openHead returns the newest snapshot, and a reader of it.
func (n *node) openHead(t *testing.T) (snapshot.Head, io.ReadCloser) {
	t.Helper()
	head, _ := n.snaps.Head()
	_, rc, err := n.snaps.Open(head.ID)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { rc.Close() })
	return head, rc
}

// install publishes a stream the way Raft does with one from the leader, but does not restore it.
func (n *node) install(t *testing.T, index, term uint64, stream io.Reader) {
	t.Helper()
	k, err := n.snaps.Create(raft.SnapshotVersionMax, index, term, n.configuration(), 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(k, stream); err != nil {
		t.Fatal(err)
	}
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestCaptureDuringInstall takes a snapshot of the old state between the publication of an install
// and its restore. It must not become the head.
func TestCaptureDuringInstall(t *testing.T) {
	t.Parallel()
	n := newSingle(t)
	n.exec(t, "CREATE TABLE foo (v TEXT)", "INSERT INTO foo VALUES('a')")
	n.snapshot(t, 0)
	head, rc := n.openHead(t)
	n.exec(t, "INSERT INTO foo VALUES('b')")
	n.install(t, head.Index, head.Term, rc)
	installed, _ := n.snaps.Head()
	if installed.ID == head.ID {
		t.Fatal("the install is not the head")
	}
	if err := n.Snapshot(t.Context(), 0); err == nil {
		t.Error("Snapshot of a superseded state succeeded")
	}
	if now, _ := n.snaps.Head(); now.ID != installed.ID {
		t.Errorf("head is %s; want the install %s", now.ID, installed.ID)
	}
}

// TestStalledInstall makes sure that a leader that falls silent in the middle of a snapshot does
// not keep a follower for ever.
func TestStalledInstall(t *testing.T) {
	t.Parallel()
	n := newSingle(t)
	n.snaps.idleLimit = 50 * time.Millisecond
	c, err := net.Dial("tcp", n.cfg.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	k, err := n.snaps.Create(raft.SnapshotVersionMax, 1, 1, raft.Configuration{}, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadDeadline(time.Now().Add(waitFor)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("read from the node = %v; want that it closes the connection", err)
	}
	if err := k.Cancel(); err != nil {
		t.Error(err)
	}
	if err := n.Ready(); !errors.Is(err, ErrNotReady) {
		t.Errorf("Ready after a failed install = %v; want ErrNotReady", err)
	}
}

// TestReadyAfterBrokenInstall has a leader break off a snapshot, and another one find that this
// node needs none.
func TestReadyAfterBrokenInstall(t *testing.T) {
	t.Parallel()
	n := newSingle(t)
	k, err := n.snaps.Create(raft.SnapshotVersionMax, 1, 1, raft.Configuration{}, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Cancel(); err != nil {
		t.Fatal(err)
	}
	if err := n.Ready(); !errors.Is(err, ErrNotReady) {
		t.Errorf("Ready after a failed install = %v; want ErrNotReady", err)
	}
	n.exec(t, "CREATE TABLE foo (v TEXT)")
	if err := n.Ready(); err != nil {
		t.Errorf("Ready after the log has gone on = %v", err)
	}
}

// TestRefusedInstall makes sure that a follower does not go on listening to a leader whose
// snapshot it has given up: Raft would read the rest first, and that leader may be silent.
func TestRefusedInstall(t *testing.T) {
	t.Parallel()
	n := newSingle(t)
	c, err := net.Dial("tcp", n.cfg.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	eventually(t, "the connection", func() error {
		n.layer.mu.Lock()
		defer n.layer.mu.Unlock()
		if len(n.layer.conns) == 0 {
			return errors.New("not accepted yet")
		}
		return nil
	})
	k, err := n.snaps.Create(raft.SnapshotVersionMax, 1, 1, raft.Configuration{}, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Write(make([]byte, 100)); err == nil {
		t.Error("no snapshot begins like that")
	}
	if err := k.Cancel(); err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadDeadline(time.Now().Add(waitFor)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("read from the node = %v; want that it closes the connection", err)
	}
}

// TestInstallNotRestored lets the restore fail after the log was discarded. A leader could now
// append behind the snapshot, to a database that never was there.
func TestInstallNotRestored(t *testing.T) {
	t.Parallel()
	n := newSingle(t)
	n.exec(t, "CREATE TABLE foo (v TEXT)", "INSERT INTO foo VALUES('a')")
	n.snapshot(t, 0)
	head, rc := n.openHead(t)
	n.exec(t, "INSERT INTO foo VALUES('ghost')")
	n.install(t, head.Index+1, head.Term+1, rc)
	_, rc = n.openHead(t)
	if err := os.Mkdir(n.fsm.image, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := n.fsm.Restore(rc); err == nil {
		t.Fatal("Restore into a directory succeeded")
	}
	if err := n.failure.get(); err == nil {
		t.Error("the node goes on with a database that is not behind its log")
	}
	n.restart(t)
	n.waitRows(t, "SELECT v FROM foo", "a")
}

// TestLogHeldForReader shortens the log while a snapshot is being sent. What the follower needs
// next has to stay.
func TestLogHeldForReader(t *testing.T) {
	t.Parallel()
	n := newSingle(t)
	n.exec(t, "CREATE TABLE foo (v TEXT)")
	n.snapshot(t, 1)
	head, _ := n.snaps.Head()
	_, rc, err := n.snaps.Open(head.ID)
	if err != nil {
		t.Fatal(err)
	}
	shorten := func() (first uint64) {
		for range 5 {
			n.exec(t, "INSERT INTO foo VALUES('a')")
		}
		n.snapshot(t, 1)
		first, _, err := n.logs.bounds()
		if err != nil {
			t.Fatal(err)
		}
		return first
	}
	if first := shorten(); first > head.Index+1 {
		t.Errorf("log begins at %d; want %d, which follows the snapshot being sent", first, head.Index+1)
	}
	if err := rc.Close(); err != nil {
		t.Fatal(err)
	}
	if first := shorten(); first > head.Index+1 {
		t.Errorf("log begins at %d right after the snapshot was sent; want %d", first, head.Index+1)
	}
	n.logs.held.mu.Lock()
	for _, o := range n.logs.held.holds {
		o.until = time.Now()
	}
	n.logs.held.mu.Unlock()
	if first := shorten(); first <= head.Index+1 {
		t.Errorf("log begins at %d long after the snapshot was sent", first)
	}
	h := held{}
	h.add(nil, 5)
	if got := h.limit(5 + heldEntries); got != 5 {
		t.Errorf("limit = %d; want 5", got)
	}
	if got := h.limit(6 + heldEntries); got != 6+heldEntries {
		t.Errorf("limit = %d; a slow follower keeps the log from being shortened", got)
	}
}
