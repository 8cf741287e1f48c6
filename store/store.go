package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"golang.org/x/sync/errgroup"

	"rqlited/command"
	"rqlited/db"
	"rqlited/internal/extension"
	"rqlited/snapshot"
)

// Names in the data directory. Other files in it are left alone.
const (
	lockFile      = "LOCK"
	logFile       = "raft.db"
	dbFile        = "db.sqlite"
	restoreFile   = "db.sqlite.restore" // a snapshot on its way to be the database
	snapshotsDir  = "snapshots"
	extensionsDir = "extensions" // made anew at each start
	raftDir       = "raft"
	peersFile     = "peers.json" // in raftDir
	peersDone     = "peers.info" // in raftDir
)

// never is as long as Raft's timers allow for.
const never = 10 * 365 * 24 * time.Hour

// drainTime bounds Close's wait for requests that are under way.
const drainTime = 3 * time.Second

// Store is one node's copy of the replicated database. Its methods are safe for concurrent use.
type Store struct {
	cfg Config
	log *slog.Logger

	storage
	machinery

	lead       leadership
	rounds     rounds[struct{}] // checks of the leadership
	notified   notified
	heard      heard
	readyIndex atomic.Uint64 // commit index when this node first heard of one as a follower
	counters   *counters

	closing   chan struct{} // closed when Close begins
	closeOnce sync.Once     // closes closing
	finishing sync.Mutex    // held while the end is being made
	closed    chan struct{} // closed when Close has ended; guarded by finishing
	failure   *latch        // why the node has to stop
}

// storage is what the Store has on disk. Immutable once it is open, also when it is closed.
type storage struct {
	lock   *os.File
	snaps  *snapshots
	logs   *logStore
	db     *db.DB
	damage *damage

	extensions extension.Set
}

// machinery is what runs on top of it. Immutable.
type machinery struct {
	fsm          *fsm
	raft         *raft.Raft
	raftEnded    chan struct{} // closed when raft has ended
	layer        *layer
	gate         *gate
	settings     sync.Mutex // held while Raft's settings are changed
	observer     *raft.Observer
	observed     chan raft.Observation
	dead         chan raft.FailedHeartbeatObservation
	userSnapshot chan struct{} // holds a token while a user's snapshot is taken
	stop         context.CancelFunc
	done         func() error // waits for the goroutines that stop ends
}

// Open opens the data directory, brings the database to the newest snapshot, and starts Raft,
// which then replays the log. If raft/peers.json exists, the membership is replaced by it first.
//
// If snapshots are damaged, Open starts from an older one that the log goes on from. If there is
// none, or entries of the log are damaged that no snapshot covers, and other members have the data,
// the node starts with nothing and waits for them.
//
// It fails with ErrLocked if another process uses the directory, with ErrGap if log entries are
// missing, with ErrForeign if the directory is that of another node, with snapshot.ErrDamaged or
// ErrLogDamaged if nobody else has what is damaged, and otherwise with what it has found; a failed Open
// has deleted nothing that another one could use. If ctx ends, Open fails soon. Open closes
// cfg.Layer when it fails.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("store configuration: %w", err)
	}
	s := newStore(cfg)
	err = s.mount(ctx)
	if err == nil {
		err = s.openUpkeep()
	}
	if err == nil {
		err = s.startRaft()
	}
	if err != nil {
		s.cfg.Layer.Close()
		return nil, errors.Join(err, s.closeFiles())
	}
	s.start()
	return s, nil
}

func newStore(cfg Config) *Store {
	s := &Store{
		cfg:      cfg,
		log:      cfg.Logger,
		counters: &counters{},
		closing:  make(chan struct{}),
		closed:   make(chan struct{}),
		failure:  newLatch(),
		rounds:   newRounds[struct{}](),
	}
	s.damage = newDamage(s.log)
	s.raftEnded = make(chan struct{})
	s.layer = newLayer(cfg.Layer, cfg.Addr)
	return s
}

// mount takes the directory for this process and brings what is in it to where Raft can start.
func (s *Store) mount(ctx context.Context) error {
	if err := os.MkdirAll(filepath.Join(s.cfg.Dir, raftDir), 0o755); err != nil {
		return err
	}
	var err error
	if s.lock, err = lockDir(s.cfg.Dir); err != nil {
		return err
	}
	// Not before the lock: the process that has it may be about to load what is there.
	if s.extensions, err = extension.Collect(s.cfg.Extensions, s.cfg.extensionsDir()); err != nil {
		return err
	}
	err = s.load(ctx)
	if !errors.Is(err, snapshot.ErrDamaged) && !errors.Is(err, ErrLogDamaged) {
		return err
	}
	if err := s.heal(err); err != nil {
		return err
	}
	return s.load(ctx)
}

