package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"rqlited/command"
	"rqlited/db"
	"rqlited/internal/vfs"
	"rqlited/internal/vfs/crashfs"
	"rqlited/snapshot"
)

// The tests of this file run all of a node that touches its disk, but no Raft: what Raft would do to
// log, snapshots and state machine they do themselves, one step after the other.

// Every entry behind the second one inserts its index. What a leader sends was made by entries of
// another history, and has other rows.
const (
	createEntry = 2
	ownEnd      = 12 // of the log at the start of every act
	ownTerm     = 3
	leaderTerm  = 9
)

// noLayer is a stream layer that nobody uses.
type noLayer struct{ raft.StreamLayer }

// start opens a node on the disk.
func (d *disk) start(ctx context.Context) (*Store, error) {
	cfg, err := Config{
		Dir: d.dir, NodeID: "n1", Addr: "127.0.0.1:1", Layer: noLayer{}, testHooks: testHooks{fs: d, logStep: d.logStep},
	}.withDefaults()
	if err != nil {
		return nil, err
	}
	s := newStore(cfg)
	if err := s.mount(ctx); err != nil {
		return nil, errors.Join(err, s.closeFiles())
	}
	return s, nil
}

// mustStart opens a node and applies its log, all of which counts as committed.
func (d *disk) mustStart(t *testing.T, what string) *Store {
	t.Helper()
	s, err := d.start(t.Context())
	if err != nil {
		t.Fatalf("%s: start: %v", what, err)
	}
	_, last, err := s.logs.bounds()
	if err != nil {
		t.Fatal(err)
	}
	head, _ := s.snaps.Head()
	for i := head.Index + 1; i <= last; i++ {
		var l raft.Log
		if err := s.logs.GetLog(i, &l); err != nil {
			t.Fatal(err)
		}
		s.mustApply(t, &l)
	}
	return s
}

func (s *Store) mustApply(t *testing.T, l *raft.Log) {
	t.Helper()
	if l.Type != raft.LogCommand {
		return
	}
	if o := s.fsm.Apply(l).(outcome); o.err != nil {
		t.Fatalf("apply entry %d: %v", l.Index, o.err)
	}
}

func members(ids ...string) (c raft.Configuration) {
	for _, id := range ids {
		c.Servers = append(c.Servers, raft.Server{ID: raft.ServerID(id), Address: raft.ServerAddress(id + ":1")})
	}
	return c
}

