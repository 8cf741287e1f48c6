package snapshot

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"rqlited/internal/vfs/crashfs"
)

// machine is a state machine whose state is a database of one page per log entry.
type machine struct {
	mu       sync.Mutex
	store    *Store
	state    content
	base     content // as of head
	head     string
	restored []raft.SnapshotMeta
}

func (m *machine) Apply(l *raft.Log) any {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state = content{testPageSize, append(m.state.pages[:len(m.state.pages):len(m.state.pages)], fill(1, uint64(l.Data[0])).pages[0])}
	return nil
}

func (m *machine) Snapshot() (raft.FSMSnapshot, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &machineCapture{m, m.state, m.base, m.head}, nil
}

func (m *machine) Restore(rc io.ReadCloser) error {
	meta, ok := MetaOf(rc)
	if !ok {
		return fmt.Errorf("%T is not a reader of the store", rc)
	}
	fsys := crashfs.New()
	f, err := fsys.Create("image")
	if err != nil {
		return err
	}
	h, err := Restore(context.Background(), rc, f)
	if err != nil {
		return err
	}
	c := content{pageSize: h.PageSize}
	for i := range int(h.Pages) {
		page := make([]byte, h.PageSize)
		if _, err := f.ReadAt(page, int64(i*h.PageSize)); err != nil {
			return err
		}
		c.pages = append(c.pages, page)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state, m.base, m.head = c, c, meta.ID
	m.restored = append(m.restored, meta)
	return nil
}

// machineCapture is the state of a machine, taken against a snapshot.
type machineCapture struct {
	m           *machine
	state, base content
	head        string
}

func (c *machineCapture) Persist(sink raft.SnapshotSink) error {
	k := sink.(*Sink)
	k.Local(c.head)
	p := c.state.since(c.base)
	if c.head == "" {
		p = c.state.image()
	}
	if err := WriteStream(k, p); err != nil {
		return err
	}
	if err := k.Close(); err != nil { // Raft closes once more, which does nothing
		return err
	}
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	c.m.base, c.m.head = c.state, k.ID()
	return nil
}

func (c *machineCapture) Release() {}

// node is a Raft node on a store of its own.
type node struct {
	*raft.Raft
	m     *machine
	addr  raft.ServerAddress
	trans *raft.InmemTransport
}

func startNode(t *testing.T, id string, disk *crashfs.FS) *node {
	t.Helper()
	s, err := Open("snapshots", Config{FS: disk, CompactDeltas: 2})
	must(t, err)
	n := &node{m: &machine{store: s, state: content{pageSize: testPageSize}}}
	n.addr, n.trans = raft.NewInmemTransport(raft.ServerAddress(id))
	cfg := raft.DefaultConfig()
	cfg.LocalID, cfg.LogOutput, cfg.TrailingLogs = raft.ServerID(id), io.Discard, 0
	logs := raft.NewInmemStore()
	n.Raft, err = raft.NewRaft(cfg, n.m, logs, logs, s, n.trans)
	must(t, err)
	t.Cleanup(func() {
		must(t, n.Shutdown().Error())
		must(t, s.Close())
	})
	return n
}

// TestUnderRaft lets Raft itself take snapshots, send them to a node that has nothing, and restore
// them at a start.
func TestUnderRaft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := newDisk()
		one := startNode(t, "one", disk)
		must(t, one.BootstrapCluster(raft.Configuration{Servers: []raft.Server{{ID: "one", Address: one.addr}}}).Error())
		time.Sleep(10 * time.Second)
		for i := range byte(9) { // in the end an image and deltas, partly compacted
			must(t, one.Apply([]byte{i}, 0).Error())
			if i%2 == 0 {
				must(t, one.Snapshot().Error())
			}
		}

		two := startNode(t, "two", newDisk())
		one.trans.Connect(two.addr, two.trans)
		two.trans.Connect(one.addr, one.trans)
		must(t, one.AddVoter("two", two.addr, 0, 0).Error())
		must(t, one.Barrier(0).Error())
		time.Sleep(10 * time.Second)
		synctest.Wait()
		wantState(t, two, one.m.state)
		if len(two.m.restored) != 1 || two.m.restored[0].Index == 0 {
			t.Errorf("the new node has restored %+v; want the leader's snapshot", two.m.restored)
		}
		head, _ := two.m.store.Head()
		if head.ID != two.m.head {
			t.Errorf("the new node runs on %q; its store's head is %q", two.m.head, head.ID)
		}

		must(t, one.Apply([]byte{99}, 0).Error())
		must(t, one.Snapshot().Error())
		synctest.Wait()
		again := startNode(t, "again", disk.Restart())
		wantState(t, again, one.m.state)
	})
}

func wantState(t *testing.T, n *node, want content) {
	t.Helper()
	n.m.mu.Lock()
	defer n.m.mu.Unlock()
	if !bytes.Equal(n.m.state.file(), want.file()) {
		t.Errorf("state of %d pages differs from that of the leader, of %d", len(n.m.state.pages), len(want.pages))
	}
}
