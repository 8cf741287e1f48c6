package store

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"time"

	"rqlited/command"
)

// mark puts a mark into the log and returns its index.
func (n *node) mark(t *testing.T) uint64 {
	t.Helper()
	resp, err := n.propose(t.Context(), &command.Entry{Kind: command.Noop, Hash: true})
	if err != nil {
		t.Fatal(err)
	}
	return resp.Index
}

func (n *node) hash(t *testing.T) StateHash {
	t.Helper()
	h, err := n.Hash(t.Context())
	if err != nil {
		t.Fatalf("Hash(%s): %v", n.cfg.NodeID, err)
	}
	return h
}

func (n *node) hashAt(t *testing.T, index uint64) StateHash {
	t.Helper()
	h, err := n.HashAt(t.Context(), index)
	if err != nil {
		t.Fatalf("HashAt(%s, %d): %v", n.cfg.NodeID, index, err)
	}
	return h
}

// pinned begins a hash that is not computed before the test does.
func (n *node) pinned(t *testing.T) *hashRun {
	t.Helper()
	run, err := n.pin(t.Context(), newRound[StateHash]())
	if err != nil {
		t.Fatal(err)
	}
	return run
}

// TestHashIndex: entries of Raft's own change nothing, but nodes at rest name the same index, whatever
// each of them has restored or replayed.
func TestHashIndex(t *testing.T) {
	t.Parallel()
	n := newSingle(t)
	n.exec(t, "CREATE TABLE foo (v TEXT)")
	before := n.hash(t)
	if err := n.raft.Barrier(0).Error(); err != nil {
		t.Fatal(err)
	}
	for n.raft.AppliedIndex() < n.raft.LastIndex() { // Raft notes it after the barrier has answered
		runtime.Gosched()
	}
	if got, want := n.hash(t), (StateHash{n.raft.LastIndex(), before.Hash}); got != want || want.Index <= before.Index {
		t.Errorf("Hash behind a barrier = %+v; want %+v, and it was %+v before", got, want, before)
	}
	n.logs.lastCommand.Store(n.raft.LastIndex() + 1) // a command that Raft has written and not yet passed on
	if got := n.hash(t); got != before {
		t.Errorf("Hash with a command on its way = %+v; want %+v", got, before)
	}
}

