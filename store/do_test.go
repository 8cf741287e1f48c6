package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"rqlited/command"
)

func TestDo(t *testing.T) {
	n := newSingle(t)
	resp := n.exec(t, "CREATE TABLE foo (id INTEGER PRIMARY KEY, v TEXT)", "INSERT INTO foo(v) VALUES('a')")
	if resp.Index == 0 || len(resp.Results) != 2 || resp.Results[1].Write.LastInsertID != 1 {
		t.Errorf("response is %+v", resp)
	}
	for _, level := range []command.Level{command.None, command.Weak, command.Linearizable, command.Strong, command.Auto} {
		if got := n.rows(t, level, "SELECT v FROM foo"); got != "a" {
			t.Errorf("rows at %s = %q; want a", level, got)
		}
	}
	tests := []struct {
		name   string
		req    *command.Request
		logged bool
	}{
		{"reads", request(command.Unified, command.Weak, "SELECT 1", "SELECT 2"), false},
		{"strong reads", request(command.Unified, command.Strong, "SELECT 1"), true},
		{"a write among reads", request(command.Unified, command.None, "SELECT 1", "INSERT INTO foo(v) VALUES('b')"), true},
		{"no such table", request(command.Unified, command.Weak, "SELECT * FROM bar"), true},
		{"strong query", request(command.Query, command.Strong, "SELECT 1"), true},
		{"query", request(command.Query, command.Weak, "SELECT 1"), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			resp, err := n.Do(t.Context(), tt.req)
			if err != nil || len(resp.Results) != len(tt.req.Statements) || (resp.Index != 0) != tt.logged {
				t.Errorf("Do = %+v, %v; want an index: %t", resp, err, tt.logged)
			}
		})
	}
}

func TestDoRefused(t *testing.T) {
	n := newSingle(t)
	last := n.CommitIndex()
	_, err := n.Do(t.Context(), request(command.Execute, command.Weak, "PRAGMA journal_mode=DELETE"))
	if e, ok := errors.AsType[*RequestError](err); !ok || e.Msg != "disallowed pragma" {
		t.Errorf("Do = %v; want disallowed pragma", err)
	}
	if n.CommitIndex() != last {
		t.Error("the request reached the log")
	}
}

// takenSink counts what it is given.
type takenSink struct{ results int }

func (k *takenSink) Begin(string) bool { return true }

func (k *takenSink) Take(*command.Result, bool) error {
	k.results++
	return nil
}

// TestDoSink looks at where results go. What goes through the log must not wait for a client.
func TestDoSink(t *testing.T) {
	n := newSingle(t)
	n.exec(t, "CREATE TABLE foo (id INTEGER PRIMARY KEY)", "INSERT INTO foo VALUES(1)")
	tests := []struct {
		req  *command.Request
		sink bool
	}{
		{request(command.Query, command.None, "SELECT 1"), true},
		{request(command.Query, command.Weak, "SELECT 1"), true},
		{request(command.Query, command.Linearizable, "SELECT 1"), true},
		{request(command.Query, command.Auto, "SELECT 1"), true},
		{request(command.Query, command.Strong, "SELECT 1"), false},
		{request(command.Unified, command.Weak, "SELECT 1"), true},
		{request(command.Unified, command.Strong, "SELECT 1"), false},
		{request(command.Unified, command.None, "INSERT INTO foo VALUES(2) RETURNING id"), false},
	}
	for _, tt := range tests {
		sink := &takenSink{}
		tt.req.Sink = sink
		resp, err := n.Do(t.Context(), tt.req)
		if err != nil || (sink.results == 1) != tt.sink || (len(resp.Results) == 0) != tt.sink {
			t.Errorf("%s at %s: %d results to the sink, %+v, %v; want some there: %t", tt.req.Kind, tt.req.Level, sink.results, resp, err, tt.sink)
		}
	}
}

