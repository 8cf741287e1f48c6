package db

// #include "sqlite.h"
import "C"

import (
	"rqlited/command"
)

// traits are what a schema says about how carefully its statements have to be run.
type traits struct {
	changes bool // it may call changes(), perhaps in a DEFAULT, which no authorizer is shown
	virtual bool // it has virtual tables
	stale   bool // it has changed since
}

// readTraits reads them, without LIKE, of which a PRAGMA says whether it heeds case.
func (c *conn) readTraits() error {
	rows, err := c.ownQuery(`SELECT count(*) FILTER (WHERE instr(lower(sql), 'changes')), count(*) FILTER (WHERE sql GLOB 'CREATE VIRTUAL TABLE*')
		FROM (SELECT sql FROM main.sqlite_schema UNION ALL SELECT sql FROM temp.sqlite_schema)`)
	if err != nil {
		return err
	}
	c.schema = traits{changes: rows[0][0] != int64(0), virtual: rows[0][1] != int64(0)}
	if err := c.readForgetful(); err != nil {
		return err
	}
	return c.readCounting()
}

// setForeignKeys says whether the entry that begins enforces foreign keys. Those of rqlite don't say
// so; for them the setting of the node holds.
func (c *conn) setForeignKeys(entry command.Setting, node bool) error {
	on := node
	if entry == command.On || entry == command.Off {
		on = entry == command.On
	}
	if on == c.foreignKeys {
		return nil
	}
	var arg C.int
	if on {
		arg = 1
	}
	if rc := C.db_foreign_keys(c.c, arg); rc != 0 {
		return c.failure(rc)
	}
	c.foreignKeys = on
	return nil
}

// beforeWrite does what the first step of a statement of the writer needs to have been done.
func (c *conn) beforeWrite(s *stmt) error {
	inserts := s.seen&C.SEEN_INSERT != 0 && !s.schema()
	if inserts && c.schema.stale {
		if err := c.readTraits(); err != nil {
			return err
		}
	}
	if s.schema() || s.state() {
		c.schema.stale = true
	}
	if s.seen&C.SEEN_CHANGES != 0 || inserts && c.schema.changes {
		if rc := C.db_zero_changes(c.c); rc != 0 {
			return c.failure(rc)
		}
	}
	if s.seen&C.SEEN_ROLLBACK != 0 {
		c.undone = true
	}
	if s.seen&C.SEEN_COUNTED != 0 && !s.readOnly && s.seen&(C.SEEN_SCHEMA|C.SEEN_ANALYZE) == 0 {
		c.c.counted = 1
	}
	return c.checkFull()
}

// endUndone is called at the end of an entry. What virtual tables keep in memory, such as settings of a
// full-text index, does not go back with a rollback, so then the connection is not used any more.
func (c *conn) endUndone() {
	c.tainted = c.tainted || c.undone && c.schema.virtual
	c.undone = false
}

// ownQuery runs a query of our own.
func (c *conn) ownQuery(sql string) ([][]any, error) {
	was := c.c.trusted
	c.c.trusted = 1
	defer func() { c.c.trusted = was }()
	s, _, err := c.prepare(sql)
	if err != nil {
		return nil, err
	}
	defer c.release(s)
	rows, err := c.rows(s, false, nil)
	if err != nil {
		return nil, err
	}
	return rows.Values, nil
}