func TestHash(t *testing.T) {
	t.Parallel()
	n := newSingle(t)
	index := n.exec(t, "CREATE TABLE foo (v TEXT)").Index
	empty := n.hash(t)
	if empty.Index != index || len(empty.Hash) != 32 {
		t.Errorf("Hash = %+v; want that of index %d", empty, index)
	}
	n.exec(t, "INSERT INTO foo VALUES('a')")
	one := n.hash(t)
	if one.Hash == empty.Hash || one.Index <= empty.Index {
		t.Errorf("Hash = %+v after a write, and %+v before", one, empty)
	}
	index = n.mark(t)
	if got, want := n.hashAt(t, index), (StateHash{index, one.Hash}); got != want {
		t.Errorf("HashAt = %+v; want %+v", got, want)
	}
	if err := n.Snapshot(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	n.mark(t)
	if err := n.Snapshot(t.Context(), 0); !errors.Is(err, ErrNothingNew) {
		t.Errorf("Snapshot after a mark = %v; want ErrNothingNew", err)
	}
	n.restart(t)
	waitLeader(t, n)
	if got := n.hash(t); got.Hash != one.Hash {
		t.Errorf("Hash = %+v after a restart; want %s", got, one.Hash)
	}
	n.exec(t, "DELETE FROM foo")
	if got := n.hash(t); got.Hash != empty.Hash {
		t.Errorf("Hash = %+v; want that of before the rows, %s", got, empty.Hash)
	}
	st := n.hashStats()
	if st.Hash == nil || *st.Hash != empty.Hash || time.Since(*st.Time) > time.Minute {
		t.Errorf("statistics are %+v", st)
	}
}

// TestHashShared has callers ask while a hash is being begun: all of them get the next, which is
// computed once.
func TestHashShared(t *testing.T) {
	t.Parallel()
	n := newSingle(t)
	n.exec(t, "CREATE TABLE foo (v TEXT)")
	n.fsm.turn.take() // the first hash waits for it
	first := n.fsm.hashes.asked.join()
	eventually(t, "the first to begin", func() error {
		if n.fsm.hashes.asked.join() == first {
			return errors.New("not yet")
		}
		return nil
	})
	shared := n.fsm.hashes.asked.join()
	got := make(chan error)
	for range 3 {
		go func() {
			h, err := n.Hash(context.Background())
			if err == nil && h != shared.value {
				err = fmt.Errorf("%+v is not that of the round, %+v", h, shared.value)
			}
			got <- err
		}()
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("gone")
	cancel(gone)
	if _, err := n.Hash(ctx); !errors.Is(err, gone) {
		t.Errorf("Hash of a caller that has gone = %v; want %v", err, gone)
	}
	if shared != n.fsm.hashes.asked.join() {
		t.Error("the round has begun before the one in front of it has ended")
	}
	n.fsm.turn.give()
	for range 3 {
		if err := <-got; err != nil {
			t.Error(err)
		}
	}
}

func TestHashAt(t *testing.T) {
	t.Parallel()
	n := newSingle(t)
	plain := n.exec(t, "CREATE TABLE foo (v TEXT)").Index
	if _, err := n.HashAt(t.Context(), plain); !errors.Is(err, ErrNoHash) {
		t.Errorf("HashAt where no mark is = %v; want ErrNoHash", err)
	}
	var marks []uint64
	for range marksKept + 1 {
		marks = append(marks, n.mark(t))
		n.hashAt(t, marks[len(marks)-1])
	}
	if _, err := n.HashAt(t.Context(), marks[0]); !errors.Is(err, ErrNoHash) {
		t.Errorf("HashAt a mark that is too old = %v; want ErrNoHash", err)
	}
	if n.hashAt(t, marks[1]).Hash != n.hashAt(t, marks[marksKept]).Hash {
		t.Error("two marks without a change between them differ")
	}

	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := n.HashAt(ctx, n.raft.LastIndex()+1000); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("HashAt what is not applied = %v; want DeadlineExceeded", err)
	}
	got := make(chan error)
	next := n.raft.LastIndex() + 1
	go func() {
		_, err := n.HashAt(context.Background(), next)
		got <- err
	}()
	if index := n.mark(t); index != next {
		t.Fatalf("mark is at %d; want %d", index, next)
	}
	if err := <-got; err != nil {
		t.Errorf("HashAt of a mark to come = %v", err)
	}

	run := n.pinned(t)
	busy := n.mark(t)
	if _, err := n.HashAt(t.Context(), busy); !errors.Is(err, ErrNoHash) {
		t.Errorf("HashAt a mark amid another hash = %v; want ErrNoHash", err)
	}
	n.fsm.hashes.sum(t.Context(), run)

	run = n.pinned(t)
	go func() {
		<-run.cut
		n.fsm.hashes.sum(context.Background(), run)
	}()
	n.hashAt(t, n.mark(t)) // goes before a hash that is of no place in particular
	if <-run.round.done; !errors.Is(run.round.err, errHashCut) {
		t.Errorf("the hash before the mark has %v; want errHashCut", run.round.err)
	}

	n.restart(t)
	waitLeader(t, n)
	if _, err := n.HashAt(t.Context(), busy); !errors.Is(err, ErrNoHash) {
		t.Errorf("HashAt a mark of before the restart = %v; want ErrNoHash", err)
	}
}

// TestHashRefused asks nodes that have nothing worth a hash.
func TestHashRefused(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		spoil func(n *node)
		want  error
	}{
		{"failed", func(n *node) { n.fail(errors.New("disk is gone")) }, ErrNotReady},
		{"restoring", func(n *node) { n.fsm.restoring.Store(true) }, ErrNotReady},
		{"silent", func(n *node) {
			n.logs.floor.Store(&standing{Index: 1 << 40})
			n.logs.returning.Store(true)
		}, ErrNotReady},
		{"closing", func(n *node) { n.beginClose() }, ErrNotOpen},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := newSingle(t)
			tt.spoil(n)
			if _, err := n.Hash(t.Context()); !errors.Is(err, tt.want) {
				t.Errorf("Hash = %v; want %v", err, tt.want)
			}
			if _, err := n.HashAt(t.Context(), 1); !errors.Is(err, tt.want) {
				t.Errorf("HashAt = %v; want %v", err, tt.want)
			}
		})
	}
}