// TestStrongReadOnlyHere makes sure that a strong read runs on the node that asked, and nowhere
// else, and that it is not run by a replay.
func TestStrongReadOnlyHere(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3, nil)
	leader := waitLeader(t, nodes...)
	leader.exec(t, "CREATE TABLE foo (v TEXT)", "INSERT INTO foo VALUES('a')")
	if got := leader.rows(t, command.Strong, "SELECT v FROM foo"); got != "a" {
		t.Errorf("strong read = %q; want a", got)
	}
	index := leader.CommitIndex()
	for _, n := range nodes {
		if err := n.WaitApplied(t.Context(), index); err != nil {
			t.Fatal(err)
		}
		if p := len(n.fsm.reads.pending); p != 0 {
			t.Errorf("%s has %d reads pending", n.cfg.NodeID, p)
		}
	}
	for _, n := range without(nodes, leader) {
		if _, err := n.tryRows(t.Context(), command.Strong, "SELECT 1"); !errors.Is(err, ErrNotLeader) {
			t.Errorf("strong read on a follower = %v; want ErrNotLeader", err)
		}
	}
}

// TestFollower checks which levels a follower answers.
func TestFollower(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3, nil)
	leader := waitLeader(t, nodes...)
	leader.exec(t, "CREATE TABLE foo (v TEXT)", "INSERT INTO foo VALUES('a')")
	n := without(nodes, leader)[0]
	n.waitRows(t, "SELECT v FROM foo", "a")
	for _, level := range []command.Level{command.Weak, command.Linearizable, command.Strong, command.Auto} {
		if _, err := n.tryRows(t.Context(), level, "SELECT v FROM foo"); !errors.Is(err, ErrNotLeader) {
			t.Errorf("read at %s on a follower = %v; want ErrNotLeader", level, err)
		}
	}
	if _, err := n.Do(t.Context(), request(command.Execute, command.Weak, "INSERT INTO foo VALUES('b')")); !errors.Is(err, ErrNotLeader) {
		t.Errorf("write on a follower = %v; want ErrNotLeader", err)
	}
	if n.Ready() != nil {
		t.Errorf("Ready = %v", n.Ready())
	}
}

func TestFreshness(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3, nil)
	leader := waitLeader(t, nodes...)
	leader.exec(t, "CREATE TABLE foo (v TEXT)")
	n := without(nodes, leader)[0]
	if err := n.WaitApplied(t.Context(), leader.CommitIndex()); err != nil {
		t.Fatal(err)
	}
	read := func(limit time.Duration, strict bool) error {
		req := request(command.Query, command.None, "SELECT 1")
		req.Freshness, req.FreshnessStrict = limit, strict
		_, err := n.Do(t.Context(), req)
		return err
	}
	if err := errors.Join(read(time.Minute, false), read(time.Minute, true)); err != nil {
		t.Errorf("fresh read: %v", err)
	}
	// The state machine is behind what this node has seen, and its newest entry took long.
	now := *n.fsm.progress.now.Load()
	n.fsm.progress.now.Store(&applied{now.index - 1, now.term, now.at, now.at.Add(-2 * time.Minute)})
	if err := read(time.Minute, true); !errors.Is(err, ErrStaleRead) {
		t.Errorf("strict read of old data = %v; want ErrStaleRead", err)
	}
	if err := read(time.Minute, false); err != nil {
		t.Errorf("read of old data that is not strict = %v", err)
	}
	for _, o := range without(nodes, n) {
		o.close(t)
	}
	eventually(t, "a stale read", func() error {
		if err := read(100*time.Millisecond, false); !errors.Is(err, ErrStaleRead) {
			return fmt.Errorf("read without a leader = %w", errors.Join(err, errors.New("not stale")))
		}
		return nil
	})
	if err := read(0, true); err != nil {
		t.Errorf("read without a bound = %v", err)
	}
}

