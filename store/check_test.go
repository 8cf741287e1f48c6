package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"rqlited/command"
)

// meeting reaches nodes in this process.
type meeting struct {
	mu    sync.Mutex
	nodes map[string]*Store // by address; guarded by mu
}

func (m *meeting) set(n *node) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.nodes == nil {
		m.nodes = make(map[string]*Store)
	}
	m.nodes[n.cfg.Addr] = n.Store
}

func (m *meeting) HashAt(ctx context.Context, addr string, index uint64) (StateHash, error) {
	m.mu.Lock()
	s := m.nodes[addr]
	m.mu.Unlock()
	if s == nil {
		return StateHash{}, errors.New("connection refused")
	}
	return s.HashAt(ctx, index)
}

// lines collects what is logged at Warn and above.
type lines struct {
	mu  sync.Mutex
	got []string // guarded by mu
}

func (l *lines) logger() *slog.Logger { return slog.New(&lineHandler{lines: l}) }

// take returns the lines since the last call that have that message.
func (l *lines) take(msg string) (out []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.got = slices.DeleteFunc(l.got, func(s string) bool {
		if len(s) < len(msg) || s[:len(msg)] != msg {
			return false
		}
		out = append(out, s)
		return true
	})
	return out
}

type lineHandler struct {
	lines *lines
	attrs string
}

func (h *lineHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }

func (h *lineHandler) Handle(_ context.Context, r slog.Record) error {
	line := r.Message + h.attrs
	r.Attrs(func(a slog.Attr) bool {
		line += " " + a.String()
		return true
	})
	h.lines.mu.Lock()
	defer h.lines.mu.Unlock()
	h.lines.got = append(h.lines.got, line)
	return nil
}

func (h *lineHandler) WithAttrs(as []slog.Attr) slog.Handler {
	n := *h
	for _, a := range as {
		n.attrs += " " + a.String()
	}
	return &n
}

func (h *lineHandler) WithGroup(string) slog.Handler { return h }

// newCompared returns a cluster whose nodes reach each other through m.
func newCompared(t *testing.T, size int, change func(*Config)) ([]*node, *meeting) {
	m := &meeting{}
	nodes := newCluster(t, size, func(c *Config) {
		c.Peers = m
		if change != nil {
			change(c)
		}
	})
	for _, n := range nodes {
		m.set(n)
	}
	return nodes, m
}

func newComparer(n *node) *comparer { return &comparer{Store: n.Store, mute: make(map[string]bool)} }

// applyHere changes the database of n alone.
func (n *node) applyHere(t *testing.T, sql string) {
	t.Helper()
	n.fsm.turn.take()
	defer n.fsm.turn.give()
	resp, err := n.db.Apply(&command.Entry{Kind: command.Execute, Request: request(command.Execute, command.Weak, sql)})
	if err != nil || resp.Results[0].Error != "" {
		t.Fatalf("%q: %+v, %v", sql, resp, err)
	}
}

// TestCheck changes one of three replicas behind the back of the others, and has the leader find it
// within its interval.
func TestCheck(t *testing.T) {
	t.Parallel()
	var log lines
	nodes, _ := newCompared(t, 3, func(c *Config) {
		c.HashCheckInterval = time.Second
		c.Logger = log.logger()
	})
	leader := waitLeader(t, nodes...)
	leader.exec(t, "CREATE TABLE foo (v TEXT)", "INSERT INTO foo VALUES('a')")
	counted := func(checks, mismatches int64) func() error {
		return func() error {
			st := leader.hashStats()
			if st.Checks < checks || st.Mismatches < mismatches {
				return fmt.Errorf("statistics are %+v", st)
			}
			return nil
		}
	}
	eventually(t, "a check", counted(1, 0))
	if st := leader.hashStats(); st.Mismatches != 0 || st.Unanswered != 0 || st.LastMismatch != nil || st.LastCheck == nil {
		t.Errorf("statistics of equal replicas are %+v", st)
	}
	odd := without(nodes, leader)[0]
	odd.applyHere(t, "UPDATE foo SET v='b'")
	eventually(t, "a mismatch", counted(2, 1))
	st := leader.hashStats()
	m := st.LastMismatch
	if m.Node != odd.cfg.NodeID || m.Addr != odd.cfg.Addr || m.Index != *st.Index || m.Want != *st.Hash || m.Hash == *st.Hash || m.Hash == "" {
		t.Errorf("mismatch is %+v; want that of %s at %d", m, odd.cfg.NodeID, *st.Index)
	}
	if int64(len(log.take(fmt.Sprintf("replica differs node=%s addr=%s index=%d hash=%s want=%s", m.Node, m.Addr, m.Index, m.Hash, m.Want)))) != 1 {
		t.Errorf("not one line about the mismatch: %q", log.got)
	}
	if all := log.take("replica differs"); len(all) > 2 {
		t.Errorf("other replicas differ: %q", all)
	}
	status, err := leader.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if got := status.(map[string]any)["hash"].(hashStats); got.LastMismatch == nil || got.Mismatches < 1 {
		t.Errorf("status has %+v", got)
	}
	if got := leader.Counters()["num_hash_mismatches"]; got < 1 {
		t.Errorf("num_hash_mismatches = %d", got)
	}
	for _, n := range without(nodes, leader) {
		if st := n.hashStats(); st.Checks != 0 || st.Hash == nil {
			t.Errorf("%s, a follower, has %+v", n.cfg.NodeID, st)
		}
	}
}

