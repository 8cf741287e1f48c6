package http

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"rqlited/command"
)

// maxBatch bounds, in bytes of memory, what is sent together; a single request may be larger.
const maxBatch = 16 << 20

// errQueueClosed is the answer to a queued write that comes too late, or is given up.
var errQueueClosed = &statusError{http.StatusServiceUnavailable, "write queue is closed: node is stopping"}

// queuedWrite is one request in the queue.
type queuedWrite struct {
	stmts []command.Statement // none: the request only marks a place in the order
	user  caller
	alone bool  // it would change what the others of a batch mean
	bytes int64 // of memory that it holds
	seq   uint64
	at    time.Time // of its acceptance

	done chan struct{} // closed once its fate is decided
	err  error         // why it was not carried out; valid once done is closed
}

// queue carries writes out later than it accepts them, in the order of their sequence numbers and
// many at a time. Its worker, the one goroutine it has, runs only while there is something to do.
//
// An accepted write is tried until it is carried out, refused for certain, or given up by stop.
// When the outcome of an attempt is unknown, the log of this node tells it, see settle; only if that
// cannot tell, an attempt is made that may be the second to succeed.
type queue struct {
	cfg      QueueConfig
	db       Database
	node     Node
	log      *slog.Logger
	counters *counters // the Server's
	stats    queueStats

	wake    chan struct{} // has a message if a batch may be due before its time
	closing chan struct{} // closed when nothing is accepted any more

	mu sync.Mutex
	queueState
}

// queueState is guarded by the queue's mu.
type queueState struct {
	pending []*queuedWrite // not sent yet
	held    int            // writes accepted and not decided: those pending and those being sent
	bytes   int64          // of these
	next    uint64         // sequence number of the next write
	decided uint64         // sequence number of the last write whose fate is decided; 0 if there is none
	due     uint64         // writes up to this sequence number are sent without waiting for others
	pressed bool           // somebody waits for room
	closed  bool
	space   chan struct{} // closed, and replaced, when there may be room again
	ended   chan struct{} // closed when the worker has ended; nil before it starts first
	abort   func()        // ends the worker; nil before it starts first
}

// queueStats are the "queue" map of /debug/vars.
type queueStats struct {
	flushes  atomic.Int64 // batches sent before their time, as room was needed or the node stops
	timeouts atomic.Int64 // batches sent when their time had come
	received atomic.Int64 // statements
	sent     atomic.Int64 // statements carried out
	full     atomic.Int64 // requests refused for want of room
	decided  atomic.Int64 // requests
	waited   atomic.Int64 // µs that these were in the queue
}

// newQueue returns a queue whose first sequence number is first.
func newQueue(cfg QueueConfig, db Database, n Node, log *slog.Logger, c *counters, first uint64) *queue {
	return &queue{
		cfg: cfg, db: db, node: n, log: log, counters: c,
		wake: make(chan struct{}, 1), closing: make(chan struct{}),
		queueState: queueState{next: first, space: make(chan struct{})},
	}
}

// add accepts w, as soon as there is room for it. It fails if ctx ends before, if w is larger than
// the queue, and with errQueueClosed.
func (q *queue) add(ctx context.Context, w *queuedWrite) error {
	if w.bytes > q.cfg.Bytes {
		return tooLarge("request takes %d bytes, the write queue holds %d", w.bytes, q.cfg.Bytes)
	}
	for {
		accepted, space, err := q.tryAdd(w)
		if accepted || err != nil {
			return err
		}
		select {
		case <-space:
		case <-ctx.Done():
			q.stats.full.Add(1)
			return &statusError{http.StatusServiceUnavailable,
				fmt.Sprintf("write queue is full: it holds %d requests and %d bytes", q.cfg.Capacity, q.cfg.Bytes)}
		}
	}
}

// tryAdd accepts w if there is room. Else it returns what to wait for.
func (q *queue) tryAdd(w *queuedWrite) (accepted bool, space <-chan struct{}, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false, nil, errQueueClosed
	}
	if q.held == q.cfg.Capacity || q.bytes+w.bytes > q.cfg.Bytes {
		q.pressed = true
		q.wakeWorker()
		return false, q.space, nil
	}
	w.seq, w.at, w.done = q.next, time.Now(), make(chan struct{})
	q.next++
	q.held++
	q.bytes += w.bytes
	q.pending = append(q.pending, w)
	q.stats.received.Add(int64(len(w.stmts)))
	if q.held == 1 { // those before are decided, and the worker has ended or is about to
		q.startWorker()
	}
	if len(q.pending) >= q.full() {
		q.wakeWorker()
	}
	return true, nil, nil
}

// full is the number of pending requests that need not wait for more.
func (q *queue) full() int { return min(q.cfg.BatchSize, q.cfg.Capacity) }

func (q *queue) wakeWorker() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// startWorker needs mu. The worker before, if there was one, has nothing more to do; waiting for
// its end makes sure that there are never two.
func (q *queue) startWorker() {
	before, ended := q.ended, make(chan struct{})
	ctx, abort := context.WithCancel(context.Background())
	q.ended, q.abort = ended, abort
	go func() {
		defer close(ended)
		defer abort()
		if before != nil {
			<-before
		}
		q.work(ctx)
	}()
}

