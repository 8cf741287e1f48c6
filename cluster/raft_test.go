package cluster

import (
	"bytes"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

func quiet() hclog.Logger { return hclog.NewNullLogger() }

// lastEntry is a state machine that remembers the last entry, and tells.
type lastEntry struct {
	changed chan []byte
	data    []byte
}

func (f *lastEntry) Apply(l *raft.Log) any {
	f.set(l.Data)
	return nil
}

func (f *lastEntry) set(data []byte) {
	f.data = bytes.Clone(data)
	select {
	case <-f.changed: // nobody has looked at the one before
	default:
	}
	f.changed <- f.data
}

func (f *lastEntry) Snapshot() (raft.FSMSnapshot, error) { return persisted(f.data), nil }

func (f *lastEntry) Restore(r io.ReadCloser) error {
	data, err := io.ReadAll(r)
	if err == nil {
		f.set(data)
	}
	return err
}

type persisted []byte

func (p persisted) Persist(sink raft.SnapshotSink) error {
	if _, err := sink.Write(p); err != nil {
		return err
	}
	return sink.Close()
}

func (p persisted) Release() {}

type raftNode struct {
	*raft.Raft
	fsm *lastEntry
	mux *Mux
}

func startRaft(t *testing.T, id string) raftNode {
	t.Helper()
	n := raftNode{fsm: &lastEntry{changed: make(chan []byte, 1)}, mux: startMux(t, Config{})}
	cfg := raft.DefaultConfig()
	cfg.LocalID = raft.ServerID(id)
	cfg.Logger = quiet()
	cfg.CommitTimeout = time.Millisecond
	cfg.TrailingLogs = 1
	logs := raft.NewInmemStore()
	transport := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: n.mux.Layer(), MaxPool: 2, Timeout: patience, Logger: quiet(),
	})
	r, err := raft.NewRaft(cfg, n.fsm, logs, logs, raft.NewInmemSnapshotStore(), transport)
	if err != nil {
		t.Fatal(err)
	}
	n.Raft = r
	t.Cleanup(func() {
		n.mux.Close() // first, as in a node: no stream then keeps Raft waiting
		if err := r.Shutdown().Error(); err != nil {
			t.Error(err)
		}
		transport.Close()
	})
	return n
}

func (n raftNode) server(id string) raft.Server {
	return raft.Server{ID: raft.ServerID(id), Address: raft.ServerAddress(n.mux.Addr())}
}

func (n raftNode) waitFor(t *testing.T, data []byte) {
	t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case got := <-n.fsm.changed:
			if bytes.Equal(got, data) {
				return
			}
		case <-deadline:
			t.Fatalf("no entry of %d bytes after %s", len(data), patience)
		}
	}
}

// TestRaftThroughMux runs Raft itself over the port: elections, entries small and large, changes of
// membership, a snapshot for a node that comes late, and leadership for that one.
func TestRaftThroughMux(t *testing.T) {
	a, b, c := startRaft(t, "a"), startRaft(t, "b"), startRaft(t, "c")
	members := raft.Configuration{Servers: []raft.Server{a.server("a"), b.server("b")}}
	for _, n := range []raftNode{a, b} {
		if err := n.BootstrapCluster(members).Error(); err != nil {
			t.Fatal(err)
		}
	}
	var leader raftNode
	select {
	case <-a.LeaderCh():
		leader = a
	case <-b.LeaderCh():
		leader = b
	case <-time.After(patience):
		t.Fatal("no leader")
	}
	for i := range 100 {
		if err := leader.Apply(fmt.Appendf(nil, "entry %d", i), patience).Error(); err != nil {
			t.Fatal(err)
		}
	}
	large := bytes.Repeat([]byte("large"), 400<<10)
	if err := leader.Apply(large, patience).Error(); err != nil {
		t.Fatal(err)
	}
	a.waitFor(t, large)
	b.waitFor(t, large)
	if err := leader.Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	late := c.server("c")
	if err := leader.AddVoter(late.ID, late.Address, 0, patience).Error(); err != nil {
		t.Fatal(err)
	}
	c.waitFor(t, large)
	last := []byte("last")
	if err := leader.Apply(last, patience).Error(); err != nil {
		t.Fatal(err)
	}
	c.waitFor(t, last)
	if err := leader.LeadershipTransferToServer(late.ID, late.Address).Error(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-c.LeaderCh():
	case <-time.After(patience):
		t.Error("leadership was not handed over")
	}
}
