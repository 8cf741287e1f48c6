package store

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"rqlited/command"
)

func TestJoin(t *testing.T) {
	t.Parallel()
	var log lines
	leader := newCluster(t, 1, func(c *Config) { c.Logger = log.logger() })[0]
	leader.exec(t, "CREATE TABLE foo (v TEXT)")
	n := newNode(t, "n2")
	n.open(t)
	// A node is stopped before it is moved. If it answers at its old address while Raft (1.7.3) notes the new one, Raft reads
	// that without a lock; so it does, once, when a pipeline breaks, but not any more when a call has failed.
	stop := func() {
		n.close(t)
		log.take("failed to appendEntries to") // those of before
		eventually(t, "a failed call", func() error {
			if len(log.take("failed to appendEntries to")) == 0 {
				return errors.New("none yet")
			}
			return nil
		})
	}
	join := func(id, addr string, voter bool) error {
		return leader.Join(t.Context(), Server{ID: id, Addr: addr, Voter: voter})
	}
	steps := []struct {
		name      string
		before    func()
		id, addr  string
		voter     bool
		err       error
		members   string
		ignored   int64
		removed   int64
		wantVoter bool
	}{
		{"new", nil, "n2", n.cfg.Addr, false, nil, "n1 n2", 0, 0, false},
		{"again", nil, "n2", n.cfg.Addr, false, nil, "n1 n2", 1, 0, false},
		{"suffrage is not changed", nil, "n2", n.cfg.Addr, true, nil, "n1 n2", 2, 0, false},
		{"address of another", nil, "n3", n.cfg.Addr, false, ErrAddrInUse, "n1 n2", 2, 0, false},
		{"address of the leader", nil, "n3", leader.cfg.Addr, true, ErrAddrInUse, "n1 n2", 2, 0, false},
		{"the leader itself", nil, "n1", leader.cfg.Addr, true, nil, "n1 n2", 3, 0, false},
		{"moved", stop, "n2", newNode(t, "x").cfg.Addr, false, nil, "n1 n2", 3, 1, false},
		{"moved back, as a voter", func() { n.open(t) }, "n2", n.cfg.Addr, true, nil, "n1 n2", 3, 2, true},
	}
	for _, st := range steps {
		if st.before != nil {
			st.before()
		}
		t.Run(st.name, func(t *testing.T) {
			if err := join(st.id, st.addr, st.voter); !errors.Is(err, st.err) {
				t.Fatalf("Join = %v; want %v", err, st.err)
			}
			servers, err := leader.Servers()
			if err != nil {
				t.Fatal(err)
			}
			var got strings.Builder
			for i, sv := range servers {
				if i > 0 {
					got.WriteString(" ")
				}
				got.WriteString(sv.ID)
			}
			c := leader.Counters()
			if got.String() != st.members || c["num_ignored_joins"] != st.ignored || c["num_removed_before_joins"] != st.removed {
				t.Errorf("members %q, ignored %d, removed %d; want %q, %d, %d", got.String(),
					c["num_ignored_joins"], c["num_removed_before_joins"], st.members, st.ignored, st.removed)
			}
			if servers[1].Voter != st.wantVoter {
				t.Errorf("n2 votes: %t; want %t", servers[1].Voter, st.wantVoter)
			}
		})
	}
	n.waitRows(t, "SELECT count(*) FROM foo", "0")
	if err := join("n9", "no-such-host.invalid:1", true); err == nil {
		t.Error("Join with a host that does not exist succeeded")
	}
	if err := n.Join(t.Context(), Server{ID: "n9", Addr: "127.0.0.1:9", Voter: true}); !errors.Is(err, ErrNotLeader) {
		t.Errorf("Join on a follower = %v; want ErrNotLeader", err)
	}
	if err := leader.Remove(t.Context(), "n2"); err != nil {
		t.Errorf("Remove = %v", err)
	}
	if err := leader.Remove(t.Context(), "n2"); err != nil {
		t.Errorf("Remove of an unknown node = %v", err)
	}
	if servers, err := leader.Servers(); err != nil || len(servers) != 1 {
		t.Errorf("servers are %v, %v", servers, err)
	}
}

func TestReadOnlyNode(t *testing.T) {
	t.Parallel()
	leader := newCluster(t, 1, nil)[0]
	leader.exec(t, "CREATE TABLE foo (v TEXT)", "INSERT INTO foo VALUES('a')")
	n := newNode(t, "n2")
	n.open(t)
	if err := leader.Join(t.Context(), Server{ID: "n2", Addr: n.cfg.Addr}); err != nil {
		t.Fatal(err)
	}
	n.waitRows(t, "SELECT v FROM foo", "a")
	if n.Voter() || !leader.Voter() {
		t.Error("the suffrage is wrong")
	}
	if got := n.rows(t, command.Auto, "SELECT v FROM foo"); got != "a" {
		t.Errorf("read at auto = %q; want a", got)
	}
	if err := leader.Stepdown(t.Context(), "n2", true); err == nil {
		t.Error("the leadership went to a node without a vote")
	}
}

