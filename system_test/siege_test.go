package system

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// besiegers are clients that want nothing but to be in the way.
type besiegers struct {
	idle, slow int // on the port of the API
	peers      int // on that of the nodes
}

// size returns the number of besiegers: those of the promise in the long form, else a tenth.
func (besiegers) size() besiegers {
	if *flagChaos >= time.Minute {
		return besiegers{idle: 10_000, slow: 500, peers: 3000}
	}
	return besiegers{idle: 1000, slow: 50, peers: 1000}
}

// camp are their connections.
type camp struct {
	t    *testing.T
	ctx  context.Context
	busy sync.WaitGroup

	mu    sync.Mutex
	conns []net.Conn // guarded by mu

	refused atomic.Int64
}

// besiege opens the connections and keeps them until the test ends, or lift is called.
func besiege(t *testing.T, n *node, b besiegers) *camp {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	c := &camp{t: t, ctx: ctx}
	t.Cleanup(func() {
		stop()
		c.lift()
	})
	slots := make(chan struct{}, 64) // those that connect at a time
	each := func(count int, f func(i int)) {
		for i := range count {
			slots <- struct{}{}
			c.busy.Go(func() {
				defer func() { <-slots }()
				f(i)
			})
		}
	}
	each(b.idle, func(i int) { c.beIdle(n.httpAddr, i) })
	each(b.peers, func(i int) { c.bePeer(n.raftAddr, i) })
	for i := range b.slow {
		c.busy.Go(func() { c.beSlow(n.httpAddr, i) })
	}
	return c
}

// lift closes all connections and waits for their users.
func (c *camp) lift() {
	c.mu.Lock()
	for _, conn := range c.conns {
		conn.Close()
	}
	c.conns = nil
	c.mu.Unlock()
	c.busy.Wait()
}

// dial returns a connection, or nil if there is none to be had.
func (c *camp) dial(addr string) net.Conn {
	conn, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		c.refused.Add(1)
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx.Err() != nil {
		conn.Close()
		return nil
	}
	c.conns = append(c.conns, conn)
	return conn
}

// beIdle opens a connection and says nothing, or no more than one request.
func (c *camp) beIdle(addr string, i int) {
	if conn := c.dial(addr); conn != nil && i%2 == 0 {
		io.WriteString(conn, "GET /readyz?noleader HTTP/1.1\r\nHost: x\r\n\r\n")
	}
}

// bePeer opens a connection as nodes do, and goes no further.
func (c *camp) bePeer(addr string, i int) {
	begun := [][]byte{
		{}, {1}, {2}, {1, 0, 0x85}, append([]byte{2}, make([]byte, 7)...),
		append(binary.LittleEndian.AppendUint64([]byte{2}, 1<<30), make([]byte, 20<<10)...),
	}
	if conn := c.dial(addr); conn != nil {
		conn.Write(begun[i%len(begun)])
	}
}

// beSlow sends its header or body a byte at a time, or does not take its answer. It comes again when it is
// thrown out.
func (c *camp) beSlow(addr string, i int) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	again := func() bool {
		select {
		case <-c.ctx.Done():
			return false
		case <-tick.C:
			return true
		}
	}
	long := "SELECT+hex(zeroblob(500000)),hex(zeroblob(500000)),hex(zeroblob(500000)),hex(zeroblob(500000))"
	for again() {
		conn := c.dial(addr)
		if conn == nil {
			continue
		}
		conn.(*net.TCPConn).SetReadBuffer(4 << 10)
		switch i % 3 {
		case 0:
			io.WriteString(conn, "POST /db/execute HTTP/1.1\r\nHost: x\r\nX-Long: ")
		case 1:
			io.WriteString(conn, "POST /db/execute HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n[")
		case 2:
			io.WriteString(conn, "GET /db/query?level=none&q="+long+" HTTP/1.1\r\nHost: x\r\n\r\n")
		}
		for again() {
			if i%3 == 2 {
				var b [64]byte
				if _, err := conn.Read(b[:]); err != nil {
					break
				}
			} else if _, err := io.WriteString(conn, " "); err != nil {
				break
			}
		}
		conn.Close()
	}
}

// ordinary are clients that want something, and how long they wait for it.
type ordinary struct {
	took   []time.Duration
	failed []error
}

// ask has clients write and read for so long, some of them on a new connection each time.
func (n *node) ask(limit time.Duration) ordinary {
	const clients = 8
	var mu sync.Mutex
	var all ordinary
	var wg sync.WaitGroup
	end := time.Now().Add(limit)
	for i := range clients {
		wg.Go(func() {
			c := *n
			c.client = &http.Client{Transport: &http.Transport{DisableKeepAlives: i%2 == 0}}
			defer c.client.CloseIdleConnections()
			tick := time.NewTicker(50 * time.Millisecond)
			defer tick.Stop()
			for time.Now().Before(end) {
				start := time.Now()
				err := c.once()
				mu.Lock()
				all.took = append(all.took, time.Since(start))
				if err != nil {
					all.failed = append(all.failed, err)
				}
				mu.Unlock()
				<-tick.C
			}
		})
	}
	wg.Wait()
	slices.Sort(all.took)
	return all
}