// appendRows appends entries up to last to the log, and applies them.
func (s *Store) appendRows(t *testing.T, conf raft.Configuration, term, last uint64) {
	t.Helper()
	_, have, err := s.logs.bounds()
	if err != nil {
		t.Fatal(err)
	}
	for i := have + 1; i <= last; i++ {
		l := &raft.Log{Index: i, Term: term, Type: raft.LogCommand}
		switch {
		case i == 1:
			l.Type, l.Data = raft.LogConfiguration, raft.EncodeConfiguration(conf)
		default:
			q := fmt.Sprintf("INSERT INTO foo VALUES(%d, NULL)", i+1000*term)
			if i == createEntry {
				q = "CREATE TABLE pad (v TEXT); INSERT INTO pad VALUES(hex(zeroblob(6000))); CREATE TABLE foo (v INTEGER, pad TEXT)"
			}
			l.Data, err = command.EncodeEntry(nil, &command.Entry{Kind: command.Execute, Seed: i, Request: request(command.Execute, command.Weak, q)})
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := s.logs.StoreLog(l); err != nil {
			t.Fatal(err)
		}
		s.mustApply(t, l)
	}
}

// rowsUpTo is what the entries up to last leave.
func rowsUpTo(term, last uint64) string {
	var out []string
	for i := uint64(createEntry + 1); i <= last; i++ {
		out = append(out, fmt.Sprint(i+1000*term))
	}
	return strings.Join(out, ",")
}

func (s *Store) content(t *testing.T) string {
	t.Helper()
	resp, err := s.db.Query(t.Context(), request(command.Query, command.None, "SELECT group_concat(v) FROM (SELECT v FROM foo ORDER BY v)"))
	if err != nil {
		t.Fatal(err)
	}
	r := resp.Results[0]
	if r.Error != "" {
		return r.Error
	}
	return fmt.Sprint(r.Rows.Values[0][0])
}

// captureNow does what Raft does to take a snapshot: capture, persist, shorten the log.
func (s *Store) captureNow(conf raft.Configuration, index, term, trailing uint64) error {
	c, err := s.fsm.Snapshot()
	if errors.Is(err, raft.ErrNothingNewToSnapshot) {
		return nil
	}
	if err != nil {
		return err
	}
	defer c.Release()
	k, err := s.snaps.Create(raft.SnapshotVersionMax, index, term, conf, 1, nil)
	if err != nil {
		return err
	}
	if err := c.Persist(k); err != nil {
		return errors.Join(err, k.Cancel())
	}
	if err := k.Close(); err != nil {
		return err
	}
	first, last, err := s.logs.bounds()
	if err != nil || last <= trailing || first > min(index, last-trailing) {
		return err
	}
	return s.logs.DeleteRange(first, min(index, last-trailing))
}

// installNow does what Raft does with a snapshot that a leader sends.
func (s *Store) installNow(stream []byte, conf raft.Configuration, index uint64) error {
	k, err := s.snaps.Create(raft.SnapshotVersionMax, index, leaderTerm, conf, 1, nil)
	if err != nil {
		return err
	}
	if _, err := k.Write(stream); err != nil {
		return errors.Join(err, k.Cancel())
	}
	if err := k.Close(); err != nil {
		return err
	}
	_, rc, err := s.snaps.Open(k.ID())
	if err != nil {
		return err
	}
	return errors.Join(s.fsm.Restore(rc), rc.Close())
}

// imageOf returns the SQLite file that a stream holds.
func imageOf(stream []byte) []byte {
	f, err := crashfs.New().Create("/image")
	if err != nil {
		panic(err)
	}
	if _, err := snapshot.Restore(context.Background(), bytes.NewReader(stream), f); err != nil {
		panic(err)
	}
	size, err := f.Size()
	if err != nil {
		panic(err)
	}
	data := make([]byte, size)
	if _, err := f.ReadAt(data, 0); err != nil {
		panic(err)
	}
	return data
}

// bootNow does what Boot and Raft do with a file.
func (s *Store) bootNow(file []byte, conf raft.Configuration) error {
	u, err := s.db.Receive(context.Background(), bytes.NewReader(file))
	if err != nil {
		return err
	}
	var stream bytes.Buffer
	p := filePages{u, s.closing}
	if err := snapshot.WriteStream(&stream, p); err != nil {
		return err
	}
	if int64(stream.Len()) != p.Header().StreamSize() {
		return fmt.Errorf("stream of %d bytes, %d were announced", stream.Len(), p.Header().StreamSize())
	}
	s.fsm.transfers.booting.Store(true)
	err = s.installNow(stream.Bytes(), conf, ownEnd+1)
	return errors.Join(err, s.failure.get(), u.Close())
}

// loadTo makes the entries up to ownEnd end with those of a load, two of them unless it is to go on behind that.
func loadTo(file []byte, end uint64) func(t *testing.T, s *Store) {
	return func(t *testing.T, s *Store) {
		t.Helper()
		s.appendRows(t, members("n1"), ownTerm, ownEnd-2)
		for i := uint64(ownEnd - 1); i <= ownEnd; i++ {
			c := &command.Chunk{Stream: "load", Sequence: int64(i) - ownEnd + 2, Data: file[:5000], Last: i == end}
			if i == ownEnd {
				c.Data = file[5000:]
			}
			data, err := command.EncodeEntry(nil, &command.Entry{Kind: command.LoadChunk, Chunk: c})
			if err != nil {
				t.Fatal(err)
			}
			l := &raft.Log{Index: i, Term: ownTerm, Type: raft.LogCommand, Data: data}
			if err := s.logs.StoreLog(l); err != nil {
				t.Fatal(err)
			}
			s.mustApply(t, l)
		}
	}
}

// leaderStream returns the snapshot of a leader, at index 7.
func leaderStream(t *testing.T) []byte {
	t.Helper()
	s := newDisk(t).mustStart(t, "leader")
	defer s.closeFiles()
	s.appendRows(t, members("n1", "n2"), leaderTerm, 7)
	if err := s.captureNow(members("n1", "n2"), 7, leaderTerm, 0); err != nil {
		t.Fatal(err)
	}
	head, _ := s.snaps.Head()
	_, rc, err := s.snaps.Open(head.ID)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(rc)
	if err := errors.Join(err, rc.Close()); err != nil {
		t.Fatal(err)
	}
	return data
}

// scenario is an act upon a disk that is in some state, and what may be found after it.
type scenario struct {
	name    string
	conf    raft.Configuration
	prepare func(t *testing.T, s *Store) // the log ends at ownEnd after it
	spoil   func(t *testing.T, d *disk)  // done to the disk when the node is stopped
	act     func(s *Store) error         // nil: the start itself
	idle    bool                         // the last entry changes nothing
	golden  string                       // key of the golden file, if there is one
	content string                       // what the log leads to; empty is what its entries insert

	checked map[string]bool       // states of the disk
	done    func(s *Store) string // what is wrong once the act has succeeded; empty is nothing
}

// TestCrash interrupts everything that touches log, snapshots and marker before each operation, by
// a kill and by a power cut, and interrupts the start that follows again; and it lets each operation
// fail, once and from then on. Its parts run side by side, but not beside the tests that hold elections.
func TestCrash(t *testing.T) {
	stream := leaderStream(t)
	for _, sc := range scenarios(stream) {
		t.Run(sc.name, func(t *testing.T) {
			t.Parallel()
			sc.checked = map[string]bool{}
			base := sc.base(t)
			rnd := newRand(t)
			cuts, errs := 0, 0
			begun := map[string]bool{}
			for n := 0; !t.Failed(); n++ {
				d, done := sc.interrupted(t, base, n)
				if done {
					break
				}
				cuts++
				for _, how := range []survival{all, none, some} {
					seed := rnd.Uint64()
					what := fmt.Sprintf("cut before %d, %s", n, how)
					found := d.after(t, how, seed)
					state := found.state(t)
					if begun[state] {
						continue // as good as an earlier cut
					}
					begun[state] = true
					sc.check(t, what, found)
					for m := 0; how != some; m++ { // and again during the start that follows
						again := d.after(t, how, seed)
						if again.startCut(t, m) {
							break
						}
						cuts++
						sc.check(t, fmt.Sprintf("%s, cut again before %d", what, m), again.after(t, how, rnd.Uint64()))
					}
				}
			}
			for _, sticky := range []bool{false, true} {
				for n := 0; sc.failing(t, base, n, sticky); n++ {
					errs++
				}
			}
			t.Logf("tried %d crash points, %d error points", cuts, errs)
		})
	}
}

// base returns the disk that the act begins with.
func (sc *scenario) base(t *testing.T) *disk {
	t.Helper()
	d := newDisk(t)
	s := d.mustStart(t, "base")
	if sc.prepare != nil {
		sc.prepare(t, s)
	} else {
		s.appendRows(t, sc.conf, ownTerm, ownEnd)
	}
	if err := s.closeFiles(); err != nil {
		t.Fatal(err)
	}
	if sc.spoil != nil {
		sc.spoil(t, d)
	}
	return d
}

// run starts a node, and does the act.
func (sc *scenario) run(t *testing.T, d *disk) (*Store, error) {
	s, err := d.start(t.Context())
	if err != nil || sc.act == nil {
		return s, err
	}
	_, last, err := s.logs.bounds()
	if err != nil {
		return s, err
	}
	head, _ := s.snaps.Head()
	for i := head.Index + 1; i <= last; i++ {
		var l raft.Log
		if err := s.logs.GetLog(i, &l); err != nil {
			return s, err
		}
		if l.Type == raft.LogCommand {
			if o := s.fsm.Apply(&l).(outcome); o.err != nil {
				return s, o.err
			}
		}
	}
	return s, sc.act(s)
}

// interrupted does the act and kills it before operation n. It returns whether the act has come to
// its end before that.
func (sc *scenario) interrupted(t *testing.T, base *disk, n int) (d *disk, done bool) {
	t.Helper()
	d = base.after(t, all, 0)
	d.kill(n)
	s, err := sc.run(t, d)
	if s != nil {
		s.beginClose()
		_ = s.closeFiles() // of a process that is gone
	}
	if d.killed() {
		return d, false
	}
	if err != nil {
		t.Fatalf("%v", err)
	}
	d = d.after(t, none, 0)
	s = d.mustStart(t, "after the act")
	if sc.done != nil {
		if wrong := sc.done(s); wrong != "" {
			t.Errorf("after the act: %s", wrong)
		}
	}
	s.closeFiles()
	sc.check(t, "after the act", d.after(t, all, 0))
	return d, true
}

// startCut starts a node and kills it before operation n. It returns whether the start came to its
// end before.
func (d *disk) startCut(t *testing.T, n int) bool {
	t.Helper()
	d.kill(n)
	s, err := d.start(t.Context())
	if s != nil {
		s.beginClose()
		_ = s.closeFiles()
	}
	dead := d.killed()
	if !dead && err != nil {
		t.Errorf("start: %v", err)
	}
	return !dead
}

// failing does the act and lets operation n fail. It returns whether there was such an operation.
func (sc *scenario) failing(t *testing.T, base *disk, n int, sticky bool) bool {
	t.Helper()
	what := fmt.Sprintf("failure of %d, for ever %t", n, sticky)
	d := base.after(t, all, 0)
	d.fail(n, sticky)
	s, err := sc.run(t, d)
	failed := d.failures()
	d.fail(-1, false) // the disk is good again
	if failed == 0 {
		s.closeFiles()
		return false
	}
	if s == nil {
		sc.check(t, what, d)
		return true
	}
	final := s.failure.get() != nil || errors.Is(err, vfs.ErrUncertain) || errors.Is(err, snapshot.ErrSyncFailed)
	if err != nil && !final && sc.act != nil {
		if err := sc.act(s); err != nil {
			t.Errorf("%s: once the disk is good again: %v", what, err)
		}
	}
	s.beginClose()
	s.closeFiles()
	sc.check(t, what, d)
	return true
}

// check starts a node and compares it with what must be there.
func (sc *scenario) check(t *testing.T, what string, d *disk) {
	t.Helper()
	state := d.state(t)
	if sc.checked[state] {
		return
	}
	sc.checked[state] = true
	s := d.mustStart(t, what)
	defer s.closeFiles() // a second time does nothing
	head, _ := s.snaps.Head()
	first, last, err := s.logs.bounds()
	if err != nil {
		t.Fatal(err)
	}
	if first > head.Index+1 {
		t.Errorf("%s: the log begins at %d, the head ends at %d", what, first, head.Index)
	}
	if s.logs.silent() {
		if head.ID != "" || last != 0 || s.logs.floor.Load().Index != ownEnd || len(s.logs.floor.Load().Members) != 2 {
			t.Errorf("%s: silent with head %q, a log up to %d and floor %+v", what, head.ID, last, s.logs.floor.Load())
		}
		return
	}
	want := rowsUpTo(ownTerm, ownEnd)
	if sc.idle {
		want = rowsUpTo(ownTerm, ownEnd-1)
	}
	if sc.content != "" {
		want = sc.content
	}
	if head.Term == leaderTerm {
		want = rowsUpTo(leaderTerm, 7)
	}
	if got := s.content(t); got != want {
		t.Errorf("%s: head %s, log %d to %d: rows are %s; want %s", what, head.ID, first, last, got, want)
	}
	if err := s.closeFiles(); err != nil {
		t.Errorf("%s: close: %v", what, err)
	}
	sc.checkGarbage(t, what, d)
}

// checkGarbage makes sure that one more start leaves nothing that is not needed.
func (sc *scenario) checkGarbage(t *testing.T, what string, d *disk) {
	t.Helper()
	dir := filepath.Join(d.dir, snapshotsDir)
	s, err := snapshot.Open(dir, snapshot.Config{FS: d})
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	chain := s.Stats().Snapshots
	names, err := d.ReadDir(dir)
	more, moreErr := d.ReadDir(d.dir)
	if err := errors.Join(err, moreErr, s.Close()); err != nil {
		t.Fatal(err)
	}
	files := 0
	for _, name := range names {
		if strings.HasSuffix(name, ".base") || strings.HasSuffix(name, ".delta") {
			files++
		}
	}
	if files > len(chain) {
		t.Errorf("%s: snapshots are %v, files %v", what, chain, names)
	}
	for _, name := range append(names, more...) {
		if strings.HasSuffix(name, ".tmp") || name == restoreFile {
			t.Errorf("%s: %s is left", what, name)
		}
	}
}

// withSnapshots leaves an image at 5, a delta at 9 and the log from there.
func withSnapshots(trailing uint64) func(t *testing.T, s *Store) {
	return withSnapshotsOf(members("n1"), trailing)
}

func withSnapshotsOf(conf raft.Configuration, trailing uint64) func(t *testing.T, s *Store) {
	return func(t *testing.T, s *Store) {
		t.Helper()
		for _, end := range []uint64{5, 9} {
			s.appendRows(t, conf, ownTerm, end)
			if err := s.captureNow(conf, end, ownTerm, trailing); err != nil {
				t.Fatal(err)
			}
		}
		s.appendRows(t, conf, ownTerm, ownEnd)
	}
}

func (d *disk) dropMarker(t *testing.T) {
	t.Helper()
	if err := d.mem.Remove("/data/db.clean"); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	if err := d.mem.SyncDir("/data"); err != nil {
		t.Fatal(err)
	}
}

// flip changes a bit of the newest snapshot file that ends in suffix.
func flip(suffix string) func(t *testing.T, d *disk) {
	return func(t *testing.T, d *disk) {
		t.Helper()
		d.dropMarker(t)
		const dir = "/data/" + snapshotsDir
		names, err := d.mem.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		names = slices.DeleteFunc(names, func(n string) bool { return !strings.HasSuffix(n, suffix) })
		name := dir + "/" + names[len(names)-1]
		data := d.readMem(t, name)
		data[len(data)/2] ^= 1
		w, err := d.mem.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.Write(data)
		if err := errors.Join(err, w.Sync(), w.Close(), d.mem.SyncDir(dir)); err != nil {
			t.Fatal(err)
		}
	}
}

func writePeersJSON(t *testing.T, d *disk) {
	t.Helper()
	name := filepath.Join(d.dir, raftDir, peersFile)
	if err := os.WriteFile(name, []byte(`[{"id":"n1","address":"new:1"}]`), 0o600); err != nil {
		t.Fatal(err)
	}
}

// recovered says what is wrong with a node whose membership was replaced.
func recovered(s *Store) string {
	metas, err := s.snaps.List()
	if err != nil || len(metas) != 1 || len(metas[0].Configuration.Servers) != 1 || metas[0].Configuration.Servers[0].Address != "new:1" {
		return fmt.Sprintf("snapshots are %+v, %v", metas, err)
	}
	if _, last, err := s.logs.bounds(); err != nil || last != 0 {
		return fmt.Sprintf("log ends at %d, %v", last, err)
	}
	return ""
}

func headIs(index, term uint64) func(s *Store) string {
	return func(s *Store) string {
		if head, _ := s.snaps.Head(); head.Index != index || head.Term != term {
			return fmt.Sprintf("head is %s; want one of term %d, index %d", head.ID, term, index)
		}
		return ""
	}
}

func scenarios(stream []byte) []scenario {
	file := imageOf(stream)
	one, two := members("n1"), members("n1", "n2")
	capture := func(s *Store) error { return s.captureNow(one, ownEnd, ownTerm, 1) }
	install := func(index uint64) func(s *Store) error {
		return func(s *Store) error { return s.installNow(stream, two, index) }
	}
	damaged := func(suffix string, conf raft.Configuration, trailing uint64, golden string) scenario {
		return scenario{
			golden: golden,
			name:   fmt.Sprintf("%s damaged, %d members, trailing %d", suffix, len(conf.Servers), trailing), conf: conf,
			prepare: withSnapshotsOf(conf, trailing), spoil: flip(suffix),
		}
	}
	return []scenario{
		{name: "first image", conf: one, act: capture, done: headIs(ownEnd, ownTerm)},
		{name: "delta", golden: "delta", conf: one, prepare: withSnapshots(1), act: capture, done: headIs(ownEnd, ownTerm)},
		{
			name: "delta without pages", conf: one,
			prepare: func(t *testing.T, s *Store) {
				s.appendRows(t, one, ownTerm, ownEnd-1)
				data, err := command.EncodeEntry(nil, &command.Entry{Kind: command.Noop})
				l := &raft.Log{Index: ownEnd, Term: ownTerm, Type: raft.LogCommand, Data: data}
				if err := errors.Join(err, s.captureNow(one, ownEnd-1, ownTerm, 3), s.logs.StoreLog(l)); err != nil {
					t.Fatal(err)
				}
			},
			idle: true,
			act: func(s *Store) error {
				s.fsm.idle.entries = 1
				return capture(s)
			},
			done: headIs(ownEnd, ownTerm),
		},
		{name: "install higher", conf: one, prepare: withSnapshots(1), act: install(20), done: headIs(20, leaderTerm)},
		{name: "install equal", conf: one, prepare: withSnapshots(1), act: install(9), done: headIs(9, leaderTerm)},
		{name: "install lower", golden: "install", conf: one, prepare: withSnapshots(1), act: install(7), done: headIs(7, leaderTerm)},
		{name: "install into a log without snapshots", conf: one, act: install(7), done: headIs(7, leaderTerm)},
		{
			name: "restore", golden: "restore", conf: one, prepare: withSnapshots(1), spoil: func(t *testing.T, d *disk) { d.dropMarker(t) },
			done: headIs(9, ownTerm),
		},
		{name: "recovery", golden: "recovery", conf: one, prepare: withSnapshots(1), spoil: writePeersJSON, done: recovered},
		{name: "recovery of a log", conf: one, spoil: writePeersJSON, done: recovered},
		{
			name: "boot", golden: "boot", conf: one, prepare: withSnapshots(1),
			act: func(s *Store) error { return s.bootNow(file, one) }, done: headIs(ownEnd+1, leaderTerm),
		},
		{
			name: "snapshot after a load", golden: "load", conf: one, prepare: loadTo(file, ownEnd), content: rowsUpTo(leaderTerm, 7),
			act: capture, done: headIs(ownEnd, ownTerm),
		},
		{
			name: "snapshot amid a load", conf: one, prepare: loadTo(file, ownEnd+1), content: rowsUpTo(ownTerm, ownEnd-2),
			act: func(s *Store) error {
				if err := capture(s); !errors.Is(err, db.ErrBusy) {
					return fmt.Errorf("snapshot amid a load: %w", err)
				}
				return nil
			},
			done: headIs(0, 0),
		},
		damaged(".delta", one, 5, "salvage"),
		damaged(".base", one, ownEnd, "log complete"),
		damaged("MANIFEST", one, ownEnd, ""),
		damaged(".base", two, 1, "leader"),
		damaged("MANIFEST", two, 1, ""),
	}
}
