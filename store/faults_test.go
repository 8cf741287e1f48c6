package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"rqlited/command"
	"rqlited/snapshot"
)

// The tests in files faults_*_test.go, here and in other packages, provoke what has broken other
// snapshot stores. docs/design/known-faults.md says what went wrong there; numbers are those of
// rqlite's tracker.

// kill stops n so that its files are as they were when this was called, which is what kill -9 leaves.
// They are in another place after that.
func (n *node) kill(t *testing.T) {
	t.Helper()
	left := copyDir(t, n.cfg.Dir)
	n.close(t)
	n.cfg.Dir = left
}

// copyDir copies a directory with all times.
func copyDir(t *testing.T, from string) (to string) {
	t.Helper()
	to = filepath.Join(t.TempDir(), "killed")
	err := filepath.WalkDir(from, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		dest := filepath.Join(to, strings.TrimPrefix(name, from))
		if d.IsDir() {
			return os.MkdirAll(dest, 0o755)
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		data, err := os.ReadFile(name)
		return errors.Join(err, os.WriteFile(dest, data, 0o600), os.Chtimes(dest, time.Time{}, info.ModTime()))
	})
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// lead starts n and waits until it leads.
func (n *node) lead(t *testing.T) {
	t.Helper()
	n.open(t)
	waitLeader(t, n)
}

// hurry is for a node that has nobody to lose its leadership to.
func (n *node) hurry() {
	r := &n.cfg.Raft
	r.HeartbeatTimeout, r.ElectionTimeout, r.LeaderLeaseTimeout = 50*time.Millisecond, 50*time.Millisecond, 50*time.Millisecond
}

// twice is a table without a key and a counter: what is applied twice, or not at all, shows.
const (
	twiceTables = "CREATE TABLE list (v INTEGER); CREATE TABLE counter (n INTEGER); INSERT INTO counter VALUES (0)"
	twiceCount  = "SELECT (SELECT count(*) FROM list), (SELECT n FROM counter)"
)

func (n *node) addTwice(t *testing.T, rows int) {
	t.Helper()
	for range rows {
		n.exec(t, "INSERT INTO list VALUES(1)", "UPDATE counter SET n=n+1")
	}
}

func (n *node) wantTwice(t *testing.T, when string, rows int) {
	t.Helper()
	if got, want := n.rows(t, command.Weak, twiceCount), fmt.Sprint(rows, " ", rows); got != want {
		t.Errorf("%s: %q; want %q", when, got, want)
	}
}

func newTwice(t *testing.T) *node {
	t.Helper()
	n := newSingle(t)
	n.exec(t, strings.Split(twiceTables, "; ")...)
	return n
}

// applyEntry puts an entry that no client can make any more into the log.
func (n *node) applyEntry(t *testing.T, e *command.Entry) outcome {
	t.Helper()
	data, err := command.EncodeEntry(nil, e)
	if err != nil {
		t.Fatal(err)
	}
	f := n.raft.Apply(data, waitFor)
	if err := f.Error(); err != nil {
		t.Fatal(err)
	}
	return f.Response().(outcome)
}

// databaseFile returns a SQLite file.
func databaseFile(t *testing.T, statements ...string) []byte {
	t.Helper()
	n := newSingle(t)
	n.exec(t, statements...)
	n.snapshot(t, 0) // moves everything into the main file
	n.close(t)
	data, err := os.ReadFile(filepath.Join(n.cfg.Dir, dbFile))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestFault1303: only the newest snapshot was kept, and nothing was left when that was damaged. Here a
// node that cannot trust its files has everything all the same, or does not start. It never has less.
func TestFault1303(t *testing.T) {
	t.Parallel()
	n := newTwice(t)
	n.exec(t, "CREATE TABLE bulk (v)", "INSERT INTO bulk VALUES(zeroblob(100000))")
	n.addTwice(t, 3)
	n.snapshot(t, 1)
	n.addTwice(t, 2)
	n.snapshot(t, 1)
	n.addTwice(t, 1)
	n.kill(t)
	whole := n.cfg.Dir
	files, err := filepath.Glob(filepath.Join(whole, snapshotsDir, "0*"))
	if err != nil || len(files) != 2 {
		t.Fatalf("snapshots are %q, %v; want a base and a delta", files, err)
	}
	for _, name := range files {
		n.cfg.Dir = copyDir(t, whole)
		n.dropMarker(t)
		name = filepath.Join(n.cfg.Dir, snapshotsDir, filepath.Base(name))
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		data[len(data)/2] ^= 4
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
		switch err := n.tryOpen(t); {
		case err == nil:
			waitLeader(t, n)
			n.wantTwice(t, filepath.Base(name), 6)
			n.close(t)
		case !errors.Is(err, snapshot.ErrDamaged):
			t.Errorf("%s: Open = %v; want %v", filepath.Base(name), err, snapshot.ErrDamaged)
		}
	}
	n.cfg.Dir = whole
	n.lead(t)
	n.wantTwice(t, "undamaged", 6)
}

// TestFault1318: how far the database was had been written to a file beside it, now and then, and
// later to the log's own file (#1705, #1706), and was wrong after a kill. Here no file says that, and
// what an older program has left in the log's file says nothing.
func TestFault1318(t *testing.T) {
	t.Parallel()
	n := newTwice(t)
	rows := 0
	for i := range 4 {
		n.addTwice(t, 3)
		rows += 3
		if i%2 == 1 {
			n.snapshot(t, uint64(i))
		}
		if err := n.logs.bolt.Set([]byte("applied_index"), bytes.Repeat([]byte{0x7f}, 8)); err != nil {
			t.Fatal(err)
		}
		n.kill(t)
		n.lead(t)
		n.wantTwice(t, fmt.Sprintf("kill %d", i), rows)
	}
}

// TestFault1324: readers of restored snapshots stayed open.
func TestFault1324(t *testing.T) {
	n := newTwice(t)
	n.addTwice(t, 3)
	n.snapshot(t, 0)
	var first int
	for i := range 5 {
		fullRestart(t, n)
		if got := n.snaps.Stats().Readers; got != 0 {
			t.Fatalf("restart %d: %d readers are open", i, got)
		}
		n.close(t)
		runtime.GC() // would hide nothing: files that are forgotten are closed by it
		open, err := os.ReadDir("/proc/self/fd")
		if err == nil && i > 0 && len(open) > first {
			t.Errorf("restart %d: %d files are open; want %d", i, len(open), first)
		}
		first = len(open)
		n.lead(t)
	}
}

// TestFault1460: a node did not start after a snapshot that left no log, or one entry of it (also #1468, #1469, #1480).
func TestFault1460(t *testing.T) {
	t.Parallel()
	for _, trailing := range []uint64{0, 1} {
		t.Run(fmt.Sprint(trailing), func(t *testing.T) {
			n := newTwice(t)
			n.addTwice(t, 3)
			c := n.raft.ReloadableConfig()
			c.TrailingLogs = trailing
			if err := n.raft.ReloadConfig(c); err != nil {
				t.Fatal(err)
			}
			n.snapshot(t, 0)
			first, last, err := n.logs.bounds()
			if left := last - first + 1; err != nil || trailing == 0 && last != 0 || trailing == 1 && left != 1 {
				t.Fatalf("log is %d to %d, %v: not what this test is for", first, last, err)
			}
			for range 2 {
				n.kill(t)
				n.lead(t)
			}
			n.addTwice(t, 1)
			n.wantTwice(t, "after two restarts", 4)
			late := newNode(t, "n2")
			late.open(t)
			if err := n.Join(t.Context(), Server{ID: "n2", Addr: late.cfg.Addr}); err != nil {
				t.Fatal(err)
			}
			late.waitRows(t, twiceCount, "4 4")
		})
	}
}

// TestFault1464: entries that change nothing made snapshots fail, or filled the log for ever.
func TestFault1464(t *testing.T) {
	t.Parallel()
	n := newNode(t, "n1")
	n.cfg.Snapshot.Threshold, n.cfg.Snapshot.Interval = 8, 10*time.Millisecond
	n.hurry()
	n.open(t)
	if err := n.Bootstrap(t.Context(), []Server{n.server()}); err != nil {
		t.Fatal(err)
	}
	waitLeader(t, n)
	n.exec(t, strings.Split(twiceTables, "; ")...)
	n.addTwice(t, 2)
	for range 15 {
		n.exec(t, "DELETE FROM list WHERE v='x'")
		n.rows(t, command.Strong, "SELECT 1")
	}
	eventually(t, "a log that is shortened", func() error {
		first, last, err := n.logs.bounds()
		if err == nil && last-first > 20 {
			n.rows(t, command.Strong, "SELECT 1")
			err = fmt.Errorf("log is %d to %d", first, last)
		}
		return err
	})
	n.close(t)
	n.dropMarker(t)
	n.lead(t)
	n.wantTwice(t, "after a full restore", 2)
}

// TestFault1502: files on their way were put into the system's directory for temporary files, which
// may be full, or on another disk. Here there is none.
func TestFault1502(t *testing.T) {
	t.Setenv("TMPDIR", filepath.Join(t.TempDir(), "gone")) // t.TempDir has its place by now
	t.Setenv("SQLITE_TMPDIR", os.Getenv("TMPDIR"))
	if f, err := os.CreateTemp("", "x"); err == nil {
		f.Close()
		t.Fatal("there is a directory for temporary files: not what this test is for")
	}
	n := newTwice(t)
	n.addTwice(t, 2)
	n.snapshot(t, 1)
	fullRestart(t, n)
	waitLeader(t, n)
	n.addTwice(t, 1)
	n.kill(t)
	n.writePeers(t, n)
	n.lead(t)
	n.addTwice(t, 1)
	n.snapshot(t, 1)
	n.wantTwice(t, "after a restore and a recovery", 4)
}

// TestFault1536: figures were read from a database that was being exchanged. The race detector looks on.
func TestFault1536(t *testing.T) {
	t.Parallel()
	file := databaseFile(t, strings.Split(twiceTables, "; ")...)
	n := newTwice(t)
	stop := make(chan struct{})
	var others sync.WaitGroup
	for range 2 {
		others.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := n.Stats(); err != nil {
					t.Errorf("Stats = %v", err)
				}
				n.Counters()
				if _, err := n.tryRows(t.Context(), command.None, "SELECT count(*) FROM list"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 3 {
		n.addTwice(t, 1)
		if err := n.Snapshot(t.Context(), 1); err != nil && !errors.Is(err, ErrBusy) {
			t.Error(err)
		}
		if o := n.applyEntry(t, &command.Entry{Kind: command.Load, Data: file}); o.err != nil {
			t.Error(o.err)
		}
	}
	close(stop)
	others.Wait()
	n.wantTwice(t, "after the last load", 0)
}

// TestFault1581: a load through the log exchanged the file, and the next increment was laid upon what
// had been there before (also #1582, #1583). This is the history of the one who reported it.
func TestFault1581(t *testing.T) {
	t.Parallel()
	file := databaseFile(t, strings.Split(twiceTables, "; ")...)
	n := newSingle(t)
	n.exec(t, "CREATE TABLE before (v)")
	n.snapshot(t, 1)
	n.kill(t)
	n.writePeers(t, n)
	n.lead(t)
	if o := n.applyEntry(t, &command.Entry{Kind: command.Load, Data: file}); o.err != nil {
		t.Fatal(o.err)
	}
	var creates []string
	for i := range 400 {
		creates = append(creates, fmt.Sprintf("CREATE TABLE t%d (v)", i))
	}
	n.exec(t, creates...)
	n.addTwice(t, 2)
	for i := range 2 {
		n.snapshot(t, 1)
		n.addTwice(t, 1)
		n.kill(t)
		if i > 0 {
			n.dropMarker(t)
		}
		n.lead(t)
		n.wantTwice(t, "after a load and a restart", 3+i)
		if got := n.rows(t, command.Weak, "SELECT (SELECT count(*) FROM sqlite_schema), (SELECT * FROM pragma_integrity_check)"); got != "402 ok" {
			t.Fatalf("tables and integrity: %q; want 402 ok", got)
		}
	}
}

// TestFault1798: a start took as long as the database was large (also #1799, #1907, #1496). Here the
// live database is kept, after a clean stop and after a kill.
func TestFault1798(t *testing.T) {
	t.Parallel()
	n := newTwice(t)
	n.addTwice(t, 2)
	n.snapshot(t, 1)
	n.addTwice(t, 1)
	for name, stop := range map[string]func(*testing.T){"clean stop": n.close, "kill": n.kill} {
		stop(t)
		n.lead(t)
		if c := n.Counters(); c["num_restores_start_skipped"] != 1 || c["num_restores_start"] != 0 {
			t.Errorf("%s: %d restores at the start, %d skipped; want 0, 1", name, c["num_restores_start"], c["num_restores_start_skipped"])
		}
		n.wantTwice(t, name, 3)
	}
}

// TestFault1828: what an older version had left, in a form or at a moment that nobody had thought of,
// was taken for nothing, and the data was lost (also #1830, #1836, #2477). Older layouts cannot be read yet: the
// node says what it misses, and touches nothing.
func TestFault1828(t *testing.T) {
	t.Parallel()
	for _, left := range []string{"snapshots/2-4-1700000000000/state.bin", "rsnapshots/2-4-1700000000000.db", "rsnapshots/2-4-1700000000000.db-wal", "wsnapshots/2-4-1700000000000/data.db"} {
		n := newNode(t, "n1")
		name := filepath.Join(n.cfg.Dir, left)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte("all there is"), 0o600)); err != nil {
			t.Fatal(err)
		}
		l := newLog(t, filepath.Join(n.cfg.Dir, logFile))
		if err := errors.Join(l.StoreLogs(entries(2, 5, 9)), l.bolt.Close()); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := n.tryOpen(t); !errors.Is(err, ErrGap) || !strings.Contains(err.Error(), "begins at 5") {
				t.Errorf("%s: Open = %v; want ErrGap and where the log begins", left, err)
			}
			if data, err := os.ReadFile(name); string(data) != "all there is" {
				t.Errorf("%s: holds %q, %v", left, data, err)
			}
		}
	}
}

// TestFault1899: a snapshot was taken of a store that was being closed (also #1900).
func TestFault1899(t *testing.T) {
	t.Parallel()
	n := newTwice(t)
	n.exec(t, "CREATE TABLE bulk (v)", "INSERT INTO bulk VALUES(zeroblob(3000000))")
	met := 0
	for i := range 3 {
		n.addTwice(t, 1)
		n.exec(t, fmt.Sprintf("UPDATE bulk SET v=zeroblob(3000000+%d)", i)) // so that it takes a moment
		before, taken := n.snaps.created.Load(), make(chan error, 1)
		go func(s *Store) { taken <- s.Snapshot(context.Background(), 1) }(n.Store)
		eventually(t, "a snapshot under way", func() error {
			if n.snaps.created.Load() == before {
				return errors.New("not yet")
			}
			return nil
		})
		n.close(t)
		if err := <-taken; err != nil {
			met++
		}
		n.lead(t)
		n.wantTwice(t, fmt.Sprintf("stop %d", i), i+1)
	}
	if met == 0 {
		t.Error("every snapshot was done in time: not what this test is for")
	}
}

// TestFault2085: a restart with other settings than before ended in a panic. Here a node with another
// name is refused in plain words, and with its own name it has all it had.
func TestFault2085(t *testing.T) {
	t.Parallel()
	n := newTwice(t)
	n.addTwice(t, 2)
	n.snapshot(t, 1)
	n.close(t)
	other := *n
	other.Store, other.cfg.NodeID, other.cfg.Addr = nil, "stranger", newNode(t, "x").cfg.Addr
	for range 2 {
		if err := other.tryOpen(t); err == nil || !strings.Contains(err.Error(), `"n1"`) || !strings.Contains(err.Error(), `"stranger"`) {
			t.Errorf("Open under another name = %v; want an error that names both", err)
		}
	}
	n.lead(t)
	n.wantTwice(t, "under its own name again", 2)
}

// TestFault2540: a node panicked at every start, because the log did not go on where the newest
// snapshot ends. Here it says which entries are missing, and changes nothing.
func TestFault2540(t *testing.T) {
	t.Parallel()
	n := newTwice(t)
	n.addTwice(t, 8)
	n.snapshot(t, 3)
	n.addTwice(t, 2)
	first, _, err := n.logs.bounds()
	if err != nil {
		t.Fatal(err)
	}
	n.kill(t)
	snaps := filepath.Join(n.cfg.Dir, snapshotsDir)
	if err := os.Rename(snaps, snaps+".away"); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := n.tryOpen(t); !errors.Is(err, ErrGap) || !strings.Contains(err.Error(), fmt.Sprintf("begins at %d", first)) {
			t.Fatalf("Open without the snapshot = %v; want ErrGap and that the log begins at %d", err, first)
		}
	}
	if err := errors.Join(os.RemoveAll(snaps), os.Rename(snaps+".away", snaps)); err != nil {
		t.Fatal(err)
	}
	n.lead(t)
	n.wantTwice(t, "with the snapshot again", 10)
}

