package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rqlited/command"
	"rqlited/internal/vfs"
)

// TestTaskTimes goes through when a task is due, by a clock that the test turns.
func TestTaskTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		at := func(d time.Duration) time.Time { return start.Add(d) }
		task := &task{interval: time.Hour, base: start, count: &taskCounters{}}
		expect := func(what string, want time.Duration) {
			t.Helper()
			if got := task.next(time.Now()); !got.Equal(at(want)) {
				t.Errorf("%s: due after %s; want %s", what, got.Sub(start), want)
			}
		}
		expect("never done", time.Hour)
		time.Sleep(90 * time.Minute)
		task.ran(time.Now(), 5)
		expect("done", 150*time.Minute)
		task.ran(start, 6)
		expect("an older entry", 150*time.Minute)

		time.Sleep(time.Hour)
		for i, want := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60} {
			if first := task.failed(time.Now()); first != (i == 0) {
				t.Errorf("failure %d is said: %t", i, first)
			}
			expect(fmt.Sprintf("failure %d", i), time.Since(start)+want*time.Minute)
			time.Sleep(want * time.Minute)
		}
		task.ran(time.Now(), 7)
		expect("done at last", time.Since(start)+time.Hour)
		if !task.failed(time.Now()) {
			t.Error("a failure after a success is not said")
		}
		task.ran(time.Now().Add(24*time.Hour), 8)
		expect("done in the future, before the clock was set back", time.Since(start)+time.Hour)
	})
}

func (n *node) task(kind command.Upkeep) *task {
	for _, t := range n.fsm.upkeep.tasks {
		if t.kind == kind {
			return t
		}
	}
	return nil
}

// lastOf returns when a task was done last as far as n knows.
func (n *node) lastOf(kind command.Upkeep) time.Time {
	u := n.fsm.upkeep
	u.mu.Lock()
	defer u.mu.Unlock()
	return n.task(kind).last
}

