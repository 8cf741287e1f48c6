package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"rqlited/command"
	"rqlited/db"
	"rqlited/internal/vfs"
	"rqlited/snapshot"
)

// outcome is what Apply answers through the future of an entry.
type outcome struct {
	resp *command.Response
	err  error
}

// fsm is the state machine: it applies the log to the database.
type fsm struct {
	target
	log      *slog.Logger
	closing  <-chan struct{}
	failure  *latch
	progress *progress
	watched
	counters  *counters
	hashes    *hashes
	transfers *transfers
	captures

	// turn is had while the database is changed or captured. Raft does that on one goroutine; it is for
	// those who want to come between two entries.
	turn turn
	agreed

	changes
	restoring atomic.Bool
	restored  func() // called when a snapshot has been restored
}

// changes is what has become of the database, and what is due because of that.
type changes struct {
	changed atomic.Uint64 // newest entry that counts as a change of the database
	upkeep  *upkeep
}

// agreed is what all nodes should have in common, and how the leaders have it.
type agreed struct {
	keys       keys
	extensions extensions
}

// watched is what others wait for.
type watched struct {
	reads  *readRegistry
	writes *writeRegistry
}

// captures is what a capture depends on, and the outcome of the last.
type captures struct {
	// base is the id of the snapshot that the database descends from; never nil, empty if there
	// is none. A capture is made against it, not against the newest one in the snapshot store:
	// between the publication of an install and its restore they differ, and such a capture must
	// not be published.
	base   atomic.Pointer[string]
	idle   idle
	damage *damage

	captureErr atomic.Pointer[error] // of the last Snapshot
}

// target is what a state machine writes to. Immutable.
type target struct {
	db    *db.DB
	fs    vfs.FS
	image string // file that restores are written to, on their way into db
}

// idle says when the log is shortened although nothing has changed. Immutable.
type idle struct {
	head    func() (snapshot.Head, bool)
	entries uint64 // that have changed nothing since head
}

// Apply implements raft.FSM. An error of this machine latches the failure: nothing is applied
// after it, so that the node stops where it still equals the others.
func (f *fsm) Apply(l *raft.Log) any {
	if err := f.failure.get(); err != nil {
		return outcome{err: fmt.Errorf("%w: %w", ErrUnknown, err)}
	}
	f.turn.take()
	defer f.turn.give()
	start := time.Now()
	resp, err := f.apply(l)
	f.counters.applies.Add(1)
	f.counters.applyTime.Add(time.Since(start).Microseconds())
	if err != nil && f.failure.get() != nil {
		return outcome{err: fmt.Errorf("%w: %w", ErrUnknown, err)}
	}
	f.progress.publish(applied{l.Index, l.Term, time.Now(), l.AppendedAt})
	return outcome{resp, err}
}

// apply fails without a latched failure only for a read.
func (f *fsm) apply(l *raft.Log) (*command.Response, error) {
	begun := time.Now()
	e, err := command.DecodeEntry(l.Data)
	if err != nil {
		return nil, f.fail("decode", l.Index, err)
	}
	var resp *command.Response
	switch e.Kind {
	case command.Noop:
		if e.Hash {
			f.hashes.set(f.db, l.Index)
		}
		return &command.Response{Index: l.Index}, nil
	case command.Query:
		return f.read(e, l.Index)
	case command.Execute, command.Unified, command.Load, command.LoadChunk:
		f.noteKeys(e.ForeignKeys, l.Index)
		f.extensions.note(e, l.Index <= f.hashes.replayed, f.log)
		if resp, err = f.db.Apply(e); err != nil {
			err = fmt.Errorf("%s: %w", dbFile, err)
		} else {
			err = f.extensions.check(resp)
		}
	default:
		// No request of a client becomes one. A version that knows this kind wrote it, and whoever
		// went on without it would differ from those that have applied it.
		err = fmt.Errorf("kind %d is unknown: a newer version wrote it, and is needed to go on", e.Kind)
	}
	if err != nil {
		return nil, f.fail("apply", l.Index, err)
	}
	f.writes.note(e.Seed)
	f.transfers.applied(len(l.Data), len(f.db.Loads()))
	if resp == nil {
		resp = &command.Response{}
	}
	if e.Kind != command.Unified || resp.Writes > 0 {
		f.changed.Store(l.Index)
		if e.Upkeep == command.NoUpkeep {
			f.upkeep.written.Store(l.Index)
		}
	}
	if e.Upkeep != command.NoUpkeep {
		f.upkeep.applied(e, resp, time.Since(begun), l.Index <= f.hashes.replayed)
	}
	resp.Index = l.Index
	return resp, nil
}

