package store

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"rqlited/db"
	"rqlited/internal/vfs"
	"rqlited/snapshot"
)

// installIdle is how long a leader may send nothing during an install. Raft itself would wait for
// ever, and do nothing else meanwhile.
const installIdle = 30 * time.Second

// snapshots is the snapshot store that Raft is given. It tells captures from installs, and keeps
// log, database and snapshots in step when one is published.
type snapshots struct {
	*snapshot.Store
	fsm       *fsm
	logs      *logStore
	log       *slog.Logger
	cutPeers  func() // ends an install that has stalled or failed
	idleLimit time.Duration
	created   atomic.Int64 // sinks

	// turn is held from the publication of a capture until Raft has shortened its log, and
	// during the publication of an install.
	turn sync.Mutex
}

// List implements raft.SnapshotStore. It names the head alone: what Raft would try after that is
// a snapshot that the log need not go on from.
func (s *snapshots) List() ([]*raft.SnapshotMeta, error) {
	metas, err := s.Store.List()
	return metas[:min(len(metas), 1)], err
}

// Open implements raft.SnapshotStore.
func (s *snapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	meta, rc, err := s.Store.Open(id)
	if err != nil {
		return nil, nil, err
	}
	return meta, s.logs.held.add(rc, meta.Index), nil
}

// Create implements raft.SnapshotStore.
func (s *snapshots) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration,
	configurationIndex uint64, trans raft.Transport) (raft.SnapshotSink, error) {
	inner, err := s.Store.Create(version, index, term, configuration, configurationIndex, trans)
	if err != nil {
		return nil, s.note("create snapshot in "+snapshotsDir, err)
	}
	s.created.Add(1)
	k, ok := inner.(*snapshot.Sink)
	if !ok {
		panic(fmt.Sprintf("store: snapshot.Store.Create returned a %T", inner))
	}
	return &sink{Sink: k, store: s, index: index, term: term, idle: time.AfterFunc(s.idleLimit, s.cutPeers)}, nil
}

// note latches the failure of a disk that did not sync during act.
func (s *snapshots) note(act string, err error) error {
	if errors.Is(err, snapshot.ErrSyncFailed) || errors.Is(err, vfs.ErrUncertain) {
		s.fsm.failure.set(fmt.Errorf("%s: %w", act, err))
	}
	return err
}

// sink is one snapshot on its way into the store: a capture once persist was called, else an
// install.
type sink struct {
	*snapshot.Sink
	store       *snapshots
	index, term uint64
	idle        *time.Timer
	capture     *capture // nil for an install
}

func (k *sink) Write(b []byte) (int, error) {
	if k.capture == nil {
		k.idle.Reset(k.store.idleLimit)
	}
	return k.Sink.Write(b)
}

// Cancel implements raft.SnapshotSink.
func (k *sink) Cancel() error {
	k.idle.Stop()
	if k.capture != nil {
		k.store.fsm.counters.failed.Add(1)
		return k.Sink.Cancel()
	}
	k.store.logs.installFailures.Add(1)
	// Raft reads what is left of the stream before it does anything else, however long that takes.
	k.store.cutPeers()
	return k.Sink.Cancel()
}

// Close implements raft.SnapshotSink: it publishes the snapshot.
func (k *sink) Close() error {
	k.idle.Stop()
	if k.capture != nil {
		err := k.publish()
		k.store.fsm.counters.snapshot(err, k.capture)
		return k.note(err)
	}
	if err := k.install(); err != nil {
		k.store.logs.installFailures.Add(1)
		return k.note(err)
	}
	return nil
}

func (k *sink) note(err error) error {
	return k.store.note(fmt.Sprintf("publish snapshot %s in %s", k.ID(), snapshotsDir), err)
}

// publish publishes a capture. It takes the turn, which Release gives back: only then has Raft
// noted the snapshot and shortened the log, and an install must not come in between.
func (k *sink) publish() error {
	s := k.store
	s.turn.Lock()
	k.capture.endTurn = s.turn.Unlock
	if err := k.Sink.Close(); err != nil {
		return err
	}
	id := k.ID()
	s.fsm.base.Store(&id)
	s.logs.published(k.index, k.term)
	if !k.capture.source.Header().Delta {
		s.fsm.damage.mended()
	}
	if err := s.noteHead(); err != nil {
		return err
	}
	// From here on the snapshot stands. What fails now costs the next start a restore, unless it
	// is a sync of the main file.
	err := k.capture.published(s.fsm.db, id)
	if err = s.note("mark "+dbFile+" as equal to the snapshot", err); err != nil {
		s.log.Warn("live database not marked as equal to the snapshot", "snapshot", id, "err", err)
	}
	return nil
}

// install publishes what the leader sent.
func (k *sink) install() error {
	s := k.store
	s.turn.Lock()
	defer s.turn.Unlock()
	head, _ := s.Head()
	if err := s.logs.install(k.ID(), k.index, k.term, head, k.Sink.Close); err != nil {
		return err
	}
	s.fsm.damage.mended()
	return s.noteHead()
}

// noteHead has the log remember the newest snapshot. Raft is not told of a snapshot before that.
func (s *snapshots) noteHead() error {
	metas, err := s.Store.List()
	for _, m := range metas {
		err = errors.Join(err, s.logs.noteHead(m))
	}
	if err != nil {
		s.logs.fail(err)
	}
	return err
}

// capture is a raft.FSMSnapshot: the state of the database, or that it has not changed.
type capture struct {
	source  snapshot.Pages
	db      *db.Capture // nil if there are no pages
	base    string
	begun   time.Time
	endTurn func() // nil if the turn was not taken
}

func newCapture(c *db.Capture, base string, closing <-chan struct{}) *capture {
	return &capture{source: pages{c, closing}, db: c, base: base, begun: time.Now()}
}

// Persist implements raft.FSMSnapshot.
func (c *capture) Persist(rs raft.SnapshotSink) error {
	k, ok := rs.(*sink)
	if !ok {
		return fmt.Errorf("persist into a %T", rs)
	}
	k.capture = c
	k.idle.Stop()
	k.Local(c.base)
	return snapshot.WriteStream(k, c.source)
}

// published tells the database that its content is known as id from now on.
func (c *capture) published(d *db.DB, id string) error {
	if c.db == nil {
		return d.Adopt(c.base, id)
	}
	return c.db.Published(id)
}

// Release implements raft.FSMSnapshot.
func (c *capture) Release() {
	if c.db != nil {
		c.db.Release()
	}
	if c.endTurn != nil {
		c.endTurn()
	}
}

// pages presents a capture as the snapshot package wants it.
type pages struct {
	*db.Capture
	closing <-chan struct{}
}

func (p pages) Header() snapshot.Header {
	return snapshot.Header{PageSize: p.PageSize(), Pages: p.Pages(), Records: p.Records(), Delta: p.Delta()}
}

func (p pages) Next(buf []byte) (uint32, error) {
	select {
	case <-p.closing:
		return 0, ErrNotOpen
	default:
		return p.Capture.Next(buf)
	}
}

// noPages is a change of nothing.
type noPages struct{ h snapshot.Header }

func (p noPages) Header() snapshot.Header     { return p.h }
func (p noPages) Next([]byte) (uint32, error) { return 0, io.EOF }
