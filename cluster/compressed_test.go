package cluster

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"rqlited/store"
)

// counting is a network between a dialler and addr. It tells how much the dialler has sent when that one hangs up.
func counting(t *testing.T, addr string) (at string, sent <-chan int64) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	total := make(chan int64, 1)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", addr)
			if err != nil {
				in.Close()
				continue
			}
			wg.Go(func() {
				n, _ := io.Copy(out, in)
				total <- n
				out.Close()
			})
			wg.Go(func() {
				io.Copy(in, out)
				in.Close()
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		wg.Wait()
	})
	return ln.Addr().String(), total
}

// compressing lets Raft's transport dial compressed connections.
type compressing struct{ raft.StreamLayer }

func (c compressing) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	return c.StreamLayer.(store.CompressedDialer).DialCompressed(addr, timeout)
}

// transportOf returns Raft's transport over a layer.
func transportOf(t *testing.T, layer raft.StreamLayer) *raft.NetworkTransport {
	t.Helper()
	tr := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{Stream: layer, Timeout: patience, Logger: quiet()})
	t.Cleanup(func() { tr.Close() })
	return tr
}

// TestCompressedSnapshot sends snapshots that compress well, or not at all. They arrive as they were sent, and
// what compresses well costs the network little.
func TestCompressedSnapshot(t *testing.T) {
	const size = 8 << 20
	random := make([]byte, size)
	rand.NewChaCha8([32]byte{}).Read(random)
	for _, tt := range []struct {
		name string
		data []byte
		most int64
	}{
		{"text", bytes.Repeat([]byte("INSERT INTO foo"), size/15), size / 20},
		{"random", random, size + size/100},
		{"empty", nil, 1000},
	} {
		t.Run(tt.name, func(t *testing.T) {
			log := &said{}
			to := startMux(t, Config{Logger: log.logger()})
			receiver := transportOf(t, to.Layer())
			sender := transportOf(t, compressing{startMux(t, Config{}).Layer()})
			addr, sent := counting(t, to.Addr())

			got := make(chan []byte, 1)
			go func() {
				rpc := <-receiver.Consumer()
				data, err := io.ReadAll(rpc.Reader)
				rpc.Respond(&raft.InstallSnapshotResponse{Term: 7, Success: true}, err)
				got <- data
			}()
			members := raft.Configuration{Servers: []raft.Server{{ID: "n1", Address: "h:1"}}}
			req := &raft.InstallSnapshotRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: 3}, SnapshotVersion: 1, Term: 7, Leader: []byte("h:1"),
				LastLogIndex: 3, LastLogTerm: 2, Configuration: raft.EncodeConfiguration(members), ConfigurationIndex: 1, Size: int64(len(tt.data))}
			var resp raft.InstallSnapshotResponse
			if err := sender.InstallSnapshot("n2", raft.ServerAddress(addr), req, &resp, bytes.NewReader(tt.data)); err != nil || resp.Term != 7 {
				t.Fatalf("InstallSnapshot = %+v, %v; want success; log %q", resp, err, log)
			}
			if data := <-got; !bytes.Equal(data, tt.data) {
				t.Errorf("%d bytes arrived, of %d, or other ones", len(data), len(tt.data))
			}
			select {
			case n := <-sent:
				if n > tt.most {
					t.Errorf("%d bytes were sent for %d; want %d at most", n, len(tt.data), tt.most)
				}
			case <-time.After(patience):
				t.Error("the sender keeps the connection")
			}
		})
	}
}

// TestCompressedGarbage sends what is no compressed stream, and a compressed one that is no message of Raft.
func TestCompressedGarbage(t *testing.T) {
	for _, tt := range []struct {
		name string
		open func(net.Conn) io.Writer
		data string
	}{
		{"not compressed", func(c net.Conn) io.Writer { return c }, strings.Repeat("\xff", 1000)},
		{"not of Raft", func(c net.Conn) io.Writer { return newDeflated(c) }, strings.Repeat("\xff", 1000)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			log := &said{}
			m := startMux(t, Config{Logger: log.logger()})
			transportOf(t, m.Layer())
			conn, err := dial(withTimeout(t), m.Addr(), byteCompressed, TLS{})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.WriteString(tt.open(conn), tt.data); err != nil {
				t.Fatal(err)
			}
			conn.SetReadDeadline(time.Now().Add(patience))
			if n, err := conn.Read(make([]byte, 1)); n > 0 || errors.Is(err, net.ErrClosed) || err == nil {
				t.Errorf("Read = %d, %v; want the end of the connection", n, err)
			} else if netErr, ok := errors.AsType[net.Error](err); ok && netErr.Timeout() {
				t.Error("the connection stays open")
			}
			if want := "raft message refused"; !strings.Contains(log.String(), want) {
				t.Errorf("log %q; want %q in it", log.String(), want)
			}
		})
	}
}