// TestHashMarkBeforeHash sets a mark after Hash was asked for and before it has begun.
func TestHashMarkBeforeHash(t *testing.T) {
	t.Parallel()
	n := newSingle(t)
	n.exec(t, "CREATE TABLE foo (v TEXT)")
	n.fsm.turn.take()
	h := n.fsm.hashes
	now := h.asked.join()
	eventually(t, "the hash to wait for its turn", func() error {
		if h.asked.join() == now {
			return errors.New("not yet")
		}
		return nil
	})
	index := n.raft.LastIndex() + 1
	h.set(n.db, index)
	n.fsm.turn.give()
	<-now.done
	<-h.at(index).done
	if got := h.at(index); now.err != nil || got.err != nil || got.value.Hash != now.value.Hash {
		t.Errorf("hash %+v, %v; mark %+v, %v", now.value, now.err, got.value, got.err)
	}
}

// TestSnapshotBesideHash takes a snapshot while a hash keeps the WAL from being moved: it waits for the
// hash, and it does not wait for ever.
func TestSnapshotBesideHash(t *testing.T) {
	t.Parallel()
	n := newSingle(t)
	n.exec(t, "CREATE TABLE foo (v TEXT)", "INSERT INTO foo VALUES(zeroblob(10000))")
	for _, cut := range []bool{false, true} {
		t.Run(fmt.Sprintf("cut %t", cut), func(t *testing.T) {
			run := n.pinned(t)
			n.exec(t, "INSERT INTO foo VALUES('behind the pinned state')")
			done := make(chan error)
			go func() { done <- n.Snapshot(t.Context(), 0) }()
			eventually(t, "a refused capture", func() error {
				if err := n.fsm.captureErr.Load(); err == nil || !errors.Is(*err, errHashing) {
					return errors.New("none yet")
				}
				return nil
			})
			if cut {
				n.fsm.turn.take()
				n.fsm.hashes.refused = time.Now().Add(-hashPatience)
				n.fsm.turn.give()
				if _, err := n.fsm.Snapshot(); !errors.Is(err, errHashing) {
					t.Errorf("Snapshot while a hash does not end = %v; want errHashing", err)
				}
				<-run.cut
			}
			n.fsm.hashes.sum(t.Context(), run)
			if err := <-done; err != nil {
				t.Errorf("Snapshot = %v", err)
			}
			if err := run.round.err; errors.Is(err, errHashCut) != cut {
				t.Errorf("the hash has %v", err)
			}
			n.fsm.turn.take()
			defer n.fsm.turn.give()
			if !n.fsm.hashes.refused.IsZero() {
				t.Error("the capture counts as refused still")
			}
		})
	}
}

// TestHashAfterCut lets Hash be cut short: it goes on by itself.
func TestHashAfterCut(t *testing.T) {
	t.Parallel()
	n := newSingle(t)
	n.exec(t, "CREATE TABLE foo (v TEXT)")
	n.fsm.turn.take()
	r := n.fsm.hashes.asked.join()
	done := make(chan error)
	go func() {
		_, err := n.Hash(context.Background())
		done <- err
	}()
	eventually(t, "the first to begin", func() error {
		if n.fsm.hashes.asked.join() == r {
			return errors.New("not yet")
		}
		return nil
	})
	cut := n.fsm.hashes.asked.begin() // instead of runHashes
	cut.end(StateHash{}, errHashCut)
	n.fsm.turn.give()
	if err := <-done; err != nil {
		t.Errorf("Hash = %v", err)
	}
}

