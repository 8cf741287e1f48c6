package db

// #include "sqlite.h"
// #include "bounds.h"
import "C"

import (
	"cmp"
	"fmt"
)

// bounds are what the statements of one entry may use. Whatever meets one gets an error and is rolled back,
// on every replica alike; else an entry that exhausts a machine would stop each node, and again at
// each start. See docs/design/consistency.md for why each of them is the same everywhere. Zero means the
// standard value.
type bounds struct {
	value  int   // bytes of a text, blob or row, and of a statement's text
	memory int64 // bytes that SQLite has allocated at one time
	volume int64 // bytes that it allocates and frees again and again
	steps  int64 // of SQLite's virtual machine
	result int64 // bytes of rows that are returned
	room   int64 // bytes of temporary files, and of growth of the database, whose double size is free too
}

// standard are the bounds of a cluster. Values of 128 MiB are many times what fits into a request; 100 billion
// steps take about half an hour, as does the volume.
var standard = bounds{
	value:  128 << 20,
	memory: 512 << 20,
	volume: 4 << 40,
	steps:  100_000_000_000,
	result: 64 << 20,
	room:   4 << 30,
}

func (b bounds) withDefaults() bounds {
	return bounds{
		value:  cmp.Or(b.value, standard.value),
		memory: cmp.Or(b.memory, standard.memory),
		volume: cmp.Or(b.volume, standard.volume),
		steps:  cmp.Or(b.steps, standard.steps),
		result: cmp.Or(b.result, standard.result),
		room:   cmp.Or(b.room, standard.room),
	}
}

// usage is what an entry has used of its bounds, in their units. Replicas use the same.
type usage struct {
	memory, volume int64
	steps          int64 // in thousands
	result         int64
}

func (c *conn) setBounds(b bounds) error {
	c.bounds = b
	rc := C.db_set_bounds(c.c, C.int(b.value), C.int64_t(b.memory), C.int64_t(b.volume), C.int64_t(b.steps), C.int64_t(b.result), C.int64_t(b.room))
	if rc != 0 {
		return c.failure(rc)
	}
	return nil
}

// beginBounds gives an entry all that entries may use.
func (c *conn) beginBounds() error {
	if rc := C.db_begin_bounds(c.c); rc != 0 {
		return &sqlError{code: int(rc), msg: fmt.Sprintf("size of the database: code %d", int(rc))}
	}
	return nil
}

// endBounds leaves the connection such that the next entry meets its bounds where it would on a new one.
func (c *conn) endBounds() {
	if C.db_end_bounds(c.c) != 0 {
		c.tainted = true
	}
	b := c.c.bounds
	c.used = usage{int64(b.run.peak), int64(b.run.volume), int64(b.steps) / 1000, int64(b.result)}
}

// keepColumns counts the names and types of the columns of s as a part of the result. It comes before the
// first step, for after it a write may not be taken back any more.
func (c *conn) keepColumns(s *stmt) error {
	if c.role != writer {
		return nil
	}
	meta := s.meta
	if meta == nil {
		var err error
		if meta, err = c.describe(s); err != nil {
			return err
		}
	}
	if rc := C.db_keep(c.c, C.size_t(meta.bytes)); rc != 0 {
		return c.failure(rc)
	}
	return nil
}

// keepRows counts n bytes of rows that a read returns as a whole. A write counts its own (sqlite.c).
func (c *conn) keepRows(s *stmt, n int64, handedOn bool) error {
	if c.role != reader || c.c.trusted != 0 {
		return nil
	}
	if c.kept += n; handedOn || c.kept <= c.bounds.result {
		return nil
	}
	C.db_reset(c.c, s.s)
	return &sqlError{code: codeTooBig, msg: c.boundText(C.BOUND_RESULT)}
}

// boundText is what a client is told about the bound that its statement has met.
func (c *conn) boundText(hit C.int) string {
	switch {
	case c.role != writer && hit == C.BOUND_MEMORY:
		return fmt.Sprintf("reads that are under way need more than %s of memory", size(int64(C.db_vfs_memory(c.c.vfs).max)))
	case c.role != writer && hit == C.BOUND_TEMP:
		return "reads that are under way need more temporary space than they would leave free on the disk"
	}
	switch hit {
	case C.BOUND_MEMORY:
		return fmt.Sprintf("statement needs more than %s of memory", size(c.bounds.memory))
	case C.BOUND_STEPS:
		return fmt.Sprintf("statement runs for more than %d steps", c.bounds.steps)
	case C.BOUND_RESULT:
		return fmt.Sprintf("result is larger than %s", size(c.bounds.result))
	case C.BOUND_TEMP:
		return fmt.Sprintf("statement needs more than %s of temporary space", size(int64(C.db_room(c.c))))
	case C.BOUND_GROWTH:
		return fmt.Sprintf("statement makes the database grow by more than %s", size(int64(C.db_room(c.c))))
	}
	return fmt.Sprintf("statement meets bound %d", int(hit))
}

// size shows a number of bytes in the largest unit that divides it.
func size(n int64) string {
	units := [...]string{"bytes", "KiB", "MiB", "GiB"}
	u := 0
	for u < len(units)-1 && n >= 1024 && n%1024 == 0 {
		n /= 1024
		u++
	}
	return fmt.Sprintf("%d %s", n, units[u])
}
