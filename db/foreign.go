package db

// #include "sqlite.h"
import "C"

import "fmt"

// walView is what SQLite's shared memory says about the WAL. Whoever writes to the database or moves
// frames into the main file changes it, in whatever process; who reads does not.
type walView struct {
	changes   uint32    // goes up with each commit
	frames    uint32    // committed
	pages     uint32    // in the database after the last of them
	salt      [2]uint32 // others each time the WAL is started again
	moved     uint32    // frames that are in the main file
	attempted uint32    // the same, set before they are moved
}

func (c *conn) walView() (walView, error) {
	var v C.db_view
	if rc := C.db_wal_view(c.c.db, &v); rc != 0 {
		return walView{}, fmt.Errorf("look at the WAL: %w", &sqlError{code: int(rc), msg: fmt.Sprintf("code %d", int(rc))})
	}
	return walView{
		changes:   uint32(v.changes),
		frames:    uint32(v.frames),
		pages:     uint32(v.pages),
		salt:      [2]uint32{uint32(v.salt[0]), uint32(v.salt[1])},
		moved:     uint32(v.moved),
		attempted: uint32(v.attempted),
	}, nil
}

// ownAct is what this process has done since the WAL was looked at last.
type ownAct int

const (
	ownNothing    ownAct = iota
	ownWrite             // at most one transaction
	ownCheckpoint        // any number
)

// allows says whether after the act alone SQLite's view of the WAL can be now instead of seen.
//
// SQLite starts the WAL again only when all of it is in the main file. So if seen was not moved completely,
// new salts mean that somebody else has moved it. If it was, a new beginning harms nobody, whoever has
// made it.
func (a ownAct) allows(seen, now walView) bool {
	if a != ownWrite && now.changes != seen.changes {
		return false
	}
	if a == ownCheckpoint {
		return true
	}
	if now.salt == seen.salt {
		return now.moved == seen.moved && now.attempted == seen.attempted
	}
	committed := now.changes != seen.changes
	return seen.moved == seen.frames && now.moved == 0 && now.attempted == 0 && committed == (now.frames > 0)
}

// watch returns ErrForeign if another process has changed the database since watch was last called, or if
// that can't be told. Only a write between the statements of one entry, with nothing moved, goes
// unnoticed. It is called on the goroutine of Apply.
func (d *DB) watch(act ownAct) error {
	now, err := d.writer.walView()
	if err != nil {
		return err
	}
	seen := d.seen
	d.see(now)
	if !act.allows(seen, now) {
		return fmt.Errorf("%w: %s", ErrForeign, d.path)
	}
	return nil
}

// see notes what the WAL is like now.
func (d *DB) see(now walView) {
	d.seen = now
	if now.frames == 0 {
		now.pages = 0 // the main file says it
	}
	d.count.walPages.Store(now.pages)
}

// watchApply is watch for a caller that does not hold mu; its error is final.
func (d *DB) watchApply(act ownAct) error {
	err := d.watch(act)
	if err == nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.giveUp(err)
}
