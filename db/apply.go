package db

import (
	"context"
	"errors"
	"fmt"
	"time"

	"rqlited/command"
)

// julianEpoch is the beginning of SQLite's clock in milliseconds before 1970.
const julianEpoch = 210866760000000

// Apply applies one entry of the log and returns its results, one per statement that has text. It
// is called by one goroutine, the one that also calls Capture and Replace.
//
// What an entry does is decided by the entry and the database alone, so that all replicas stay
// equal, and a replica stays equal to itself after a restart:
//   - The time is the entry's, and random numbers are drawn from its seed. In entries of rqlite,
//     which have neither, they are real.
//   - last_insert_rowid, changes and total_changes begin at zero with each entry. Only the counters
//     in results, which nothing depends on, carry over from earlier entries until the database is
//     opened again or replaced, as in rqlite.
//   - Settings (PRAGMA), temporary tables and other state of the connection end with the entry.
//   - A transaction that an entry leaves open is rolled back, and the statements from the one that
//     opened it on report an error.
//   - The rest of what SQLite may answer differently on another machine is listed in
//     docs/design/consistency.md.
//
// A statement that every replica fails to run gets a result with SQLite's message. An error is
// one of this machine (see machineCodes, ErrDamaged, ErrForeign): the entry may be applied in part, and the caller must
// not go on with this database.
func (d *DB) Apply(e *command.Entry) (*command.Response, error) {
	if err := d.failed(); err != nil {
		return nil, err
	}
	if err := d.watchApply(ownNothing); err != nil {
		return nil, err
	}
	resp, err := d.apply(e)
	d.entries++
	if err := d.damage(); err != nil {
		return nil, err // whatever SQLite has made of it
	}
	if err != nil {
		return nil, fmt.Errorf("apply %s: %w", e.Kind, err)
	}
	return resp, nil
}

func (d *DB) apply(e *command.Entry) (*command.Response, error) {
	switch e.Kind {
	case command.Query:
		// A read changes nothing, so whatever goes wrong is a matter of the one who asked.
		resp, err := d.Query(context.Background(), e.Request)
		if err != nil {
			resp = &command.Response{Results: []command.Result{{Rows: &command.Rows{}, Error: err.Error()}}}
		}
		return resp, nil
	case command.Execute, command.Unified:
		return d.applyRequest(e)
	case command.Load:
		return d.applyLoad(e.Data)
	case command.LoadChunk:
		return d.applyChunk(e.Chunk)
	case command.Noop:
		return &command.Response{}, nil
	}
	return &command.Response{Results: []command.Result{{Error: "unknown command type"}}}, nil
}

func (d *DB) applyRequest(e *command.Entry) (*command.Response, error) {
	var millis int64
	if !e.Time.IsZero() {
		millis = e.Time.UnixMilli() + julianEpoch
	}
	c := d.writer
	if err := c.setForeignKeys(e.ForeignKeys, d.cfg.ForeignKeys); err != nil {
		return nil, err
	}
	if err := c.beginBounds(); err != nil {
		return nil, err
	}
	c.beginEntry(millis, e.Seed)
	r := run{c: c, req: e.Request, resp: &command.Response{}, opened: -1, watch: d.watchApply, fault: d.machineFault}
	err := r.all()
	c.endEntry()
	c.endBounds()
	c.endUndone()
	if err == nil {
		err = d.watchApply(ownWrite) // the end of a transaction
	}
	if err != nil {
		return nil, err
	}
	d.count.applied(e.Request, r.resp)
	if c.tainted {
		if err := d.reopenWriter(); err != nil {
			return nil, err
		}
	}
	return r.resp, nil
}

// run is the application of one Execute or Unified request.
type run struct {
	c    *conn
	req  *command.Request
	resp *command.Response

	watch  func(ownAct) error
	fault  func(error) bool
	opened int // the result of the statement that opened the transaction that is open; -1: none
}

// all runs the statements. Its error is a machine error; others are results.
func (r *run) all() error {
	if r.req.Transaction {
		if err := r.c.exec("BEGIN"); err != nil {
			return err
		}
	}
	r.resp.Results = make([]command.Result, 0, len(r.req.Statements))
	for i := range r.req.Statements {
		st := &r.req.Statements[i]
		if st.SQL == "" {
			continue
		}
		stop, err := r.statement(st)
		if err != nil {
			return err
		}
		if stop {
			return r.rollback()
		}
	}
	if r.req.Transaction {
		return r.commit()
	}
	return r.closeOpen()
}

