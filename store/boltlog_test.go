package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"

	"rqlited/command"
	"rqlited/snapshot"
)

var keyTerm = []byte("CurrentTerm")

// sampleLog writes a log with all that a file can have: more pages than one, entries that flow over,
// pages that are free, settings.
func sampleLog(t *testing.T, path string) {
	t.Helper()
	l := newLog(t, path)
	conf := members("n1", "n2")
	logs := entries(2, 1, 120)
	for i, e := range logs {
		e.Data = fmt.Appendf(nil, "entry %d", e.Index)
		if i == 90 {
			e.Data = bytes.Repeat([]byte("long"), 3000)
		}
	}
	logs[0].Type, logs[0].Data = raft.LogConfiguration, raft.EncodeConfiguration(conf)
	logs[110].Type, logs[110].Data = raft.LogConfiguration, raft.EncodeConfiguration(conf)
	err := errors.Join(
		l.bolt.SetUint64(keyTerm, 2), l.bolt.Set([]byte("LastVoteCand"), []byte("n1:1")), l.set(keyNode, []byte("n1")),
		l.StoreLogs(logs[:60]), l.StoreLogs(logs[60:]),
		l.noteHead(&raft.SnapshotMeta{ID: "s", Index: 7, Term: 2, Configuration: conf}),
		l.DeleteRange(1, 20), l.bolt.SetUint64(keyTerm, 3), l.bolt.Close(),
	)
	if err != nil {
		t.Fatal(err)
	}
}

// dump returns all that can be read from a log.
func (l *logStore) dump() (string, error) {
	var out strings.Builder
	first, last, err := l.bounds()
	if err != nil {
		return "", err
	}
	for _, key := range [][]byte{keyTerm, []byte("LastVoteCand"), keyNode, keyHead, keyFloor} {
		v, err := l.get(key)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&out, "%s %x\n", key, v)
	}
	for i := first; i <= last; i++ {
		var e raft.Log
		if err := l.LogCache.GetLog(i, &e); err != nil {
			return "", err
		}
		fmt.Fprintf(&out, "%d %d %d %x %x %d\n", e.Index, e.Term, e.Type, e.Data, e.Extensions, e.AppendedAt.UnixNano())
	}
	return out.String(), nil
}

// openDump opens the log and reads all of it.
func openDump(path string) (string, error) {
	l, err := openLog(path, func(error) {})
	if err != nil {
		return "", err
	}
	defer l.bolt.Close()
	if err := l.check(snapshot.Head{}, false); err != nil && !errors.Is(err, ErrGap) {
		return "", err
	}
	return l.dump()
}

// flipStride is how many bytes are left out between two that are tried, at most. With 1 every byte is.
const flipStride = 11

// TestLogFlips flips bits all over raft.db. Either that is found before bbolt sees the file, or it is
// in a byte that means nothing: all that can be read is what it was.
func TestLogFlips(t *testing.T) {
	t.Parallel()
	path := filepath.Join(quickDir(t), logFile)
	sampleLog(t, path)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want, err := openDump(path)
	if err != nil {
		t.Fatal(err)
	}
	rnd := newRand(t)
	tried, found, read := 0, 0, 0
	data := bytes.Clone(good)
	for at := 0; at < len(good); at += 1 + rnd.IntN(flipStride) {
		bit := rnd.IntN(8)
		tried++
		data[at] ^= 1 << bit
		in, err := inspect(bytes.NewReader(data), int64(len(data)))
		switch {
		case errors.Is(err, ErrLogDamaged) || err == nil && in.damaged > 0:
			found++
		case err != nil || !in.sealed:
			t.Fatalf("byte %d bit %d: inspect = %+v, %v", at, bit, in, err)
		case good[at] != 0 && rnd.IntN(4) == 0: // it takes time
			read++
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			if got, err := openDump(path); err != nil || got != want {
				t.Fatalf("byte %d bit %d was not found: %v, read\n%s", at, bit, err, got)
			}
		}
		data[at] ^= 1 << bit
	}
	t.Logf("tried %d flips: %d found; of the others %d were read", tried, found, read)
	if found == 0 || read == 0 {
		t.Error("nothing tried")
	}
}

