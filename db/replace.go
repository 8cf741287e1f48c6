package db

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"

	"rqlited/internal/vfs"
)

// Layout of the header of a database.
const (
	headerSize  = 100
	headerMagic = "SQLite format 3\x00"
	walFormat   = 2 // at 18 and 19: the database is in WAL mode
)

// Replace makes the file image, in the same directory, complete and synced, the database. head is
// the snapshot it equals; "" if it is none, so that the next capture will be an image. Queries
// under way end on the old database. It is called by the goroutine of Apply.
//
// An image that can't be opened is refused before anything has changed; the error is then not
// final. Every other error is, and the process has to end: it may have either database.
func (d *DB) Replace(image, head string) error {
	if err := d.failed(); err != nil {
		return err
	}
	// A snapshot is taken while no load is under way, so none that began before goes on after.
	for id := range d.loads.streams {
		if err := d.dropStream(id); err != nil {
			return err
		}
	}
	return d.replaceBy(image, head)
}

func (d *DB) replaceBy(image, head string) error {
	if filepath.Dir(image) != filepath.Dir(d.path) {
		return fmt.Errorf("replace database: %s is in another directory", image)
	}
	wal, err := d.checkImage(image, "PRAGMA schema_version")
	if err != nil {
		return fmt.Errorf("replace database by %s: %w", image, err)
	}
	s, err := d.imageSums(image)
	if err != nil {
		return fmt.Errorf("replace database by %s: %w", image, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return ErrClosed
	}
	if !wal {
		head = "" // opening it writes to its header
	}
	if err := d.replace(image, head, s); err != nil {
		return d.fail(fmt.Errorf("replace database by %s: %w", image, err))
	}
	return nil
}

// imageSums returns the checksums of the pages of an image.
func (d *DB) imageSums(image string) (_ *sums, err error) {
	f, err := d.fs.Open(image)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size == 0 {
		return newSums(0)
	}
	return computeSums(f)
}

// replace exchanges the files. The marker goes first, since it vouches for the old one.
func (d *DB) replace(image, head string, s *sums) error {
	if err := withdrawMarker(d.fs, d.path); err != nil {
		return err
	}
	d.track = tracker{}
	err := d.judges.exchange(func() error {
		return d.readers.exchange(func() error { return d.exchangeFiles(image, s) })
	})
	if err != nil || head == "" {
		return err
	}
	d.track.head = head
	return d.mark(head)
}

func (d *DB) exchangeFiles(image string, s *sums) error {
	if err := d.writer.close(); err != nil {
		return err
	}
	d.writer = nil
	if err := removeCompanions(d.fs, d.path); err != nil { // before the rename
		return err
	}
	if err := d.fs.Rename(image, d.path); err != nil {
		return err
	}
	if err := vfs.SyncDir(d.fs, filepath.Dir(d.path)); err != nil { // the rename
		return err
	}
	old := d.main
	if err := d.openFiles(s); err != nil {
		return err
	}
	return d.dropMain(old)
}

// WithdrawMarker removes the marker, durably, so that the next start restores its snapshot.
func (d *DB) WithdrawMarker() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.withdraw()
}

// withdraw is WithdrawMarker for a caller that holds mu.
func (d *DB) withdraw() error {
	if err := withdrawMarker(d.fs, d.path); err != nil {
		return d.fail(err)
	}
	d.track.marked = false
	return nil
}

// checkImage opens a file as a database, without changing it, and runs a check on it that returns
// "ok" or a number. It returns whether the file is in WAL mode, and ErrNotDatabase for a
// file that is the matter. An empty file is an empty database.
func (d *DB) checkImage(name, check string) (wal bool, err error) {
	f, err := d.fs.Open(name)
	if err != nil {
		return false, err
	}
	size, err := f.Size()
	var h [headerSize]byte
	if err == nil && size >= headerSize {
		_, err = f.ReadAt(h[:], 0)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return false, err
	}
	if size == 0 {
		return false, nil
	}
	pageSize, err := parsePageSize(h[:])
	if string(h[:len(headerMagic)]) != headerMagic || err != nil || size%int64(pageSize) != 0 {
		return false, ErrNotDatabase // SQLite overlooks a part of a page at the end; a capture can't
	}
	if h[18] < 1 || h[18] > walFormat || h[19] < 1 || h[19] > walFormat {
		return false, ErrNotDatabase // of a later SQLite, which this one can read at best
	}
	uri := "file:" + url.PathEscape(name) + "?immutable=1" // the path may be relative, and hold anything
	c, err := openConn(uri, openReadOnly|openURI, reader, shim{}, d.cfg.Extensions)
	if err != nil {
		return false, err
	}
	result, err := c.text(check)
	err = errors.Join(imageError(err), c.close())
	if err == nil && result != "ok" && check == quickCheck {
		err = fmt.Errorf("%w: %s", ErrNotDatabase, result)
	}
	return h[18] == walFormat && h[19] == walFormat, err
}

const quickCheck = "PRAGMA quick_check(1)"

// imageError tells the fault of a file from that of the machine.
func imageError(err error) error {
	var e *sqlError
	if !errors.As(err, &e) {
		return err
	}
	switch e.code & 0xff {
	case codeNoMem, codeIOErr, codeCantOpen, codeBusy:
		return err
	}
	return fmt.Errorf("%w: %s", ErrNotDatabase, e.msg)
}

// writeAll writes data to a new file.
func writeAll(fsys vfs.FS, name string, data []byte) error {
	f, err := fsys.Create(name)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}