func TestNotify(t *testing.T) {
	t.Parallel()
	var nodes []*node
	for i := range 3 {
		n := newNode(t, fmt.Sprintf("n%d", i+1))
		n.cfg.BootstrapExpect = 3
		n.open(t)
		nodes = append(nodes, n)
	}
	if err := nodes[0].Notify(t.Context(), Server{ID: "n9", Addr: "no-such-host.invalid:1"}); err == nil {
		t.Error("Notify with a host that does not exist succeeded")
	}
	odd := Server{ID: "n8", Addr: "127.0.0.1:8", ForeignKeys: command.On}
	const words = "foreign keys are off on the node asked and on on the node that asks (-fk), and there is no cluster yet: all nodes must agree"
	if err := nodes[0].Notify(t.Context(), odd); !errors.Is(err, ErrForeignKeys) || err.Error() != words {
		t.Errorf("Notify of a node with other foreign keys = %v; want %s", err, words)
	}
	for _, to := range nodes {
		for range 2 { // the second time does not count
			for _, n := range nodes[:2] {
				if err := to.Notify(t.Context(), Server{ID: n.cfg.NodeID, Addr: n.cfg.Addr}); err != nil {
					t.Fatal(err)
				}
			}
		}
		if to.HasPeers() {
			t.Fatal("the cluster was formed by two")
		}
	}
	for _, to := range nodes {
		if err := to.Notify(t.Context(), nodes[2].server()); err != nil {
			t.Fatal(err)
		}
	}
	leader := waitLeader(t, nodes...)
	leader.exec(t, "CREATE TABLE foo (v TEXT)")
	if servers, err := leader.Servers(); err != nil || len(servers) != 3 {
		t.Errorf("servers are %v, %v", servers, err)
	}
	if err := leader.Notify(t.Context(), Server{ID: "n4", Addr: "127.0.0.1:9"}); err != nil {
		t.Errorf("Notify when there is a leader = %v", err)
	}
}

func TestStepdown(t *testing.T) {
	t.Parallel()
	single := newSingle(t)
	if err := single.Stepdown(t.Context(), "", true); !errors.Is(err, ErrNoPeer) {
		t.Errorf("Stepdown of a single node = %v; want ErrNoPeer", err)
	}
	nodes := newCluster(t, 3, nil)
	leader := waitLeader(t, nodes...)
	follower := without(nodes, leader)[0]
	if err := follower.WaitApplied(t.Context(), leader.CommitIndex()); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		at   *node
		id   string
		wait bool
		want error
	}{
		{"unknown", leader, "nobody", true, ErrNodeNotFound},
		{"self", leader, leader.cfg.NodeID, true, ErrSelfStepdown},
		{"follower", follower, "", true, ErrNotLeader},
		{"follower, no wait", follower, "", false, nil},
		{"named", leader, follower.cfg.NodeID, true, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.at.Stepdown(t.Context(), tt.id, tt.wait); !errors.Is(err, tt.want) {
				t.Errorf("Stepdown = %v; want %v", err, tt.want)
			}
		})
	}
	if got := waitLeader(t, nodes...); got != follower {
		t.Errorf("leader is %s; want %s", got.cfg.NodeID, follower.cfg.NodeID)
	}
}

func TestReap(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3, func(c *Config) { c.Reap.Voter = time.Second })
	leader := waitLeader(t, nodes...)
	dead := without(nodes, leader)[0]
	dead.close(t)
	eventually(t, "the removal of "+dead.cfg.NodeID, func() error {
		servers, err := leader.Servers()
		if err == nil && len(servers) != 2 {
			err = fmt.Errorf("servers are %v", servers)
		}
		return err
	})
	eventually(t, "the counter", func() error {
		if n := leader.Counters()["nodes_reaped_ok"]; n != 1 {
			return fmt.Errorf("nodes_reaped_ok = %d", n)
		}
		return nil
	})
	leader.exec(t, "CREATE TABLE foo (v TEXT)")
}

// TestReapSparesRejoined reports an old contact of a node that has joined again since, as Raft does
// until it has noticed that the node was removed in between.
func TestReapSparesRejoined(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3, func(c *Config) { c.Reap.Voter = time.Hour })
	leader := waitLeader(t, nodes...)
	back := without(nodes, leader)[0]
	stale := raft.FailedHeartbeatObservation{PeerID: raft.ServerID(back.cfg.NodeID), LastContact: time.Now().Add(-2 * time.Hour)}
	if err := leader.Join(t.Context(), Server{ID: back.cfg.NodeID, Addr: back.cfg.Addr, Voter: true}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{3, 2} {
		if err := leader.reapIfDue(t.Context(), stale); err != nil {
			t.Fatal(err)
		}
		if servers, err := leader.Servers(); err != nil || len(servers) != want {
			t.Errorf("servers are %v, %v; want %d", servers, err, want)
		}
		leader.heard.mu.Lock() // the reaper looks as well
		leader.heard.at = nil  // without the join, the contact is an old one
		leader.heard.mu.Unlock()
	}
}

func TestShutdownOnRemove(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3, func(c *Config) { c.Raft.ShutdownOnRemove = true })
	leader := waitLeader(t, nodes...)
	if err := leader.Remove(t.Context(), leader.cfg.NodeID); err != nil && !errors.Is(err, ErrUnknown) {
		t.Fatal(err)
	}
	if err := leader.Wait(); !errors.Is(err, errRemoved) {
		t.Errorf("Wait of a removed node = %v; want errRemoved", err)
	}
	leader.close(t)
	waitLeader(t, nodes...)
}
