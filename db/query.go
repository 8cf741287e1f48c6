package db

import (
	"context"
	"errors"
	"fmt"
	"time"

	"rqlited/command"
)

const msgQueryTimeout = "query timeout"

// errInterrupted means that a statement did not come to its end.
var errInterrupted = errors.New("db: interrupted")

// errTransactionTimeout is what clients know a transaction of reads to fail with once its time is up.
var errTransactionTimeout = errors.New("sql: transaction has already been committed or rolled back")

// Query runs the statements of req as reads, in order, on a connection that can't write, and
// returns one Result per statement that has text, or gives them to req.Sink. An error of a statement is
// its result; the others are still run. Without a Sink a statement that would make the results larger than
// 64 MiB fails. With one, Query fails if the Sink makes it wait for too long (errSlow).
//
// req.DBTimeout bounds the statements: the one that runs when it ends, and those after it, get the
// error "query timeout"; a transaction fails as a whole. Time that the Sink takes does not count. If it ends
// before a connection is free, or if ctx ends, Query returns the error of the context; ErrDamaged if the main
// file was found damaged; the Sink's error. It is safe for concurrent use.
func (d *DB) Query(ctx context.Context, req *command.Request) (*command.Response, error) {
	start := time.Now()
	c, err := d.reader(ctx, req.DBTimeout)
	if err != nil {
		return nil, err
	}
	q := &reading{d: d, c: c.conn, req: req}
	q.c.kept = 0
	if req.DBTimeout > 0 {
		q.limit = newLimit(req.DBTimeout-time.Since(start), c.interrupt)
	}
	err = q.run(ctx)
	d.count.queried(q, err)
	return &q.resp, errors.Join(err, d.giveBack(d.readers, c))
}

// reader returns a connection that is free within the given time; zero does not bound it.
func (d *DB) reader(ctx context.Context, timeout time.Duration) (*pooled, error) {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	return d.readers.get(ctx)
}

// giveBack gives back a connection of p. It returns ErrDamaged if a page was found damaged, and before
// that withdraws the marker, so that Close waits for it.
func (d *DB) giveBack(p *pool, c *pooled) error {
	err := d.damage()
	return errors.Join(err, p.put(c))
}

// reading is a request of reads that is being run.
type reading struct {
	d     *DB
	c     *conn
	req   *command.Request
	resp  command.Response
	limit *limit // nil if there is none

	done   int // statements
	failed int // of these
	pace   pace
	refuse error // of what came between two parts of a result: it ends the request
}

// run runs all statements.
func (q *reading) run(ctx context.Context) error {
	if ctx.Done() != nil {
		interrupted := make(chan struct{})
		stop := context.AfterFunc(ctx, func() {
			q.c.interrupt()
			close(interrupted)
		})
		defer func() {
			if !stop() {
				<-interrupted // not while somebody else uses the connection
			}
		}()
	}
	defer q.limit.end()
	if q.req.Transaction {
		if err := q.c.exec("BEGIN"); err != nil {
			return err
		}
	}
	if q.req.Sink == nil {
		q.resp.Results = make([]command.Result, 0, len(q.req.Statements))
	}
	for i := range q.req.Statements {
		st := &q.req.Statements[i]
		if st.SQL == "" {
			continue
		}
		if err := q.pace.check(); err != nil {
			return err
		}
		res, err := q.one(ctx, st)
		if err != nil {
			if res, err = q.interrupted(ctx); err != nil {
				return err
			}
		}
		if err := q.put(&res); err != nil {
			return err
		}
	}
	if q.c.inTransaction() {
		// Nothing was written, so whether it ends by COMMIT or ROLLBACK is all the same.
		return q.c.exec("ROLLBACK")
	}
	return nil
}

// one runs one statement. Its error is that it was interrupted, or that the request has ended; others are in
// the result.
func (q *reading) one(ctx context.Context, st *command.Statement) (command.Result, error) {
	if ctx.Err() != nil || q.limit.over() {
		return command.Result{}, errInterrupted
	}
	var start time.Time
	if q.req.Timings {
		start = time.Now()
	}
	waited := q.pace.waited
	var part func(*command.Rows) error
	if q.req.Sink != nil {
		part = q.part
	}
	rows, err := q.c.query(st, q.req.QualifyColumns, part)
	if err == nil {
		res := command.Result{Rows: rows}
		if q.req.Timings {
			res.Time = (time.Since(start) - (q.pace.waited - waited)).Seconds()
		}
		return res, nil
	}
	if q.refuse != nil {
		return command.Result{}, errInterrupted
	}
	res := command.Result{Rows: &command.Rows{}, Error: err.Error()}
	if e, ok := errors.AsType[*sqlError](err); ok {
		switch e.code & 0xff {
		case codeInterrupt:
			return res, errInterrupted
		case codeReadOnly:
			res.Error = msgWrite
		}
	}
	return res, nil
}

// interrupted returns the result of a statement that was interrupted, or the error of the request if it ends
// with that.
func (q *reading) interrupted(ctx context.Context) (command.Result, error) {
	switch {
	case q.refuse != nil:
		return command.Result{}, q.refuse
	case ctx.Err() != nil:
		return command.Result{}, ctx.Err()
	case !q.limit.over():
		return command.Result{}, ErrClosed // who else would interrupt
	case q.req.Transaction:
		return command.Result{}, errTransactionTimeout
	}
	return command.Result{Rows: &command.Rows{}, Error: msgQueryTimeout}, nil
}

// put hands on the result of a statement, or what is left of it.
func (q *reading) put(res *command.Result) error {
	q.done++
	if res.Error != "" {
		q.failed++
	}
	if q.req.Sink == nil {
		q.resp.Results = append(q.resp.Results, *res)
		return nil
	}
	if res.Error == "" && len(res.Rows.Values) > 0 {
		q.pace.taken += q.c.batchSize()
	}
	return q.take(res, false)
}

// part hands on rows of a statement that has more.
func (q *reading) part(rows *command.Rows) error {
	q.refuse = q.d.damage() // what SQLite makes of a damaged page may look like rows
	if q.refuse == nil {
		q.refuse = q.take(&command.Result{Rows: rows}, true)
	}
	if q.refuse == nil {
		q.pace.taken += q.c.batchSize()
		q.refuse = q.pace.check()
	}
	return q.refuse
}

// take waits for the sink, which is not the time of the statement.
func (q *reading) take(res *command.Result, more bool) error {
	q.limit.pause()
	start := time.Now()
	err := q.req.Sink.Take(res, more)
	q.pace.waited += time.Since(start)
	q.limit.resume()
	return err
}

// What a client may make a read wait: a read that waits keeps its state of the database, and with that the
// WAL from starting again.
const (
	patience = 30 * time.Second
	slowest  = 256 << 10 // bytes of SQLite's values; the client may take a second more for so many
)

// errSlow means that the sink took the result too slowly for the read to go on.
var errSlow = fmt.Errorf("result was taken too slowly: the client may let the query wait for %s, and a second more for each %s that it takes", patience, size(slowest))

// pace is how a result is taken.
type pace struct {
	waited time.Duration // for the sink
	taken  int64         // bytes
}

// check returns errSlow if nothing may wait for the sink any more.
func (p *pace) check() error {
	if p.waited > patience+time.Duration(float64(p.taken)/slowest*float64(time.Second)) {
		return errSlow
	}
	return nil
}
