package db

import (
	"errors"
	"sync/atomic"
	"time"

	"rqlited/command"
)

// counters count what has happened since Open, for monitoring.
type counters struct {
	executions, executeErrors atomic.Int64 // statements run as writes
	queries, queryErrors      atomic.Int64 // statements run as reads
	requests                  atomic.Int64 // Unified

	executeTransactions, queryTransactions, requestTransactions atomic.Int64 // requests that asked for one

	checkpoints, checkpointsBusy, checkpointsFailed atomic.Int64

	checkpointTime, openTime atomic.Int64 // ms

	walPages atomic.Uint32 // in the database, if the WAL has any; else 0
	pageSize atomic.Int64
}

// applied counts the statements of an entry. Those whose text was never reached are not among them.
func (c *counters) applied(req *command.Request, resp *command.Response) {
	reads := 0
	if req.Kind == command.Unified {
		c.requests.Add(1)
		reads = max(0, len(resp.Results)-resp.Writes)
		if req.Transaction {
			c.requestTransactions.Add(1)
		}
	} else if req.Transaction {
		c.executeTransactions.Add(1)
	}
	c.queries.Add(int64(reads))
	c.executions.Add(int64(len(resp.Results) - reads))
	for i := range resp.Results {
		res := &resp.Results[i]
		switch {
		case res.Error == "":
		case req.Kind == command.Unified && res.Rows != nil:
			c.queryErrors.Add(1)
		default:
			c.executeErrors.Add(1)
		}
	}
}

// queried counts the statements of a read, or the read that failed as a whole with err.
func (c *counters) queried(q *reading, err error) {
	if q.req.Transaction {
		c.queryTransactions.Add(1)
	}
	if err != nil {
		c.queryErrors.Add(1)
		return
	}
	c.queries.Add(int64(q.done))
	c.queryErrors.Add(int64(q.failed))
}

// checkpoint counts an attempt to move the WAL into the main file.
func (c *counters) checkpoint(begun time.Time, err error) {
	switch {
	case err == nil:
		c.checkpoints.Add(1)
	case errors.Is(err, ErrBusy):
		c.checkpointsBusy.Add(1)
	default:
		c.checkpointsFailed.Add(1)
	}
	c.checkpointTime.Add(time.Since(begun).Milliseconds())
}

// Counters returns the "db" map of /debug/vars, as far as there is something to count.
func (d *DB) Counters() map[string]int64 {
	c := &d.count
	done, busy, failed := c.checkpoints.Load(), c.checkpointsBusy.Load(), c.checkpointsFailed.Load()
	return map[string]int64{
		"checkpoint_busy_errors": busy,
		"checkpoint_duration_ms": c.checkpointTime.Load(),
		"checkpoint_errors":      failed,
		"checkpoint_total":       done + busy + failed,
		"checkpoints":            done,
		"execute_transactions":   c.executeTransactions.Load(),
		"execution_errors":       c.executeErrors.Load(),
		"executions":             c.executions.Load(),
		"open_duration_ms":       c.openTime.Load(),
		"queries":                c.queries.Load(),
		"query_errors":           c.queryErrors.Load(),
		"query_transactions":     c.queryTransactions.Load(),
		"request_transactions":   c.requestTransactions.Load(),
		"requests":               c.requests.Load(),
	}
}

// Metrics are what monitoring wants to know often.
type Metrics struct {
	FileSize int64 // of the main file in bytes
	WALSize  int64 // bytes
	PageSize int64 // bytes
	Pages    int64 // in the database, those in the WAL included

	Readers    PoolStats // connections for queries
	Statements PoolStats // connections that classify statements
}

// Metrics never waits for writes, captures or queries, and uses no connection: it tells the number of
// pages as of the last entry that was applied.
func (d *DB) Metrics() Metrics {
	m := Metrics{
		WALSize:    d.WALSize(),
		PageSize:   d.count.pageSize.Load(),
		Pages:      int64(d.count.walPages.Load()),
		Readers:    d.readers.stats(),
		Statements: d.judges.stats(),
	}
	if info, err := d.fs.Stat(d.path); err == nil {
		m.FileSize = info.Size
	}
	if m.Pages == 0 && m.PageSize > 0 {
		m.Pages = m.FileSize / m.PageSize
	}
	return m
}