// work sends one batch after the other until all is decided or ctx ends.
func (q *queue) work(ctx context.Context) {
	for more := true; more; {
		batch, ok := q.nextBatch(ctx)
		if !ok {
			q.giveUp()
			return
		}
		more = q.send(ctx, batch)
	}
}

// giveUp decides all that is pending.
func (q *queue) giveUp() {
	q.mu.Lock()
	lost := q.pending
	q.pending = nil
	q.mu.Unlock()
	if len(lost) > 0 {
		q.log.Error("queued writes lost", append(span(lost), "err", errQueueClosed)...)
		q.decide(lost, errQueueClosed)
	}
}

// nextBatch waits until a batch is due and takes it, unless ctx ends before.
func (q *queue) nextBatch(ctx context.Context) (batch []*queuedWrite, ok bool) {
	for {
		if ctx.Err() != nil {
			return nil, false
		}
		batch, wait := q.takeDue()
		if len(batch) > 0 {
			return batch, true
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-q.wake:
		case <-q.closing:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// takeDue takes a batch if one is due: writes of one user, since they are forwarded under one name.
// Else it returns how long to wait unless something happens; there is something pending, or the
// worker would have ended.
func (q *queue) takeDue() (batch []*queuedWrite, wait time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	wait = time.Hour // with no timeout, as good as for ever
	if q.cfg.Timeout > 0 {
		wait = q.cfg.Timeout - time.Since(q.pending[0].at)
	}
	most := min(len(q.pending), q.cfg.BatchSize)
	switch {
	case q.pending[0].seq <= q.due: // left over from a batch that could not be sent as one request
	case len(q.pending) >= q.full():
		q.due = q.pending[most-1].seq
	case q.closed || q.pressed:
		q.stats.flushes.Add(1)
		q.due = q.pending[most-1].seq
	case wait <= 0:
		q.stats.timeouts.Add(1)
		q.due = q.pending[most-1].seq
	default:
		return nil, wait
	}
	n := together(q.pending[:most], q.due)
	batch = slices.Clone(q.pending[:n])
	q.pending = slices.Delete(q.pending, 0, n)
	return batch, 0
}

// together returns how many of the writes up to the sequence number due, which the first is, can
// be sent as one request.
func together(writes []*queuedWrite, due uint64) int {
	first := writes[0]
	if first.alone {
		return 1
	}
	bytes := int64(0)
	for n, w := range writes {
		bytes += w.bytes
		if n > 0 && (w.seq > due || w.alone || w.user != first.user || bytes > maxBatch) {
			return n
		}
	}
	return len(writes)
}

// decide notes the fate of writes, tells those who wait for it, and makes room. It reports whether
// there are undecided ones.
func (q *queue) decide(writes []*queuedWrite, err error) (more bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, w := range writes {
		q.held--
		q.bytes -= w.bytes
		q.decided = w.seq
		q.stats.decided.Add(1)
		q.stats.waited.Add(time.Since(w.at).Microseconds())
		w.err = err
		close(w.done)
	}
	q.pressed = false // who still finds no room says so again
	close(q.space)
	q.space = make(chan struct{})
	return q.held > 0
}

// close lets nothing in any more. What is pending is sent without waiting for more.
func (q *queue) close() (ended <-chan struct{}) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.closed {
		q.closed = true
		close(q.closing)
		close(q.space)
		q.space = make(chan struct{})
	}
	return q.ended
}

// flush closes the queue and waits until all is decided. If ctx ends before, the worker goes on.
func (q *queue) flush(ctx context.Context) error {
	ended := q.close()
	if ended == nil {
		return nil // nothing was ever queued
	}
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// stop closes the queue, and ends the worker when all is decided or ctx ends; what is not decided
// by then is given up.
func (q *queue) stop(ctx context.Context) {
	if q.flush(ctx) == nil {
		return
	}
	q.mu.Lock()
	abort, ended := q.abort, q.ended
	q.mu.Unlock()
	abort()
	<-ended
}

// status returns the queue's part of /status.
func (q *queue) status() map[string]any {
	q.mu.Lock()
	defer q.mu.Unlock()
	return map[string]any{
		"batch_size":      q.cfg.BatchSize,
		"max_size":        q.cfg.Capacity,
		"sequence_number": q.decided,
		"timeout":         max(q.cfg.Timeout, 0).String(),
	}
}

// vars returns the "queue" map of /debug/vars.
func (q *queue) vars() map[string]int64 {
	return map[string]int64{
		"num_decided": q.stats.decided.Load(),
		"num_flush":   q.stats.flushes.Load(),
		"num_full":    q.stats.full.Load(),
		"num_timeout": q.stats.timeouts.Load(),
		"objects_rx":  q.stats.received.Load(),
		"objects_tx":  q.stats.sent.Load(),
		"wait_us":     q.stats.waited.Load(),
	}
}

// queueLoad is how full a queue is.
type queueLoad struct {
	requests int
	bytes    int64
}

func (q *queue) load() queueLoad {
	q.mu.Lock()
	defer q.mu.Unlock()
	return queueLoad{q.held, q.bytes}
}
