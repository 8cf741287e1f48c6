package db

import (
	"context"
	"errors"
	"time"

	"rqlited/command"
)

const msgQueryTimeout = "query timeout"

// errTransactionTimeout is what clients know a transaction of reads to fail with once its time is up.
var errTransactionTimeout = errors.New("sql: transaction has already been committed or rolled back")

// Query runs the statements of req as reads, in order, on a connection that can't write, and
// returns one Result per statement that has text. An error of a statement is its result; the
// others are still run.
//
// req.DBTimeout bounds the statements: the one that runs when it ends, and those after it, get the
// error "query timeout"; a transaction fails as a whole. If it ends before a connection is free, or
// if ctx ends, Query returns the error of the context; ErrDamaged if the main file was found damaged.
// It is safe for concurrent use.
func (d *DB) Query(ctx context.Context, req *command.Request) (*command.Response, error) {
	limited := ctx
	if req.DBTimeout > 0 {
		var cancel context.CancelFunc
		limited, cancel = context.WithTimeout(ctx, req.DBTimeout)
		defer cancel()
	}
	c, err := d.readers.get(limited)
	if err != nil {
		return nil, err
	}
	resp, err := queryAll(ctx, limited, c.conn, req)
	d.count.queried(req, resp)
	return resp, errors.Join(err, d.giveBack(d.readers, c))
}

// giveBack gives back a connection of p. It returns ErrDamaged if a page was found damaged, and before
// that withdraws the marker, so that Close waits for it.
func (d *DB) giveBack(p *pool, c *pooled) error {
	err := d.damage()
	return errors.Join(err, p.put(c))
}

func queryAll(ctx, limited context.Context, c *conn, req *command.Request) (*command.Response, error) {
	if limited.Done() != nil {
		interrupted := make(chan struct{})
		stop := context.AfterFunc(limited, func() {
			c.interrupt()
			close(interrupted)
		})
		defer func() {
			if !stop() {
				<-interrupted // not while somebody else uses the connection
			}
		}()
	}
	if req.Transaction {
		if err := c.exec("BEGIN"); err != nil {
			return nil, err
		}
	}
	resp := &command.Response{Results: make([]command.Result, 0, len(req.Statements))}
	for i := range req.Statements {
		st := &req.Statements[i]
		if st.SQL == "" {
			continue
		}
		res, err := queryOne(limited, c, st, req)
		if err != nil {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			if limited.Err() == nil {
				return nil, ErrClosed // who else would interrupt
			}
			if req.Transaction {
				return nil, errTransactionTimeout
			}
			res = command.Result{Rows: &command.Rows{}, Error: msgQueryTimeout}
		}
		resp.Results = append(resp.Results, res)
	}
	if c.inTransaction() {
		// Nothing was written, so whether it ends by COMMIT or ROLLBACK is all the same.
		if err := c.exec("ROLLBACK"); err != nil {
			return nil, err
		}
	}
	return resp, nil
}

// queryOne runs one statement. Its error is that the time is up or the query interrupted; others
// are in the result.
func queryOne(limited context.Context, c *conn, st *command.Statement, req *command.Request) (command.Result, error) {
	if err := limited.Err(); err != nil {
		return command.Result{}, err
	}
	var start time.Time
	if req.Timings {
		start = time.Now()
	}
	rows, err := c.query(st, req.QualifyColumns)
	if err == nil {
		res := command.Result{Rows: rows}
		if req.Timings {
			res.Time = time.Since(start).Seconds()
		}
		return res, nil
	}
	res := command.Result{Rows: &command.Rows{}, Error: err.Error()}
	var e *sqlError
	if errors.As(err, &e) {
		switch e.code & 0xff {
		case codeInterrupt:
			return res, err
		case codeReadOnly:
			res.Error = msgWrite
		}
	}
	return res, nil
}
