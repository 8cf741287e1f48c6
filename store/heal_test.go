package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"rqlited/command"
	"rqlited/snapshot"
)

// damageFile changes a file of the snapshots of n, which is stopped: a bit in the middle is flipped,
// or the file is removed. name may be a pattern; the newest match is taken.
func (n *node) damageFile(t *testing.T, pattern string, remove bool) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(n.cfg.Dir, snapshotsDir, pattern))
	if err != nil || len(names) == 0 {
		t.Fatalf("no file %s: %v", pattern, err)
	}
	name := slices.Max(names)
	if remove {
		err = os.Remove(name)
	} else {
		err = flipBit(name)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func flipBit(name string) error {
	data, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	data[len(data)/2] ^= 4
	return os.WriteFile(name, data, 0o600)
}

// dropMarker makes the next start of n restore its newest snapshot.
func (n *node) dropMarker(t *testing.T) {
	t.Helper()
	if err := os.Remove(filepath.Join(n.cfg.Dir, "db.clean")); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
}

// files returns the content of the files in dir.
func files(t *testing.T, dir string) string {
	t.Helper()
	names, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, e := range names {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&all, "%s %x\n", e.Name(), data)
	}
	return all.String()
}

// grow writes an image, a delta upon it, and a row behind that. Of the log it keeps trailing entries
// at the delta.
func (n *node) grow(t *testing.T, trailing uint64) (want string) {
	t.Helper()
	n.exec(t, "CREATE TABLE IF NOT EXISTS foo (id INTEGER PRIMARY KEY, v TEXT)", "INSERT INTO foo(v) VALUES(hex(zeroblob(20000)))")
	n.snapshot(t, 0)
	n.exec(t, "INSERT INTO foo(v) VALUES('b')")
	n.exec(t, "INSERT INTO foo(v) VALUES('c')")
	n.snapshot(t, trailing)
	n.exec(t, "INSERT INTO foo(v) VALUES('d')")
	return n.rows(t, command.None, fooSum)
}

const fooSum = "SELECT count(*), sum(length(v)), max(v) FROM foo"

// TestHealFromLog damages every kind of file of a node on its own, with as much log as there is, with
// enough for one of the two snapshots, and with less.
func TestHealFromLog(t *testing.T) {
	t.Parallel()
	tests := []struct {
		file     string
		trailing uint64 // log entries kept; 0 is all
		healed   bool
	}{
		{"*.delta", 0, true},
		{"*.base", 0, true},
		{"MANIFEST", 0, true},
		{"*.delta", 3, true}, // begins where the base ends
		{"*.delta", 1, false},
		{"*.base", 3, false},
		{"MANIFEST", 3, false},
	}
	for _, tt := range tests {
		for _, remove := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, trailing %d, removed %t", tt.file, tt.trailing, remove), func(t *testing.T) {
				t.Parallel()
				n := newSingle(t)
				want := n.grow(t, tt.trailing)
				n.close(t)
				n.dropMarker(t)
				n.damageFile(t, tt.file, remove)
				if !tt.healed {
					n.checkRefused(t)
					return
				}
				n.open(t)
				waitLeader(t, n)
				if got := n.rows(t, command.Weak, fooSum); got != want {
					t.Errorf("rows = %q; want %q", got, want)
				}
				if c := n.Counters(); c["num_snapshots_salvaged"] != 1 || c["num_snapshots_discarded"] != 0 {
					t.Errorf("counters are %v", c)
				}
				n.exec(t, "INSERT INTO foo(v) VALUES('e')")
				want = n.rows(t, command.Weak, fooSum)
				n.snapshot(t, 1)
				fullRestart(t, n)
				waitLeader(t, n)
				if got := n.rows(t, command.Weak, fooSum); got != want {
					t.Errorf("rows after another snapshot and a full restore = %q; want %q", got, want)
				}
			})
		}
	}
}

// checkRefused makes sure that n does not start, says the same each time, and changes nothing.
func (n *node) checkRefused(t *testing.T) {
	t.Helper()
	dir := filepath.Join(n.cfg.Dir, snapshotsDir)
	before := files(t, dir)
	var first string
	for i := range 3 {
		err := n.tryOpen(t)
		if !errors.Is(err, snapshot.ErrDamaged) {
			t.Fatalf("Open = %v; want ErrDamaged", err)
		}
		if i == 0 {
			first = err.Error()
			t.Log(first)
		} else if err.Error() != first {
			t.Errorf("Open = %q; at first it was %q", err, first)
		}
	}
	if files(t, dir) != before {
		t.Error("a refused start has changed the snapshots")
	}
}

