package db

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"rqlited/command"
	"rqlited/internal/vfs"
)

// Places in the header of a database, beside those in hash.go.
const (
	headerFormats  = 18 // of writing and of reading
	headerChanges  = 24
	headerPages    = 28
	headerValidFor = 92 // the change that headerPages is of

	deleteFormat = 1 // at headerFormats: the database is not in WAL mode
)

// copyBuffer is in how large pieces, in bytes, files are copied.
const copyBuffer = 1 << 20

// A Backup is a copy of the database as it was at one moment. It is used by one goroutine.
//
// Whoever gets it may be slow, and as long as the state is pinned the WAL cannot be started again. So the
// pages are first copied into a private file beside the database, as fast as the disk is, or cloned where
// the disk offers that; the pin ends with that, and all else is made of the private file. Writes go on all
// the time.
type Backup struct {
	pin
	claimed  atomic.Bool   // by Write or Close
	stop     atomic.Bool   // the database is being closed
	unpinned chan struct{} // closed when the state is not pinned any more
}

// BeginBackup pins the state of the database as it is now, which costs about as much as the beginning of a
// query. It is called by the goroutine of Apply; the Backup may be used by any, which calls Write or Close.
//
// Until the copy is made, captures may fail with ErrBusy and the WAL grows, as with any long query. No error but
// ErrDamaged is final.
func (d *DB) BeginBackup() (*Backup, error) {
	if err := d.failed(); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, ErrClosed
	}
	p, err := d.pinState()
	if err != nil {
		return nil, fmt.Errorf("begin backup: %w", err)
	}
	b := &Backup{pin: p, unpinned: make(chan struct{})}
	if d.backups == nil {
		d.backups = make(map[*Backup]struct{})
	}
	d.backups[b] = struct{}{}
	return b, nil
}

// Close gives back a Backup that Write was not called of. After Write it does nothing.
func (b *Backup) Close() {
	if b.claimed.CompareAndSwap(false, true) {
		b.release()
	}
}

func (b *Backup) release() {
	b.unpin()
	b.d.mu.Lock()
	delete(b.d.backups, b)
	b.d.mu.Unlock()
	close(b.unpinned)
}

// endBackups ends the copying of all states that are pinned. What is copied already is not the database's any more.
func (d *DB) endBackups() {
	d.mu.Lock()
	backups := slices.Collect(maps.Keys(d.backups))
	d.mu.Unlock()
	for _, b := range backups {
		b.stop.Store(true)
		b.Close()
		<-b.unpinned
	}
}

// Write writes the backup that req asks for to w, in one pass. It holds some MiB of memory, and on the disk a
// copy of the database, two with Vacuum, for which it asks for free space first.
//
// Before the first byte it fails with command.ErrBackupFormat, ErrNoSpace, ErrClosed, ErrDamaged, which is final for
// the database, the error of the end of ctx, or one of the disk; later with those of w, of ctx and of the disk.
func (b *Backup) Write(ctx context.Context, w io.Writer, req *command.BackupRequest) error {
	if !b.claimed.CompareAndSwap(false, true) {
		return errors.New("backup used after its end")
	}
	if err := req.Check(); err != nil {
		b.release()
		return err
	}
	name := b.d.copyName("backup")
	defer b.d.removeCopy(name)
	err := b.copy(ctx, name, req)
	b.release()
	if damaged := b.d.damage(); damaged != nil {
		return damaged
	}
	if err != nil {
		return fmt.Errorf("back up database: %w", err)
	}
	switch {
	case req.Format == command.BackupSQL:
		return b.d.dump(ctx, w, name, req.Tables)
	case req.Vacuum:
		vacuumed := b.d.copyName("vacuum")
		defer b.d.removeCopy(vacuumed)
		if err := b.d.vacuumInto(ctx, name, vacuumed); err != nil {
			return fmt.Errorf("vacuum backup: %w", err)
		}
		return b.d.stream(ctx, w, vacuumed)
	}
	return b.d.stream(ctx, w, name)
}

