package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"rqlited/internal/vfs"
)

// Store keeps the snapshots of one node in one directory, which belongs to it alone. It is safe
// for concurrent use.
type Store struct {
	dir string
	fs  vfs.FS
	cfg Config
	log *slog.Logger

	turn       sync.Mutex    // held to replace MANIFEST and to create files, also during I/O
	compacting chan struct{} // holds a token while somebody compacts

	mu      sync.Mutex
	catalog *catalog        // guarded by mu; catalog.man changes only for the owner of turn
	next    uint64          // number of the next file; guarded by mu
	failed  error           // why nothing is published any more; guarded by mu
	suspect map[string]bool // files found damaged; guarded by mu

	closing chan struct{} // closed by Close, with turn held
	woken   chan struct{} // a token: there may be something to compact or to delete
	done    chan struct{} // closed when maintain has ended

	count counters
}

var _ raft.SnapshotStore = (*Store)(nil)

// Open opens the store in dir, creating it if there is none; the directory above must exist. It
// deletes what MANIFEST does not name, but only after all that MANIFEST names was found to be
// there. ErrDamaged means that something is not; then nothing has been changed.
func Open(dir string, cfg Config) (*Store, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("snapshot configuration: %w", err)
	}
	found, err := recoverDir(cfg.FS, dir, cfg.Logger)
	if err != nil {
		return nil, fmt.Errorf("open snapshots in %s: %w", dir, err)
	}
	s := &Store{
		dir:        dir,
		fs:         cfg.FS,
		cfg:        cfg,
		log:        cfg.Logger,
		compacting: make(chan struct{}, 1),
		catalog:    newCatalog(found.man, found.garbage),
		next:       found.next,
		suspect:    map[string]bool{},
		closing:    make(chan struct{}),
		woken:      make(chan struct{}, 1),
		done:       make(chan struct{}),
	}
	if head := found.man.head(); head != nil {
		if info, err := s.fs.Stat(filepath.Join(dir, head.File)); err == nil {
			s.count.newest.Store(info.ModTime.UnixNano())
		}
	}
	go s.maintain()
	return s, nil
}

// Close ends the store's goroutine, interrupts a compaction, and waits for a publication under way.
// Readers stay usable; sinks cannot be closed successfully any more.
func (s *Store) Close() error {
	s.turn.Lock()
	err := s.usable()
	if !errors.Is(err, ErrClosed) {
		close(s.closing)
	}
	s.turn.Unlock()
	s.compacting <- struct{}{} // joins a Compact that somebody else has called
	<-s.compacting
	<-s.done
	return nil
}

// usable returns the reason why nothing can be published, if there is one.
func (s *Store) usable() error {
	select {
	case <-s.closing:
		return ErrClosed
	default:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

// Create begins a snapshot. It does no I/O and never waits. The Sink is a *Sink.
func (s *Store) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration,
	configurationIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	if version != raft.SnapshotVersionMax {
		return nil, errVersion
	}
	if err := s.usable(); err != nil {
		return nil, err
	}
	number := s.number()
	k := &Sink{
		store: s,
		meta: link{
			ID:            snapshotID(term, index, number),
			Index:         index,
			Term:          term,
			Configuration: configurationOf(configuration, configurationIndex),
		},
	}
	k.stage = stage{store: s, number: number, admit: k.admit}
	return k, nil
}

// number returns a number that was never used before.
func (s *Store) number() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next++
	return s.next - 1
}

// List returns the head, or nothing. Older snapshots are not offered, even while they can be
// opened: Raft would restore one if the head were damaged, although its log begins after the head.
// List does no I/O and never waits.
func (s *Store) List() ([]*raft.SnapshotMeta, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if head := s.catalog.man.head(); head != nil {
		return []*raft.SnapshotMeta{head.meta()}, nil
	}
	return nil, nil
}

// Open returns the snapshot as one complete image. Every byte is verified before it is returned,
// and stays the same whatever happens to the store meanwhile, Close included. The files of the
// snapshot are kept until the reader is closed. Open waits for nobody.
func (s *Store) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	chain, release, err := s.pin(id)
	if err != nil {
		return nil, nil, fmt.Errorf("open snapshot %q: %w", id, err)
	}
	r, err := s.newReader(chain, release)
	if err != nil {
		return nil, nil, fmt.Errorf("open snapshot %q: %w", id, err)
	}
	return chain[len(chain)-1].meta(), r, nil
}

// pin keeps the files of a snapshot until release is called, once.
func (s *Store) pin(id string) (chain []link, release func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	chain, ok := s.catalog.find(id)
	if !ok {
		return nil, nil, ErrNotFound
	}
	s.count.readers.Add(1)
	unpin := s.keep(chain)
	return chain, func() {
		s.count.readers.Add(-1)
		unpin()
	}, nil
}