// keys is how foreign keys are enforced. What holds is what an entry says.
type keys struct {
	own     command.Setting // of this node; immutable
	logged  atomic.Uint32   // the Setting in the newest entry that has one
	differs bool            // was said; FSM goroutine only
}

// inLog returns the setting that the newest entry had; Unset if none had any since the start.
func (k *keys) inLog() command.Setting { return command.Setting(k.logged.Load()) }

// noteKeys says once if this node would do otherwise than the entries demand, should it lead. It says
// nothing of entries that are replayed: all nodes may have been given another setting since.
func (f *fsm) noteKeys(s command.Setting, index uint64) {
	if s == command.Unset {
		return
	}
	f.keys.logged.Store(uint32(s))
	if s == f.keys.own || f.keys.differs || index <= f.hashes.replayed {
		return
	}
	f.keys.differs = true
	f.log.Warn("foreign keys are not as on the leader, whose setting counts", "leader", s.String(), "node", f.keys.own.String(), "flag", "-fk")
}

// read runs a strong read if this node asked for it. On other nodes and in a replay nobody waits
// for the rows, and nothing depends on them.
func (f *fsm) read(e *command.Entry, index uint64) (*command.Response, error) {
	ctx, req, ok := f.reads.take(e.Seed)
	if !ok || ctx.Err() != nil {
		return &command.Response{Index: index}, nil
	}
	resp, err := f.db.Query(ctx, req)
	if err != nil {
		return nil, err
	}
	resp.Index = index
	return resp, nil
}

// StoreConfiguration implements raft.ConfigurationStore. It lets a snapshot end with a change of the
// membership. Else a leader whose newest voter waits for a snapshot could not take a new one: for that
// it would need another entry, and for that the voter.
func (f *fsm) StoreConfiguration(uint64, raft.Configuration) {}

func (f *fsm) fail(act string, index uint64, err error) error {
	err = fmt.Errorf("%s log entry %d: %w", act, index, err)
	f.failure.set(err)
	return err
}