// copy makes the file name of the pinned state. Only a backup in WAL mode keeps the header as it is.
func (b *Backup) copy(ctx context.Context, name string, req *command.BackupRequest) (err error) {
	p := b.pages
	if _, err := p.index(); err != nil {
		return err
	}
	f, err := b.d.fs.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	cloned, err := b.clone(f)
	if err != nil {
		return err
	}
	size := int64(p.pages) * int64(p.pageSize)
	need := size
	switch {
	case cloned && req.Vacuum: // the result
	case cloned:
		need = 0
	case req.Vacuum:
		need = 2 * size
	}
	if err := b.d.askSpace(need); err != nil {
		return err
	}
	asIs := req.Format == command.BackupBinary && !req.Vacuum
	out := bufio.NewWriterSize(f, copyBuffer)
	page := make([]byte, p.pageSize)
	for pgno := uint32(1); pgno <= p.pages; pgno++ {
		if b.stop.Load() {
			return ErrClosed
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		inWAL, err := b.page(pgno, page)
		if err != nil {
			return err
		}
		if pgno == 1 && !asIs {
			inDeleteMode(page, p.pages)
			inWAL = true
		}
		if !cloned {
			_, err = out.Write(page)
		} else if inWAL {
			_, err = f.WriteAt(page, int64(pgno-1)*int64(p.pageSize))
		}
		if err != nil {
			return err
		}
	}
	return out.Flush()
}

// page reads a page of the state, checked, and says whether it may differ from what the main file has.
func (b *Backup) page(pgno uint32, buf []byte) (inWAL bool, err error) {
	p := b.pages
	if pgno == p.lockPage() {
		clear(buf)
		return false, nil
	}
	_, inWAL = p.newest[pgno]
	return inWAL, p.read(pgno, buf)
}

// clone makes f share the blocks of the main file, if the disk offers that. What differs there from the state has
// a frame in the WAL, or lies behind the end of the state, and then it is no clone.
func (b *Backup) clone(f vfs.File) (bool, error) {
	p := b.pages
	size, err := p.main.f.Size()
	if err != nil || size > int64(p.pages)*int64(p.pageSize) {
		return false, err
	}
	err = vfs.Clone(f, p.main.f)
	if errors.Is(err, errors.ErrUnsupported) {
		return false, nil
	}
	return err == nil, err
}

// inDeleteMode makes the header in page 1 that of a database of so many pages that is not in WAL mode.
func inDeleteMode(page []byte, pages uint32) {
	page[headerFormats], page[headerFormats+1] = deleteFormat, deleteFormat
	binary.BigEndian.PutUint32(page[headerPages:], pages)
	copy(page[headerValidFor:headerValidFor+4], page[headerChanges:headerChanges+4])
}

// vacuumInto makes the file to of what is in the file from, without free pages.
func (d *DB) vacuumInto(ctx context.Context, from, to string) error {
	return d.withCopy(ctx, from, func(c *conn) error {
		return c.exec("PRAGMA synchronous=OFF; VACUUM INTO '" + strings.ReplaceAll(to, "'", "''") + "'")
	})
}

// withCopy calls f with a connection to a private copy, whose statements end with ctx. The connection does not need
// the database any more, which may be closed meanwhile; its temporary files lie beside it.
func (d *DB) withCopy(ctx context.Context, name string, f func(*conn) error) (err error) {
	v, err := newShim(d.path, reader)
	if err != nil {
		return err
	}
	defer v.free()
	c, err := openConn(name, openReadOnly, reader, v, d.cfg.Extensions)
	if err != nil {
		return err
	}
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		c.interrupt()
		close(interrupted)
	})
	err = f(c)
	if !stop() {
		<-interrupted
		err = context.Cause(ctx)
	}
	return errors.Join(err, c.close())
}

// stream writes a file to w.
func (d *DB) stream(ctx context.Context, w io.Writer, name string) (err error) {
	f, err := d.fs.Open(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = io.CopyBuffer(struct{ io.Writer }{w}, contextReader{f, ctx}, make([]byte, copyBuffer))
	return err
}

// contextReader reads until its context ends. It lives for one call.
type contextReader struct {
	io.Reader
	ctx context.Context
}

func (r contextReader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.Reader.Read(p)
}

// copyName returns a name for a private file beside the database. What a crash leaves there is removed by the next start.
func (d *DB) copyName(what string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.copies++
	return fmt.Sprintf("%s%s%s-%d", d.path, tempSuffix, what, d.copies)
}

func (d *DB) removeCopy(name string) {
	if err := removeIfExists(d.fs, name); err != nil {
		d.log.Warn("private copy not removed", "err", err) // the next start will
	}
}

// askSpace returns ErrNoSpace if the disk has less than need bytes, an eighth more and 1 MiB. A need of 0 is always met.
func (d *DB) askSpace(need int64) error {
	free, err := vfs.Free(d.fs, filepath.Dir(d.path))
	if errors.Is(err, errors.ErrUnsupported) || need == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	if want := need + need/8 + 1<<20; free < want {
		return fmt.Errorf("%w: %d bytes are needed, %d are free", ErrNoSpace, want, free)
	}
	return nil
}
