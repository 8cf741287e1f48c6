package system

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// configFile writes lines to a configuration file and returns its name.
func configFile(t *testing.T, lines ...string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "rqlited.conf")
	if err := os.WriteFile(name, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestNoCommandLine starts a node that has all its settings from the environment and a file, and another
// that joins it. Both work, say what they have not understood, and keep a secret.
func TestNoCommandLine(t *testing.T) {
	t.Parallel()
	n := newNode(t, "n1")
	n.bare = true
	n.env = []string{
		"RQLITED_CONFIG=" + configFile(t,
			"# a node of its own",
			"data-dir  = "+n.dir+"   # made by the first start",
			"node-id   = another",
			"http-addr = "+n.httpAddr,
			`raft-addr = "`+n.raftAddr+`"`,
			"raft-snap = 100",
			"raft-timeout = 900ms",
		),
		"RQLITED_NODE_ID=n1", "RQLITED_RAFT_SNAP_INT=1s", "RQLITED_FK=true", "RQLITED_AUTH=", "RQLITED_RAFT_SNAPS=s3cret",
	}
	n.start()
	n.waitReady(formLimit)
	var got struct {
		ID        string `json:"node_id"`
		Threshold uint64 `json:"snapshot_threshold"`
		Interval  string `json:"snapshot_interval"`
		Heartbeat string `json:"heartbeat_timeout"`
		Conf      struct {
			ForeignKeys bool `json:"fk_constraints"`
		} `json:"db_conf"`
	}
	if err := n.get("/status?key=store", &got); err != nil {
		t.Fatal(err)
	}
	if got.ID != "n1" || got.Threshold != 100 || got.Interval != "1s" || got.Heartbeat != "900ms" || !got.Conf.ForeignKeys {
		t.Errorf("/status has %+v; want node n1, 100 entries, 1s, 900ms, foreign keys", got)
	}

	joiner := newNode(t, "n2")
	joiner.bare = true
	joiner.env = []string{"RQLITED_DATA_DIR=" + joiner.dir, "RQLITED_NODE_ID=n2", "RQLITED_FK=1",
		"RQLITED_HTTP_ADDR=" + joiner.httpAddr, "RQLITED_RAFT_ADDR=" + joiner.raftAddr, "RQLITED_JOIN=" + n.raftAddr}
	joiner.start()
	joiner.waitReady(formLimit)
	c := cluster{n, joiner}
	c.expectMembers("n1", "n2")
	n.stop()

	log := n.log()
	for msg, want := range map[string]int{
		"environment variable is not a setting":                 1,
		"variable=RQLITED_RAFT_SNAPS nearest=RQLITED_RAFT_SNAP": 1,
		"flag has a new name":                                   1,
		"s3cret":                                                1, // where the test itself notes the environment
		"level=ERROR":                                           0,
		"settings beside the command line":                      1,
		"RQLITED_NODE_ID RQLITED_RAFT_SNAP_INT":                 1,
	} {
		if n := strings.Count(log, msg); n != want {
			t.Errorf("%d times %q in the log; want %d", n, msg, want)
		}
	}
}

// TestWrongSettings expects a node with faults in all its sources to name them, and to start nothing.
func TestWrongSettings(t *testing.T) {
	t.Parallel()
	n := newNode(t, "n1")
	file := configFile(t, "htp-addr = localhost:1", "join-attempts = 0", "data-dir = "+n.dir)
	n.bare = true
	n.env = []string{"RQLITED_CONFIG=" + file, "RQLITED_RAFT_SNAP=abc"}
	n.start("-raft-addr", "nowhere")
	if code := n.wait(10 * time.Second); code != 1 {
		t.Errorf("exit code %d; want 1", code)
	}
	_, said, _ := strings.Cut(n.log(), "\n")
	want := fmt.Sprintf("fatal: %[1]s:1: \"htp-addr\" is not a setting, did you mean \"http-addr\"?\n"+
		"fatal: RQLITED_RAFT_SNAP: invalid value \"abc\" for -raft-snap: parse error\n"+
		"fatal: raft bind address not valid\n"+
		"fatal: -join-attempts must be greater than 0 (%[1]s:2)\n", file)
	if said != want {
		t.Errorf("said\n%swant\n%s", said, want)
	}
	if _, err := os.Stat(n.dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("data directory: %v; want none", err)
	}
}

// TestReapFlags kills a voter and a read-only node. Only the kind whose flag is given is removed.
func TestReapFlags(t *testing.T) {
	t.Parallel()
	tests := []struct{ flag, gone, stays string }{
		{"-raft-reap-node-timeout", "n3", "reader"},
		{"-raft-reap-read-only-node-timeout", "reader", "n3"},
	}
	for _, tt := range tests {
		t.Run(tt.flag, func(t *testing.T) {
			c := startCluster(t, 3, tt.flag, "1s")
			reader := c.join(t, "reader", "-raft-non-voter")
			if c.leader() == c[2] {
				c.lead(c[0])
			}
			reader.kill()
			c[2].kill()
			rest := cluster{c[0], c[1]}
			within(t, 30*time.Second, tt.gone+" is removed", func() error {
				members, err := rest[0].members()
				if _, still := members[tt.gone]; err == nil && still {
					err = fmt.Errorf("members are %v", members)
				}
				return err
			})
			members, err := rest.leader().members()
			if _, still := members[tt.stays]; err != nil || !still || len(members) != 3 {
				t.Errorf("members %v, %v; want n1, n2 and %s", members, err, tt.stays)
			}
		})
	}
}

// TestRemoveShutdown removes the leader: with the flag it ends by itself, without it goes on.
func TestRemoveShutdown(t *testing.T) {
	t.Parallel()
	for _, on := range []bool{false, true} {
		t.Run(fmt.Sprint(on), func(t *testing.T) {
			c := startCluster(t, 3, fmt.Sprintf("-raft-remove-shutdown=%t", on))
			gone := c.leader()
			a, err := gone.do(requestLimit, http.MethodDelete, "/remove", "application/json", fmt.Sprintf(`{"id":%q}`, gone.id))
			if err == nil && a.status != http.StatusOK {
				t.Fatalf("DELETE /remove = %+v", a) // an error may be that of a process that has ended
			}
			rest := c.without(gone)
			rest.expectMembers(rest[0].id, rest[1].id)
			if !on {
				if err := gone.alive(); err != nil {
					t.Error(err)
				}
				return
			}
			if code := gone.wait(10 * time.Second); code != 1 {
				t.Errorf("exit code %d; want 1", code)
			}
			if want := "this node was removed from the cluster"; !strings.Contains(gone.log(), want) {
				t.Errorf("no %q in the log", want)
			}
		})
	}
}

// TestCommitTimeout writes to a leader that then has nothing to send for a second: that is how long its
// follower does not know that the write is committed.
func TestCommitTimeout(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 2, "-raft-commit-timeout", "1s")
	leader := c.leader()
	follower := c.without(leader)[0]
	leader.execute("CREATE TABLE foo (id INTEGER PRIMARY KEY)")
	c.equal()
	leader.execute("INSERT INTO foo VALUES (1)")
	took := within(t, 10*time.Second, "the row", func() error {
		rows, err := follower.tryQuery("none", "SELECT count(*) FROM foo")
		if err == nil && rows[0] != "1" {
			err = fmt.Errorf("count is %v", rows)
		}
		return err
	})
	if took < 300*time.Millisecond { // by default it takes 50 to 100 ms
		t.Errorf("the follower knew of the commit after %s; want a second or two", took)
	}
}

