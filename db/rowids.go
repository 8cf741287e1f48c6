package db

// #include "sqlite.h"
// #include <stdlib.h>
import "C"

import (
	"errors"
	"fmt"
	"strings"
	"unsafe"
)

// A table that holds the largest rowid gets its further ones from random numbers of SQLite's own. So a
// statement that gives a row this rowid is taken back, by rowids.c, and a table of a file that came with such a
// row takes no more rows. Tables with AUTOINCREMENT are left alone: SQLite reports them full.

// tableName names a table.
type tableName struct{ schema, name string }

// ownTables lists the tables that have rows of their own. The schema has no row about itself.
const ownTables = `SELECT 'main', 'sqlite_schema', '' UNION ALL
	SELECT 'main', name, sql FROM main.sqlite_schema WHERE type='table' AND rootpage > 0 UNION ALL
	SELECT 'temp', name, sql FROM temp.sqlite_schema WHERE type='table' AND rootpage > 0`

// findFull finds the tables that hold the largest rowid.
func (c *conn) findFull() ([]tableName, error) {
	var full []tableName
	rows, err := c.ownQuery(ownTables)
	for i := 0; i < len(rows) && err == nil; i++ {
		t := tableName{rows[i][0].(string), rows[i][1].(string)}
		if hasKeyword(rows[i][2].(string), "AUTOINCREMENT") {
			continue
		}
		var is bool
		if is, err = c.isFull(t); is {
			full = append(full, t)
		}
	}
	return full, err
}

// isFull says whether a table holds the largest rowid. No client can give it to a table that hides
// its rowid behind columns of all three names.
func (c *conn) isFull(t tableName) (bool, error) {
	columns, err := c.ownQuery(fmt.Sprintf("SELECT lower(name) FROM pragma_table_xinfo(%s, %s)", quote(t.name, "'"), quote(t.schema, "'")))
	if err != nil {
		return false, err
	}
	aliases := map[string]bool{"rowid": true, "_rowid_": true, "oid": true}
	for _, column := range columns {
		delete(aliases, column[0].(string))
	}
	for alias := range aliases {
		found, err := c.ownQuery(fmt.Sprintf("SELECT 1 FROM %s.%s WHERE %s=9223372036854775807", t.schema, quote(t.name, `"`), alias))
		if err != nil && !machineError(err) {
			return false, nil // WITHOUT ROWID
		}
		return len(found) > 0, err
	}
	return false, nil
}

// checkFull refuses s if it may add rows to a full table. Only a file can bring one; as long as it
// is not known that there is none, or there may still be one, all statements are looked at.
func (c *conn) checkFull() error {
	if c.c.record_targets == 0 {
		return nil
	}
	C.db_list_free(&c.c.full)
	full, err := c.findFull()
	if err != nil {
		return err
	}
	for _, t := range full {
		if err := list(&c.c.full, t); err != nil {
			return err
		}
	}
	if len(full) == 0 {
		c.c.record_targets = 0
		return nil
	}
	c.dropCached() // so that each statement is prepared anew, and says what it writes to
	virtual, err := c.virtualTables()
	if err != nil {
		return err
	}
	for l := c.c.targets; l != nil; l = l.next {
		target := tableName{strings.ToLower(C.GoString(l.schema)), strings.ToLower(C.GoString(l.name))}
		for _, t := range full {
			if mayAdd(t, target, int(l.action), virtual[target]) {
				return &sqlError{code: codeFull, msg: fmt.Sprintf(msgFull, t.name)}
			}
		}
	}
	return nil
}

// mayAdd says whether a statement that does action to target may add rows to table t. SQLite adds some to its
// own tables without telling, and so do virtual tables to those behind them.
func mayAdd(t, target tableName, action int, virtual bool) bool {
	name := strings.ToLower(t.name)
	if strings.HasPrefix(name, "sqlite_") && action != C.ACTION_DELETE {
		return true
	}
	kind, behind := strings.CutPrefix(name, target.name+"_")
	if virtual && behind {
		perRow := kind == "content" || kind == "docsize" || kind == "rowid"
		return action != C.ACTION_DELETE || !perRow
	}
	return action == C.ACTION_INSERT && t.schema == target.schema && name == target.name
}

func (c *conn) virtualTables() (map[tableName]bool, error) {
	rows, err := c.ownQuery(`SELECT 'main', lower(name) FROM main.sqlite_schema WHERE type='table' AND rootpage=0 UNION ALL
		SELECT 'temp', lower(name) FROM temp.sqlite_schema WHERE type='table' AND rootpage=0`)
	tables := make(map[tableName]bool)
	for _, row := range rows {
		tables[tableName{row[0].(string), row[1].(string)}] = true
	}
	return tables, err
}

// readCounting reads which tables have AUTOINCREMENT.
func (c *conn) readCounting() error {
	C.db_list_free(&c.c.counting)
	rows, err := c.ownQuery(`SELECT 'main', name, sql FROM main.sqlite_schema WHERE type='table' AND instr(lower(sql), 'autoincrement') UNION ALL
		SELECT 'temp', name, sql FROM temp.sqlite_schema WHERE type='table' AND instr(lower(sql), 'autoincrement')`)
	for _, row := range rows {
		if hasKeyword(row[2].(string), "AUTOINCREMENT") {
			err = errors.Join(err, list(&c.c.counting, tableName{row[0].(string), row[1].(string)}))
		}
	}
	return err
}

// list adds t to a list of C.
func list(l **C.db_list, t tableName) error {
	schema, name := C.CString(t.schema), C.CString(t.name)
	defer C.free(unsafe.Pointer(schema))
	defer C.free(unsafe.Pointer(name))
	if C.db_list_add(l, 0, schema, name) == 0 {
		return errNoMemory
	}
	return nil
}

// overfull takes back the statement that has just been run, and the transaction that it belongs to, if it has
// given a row the largest rowid. It returns nil if it hasn't.
func (c *conn) overfull() error {
	if c.c.overfull == 0 {
		return nil
	}
	e := &sqlError{code: codeFull, msg: fmt.Sprintf(msgRowid, strings.ToValidUTF8(C.GoString(&c.c.overfull_table[0]), ""))}
	c.c.overfull = 0
	c.tainted = true
	if c.inTransaction() {
		e.undone = true
		if err := c.exec("ROLLBACK"); err != nil {
			return err
		}
	}
	if rc := C.db_overfull_done(c.c); rc != 0 {
		return c.failure(rc)
	}
	return e
}

func hasKeyword(sql, keyword string) bool {
	l := lexer{rest: sql}
	for t := l.next(); t.kind != tokenEnd; t = l.next() {
		if t.is(keyword) {
			return true
		}
	}
	return false
}

// quote quotes a name or text.
func quote(s, q string) string { return q + strings.ReplaceAll(s, q, q+q) + q }
