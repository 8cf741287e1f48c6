package db

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"rqlited/internal/vfs"
)

// DB is one SQLite database.
type DB struct {
	path string
	cfg  Config
	fs   vfs.FS
	log  *slog.Logger

	clock   shim // of the writer
	nowhere shim // of all others: their time is the real one

	readers *pool // run queries
	judges  *pool // say what kind a statement is; their own, so that slow queries can't hold up writes

	rwPragmas map[string]string // of the writer; immutable

	// broken is set once the state of the files is not known any more: by a failed fsync or a
	// replacement that did not come to its end. Nothing is done after that.
	broken atomic.Pointer[error]

	sums  atomic.Pointer[sums] // of the main file; changed under mu
	count counters

	writing
	files
}

// writing is what the goroutine of Apply, Capture and Replace has for itself.
type writing struct {
	writer  *conn
	seen    walView // what this goroutine has made of the WAL
	entries uint64  // applied since Open
	loads   loads
	busy    busyStreak
}

// files is what Capture, Published, Release and Replace share. They may run on two goroutines.
type files struct {
	mu      sync.Mutex
	main    *mainFile            // guarded by mu
	track   tracker              // guarded by mu
	damaged bool                 // guarded by mu; damage has been dealt with
	capture *Capture             // guarded by mu; the one not yet released
	hasher  *hasher              // guarded by mu; of the main file
	hashes  map[*Hash]struct{}   // guarded by mu; not done, some perhaps of former main files
	backups map[*Backup]struct{} // guarded by mu; that keep a state pinned
	copies  int                  // guarded by mu; names files of backups and uploads
	closed  bool                 // guarded by mu
}

// maxJudges bounds the connections that classify statements, which takes each some microseconds.
const maxJudges = 4

// mainFile is our own descriptor of the main file, with the checksums of its pages. It is shared
// with captures, which may be read after the file has been replaced.
type mainFile struct {
	f        vfs.File
	sums     *sums
	sumsFile vfs.File // db.sums; nil until it was written by this process. Guarded by DB.mu
	refs     int      // guarded by DB.mu
}

// Open opens the database at path, in a directory that exists and that no other process uses.
//
// Existing files are kept if the marker proves that the main file equals cfg.Head; then Head
// returns cfg.Head. Otherwise they are deleted, the database is empty, and Head returns "".
func Open(path string, cfg Config) (*DB, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	d := &DB{path: path, cfg: cfg, fs: cfg.FS, log: cfg.Logger}
	begun := time.Now()
	if err := d.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("open database %s: %w", path, err), d.Close())
	}
	d.count.openTime.Store(time.Since(begun).Milliseconds())
	return d, nil
}

func (d *DB) open() error {
	if err := keepLibraries(d.cfg.Extensions); err != nil {
		return err
	}
	kept, err := keepOrDelete(d.fs, d.log, d.path, d.cfg.Head)
	if err != nil {
		return err
	}
	if d.clock, err = newShim(d.path, writer); err != nil {
		return err
	}
	if d.nowhere, err = newShim(d.path, reader); err != nil {
		return err
	}
	d.nowhere.share(d.cfg.ReadMemory)
	d.readers = newPool(d.path, d.cfg, reader, d.nowhere, d.cfg.MaxReaders)
	d.judges = newPool(d.path, d.cfg, classifier, d.nowhere, maxJudges)
	if kept != nil {
		if kept, err = d.openKept(kept); err != nil {
			return err
		}
	}
	if kept == nil {
		if err := d.openNew(); err != nil {
			return err
		}
	}
	if d.rwPragmas, err = d.writer.pragmas(); err != nil {
		return err
	}
	d.log.Info("database opened", "path", d.path, "kept", kept != nil, "head", d.track.head)
	return nil
}

// openKept opens the files of a former process, which reads the header and the schema. If they are
// damaged the files are deleted, and openKept returns nil.
func (d *DB) openKept(s *sums) (*sums, error) {
	d.track.head, d.track.marked = d.cfg.Head, true
	err := d.openFiles(s)
	if s.damaged() == 0 {
		return s, err
	}
	d.log.Warn("live database not kept", "err", damagedPage(s.damaged()))
	if err := d.closeFiles(); err != nil {
		return nil, err
	}
	d.track = tracker{}
	return nil, deleteFiles(d.fs, d.path)
}

func (d *DB) openNew() error {
	s, err := newSums(0)
	if err != nil {
		return err
	}
	return d.openFiles(s)
}

