package system

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestSingleNode starts a node without any cluster flag: it leads a cluster of its own, and goes
// on with what it had after a stop in peace and after a kill.
func TestSingleNode(t *testing.T) {
	t.Parallel()
	n := startOne(t)
	n.execute("CREATE TABLE foo (id INTEGER NOT NULL PRIMARY KEY, name TEXT)", "INSERT INTO foo(name) VALUES ('fiona')")
	want := n.content()
	for _, end := range []func(){n.stop, n.kill, n.kill} {
		end()
		n.start()
		n.has(want)
	}
}

// TestJoinRetries starts a node before the one that it wants to join. It answers HTTP meanwhile,
// is not ready, and becomes a member as soon as it can.
func TestJoinRetries(t *testing.T) {
	t.Parallel()
	first := newNode(t, "n1")
	second := newNode(t, "n2", "-join", first.raftAddr, "-join-interval", "200ms", "-join-attempts", "200")
	second.start()
	second.waitServing(20 * time.Second)
	if a, err := second.do(requestLimit, http.MethodGet, "/readyz", "", ""); err != nil || a.status != http.StatusServiceUnavailable {
		t.Fatalf("/readyz of a node that could not join yet = %v, %v; want 503", a, err)
	}
	first.start()
	first.waitReady(formLimit)
	first.execute("CREATE TABLE foo (id INTEGER PRIMARY KEY)")
	second.waitReady(formLimit)
	cluster{first, second}.equal()
	cluster{first, second}.expectMembers("n1", "n2")
}

// TestJoinNonsense gives an unusable join address. The node serves what needs no leader.
func TestJoinNonsense(t *testing.T) {
	t.Parallel()
	n := newNode(t, "n1", "-join", "http://nonsense")
	n.start()
	n.waitServing(20 * time.Second)
	if _, err := n.status(); err != nil {
		t.Error(err)
	}
	if a, err := n.do(requestLimit, http.MethodGet, "/readyz", "", ""); err != nil || a.status != http.StatusServiceUnavailable {
		t.Errorf("/readyz = %v, %v; want 503", a, err)
	}
}

// TestNoCluster starts nodes that have to give up: the process ends by itself, says why, and
// fails.
func TestNoCluster(t *testing.T) {
	t.Parallel()
	alone := startOne(t)
	alone.stop()
	other := newNode(t, "other")
	other.start()
	other.waitReady(formLimit)
	tests := []struct {
		name  string
		node  *node
		flags []string
		want  string
	}{
		{
			"leads a cluster of one and wants to join", alone,
			[]string{"-join", other.raftAddr},
			"node is the only node in a single-node cluster, joining other clusters not supported",
		},
		{
			"joins an HTTP address", newNode(t, "n2"),
			[]string{"-join", other.httpAddr},
			"join address " + other.httpAddr + " appears to be serving HTTP when it should be Raft",
		},
		{
			"read-only without a cluster", newNode(t, "n3"),
			[]string{"-raft-non-voter"},
			"cannot create a new non-voting node without joining it to an existing cluster",
		},
		{
			"nobody to join", newNode(t, "n4"),
			[]string{"-join", reserveAddr(t), "-join-attempts", "2", "-join-interval", "100ms"},
			"failed to join cluster",
		},
		{
			"too few nodes announce themselves", newNode(t, "n5"),
			[]string{"-join", reserveAddr(t), "-bootstrap-expect", "3", "-bootstrap-expect-timeout", "1s"},
			"boot timeout",
		},
	}
	for _, tt := range tests {
		tt.node.start(tt.flags...)
		if code := tt.node.wait(20 * time.Second); code != 1 {
			t.Errorf("%s: exit code = %d; want 1", tt.name, code)
		}
		if log := tt.node.log(); !strings.Contains(log, "clustering failure: ") || !strings.Contains(log, tt.want) {
			t.Errorf("%s: log lacks %q:\n%s", tt.name, tt.want, tail(log, 10))
		}
	}
}

// TestReadOnlyNode adds a node without a vote: it replicates, is a member that only the full list
// shows, and comes back.
func TestReadOnlyNode(t *testing.T) {
	t.Parallel()
	c := cluster{startOne(t)}
	bulk(c[0], "big", 100)
	reader := c.join(t, "reader", "-raft-non-voter")
	c = append(c, reader)
	c.equal()

	members, err := c[0].members()
	if err != nil {
		t.Fatal(err)
	}
	if m := members["reader"]; m.Voter || !m.Reachable || m.Leader || m.APIAddr != "http://"+reader.httpAddr || m.Addr != reader.raftAddr {
		t.Errorf("/nodes?nonvoters has %+v", m)
	}
	var voters map[string]member
	if err := c[0].get("/nodes", &voters); err != nil || len(voters) != 1 || !voters["n1"].Voter {
		t.Errorf("/nodes = %+v, %v; want n1 only", voters, err)
	}
	if s, err := reader.status(); err != nil || s.Store.Raft.Voter {
		t.Errorf("reader's status: voter %v, %v; want false", s.Store.Raft.Voter, err)
	}
	if rows := reader.query("auto", "SELECT count(*) FROM big"); rows[0] != "100" {
		t.Errorf("auto on a reader = %v; want 100", rows)
	}
	reader.kill()
	c[0].execute("DELETE FROM big WHERE id > 50")
	reader.start()
	c.equal()
}

