package store

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/goleak"

	"rqlited/command"
)

// parallel is how many tests run at one time: nearly all that they do is wait for elections.
const parallel = "4"

func TestMain(m *testing.M) {
	flag.Parse()
	debug.SetGCPercent(400) // the enumerations make a lot of garbage, of little size
	if err := flag.Set("test.parallel", parallel); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// waitFor is how long a test waits for what should happen within a second or two.
const waitFor = 20 * time.Second

// tcpLayer is a stream layer on the loopback interface.
type tcpLayer struct{ net.Listener }

func (tcpLayer) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	return net.DialTimeout("tcp", string(addr), timeout)
}

// node is a Store under test that can be stopped and started again.
type node struct {
	*Store
	cfg Config
}

// newNode returns a node that has not been started. Its address stays the same.
func newNode(t *testing.T, id string) *node {
	t.Helper()
	ln := listen(t, "127.0.0.1:0")
	n := &node{cfg: Config{
		Dir:    filepath.Join(t.TempDir(), id),
		NodeID: id,
		Addr:   ln.Addr().String(),
		Raft: RaftConfig{
			// Long enough to keep a leader on a busy machine.
			HeartbeatTimeout:   500 * time.Millisecond,
			ElectionTimeout:    500 * time.Millisecond,
			LeaderLeaseTimeout: 400 * time.Millisecond,
			CommitTimeout:      5 * time.Millisecond,
			LogLevel:           "DEBUG",
		},
		Snapshot: SnapshotConfig{WALSize: -1},
		Logger:   testLogger(t, id),
	}}
	ln.Close()
	return n
}

// testLogger writes to the test's log, and stops when the test does.
func testLogger(t *testing.T, id string) *slog.Logger {
	if !testing.Verbose() {
		return nil
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("test", t.Name(), "node", id)
}

func listen(t *testing.T, addr string) net.Listener {
	t.Helper()
	var ln net.Listener
	eventually(t, "listen on "+addr, func() (err error) {
		ln, err = net.Listen("tcp", addr)
		return err
	})
	return ln
}

// open starts n, which the end of the test stops.
func (n *node) open(t *testing.T) {
	t.Helper()
	if err := n.tryOpen(t); err != nil {
		t.Fatalf("Open(%s): %v", n.cfg.NodeID, err)
	}
}

func (n *node) tryOpen(t *testing.T) error {
	t.Helper()
	cfg := n.cfg
	cfg.Layer = tcpLayer{listen(t, cfg.Addr)}
	s, err := Open(t.Context(), cfg)
	if err != nil {
		return err
	}
	n.Store = s
	t.Cleanup(func() { n.close(t) })
	return nil
}

// close stops n; a second time does nothing.
func (n *node) close(t *testing.T) {
	t.Helper()
	if n.Store == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), waitFor)
	defer cancel()
	if err := n.Close(ctx); err != nil {
		stacks := make([]byte, 1<<20)
		t.Errorf("Close(%s): %v\n%s", n.cfg.NodeID, err, stacks[:runtime.Stack(stacks, true)])
	}
	n.Store = nil
}

func (n *node) restart(t *testing.T) {
	t.Helper()
	n.close(t)
	n.open(t)
}

func (n *node) server() Server { return Server{ID: n.cfg.NodeID, Addr: n.cfg.Addr, Voter: true} }

// newSingle returns a running node that leads a cluster of one, and has nobody to lose that to.
func newSingle(t *testing.T) *node {
	t.Helper()
	n := newNode(t, "n1")
	n.cfg.Raft.HeartbeatTimeout = 50 * time.Millisecond
	n.cfg.Raft.ElectionTimeout = 50 * time.Millisecond
	n.cfg.Raft.LeaderLeaseTimeout = 50 * time.Millisecond
	n.open(t)
	if err := n.Bootstrap(t.Context(), []Server{n.server()}); err != nil {
		t.Fatal(err)
	}
	waitLeader(t, n)
	return n
}

