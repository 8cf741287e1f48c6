package db

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
)

// Domains keep the hashes of different things apart. A change of what is hashed, or how, changes
// these numbers, so that no two versions agree by accident.
const (
	domainHeader = 0x1001 + iota
	domainSchema
	domainTable
	domainRow // of a table with rowids
	domainKey // of a table WITHOUT ROWID
)

// Places in the header of a database.
const (
	headerReserved    = 20
	headerEncoding    = 56
	headerUserVersion = 60
	headerApplication = 68
)

// hasher is what is known from former hashes of one main file.
type hasher struct {
	running *Hash     // guarded by DB.mu; there is at most one
	changed pageSet   // pages that captures have moved since BeginHash; guarded by DB.mu
	cache   hashCache // used by running alone, and by BeginHash
}

// moved is told which pages a capture is about to move into the main file. The caller holds DB.mu.
func (s *hasher) moved(pages pageSet) {
	if s.running != nil || s.cache.usable != 0 {
		s.changed.merge(pages)
	}
}

// A Hash is the hash of the state of the database at one moment. It is used by one goroutine.
type Hash struct {
	pin
	hasher *hasher

	claimed atomic.Bool   // by Sum or Close
	stop    atomic.Bool   // the database is being closed
	done    chan struct{} // closed when all is given back
}

// BeginHash pins the state of the database as it is now, which costs about as much as the
// beginning of a query. It is called by the goroutine of Apply; the Hash may be used by any.
//
// Until the Hash is done, captures may fail with ErrBusy and the WAL grows, as with any long query.
// ErrBusy means that an earlier Hash is not done. No error but ErrDamaged is final.
func (d *DB) BeginHash() (*Hash, error) {
	if err := d.failed(); err != nil {
		return nil, err
	}
	h, err := d.beginHash()
	if damaged := d.damage(); damaged != nil {
		if h != nil {
			h.Close()
		}
		return nil, damaged
	}
	return h, err
}

func (d *DB) beginHash() (*Hash, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.hasher
	switch {
	case d.closed:
		return nil, ErrClosed
	case s.running != nil:
		return nil, ErrBusy
	}
	pin, err := d.pinState()
	if err != nil {
		return nil, fmt.Errorf("begin hash: %w", err)
	}
	h := &Hash{pin: pin, hasher: s, done: make(chan struct{})}
	s.running = h
	if d.hashes == nil {
		d.hashes = make(map[*Hash]struct{})
	}
	d.hashes[h] = struct{}{}
	// Before this moment, so the hash has to look at them. What is moved from now on is for the next.
	s.cache.forget(s.changed)
	s.changed = pageSet{}
	return h, nil
}

// Sum returns the hash, in 32 hexadecimal digits, and ends the transaction. Two databases have the
// same if schema and content are the same, however they lie on the disk; if they differ, the hashes do
// too, unless somebody has chosen the content so that they don't. docs/design/consistency.md says what
// counts as the same.
//
// Pages that have not changed since the last Sum are not read again, of which no more than those of
// interior nodes. If ctx ends, Sum returns its error; what it has read so far is kept for the next. Other errors:
// ErrDamaged, which is final; ErrClosed; one that says that the file makes no sense; and those of the disk.
func (h *Hash) Sum(ctx context.Context) (string, error) {
	if !h.claimed.CompareAndSwap(false, true) {
		return "", errors.New("hash used after its end")
	}
	defer h.release()
	sum, err := h.sum(ctx)
	if damaged := h.d.damage(); damaged != nil {
		return "", damaged
	}
	if err != nil {
		return "", fmt.Errorf("hash database: %w", err)
	}
	return sum.String(), nil
}

// Close ends the transaction of a Hash that Sum was not called of. After Sum it does nothing.
func (h *Hash) Close() {
	if h.claimed.CompareAndSwap(false, true) {
		h.release()
	}
}

func (h *Hash) release() {
	d := h.d
	h.unpin()
	d.mu.Lock()
	h.hasher.running = nil
	delete(d.hashes, h)
	d.mu.Unlock()
	close(h.done)
}

// endHashes ends every Hash that is not done, and waits for those of which Sum is running.
func (d *DB) endHashes() {
	d.mu.Lock()
	hashes := slices.Collect(maps.Keys(d.hashes))
	d.mu.Unlock()
	for _, h := range hashes {
		h.stop.Store(true)
		h.Close()
		<-h.done
	}
}

// sum walks through all tables of the pinned state.
func (h *Hash) sum(ctx context.Context) (total sum128, err error) {
	pages, err := h.pages.index()
	if err != nil {
		return total, err
	}
	// Every change since the last hash is in the WAL, or a capture has moved it and said so.
	h.hasher.cache.forget(pages)
	w := walker{pages: h.pages, cache: &h.hasher.cache, left: h.pages.pages, check: func() error {
		if h.stop.Load() {
			return ErrClosed
		}
		return ctx.Err()
	}}
	first := make([]byte, h.pages.pageSize)
	if err := h.pages.read(1, first); err != nil {
		return total, err
	}
	w.usable = h.pages.pageSize - int(first[headerReserved])
	if w.usable < minUsable {
		return total, malformed(1, fmt.Sprintf("%d bytes are reserved in each page", first[headerReserved]))
	}
	h.hasher.cache.begin(w.usable)
	encoding := max(binary.BigEndian.Uint32(first[headerEncoding:]), encodingUTF8) // 0: still without schema

	m := newMurmur(domainHeader, uint64(encoding))
	m.write(first[headerUserVersion : headerUserVersion+4])
	m.write(first[headerApplication : headerApplication+4])
	total = m.sum()

	schema, err := w.schema(encoding)
	if err != nil {
		return total, err
	}
	for _, o := range schema {
		total = total.plus(o.sum)
		if o.root == 0 {
			continue
		}
		rows, err := w.table(o.root)
		if err != nil {
			return total, err
		}
		m := newMurmur(domainTable, rows.lo)
		m.write(binary.BigEndian.AppendUint64(nil, rows.hi))
		m.write(o.name)
		total = total.plus(m.sum())
	}
	return total, nil
}