// TestLogCutOff truncates raft.db at all pages, and fills the rest with zeros.
func TestLogCutOff(t *testing.T) {
	t.Parallel()
	path := filepath.Join(quickDir(t), logFile)
	sampleLog(t, path)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want, err := openDump(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := 512; n < len(good); n += 512 {
		for _, data := range [][]byte{good[:n], append(bytes.Clone(good[:n]), make([]byte, len(good)-n)...)} {
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			if got, err := openDump(path); err == nil && got != want || err != nil && !errors.Is(err, ErrLogDamaged) {
				t.Fatalf("after %d of %d bytes: %v, read\n%s", n, len(good), err, got)
			}
		}
	}
}

// TestLogOfOthers reads a log that raft-boltdb has written, and has raft-boltdb read it again.
func TestLogOfOthers(t *testing.T) {
	path := filepath.Join(t.TempDir(), logFile)
	open := func() *raftboltdb.BoltStore {
		t.Helper()
		b, err := raftboltdb.New(raftboltdb.Options{Path: path, MsgpackUseNewTimeFormat: true})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	logs := entries(2, 3, 90)
	logs[40].Type, logs[40].Data = raft.LogConfiguration, raft.EncodeConfiguration(members("n1", "n2"))
	other := open()
	err := errors.Join(other.Close()) // made, but never used
	newLog(t, path).bolt.Close()
	os.Remove(path)
	other = open()
	err = errors.Join(err, other.SetUint64(keyTerm, 2), other.Set([]byte("rqlite_base_vacuum"), nil), other.StoreLogs(logs), other.Close())
	if err != nil {
		t.Fatal(err)
	}
	l := newLog(t, path)
	if term, err := l.bolt.GetUint64(keyTerm); term != 2 || err != nil {
		t.Errorf("term = %d, %v; want 2", term, err)
	}
	known, err := l.known()
	if err != nil || known.Index != 90 || known.Term != 2 || len(known.Members) != 2 {
		t.Errorf("known = %+v, %v; want the end of the log, and two members", known, err)
	}
	if err := errors.Join(l.StoreLogs(entries(3, 91, 91)), l.set(keyNode, []byte("n1")), l.bolt.Close()); err != nil {
		t.Fatal(err)
	}
	in, err := inspectFile(path)
	if err != nil || !in.sealed || in.damaged != 0 || in.seal != (seal{first: 3, last: 91, term: 3, members: 43}) {
		t.Errorf("inspectFile = %+v, %v", in, err)
	}
	other = open()
	defer other.Close()
	for _, e := range logs {
		var got raft.Log
		if err := other.GetLog(e.Index, &got); err != nil || got.Term != e.Term || got.Type != e.Type || !bytes.Equal(got.Data, e.Data) || !got.AppendedAt.Equal(e.AppendedAt) {
			t.Fatalf("raft-boltdb reads entry %d as %+v, %v; want %+v", e.Index, got, err, e)
		}
	}
	if term, err := other.GetUint64(keyTerm); term != 2 || err != nil {
		t.Errorf("raft-boltdb reads term %d, %v; want 2", term, err)
	}
}

// TestLogSeal follows the seal through what Raft does to a log.
func TestLogSeal(t *testing.T) {
	path := filepath.Join(t.TempDir(), logFile)
	l := newLog(t, path)
	conf := func(term, index uint64) []*raft.Log {
		return []*raft.Log{{Index: index, Term: term, Type: raft.LogConfiguration}}
	}
	steps := []struct {
		name string
		do   func() error
		want seal
	}{
		{"bootstrap", func() error { return l.StoreLogs(conf(1, 1)) }, seal{1, 1, 1, 1}},
		{"append", func() error { return l.StoreLogs(entries(2, 2, 9)) }, seal{1, 9, 2, 1}},
		{"configuration", func() error { return l.StoreLogs(conf(3, 10)) }, seal{1, 10, 3, 10}},
		{"replace the end", func() error { return l.DeleteRange(10, 10) }, seal{1, 9, 2, 1}},
		{"configuration again", func() error { return l.StoreLogs(conf(4, 10)) }, seal{1, 10, 4, 10}},
		{"append more", func() error { return l.StoreLogs(entries(4, 11, 15)) }, seal{1, 15, 4, 10}},
		{"shorten", func() error { return l.DeleteRange(1, 5) }, seal{6, 15, 4, 10}},
		{"shorten beyond", func() error { return l.DeleteRange(6, 12) }, seal{13, 15, 4, 0}},
		{"a setting", func() error { return l.bolt.SetUint64(keyTerm, 7) }, seal{13, 15, 4, 0}},
		{"clear", l.clear, seal{}},
		{"append to nothing", func() error { return l.StoreLogs(entries(8, 20, 21)) }, seal{20, 21, 8, 0}},
	}
	for _, s := range steps {
		if err := s.do(); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		if got, err := l.bolt.sealed(); got != s.want || err != nil {
			t.Errorf("%s: seal = %+v, %v; want %+v", s.name, got, err, s.want)
		}
	}
	if err := l.bolt.StoreLogs(entries(9, 21, 21)); err == nil {
		t.Error("an entry was written over another one")
	}
}

// spoilEntry changes or removes an entry of a node that is stopped, behind the back of its seal.
func (n *node) spoilEntry(t *testing.T, index uint64, remove bool) {
	t.Helper()
	l := newLog(t, filepath.Join(n.cfg.Dir, logFile))
	l.bolt.spoil(t, index, remove)
	if err := l.bolt.Close(); err != nil {
		t.Fatal(err)
	}
}

func (b *boltLog) spoil(t *testing.T, index uint64, remove bool) {
	t.Helper()
	err := b.conn.Update(func(tx *bbolt.Tx) error {
		logs := tx.Bucket(bucketLogs)
		if remove {
			return logs.Delete(logKey(index))
		}
		v := bytes.Clone(logs.Get(logKey(index)))
		v[len(v)/2] ^= 1
		return logs.Put(logKey(index), v)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// logBounds returns the ends of the log of a node that is stopped.
func (n *node) logBounds(t *testing.T) (first, last uint64) {
	t.Helper()
	l := newLog(t, filepath.Join(n.cfg.Dir, logFile))
	first, last, err := l.bounds()
	if err := errors.Join(err, l.bolt.Close()); err != nil {
		t.Fatal(err)
	}
	return first, last
}

// TestLogDamagedAlone damages entries of a node that nobody can help: what a snapshot covers is given
// up, all else is refused, in the same words each time.
func TestLogDamagedAlone(t *testing.T) {
	t.Parallel()
	for _, remove := range []bool{false, true} {
		for _, where := range []string{"covered", "behind", "last"} {
			t.Run(fmt.Sprintf("%s, removed %t", where, remove), func(t *testing.T) {
				t.Parallel()
				n := newSingle(t)
				want := n.grow(t, 3)
				n.exec(t, "CREATE TABLE bar (v TEXT)", "CREATE TABLE baz (v TEXT)")
				n.close(t)
				first, last := n.logBounds(t)
				index := map[string]uint64{"covered": first + 1, "behind": last - 1, "last": last}[where]
				n.spoilEntry(t, index, remove)
				if where == "covered" {
					n.open(t)
					waitLeader(t, n)
					if got := n.rows(t, command.Weak, fooSum); got != want {
						t.Errorf("rows = %q; want %q", got, want)
					}
					n.exec(t, "INSERT INTO foo(v) VALUES('e')")
					n.restart(t)
					return
				}
				var said string
				for i := range 3 {
					err := n.tryOpen(t)
					if !errors.Is(err, ErrLogDamaged) || !strings.Contains(err.Error(), logFile) || i > 0 && err.Error() != said {
						t.Fatalf("Open = %v; before it was %q", err, said)
					}
					said = err.Error()
				}
				t.Log(said)
			})
		}
	}
}

// TestLogDamagedMember damages the log of a member of three, which the leader can make up for. The
// floor is the end of the log that it had, whatever was damaged.
func TestLogDamagedMember(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3, nil)
	leader := waitLeader(t, nodes...)
	n := without(nodes, leader)[0]
	leader.exec(t, "CREATE TABLE foo (id INTEGER PRIMARY KEY, v TEXT)")
	for _, remove := range []bool{false, true} {
		for _, back := range []uint64{0, 1} {
			leader.exec(t, "INSERT INTO foo(v) VALUES('a')")
			leader.exec(t, "INSERT INTO foo(v) VALUES('b')")
			if err := n.WaitApplied(t.Context(), leader.CommitIndex()); err != nil {
				t.Fatal(err)
			}
			n.close(t)
			_, last := n.logBounds(t)
			n.spoilEntry(t, last-back, remove)
			n.open(t)
			if c := n.Counters(); c["num_snapshots_discarded"] != 1 {
				t.Errorf("the node has not given up its data: %v", c)
			}
			eventually(t, "readiness", n.Ready)
			n.waitRows(t, fooSum, leader.rows(t, command.Weak, fooSum))
			n.restart(t)
			n.waitRows(t, fooSum, leader.rows(t, command.Weak, fooSum))
		}
	}
}

// TestLogDamagedMembers damages the newest configuration: whether there is anybody else can't be known
// then, and nothing may be thrown away.
func TestLogDamagedMembers(t *testing.T) {
	l := newLog(t, filepath.Join(t.TempDir(), logFile))
	logs := entries(2, 1, 9)
	logs[0].Type, logs[0].Data = raft.LogConfiguration, raft.EncodeConfiguration(members("n1", "n2"))
	logs[5].Type, logs[5].Data = raft.LogConfiguration, raft.EncodeConfiguration(members("n1"))
	if err := l.bolt.StoreLogs(logs); err != nil {
		t.Fatal(err)
	}
	l.bolt.spoil(t, 9, true)
	if k, err := l.known(); err != nil || k.Index != 9 || k.Term != 2 || len(k.Members) != 1 {
		t.Errorf("known = %+v, %v; want the lost end of the log, and one member", k, err)
	}
	l.bolt.spoil(t, 6, false)
	if k, err := l.known(); !errors.Is(err, ErrLogDamaged) {
		t.Errorf("known = %+v, %v; want ErrLogDamaged", k, err)
	}
}

// TestLogDamagedWhileRunning damages an entry that Raft reads: the node ends, and nothing of it leaves
// the node.
func TestLogDamagedWhileRunning(t *testing.T) {
	path := filepath.Join(t.TempDir(), logFile)
	l := newLog(t, path)
	if err := errors.Join(l.StoreLogs(entries(2, 1, 9)), l.bolt.Close()); err != nil {
		t.Fatal(err)
	}
	l = newLog(t, path) // nothing is in memory
	var failed error
	cut := false
	l.fail, l.cut = func(err error) { failed = err }, func() { cut = true }
	l.raft.Store(&raft.Raft{})
	l.bolt.spoil(t, 5, false)
	if term, ok := termAt(t, l, 4); term != 2 || !ok || failed != nil {
		t.Fatalf("entry 4 has term %d, %t; failure %v", term, ok, failed)
	}
	if term, ok := termAt(t, l, 5); term != 0 || !ok || !cut {
		t.Errorf("damaged entry has term %d, %t; contact cut %t; want 0, true, true", term, ok, cut)
	}
	if !errors.Is(failed, ErrLogDamaged) || !strings.Contains(failed.Error(), "raft.db: entry 5") {
		t.Errorf("failure is %v; want one that names file and entry", failed)
	}
}

// TestLogFlipNode flips bits of the log of a node on its own and starts it.
func TestLogFlipNode(t *testing.T) {
	t.Parallel()
	rnd := newRand(t)
	n := newSingle(t)
	want := n.grow(t, 3)
	n.close(t)
	name := filepath.Join(n.cfg.Dir, logFile)
	good, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for range 20 {
		at, bit := meaningfulByte(rnd, good), rnd.IntN(8)
		data := bytes.Clone(good)
		data[at] ^= 1 << bit
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := n.tryOpen(t); err != nil {
			refused++
			again := n.tryOpen(t)
			if !errors.Is(err, ErrLogDamaged) || !strings.Contains(err.Error(), logFile) || again == nil || again.Error() != err.Error() {
				t.Errorf("byte %d bit %d: Open = %v; then %v", at, bit, err, again)
			}
			continue
		}
		waitLeader(t, n)
		if got := n.rows(t, command.Weak, fooSum); got != want {
			t.Errorf("byte %d bit %d: rows = %q; want %q", at, bit, got, want)
		}
		n.close(t)
	}
	t.Logf("%d of 20 refused", refused)
}

func meaningfulByte(rnd *rand.Rand, data []byte) int {
	for {
		if at := rnd.IntN(len(data)); data[at] != 0 {
			return at
		}
	}
}

// TestCommitIndexOfNewLeader: a new leader named what it knew to be committed, which may be less than
// what its predecessor had acknowledged. Whoever asked it was told that he was in sync.
func TestCommitIndexOfNewLeader(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t, 3, nil)
	eventually(t, "a leader with an entry that is not committed", func() error {
		for _, n := range nodes {
			if n.Store == nil {
				n.open(t)
			}
		}
		leader := waitLeader(t, nodes...)
		for _, n := range without(nodes, leader) {
			n.layer.cut() // nobody hears of the entry
		}
		defer func() {
			for _, n := range without(nodes, leader) {
				n.close(t)
			}
		}()
		data, err := command.EncodeEntry(nil, &command.Entry{Kind: command.Noop})
		if err != nil {
			t.Fatal(err)
		}
		_, before, err := leader.logs.bounds()
		if err != nil {
			t.Fatal(err)
		}
		leader.raft.Apply(data, time.Second)
		eventually(t, "the entry in the log", func() error {
			if _, last, err := leader.logs.bounds(); err != nil || last == before {
				return fmt.Errorf("log ends at %d, %w", last, errors.Join(err, errors.New("not yet")))
			}
			return nil
		})
		confirmed := leader.Store.lead.term.Swap(0)
		defer leader.Store.lead.term.CompareAndSwap(0, confirmed)
		got, want := leader.CommitIndex(), leader.raft.LastIndex()
		if leader.raft.State() != raft.Leader || leader.raft.CommitIndex() == want {
			return errors.New("it has lost its lease, or the entry is committed")
		}
		if got != want {
			t.Errorf("CommitIndex = %d before the barrier; want %d, the end of the log", got, want)
		}
		leader.Store.lead.term.Store(confirmed)
		if got := leader.CommitIndex(); leader.raft.State() == raft.Leader && got >= want {
			t.Errorf("CommitIndex = %d after the barrier; want less than %d", got, want)
		}
		return nil
	})
}

// BenchmarkInspect measures what the start pays for reading the log.
func BenchmarkInspect(b *testing.B) {
	path := filepath.Join(b.TempDir(), logFile)
	l, err := openLog(path, func(error) {})
	if err != nil {
		b.Fatal(err)
	}
	logs := entries(1, 1, 10240)
	for _, e := range logs {
		e.Data = bytes.Repeat(binary.BigEndian.AppendUint64(nil, e.Index), 128)
	}
	if err := errors.Join(l.StoreLogs(logs), l.bolt.Close()); err != nil {
		b.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(info.Size())
	for b.Loop() {
		if in, err := inspectFile(path); err != nil || !in.sealed {
			b.Fatal(err)
		}
	}
}

// TestLogPages damages what bbolt finds its way by, byte for byte: both meta pages, the list of free pages,
// and a branch that is made a child of itself.
func TestLogPages(t *testing.T) {
	path := filepath.Join(quickDir(t), logFile)
	sampleLog(t, path)
	storeFreePages(t, path)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	m, err := readMetas(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	size := int(m.pageSize)
	var spots []int
	for i := range boltMetaSize {
		spots = append(spots, boltPageHeader+i, size+boltPageHeader+i)
	}
	free := int(m.freelist) * size
	for i := range 8 * int(binary.NativeEndian.Uint16(data[free+10:])) {
		spots = append(spots, free+boltPageHeader+i)
	}
	for _, at := range spots {
		data[at] ^= 4
		if in, err := inspect(bytes.NewReader(data), int64(len(data))); !errors.Is(err, ErrLogDamaged) {
			t.Errorf("byte %d: inspect = %+v, %v; want ErrLogDamaged", at, in, err)
		}
		data[at] ^= 4
	}
	found := false
	for page := 2 * size; page < len(data); page += size {
		if kind(data[page:]) != boltBranch {
			continue
		}
		child := data[page+boltPageHeader+8:]
		was := binary.NativeEndian.Uint64(child)
		binary.NativeEndian.PutUint64(child, uint64(page/size))
		_, err := inspect(bytes.NewReader(data), int64(len(data)))
		found = found || errors.Is(err, ErrLogDamaged)
		binary.NativeEndian.PutUint64(child, was)
	}
	if len(spots) <= 2*boltMetaSize || !found {
		t.Errorf("%d bytes tried, circle found %t", len(spots), found)
	}
}

// storeFreePages makes a log store the list of its free pages, as those of rqlite and of former versions do.
func storeFreePages(t *testing.T, path string) {
	t.Helper()
	conn, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = conn.Update(func(*bbolt.Tx) error { return nil })
	if err := errors.Join(err, conn.Close()); err != nil {
		t.Fatal(err)
	}
}