// TestFault2621: a quote in the path broke a statement.
func TestFault2621(t *testing.T) {
	t.Parallel()
	n := newNode(t, "a'b c\"%41?x=1#y")
	n.hurry()
	n.writePeers(t, n)
	n.lead(t)
	n.exec(t, strings.Split(twiceTables, "; ")...)
	n.addTwice(t, 2)
	n.snapshot(t, 1)
	fullRestart(t, n)
	waitLeader(t, n)
	n.addTwice(t, 1)
	n.restart(t)
	waitLeader(t, n)
	n.wantTwice(t, "after restarts", 3)
	for _, name := range []string{dbFile, logFile} {
		if _, err := os.Stat(filepath.Join(n.cfg.Dir, name)); err != nil {
			t.Error(err)
		}
	}
}

// TestFault2706: a load was reported as done although the state machine had failed at it (also #2707 to #2709, #2713).
func TestFault2706(t *testing.T) {
	t.Parallel()
	file := databaseFile(t, strings.Split(twiceTables, "; ")...)
	n := newTwice(t)
	n.addTwice(t, 2)
	before := n.fsm.progress.index()
	inTheWay := filepath.Join(n.cfg.Dir, dbFile+".load")
	if err := os.MkdirAll(filepath.Join(inTheWay, "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	if o := n.applyEntry(t, &command.Entry{Kind: command.Load, Data: file}); !errors.Is(o.err, ErrUnknown) {
		t.Errorf("outcome of a load that failed here = %v; want ErrUnknown", o.err)
	}
	if err := n.Wait(); err == nil {
		t.Error("the node goes on")
	}
	if err := n.Ready(); !errors.Is(err, ErrNotReady) {
		t.Errorf("Ready = %v; want ErrNotReady", err)
	}
	if got := n.fsm.progress.index(); got != before {
		t.Errorf("applied index went from %d to %d", before, got)
	}
	n.close(t)
	if err := os.RemoveAll(inTheWay); err != nil {
		t.Fatal(err)
	}
	n.lead(t)
	n.wantTwice(t, "the load, applied at the next start", 0)
}

// TestFaultMovedDirectory: files named others by absolute paths, so that a data directory that was
// moved after a kill could not be opened.
func TestFaultMovedDirectory(t *testing.T) {
	t.Parallel()
	n := newTwice(t)
	n.addTwice(t, 2)
	n.snapshot(t, 1)
	n.addTwice(t, 1)
	for _, unmarked := range []bool{false, true} {
		old := n.cfg.Dir
		n.kill(t) // which moves it
		if err := os.RemoveAll(old); err != nil {
			t.Fatal(err)
		}
		err := filepath.WalkDir(n.cfg.Dir, func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			data, err := os.ReadFile(name)
			if bytes.Contains(data, []byte(filepath.Dir(old))) {
				t.Errorf("%s says where it is", name)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if unmarked {
			n.dropMarker(t)
		}
		n.lead(t)
		n.wantTwice(t, "moved", 3)
	}
}

// TestFaultRaft697: after an install Raft kept a log entry of another term at the snapshot's end, so
// that the follower was sent the same snapshot for ever (hashicorp/raft #697, #704). This is what the log does about it;
// TestInstallBelowSurplus and TestInstallVoidsLog have a real leader send it.
func TestFaultRaft697(t *testing.T) {
	t.Run("install", TestLogInstall)
	t.Run("until the leader overwrites it", TestLogVoid)
	t.Run("cut", TestLogInstallCut)
}
