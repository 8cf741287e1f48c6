package db

import (
	"errors"
	"strings"
)

// Result codes of SQLite that decisions are made by.
const (
	codeError     = 1
	codeBusy      = 5
	codeNoMem     = 7
	codeIOErr     = 10
	codeFull      = 13
	codeCantOpen  = 14
	codeTooBig    = 18
	codeAuth      = 23
	codeReadOnly  = 8
	codeInterrupt = 9
	codeRow       = 100
	codeDone      = 101
)

// machineCodes are the primary result codes by which SQLite reports a fault of this machine, or of
// this program, and not of the statement. Other replicas may not meet it, so an entry that
// fails with one must not count as applied. All other codes are results: every replica gets them.
var machineCodes = map[int]string{
	2:             "SQLITE_INTERNAL",
	3:             "SQLITE_PERM",
	codeBusy:      "SQLITE_BUSY",
	codeNoMem:     "SQLITE_NOMEM",
	codeReadOnly:  "SQLITE_READONLY",
	codeInterrupt: "SQLITE_INTERRUPT",
	codeIOErr:     "SQLITE_IOERR",
	11:            "SQLITE_CORRUPT",
	codeCantOpen:  "SQLITE_CANTOPEN",
	15:            "SQLITE_PROTOCOL",
	17:            "SQLITE_SCHEMA",
	21:            "SQLITE_MISUSE",
	22:            "SQLITE_NOLFS",
	26:            "SQLITE_NOTADB",
}

// resultCodes are the extended codes that are results although their primary code is not. A
// client can cause each of them with permitted statements, on every replica alike.
var resultCodes = map[int]string{
	11 | 1<<8: "SQLITE_CORRUPT_VTAB",     // damaged shadow tables of a full-text or R-tree index
	11 | 2<<8: "SQLITE_CORRUPT_SEQUENCE", // a damaged sqlite_sequence table
}

// machineError says whether err is not a result. SQLITE_FULL is a result unless a write met a full disk: a table that
// has used up its AUTOINCREMENT numbers reports it too. SQLITE_BUSY is one unless another process held a
// lock: a statement that is in its own way reports it too. What a bound of ours has refused is a result,
// whatever code SQLite makes of it.
func machineError(err error) bool {
	e, ok := err.(*sqlError)
	if !ok {
		return err != nil
	}
	if e.bounded {
		return false
	}
	switch e.code {
	case codeFull:
		return e.full
	case codeBusy:
		return e.out
	}
	if _, ok := resultCodes[e.code]; ok {
		return false
	}
	_, ok = machineCodes[e.code&0xff]
	return ok
}

// Codes by which SQLite says that what it has read makes no sense.
const (
	codeCorrupt      = 11
	codeCorruptIndex = 11 | 3<<8
)

// machineFault says whether err, of a statement or COMMIT, is not a result. A broken full-text index, and an index
// that a client has filled under another PRAGMA case_sensitive_like, make SQLite report a damaged file. If its
// trees are sound no machine is at fault, and every replica reports the same.
func (d *DB) machineFault(err error) bool {
	if !machineError(err) {
		return false
	}
	var e *sqlError
	if !errors.As(err, &e) || e.code != codeCorrupt && e.code != codeCorruptIndex {
		return true
	}
	// A connection of its own: PRAGMA case_sensitive_like may also keep the writer from reading the schema.
	c, err := openReader(d.path, d.cfg, reader, d.nowhere)
	if err != nil {
		return true
	}
	sound, err := c.sound()
	return errors.Join(err, c.close()) != nil || !sound
}

// sound says whether the trees of all tables hold together. Virtual tables are left out: broken ones make
// the check itself fail.
func (c *conn) sound() (bool, error) {
	tables, err := c.ownQuery("SELECT 'sqlite_schema' UNION ALL SELECT name FROM main.sqlite_schema WHERE type='table' AND rootpage > 0")
	for i := 0; i < len(tables) && err == nil; i++ {
		var found [][]any
		found, err = c.ownQuery("PRAGMA main.quick_check(" + quote(tables[i][0].(string), `"`) + ")")
		for _, row := range found {
			if text, ok := row[0].(string); !ok || strings.HasPrefix(text, "***") { // all else is about values
				return false, err
			}
		}
	}
	return true, err
}