// TestHashStats expects no times, index or hash in /status before there are any: a year 1 would pass for one.
func TestHashStats(t *testing.T) {
	t.Parallel()
	n := newSingle(t)
	got, err := json.Marshal(n.hashStats())
	const want = `{"index":null,"hash":null,"time":null,"checks":0,"mismatches":0,"unanswered":0,"last_check":null,"last_mismatch":null}`
	if err != nil || string(got) != want {
		t.Errorf("statistics of a new node are %s, %v; want %s", got, err, want)
	}
}

// TestCheckUnanswered has members that have no hash.
func TestCheckUnanswered(t *testing.T) {
	t.Parallel()
	var log lines
	nodes, m := newCompared(t, 3, func(c *Config) { c.Logger = log.logger() })
	leader := waitLeader(t, nodes...)
	others := without(nodes, leader)
	c := newComparer(leader)
	check := func(what string, checks, unanswered int64, warned ...*node) {
		t.Helper()
		c.check(t.Context())
		st := leader.hashStats()
		if st.Checks != checks || st.Unanswered != unanswered || st.Mismatches != 0 {
			t.Errorf("%s: statistics are %+v; want %d checks, %d unanswered", what, st, checks, unanswered)
		}
		var want []string
		for _, n := range warned {
			want = append(want, n.cfg.NodeID)
		}
		got := log.take("replica not compared")
		if len(got) != len(want) {
			t.Errorf("%s: warnings %q; want of %q", what, got, want)
		}
	}
	check("all is well", 1, 0)
	m.mu.Lock()
	delete(m.nodes, others[0].cfg.Addr)
	m.mu.Unlock()
	check("one is away", 2, 1, others[0])
	check("still away", 3, 2)
	m.set(others[0])
	check("back", 4, 2)

	run := others[1].pinned(t)
	check("busy", 5, 3, others[1])
	others[1].fsm.hashes.sum(t.Context(), run)
	run = leader.pinned(t)
	check("the leader is busy", 5, 4, leader)
	leader.fsm.hashes.sum(t.Context(), run)
	check("all is well again", 6, 4)

	before := leader.raft.LastIndex()
	newComparer(others[0]).check(t.Context())
	if leader.raft.LastIndex() != before || others[0].hashStats().Checks != 0 {
		t.Error("a follower has set a mark")
	}
}

// TestCheckAnswers has peers that answer something else.
func TestCheckAnswers(t *testing.T) {
	t.Parallel()
	var log lines
	single := newCluster(t, 1, func(c *Config) { c.Logger = log.logger() })[0]
	single.exec(t, "CREATE TABLE foo (v TEXT)")
	before := single.raft.LastIndex()
	newComparer(single).check(t.Context())
	if single.raft.LastIndex() != before {
		t.Error("a node on its own has set a mark")
	}
	c := newComparer(single)
	other, own := Server{ID: "n2", Addr: "h:2"}, single.server()
	tests := []struct {
		name string
		hash StateHash
		want string // of the error
	}{
		{"another index", StateHash{8, "x"}, `answered with the hash "x" of index 8`},
		{"no hash", StateHash{7, ""}, `answered with the hash "" of index 7`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c.cfg.Peers = peersFunc(func(context.Context) (StateHash, error) { return tt.hash, nil })
			got := c.ask(t.Context(), []Server{other}, 7)
			if got[0].err == nil || got[0].err.Error() != tt.want {
				t.Errorf("ask = %+v; want %s", got, tt.want)
			}
		})
	}
	newer := fmt.Errorf("%w: 2, and this node 1", ErrHashVersion)
	for range 2 {
		c.judge(7, []answer{{member: own, hash: StateHash{7, "x"}}, {member: other, err: newer}})
	}
	said := log.take("replica not compared node=n2 addr=h:2 index=7 err=store: computes another version of the hash: 2, and this node 1")
	if st := single.hashStats(); st.Mismatches != 0 || st.Unanswered != 2 || len(said) != 1 {
		t.Errorf("of a member with another version of the hash: statistics %+v, lines %q", st, said)
	}
	c.judge(7, []answer{{member: own, hash: StateHash{7, "x"}}, {member: other, hash: StateHash{7, "y"}}})
	if st := single.hashStats(); st.Checks != 3 || st.Mismatches != 1 || st.LastMismatch.Hash != "y" || st.LastMismatch.Want != "x" {
		t.Errorf("statistics are %+v", st)
	}
}

type peersFunc func(ctx context.Context) (StateHash, error)

func (f peersFunc) HashAt(ctx context.Context, _ string, _ uint64) (StateHash, error) { return f(ctx) }