// statement runs one statement; stop ends the request with a rollback.
func (r *run) statement(st *command.Statement) (stop bool, err error) {
	var start time.Time
	if r.req.Timings {
		start = time.Now()
	}
	before := r.c.inTransaction()
	res, stops, err := r.result(st)
	if r.fault(err) {
		return false, err
	}
	if err := r.watch(ownWrite); err != nil {
		return false, err
	}
	if err != nil {
		r.failed(err)
		res.Error = err.Error()
		stop = stops && (r.req.Transaction || r.req.RollbackOnError)
	} else if r.req.Timings {
		res.Time = time.Since(start).Seconds()
	}
	r.resp.Results = append(r.resp.Results, res)
	if after := r.c.inTransaction(); after != before {
		if r.opened = -1; after {
			r.opened = len(r.resp.Results) - 1
		}
	}
	return stop, nil
}

// result runs st in the form that its kind asks for. An error that does not stop a transaction is
// that of a statement that SQLite could not prepare in a Unified request.
func (r *run) result(st *command.Statement) (res command.Result, stops bool, err error) {
	if r.req.Kind == command.Unified {
		return r.unified(st)
	}
	if st.Returning {
		res.Rows, err = r.c.query(st, r.req.QualifyColumns, nil)
		if err != nil {
			res.Rows = &command.Rows{}
		}
		return res, true, err
	}
	w, err := r.c.execute(st)
	if err == nil {
		res.Write = &w
	}
	return res, true, err
}

// unified runs st as a read or as a write, as SQLite says of its first statement.
func (r *run) unified(st *command.Statement) (res command.Result, stops bool, err error) {
	s, tail, err := r.c.prepare(st.SQL)
	if err != nil {
		return res, false, err
	}
	readOnly := s != nil && (s.readOnly || s.explain)
	if !readOnly {
		r.resp.Writes++
	}
	if err = checkNames(st.Params); err != nil {
		if s != nil {
			r.c.release(s)
		}
		return res, true, err
	}
	if readOnly || s != nil && st.Returning {
		if res.Rows, err = r.c.queryFrom(s, tail, st.Params, r.req.QualifyColumns, nil); err != nil {
			res.Rows = &command.Rows{}
		}
		return res, true, err
	}
	w, err := r.c.executeFrom(s, tail, st.Params)
	if err == nil {
		res.Write = &w
	}
	return res, true, err
}

// commit ends the transaction of the request. If it can't, the request as a whole has failed:
// nothing of it has happened, unless a statement of its own had ended the transaction before.
func (r *run) commit() error {
	err := r.c.exec("COMMIT")
	if err == nil || r.fault(err) {
		return err
	}
	r.resp.Results, r.resp.Error = []command.Result{}, err.Error()
	return r.rollback()
}

func (r *run) rollback() error {
	if !r.c.inTransaction() {
		return nil
	}
	r.c.undone = true
	return r.c.exec("ROLLBACK")
}

// closeOpen rolls back a transaction that the statements have left open, and says so in the results
// of those that it takes back.
func (r *run) closeOpen() error {
	if !r.c.inTransaction() {
		return nil
	}
	r.takeBack(max(r.opened, 0), msgOpen)
	return r.rollback()
}

// takeBack says of the results from number i on that nothing of them is left.
func (r *run) takeBack(i int, msg string) {
	for ; i < len(r.resp.Results); i++ {
		res := &r.resp.Results[i]
		if res.Error != "" {
			continue
		}
		wasRead := res.Rows != nil
		*res = command.Result{Error: msg}
		if wasRead {
			res.Rows = &command.Rows{}
		}
	}
}

// failed notes what the failure of a statement has done to those before it.
func (r *run) failed(err error) {
	r.c.undone = true
	var e *sqlError
	if r.opened >= 0 && errors.As(err, &e) && (e.undone || e.bounded && !r.c.inTransaction()) {
		r.takeBack(r.opened, msgTakenBack)
	}
}

// reopenWriter replaces the connection of the writer, and with it all state that a statement may
// have left on it. The prepared statements go with it.
func (d *DB) reopenWriter() error {
	c, err := d.openWriter()
	if err != nil {
		return err
	}
	old := d.writer
	c.c.record_targets = old.c.record_targets
	c.c.carried_rowid, c.c.carried_changes = old.c.carried_rowid, old.c.carried_changes
	d.writer = c
	return old.close()
}