// load opens what is in the directory, and brings the database to the newest snapshot. It fails
// with snapshot.ErrDamaged if that snapshot is not as it was.
func (s *Store) load(ctx context.Context) error {
	head, exists, err := s.openFiles(ctx)
	if err != nil {
		return err
	}
	s.db, err = db.Open(filepath.Join(s.cfg.Dir, dbFile), db.Config{
		ForeignKeys: s.cfg.ForeignKeys, MaxReaders: s.cfg.MaxReaders, ReadMemory: s.cfg.ReadMemory, Head: head.ID,
		Extensions: s.extensions.Paths(s.cfg.extensionsDir()),
		FS:         s.cfg.fs, Logger: s.log, Damaged: func(err error) { s.fail(fmt.Errorf("read %s: %w", dbFile, err)) },
	})
	if err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	if err := s.buildFSM(head); err != nil {
		return err
	}
	switch {
	case !exists:
		return nil
	case s.db.Head() == head.ID:
		s.counters.startSkipped.Add(1)
		s.log.Info("live database kept", "snapshot", head.ID)
		return nil
	}
	s.log.Info("live database is not known to equal the newest snapshot, which is restored", "snapshot", head.ID)
	if err := s.restoreHead(ctx, head.ID); err != nil {
		return err
	}
	s.counters.startRestores.Add(1)
	return nil
}

// restoreHead is what Raft would do at its start; but Raft drops the reason for a failure, and
// cannot be interrupted.
func (s *Store) restoreHead(ctx context.Context, id string) error {
	_, rc, err := s.snaps.Store.Open(id) // no follower waits for what the log holds behind it
	if err != nil {
		return err
	}
	return errors.Join(s.fsm.restore(ctx, rc), rc.Close())
}

// openFiles opens all in the directory but the live database.
func (s *Store) openFiles(ctx context.Context) (head snapshot.Head, exists bool, err error) {
	image := filepath.Join(s.cfg.Dir, restoreFile)
	if err := s.cfg.fs.Remove(image); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return head, false, err
	}
	snaps, err := snapshot.Open(s.snapshotsDir(), s.snapshotConfig())
	if err != nil {
		return head, false, err
	}
	s.snaps = &snapshots{Store: snaps, log: s.log, idleLimit: installIdle}
	head, exists = snaps.Head()
	if err := s.openLog(head, exists); err != nil {
		return head, false, err
	}
	r := &recovery{cfg: s.cfg, extensions: s.extensions, snaps: snaps, logs: s.logs, log: s.log}
	recovered, err := r.run(ctx)
	if err != nil {
		return head, false, err
	}
	if recovered {
		s.counters.recoveries.Add(1)
		head, exists = snaps.Head()
		if err := s.logs.check(head, exists); err != nil {
			return head, false, err
		}
	}
	return head, exists, s.claim(recovered)
}

func (s *Store) snapshotConfig() snapshot.Config {
	return snapshot.Config{FS: s.cfg.fs, Logger: s.log, Damaged: s.damage.report}
}