// TestLinearizable writes and reads from many goroutines while the leadership moves: a read must
// see every write that was acknowledged before it began.
func TestLinearizable(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3, nil)
	waitLeader(t, nodes...).exec(t, "CREATE TABLE c (id INTEGER PRIMARY KEY, n INTEGER)", "INSERT INTO c VALUES(1, 0)")
	var mu sync.Mutex
	acked := 0 // highest value that was acknowledged
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for next := 1; ctx.Err() == nil; next++ {
			for _, n := range nodes {
				q := fmt.Sprintf("UPDATE c SET n=%d WHERE id=1 AND n<%d", next, next)
				if _, err := n.Do(ctx, request(command.Execute, command.Weak, q)); err == nil {
					mu.Lock()
					acked = next
					mu.Unlock()
					break
				}
			}
		}
	})
	reads := 0
	for _, n := range nodes {
		wg.Go(func() {
			for ctx.Err() == nil {
				mu.Lock()
				min := acked
				mu.Unlock()
				got, err := n.tryRows(ctx, command.Linearizable, "SELECT n FROM c WHERE id=1")
				if err != nil {
					continue
				}
				var v int
				if _, err := fmt.Sscan(got, &v); err != nil || v < min {
					t.Errorf("%s read %q; %d was acknowledged before", n.cfg.NodeID, got, min)
					stop()
					return
				}
				mu.Lock()
				reads++
				mu.Unlock()
			}
		})
	}
	for range 5 {
		leader := waitLeader(t, nodes...)
		if err := leader.Stepdown(ctx, "", true); err != nil {
			t.Logf("Stepdown: %v", err)
		}
	}
	waitLeader(t, nodes...)
	stop()
	wg.Wait()
	t.Logf("%d reads, %d writes", reads, acked)
	if reads == 0 || acked == 0 {
		t.Error("nothing was tested")
	}
}

// TestLostQuorum checks what a leader says that has lost the others.
func TestLostQuorum(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3, nil)
	leader := waitLeader(t, nodes...)
	leader.exec(t, "CREATE TABLE foo (v TEXT)")
	for _, n := range without(nodes, leader) {
		n.close(t)
	}
	_, err := leader.Do(t.Context(), request(command.Execute, command.Weak, "INSERT INTO foo VALUES('a')"))
	if !errors.Is(err, ErrUnknown) && !errors.Is(err, ErrNotLeader) {
		t.Errorf("write without a quorum = %v; want ErrUnknown or ErrNotLeader", err)
	}
	for _, level := range []command.Level{command.Linearizable, command.Strong} {
		if _, err := leader.tryRows(t.Context(), level, "SELECT 1"); !errors.Is(err, ErrNotLeader) {
			t.Errorf("%s read without a quorum = %v; want ErrNotLeader", level, err)
		}
	}
	eventually(t, "not ready", func() error {
		if err := leader.Ready(); !errors.Is(err, ErrNoLeader) {
			return fmt.Errorf("Ready = %v; want ErrNoLeader", err)
		}
		return nil
	})
}

func TestDBTimeoutOfWrite(t *testing.T) {
	n := newSingle(t)
	n.exec(t, "CREATE TABLE foo (v INTEGER)")
	req := request(command.Execute, command.Weak, "INSERT INTO foo WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<300000) SELECT i FROM c")
	req.DBTimeout = time.Millisecond
	if _, err := n.Do(t.Context(), req); !errors.Is(err, ErrWaitTimeout) {
		t.Fatalf("Do = %v; want ErrWaitTimeout", err)
	}
	late := request(command.Execute, command.Weak, "DELETE FROM foo")
	late.DBTimeout = time.Nanosecond // over before the write is handed to Raft
	if _, err := n.Do(t.Context(), late); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrUnknown) {
		t.Errorf("Do = %v; want that the deadline is exceeded", err)
	}
	// The wait was cut, not the write.
	n.waitRows(t, "SELECT count(*) FROM foo", "300000")
}