// Snapshot implements raft.FSM.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	f.turn.take()
	defer f.turn.give()
	c, err := f.capture()
	f.captureErr.Store(&err)
	if errors.Is(err, db.ErrNothingNew) {
		return nil, raft.ErrNothingNewToSnapshot
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (f *fsm) capture() (*capture, error) {
	if err := f.failure.get(); err != nil {
		return nil, err
	}
	base := *f.base.Load()
	head := base
	if f.damage.open.Load() {
		head = "" // an image, which needs nothing of the damaged files
	}
	c, err := f.hashes.capture(f.db, head)
	switch {
	case errors.Is(err, db.ErrNothingNew):
		return f.emptyCapture(base, err)
	case errors.Is(err, db.ErrBusy), errors.Is(err, db.ErrClosed):
		return nil, err
	case err != nil:
		err = fmt.Errorf("capture %s: %w", dbFile, err)
		f.failure.set(err) // it is open what the main file holds now
		return nil, err
	}
	return newCapture(c, base, f.closing), nil
}

// emptyCapture returns a delta without pages if there are many entries that changed nothing, such
// as reads and failed writes. They would fill the log for ever.
func (f *fsm) emptyCapture(base string, nothingNew error) (*capture, error) {
	head, ok := f.idle.head()
	if !ok || head.ID != base || f.progress.index() < head.Index+f.idle.entries {
		return nil, nothingNew
	}
	return &capture{
		source: noPages{snapshot.Header{PageSize: head.PageSize, Pages: head.Pages, Delta: true}},
		base:   base,
		begun:  time.Now(),
	}, nil
}

// Restore implements raft.FSM. Up to db.Replace an error leaves the old state in place, but the
// snapshot is published and the log may go on behind it: the node stops, and the next start
// restores again.
func (f *fsm) Restore(rc io.ReadCloser) error {
	f.restoring.Store(true)
	defer f.restoring.Store(false)
	err := f.restore(context.Background(), rc)
	if f.transfers.booting.Load() && err != nil {
		f.failure.set(err) // the log is that of the new database
		return nil         // Raft would panic
	}
	if err == nil {
		f.upkeep.replaced()
	}
	select {
	case <-f.closing:
	default:
		if err != nil {
			f.failure.set(err)
		}
	}
	return err
}

func (f *fsm) restore(ctx context.Context, rc io.ReadCloser) error {
	if err := f.failure.get(); err != nil {
		return err
	}
	start := time.Now()
	meta, ok := snapshot.MetaOf(rc)
	if !ok {
		return errors.New("restore: the stream does not say which snapshot it is")
	}
	ctx, cancel := until(ctx, f.closing, ErrNotOpen)
	defer cancel()
	if err := writeImage(ctx, f.fs, rc, f.image); err != nil {
		f.counters.restoresFailed.Add(1)
		return fmt.Errorf("restore snapshot %s to %s: %w", meta.ID, restoreFile, err)
	}
	f.turn.take()
	defer f.turn.give()
	f.hashes.replaced()
	f.writes.miss()
	if err := f.db.Replace(f.image, meta.ID); err != nil {
		f.counters.restoresFailed.Add(1)
		return fmt.Errorf("switch %s to snapshot %s: %w", dbFile, meta.ID, err)
	}
	f.base.Store(&meta.ID)
	f.transfers.open.Store(0)
	f.changed.Store(meta.Index)
	f.progress.publish(applied{index: meta.Index, term: meta.Term, at: time.Now()})
	f.counters.restores.Add(1)
	f.restored()
	f.log.Info("snapshot restored", "snapshot", meta.ID, "index", meta.Index, "took", time.Since(start))
	return nil
}

// writeImage turns the stream r into a synced SQLite file, next to the database.
func writeImage(ctx context.Context, fsys vfs.FS, r io.Reader, name string) error {
	image, err := fsys.Create(name)
	if err != nil {
		return err
	}
	_, err = snapshot.Restore(ctx, r, image)
	return errors.Join(err, image.Close())
}

// until returns a context that ends with parent, or with cause when end is closed.
func until(parent context.Context, end <-chan struct{}, cause error) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(parent)
	select {
	case <-end:
		cancel(cause)
	default:
	}
	go func() {
		select {
		case <-end:
			cancel(cause)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}

// readRegistry holds the strong reads that this node has put into the log, by seed.
type readRegistry struct {
	mu      sync.Mutex
	pending map[uint64]pendingRead // guarded by mu
}

// pendingRead keeps the context of the caller that waits for the read: it is an argument on its
// way to the FSM goroutine.
type pendingRead struct {
	ctx context.Context
	req *command.Request
}

func newReadRegistry() *readRegistry {
	return &readRegistry{pending: make(map[uint64]pendingRead)}
}

func (r *readRegistry) put(seed uint64, ctx context.Context, req *command.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pending[seed] = pendingRead{ctx, req}
}

// take returns the read of that seed, and forgets it.
func (r *readRegistry) take(seed uint64) (context.Context, *command.Request, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p, ok := r.pending[seed]
	delete(r.pending, seed)
	return p.ctx, p.req, ok
}