// expectMembers checks that each node lists exactly these members, all reachable, one the leader.
func (c cluster) expectMembers(ids ...string) {
	for _, n := range c {
		n.t.Helper()
		within(n.t, 10*time.Second, n.id+" lists "+strings.Join(ids, " "), func() error {
			members, err := n.members()
			if err != nil {
				return err
			}
			leaders := 0
			for _, id := range ids {
				m, ok := members[id]
				if !ok || !m.Reachable || m.Error != "" {
					return fmt.Errorf("%s is %+v", id, m)
				}
				if m.Leader {
					leaders++
				}
			}
			if len(members) != len(ids) || leaders != 1 {
				return fmt.Errorf("members %+v with %d leaders", members, leaders)
			}
			return nil
		})
	}
}

// TestRemove removes a node by asking a follower. The rest goes on without it, and it can join
// again with an empty directory.
func TestRemove(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	c[0].execute("CREATE TABLE foo (id INTEGER PRIMARY KEY, v TEXT)")
	followers := c.without(c.leader())
	gone, asked := followers[0], followers[1]
	gone.kill()
	a, err := asked.do(requestLimit, http.MethodDelete, "/remove", "application/json", fmt.Sprintf(`{"id":%q}`, gone.id))
	if err != nil || a.status != http.StatusOK || a.body != "" {
		t.Fatalf("DELETE /remove = %+v, %v; want 200 with an empty body", a, err)
	}
	rest := c.without(gone)
	rest.expectMembers(rest[0].id, rest[1].id)
	rest[0].execute("INSERT INTO foo(v) VALUES ('without')")

	again := rest.join(t, "again")
	rest = append(rest, again)
	rest.expectMembers(rest[0].id, rest[1].id, "again")
	rest.equal()
}

// TestStepdownAtStop stops the leader in peace: when its process has ended the others have a new
// leader already, instead of noticing after an election timeout.
func TestStepdownAtStop(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	c[0].execute("CREATE TABLE foo (id INTEGER PRIMARY KEY)")
	old := c.leader()
	rest := c.without(old)
	old.stop()
	took := within(t, 10*time.Second, "another leader", func() error {
		_, err := rest.tryLeader()
		return err
	})
	if took > time.Second { // without step-down it takes one to two seconds, on average one and a half
		t.Errorf("a new leader %s after the old one's end; want it there", took)
	}
	rest[0].execute("INSERT INTO foo VALUES (1)")
	old.start()
	c.equal()
}

// TestRemoveAtStop stops a node that leaves the cluster when it stops: it is gone from the others'
// lists the moment its process has ended.
func TestRemoveAtStop(t *testing.T) {
	t.Parallel()
	for _, role := range []string{"follower", "leader"} {
		t.Run(role, func(t *testing.T) {
			c := startCluster(t, 3, "-raft-cluster-remove-shutdown=true")
			gone := c.leader()
			if role == "follower" {
				gone = c.without(gone)[0]
			}
			gone.stop()
			rest := c.without(gone)
			for _, n := range rest {
				within(t, formLimit, n.id+" answers", func() error {
					members, err := n.members()
					if _, still := members[gone.id]; still {
						return hopelessError{fmt.Errorf("%s still lists %s after its end", n.id, gone.id)}
					}
					return err
				})
			}
			rest.leader().execute("CREATE TABLE foo (id INTEGER PRIMARY KEY)")
		})
	}
}

// TestFailover kills leader after leader; the rest elects another and serves, and the old one
// comes back as a follower with all it missed.
func TestFailover(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	c[0].execute("CREATE TABLE foo (id INTEGER PRIMARY KEY, v TEXT)")
	for i := range 2 {
		old := c.leader()
		old.kill()
		leader := c.without(old).leader()
		leader.execute([]any{"INSERT INTO foo(v) VALUES (?)", i})
		members, err := leader.members()
		if m := members[old.id]; err != nil || m.Reachable || m.Error == "" || m.Leader {
			t.Errorf("the killed node is listed as %+v, %v", m, err)
		}
		old.start()
		old.waitReady(formLimit)
		if s, err := old.status(); err != nil || s.Store.Raft.State != "Follower" {
			t.Errorf("the old leader came back as %s, %v", s.Store.Raft.State, err)
		}
	}
	c.equal()
}

