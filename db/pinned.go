package db

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"rqlited/internal/vfs"
)

// pinnedAhead is how much of the main file is read at a time, in bytes, while pages are read in order.
const pinnedAhead = 256 << 10

// pinned reads the pages of one state of the database while a read transaction of SQLite keeps it
// readable (see BeginHash, BeginBackup). It is used by one goroutine.
//
// A state is the main file with the newest frame of each page in the WAL over it, up to a frame; or
// the main file alone if all of the WAL had been moved into it. In the first case SQLite gives the
// transaction a read mark at or before that frame, so that nothing behind it is moved into the main file, and
// the WAL is not started again; what is moved meanwhile are frames of this very state, and their
// pages are read from the WAL. In the second case it lets nothing be moved at all, and the WAL may be
// started again, but is not looked at.
type pinned struct {
	main     *mainFile
	pageSize int
	pages    uint32 // in the database

	wal    vfs.File // nil: the main file has it all
	frames int
	newest map[uint32]int // the frame, counted from 0, that holds a page

	ahead []byte // a part of the main file
	first uint32 // the page that it begins with
	next  uint32 // the page behind the one read last
}

// pin is a transaction that keeps a state of the database readable.
type pin struct {
	d     *DB
	conn  *conn
	pages *pinned
}

// pinState pins the state as it is now. Nobody writes or moves the WAL meanwhile, as that is done by the
// goroutine that is here. The caller holds mu.
func (d *DB) pinState() (p pin, err error) {
	p.d = d
	frames, moved, _, err := d.writer.checkpoint(checkpointNoop, 0)
	if err != nil {
		return p, err
	}
	if p.conn, err = openConn(d.path, openReadOnly, reader, d.nowhere, d.cfg.Extensions); err != nil {
		return p, err
	}
	err = p.conn.exec("BEGIN; PRAGMA user_version") // a read that needs no schema
	if err == nil {
		p.pages, err = openPinned(d.fs, d.path, d.main, frames, moved)
	}
	if err != nil {
		return p, errors.Join(err, p.conn.close())
	}
	d.main.refs++
	return p, nil
}

// unpin ends the transaction. The caller does not hold mu.
func (p *pin) unpin() {
	err := errors.Join(p.pages.close(), p.conn.close())
	p.d.mu.Lock()
	err = errors.Join(err, p.d.dropMain(p.pages.main))
	p.d.mu.Unlock()
	if err != nil {
		p.d.log.Warn("pinned file not closed", "err", err) // it was only read
	}
}

// openPinned prepares to read the state that a transaction has just pinned. The caller has counted a
// reference to the main file, which close gives back through drop.
func openPinned(fsys vfs.FS, path string, main *mainFile, frames, moved int) (*pinned, error) {
	p := &pinned{main: main, frames: frames}
	size, err := main.f.Size()
	if err != nil {
		return nil, err
	}
	if p.pageSize, err = pageSizeOf(main.f); err != nil {
		return nil, err
	}
	p.pages = uint32(size / int64(p.pageSize))
	if frames == moved {
		return p, nil
	}
	p.wal, err = fsys.Open(path + "-wal")
	return p, err
}

// lockPage is the page that SQLite never uses, since its locks are there; no frame brings it.
func (p *pinned) lockPage() uint32 { return uint32((1<<30)/p.pageSize) + 1 }

func (p *pinned) close() error {
	if p.wal == nil {
		return nil
	}
	return p.wal.Close()
}

// index reads the WAL, and returns the pages in it.
func (p *pinned) index() (pages pageSet, err error) {
	if p.wal == nil {
		return pages, nil
	}
	p.newest = make(map[uint32]int)
	in := bufio.NewReaderSize(io.NewSectionReader(p.wal, 0, p.frame(p.frames)), walReadAhead)
	var head [walHeaderSize]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return pages, fmt.Errorf("read WAL: %w", err)
	}
	order, pageSize, pos, ok := parseWALHeader(head[:])
	if !ok || pageSize != p.pageSize {
		return pages, fmt.Errorf("read WAL: its header is not one, or of pages of %d bytes", pageSize)
	}
	frame := make([]byte, walFrameSize+pageSize)
	for ; pos.frames < p.frames; pos.frames++ {
		if _, err := io.ReadFull(in, frame); err != nil {
			return pages, fmt.Errorf("read WAL: %w", err)
		}
		pos.sum = walSum(order, pos.sum, frame[:8])
		pos.sum = walSum(order, pos.sum, frame[walFrameSize:])
		if be2(frame[8:]) != pos.salt || be2(frame[16:]) != pos.sum {
			return pages, fmt.Errorf("read WAL: frame %d is not what was written", pos.frames+1)
		}
		pgno := binary.BigEndian.Uint32(frame)
		pages.add(pgno)
		p.newest[pgno] = pos.frames
		p.pages = binary.BigEndian.Uint32(frame[4:])
	}
	if p.pages == 0 {
		return pages, errors.New("read WAL: the last frame ends no transaction")
	}
	return pages, nil
}

// frame returns where a frame begins, counted from 0.
func (p *pinned) frame(n int) int64 {
	return walHeaderSize + int64(n)*int64(walFrameSize+p.pageSize)
}

// read copies a page into buf, which is as long as a page.
func (p *pinned) read(pgno uint32, buf []byte) error {
	if pgno == 0 || pgno > p.pages {
		return fmt.Errorf("%w: page %d of %d", errMalformed, pgno, p.pages)
	}
	n, inWAL := p.newest[pgno]
	if inWAL {
		if _, err := p.wal.ReadAt(buf, p.frame(n)+walFrameSize); err != nil {
			return fmt.Errorf("read page %d in WAL: %w", pgno, err)
		}
		return nil
	}
	if pgno > p.main.sums.pages() {
		return fmt.Errorf("%w: page %d was never written", errMalformed, pgno)
	}
	if err := p.readMain(pgno, buf); err != nil {
		return fmt.Errorf("read page %d: %w", pgno, err)
	}
	return p.main.sums.check(pgno, buf)
}

// readMain reads ahead if the page follows the one before. What lies in the buffer stays good: pages
// that may change in the main file have a frame, and so are never taken from here.
func (p *pinned) readMain(pgno uint32, buf []byte) error {
	inOrder := pgno == p.next
	p.next = pgno + 1
	if i := int64(pgno) - int64(p.first); p.first != 0 && i >= 0 && (i+1)*int64(p.pageSize) <= int64(len(p.ahead)) {
		copy(buf, p.ahead[i*int64(p.pageSize):])
		return nil
	}
	off := int64(pgno-1) * int64(p.pageSize)
	if !inOrder {
		_, err := p.main.f.ReadAt(buf, off)
		return err
	}
	if p.ahead == nil {
		p.ahead = make([]byte, max(pinnedAhead, p.pageSize))
	}
	p.ahead = p.ahead[:cap(p.ahead)]
	n, err := p.main.f.ReadAt(p.ahead, off)
	if err == io.EOF && n >= p.pageSize {
		err = nil
	}
	p.ahead, p.first = p.ahead[:n], pgno
	if err != nil {
		p.first = 0
		return err
	}
	copy(buf, p.ahead)
	return nil
}
