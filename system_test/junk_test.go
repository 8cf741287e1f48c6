package system

import (
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// TestJunkOnRaftPort sends what no peer would send to the port that peers use, on many connections
// at once, and leaves some of them open. The node lives, serves, and other nodes still join.
func TestJunkOnRaftPort(t *testing.T) {
	t.Parallel()
	rng := newRand(t)
	n := startOne(t)
	n.execute("CREATE TABLE foo (id INTEGER NOT NULL PRIMARY KEY, name TEXT)")
	random := func(size int) []byte {
		b := make([]byte, size)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return b
	}
	frame := func(length uint64, body ...byte) []byte {
		return append(binary.LittleEndian.AppendUint64([]byte{2}, length), body...)
	}
	junk := [][]byte{
		{},
		{2},
		frame(1<<64 - 1),
		frame(1<<63 - 1),
		frame(1 << 40),
		frame(1<<30, random(1000)...),
		frame(100, random(50)...),
		frame(3, 0xff, 0xff, 0xff),
		frame(2, 8, 99),   // a type that does not exist
		frame(2, 8, 2),    // execute without a request
		frame(2, 8, 11),   // backup without a request
		frame(2, 8, 0xff), // half a number
		append([]byte{1}, random(64)...),
		append([]byte{1, 0}, random(4096)...),
		{1, 2, 0xdf, 0xff, 0xff, 0xff, 0xff}, // a snapshot with a header of 2^32 fields
		{1, 0, 0xdb, 0xff, 0xff, 0xff, 0xff}, // an entry with 4 GiB of text
		{1, 0, 0xc6, 0xff, 0xff, 0xff, 0xff},
		{1, 2, 0xdd, 0xff, 0xff, 0xff, 0xff},
		[]byte("GET /status HTTP/1.1\r\nHost: x\r\n\r\n"),
		{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3},
	}
	for range 30 {
		junk = append(junk, random(1+rng.IntN(1<<16)))
		junk = append(junk, append([]byte{byte(1 + rng.IntN(2))}, random(rng.IntN(1<<12))...))
	}
	var senders sync.WaitGroup
	for i, text := range junk {
		senders.Go(func() { send(t, n.raftAddr, text, i%2 == 0) })
	}
	senders.Wait()

	if err := n.alive(); err != nil {
		t.Fatal(err)
	}
	n.execute("INSERT INTO foo(name) VALUES ('alive')")
	n.waitReady(5 * time.Second)
	second := cluster{n}.join(t, "n2")
	cluster{n, second}.equal()
}

// send writes text and, if asked to, waits for the other side to hang up or to say something; the
// connection stays open until the test ends.
func send(t *testing.T, addr string, text []byte, hold bool) {
	conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		t.Errorf("dial %s: %v", addr, err)
		return
	}
	if hold {
		t.Cleanup(func() { conn.Close() })
	} else {
		defer conn.Close()
	}
	conn.SetDeadline(time.Now().Add(200 * time.Millisecond))
	conn.Write(text) // the node may hang up in the middle
	io.CopyN(io.Discard, conn, 1)
}

// TestJunkOnHTTPPort sends malformed requests and bodies to the API.
func TestJunkOnHTTPPort(t *testing.T) {
	t.Parallel()
	rng := newRand(t)
	n := startOne(t)
	for range 20 {
		b := make([]byte, 1+rng.IntN(1<<14))
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		send(t, n.httpAddr, b, false)
		for _, path := range []string{"/db/execute", "/db/query", "/db/request"} {
			a, err := n.do(requestLimit, "POST", path, "application/json", string(b))
			if err != nil || a.status != 400 {
				t.Fatalf("%s with random bytes = %+v, %v; want 400", path, a, err)
			}
		}
	}
	n.execute("CREATE TABLE foo (id INTEGER PRIMARY KEY)")
}