// once writes a row and reads it. Who was taken off a connection that had no request on it asks again.
func (n *node) once() error {
	for _, step := range []struct{ path, sql string }{
		{"/db/execute", "INSERT INTO foo(name) VALUES ('x')"}, {"/db/query?level=weak", "SELECT id FROM foo LIMIT 1"},
	} {
		_, err := n.sql(requestLimit, step.path, step.sql)
		if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || err != nil && strings.Contains(err.Error(), "server closed idle connection") {
			_, err = n.sql(requestLimit, step.path, step.sql)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (o ordinary) String() string {
	at := func(q float64) time.Duration {
		return o.took[int(q*float64(len(o.took)-1))].Round(10 * time.Microsecond)
	}
	return fmt.Sprintf("%d requests, median %s, 99%% %s, worst %s, %d failed", len(o.took), at(0.5), at(0.99), at(1), len(o.failed))
}

// withstand measures ordinary clients before and while n is besieged, and expects them to be served.
func withstand(t *testing.T, n *node, b besiegers) *camp {
	t.Helper()
	n.execute("CREATE TABLE foo (id INTEGER PRIMARY KEY, name TEXT)")
	before := n.ask(2 * time.Second)
	memory, _ := n.memory()
	start := time.Now()
	c := besiege(t, n, b)
	during := n.ask(max(8*time.Second, min(*flagChaos, 40*time.Second)))
	now, peak := n.memory()
	t.Logf("before: %s; %d MiB", before, memory>>20)
	t.Logf("besieged by %+v for %s: %s; %d MiB, at most %d", b, time.Since(start).Round(time.Second), during, now>>20, peak>>20)
	if len(during.failed) > 0 {
		t.Errorf("%d of %d requests failed, the first with: %v", len(during.failed), len(during.took), during.failed[0])
	}
	if worst := during.took[len(during.took)-1]; worst > 10*time.Second {
		t.Errorf("a request took %s", worst)
	}
	var vars struct {
		Limits map[string]int64 `json:"limits"`
		Mux    map[string]int64 `json:"mux"`
	}
	if err := n.get("/debug/vars", &vars); err != nil {
		t.Error(err)
	}
	t.Logf("limits: %v; mux: %v; %d dials failed", vars.Limits, vars.Mux, c.refused.Load())
	if got := vars.Limits["connections"]; got > vars.Limits["connections_limit"]+64 {
		t.Errorf("%d connections are open; want at most %d", got, vars.Limits["connections_limit"])
	}
	return c
}

// snapshotAfterWrite expects a snapshot of a node that also takes some by itself, the last perhaps just now.
func snapshotAfterWrite(t *testing.T, n *node) {
	t.Helper()
	before, err := n.status()
	if err != nil {
		t.Fatal(err)
	}
	n.execute("CREATE TABLE after_siege (id INTEGER PRIMARY KEY)")
	n.mustSnapshotSince(before)
}

// TestSiege has very many clients that do nothing, or next to nothing, on both ports. Others are served as
// ever, and nodes join.
func TestSiege(t *testing.T) {
	t.Parallel()
	n := startOne(t)
	withstand(t, n, besiegers{}.size())
	second := cluster{n}.join(t, "n2")
	cluster{n, second}.equal()
}

// TestSiegeFewFiles does so to a node that may have few descriptors.
func TestSiegeFewFiles(t *testing.T) {
	t.Parallel()
	n := newNode(t, "n1", append([]string{"-raft-snap", "50", "-raft-snap-int", "200ms"}, swift...)...)
	script := filepath.Join(t.TempDir(), "few")
	text := fmt.Sprintf("#!/bin/sh\nulimit -n 256\nexec '%s' \"$@\"\n", n.binary)
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	n.binary = script
	n.start()
	n.waitReady(formLimit)
	b := besiegers{}.size()
	b.idle, b.slow = min(b.idle, 2000), min(b.slow, 100)
	withstand(t, n, b)
	snapshotAfterWrite(t, n)
	if lines := strings.Count(n.log(), "not accepted"); lines > 60 {
		t.Errorf("%d lines of the log are about connections", lines)
	}
	second := cluster{n}.join(t, "n2")
	cluster{n, second}.equal()
}

// TestFullFileTable leaves a node that runs next to no descriptors. It keeps some for its files, takes snapshots,
// and serves clients in turn; when there are descriptors again all is as before.
func TestFullFileTable(t *testing.T) {
	t.Parallel()
	n := startOne(t, append([]string{"-raft-snap", "20", "-raft-snap-int", "200ms"}, swift...)...)
	n.execute("CREATE TABLE foo (id INTEGER PRIMARY KEY, name TEXT)")
	limit := func(files uint64) {
		t.Helper()
		want := syscall.Rlimit{Cur: files, Max: 20000}
		if _, _, errno := syscall.RawSyscall6(syscall.SYS_PRLIMIT64, uintptr(n.proc.cmd.Process.Pid), syscall.RLIMIT_NOFILE, uintptr(unsafe.Pointer(&want)), 0, 0, 0); errno != 0 {
			t.Fatal("prlimit:", errno)
		}
	}
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", n.proc.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	limit(uint64(len(open) + 60))
	c := besiege(t, n, besiegers{idle: 300, peers: 300})
	end := time.Now().Add(5 * time.Second)
	done, failed := 0, 0
	for time.Now().Before(end) {
		if err := n.once(); err != nil {
			failed++
		} else {
			done++
		}
		if err := n.alive(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d requests done and %d failed while there were no descriptors", done, failed)
	if done < 20 {
		t.Errorf("%d requests done; want more", done)
	}
	if lines := strings.Count(n.log(), "connection not accepted"); lines > 60 {
		t.Errorf("%d lines of the log are about connections", lines)
	}
	limit(20000)
	c.lift()
	within(t, 10*time.Second, "a new client is served", n.once)
	snapshotAfterWrite(t, n)
	second := cluster{n}.join(t, "n2")
	cluster{n, second}.equal()
}
