package db

// #include "sqlite.h"
import "C"

import (
	"errors"
	"fmt"

	"rqlited/command"
)

// What a virtual table keeps in memory must neither decide what an entry writes nor answer a reader that is behind it.

const (
	virtualTables = "SELECT name, sql FROM main.sqlite_schema WHERE type='table' AND rootpage=0"
	oneRow        = "SELECT 1 FROM main.%s LIMIT 1"
)

// loadVirtual reads from each virtual table of SQLite's own modules, so that its module has connected to it and knows its settings, also those that
// have changed since. 'rebuild' and 'delete-all' of FTS5 write a number that counts on from what was read; on a
// connection that has read nothing yet they would begin at 0. R-tree prepares writes when it connects, which would look
// like a part of the statement that needs it first. What reading a table of an extension means, nobody knows here.
func (c *conn) loadVirtual() error {
	tables, err := c.ownQuery(virtualTables)
	for i := 0; i < len(tables) && err == nil; i++ {
		sql, _ := tables[i][1].(string)
		if module, _, _ := virtualTable(sql); !builtIn(module) {
			continue
		}
		_, err = c.ownQuery(fmt.Sprintf(oneRow, quote(tables[i][0].(string), `"`)))
		if err != nil && !machineError(err) {
			err = nil // of a table that does not work; whoever uses it is told so
		}
	}
	return err
}

// readForgetful reads which tables are forgetful: those with contentless_delete count in memory what they have
// been given, and write that down only if it had words in it.
func (c *conn) readForgetful() error {
	C.db_list_free(&c.c.forgetful)
	rows, err := c.ownQuery(virtualTables + " AND instr(lower(sql), 'contentless_delete')")
	for _, row := range rows {
		err = errors.Join(err, list(&c.c.forgetful, tableName{"main", row[0].(string)}))
	}
	return err
}

// checkRows runs a statement that looks for damage, on a reader. FTS5 would compare the tables as they are with what it
// remembers of an earlier state; only queries make it forget that. The transaction keeps the state as it is in between.
func (c *conn) checkRows(s *stmt, qualify bool, part func(*command.Rows) error) (rows *command.Rows, err error) {
	if !c.inTransaction() {
		if err := c.exec("BEGIN"); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, c.exec("ROLLBACK")) }()
	}
	if err := c.loadVirtual(); err != nil {
		return nil, err
	}
	return c.rows(s, qualify, part)
}