func (s *Store) openLog(head snapshot.Head, exists bool) error {
	path := filepath.Join(s.cfg.Dir, logFile)
	missing, err := logMissing(path)
	if err != nil {
		return err
	}
	if missing {
		// Its votes and term are gone with it: the node could vote twice. And a database without
		// a log is all that is left of what it held, but would be deleted.
		if exists {
			return fmt.Errorf("%s is missing or empty, but there is a snapshot, %s", path, head.ID)
		}
		if info, err := os.Stat(filepath.Join(s.cfg.Dir, dbFile)); err == nil && info.Size() > 0 {
			return fmt.Errorf("%s is missing or empty, but there is a database, %s", path, info.Name())
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if s.logs, err = openLog(path, s.fail); err != nil {
		return err
	}
	s.logs.step, s.logs.spoken, s.logs.cut = s.cfg.logStep, s.endSilence, s.layer.cut
	s.logs.held.sent = make(chan struct{}, 1)
	damaged := s.logs.damaged
	if err := s.logs.check(head, exists); err != nil {
		return err
	}
	if damaged > 0 {
		s.log.Warn("log is damaged in a part that the newest snapshot covers, and begins behind that now",
			"index", damaged, "snapshot", head.ID)
	}
	return nil
}

// claim notes whose the directory is, and which snapshot is the newest, for a start that cannot
// read that any more. A node that was a cluster on its own must not come back under another name:
// were it to join a cluster, that one could take its log for a copy of its own.
func (s *Store) claim(recovered bool) error {
	members := s.logs.members
	metas, err := s.snaps.List()
	if err != nil {
		return err
	}
	for _, m := range metas {
		if len(members) == 0 {
			members = serversOf(m.Configuration)
		}
		if err := s.logs.noteHead(m); err != nil {
			return err
		}
	}
	owner, err := s.logs.get(keyNode)
	if err != nil || string(owner) == s.cfg.NodeID {
		return err
	}
	if len(owner) > 0 && len(members) == 1 && members[0].ID == string(owner) && !recovered {
		return fmt.Errorf("%w: it is that of node %q, a cluster on its own, and this is node %q. Start it as %q, or let this node begin with an empty directory",
			ErrForeign, owner, s.cfg.NodeID, owner)
	}
	return s.logs.set(keyNode, []byte(s.cfg.NodeID))
}

func (s *Store) buildFSM(head snapshot.Head) error {
	_, last, err := s.logs.bounds()
	if err != nil {
		return err
	}
	s.fsm = &fsm{
		target:    target{s.db, s.cfg.fs, filepath.Join(s.cfg.Dir, restoreFile)},
		log:       s.log,
		closing:   s.closing,
		failure:   s.failure,
		progress:  newProgress(s.failure, s.closing),
		watched:   watched{newReadRegistry(), newWriteRegistry()},
		counters:  s.counters,
		turn:      newTurn(),
		hashes:    newHashes(max(last, head.Index)),
		transfers: newTransfers(),
		captures:  captures{idle: idle{s.snaps.Head, s.cfg.Snapshot.Threshold}, damage: s.damage},
		changes:   changes{upkeep: newUpkeep(s.cfg.Upkeep, &s.counters.upkeepCounters)},
		agreed:    agreed{keys{own: command.SettingOf(s.cfg.ForeignKeys)}, newExtensions(s.extensions)},
		restored:  s.restored,
	}
	s.fsm.base.Store(&head.ID)
	if head.ID != "" {
		s.fsm.changed.Store(head.Index)
		s.fsm.progress.publish(applied{index: head.Index, term: head.Term, at: time.Now()})
	}
	s.snaps.fsm, s.snaps.logs, s.snaps.cutPeers = s.fsm, s.logs, s.layer.cutInbound
	return nil
}

func (s *Store) startRaft() error {
	level, err := parseRaftLevel(s.cfg.Raft.LogLevel)
	if err != nil {
		return err
	}
	log := newRaftLogger(s.log, level, s.closing, s.failure.ch)
	trans := newTransport(s.layer, s.logs, log)
	if s.cfg.Raft.CompressSnaps {
		trans.compress(s.layer, log)
	}
	r, err := raft.NewRaft(s.raftConfig(log), s.fsm, s.logs, settingsStore{s.logs.bolt, s.logs}, s.snaps, trans)
	if err != nil {
		return errors.Join(fmt.Errorf("start raft: %w", err), trans.Close())
	}
	s.raft = r
	s.logs.raft.Store(r)
	if !s.logs.silent() {
		s.speak() // if the silence ended meanwhile, nobody could be told
	}
	return nil
}

func (s *Store) raftConfig(log hclog.Logger) *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(s.cfg.NodeID)
	c.HeartbeatTimeout = s.cfg.Raft.HeartbeatTimeout
	c.ElectionTimeout = s.cfg.Raft.ElectionTimeout
	c.LeaderLeaseTimeout = s.cfg.Raft.LeaderLeaseTimeout
	if s.logs.silent() {
		// A node that asks nobody for a vote would still win a cluster of one, which its cluster
		// may have been when the log began. See speak.
		c.HeartbeatTimeout, c.ElectionTimeout = never, never
	}
	c.CommitTimeout = s.cfg.Raft.CommitTimeout
	c.BatchApplyCh = true      // or entries of one goroutine would never share a transaction of the log
	c.ShutdownOnRemove = false // see observe: Raft's end could not be waited for
	c.PreVoteDisabled = s.cfg.Raft.PreVoteDisabled
	c.SnapshotThreshold = s.cfg.Snapshot.Threshold
	c.SnapshotInterval = s.cfg.Snapshot.Interval
	c.TrailingLogs = s.cfg.Snapshot.trailing()
	c.NoSnapshotRestoreOnStart = true // load has
	c.NoLegacyTelemetry = true
	c.LogLevel = s.cfg.Raft.LogLevel
	c.Logger = log
	return c
}

// start launches the Store's goroutines. Each runs until ctx ends.
func (s *Store) start() {
	s.gate = newGate()
	s.userSnapshot = make(chan struct{}, 1)
	s.dead = make(chan raft.FailedHeartbeatObservation, 16)
	s.observed = make(chan raft.Observation, 256)
	s.observer = raft.NewObserver(s.observed, false, func(o *raft.Observation) bool {
		switch o.Data.(type) {
		case raft.LeaderObservation, raft.RaftState, raft.FailedHeartbeatObservation:
			return true
		}
		return false
	})
	s.raft.RegisterObserver(s.observer)
	ctx, stop := context.WithCancel(context.Background())
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.watchLeadership(ctx) })
	g.Go(func() error { return s.runRounds(ctx) })
	g.Go(func() error { return s.runHashes(ctx) })
	g.Go(func() error { return s.watchReplicas(ctx) })
	g.Go(func() error { return s.watchWALSize(ctx) })
	g.Go(func() error { return s.watchDamage(ctx) })
	g.Go(func() error { return s.watchTransfers(ctx) })
	g.Go(func() error { return s.runUpkeep(ctx) })
	g.Go(func() error { return s.observe(ctx) })
	g.Go(func() error { return s.reapDead(ctx) })
	g.Go(func() error { return s.stopOnFailure(ctx) })
	s.stop, s.done = stop, g.Wait
}