// TestHealFromLeader damages every kind of file of a follower that keeps next to no log. It comes
// back with what the leader sends: the log from its beginning, or a snapshot.
func TestHealFromLeader(t *testing.T) {
	t.Parallel()
	for _, install := range []bool{false, true} {
		t.Run(fmt.Sprintf("install %t", install), func(t *testing.T) {
			t.Parallel()
			nodes := newCluster(t, 3, nil)
			leader := waitLeader(t, nodes...)
			n := without(nodes, leader)[0]
			sync := func() {
				if err := n.WaitApplied(t.Context(), leader.CommitIndex()); err != nil {
					t.Fatal(err)
				}
			}
			leader.exec(t, "CREATE TABLE foo (id INTEGER PRIMARY KEY, v TEXT)", "INSERT INTO foo(v) VALUES(hex(zeroblob(20000)))")
			for _, tt := range []struct {
				file   string
				remove bool
			}{{"*.base", false}, {"*.base", true}, {"*.delta", false}, {"*.delta", true}, {"MANIFEST", false}, {"MANIFEST", true}} {
				for range 2 {
					leader.exec(t, "INSERT INTO foo(v) VALUES('b')")
					leader.exec(t, "INSERT INTO foo(v) VALUES('c')")
					sync()
					n.snapshot(t, 1)
				}
				if install {
					leader.snapshot(t, 1)
				}
				leader.exec(t, "INSERT INTO foo(v) VALUES('d')")
				sync()
				n.close(t)
				n.dropMarker(t)
				n.damageFile(t, tt.file, tt.remove)
				n.open(t)
				if c := n.Counters(); c["num_snapshots_discarded"] != 1 {
					t.Errorf("%+v: the node has not given up its snapshots: %v", tt, c)
				}
				eventually(t, "readiness", n.Ready)
				want := leader.rows(t, command.Weak, fooSum)
				n.waitRows(t, fooSum, want)
				if n.logs.silent() {
					t.Errorf("%+v: ready and silent", tt)
				}
				n.restart(t)
				n.waitRows(t, fooSum, want)
			}
			leader.close(t) // whoever is elected needs the vote of the node
			leader = waitLeader(t, without(nodes, leader)...)
			leader.exec(t, "INSERT INTO foo(v) VALUES('e')")
		})
	}
}

// TestSilent has two of three nodes commit something that the third lacks, and then one of the two
// lose it. The remaining ones must not elect a leader without it.
func TestSilent(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3, func(c *Config) { c.BootstrapExpect = 1 })
	leader := waitLeader(t, nodes...)
	lost, behind := without(nodes, leader)[0], without(nodes, leader)[1]
	leader.exec(t, "CREATE TABLE foo (v TEXT)", "INSERT INTO foo VALUES('a')")
	if err := behind.WaitApplied(t.Context(), leader.CommitIndex()); err != nil {
		t.Fatal(err)
	}
	behind.close(t)
	leader.exec(t, "INSERT INTO foo VALUES('b')")
	if err := lost.WaitApplied(t.Context(), leader.CommitIndex()); err != nil {
		t.Fatal(err)
	}
	lost.snapshot(t, 1)
	leader.close(t)
	lost.close(t)
	lost.dropMarker(t)
	lost.damageFile(t, "*.base", false)
	lost.open(t)
	behind.open(t)
	eventually(t, "an election", func() error {
		if s := behind.raft.State(); s != raft.Candidate {
			return fmt.Errorf("state is %s", s)
		}
		return nil
	})
	checkSilent(t, lost, behind)
	lost.restart(t)
	checkSilent(t, lost, behind)
	lost.writePeers(t, nodes...)
	lost.close(t)
	for range 2 {
		if err := lost.tryOpen(t); err == nil || !strings.Contains(err.Error(), "waits for the leader") {
			t.Errorf("recovery from a node without its data = %v", err)
		}
	}
	if err := os.Remove(filepath.Join(lost.cfg.Dir, raftDir, peersFile)); err != nil {
		t.Fatal(err)
	}
	lost.open(t)
	leader.open(t)
	now := waitLeader(t, nodes...)
	if now != leader {
		t.Errorf("%s leads; only %s has everything", now.cfg.NodeID, leader.cfg.NodeID)
	}
	eventually(t, "readiness", lost.Ready)
	if got := lost.rows(t, command.None, "SELECT v FROM foo"); got != "a,b" {
		t.Errorf("rows = %q; want a,b", got)
	}
	if rc := lost.raft.ReloadableConfig(); rc.HeartbeatTimeout != lost.cfg.Raft.HeartbeatTimeout {
		t.Errorf("heartbeat timeout is %s; the node would never stand again", rc.HeartbeatTimeout)
	}
	behind.close(t)
	leader.close(t)
	behind.open(t)
	eventually(t, "a write by the two", func() error {
		_, err := waitLeader(t, lost, behind).Do(t.Context(), request(command.Execute, command.Weak, "INSERT INTO foo VALUES('c')"))
		return err
	})
}