// TestHashAndSnapshots has both asked for all the time, beside writes: neither keeps the other from
// its work.
func TestHashAndSnapshots(t *testing.T) {
	t.Parallel()
	n := newSingle(t)
	n.exec(t, "CREATE TABLE foo (id INTEGER PRIMARY KEY, v)")
	ctx, stop := context.WithTimeout(t.Context(), 700*time.Millisecond)
	defer stop()
	hashed := make(chan int)
	for range 2 {
		go func() {
			i := 0
			for ctx.Err() == nil {
				if _, err := n.Hash(ctx); err == nil {
					i++
				} else if ctx.Err() == nil {
					t.Errorf("Hash = %v", err)
				}
			}
			hashed <- i
		}()
	}
	snapshots := make(chan int)
	go func() {
		i := 0
		for ctx.Err() == nil {
			err := n.Snapshot(context.WithoutCancel(ctx), 0)
			if err == nil {
				i++
			} else if !errors.Is(err, ErrNothingNew) {
				t.Errorf("Snapshot = %v", err)
			}
		}
		snapshots <- i
	}()
	for ctx.Err() == nil {
		n.exec(t, "INSERT INTO foo(v) VALUES(randomblob(1000))")
		n.mark(t)
	}
	h, s := min(<-hashed, <-hashed), <-snapshots
	t.Logf("%d hashes, %d snapshots", h, s)
	if h < 3 || s < 3 {
		t.Errorf("%d hashes and %d snapshots", h, s)
	}
}

// TestCloseAmidHash stops a node while a hash is under way.
func TestCloseAmidHash(t *testing.T) {
	t.Parallel()
	n := newSingle(t)
	n.exec(t, "CREATE TABLE foo (v TEXT)")
	s := n.Store
	run := n.pinned(t)
	index := n.raft.LastIndex() + 1
	done := make(chan error, 3)
	go func() {
		_, err := s.Hash(context.Background())
		done <- err
	}()
	go func() {
		_, err := s.HashAt(context.Background(), index)
		done <- err
	}()
	go func() { done <- s.waitRun(run) }()
	begun := time.Now()
	n.close(t)
	for range 3 {
		if err := <-done; !errors.Is(err, ErrNotOpen) {
			t.Errorf("hash of a node that is closed = %v; want ErrNotOpen", err)
		}
	}
	if took := time.Since(begun); took > drainTime {
		t.Errorf("Close took %s", took)
	}
	if _, err := run.Sum(t.Context()); err == nil {
		t.Error("the pinned state outlived the database")
	}
}

func (s *Store) waitRun(r *hashRun) error {
	_, err := s.waitHash(context.Background(), r.round)
	return err
}

// TestHashReplaced makes sure that no mark outlives the database: the log of a leader that was recovered
// may have another one at the same index.
func TestHashReplaced(t *testing.T) {
	t.Parallel()
	n := newSingle(t)
	n.exec(t, "CREATE TABLE foo (v TEXT)")
	index := n.mark(t)
	n.hashAt(t, index)
	n.snapshot(t, 0)
	n.exec(t, "INSERT INTO foo VALUES('a')")
	run := n.pinned(t)
	head, _ := n.snaps.Head()
	_, rc, err := n.snaps.Open(head.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.fsm.Restore(rc); err != nil {
		t.Fatal(err)
	}
	rc.Close()
	select {
	case <-run.cut:
	default:
		t.Error("the hash of the old database goes on")
	}
	n.fsm.hashes.sum(t.Context(), run)
	if !errors.Is(run.round.err, errHashCut) {
		t.Errorf("hash of the old database has %v; want errHashCut", run.round.err)
	}
	if _, err := n.HashAt(t.Context(), index); !errors.Is(err, ErrNoHash) {
		t.Errorf("HashAt of the old database = %v; want ErrNoHash", err)
	}
	if got := n.hash(t); got.Index != head.Index {
		t.Errorf("Hash = %+v; want that of index %d", got, head.Index)
	}
}

func BenchmarkTurn(b *testing.B) {
	turn := newTurn()
	for b.Loop() {
		turn.take()
		turn.give()
	}
}
