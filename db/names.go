package db

// #include "sqlite.h"
import "C"

import (
	"strconv"
	"strings"
)

// A table made from a query, and a view, has columns of the names in the query. SQLite tells those of the
// same name apart by numbers, of which those from the sixth column on are random.

// checkStoredNames refuses the statement s, just prepared from sql, if it would store such names.
func (c *conn) checkStoredNames(s *stmt, sql string) error {
	if c.role != writer || c.c.trusted != 0 || s.readOnly || s.explain {
		return nil
	}
	c.c.trusted = 1
	defer func() { c.c.trusted = 0 }()
	switch {
	case s.seen&C.SEEN_TABLE != 0 && s.seen&C.SEEN_SELECT != 0:
		return c.checkColumns(queryOf(sql))
	case s.seen&C.SEEN_COLUMNS != 0: // it may ask for those of any view
		views, err := c.ownQuery("SELECT name FROM main.sqlite_schema WHERE type='view' UNION ALL SELECT name FROM temp.sqlite_schema WHERE type='view'")
		for i := 0; i < len(views) && err == nil; i++ {
			err = c.checkColumns(quote(views[i][0].(string), `"`))
		}
		return err
	}
	return nil
}

// checkColumns looks at the columns of a table, or of a query in brackets.
func (c *conn) checkColumns(from string) error {
	s, _, err := c.prepare("SELECT * FROM " + from)
	if err != nil || s == nil {
		if machineError(err) {
			return err
		}
		return nil // the statement fails in the same way, or does not ask for that view
	}
	defer c.release(s)
	m, err := c.describe(s)
	if err != nil {
		return err
	}
	if randomNames(m.names) {
		return &sqlError{code: codeError, msg: msgColumns}
	}
	return nil
}

// queryOf returns the query of a CREATE TABLE … AS, in brackets.
func queryOf(sql string) string {
	l := lexer{rest: sql}
	for t := l.next(); !t.is("AS"); t = l.next() {
		if t.ends() {
			return ""
		}
	}
	query := l.rest
	end := 0
	for t := l.next(); !t.ends(); t = l.next() {
		end = len(query) - len(l.rest)
	}
	return "(" + query[:end] + "\n)"
}

// randomNames says whether one of the names is a random one: after name, name:1, name:2, name:3 and
// name:4 comes name:N, N being random.
func randomNames(names []string) bool {
	seen := make(map[string]bool, len(names))
	for _, name := range names {
		name = strings.ToLower(name)
		base, number, ok := cutLast(name, ":")
		if n, err := strconv.ParseUint(number, 10, 64); ok && err == nil && n > 4 &&
			seen[base+":1"] && seen[base+":2"] && seen[base+":3"] && seen[base+":4"] {
			return true
		}
		seen[name] = true
	}
	return false
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}