// TestCloseAmidCheck stops a leader whose peers never answer.
func TestCloseAmidCheck(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{}, 10)
	nodes, _ := newCompared(t, 3, func(c *Config) {
		c.HashCheckInterval = time.Second
		c.Peers = peersFunc(func(ctx context.Context) (StateHash, error) {
			asked <- struct{}{}
			<-ctx.Done()
			return StateHash{}, ctx.Err()
		})
	})
	<-asked
	begun := time.Now()
	for _, n := range nodes {
		n.close(t)
	}
	if took := time.Since(begun); took > minCheckTime {
		t.Errorf("Close took %s", took)
	}
}

// TestCheckInTurmoil checks all the time while nodes are restarted, take and install snapshots, and hand
// over the leadership. The replicas are equal, and no check may say otherwise.
func TestCheckInTurmoil(t *testing.T) {
	t.Parallel()
	rnd := newRand(t)
	var log lines
	nodes, m := newCompared(t, 3, func(c *Config) {
		c.Logger = log.logger()
		c.Snapshot.Threshold, c.Snapshot.Interval = 16, 50*time.Millisecond
	})
	waitLeader(t, nodes...).exec(t, "CREATE TABLE foo (id INTEGER PRIMARY KEY, v)")
	var checks, unanswered int64
	for round := range 12 {
		leader := waitLeader(t, nodes...)
		before := leader.hashStats()
		done := make(chan struct{})
		go func() {
			defer close(done)
			c := newComparer(leader)
			for range 8 {
				// It may have lost its leadership, and then nothing is to be done.
				_, _ = c.Do(t.Context(), request(command.Execute, command.Weak,
					"INSERT INTO foo(v) VALUES(randomblob(500))", "UPDATE foo SET v=random() WHERE id%3=0"))
				c.check(t.Context())
			}
		}()
		n := without(nodes, leader)[rnd.IntN(2)]
		switch round % 4 {
		case 0, 1:
			n.restart(t)
			m.set(n)
		case 2:
			_ = leader.Stepdown(t.Context(), "", true)
		case 3:
			_ = n.Snapshot(t.Context(), 1)
		}
		<-done
		st := leader.hashStats()
		checks, unanswered = checks+st.Checks-before.Checks, unanswered+st.Unanswered-before.Unanswered
		if st.LastMismatch != nil {
			t.Fatalf("%+v", st.LastMismatch)
		}
	}
	t.Logf("%d checks, %d answers missing", checks, unanswered)
	if checks < 20 {
		t.Errorf("only %d checks", checks)
	}
	if lines := log.take("replica differs"); len(lines) > 0 {
		t.Errorf("%q", lines)
	}
}

// TestForeignKeysOfOthers refuses nodes that would do otherwise, and says when this node does.
func TestForeignKeysOfOthers(t *testing.T) {
	t.Parallel()
	var log lines
	on := func(c *Config) { c.ForeignKeys, c.Logger = true, log.logger() }
	leader := newCluster(t, 1, on)[0]
	n := newNode(t, "n2")
	n.cfg.Logger = log.logger()
	n.open(t)
	const text = "foreign keys are on in this cluster and off on the node that asks (-fk): all nodes must agree"
	sv := n.server()
	sv.ForeignKeys = command.Off
	if err := leader.Join(t.Context(), sv); !errors.Is(err, ErrForeignKeys) || err.Error() != text {
		t.Errorf("Join = %v; want %s", err, text)
	}
	if err := leader.Notify(t.Context(), sv); err != nil {
		t.Errorf("Notify of a cluster that exists = %v; want that it is ignored", err)
	}
	if servers, err := leader.Servers(); err != nil || len(servers) != 1 {
		t.Errorf("members are %v, %v", servers, err)
	}
	if err := leader.Join(t.Context(), n.server()); err != nil { // as a node of rqlite does
		t.Fatal(err)
	}
	if err := leader.Join(t.Context(), sv); !errors.Is(err, ErrForeignKeys) {
		t.Errorf("Join of a member = %v; want %s", err, text)
	}
	sv.ForeignKeys = command.On
	if err := leader.Join(t.Context(), sv); err != nil {
		t.Errorf("Join of a node that agrees = %v", err)
	}
	if !leader.ForeignKeys() || n.ForeignKeys() {
		t.Error("ForeignKeys is wrong")
	}
	leader.exec(t, "CREATE TABLE foo (v TEXT)")
	leader.exec(t, "INSERT INTO foo VALUES('a')")
	n.waitRows(t, "SELECT v FROM foo", "a")
	want := "foreign keys are not as on the leader, whose setting counts leader=on node=off flag=-fk"
	if got := log.take("foreign keys"); len(got) != 1 || got[0] != want {
		t.Errorf("warnings %q; want %q", got, want)
	}
	for _, n := range []*node{leader, n} {
		if got := n.fsm.keys.inLog(); got != command.On {
			t.Errorf("%s takes foreign keys for %s", n.cfg.NodeID, got)
		}
	}
	for _, own := range []command.Setting{command.Off, command.On} {
		for _, formed := range []bool{false, true} {
			if err := (foreignKeysError{own, formed}); FromText(Text(err)) != err {
				t.Errorf("%v becomes %v on another node", err, FromText(Text(err)))
			}
		}
	}
}
