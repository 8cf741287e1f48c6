package db

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"rqlited/command"
)

// execute runs every statement of st's text as writes and returns the counters after the last.
// The values are used up from left to right. Without any value all placeholders are NULL.
func (c *conn) execute(st *command.Statement) (command.Write, error) {
	if err := checkNames(st.Params); err != nil {
		return command.Write{}, err
	}
	s, tail, err := c.prepare(st.SQL)
	if err != nil {
		return command.Write{}, err
	}
	return c.executeFrom(s, tail, st.Params)
}

// executeFrom goes on with an execute whose first statement is prepared.
func (c *conn) executeFrom(s *stmt, tail string, params []command.Param) (w command.Write, err error) {
	for used := 0; s != nil; {
		if w, err = c.executeOne(s, params, &used); err != nil || tail == "" {
			return w, err
		}
		if s, tail, err = c.prepare(tail); err != nil {
			return w, err
		}
	}
	return w, nil
}

func (c *conn) executeOne(s *stmt, params []command.Param, used *int) (command.Write, error) {
	defer c.release(s)
	if len(params) > 0 {
		if len(params)-*used < s.params {
			return command.Write{}, notEnough(s.params, len(params))
		}
		if err := c.bindAll(s, params, *used); err != nil {
			return command.Write{}, err
		}
		*used += s.params
	}
	if err := c.run(s); err != nil {
		return command.Write{}, err
	}
	return command.Write{LastInsertID: int64(c.c.rowid), RowsAffected: int64(c.c.changes)}, nil
}

// query runs st's text for rows. Of several statements only the last is run, as rqlite does and
// its log entries therefore mean; the others are prepared. A comment after the last semicolon counts
// as a statement, one that returns nothing, unless what it would hide is a write. Part is as in rows.
func (c *conn) query(st *command.Statement, qualify bool, part func(*command.Rows) error) (*command.Rows, error) {
	if err := checkNames(st.Params); err != nil {
		return nil, err
	}
	s, tail, err := c.prepare(st.SQL)
	if err != nil || s == nil {
		return &command.Rows{}, err
	}
	return c.queryFrom(s, tail, st.Params, qualify, part)
}

// queryFrom goes on with a query whose first statement is prepared.
func (c *conn) queryFrom(s *stmt, tail string, params []command.Param, qualify bool, part func(*command.Rows) error,
) (*command.Rows, error) {
	used := 0
	for {
		if len(params)-used < s.params {
			err := notEnough(s.params, len(params)-used)
			c.release(s)
			return nil, err
		}
		if strings.TrimSpace(tail) == "" || !s.readOnly && blank(tail) {
			defer c.release(s)
			if err := c.bindAll(s, params, used); err != nil {
				return nil, err
			}
			// SQLite counts PRAGMA journal_mode as a write even where it only asks; it refuses by
			// itself those that do write.
			if c.role == reader && !s.readOnly && !s.explain && !s.pragma() {
				return nil, &sqlError{code: codeReadOnly, msg: msgWrite}
			}
			if c.role == reader && s.check() {
				return c.checkRows(s, qualify, part)
			}
			return c.rows(s, qualify, part)
		}
		used += s.params
		c.release(s)
		var err error
		if s, tail, err = c.prepare(tail); err != nil || s == nil {
			return &command.Rows{}, err
		}
	}
}

// bindAll binds the values from number start on to the placeholders of s: those without a name by
// their position, named ones, wherever they stand, by their name.
func (c *conn) bindAll(s *stmt, params []command.Param, start int) error {
	for i := range params {
		p := &params[i]
		if p.Name != "" {
			for _, prefix := range [...]string{":", "@", "$"} {
				if n := c.placeholder(s, prefix+p.Name); n > 0 {
					if err := c.bind(s, n, p.Value); err != nil {
						return err
					}
				}
			}
			continue
		}
		if i < start || i >= start+s.params {
			continue
		}
		if err := c.bind(s, i-start+1, p.Value); err != nil {
			return err
		}
	}
	return nil
}

// checkNames refuses the parameter names that rqlite refuses, and in its words.
func checkNames(params []command.Param) error {
	for i := range params {
		if name := params[i].Name; name != "" {
			if r, _ := utf8.DecodeRuneInString(name); !unicode.IsLetter(r) {
				return &sqlError{code: codeError, msg: fmt.Sprintf("name %q does not begin with a letter", name)}
			}
		}
	}
	return nil
}

func notEnough(want, got int) error {
	return &sqlError{code: codeError, msg: fmt.Sprintf("not enough args to execute query: want %d got %d", want, got)}
}