// TestRaftLogLevel counts Raft's messages of a node that starts and leads.
func TestRaftLogLevel(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		level              string
		infos, warns, none bool
	}{
		{"INFO", true, true, false},
		{"WARN", false, true, false},
		{"off", false, false, true},
		{"chatty", false, true, false}, // WARN
	} {
		t.Run(tt.level, func(t *testing.T) {
			n := startOne(t, "-raft-log-level", tt.level)
			n.stop()
			var infos, warns, all int
			for line := range strings.Lines(n.log()) {
				if !strings.Contains(line, "part=raft") {
					continue
				}
				all++
				if strings.Contains(line, "level=INFO") {
					infos++
				}
				if strings.Contains(line, "level=WARN") {
					warns++
				}
			}
			if (infos > 0) != tt.infos || (warns > 0) != tt.warns || (all == 0) != tt.none {
				t.Errorf("%d messages of Raft, %d at INFO, %d at WARN", all, infos, warns)
			}
		})
	}
}

// TestCompressedSnapshots adds nodes that need a snapshot from a leader that compresses what it sends. Those
// that do not compress what they send themselves take it all the same.
func TestCompressedSnapshots(t *testing.T) {
	t.Parallel()
	n := startOne(t, "-compress-snap-transport", "-raft-snap", "1000000")
	bulk(n, "big", 2000)
	truncateLog(n)
	n.execute("UPDATE big SET v = 'later' WHERE id < 10")
	truncateLog(n)
	c := cluster{n}
	for _, flag := range []string{"-compress-snap-transport=true", "-compress-snap-transport=false"} {
		added := c.join(t, "n"+fmt.Sprint(len(c)+1), flag)
		if got := (cluster{added}).counter("store", "num_restores"); got != 1 {
			t.Errorf("%s: num_restores = %d; want 1", flag, got)
		}
		c = append(c, added)
		c.equal()
	}
}

// TestReadersWithoutBound reads on a node without a bound on its connections, which stops all the same.
func TestReadersWithoutBound(t *testing.T) {
	t.Parallel()
	n := startOne(t, "-db-max-ro-conns", "0")
	bulk(n, "big", 10)
	if rows := n.query("none", "SELECT count(*) FROM big"); rows[0] != "10" {
		t.Errorf("count = %v; want 10", rows)
	}
	n.stop()
}