// stableTime returns what n has noted under key.
func (n *node) stableTime(t *testing.T, key string) int64 {
	t.Helper()
	v, err := n.readTime([]byte(key))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// sameState expects the same database on all nodes.
func sameState(t *testing.T, nodes []*node) {
	t.Helper()
	eventually(t, "the same hash on all nodes", func() error {
		want, err := nodes[0].Hash(t.Context())
		if err != nil {
			return err
		}
		for _, n := range nodes[1:] {
			got, err := n.Hash(t.Context())
			if err != nil {
				return err
			}
			if got.Index == want.Index && got.Hash != want.Hash {
				t.Fatalf("hash of %s at %d is %s; want %s", n.cfg.NodeID, got.Index, got.Hash, want.Hash)
			}
			if got != want {
				return fmt.Errorf("%s is at %d, %s at %d", n.cfg.NodeID, got.Index, nodes[0].cfg.NodeID, want.Index)
			}
		}
		return nil
	})
}

// TestUpkeep has three nodes vacuum and analyze a table whose rows VACUUM numbers anew, through a change of the leader
// and restarts, and compares the replicas.
func TestUpkeep(t *testing.T) {
	t.Parallel()
	const interval = 2 * time.Second
	nodes := newCluster(t, 3, func(c *Config) { c.Upkeep = UpkeepConfig{Vacuum: interval, Optimize: interval} })
	leader := waitLeader(t, nodes...)
	leader.exec(t, "CREATE TABLE foo (v TEXT)", "CREATE TABLE bar (v TEXT)", "CREATE INDEX bars ON bar(v)")
	for i := range 20 {
		leader.exec(t, fmt.Sprintf("INSERT INTO foo VALUES('%d')", i), fmt.Sprintf("INSERT INTO bar VALUES('%d')", i))
	}
	leader.exec(t, "DELETE FROM foo WHERE rowid%2=1")
	for _, n := range nodes {
		n.waitRows(t, "SELECT group_concat(rowid) FROM foo", "1,2,3,4,5,6,7,8,9,10")
		n.waitRows(t, "SELECT stat FROM sqlite_stat1 WHERE idx='bars'", "20 1")
	}
	sameState(t, nodes)
	sameUpkeep(t, nodes)

	// There is nothing to do any more: nobody writes an entry, though both are due twice.
	last := leader.raft.LastIndex()
	<-time.After(2*interval + interval/2)
	if waitLeader(t, nodes...) == leader && leader.raft.LastIndex() != last {
		t.Errorf("an idle database has got %d entries", leader.raft.LastIndex()-last)
	}

	// A new leader goes on from what its predecessor has done.
	leader.exec(t, "DELETE FROM foo WHERE rowid=1")
	for _, n := range nodes {
		n.waitRows(t, "SELECT min(rowid) || max(rowid) FROM foo", "19")
	}
	before := leader.lastOf(command.Vacuum)
	if err := leader.Stepdown(t.Context(), "", true); err != nil {
		t.Fatal(err)
	}
	next := waitLeader(t, without(nodes, leader)...)
	next.exec(t, "DELETE FROM foo WHERE rowid=1")
	for _, n := range nodes {
		n.waitRows(t, "SELECT min(rowid) || max(rowid) FROM foo", "18")
		var got time.Time
		eventually(t, "the VACUUM is noted", func() error { // which is after its rows are seen
			if got = n.lastOf(command.Vacuum); got.Equal(before) {
				return fmt.Errorf("%s has noted nothing", n.cfg.NodeID)
			}
			return nil
		})
		if got.Sub(before) < interval {
			t.Errorf("%s: VACUUM %s after the one before; want %s", n.cfg.NodeID, got.Sub(before), interval)
		}
	}
	sameState(t, nodes)
	sameUpkeep(t, nodes)
}

// sameUpkeep expects all nodes to have done the same at the same time, and to have saved that.
func sameUpkeep(t *testing.T, nodes []*node) {
	t.Helper()
	names := []string{"num_auto_vacuums", "num_auto_optimizes", "num_auto_vacuums_failed", "num_auto_optimizes_failed"}
	eventually(t, "the same upkeep on all nodes", func() error {
		want := nodes[0].Counters()
		for _, n := range nodes {
			for i, name := range names {
				if got := n.Counters()[name]; got != want[name] || (got > 0) != (i < 2) {
					return fmt.Errorf("%s has %s %d, %s has %d", n.cfg.NodeID, name, got, nodes[0].cfg.NodeID, want[name])
				}
			}
			for kind, key := range map[command.Upkeep]string{command.Vacuum: "rqlite_last_vacuum", command.Optimize: "rqlite_last_optimize"} {
				last := n.lastOf(kind)
				if kind == command.Vacuum && !last.Equal(nodes[0].lastOf(kind)) || last.IsZero() || n.stableTime(t, key) != last.UnixNano() {
					return fmt.Errorf("%s has done %s at %s and saved %d, %s at %s", n.cfg.NodeID, kind, last, n.stableTime(t, key), nodes[0].cfg.NodeID, nodes[0].lastOf(kind))
				}
			}
		}
		return nil
	})
}

// TestUpkeepRestart expects that a start counts from what was done before it, or from the first one.
func TestUpkeepRestart(t *testing.T) {
	t.Parallel()
	n := newSingle(t)
	n.exec(t, "CREATE TABLE foo (v TEXT)")
	if n.stableTime(t, "rqlite_base_vacuum") != 0 {
		t.Error("a time was saved of what is off")
	}
	auto := func() string {
		t.Helper()
		st, err := n.Stats()
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(st.(map[string]any)["auto_vacuum"])
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	if got := auto(); got != "null" {
		t.Errorf("auto_vacuum is %s; want nothing", got)
	}
	n.cfg.Upkeep = UpkeepConfig{Vacuum: time.Hour, Optimize: time.Hour}
	n.restart(t)
	base := n.stableTime(t, "rqlite_base_vacuum")
	if age := time.Since(time.Unix(0, base)); age < 0 || age > time.Minute || n.stableTime(t, "rqlite_last_vacuum") != 0 {
		t.Errorf("base is %s old", age)
	}
	want := fmt.Sprintf(`{"next_vacuum_after":"%s"}`, time.Unix(0, base).UTC().Add(time.Hour).Format(time.RFC3339Nano))
	if got := auto(); got != want {
		t.Errorf("auto_vacuum is %s; want %s", got, want)
	}
	n.restart(t)
	waitLeader(t, n)
	if again := n.stableTime(t, "rqlite_base_vacuum"); again != base {
		t.Errorf("base was %d and is %d", base, again)
	}

	// As if the last time were two hours ago.
	u := n.fsm.upkeep
	u.mu.Lock()
	n.task(command.Vacuum).base = time.Now().Add(-2 * time.Hour)
	u.mu.Unlock()
	u.wake()
	eventually(t, "a VACUUM", func() error {
		if n.Counters()["num_auto_vacuums"] == 0 || n.stableTime(t, "rqlite_last_vacuum") == 0 {
			return errors.New("none yet")
		}
		return nil
	})
	last := n.stableTime(t, "rqlite_last_vacuum")
	if got := auto(); !strings.HasPrefix(got, `{"last_vacuum":"`) || !strings.Contains(got, time.Unix(0, last).UTC().Add(time.Hour).Format(time.RFC3339Nano)) {
		t.Errorf("auto_vacuum is %s", got)
	}
	// As if the node had crashed before it could save that. The restart applies the entry again, in vain for the counters.
	index := n.raft.LastIndex()
	if err := n.logs.set(keysVacuum.last, nil); err != nil {
		t.Fatal(err)
	}
	n.restart(t)
	waitLeader(t, n)
	n.exec(t, "INSERT INTO foo VALUES('a')")
	eventually(t, "the time of the VACUUM", func() error {
		if got := n.stableTime(t, "rqlite_last_vacuum"); got != last {
			return fmt.Errorf("%d is saved; want %d", got, last)
		}
		return nil
	})
	if got := n.Counters()["num_auto_vacuums"]; got != 0 {
		t.Errorf("%d times VACUUM after the restart; want 0", got)
	}
	if left := time.Until(n.task(command.Vacuum).next(time.Now())); left < 50*time.Minute {
		t.Errorf("due again in %s", left)
	}
	if d := n.raft.LastIndex() - index; d > 3 {
		t.Errorf("the restart has added %d entries", d)
	}

	n.cfg.Upkeep = UpkeepConfig{}
	n.restart(t)
	for _, key := range []string{"rqlite_base_vacuum", "rqlite_last_vacuum", "rqlite_base_optimize"} {
		if v, err := n.logs.bolt.Get([]byte(key)); err != nil || len(v) != 0 {
			t.Errorf("%s is %x, %v; want it there and empty", key, v, err)
		}
	}
}

// tryNow does a task as if it were due.
func (n *node) tryNow(t *testing.T, kind command.Upkeep) (uint64, error) {
	t.Helper()
	return n.tryTask(t.Context(), n.task(kind))
}

// TestUpkeepNotNow has a load under way, or arriving, and a node that does not lead.
func TestUpkeepNotNow(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3, nil) // upkeep is off: nothing comes in between
	leader := waitLeader(t, nodes...)
	if index, err := leader.tryNow(t, command.Vacuum); index != 0 || err != nil {
		t.Errorf("VACUUM of a database that nobody has written to = %d, %v", index, err)
	}
	leader.exec(t, "CREATE TABLE foo (v TEXT)")
	before := leader.raft.LastIndex()
	f := without(nodes, leader)[0]
	f.waitRows(t, "SELECT count(*) FROM foo", "0")
	if index, err := f.tryNow(t, command.Vacuum); index != 0 || !errors.Is(err, ErrNotLeader) {
		t.Errorf("VACUUM by a follower = %d, %v; want %v", index, err, ErrNotLeader)
	}
	tr := leader.fsm.transfers
	tr.turn.take()
	if index, err := leader.tryNow(t, command.Vacuum); index != 0 || !errors.Is(err, errNotNow) {
		t.Errorf("VACUUM while a file arrives = %d, %v; want %v", index, err, errNotNow)
	}
	tr.turn.give()
	chunk := &command.Entry{Kind: command.LoadChunk, Chunk: &command.Chunk{Stream: "s", Sequence: 1, Data: []byte("x")}}
	tr.setOwn("s") // or it would be taken back
	if _, err := leader.propose(t.Context(), chunk); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []command.Upkeep{command.Vacuum, command.Optimize} {
		if index, err := leader.tryNow(t, kind); index != 0 || !errors.Is(err, errNotNow) {
			t.Errorf("%s during a load = %d, %v; want %v", kind, index, err, errNotNow)
		}
	}
	if got := leader.raft.LastIndex(); got != before+1 {
		t.Errorf("the log has %d entries; want %d", got, before+1)
	}
	tr.setOwn("")
	eventually(t, "the end of the load", func() error {
		if index, err := leader.tryNow(t, command.Vacuum); index == 0 || err != nil {
			return fmt.Errorf("VACUUM = %d, %w", index, err)
		}
		return nil
	})
}

// fullDisk says that it has so much room, and fills up no further.
type fullDisk struct {
	vfs.FS
	free int64
}

func (d fullDisk) Free(string) (int64, error) { return d.free, nil }

// TestUpkeepNoSpace has a disk without room for a VACUUM. It is left alone, which is said once and counted each time.
func TestUpkeepNoSpace(t *testing.T) {
	t.Parallel()
	var log lines
	n := newCluster(t, 1, func(c *Config) {
		c.Upkeep, c.Logger, c.fs = UpkeepConfig{Vacuum: 24 * time.Hour}, log.logger(), fullDisk{vfs.OS, 1 << 20}
	})[0]
	n.exec(t, "CREATE TABLE l (x)")
	before, task := n.raft.LastIndex(), n.task(command.Vacuum)
	for range 3 {
		n.doTask(t.Context(), task)
	}
	if got := log.take("automatic upkeep failed task=VACUUM err=store: not enough free space"); len(got) != 1 {
		t.Errorf("said %q; want one line", log.got)
	}
	if c := n.Counters(); c["num_auto_vacuums_failed"] != 3 || c["num_auto_vacuums"] != 0 || n.raft.LastIndex() != before {
		t.Errorf("counters are %v, the log ends at %d; want %d", c, n.raft.LastIndex(), before)
	}
	if task.pause != 4*time.Minute {
		t.Errorf("the pause is %s", task.pause)
	}
}

// TestUpkeepRefused has VACUUM fail in SQLite, on all nodes. That is no time to count from.
func TestUpkeepRefused(t *testing.T) {
	t.Parallel()
	n := newSingle(t)
	n.exec(t, "CREATE TABLE l (x)")
	e := &command.Entry{Kind: command.Execute, Upkeep: command.Vacuum, Request: request(command.Execute, command.Weak, "VACUUM nothing")}
	if resp, err := n.propose(t.Context(), e); err != nil || resp.Results[0].Error == "" {
		t.Fatalf("propose = %+v, %v; want an error of SQLite", resp, err)
	}
	if last := n.lastOf(command.Vacuum); !last.IsZero() || n.Counters()["num_auto_vacuums"] != 0 {
		t.Errorf("noted at %s", last)
	}
	e = &command.Entry{Kind: command.Execute, Upkeep: 77, Request: request(command.Execute, command.Weak, "INSERT INTO l VALUES(1)")}
	if _, err := n.propose(t.Context(), e); err != nil || n.rows(t, command.Weak, "SELECT x FROM l") != "1" {
		t.Errorf("upkeep that a later version knows: %v", err)
	}
}

// TestUpkeepInstalled has a follower that gets a snapshot in place of the entry of a VACUUM. It does not know when that was, and counts
// from then, so that it vacuums too late rather than too early.
func TestUpkeepInstalled(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3, func(c *Config) { c.Upkeep = UpkeepConfig{Vacuum: time.Hour} })
	leader := waitLeader(t, nodes...)
	behind := without(nodes, leader)[0]
	base := behind.stableTime(t, "rqlite_base_vacuum")
	behind.close(t)
	leader.exec(t, "CREATE TABLE foo (v TEXT)")
	if _, err := leader.tryNow(t, command.Vacuum); err != nil {
		t.Fatal(err)
	}
	leader.snapshot(t, 1)
	leader.exec(t, "INSERT INTO foo VALUES('a')")
	behind.open(t)
	behind.waitRows(t, "SELECT v FROM foo", "a")
	eventually(t, "a later beginning", func() error {
		if behind.Counters()["num_restores"] == 0 {
			return errors.New("no snapshot installed")
		}
		if got := behind.stableTime(t, "rqlite_base_vacuum"); got <= base || got < leader.lastOf(command.Vacuum).UnixNano() {
			return fmt.Errorf("base is %d, was %d", got, base)
		}
		return nil
	})
}
