package db

import (
	"context"

	"rqlited/command"
)

// Prepare looks at req before it is run. It sets Returning and Explain of its statements and says
// whether the request may be run by Query: a Query always, an Execute never, and a Unified request
// if SQLite says of each of its statements that it only reads. A statement that SQLite can't prepare
// counts as a write, as do those that begin or end a transaction or set something for later ones.
// Of several statements in one text the first decides, as in rqlite; what comes after it can't write
// in a Query. A read of something just dropped may still count as a read; Query then reports that it
// is gone.
//
// Prepare refuses a request with a *RefusedError (ErrDisallowedPragma, ErrForbidden); then nothing
// of it may run. Returning is set only if a text is a single statement, since of several only the
// last would run. It is safe for concurrent use.
func (d *DB) Prepare(req *command.Request) (readOnly bool, err error) {
	readOnly = true
	for i := range req.Statements {
		st := &req.Statements[i]
		sc := scanSQL(st.SQL)
		if sc.refused != nil {
			return false, sc.refused
		}
		st.Explain = sc.explain
		st.Returning = sc.returning && !sc.explain && req.Kind != command.Query
		readOnly = readOnly && !sc.writes
	}
	switch {
	case req.Kind == command.Query:
		return true, nil
	case req.Kind == command.Execute || !readOnly:
		return false, nil
	}
	c, err := d.judges.get(context.Background()) // they are never held for long
	if err != nil {
		return false, err
	}
	for i := range req.Statements {
		if !c.onlyReads(req.Statements[i].SQL) {
			readOnly = false
			break
		}
	}
	return readOnly, d.giveBack(d.judges, c)
}

// onlyReads says whether the first statement of sql, if there is one, can be run by a reader.
func (c *conn) onlyReads(sql string) bool {
	s, _, err := c.prepare(sql)
	if err != nil || s == nil {
		return err == nil
	}
	defer c.release(s)
	return (s.readOnly || s.explain) && !s.state() && !s.transaction()
}
