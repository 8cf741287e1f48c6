package http

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"rqlited/command"
	"rqlited/store"
)

const (
	queueForward = 30 * time.Second       // of an attempt to have the leader carry a batch out
	queueRetry   = time.Second            // pause after a failed attempt
	queueHurry   = 100 * time.Millisecond // the same while the node stops
)

// send has a batch carried out and decides it. It reports whether there are undecided writes.
func (q *queue) send(ctx context.Context, batch []*queuedWrite) (more bool) {
	req := &command.Request{
		Kind:        command.Execute,
		Transaction: q.cfg.Transaction,
		Forward: command.Forward{
			Timeout:  queueForward,
			Username: batch[0].user.username,
			Password: batch[0].user.password,
		},
	}
	for _, w := range batch {
		req.Statements = append(req.Statements, w.stmts...)
	}
	if len(req.Statements) == 0 {
		return q.decide(batch, nil) // nothing but marks
	}
	err := q.carryOut(ctx, req, batch)
	_, rejected := errors.AsType[*store.RequestError](err)
	switch {
	case err == nil:
	case errors.Is(err, errQueueClosed):
		q.log.Error("queued writes lost", append(span(batch), "err", err)...) // err says if they may have been carried out
	case rejected && !errors.Is(err, store.ErrUnknown) && len(batch) > 1 && !q.cfg.Transaction:
		// Nothing of it was applied. One of the requests is to blame, and the others are not to suffer.
		for i := range batch {
			more = q.send(ctx, batch[i:i+1])
		}
		return more
	default:
		q.counters.add(queuedRefused, len(batch))
		q.log.Error("queued writes refused and given up", append(span(batch), "err", err)...)
	}
	return q.decide(batch, err)
}

// sending is a batch on its way.
type sending struct {
	req     *command.Request
	batch   []*queuedWrite
	applied func() (bool, error) // whether req was applied here; see Node.Watch
	doubt   bool                 // the last attempt may have succeeded
}

// carryOut tries until req is carried out, is refused for certain, or ctx ends; then it fails with
// errQueueClosed. An ErrUnknown in the error says that it may have been carried out all the same.
func (q *queue) carryOut(ctx context.Context, req *command.Request, batch []*queuedWrite) error {
	for req.Seed == 0 { // which stands for none
		req.Seed = rand.Uint64()
	}
	applied, end := q.node.Watch(req.Seed)
	defer end()
	s := &sending{req: req, batch: batch, applied: applied}
	for attempt := 1; ; attempt++ {
		err := q.attempt(ctx, s)
		if err == nil {
			q.counters.add(queuedOK, 1)
			q.stats.sent.Add(int64(len(req.Statements)))
			return nil
		}
		q.counters.add(queuedFailed, 1)
		q.counters.add(failureCounter(err), 1)
		final := refused(err)
		if s.doubt && !errors.Is(err, store.ErrUnknown) {
			err = fmt.Errorf("%w: %w", store.ErrUnknown, err) // err is of the search for the batch
		}
		if final {
			return err
		}
		level := slog.LevelDebug
		if attempt == 1 {
			level = slog.LevelWarn
		}
		q.log.Log(ctx, level, "queued writes not carried out, trying again", append(span(batch), "attempt", attempt, "err", err)...)
		if !q.pause(ctx) {
			return fmt.Errorf("%w: %w", errQueueClosed, err)
		}
	}
}

// attempt has a batch carried out, unless an attempt before has done so.
func (q *queue) attempt(ctx context.Context, s *sending) error {
	if s.doubt {
		done, err := q.settle(ctx, s)
		if done || err != nil {
			return err
		}
		s.doubt = false
	}
	q.counters.add(queuedStmtsSent, len(s.req.Statements))
	resp, err := q.db.Do(ctx, s.req)
	s.doubt = errors.Is(err, store.ErrUnknown)
	if err == nil {
		q.noteErrors(resp, s.batch)
	}
	return err
}

// settle finds out whether a batch was carried out whose outcome is unknown. It has an entry
// written that changes nothing, and waits for it here: behind it the batch comes no more.
func (q *queue) settle(ctx context.Context, s *sending) (done bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, queueForward)
	defer cancel()
	resp, err := q.db.Do(ctx, &command.Request{
		Kind:       command.Execute,
		Statements: []command.Statement{{SQL: "SELECT 1"}},
		Forward:    s.req.Forward,
	})
	if err != nil {
		return false, fmt.Errorf("find out what became of them: %w", err)
	}
	if err := q.node.WaitApplied(ctx, resp.Index); err != nil {
		return false, fmt.Errorf("wait for log entry %d: %w", resp.Index, err)
	}
	done, err = s.applied()
	switch {
	case err != nil || resp.Index == 0: // twice is better than not at all
		q.counters.add(queuedRepeated, 1)
		q.log.Warn("queued writes may be carried out twice", append(span(s.batch), "err", err)...)
	case done:
		q.counters.add(queuedFound, 1)
	}
	return done, nil
}

// noteErrors counts the errors of statements, which nobody else learns of. In a transaction one of
// them has undone the whole batch.
func (q *queue) noteErrors(resp *command.Response, batch []*queuedWrite) {
	failed, first := 0, ""
	for i := range resp.Results {
		if text := resp.Results[i].Error; text != "" {
			failed++
			first = cmp.Or(first, text)
		}
	}
	if failed == 0 {
		return
	}
	q.counters.add(queuedStmtErrors, failed)
	if q.cfg.Transaction {
		q.log.Warn("queued writes rolled back", append(span(batch), "err", first)...)
	}
}

// failureCounter returns the counter of the reason why a batch was not carried out.
func failureCounter(err error) counter {
	switch {
	case errors.Is(err, store.ErrLeadershipLost):
		return queuedLeadershipLost
	case errors.Is(err, store.ErrUnknown):
		return queuedUnknownError
	case errors.Is(err, store.ErrNoLeader):
		return queuedNoLeader
	case errors.Is(err, store.ErrNotLeader):
		return queuedNotLeader
	}
	return queuedUnknownError
}

// refused reports whether err is certain to come again, and that nothing was applied.
func refused(err error) bool {
	if errors.Is(err, store.ErrUnknown) {
		return false
	}
	_, is := errors.AsType[*store.RequestError](err)
	return is || errors.Is(err, store.ErrUnauthorized) || errors.Is(err, command.ErrTooLarge)
}

// pause waits before another attempt, not for long if the node stops. It returns false if ctx ends.
func (q *queue) pause(ctx context.Context) bool {
	d, closing := queueRetry, q.closing
	select {
	case <-closing:
		d, closing = queueHurry, nil
	default:
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-closing:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

func span(batch []*queuedWrite) []any {
	return []any{"requests", len(batch), "first", batch[0].seq, "last", batch[len(batch)-1].seq}
}
