package system

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestFault2642 freezes a follower in the middle of a transfer, for long. The leader writes, takes
// snapshots, compacts them and deletes what it replaced, and can be stopped; the follower, when it
// wakes up, gets what it needs.
func TestFault2642(t *testing.T) {
	t.Parallel()
	rng := newRand(t)
	c := startCluster(t, 3, "-raft-snap-wal-size", "0")
	blobs(c[0], 30)
	l := newLedger(c[0])
	behind := c.without(c.leader())[0]
	behind.kill()
	if err := os.RemoveAll(behind.dir); err != nil {
		t.Fatal(err)
	}
	rest := c.without(behind)
	l.begin(rest, 2, rng.Uint64())
	l.progress(t, 20)
	for _, n := range rest {
		truncateLog(n)
	}
	rest.swap()
	leader := rest.leader()

	if err := os.MkdirAll(filepath.Join(behind.dir, "snapshots"), 0o755); err != nil {
		t.Fatal(err)
	}
	tr := behind.startInto(moment{"snapshots/*.base", changes}, blow{signal: syscall.SIGSTOP})
	if !tr.await(formLimit, func() error { return errors.New("wait") }) {
		t.Fatal("no transfer has begun")
	}

	frozen := time.Now()
	for round := 0; again(round, frozen); round++ {
		l.progress(t, 100)
		before := compactions(leader)
		within(t, formLimit, "a compaction while a follower is frozen", func() error {
			if err := leader.snapshot(); err != nil {
				return err
			}
			if compactions(leader) == before {
				return errors.New("none")
			}
			return nil
		})
		l.progress(t, 100)
	}
	t.Logf("frozen for %s", time.Since(frozen).Round(time.Millisecond))
	start := time.Now()
	leader.signal(syscall.SIGTERM)
	if code := leader.wait(10 * time.Second); code != 0 {
		t.Errorf("exit code of the leader = %d; want 0", code)
	}
	t.Logf("the leader is gone after %s", time.Since(start).Round(time.Millisecond))
	behind.resume()
	leader.start()
	l.sound(behind)
	l.progress(t, 20)
	l.end()
	l.verify(c)
}

// compactions counts the bases that the node has made of its chain, as /status shows it.
func compactions(n *node) int64 {
	n.t.Helper()
	var s struct {
		Store struct {
			SnapshotStore struct {
				Compactions int64 `json:"compactions"`
			} `json:"snapshot_store"`
		} `json:"store"`
	}
	if err := n.get("/status", &s); err != nil {
		n.t.Fatal(err)
	}
	return s.Store.SnapshotStore.Compactions
}

// TestFault1807 has clients that ask for much and read next to nothing. Writes go on as ever, also
// while snapshots are asked for, and once the clients have gone a snapshot is taken at once.
func TestFault1807(t *testing.T) {
	t.Parallel()
	n := startOne(t, append([]string{"-raft-snap-wal-size", "65536", "-raft-snap-int", "200ms"}, swift...)...)
	blobs(n, 30)
	l := newLedger(n)
	n.mustSnapshot()
	rng := newRand(t)
	l.begin(cluster{n}, 2, rng.Uint64())
	for range 4 {
		conn, err := net.Dial("tcp", n.httpAddr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "GET /db/query?level=none&q=SELECT+id,hex(v),hex(v)+FROM+blob HTTP/1.1\r\nHost: x\r\n\r\n")
		if _, err := io.CopyN(io.Discard, conn, 1<<10); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 5 {
		took := within(t, requestLimit, "a write", func() error {
			_, err := n.sql(requestLimit, "/db/execute", []any{"UPDATE blob SET v = zeroblob(5000) WHERE id = ?", i + 1})
			return err
		})
		if took > 5*time.Second {
			t.Errorf("a write took %s while clients read slowly", took)
		}
		l.progress(t, 20)
		if err := n.snapshot(); err != nil {
			t.Logf("snapshot: %v", err) // it may be busy
		}
	}
	n.mustSnapshot()
	l.end()
	l.verify(cluster{n})
	start := time.Now()
	n.signal(syscall.SIGTERM)
	if code := n.wait(10 * time.Second); code != 0 { // they are given some seconds to read to the end
		t.Errorf("exit code = %d; want 0", code)
	}
	t.Logf("gone after %s", time.Since(start).Round(time.Millisecond))
}
