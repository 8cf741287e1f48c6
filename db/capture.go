package db

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"time"

	"rqlited/internal/vfs"
)

const (
	// resetGrace is how long a capture waits for queries that only keep the WAL from being started
	// again.
	resetGrace = 10 * time.Millisecond

	// captureReadAhead is how much of an image is read at a time, in bytes.
	captureReadAhead = 1 << 20

	// heldGraces is how many times Config.ReadersGrace a capture waits, if that is what it takes, for the
	// queries under way while it lets no others begin.
	heldGraces = 10

	// busyBeforeHold is how many captures in a row give up before one does so.
	busyBeforeHold = 2
)

// busyStreak are the captures in a row that gave up because of queries. Overlapping ones could go on like
// that for ever, so now and then no query may begin until those under way have ended: at first after
// busyBeforeHold captures, and each time that was in vain after twice as many, since writes have
// to wait too.
type busyStreak struct {
	captures int
	hold     int // the number at which queries are held back the next time; 0 is busyBeforeHold
}

func (s *busyStreak) holdReads() bool {
	if s.captures < max(s.hold, busyBeforeHold) {
		return false
	}
	s.hold = 2 * s.captures
	return true
}

// count notes how a capture has fared that came as far as the WAL.
func (s *busyStreak) count(err error) {
	if err == nil {
		*s = busyStreak{}
	} else {
		s.captures++
	}
}

// tracker knows how the main file relates to snapshots.
type tracker struct {
	// head is the snapshot to which the main file was equal when the pages in pending began to
	// change; "" if there is none.
	head string

	// pending are the pages that may differ from head, in the main file or in the WAL up to
	// walEnd.
	pending pageSet
	walEnd  walPos

	// pages is the size of the main file when the WAL was last moved completely. What lies behind
	// it since then is new, also if no frame brought it: SQLite never writes the page at 1 GiB,
	// where its locks are.
	pages uint32

	marked bool // a marker may exist
}

// A Capture is the state of the database at one moment, as an image or as the pages that changed
// since a snapshot. It reads the main file, which does not change before Release; writes go on
// meanwhile, into the WAL. It is used by one goroutine.
type Capture struct {
	d        *DB
	main     *mainFile
	pageSize int
	pages    uint32   // in the database
	delta    []uint32 // the pages to read, ascending; nil for an image
	isDelta  bool

	next     int    // how many records have been read
	ahead    []byte // the part of the main file read last
	aheadOff int64
	done     bool // released; guarded by DB.mu
}

// Announce says that Capture will soon be called. It withdraws the marker if there is something to
// capture, which Capture would have to do while writes wait, and which takes as long as the disk does.
// Any goroutine may call it; nobody has to. An error that is final is reported by Capture again.
func (d *DB) Announce() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.failed(); err != nil {
		return err
	}
	if d.closed || !d.track.marked || d.capture != nil {
		return nil
	}
	// What is being written right now may be seen in part, which is less than there is.
	scan, err := scanWAL(d.fs, d.path+"-wal", d.track.walEnd)
	if err != nil || scan.pages.n == 0 {
		return err
	}
	return d.withdraw()
}

// Capture brings the main file up to date and returns its content: the pages changed since the
// snapshot head if they are known and few, else all. It is called by the goroutine of Apply.
//
// ErrNothingNew means that head holds everything. ErrBusy means that readers are in the way, or a
// former capture is not yet released, or the log is amid a chunked load; nothing is lost, and a
// later capture has it all. Any other error is one of this machine, ErrForeign too, and is final.
//
// Capture waits for queries no longer than Config.ReadersGrace, and eleven times that every so
// often after it has given up repeatedly; no query is cut.
//
// The order is: withdraw the marker, durably, since the main file is about to differ from what it
// names; note which pages are in the WAL; only then let SQLite move them.
func (d *DB) Capture(head string) (*Capture, error) {
	if err := d.failed(); err != nil {
		return nil, err
	}
	if err := d.dropAbandoned(); err != nil {
		return nil, err
	}
	if d.busy.holdReads() {
		d.readers.hold(heldGraces * d.cfg.ReadersGrace)
		defer d.readers.letGo()
	}
	c, err := d.startCapture(head)
	if damaged := d.damage(); damaged != nil {
		if c != nil {
			c.Release()
		}
		return nil, damaged
	}
	return c, err
}