// fail ends the node: Wait returns err, and nothing more is applied or acknowledged.
func (s *Store) fail(err error) {
	select {
	case <-s.closing:
		return // what breaks while all is being closed breaks nothing
	default:
	}
	s.failure.set(err)
}

// stopOnFailure takes this node out of the cluster as soon as it is not good for it any more, so
// that another one becomes the leader.
func (s *Store) stopOnFailure(ctx context.Context) error {
	select {
	case <-ctx.Done():
	case <-s.failure.ch:
		s.layer.cut()
	}
	return nil
}

// NodeID returns this node's id.
func (s *Store) NodeID() string { return s.cfg.NodeID }

// Addr returns the Raft address that is told to the other nodes.
func (s *Store) Addr() string { return s.cfg.Addr }

// CommitIndex returns the index of the last log entry that this node knows to be committed. A leader
// whose barrier is not applied yet does not know how much of its log earlier ones have committed, and
// have acknowledged: it returns the end of the log, for whoever asks must not miss any of it.
func (s *Store) CommitIndex() uint64 {
	if s.raft.State() == raft.Leader && s.lead.term.Load() != s.raft.CurrentTerm() {
		return s.raft.LastIndex()
	}
	return s.raft.CommitIndex()
}

// Wait returns when the node has to stop, with the reason, or when Close has ended, with nil.
func (s *Store) Wait() error {
	select {
	case <-s.failure.ch:
		return s.failure.err
	case <-s.closed:
		return s.failure.get()
	}
}

// Failed returns why this node has to stop, as soon as that is certain, or nil. Nothing is applied any
// more then.
func (s *Store) Failed() error { return s.failure.get() }

func (s *Store) beginClose() { s.closeOnce.Do(func() { close(s.closing) }) }

// Close stops the node and closes its files. It waits a moment for requests under way, whose fate
// is ErrUnknown if they are not done then. If ctx ends while Raft is still at work, for instance
// in a long statement, Close returns the cause and leaves files and lock to the end of the
// process; it may be called again. A second Close returns nil.
func (s *Store) Close(ctx context.Context) error {
	s.beginClose()
	s.gate.close()
	select {
	case <-s.gate.idle:
	case <-time.After(drainTime):
	case <-ctx.Done():
	}
	done := make(chan error, 1)
	go func() { done <- s.finish() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("close store: %w", context.Cause(ctx))
	}
}

// finish ends Raft and the goroutines, and closes the files once nothing uses them any more.
func (s *Store) finish() error {
	s.finishing.Lock()
	defer s.finishing.Unlock()
	select {
	case <-s.closed:
		return nil
	default:
	}
	defer close(s.closed)
	s.stop()
	stopped := s.raft.Shutdown()
	s.layer.cut() // no peer keeps Raft waiting from here on
	err := stopped.Error()
	close(s.raftEnded)
	return errors.Join(err, s.done(), s.closeFiles())
}

// closeFiles closes what open has opened, in the reverse order.
func (s *Store) closeFiles() error {
	err := s.closeData()
	if s.lock != nil {
		err = errors.Join(err, s.lock.Close()) // and with it the lock
	}
	return err
}

// closeData closes what load has opened. A second time it does nothing. What was opened stays in place: whoever
// has asked for it finds that it is closed.
func (s *Store) closeData() error {
	var errs []error
	if s.db != nil {
		errs = append(errs, s.db.Close())
	}
	if s.snaps != nil {
		errs = append(errs, s.snaps.Close())
	}
	if s.logs != nil {
		errs = append(errs, s.logs.bolt.Close())
	}
	return errors.Join(errs...)
}