// pinHead is pin for the head, if there is one.
func (s *Store) pinHead() (chain []link, release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	chain = s.catalog.man.Chain
	return chain, s.keep(chain)
}

// keep keeps files until release is called, once. It is called with mu held.
func (s *Store) keep(chain []link) (release func()) {
	s.catalog.keep(chain)
	return func() {
		s.mu.Lock()
		before := len(s.catalog.dead)
		s.catalog.drop(chain)
		died := len(s.catalog.dead) > before
		s.mu.Unlock()
		if died {
			s.wake()
		}
	}
}

// Head describes the newest snapshot.
type Head struct {
	ID       string
	Index    uint64
	Term     uint64
	Pages    uint32
	PageSize int
	Size     int64  // bytes that Open(ID) will return
	Digest   string // of the content; stays the same when files are compacted

	// Until is the highest index of the snapshots that would be given up for this one. It is set
	// where Salvage asks about a snapshot, and zero elsewhere.
	Until uint64
}

// Head returns the snapshot that was accepted last, if there is one.
func (s *Store) Head() (Head, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.catalog.man.head()
	if l == nil {
		return Head{}, false
	}
	return l.head(), true
}

// head describes the snapshot that ends with l.
func (l *link) head() Head {
	return Head{
		ID:       l.ID,
		Index:    l.Index,
		Term:     l.Term,
		Pages:    l.Pages,
		PageSize: l.PageSize,
		Size:     l.imageSize(),
		Digest:   l.Snapshot.String(),
	}
}

// Verify reads all files of the chain and returns ErrDamaged if one is not as it was written. It
// returns nil if there is no snapshot. If ctx ends first, Verify returns its cause.
func (s *Store) Verify(ctx context.Context) error {
	chain, release := s.pinHead()
	defer release()
	for i := range chain {
		if err := s.verify(ctx, &chain[i]); err != nil {
			s.report(err)
			return err
		}
	}
	return nil
}

// verify reads one file.
func (s *Store) verify(ctx context.Context, l *link) error {
	f, err := openSource(s.fs, s.dir, l, readBuffer)
	if err != nil {
		return err
	}
	for err == nil && !f.end {
		if err = context.Cause(ctx); err == nil {
			err = f.advance()
		}
	}
	return errors.Join(err, f.file.Close())
}

// replace replaces MANIFEST by what change makes of the current one. When it has returned nil the
// new one is in force and survives power loss. An error that is vfs.ErrUncertain means that it may
// come into force when the store is next opened; after any other, MANIFEST is as it was.
func (s *Store) replace(change func(cur *manifest) (*manifest, error)) error {
	s.turn.Lock()
	defer s.turn.Unlock()
	if err := s.usable(); err != nil {
		return err
	}
	s.mu.Lock()
	cur, counter := s.catalog.man, s.next
	s.mu.Unlock()
	next, err := change(cur)
	if err != nil {
		return err
	}
	next.Next = counter
	data, err := next.encode()
	if err != nil {
		return err
	}
	if err := vfs.WriteFileAtomic(s.fs, filepath.Join(s.dir, manifestName), data); err != nil {
		s.fail(err) // before the turn passes to somebody who would build on an unknown state
		return fmt.Errorf("replace manifest: %w", err)
	}
	s.mu.Lock()
	s.catalog.replace(next, time.Now().Add(s.cfg.Grace))
	s.mu.Unlock()
	s.count.written.Add(int64(len(data)))
	s.wake()
	return nil
}

// report passes damage on, once for each file that MANIFEST still names.
func (s *Store) report(err error) {
	d, ok := errors.AsType[*damage](err)
	if !ok {
		return
	}
	s.mu.Lock()
	known := s.suspect[d.file]
	s.suspect[d.file] = true
	named := slices.ContainsFunc(s.catalog.man.Chain, func(l link) bool { return l.File == d.file })
	s.mu.Unlock()
	if known || !named {
		return
	}
	s.count.damaged.Add(1)
	s.log.Error("snapshot file damaged", "file", d.file, "err", err)
	if s.cfg.Damaged != nil {
		s.cfg.Damaged(err)
	}
}

// fail ends all publishing if err leaves it open what is on the disk.
func (s *Store) fail(err error) {
	if !errors.Is(err, vfs.ErrUncertain) {
		return
	}
	s.mu.Lock()
	first := s.failed == nil
	if first {
		s.failed = fmt.Errorf("%w: %w", ErrSyncFailed, err)
	}
	s.mu.Unlock()
	if first {
		s.log.Warn("snapshots cannot be published until the next start", "err", err) // whoever uses the store decides
	}
}

// wake tells maintain that there may be work.
func (s *Store) wake() {
	select {
	case s.woken <- struct{}{}:
	default: // it has been told already
	}
}