// TestQuorumLost leaves one node of three: reads that promise something fail with an error status,
// a read that promises nothing works.
func TestQuorumLost(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	c[0].execute("CREATE TABLE foo (id INTEGER PRIMARY KEY)", "INSERT INTO foo VALUES (7)")
	c.equal()
	last := c.leader()
	for _, n := range c.without(last) {
		n.kill()
	}
	within(t, formLimit, "the leader resigns", func() error {
		s, err := last.status()
		if err == nil && s.Store.Raft.State == "Leader" {
			return fmt.Errorf("still leader")
		}
		return err
	})
	for _, level := range []string{"strong", "linearizable"} {
		a, err := last.do(requestLimit, http.MethodGet, "/db/query?timeout=1s&q=SELECT+1&level="+level, "", "")
		if err != nil || a.status < 400 {
			t.Errorf("%s read without a quorum = %+v, %v; want an error status", level, a, err)
		}
	}
	if rows := last.query("none", "SELECT id FROM foo"); len(rows) != 1 || rows[0] != "7" {
		t.Errorf("none read without a quorum = %v; want 7", rows)
	}
	if err := last.readyz(""); err == nil {
		t.Error("/readyz without a quorum is ok; want 503")
	}
	if err := last.readyz("noleader"); err != nil {
		t.Error(err)
	}
}

// counter adds up one of the counters of /debug/vars over the nodes.
func (c cluster) counter(group, name string) int64 {
	c[0].t.Helper()
	var sum int64
	for _, n := range c {
		var vars map[string]json.RawMessage
		if err := n.get("/debug/vars", &vars); err != nil {
			n.t.Fatal(err)
		}
		var counters map[string]int64
		if err := json.Unmarshal(vars[group], &counters); err != nil {
			n.t.Fatalf("%s: /debug/vars: %s: %v", n.id, group, err)
		}
		value, ok := counters[name]
		if !ok {
			n.t.Errorf("%s: /debug/vars has no %s.%s", n.id, group, name)
		}
		sum += value
	}
	return sum
}

// TestRejoin starts a joined node again with the same list, with none, and with another address.
func TestRejoin(t *testing.T) {
	t.Parallel()
	c := cluster{startOne(t)}
	c[0].execute("CREATE TABLE foo (id INTEGER PRIMARY KEY)")
	c = append(c, c.join(t, "n2"))
	c = append(c, c.join(t, "n3"))
	third := c[2]

	third.kill()
	third.start() // it joins again
	c.waitReady()
	c.expectMembers("n1", "n2", "n3")
	joins, ignored := c.counter("cluster", "num_join_req"), c.counter("store", "num_ignored_joins")
	if joins != 3 || ignored != 1 {
		t.Errorf("%d join requests, of which %d ignored; want 3 and 1", joins, ignored)
	}

	third.stop()
	third.flags = nil
	third.start()
	c.waitReady()
	c.expectMembers("n1", "n2", "n3")

	third.stop()
	third.raftAddr = reserveAddr(t)
	third.flags = []string{"-join", c[1].raftAddr} // not the leader: it says who is
	third.start()
	c.expectMembers("n1", "n2", "n3")
	c[1].execute("INSERT INTO foo VALUES (1)")
	c.equal()
	members, err := c[0].members()
	if err != nil || members["n3"].Addr != third.raftAddr {
		t.Errorf("n3 is listed as %+v, %v; want its new address %s", members["n3"], err, third.raftAddr)
	}
	if removed := c.counter("store", "num_removed_before_joins"); removed != 1 {
		t.Errorf("num_removed_before_joins = %d; want 1", removed)
	}
}

// TestMemberWithoutMajority starts a member whose -join list leads nowhere yet: being a member it
// waits for the others instead of giving up.
func TestMemberWithoutMajority(t *testing.T) {
	t.Parallel()
	c := cluster{startOne(t)}
	second := c.join(t, "n2")
	c = append(c, second)
	c[0].execute("CREATE TABLE foo (id INTEGER PRIMARY KEY)")
	for _, n := range c {
		n.kill()
	}
	second.start("-join-attempts", "1", "-join-interval", "100ms")
	second.waitServing(20 * time.Second)
	c[0].start()
	c.equal()
}

// TestForeignFiles starts a node in a directory that holds other people's files: they are no
// state, and they stay.
func TestForeignFiles(t *testing.T) {
	t.Parallel()
	n := newNode(t, "n1")
	foreign := map[string]string{"rqlited.log": "log\n", "rqlited.err": "", "pid": "1234"}
	for name, text := range foreign {
		writeFile(t, n.dir, name, text)
	}
	n.start()
	n.waitReady(formLimit)
	n.execute("CREATE TABLE foo (id INTEGER PRIMARY KEY)")
	n.kill()
	n.start()
	n.waitReady(formLimit)
	for name, text := range foreign {
		if got := readFile(t, n.dir, name); got != text {
			t.Errorf("%s = %q after two starts; want %q", name, got, text)
		}
	}
}

// TestSecondSignal sends SIGTERM twice: the second changes nothing.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	n := startOne(t)
	n.signal(syscall.SIGTERM)
	if n.running() {
		n.signal(syscall.SIGTERM)
	}
	if code := n.wait(30 * time.Second); code != 0 {
		t.Errorf("exit code = %d; want 0", code)
	}
}