// newCluster returns running nodes that are one cluster with a leader.
func newCluster(t *testing.T, size int, change func(*Config)) []*node {
	t.Helper()
	var nodes []*node
	var servers []Server
	for i := range size {
		n := newNode(t, fmt.Sprintf("n%d", i+1))
		if change != nil {
			change(&n.cfg)
		}
		n.open(t)
		nodes = append(nodes, n)
		servers = append(servers, n.server())
	}
	if err := nodes[0].Bootstrap(t.Context(), servers); err != nil {
		t.Fatal(err)
	}
	waitLeader(t, nodes...)
	return nodes
}

// waitLeader waits until one of nodes leads and is ready, and returns it.
func waitLeader(t *testing.T, nodes ...*node) (leader *node) {
	t.Helper()
	eventually(t, "a leader", func() error {
		for _, n := range nodes {
			if n.Store != nil && n.IsLeader() && n.Ready() == nil {
				leader = n
				return nil
			}
		}
		return ErrNoLeader
	})
	return leader
}

// eventually polls until f returns nil.
func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	deadline := time.Now().Add(waitFor)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited %s for %s: %v", waitFor, what, err)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func request(kind command.Kind, level command.Level, sql ...string) *command.Request {
	r := &command.Request{Kind: kind, Level: level}
	for _, q := range sql {
		r.Statements = append(r.Statements, command.Statement{SQL: q})
	}
	return r
}

// exec runs statements as a write and fails on any error.
func (n *node) exec(t *testing.T, sql ...string) *command.Response {
	t.Helper()
	resp, err := n.Do(t.Context(), request(command.Execute, command.Weak, sql...))
	if err != nil {
		t.Fatalf("execute %q: %v", sql, err)
	}
	for i, r := range resp.Results {
		if r.Error != "" {
			t.Fatalf("execute %q: %s", sql[i], r.Error)
		}
	}
	return resp
}

// rows runs a query and returns its rows as text.
func (n *node) rows(t *testing.T, level command.Level, sql string) string {
	t.Helper()
	got, err := n.tryRows(t.Context(), level, sql)
	if err != nil {
		t.Fatalf("query %q at %s: %v", sql, level, err)
	}
	return got
}

func (n *node) tryRows(ctx context.Context, level command.Level, sql string) (string, error) {
	resp, err := n.Do(ctx, request(command.Query, level, sql))
	if err != nil {
		return "", err
	}
	if len(resp.Results) != 1 || resp.Results[0].Error != "" {
		return "", fmt.Errorf("results are %+v", resp.Results)
	}
	var lines []string
	for _, row := range resp.Results[0].Rows.Values {
		lines = append(lines, strings.Trim(fmt.Sprint(row), "[]"))
	}
	return strings.Join(lines, ","), nil
}

// waitRows waits until the local database of n answers want.
func (n *node) waitRows(t *testing.T, sql, want string) {
	t.Helper()
	eventually(t, fmt.Sprintf("%q on %s", want, n.cfg.NodeID), func() error {
		got, err := n.tryRows(t.Context(), command.None, sql)
		if err == nil && got != want {
			err = fmt.Errorf("got %q", got)
		}
		return err
	})
}

func (n *node) snapshot(t *testing.T, trailing uint64) {
	t.Helper()
	if err := n.Snapshot(t.Context(), trailing); err != nil {
		t.Fatalf("Snapshot(%s): %v", n.cfg.NodeID, err)
	}
}

// writePeers puts a peers.json into the directory of n.
func (n *node) writePeers(t *testing.T, members ...*node) {
	t.Helper()
	var peers []peer
	for _, m := range members {
		peers = append(peers, peer{ID: m.cfg.NodeID, Address: m.cfg.Addr})
	}
	data, err := json.Marshal(peers)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(n.cfg.Dir, raftDir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, peersFile), data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// without returns nodes but for n.
func without(nodes []*node, n *node) []*node {
	return slices.DeleteFunc(slices.Clone(nodes), func(o *node) bool { return o == n })
}

// newRand returns a source of random numbers whose seed is in the log.
func newRand(t *testing.T) *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, seed))
}