// openFiles opens the writer, and with it creates the main file if there is none, and then our
// descriptor of the main file, whose sums are s.
func (d *DB) openFiles(s *sums) error {
	d.sums.Store(s)
	d.clock.use(s)
	d.nowhere.use(s)
	var err error
	if d.writer, err = d.openWriter(); err != nil {
		return err
	}
	d.writer.c.record_targets = 1 // what the file holds is not known yet
	f, err := d.fs.Open(d.path)
	if err != nil {
		return err
	}
	d.main, d.hasher = &mainFile{f: f, sums: s, refs: 1}, new(hasher)
	now, err := d.writer.walView()
	if err != nil {
		return err
	}
	d.see(now)
	size, err := f.Size()
	if err != nil {
		return err
	}
	pageSize, err := pageSizeOf(f)
	if err != nil {
		return err
	}
	d.count.pageSize.Store(int64(pageSize))
	d.track.pages = uint32(size / int64(pageSize))
	if d.track.pages != s.pages() {
		return fmt.Errorf("main file has %d pages, and %d checksums", d.track.pages, s.pages())
	}
	return nil
}

// closeFiles closes what openFiles has opened.
func (d *DB) closeFiles() error {
	var errs []error
	if d.writer != nil {
		errs = append(errs, d.writer.close())
		d.writer = nil
	}
	if d.main != nil {
		errs = append(errs, d.dropMain(d.main))
		d.main = nil
	}
	return errors.Join(errs...)
}

// openWriter opens the connection that writes. Nothing it does is synced: the main file is synced
// when a snapshot is acknowledged, the WAL never.
func (d *DB) openWriter() (*conn, error) {
	c, err := openConn(d.path, openReadWrite|openCreate, writer, d.clock, d.cfg.Extensions)
	if err != nil {
		return nil, err
	}
	if err = c.setBounds(d.cfg.bounds); err != nil {
		return nil, errors.Join(err, c.close())
	}
	err = c.exec("PRAGMA synchronous=OFF; PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0; " + foreignKeys(d.cfg))
	c.foreignKeys = d.cfg.ForeignKeys
	if err == nil {
		err = c.exec("SELECT 1 FROM sqlite_schema LIMIT 1") // opens the WAL, so that it can be watched
	}
	if err == nil {
		err = c.writeNothing()
	}
	if err == nil {
		var mode string
		mode, err = c.text("PRAGMA journal_mode")
		if err == nil && mode != "wal" {
			err = fmt.Errorf("journal mode is %q, not wal", mode)
		}
	}
	if err == nil {
		err = c.readTraits()
	}
	if err == nil {
		err = c.loadVirtual()
	}
	if err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

func foreignKeys(cfg Config) string {
	if cfg.ForeignKeys {
		return "PRAGMA foreign_keys=ON"
	}
	return "PRAGMA foreign_keys=OFF"
}

// Head returns the snapshot that everything captured next is compared with; "" means none, so that
// the next capture is an image.
func (d *DB) Head() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.track.head
}

// WALSize returns the size in bytes of what has been applied since the last capture.
func (d *DB) WALSize() int64 {
	info, err := d.fs.Stat(d.path + "-wal")
	if err != nil {
		return 0
	}
	return info.Size
}

// Close interrupts the queries, waits for them, and closes the files. It does not checkpoint. The
// caller has ended Apply, Capture and Replace before.
func (d *DB) Close() error {
	d.mu.Lock()
	closed := d.closed
	d.closed = true
	d.mu.Unlock()
	if closed {
		return nil
	}
	d.endHashes()
	d.endBackups()
	var errs []error
	if d.readers != nil {
		errs = append(errs, d.readers.close(), d.judges.close())
	}
	errs = append(errs, d.loads.close())
	d.mu.Lock()
	defer d.mu.Unlock()
	errs = append(errs, d.closeFiles())
	d.clock.free()
	d.nowhere.free()
	return errors.Join(errs...)
}

// dropMain gives back a reference to a main file. The caller holds mu.
func (d *DB) dropMain(m *mainFile) error {
	if m.refs--; m.refs > 0 {
		return nil
	}
	err := m.f.Close()
	if m.sumsFile != nil {
		err = errors.Join(err, m.sumsFile.Close())
	}
	return err
}

// failed returns why nothing may be done any more, or nil.
func (d *DB) failed() error {
	if err := d.broken.Load(); err != nil {
		return *err
	}
	return nil
}

// fail makes err final and returns it.
func (d *DB) fail(err error) error {
	d.broken.CompareAndSwap(nil, &err)
	return err
}

// tempSuffix follows the name of the database in the names of SQLite's temporary files, which are
// removed as soon as they are open (vfs.c).
const tempSuffix = ".tmp-"

// removeLitter removes what a crash may have left: uploads, temporary files and an unfinished marker.
func removeLitter(fsys vfs.FS, path string) error {
	dir := filepath.Dir(path)
	names, err := fsys.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		base := filepath.Base(path)
		if strings.HasPrefix(name, base+loadSuffix) || strings.HasPrefix(name, base+tempSuffix) || name == markerName+".tmp" {
			if err := removeIfExists(fsys, filepath.Join(dir, name)); err != nil {
				return err
			}
		}
	}
	return nil
}

func removeIfExists(fsys vfs.FS, name string) error {
	if err := fsys.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
