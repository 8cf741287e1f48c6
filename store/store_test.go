package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"rqlited/command"
)

func TestRestart(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name          string
		snapshot      bool
		write         bool  // after the snapshot
		start, skip   int64 // restores at the restart, done and skipped
		unmark, clean bool
	}{
		{name: "log only", write: true},
		{name: "snapshot only", snapshot: true, skip: 1},
		{name: "snapshot and log", snapshot: true, write: true, skip: 1},
		{name: "snapshot without marker", snapshot: true, write: true, unmark: true, start: 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := newSingle(t)
			n.exec(t, "CREATE TABLE foo (id INTEGER PRIMARY KEY, v TEXT)", "INSERT INTO foo(v) VALUES('a')")
			want := "1 a"
			if tt.snapshot {
				n.snapshot(t, 0)
			}
			if tt.write {
				n.exec(t, "INSERT INTO foo(v) VALUES('b')")
				want = "1 a,2 b"
			}
			foreign := filepath.Join(n.cfg.Dir, "rqlited.log")
			if err := os.WriteFile(foreign, []byte("x"), 0o644); err != nil {
				t.Fatal(err)
			}
			n.close(t)
			if tt.unmark {
				if err := os.Remove(filepath.Join(n.cfg.Dir, "db.clean")); err != nil {
					t.Fatal(err)
				}
			}
			n.open(t)
			waitLeader(t, n)
			if got := n.rows(t, command.Weak, "SELECT * FROM foo"); got != want {
				t.Errorf("rows after restart = %q; want %q", got, want)
			}
			c := n.Counters()
			if c["num_restores_start"] != tt.start || c["num_restores_start_skipped"] != tt.skip {
				t.Errorf("restores at start: %d done, %d skipped; want %d, %d",
					c["num_restores_start"], c["num_restores_start_skipped"], tt.start, tt.skip)
			}
			if _, err := os.Stat(foreign); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestRestartAfterMany goes through many generations of increments and restarts, with and without
// a full restore, and compares with a model.
func TestRestartAfterMany(t *testing.T) {
	t.Parallel()
	rnd := newRand(t)
	n := newSingle(t)
	n.exec(t, "CREATE TABLE kv (k INTEGER PRIMARY KEY, v BLOB)")
	sum := "SELECT count(*), coalesce(sum(k),0), coalesce(sum(length(v)),0) FROM kv"
	for round := range 8 {
		for range 5 {
			n.exec(t, "INSERT OR REPLACE INTO kv SELECT abs(random()) % 300, randomblob(abs(random()) % 3000) "+
				"FROM (WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<20) SELECT i FROM c)")
		}
		if err := n.Snapshot(t.Context(), uint64(1+rnd.IntN(20))); err != nil {
			t.Fatal(err)
		}
		n.exec(t, "DELETE FROM kv WHERE k % 7 = abs(random()) % 7")
		want := n.rows(t, command.Weak, sum)
		n.close(t)
		if round%2 == 0 {
			if err := os.Remove(filepath.Join(n.cfg.Dir, "db.clean")); err != nil {
				t.Fatal(err)
			}
		}
		n.open(t)
		waitLeader(t, n)
		if got := n.rows(t, command.Weak, sum); got != want {
			t.Fatalf("round %d: %q after restart; want %q", round, got, want)
		}
		if got := n.rows(t, command.Weak, "PRAGMA integrity_check"); got != "ok" {
			t.Fatalf("round %d: integrity check: %s", round, got)
		}
	}
}

func TestOpenLocked(t *testing.T) {
	n := newSingle(t)
	other := newNode(t, "n2")
	other.cfg.Dir = n.cfg.Dir
	start := time.Now()
	err := other.tryOpen(t)
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("Open of a used directory = %v; want ErrLocked", err)
	}
	if d := time.Since(start); d > 2*time.Second {
		t.Errorf("Open took %s; it must not wait", d)
	}
	n.exec(t, "CREATE TABLE foo (id INTEGER)")
}

func TestOpenWithoutLog(t *testing.T) {
	t.Parallel()
	for _, snapshot := range []bool{false, true} {
		n := newSingle(t)
		n.exec(t, "CREATE TABLE foo (id INTEGER)")
		if snapshot {
			n.snapshot(t, 0)
		}
		n.close(t)
		if err := os.Remove(filepath.Join(n.cfg.Dir, logFile)); err != nil {
			t.Fatal(err)
		}
		if err := n.tryOpen(t); err == nil || !strings.Contains(err.Error(), "raft.db is missing") {
			t.Errorf("with a snapshot %t: Open without a log = %v; want an error that says so", snapshot, err)
		}
		if _, err := os.Stat(filepath.Join(n.cfg.Dir, dbFile)); err != nil {
			t.Error(err)
		}
	}
}

func TestOpenGap(t *testing.T) {
	t.Parallel()
	n := newSingle(t)
	n.exec(t, "CREATE TABLE foo (id INTEGER)")
	for range 5 {
		n.exec(t, "INSERT INTO foo VALUES(1)")
	}
	n.close(t)
	l := newLog(t, filepath.Join(n.cfg.Dir, logFile))
	if err := l.LogCache.DeleteRange(1, 3); err != nil {
		t.Fatal(err)
	}
	l.bolt.Close()
	if err := n.tryOpen(t); !errors.Is(err, ErrGap) {
		t.Errorf("Open with a gap = %v; want ErrGap", err)
	}
}

func TestSnapshotNothingNew(t *testing.T) {
	t.Parallel()
	n := newSingle(t)
	n.exec(t, "CREATE TABLE foo (id INTEGER)")
	n.snapshot(t, 0)
	if err := n.Snapshot(t.Context(), 0); !errors.Is(err, ErrNothingNew) {
		t.Errorf("second Snapshot = %v; want ErrNothingNew", err)
	}
	n.rows(t, command.Strong, "SELECT 1") // an entry that changes nothing
	if err := n.Snapshot(t.Context(), 0); !errors.Is(err, ErrNothingNew) {
		t.Errorf("Snapshot after a strong read = %v; want ErrNothingNew", err)
	}
}

// TestCompact puts snapshots together that are too few for the store to do it by itself.
func TestCompact(t *testing.T) {
	t.Parallel()
	n := newSingle(t)
	if deltas, err := n.Compact(t.Context()); deltas != 0 || err != nil {
		t.Errorf("Compact without a snapshot = %d, %v; want 0", deltas, err)
	}
	n.exec(t, "CREATE TABLE foo (v)", "INSERT INTO foo VALUES(hex(zeroblob(20000)))", "CREATE TABLE bar (v)")
	n.snapshot(t, 0)
	for range 3 {
		n.exec(t, "INSERT INTO bar VALUES('a')")
		n.snapshot(t, 0)
	}
	for _, want := range []int{3, 0} {
		if deltas, err := n.Compact(t.Context()); deltas != want || err != nil {
			t.Errorf("Compact = %d, %v; want %d", deltas, err, want)
		}
	}
	if got := len(n.snaps.Stats().Snapshots); got != 1 {
		t.Errorf("%d snapshots are left; want 1", got)
	}
	s := n.Store
	n.close(t)
	if _, err := s.Compact(t.Context()); !errors.Is(err, ErrNotOpen) {
		t.Errorf("Compact after Close = %v; want %v", err, ErrNotOpen)
	}
	n.open(t)
	waitLeader(t, n)
	if got := n.rows(t, command.Weak, "SELECT count(*) FROM bar"); got != "3" {
		t.Errorf("rows after a restart = %s; want 3", got)
	}
}

// TestIdleLog fills the log with entries that change nothing. It must be shortened all the same,
// and the increment after that must be right.
func TestIdleLog(t *testing.T) {
	t.Parallel()
	n := newNode(t, "n1")
	n.cfg.Snapshot.Threshold = 8
	n.cfg.Snapshot.Interval = 10 * time.Millisecond
	n.open(t)
	if err := n.Bootstrap(t.Context(), []Server{n.server()}); err != nil {
		t.Fatal(err)
	}
	waitLeader(t, n)
	n.exec(t, "CREATE TABLE foo (v TEXT)", "INSERT INTO foo VALUES(hex(zeroblob(20000)))", "CREATE TABLE bar (v TEXT)")
	for range 2 {
		first, _, err := n.logs.bounds()
		if err != nil {
			t.Fatal(err)
		}
		for range 30 {
			n.exec(t, "DELETE FROM bar WHERE v='x'")
			n.rows(t, command.Strong, "SELECT 1")
		}
		eventually(t, "a shorter log", func() error {
			if now, _, err := n.logs.bounds(); err != nil || now <= first+30 {
				return fmt.Errorf("log begins at %d, %w", now, errors.Join(err, errors.New("too long")))
			}
			return nil
		})
	}
	if images := n.Counters()["num_snapshots_full"]; images != 1 {
		t.Errorf("%d images; want 1: nothing has changed since", images)
	}
	n.exec(t, "INSERT INTO bar VALUES('a')")
	eventually(t, "an increment", func() error {
		if err := n.Snapshot(t.Context(), 1); err != nil && !errors.Is(err, ErrNothingNew) {
			return err
		}
		return nil
	})
	fullRestart(t, n)
	waitLeader(t, n)
	if got := n.rows(t, command.Weak, "SELECT (SELECT v FROM bar), (SELECT length(v) FROM foo)"); got != "a 40000" {
		t.Errorf("rows after a full restore = %q", got)
	}
}

func TestSnapshotByWALSize(t *testing.T) {
	t.Parallel()
	n := newNode(t, "n1")
	n.cfg.Snapshot.WALSize = 1
	n.cfg.Snapshot.Interval = 10 * time.Millisecond
	n.open(t)
	if err := n.Bootstrap(t.Context(), []Server{n.server()}); err != nil {
		t.Fatal(err)
	}
	waitLeader(t, n)
	n.exec(t, "CREATE TABLE foo (id INTEGER)")
	eventually(t, "a snapshot", func() error {
		if n.Counters()["num_wal_snapshots"] == 0 {
			return errors.New("none yet")
		}
		return nil
	})
}

func TestTrailingLogs(t *testing.T) {
	t.Parallel()
	n := newSingle(t)
	n.exec(t, "CREATE TABLE foo (id INTEGER)")
	for range 20 {
		n.exec(t, "INSERT INTO foo VALUES(1)")
	}
	n.snapshot(t, 5)
	first, last, err := n.logs.bounds()
	if err != nil || last-first+1 != 5 {
		t.Errorf("log is %d to %d, %v; want 5 entries", first, last, err)
	}
	if got := n.raft.ReloadableConfig().TrailingLogs; got != n.cfg.Snapshot.trailing() && got != 10240 {
		t.Errorf("trailing logs are %d after that", got)
	}
}

// TestMachineError makes an entry fail here, and only here: the node must stop, and must not have
// passed the entry.
func TestMachineError(t *testing.T) {
	t.Parallel()
	n := newSingle(t)
	n.exec(t, "CREATE TABLE foo (id INTEGER)")
	before := n.fsm.progress.index()
	f := n.raft.Apply([]byte("\xff\xff this is no entry"), time.Second)
	if err := f.Error(); err != nil {
		t.Fatal(err)
	}
	if o := f.Response().(outcome); !errors.Is(o.err, ErrUnknown) {
		t.Errorf("outcome is %v; want ErrUnknown", o.err)
	}
	if err := n.Wait(); !errors.Is(err, command.ErrMalformed) {
		t.Errorf("Wait = %v; want ErrMalformed", err)
	}
	if _, err := n.Do(t.Context(), request(command.Execute, command.Weak, "INSERT INTO foo VALUES(1)")); !errors.Is(err, ErrNotReady) {
		t.Errorf("Do after a machine error = %v; want ErrNotReady", err)
	}
	if err := n.Ready(); !errors.Is(err, ErrNotReady) {
		t.Errorf("Ready after a machine error = %v; want ErrNotReady", err)
	}
	if err := n.Snapshot(t.Context(), 0); err == nil {
		t.Error("Snapshot after a machine error succeeded")
	}
	if after := n.fsm.progress.index(); after != before {
		t.Errorf("applied index went from %d to %d", before, after)
	}
}

func TestClose(t *testing.T) {
	t.Parallel()
	n := newSingle(t)
	s := n.Store
	n.close(t)
	if err := s.Wait(); err != nil {
		t.Errorf("Wait after Close = %v", err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Errorf("second Close = %v", err)
	}
	if _, err := s.Do(t.Context(), request(command.Query, command.None, "SELECT 1")); !errors.Is(err, ErrNotOpen) {
		t.Errorf("Do after Close = %v; want ErrNotOpen", err)
	}
	if err := s.Ready(); !errors.Is(err, ErrNotOpen) {
		t.Errorf("Ready after Close = %v; want ErrNotOpen", err)
	}
}

// TestQueuedAtTheEnd puts entries into Raft's queue after its end, as many a call does that comes just before. Nobody
// takes them out; who waits for them has to be told.
func TestQueuedAtTheEnd(t *testing.T) {
	t.Parallel()
	n := newSingle(t)
	s := n.Store
	n.close(t)
	for range 20 { // Raft refuses some, and queues others
		f := s.raft.Apply(nil, 0)
		s.endWithRaft(f)
		if err := f.Error(); !errors.Is(err, raft.ErrRaftShutdown) {
			t.Errorf("Apply after the end = %v; want %v", err, raft.ErrRaftShutdown)
		}
	}
}

// TestAskedAmidClose asks a node while it is being closed and after that: monitoring does not know when it has to stop.
// The race detector looks on.
func TestAskedAmidClose(t *testing.T) {
	t.Parallel()
	n := newSingle(t)
	n.exec(t, "CREATE TABLE foo (v TEXT)")
	n.snapshot(t, 0)
	n.exec(t, "INSERT INTO foo VALUES('a')")
	s := n.Store
	asks := []func(){
		func() { _, _ = s.Stats() },
		func() { _ = s.Ready() },
		func() { s.Leader() },
		func() { _, _ = s.Servers() },
		func() { s.Voter() },
		func() { s.Counters() },
		func() { s.CommitIndex() },
		func() { _ = s.WaitApplied(t.Context(), 1) },
	}
	var others sync.WaitGroup
	begun := make(chan struct{}, len(asks))
	for _, ask := range asks {
		others.Go(func() {
			ask()
			begun <- struct{}{}
			for {
				select {
				case <-s.closed:
					ask()
					return
				default:
					ask()
				}
			}
		})
	}
	for range asks {
		<-begun
	}
	n.close(t)
	others.Wait()
	if st, err := s.Stats(); err != nil || st.(map[string]any)["open"] != false {
		t.Errorf("Stats after Close = %v, %v; want that it is not open", st, err)
	}
	if err := s.WaitApplied(t.Context(), 1); !errors.Is(err, ErrNotOpen) {
		t.Errorf("WaitApplied after Close = %v; want ErrNotOpen", err)
	}
}

// TestCloseFrozenPeers closes a node whose peers have stopped answering.
func TestCloseFrozenPeers(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3, nil)
	leader := waitLeader(t, nodes...)
	for _, n := range without(nodes, leader) {
		n.layer.cut()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := leader.Close(ctx); err != nil {
		t.Errorf("Close = %v", err)
	}
	leader.Store = nil
}

// TestPoisonedEntry puts entries into the log that this version cannot apply. The node stops in front of
// them, each time it is started, and says at which and why.
func TestPoisonedEntry(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, data, want string }{
		{"unknown kind", "\x08\x09\x12\x00", "apply log entry %d: kind 9 is unknown: a newer version wrote it, and is needed to go on"},
		{"unknown foreign keys", "\x08\x03\x12\x00\xd0\x3e\x03", "decode log entry %d: decode entry: command: malformed message: foreign keys are 3"},
		{"no message", "\x08", "decode log entry %d: decode entry: command: malformed message: field 1: unexpected EOF"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := newSingle(t)
			before := n.exec(t, "CREATE TABLE foo (v TEXT)").Index
			n.raft.Apply([]byte(tt.data), waitFor)
			want := fmt.Sprintf(tt.want+" (state is at index %d)", before+1, before)
			for range 2 {
				if err := n.Wait(); err == nil || err.Error() != want {
					t.Errorf("Wait = %v; want %s", err, want)
				}
				if got := n.fsm.progress.index(); got != before {
					t.Errorf("applied index is %d; want %d", got, before)
				}
				n.restart(t)
			}
		})
	}
}
