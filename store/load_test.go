package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"rqlited/command"
	"rqlited/db"
)

// fileOf returns a SQLite file with a table "loaded" of so many rows of random bytes, of 1000 each, in WAL
// mode or not.
func fileOf(t testing.TB, rows int, format command.BackupFormat) []byte {
	t.Helper()
	d, err := db.Open(filepath.Join(t.TempDir(), "db.sqlite"), db.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	q := fmt.Sprintf("CREATE TABLE loaded (id INTEGER PRIMARY KEY, v BLOB); INSERT INTO loaded(v) WITH RECURSIVE c(i) AS "+
		"(SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<%d) SELECT randomblob(1000) FROM c", rows)
	resp, err := d.Apply(&command.Entry{Kind: command.Execute, Seed: 7, Request: request(command.Execute, command.Weak, q)})
	if err != nil || resp.Results[0].Error != "" {
		t.Fatalf("%+v, %v", resp, err)
	}
	b, err := d.BeginBackup()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := b.Write(t.Context(), &out, &command.BackupRequest{Format: format}); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// hashOfFile returns the state hash of a file.
func hashOfFile(t testing.TB, data []byte) string {
	t.Helper()
	d, err := db.Open(filepath.Join(t.TempDir(), "db.sqlite"), db.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if resp, err := d.Apply(&command.Entry{Kind: command.Load, Data: data}); err != nil || len(resp.Results) > 0 {
		t.Fatalf("%+v, %v", resp, err)
	}
	h, err := d.BeginHash()
	if err != nil {
		t.Fatal(err)
	}
	sum, err := h.Sum(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// sameHash waits until all nodes have the state of that hash.
func sameHash(t *testing.T, want string, nodes ...*node) {
	t.Helper()
	for _, n := range nodes {
		eventually(t, "the state of "+n.cfg.NodeID, func() error {
			h, err := n.Hash(t.Context())
			if err == nil && h.Hash != want {
				err = fmt.Errorf("hash is %s; want %s", h.Hash, want)
			}
			return err
		})
	}
}

func noFiles(t *testing.T, n *node) {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(n.cfg.Dir, dbFile+".*"))
	if err != nil || len(left) > 0 {
		t.Errorf("%s has %q left, %v", n.cfg.NodeID, left, err)
	}
}

// TestLoad loads files of one chunk and of several, and restarts and adds nodes behind that.
func TestLoad(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3, nil)
	leader := waitLeader(t, nodes...)
	leader.exec(t, "CREATE TABLE before (x)")
	for _, f := range []struct {
		rows   int
		format command.BackupFormat
	}{{1, command.BackupBinary}, {3500, command.BackupDelete}} {
		file := fileOf(t, f.rows, f.format)
		index, err := leader.Load(t.Context(), bytes.NewReader(file))
		if err != nil || index != leader.fsm.progress.index() {
			t.Fatalf("Load = %d, %v; applied is %d", index, err, leader.fsm.progress.index())
		}
		sameHash(t, hashOfFile(t, file), nodes...)
	}
	leader.exec(t, "INSERT INTO loaded(v) VALUES('after')")
	follower := without(nodes, leader)[0]
	follower.restart(t)
	leader = waitLeader(t, nodes...)
	follower.waitRows(t, "SELECT count(*), max(v='after') FROM loaded", "3501 1")
	leader.snapshot(t, 1)
	fullRestart(t, leader)
	waitLeader(t, nodes...)
	leader.waitRows(t, "SELECT count(*), max(v='after') FROM loaded", "3501 1")
	for _, n := range nodes {
		noFiles(t, n)
	}
}

func TestLoadRefused(t *testing.T) {
	t.Parallel()
	n := newSingle(t)
	n.exec(t, "CREATE TABLE foo (x)")
	last := n.CommitIndex()
	damaged := fileOf(t, 20, command.BackupBinary)
	copy(damaged[4096:], bytes.Repeat([]byte{0xff}, 4096))
	broken := errors.New("connection broken")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	tests := []struct {
		name string
		ctx  context.Context
		r    io.Reader
		want error
	}{
		{"empty", t.Context(), strings.NewReader(""), ErrInvalidData},
		{"text", t.Context(), strings.NewReader("CREATE TABLE bar (x)"), ErrInvalidData},
		{"damaged", t.Context(), bytes.NewReader(damaged), ErrInvalidData},
		{"broken", t.Context(), io.MultiReader(bytes.NewReader(damaged), brokenReader{broken}), broken},
		{"ended", ended, bytes.NewReader(damaged), context.Canceled},
	}
	for _, tt := range tests {
		if _, err := n.Load(tt.ctx, tt.r); !errors.Is(err, tt.want) {
			t.Errorf("%s: Load = %v; want %v", tt.name, err, tt.want)
		}
		if tt.name == "broken" {
			continue // no more data is another case for Boot
		}
		if err := n.Boot(tt.ctx, tt.r); err == nil {
			t.Errorf("%s: Boot succeeded", tt.name)
		}
	}
	if n.CommitIndex() != last {
		t.Error("something of it reached the log")
	}
	noFiles(t, n)
	n.snapshot(t, 0)
}

type brokenReader struct{ err error }

func (r brokenReader) Read([]byte) (int, error) { return 0, r.err }

// chunk puts a chunk into the log.
func (n *node) chunk(t *testing.T, c command.Chunk) {
	t.Helper()
	resp, err := n.propose(t.Context(), &command.Entry{Kind: command.LoadChunk, Chunk: &c})
	if err != nil || len(resp.Results) > 0 {
		t.Fatalf("chunk %d: %+v, %v", c.Sequence, resp, err)
	}
}

// beginLoad puts the first chunk of a load into the log, which this node counts as its own.
func (n *node) beginLoad(t *testing.T, file []byte) {
	t.Helper()
	n.fsm.transfers.setOwn("begun")
	n.chunk(t, command.Chunk{Stream: "begun", Sequence: 1, Data: file[:2000]})
}

// waitNoLoad waits until a load that was begun is taken back, which lets snapshots be taken.
func waitNoLoad(t *testing.T, nodes ...*node) {
	t.Helper()
	for _, n := range nodes {
		eventually(t, "the end of the load on "+n.cfg.NodeID, func() error {
			if open := n.fsm.transfers.open.Load(); open > 0 {
				return fmt.Errorf("%d loads are under way", open)
			}
			return nil
		})
		n.snapshot(t, 0)
		noFiles(t, n)
	}
}

// TestLoadCut ends loads between their chunks, in each of the ways in which that may happen. The database stays as it
// was, on all nodes, and the log can be shortened again.
func TestLoadCut(t *testing.T) {
	t.Parallel()
	file := fileOf(t, 20, command.BackupBinary)
	t.Run("given up", func(t *testing.T) {
		t.Parallel()
		n := newSingle(t)
		n.exec(t, "CREATE TABLE foo (x)")
		n.beginLoad(t, file)
		if err := n.Snapshot(t.Context(), 0); !errors.Is(err, ErrBusy) {
			t.Errorf("Snapshot amid a load = %v; want ErrBusy", err)
		}
		n.exec(t, "INSERT INTO foo VALUES(1)")
		n.fsm.transfers.setOwn("")
		waitNoLoad(t, n)
		n.waitRows(t, "SELECT x FROM foo", "1")
	})
	t.Run("restart", func(t *testing.T) {
		t.Parallel()
		n := newSingle(t)
		n.exec(t, "CREATE TABLE foo (x)")
		n.beginLoad(t, file)
		n.exec(t, "INSERT INTO foo VALUES(1)")
		n.restart(t)
		waitLeader(t, n)
		waitNoLoad(t, n)
		n.waitRows(t, "SELECT x FROM foo", "1")
	})
	t.Run("stepdown", func(t *testing.T) {
		t.Parallel()
		nodes := newCluster(t, 3, nil)
		leader := waitLeader(t, nodes...)
		leader.exec(t, "CREATE TABLE foo (x)", "INSERT INTO foo VALUES(1)")
		leader.beginLoad(t, file)
		if err := leader.Stepdown(t.Context(), "", true); err != nil {
			t.Fatal(err)
		}
		waitNoLoad(t, nodes...)
		leader.waitRows(t, "SELECT x FROM foo", "1")
		// The former leader goes on, in vain.
		if now := waitLeader(t, nodes...); now != leader {
			if _, err := leader.propose(t.Context(), &command.Entry{Kind: command.LoadChunk, Chunk: &command.Chunk{Stream: "begun", Sequence: 2}}); !errors.Is(err, ErrNotLeader) {
				t.Errorf("further chunk = %v; want ErrNotLeader", err)
			}
		}
	})
	t.Run("follower restarts", func(t *testing.T) {
		t.Parallel()
		nodes := newCluster(t, 3, nil)
		leader := waitLeader(t, nodes...)
		follower := without(nodes, leader)[0]
		leader.exec(t, "CREATE TABLE foo (x)")
		follower.waitRows(t, "SELECT count(*) FROM foo", "0")
		leader.snapshot(t, 1)
		leader.beginLoad(t, file)
		follower.restart(t)
		leader.chunk(t, command.Chunk{Stream: "begun", Sequence: 2, Data: file[2000:]})
		leader.chunk(t, command.Chunk{Stream: "begun", Sequence: 3, Last: true})
		sameHash(t, hashOfFile(t, file), nodes...)
	})
}

// TestLoadLeaderDies kills leaders of loads of many chunks. Either all nodes get the file or none.
func TestLoadLeaderDies(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3, nil)
	leader := waitLeader(t, nodes...)
	leader.exec(t, "CREATE TABLE foo (x)")
	file := fileOf(t, 8000, command.BackupBinary)
	from := leader.CommitIndex()
	done := make(chan error, 1)
	s := leader.Store
	go func() {
		_, err := s.Load(context.Background(), bytes.NewReader(file))
		done <- err
	}()
	eventually(t, "some chunks", func() error {
		if s.CommitIndex() < from+3 {
			return errors.New("not yet")
		}
		return nil
	})
	leader.close(t)
	err := <-done
	t.Logf("Load = %v", err)
	rest := without(nodes, leader)
	waitLeader(t, rest...)
	waitNoLoadOrLoaded(t, rest...)
	leader.open(t)
	now := waitLeader(t, nodes...)
	h, err := now.Hash(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	sameHash(t, h.Hash, nodes...)
}

func waitNoLoadOrLoaded(t *testing.T, nodes ...*node) {
	t.Helper()
	for _, n := range nodes {
		eventually(t, "the end of the load on "+n.cfg.NodeID, func() error {
			if open := n.fsm.transfers.open.Load(); open > 0 {
				return fmt.Errorf("%d loads are under way", open)
			}
			return nil
		})
	}
}

// TestLargeLog loads more than may stay in the log, which is shortened on all nodes.
func TestLargeLog(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3, func(c *Config) { c.Snapshot.Interval = 50 * time.Millisecond })
	for _, n := range nodes {
		n.fsm.transfers.limit.Store(3 << 20)
	}
	leader := waitLeader(t, nodes...)
	file := fileOf(t, 5000, command.BackupBinary)
	index, err := leader.Load(t.Context(), bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		eventually(t, "a shorter log on "+n.cfg.NodeID, func() error {
			first, last, err := n.logs.bounds()
			if err == nil && first < index {
				err = fmt.Errorf("log has %d to %d, the load ends at %d", first, last, index)
			}
			return err
		})
	}
	sameHash(t, hashOfFile(t, file), nodes...)
}

// TestLargeEntries keeps them out of memory: there would be hundreds of them.
func TestLargeEntries(t *testing.T) {
	t.Parallel()
	l := newLog(t, filepath.Join(t.TempDir(), logFile))
	for i, size := range []int{largeEntry - 1, largeEntry} {
		e := raft.Log{Index: uint64(i) + 1, Term: 1, Data: make([]byte, size)}
		if err := l.StoreLog(&e); err != nil {
			t.Fatal(err)
		}
		var got raft.Log
		if err := l.GetLog(e.Index, &got); err != nil || len(got.Data) != size {
			t.Errorf("entry of %d bytes is one of %d, %v", size, len(got.Data), err)
		}
	}
	if err := l.bolt.DeleteRange(1, 2); err != nil { // behind the back of the cache
		t.Fatal(err)
	}
	for i, cached := range []bool{true, false} {
		if err := l.LogCache.GetLog(uint64(i)+1, new(raft.Log)); (err == nil) != cached {
			t.Errorf("entry %d is in memory: %t; want %t", i+1, err == nil, cached)
		}
	}
}

func TestBackup(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3, nil)
	leader := waitLeader(t, nodes...)
	leader.exec(t, "CREATE TABLE foo (x)", "INSERT INTO foo VALUES(1)")
	follower := without(nodes, leader)[0]
	follower.waitRows(t, "SELECT x FROM foo", "1")
	h, err := leader.Hash(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, req := range []command.BackupRequest{
		{Format: command.BackupBinary}, {Format: command.BackupDelete}, {Format: command.BackupBinary, Vacuum: true},
	} {
		for _, n := range []*node{leader, follower} {
			var out bytes.Buffer
			if err := n.Backup(t.Context(), &req, &out); err != nil {
				t.Fatalf("Backup(%+v) = %v", req, err)
			}
			if got := hashOfFile(t, out.Bytes()); got != h.Hash {
				t.Errorf("Backup(%+v) has hash %s; want %s", req, got, h.Hash)
			}
		}
	}
	var out bytes.Buffer
	if err := leader.Backup(t.Context(), &command.BackupRequest{Format: command.BackupSQL, Leader: true}, &out); err != nil ||
		out.String() != "PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\nCREATE TABLE foo (x);\nINSERT INTO \"foo\" VALUES(1);\nCOMMIT;\n" {
		t.Errorf("Backup as SQL = %q, %v", out.String(), err)
	}
	if err := follower.Backup(t.Context(), &command.BackupRequest{Format: command.BackupSQL, Leader: true}, &out); !errors.Is(err, ErrNotLeader) {
		t.Errorf("Backup of the leader on a follower = %v; want ErrNotLeader", err)
	}
	_, err = follower.Load(t.Context(), brokenReader{errors.New("was read")})
	if bootErr := follower.Boot(t.Context(), brokenReader{errors.New("was read")}); !errors.Is(err, ErrNotLeader) || !errors.Is(bootErr, ErrNotLeader) {
		t.Errorf("on a follower Load = %v, Boot = %v; want ErrNotLeader", err, bootErr)
	}
	if err := leader.Boot(t.Context(), brokenReader{errors.New("was read")}); !errors.Is(err, ErrNotSingle) {
		t.Errorf("Boot of a cluster = %v; want ErrNotSingle", err)
	}
	if e, ok := errors.AsType[*RequestError](leader.Backup(t.Context(), &command.BackupRequest{Format: command.BackupSQL, Vacuum: true}, &out)); !ok || e.Msg != "invalid backup format" {
		t.Errorf("Backup as vacuumed SQL = %v", e)
	}
}

// stuckWriter takes nothing before it is let go.
type stuckWriter struct{ begun, goOn chan struct{} }

func (w stuckWriter) Write(p []byte) (int, error) {
	w.begun <- struct{}{}
	<-w.goOn
	return len(p), nil
}

// TestBackupStuck has as many clients as there may be that take nothing. The node goes on with everything.
func TestBackupStuck(t *testing.T) {
	t.Parallel()
	n := newSingle(t)
	n.exec(t, "CREATE TABLE foo (x)")
	req := command.BackupRequest{Format: command.BackupBinary}
	w := stuckWriter{make(chan struct{}, maxBackups), make(chan struct{})}
	done := make(chan error, maxBackups)
	for range maxBackups {
		go func() { done <- n.Backup(context.Background(), &req, w) }()
	}
	for range maxBackups {
		<-w.begun
	}
	if err := n.Backup(t.Context(), &req, io.Discard); !errors.Is(err, ErrOverloaded) {
		t.Errorf("one backup more = %v; want ErrOverloaded", err)
	}
	n.exec(t, "INSERT INTO foo VALUES(1)")
	n.snapshot(t, 0)
	close(w.goOn)
	for range maxBackups {
		if err := <-done; err != nil {
			t.Errorf("Backup = %v", err)
		}
	}
	noFiles(t, n)
}

func TestBoot(t *testing.T) {
	t.Parallel()
	n := newSingle(t)
	n.exec(t, "CREATE TABLE foo (x)")
	n.snapshot(t, 0)
	n.exec(t, "INSERT INTO foo VALUES(1)")
	if err := n.Boot(t.Context(), strings.NewReader("SQLite format 3")); err != io.EOF {
		t.Errorf("Boot of too little = %v; want io.EOF", err)
	}
	if err := n.Boot(t.Context(), strings.NewReader(strings.Repeat("text", 20))); !errors.Is(err, ErrInvalidData) {
		t.Errorf("Boot of a text = %v; want ErrInvalidData", err)
	}
	for i, format := range []command.BackupFormat{command.BackupDelete, command.BackupBinary} {
		file := fileOf(t, 3000*(i+1), format)
		before := n.CommitIndex()
		if err := n.Boot(t.Context(), bytes.NewReader(file)); err != nil {
			t.Fatal(err)
		}
		sameHash(t, hashOfFile(t, file), n)
		if head, _ := n.snaps.Head(); head.Index <= before || n.db.Head() != head.ID {
			t.Errorf("head is %+v, that of the database %s; the log ended at %d", head, n.db.Head(), before)
		}
		noFiles(t, n)
	}
	n.exec(t, "INSERT INTO loaded(v) VALUES('after')")
	n.restart(t)
	waitLeader(t, n)
	if c := n.Counters(); c["num_restores_start_skipped"] != 1 {
		t.Errorf("the booted database was not kept by a restart: %v", c)
	}
	n.snapshot(t, 0) // a delta upon what was booted
	fullRestart(t, n)
	waitLeader(t, n)
	n.waitRows(t, "SELECT count(*) FROM loaded", "6001")
	// Another node gets it, although the log does not have it.
	other := newNode(t, "n2")
	other.open(t)
	if err := n.Join(t.Context(), other.server()); err != nil {
		t.Fatal(err)
	}
	other.waitRows(t, "SELECT count(*) FROM loaded", "6001")
}

// TestBootDiskFails lets the restore behind the publication fail: the node stops, and has the new database when it is
// started again.
func TestBootDiskFails(t *testing.T) {
	t.Parallel()
	n := newSingle(t)
	n.exec(t, "CREATE TABLE foo (x)")
	name := filepath.Join(n.cfg.Dir, restoreFile)
	if err := os.Mkdir(name, 0o700); err != nil {
		t.Fatal(err)
	}
	file := fileOf(t, 100, command.BackupBinary)
	if err := n.Boot(t.Context(), bytes.NewReader(file)); !errors.Is(err, ErrUnknown) {
		t.Errorf("Boot = %v; want ErrUnknown", err)
	}
	if err := n.Wait(); err == nil {
		t.Error("the node goes on")
	}
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	n.restart(t)
	waitLeader(t, n)
	sameHash(t, hashOfFile(t, file), n)
}