func (d *DB) startCapture(head string) (*Capture, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.closed:
		return nil, ErrClosed
	case d.capture != nil, d.loads.open():
		return nil, ErrBusy
	}
	if err := d.watch(ownNothing); err != nil {
		return nil, d.giveUp(err)
	}
	scan, err := scanWAL(d.fs, d.path+"-wal", d.track.walEnd)
	if err != nil {
		return nil, d.fail(err)
	}
	if scan.pages.n == 0 && d.track.pending.n == 0 && head != "" && d.track.head == head {
		return nil, ErrNothingNew
	}
	if d.track.marked {
		if err := d.withdraw(); err != nil {
			return nil, err
		}
	}
	d.track.pending.merge(scan.pages)
	d.hasher.moved(scan.pages)
	d.track.walEnd = scan.end
	begun := time.Now()
	err = d.moveWAL(scan)
	d.count.checkpoint(begun, err)
	if err := d.watch(ownCheckpoint); err != nil {
		return nil, d.giveUp(err)
	}
	d.busy.count(err)
	if errors.Is(err, ErrBusy) {
		return nil, err
	}
	if err != nil {
		return nil, d.fail(err)
	}
	c, err := d.newCapture(head, scan)
	if err != nil {
		return nil, d.fail(err)
	}
	d.capture = c
	c.main.refs++
	return c, nil
}

// moveWAL lets SQLite copy the whole WAL into the main file. There are three outcomes: readers kept
// part of it from being moved, ErrBusy; all was moved and the WAL starts again; or all was moved
// and the WAL goes on, because somebody still reads it. The last is as good as the second, since
// walEnd remembers how far the WAL is known.
func (d *DB) moveWAL(scan walScan) error {
	frames, moved, busy, err := d.writer.checkpoint(checkpointPassive, 0)
	if err != nil {
		return err
	}
	if frames != scan.end.frames && !busy {
		// The pages to be captured are not those that SQLite has moved.
		return fmt.Errorf("WAL has %d frames by our count, and %d by SQLite's", scan.end.frames, frames)
	}
	complete := !busy && moved == frames
	grace := d.cfg.ReadersGrace
	if complete {
		grace = min(grace, resetGrace)
	}
	frames, moved, busy, err = d.writer.checkpoint(checkpointTruncate, grace)
	if err != nil {
		return err
	}
	complete = complete || !busy || frames >= 0 && moved == frames
	if !complete {
		return ErrBusy
	}
	return nil
}

func (d *DB) newCapture(head string, scan walScan) (*Capture, error) {
	c := &Capture{d: d, main: d.main}
	size, err := c.main.f.Size()
	if err != nil {
		return nil, err
	}
	if c.pageSize, err = pageSizeOf(c.main.f); err != nil {
		return nil, err
	}
	c.pages = uint32(size / int64(c.pageSize))
	if size%int64(c.pageSize) != 0 || scan.dbPages != 0 && scan.dbPages != c.pages {
		return nil, fmt.Errorf("main file has %d bytes, want %d pages of %d", size, scan.dbPages, c.pageSize)
	}
	if c.pages != c.main.sums.pages() {
		return nil, fmt.Errorf("main file has %d pages, and %d checksums", c.pages, c.main.sums.pages())
	}
	for pgno := d.track.pages; pgno < c.pages; pgno++ {
		d.track.pending.add(pgno + 1)
	}
	d.track.pages = c.pages
	if head != "" && d.track.head == head && int64(d.track.pending.n) <= int64(c.pages)/2 {
		c.isDelta = true
		c.delta = d.track.pending.upTo(c.pages)
	}
	return c, nil
}

// pageSizeOf reads the page size from the header of a database.
func pageSizeOf(r io.ReaderAt) (int, error) {
	var h [headerSize]byte
	if _, err := r.ReadAt(h[:], 0); err != nil {
		return 0, fmt.Errorf("read header: %w", err)
	}
	return parsePageSize(h[:])
}

func parsePageSize(h []byte) (int, error) {
	n := int(h[16])<<8 | int(h[17])
	if n == 1 {
		n = walMaxPage
	}
	if n < walMinPage || n&(n-1) != 0 {
		return 0, fmt.Errorf("page size is %d", n)
	}
	return n, nil
}