// TestGroupCommit makes sure that entries that arrive together share a write of the log.
func TestGroupCommit(t *testing.T) {
	n := newSingle(t)
	n.exec(t, "CREATE TABLE foo (v INTEGER)")
	before := n.boltStats().TxStats.Write
	var wg sync.WaitGroup
	const writes = 200
	for range writes {
		wg.Go(func() { n.exec(t, "INSERT INTO foo VALUES(1)") })
	}
	wg.Wait()
	// A bolt transaction writes its pages and its meta page.
	if got := n.boltStats().TxStats.Write - before; got >= 2*writes {
		t.Errorf("%d writes of raft.db for %d entries", got, writes)
	}
}

func TestVerifyShared(t *testing.T) {
	r := newRounds[struct{}]()
	a, b := r.join(), r.join()
	if a != b {
		t.Error("two reads that wait do not share a round")
	}
	if r.begin() != a {
		t.Error("another round began than the one waited for")
	}
	if c := r.join(); c == a {
		t.Error("a read joined a round that had begun before it")
	}
	if r.begin() == nil || r.begin() != nil {
		t.Error("one more round should have been waited for")
	}
}

func TestTranslate(t *testing.T) {
	tests := []struct{ in, want error }{
		{raft.ErrNotLeader, ErrNotLeader},
		{raft.ErrLeadershipTransferInProgress, ErrNotLeader},
		{raft.ErrLeadershipLost, ErrLeadershipLost},
		{raft.ErrEnqueueTimeout, ErrBusy},
		{raft.ErrRaftShutdown, ErrUnknown},
		{nil, nil},
	}
	for _, tt := range tests {
		if got := translate(tt.in); !errors.Is(got, tt.want) {
			t.Errorf("translate(%v) = %v; want %v", tt.in, got, tt.want)
		}
	}
}

// TestApplyTimeout holds up the log. The entry that is being written waits for it; those that find no place
// before the timeout are refused, and none of them is applied.
func TestApplyTimeout(t *testing.T) {
	t.Parallel()
	n := newNode(t, "n1")
	n.cfg.Raft.ApplyTimeout = 50 * time.Millisecond
	var held atomic.Bool
	writing, free := make(chan struct{}), make(chan struct{})
	n.cfg.logStep = func(string) error {
		if held.CompareAndSwap(true, false) {
			close(writing)
			<-free
		}
		return nil
	}
	n.open(t)
	if err := n.Bootstrap(t.Context(), []Server{n.server()}); err != nil {
		t.Fatal(err)
	}
	waitLeader(t, n)
	n.exec(t, "CREATE TABLE foo (n)")
	held.Store(true)
	first := make(chan error, 1)
	go func() {
		_, err := n.Do(t.Context(), request(command.Execute, command.Auto, "INSERT INTO foo VALUES (1)"))
		first <- err
	}()
	<-writing
	<-time.After(2 * n.cfg.Raft.ApplyTimeout / 10) // from then on the log counts as stuck
	_, err := n.Do(t.Context(), request(command.Execute, command.Auto, "INSERT INTO foo VALUES (2)"))
	close(free)
	if !errors.Is(err, ErrBusy) {
		t.Errorf("second write: %v; want %v", err, ErrBusy)
	}
	if err := <-first; err != nil {
		t.Errorf("first write: %v", err)
	}
	if got := n.rows(t, command.Strong, "SELECT n FROM foo"); got != "1" {
		t.Errorf("rows are %s; want 1", got)
	}
}

// TestLinearizableBehindBarriers reads after a snapshot has taken every entry out of the log that
// the newest command would be found by. What is left of the log passes the state machine by, so
// nothing is to be waited for.
func TestLinearizableBehindBarriers(t *testing.T) {
	n := newSingle(t)
	n.exec(t, "CREATE TABLE foo (id INTEGER)")
	for range 3 {
		if err := n.raft.Barrier(0).Error(); err != nil {
			t.Fatal(err)
		}
	}
	n.snapshot(t, 1)
	n.rows(t, command.Linearizable, "SELECT 1")
	if err := n.WaitApplied(t.Context(), n.CommitIndex()); err != nil {
		t.Error(err)
	}
}