// checkSilent makes sure that n takes no part in the election that candidate holds.
func checkSilent(t *testing.T, n, candidate *node) {
	t.Helper()
	if err := n.Ready(); !errors.Is(err, errSilent) {
		t.Errorf("Ready = %v; want errSilent", err)
	}
	if !n.HasPeers() || !n.Voter() {
		t.Errorf("HasPeers = %t, Voter = %t; want true, true", n.HasPeers(), n.Voter())
	}
	if _, err := n.tryRows(t.Context(), command.None, "SELECT v FROM foo"); !errors.Is(err, ErrNotReady) {
		t.Errorf("read = %v; want ErrNotReady", err)
	}
	if err := n.Bootstrap(t.Context(), []Server{n.server()}); !errors.Is(err, errSilent) {
		t.Errorf("Bootstrap = %v; want errSilent", err)
	}
	if err := n.Notify(t.Context(), Server{ID: n.cfg.NodeID, Addr: n.cfg.Addr}); err != nil {
		t.Errorf("Notify = %v", err)
	}
	if rc := n.raft.ReloadableConfig(); rc.HeartbeatTimeout != never {
		t.Errorf("heartbeat timeout is %s: the node could stand in an election", rc.HeartbeatTimeout)
	}
	logs := newLog(t, filepath.Join(t.TempDir(), logFile))
	trans := newTransport(newLayer(tcpLayer{listen(t, "127.0.0.1:0")}, candidate.cfg.Addr), logs, hclog.NewNullLogger())
	defer trans.Close()
	header := raft.RPCHeader{
		ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(candidate.cfg.NodeID), Addr: []byte(candidate.cfg.Addr),
	}
	id, addr := raft.ServerID(n.cfg.NodeID), raft.ServerAddress(n.cfg.Addr)
	var pre raft.RequestPreVoteResponse
	err := trans.RequestPreVote(id, addr, &raft.RequestPreVoteRequest{RPCHeader: header, Term: 9, LastLogIndex: 999, LastLogTerm: 8}, &pre)
	if err != nil || pre.Granted {
		t.Errorf("pre-vote = %+v, %v; want a refusal", pre, err)
	}
	var vote raft.RequestVoteResponse
	err = trans.RequestVote(id, addr, &raft.RequestVoteRequest{RPCHeader: header, Term: 9, LastLogIndex: 999, LastLogTerm: 8}, &vote)
	if err != nil || vote.Granted {
		t.Errorf("vote = %+v, %v; want a refusal", vote, err)
	}
	if err := trans.TimeoutNow(id, addr, &raft.TimeoutNowRequest{RPCHeader: header}, &raft.TimeoutNowResponse{}); err == nil {
		t.Error("the node would begin an election when told to")
	}
	if s := n.raft.State(); s != raft.Follower {
		t.Errorf("state = %s; want Follower", s)
	}
	if candidate.IsLeader() {
		t.Error("a candidate without what was committed has won")
	}
}

// TestForeign starts a node with the directory of another one that was a cluster on its own.
func TestForeign(t *testing.T) {
	t.Parallel()
	n := newSingle(t)
	n.exec(t, "CREATE TABLE foo (v TEXT)")
	n.snapshot(t, 1)
	n.close(t)
	n.cfg.NodeID = "n2"
	for range 2 {
		if err := n.tryOpen(t); !errors.Is(err, ErrForeign) {
			t.Errorf("Open = %v; want ErrForeign", err)
		}
	}
	n.writePeers(t, n) // a human says that it is right
	n.open(t)
	waitLeader(t, n)
	n.restart(t)
	waitLeader(t, n)
}

// TestIdleRestart publishes snapshots that hold no pages. The live database equals them as well.
func TestIdleRestart(t *testing.T) {
	t.Parallel()
	n := newSingle(t)
	n.fsm.idle.entries = 1
	n.exec(t, "CREATE TABLE foo (v TEXT)", "INSERT INTO foo VALUES('a')")
	n.snapshot(t, 0)
	first, _ := n.snaps.Head()
	for range 2 {
		n.rows(t, command.Strong, "SELECT 1")
		n.snapshot(t, 1)
	}
	if head, _ := n.snaps.Head(); head.ID == first.ID {
		t.Fatal("no snapshot without pages was published")
	}
	n.restart(t)
	waitLeader(t, n)
	if c := n.Counters(); c["num_restores_start_skipped"] != 1 {
		t.Error("the live database was not kept")
	}
	n.exec(t, "INSERT INTO foo VALUES('b')")
	n.snapshot(t, 1)
	if c := n.Counters(); c["num_snapshots_incremental"] != 1 {
		t.Error("the snapshot after that was no delta")
	}
	fullRestart(t, n)
	waitLeader(t, n)
	if got := n.rows(t, command.Weak, "SELECT v FROM foo"); got != "a,b" {
		t.Errorf("rows = %q; want a,b", got)
	}
}

// TestHealInterrupted asks a start to end while it restores.
func TestHealInterrupted(t *testing.T) {
	t.Parallel()
	n := newSingle(t)
	want := n.grow(t, 1)
	n.close(t)
	n.dropMarker(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	cfg := n.cfg
	cfg.Layer = tcpLayer{listen(t, cfg.Addr)}
	start := time.Now()
	if _, err := Open(ctx, cfg); !errors.Is(err, context.Canceled) {
		t.Errorf("Open = %v; want context.Canceled", err)
	}
	if d := time.Since(start); d > waitFor/2 {
		t.Errorf("Open took %s", d)
	}
	n.open(t)
	waitLeader(t, n)
	if got := n.rows(t, command.Weak, fooSum); got != want {
		t.Errorf("rows = %q; want %q", got, want)
	}
}