// PageSize returns the size of a page in bytes.
func (c *Capture) PageSize() int { return c.pageSize }

// Pages returns the number of pages in the database.
func (c *Capture) Pages() uint32 { return c.pages }

// Records returns the number of pages that Next returns.
func (c *Capture) Records() uint32 {
	if c.isDelta {
		return uint32(len(c.delta))
	}
	return c.pages
}

// Delta says whether only the changed pages are returned.
func (c *Capture) Delta() bool { return c.isDelta }

// Next copies the next page into buf, which has room for one, and returns its number. Numbers
// ascend from 1. At the end it returns io.EOF. A page that is not what was written is ErrDamaged, and
// final for the whole database.
func (c *Capture) Next(buf []byte) (pgno uint32, err error) {
	if c.next >= int(c.Records()) {
		return 0, io.EOF
	}
	buf = buf[:c.pageSize]
	if c.isDelta {
		pgno = c.delta[c.next]
		_, err = c.main.f.ReadAt(buf, int64(pgno-1)*int64(c.pageSize))
	} else {
		pgno = uint32(c.next) + 1
		err = c.readAhead(buf, int64(pgno-1)*int64(c.pageSize))
	}
	if err != nil {
		return 0, fmt.Errorf("read page %d: %w", pgno, err)
	}
	if err := c.main.sums.check(pgno, buf); err != nil {
		return 0, cmp.Or(c.d.damage(), err)
	}
	c.next++
	return pgno, nil
}

// readAhead reads at off through a buffer that holds a longer part of the file.
func (c *Capture) readAhead(buf []byte, off int64) error {
	if c.ahead == nil || off >= c.aheadOff+int64(len(c.ahead)) {
		end := int64(c.pages) * int64(c.pageSize)
		n := min(captureReadAhead, end-off)
		if c.ahead == nil {
			c.ahead = make([]byte, n)
		}
		c.ahead, c.aheadOff = c.ahead[:n], off
		if _, err := c.main.f.ReadAt(c.ahead, off); err != nil {
			return err
		}
	}
	copy(buf, c.ahead[off-c.aheadOff:])
	return nil
}

// Published says that the capture is now the snapshot id, durably. The main file equals it, so the
// next capture can be a delta to it, and after a sync the marker may say so. If the main file has
// been replaced meanwhile, Published does nothing.
//
// After a failed sync nobody knows what is on the disk, so the error is final for the whole database.
// Without a marker the next start has to restore the snapshot: only slower.
func (c *Capture) Published(id string) error {
	d := c.d
	current, err := c.acknowledge(id)
	if err != nil || !current {
		return err
	}
	// Not under mu, which a write that replaces the database would wait for. The pages don't change
	// before Release; it is they that the marker will vouch for.
	if err := vfs.Sync(c.main.f); err != nil {
		return d.fail(fmt.Errorf("publish %s: %w", id, err))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || d.main != c.main {
		return nil
	}
	if err := d.failed(); err != nil {
		return err
	}
	return d.mark(id)
}

// acknowledge makes the capture the head, and says whether its file is still the main file.
func (c *Capture) acknowledge(id string) (current bool, err error) {
	d := c.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if c.done {
		return false, errors.New("capture published after its release")
	}
	if d.closed || d.main != c.main {
		return false, nil
	}
	if err := d.failed(); err != nil {
		return false, err
	}
	d.track.head, d.track.pending = id, pageSet{} // all of it was in c, for nobody else captures meanwhile
	return true, nil
}

// Adopt says that the snapshot to, durable and of the same content as from, is the head now: it
// was published without a capture, since nothing had changed. If the database does not descend
// from from, Adopt does nothing. Its errors are those of Published.
func (d *DB) Adopt(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.failed(); err != nil {
		return err
	}
	if d.closed || from == "" || d.track.head != from {
		return nil
	}
	d.track.head = to
	if !d.track.marked {
		return nil // the main file is ahead of the snapshot, or was never proven to equal it
	}
	return d.mark(to)
}

// Release ends the use of the capture. What was not published is part of the next one. Further
// calls do nothing.
func (c *Capture) Release() {
	d := c.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if c.done {
		return
	}
	c.done = true
	d.capture = nil
	if err := d.dropMain(c.main); err != nil {
		d.log.Warn("captured file not closed", "err", err) // it was only read
	}
}
