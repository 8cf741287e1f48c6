package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/hashicorp/raft"

	"rqlited/command"
	"rqlited/db"
)

// defaultFSMWait bounds a linearizable read's wait for the state machine.
const defaultFSMWait = time.Second

// Do runs req with the consistency its Level asks for and returns one Result per statement that
// has text, in order. It may set Returning and Explain in the statements of req. The results of reads
// that do not go through the log are given to req.Sink instead, if there is one; what it has been given when
// Do fails is a part.
//
// An error from SQLite belongs to its statement and is reported in that Result; Do itself fails
// only if the request as a whole was not answered:
//   - ErrNotLeader: nothing was applied; the caller may ask the leader.
//   - ErrUnknown: the request entered the log and may still be applied. ErrLeadershipLost and
//     ErrWaitTimeout say why.
//   - ErrStaleRead: the read was bounded and this node is too far behind.
//   - ErrNotOpen, ErrNotReady, ErrBusy, ErrOverloaded: nothing was applied.
//   - *FSMTimeoutError: the read was not answered in its time.
//   - *RequestError: the request was refused, or failed in SQLite as a whole.
//
// If ctx ends before the request is handed to Raft, nothing is applied and Do returns the cause.
// Do is safe for concurrent use.
func (s *Store) Do(ctx context.Context, req *command.Request) (*command.Response, error) {
	if !s.gate.enter() {
		return nil, ErrNotOpen
	}
	defer s.gate.leave()
	if err := s.failure.get(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotReady, err)
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	readOnly, err := s.db.Prepare(req)
	if err != nil {
		return nil, requestError(err)
	}
	switch req.Kind {
	case command.Execute:
		return s.write(ctx, req)
	case command.Unified:
		if !readOnly || req.Level == command.Strong {
			return s.write(ctx, req)
		}
		return s.read(ctx, req)
	case command.Query:
		if req.Level == command.Strong {
			return s.strongRead(ctx, req)
		}
		return s.read(ctx, req)
	}
	return nil, &RequestError{fmt.Sprintf("a %s is no request", req.Kind)}
}

// Check returns the *RequestError that Do would refuse req with before anything of it runs, or nil.
// It fails with ErrNotOpen as well. It may set Returning and Explain in the statements of req.
func (s *Store) Check(req *command.Request) error {
	if !s.gate.enter() {
		return ErrNotOpen
	}
	defer s.gate.leave()
	if _, err := s.db.Prepare(req); err != nil {
		return requestError(err)
	}
	return nil
}

// requestError makes err, which db returned, the caller's.
func requestError(err error) error {
	if refused, ok := errors.AsType[*db.RefusedError](err); ok {
		return &RequestError{refused.Msg}
	}
	if full, ok := errors.AsType[*db.OverloadError](err); ok {
		return &OverloadError{full.Msg}
	}
	if errors.Is(err, db.ErrClosed) {
		return ErrNotOpen
	}
	return &RequestError{err.Error()}
}

// write puts req into the log and returns what applying it here yielded.
func (s *Store) write(ctx context.Context, req *command.Request) (*command.Response, error) {
	bounded := ctx
	if req.DBTimeout > 0 {
		var cancel context.CancelFunc
		bounded, cancel = context.WithTimeout(ctx, req.DBTimeout)
		defer cancel()
	}
	resp, err := s.propose(bounded, &command.Entry{
		Kind: req.Kind, Request: req, Seed: req.Seed, ForeignKeys: command.SettingOf(s.cfg.ForeignKeys),
		Extensions: inEntries(s.extensions),
	})
	if errors.Is(err, ErrUnknown) && errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return nil, ErrWaitTimeout
	}
	return resp, err
}

// strongRead puts req into the log; this node runs it when its turn has come.
func (s *Store) strongRead(ctx context.Context, req *command.Request) (*command.Response, error) {
	e := &command.Entry{Kind: command.Query, Request: req, Seed: newSeed()}
	// The caller may be gone when the entry is applied; then nobody runs the query.
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	whole := *req
	whole.Sink = nil // nothing is applied while the query runs: it must not wait for a client
	s.fsm.reads.put(e.Seed, inner, &whole)
	defer s.fsm.reads.take(e.Seed)
	resp, err := s.propose(ctx, e)
	switch {
	case errors.Is(err, ErrLeadershipLost):
		return nil, ErrNotLeader // a read leaves nothing behind
	case errors.Is(err, ErrUnknown) && ctx.Err() != nil:
		return nil, context.Cause(ctx)
	}
	return resp, err
}

func newSeed() uint64 {
	for {
		if seed := rand.Uint64(); seed != 0 { // 0 stands for none
			return seed
		}
	}
}

// propose stamps e, hands it to Raft and waits until it has been applied here.
func (s *Store) propose(ctx context.Context, e *command.Entry) (*command.Response, error) {
	data, err := s.encode(e)
	if err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err := s.awaitRoom(ctx); err != nil {
		return nil, err
	}
	begun := time.Now()
	var f raft.ApplyFuture
	err = s.await(ctx, func() raft.Future {
		f = s.raft.Apply(data, s.cfg.Raft.ApplyTimeout)
		return f
	})
	s.counters.proposed(begun, err)
	if err != nil {
		return nil, proposalError(err) // f may still be on its way
	}
	return s.outcome(e.Kind, f)
}

// encode stamps e, and makes it the data of a log entry.
func (s *Store) encode(e *command.Entry) ([]byte, error) {
	if s.raft.State() != raft.Leader {
		return nil, ErrNotLeader
	}
	e.Time = time.Now()
	if e.Seed == 0 {
		e.Seed = newSeed()
	}
	data, packing, err := command.PackEntry(nil, e)
	if err != nil {
		return nil, &RequestError{err.Error()}
	}
	s.counters.packed(packing)
	return data, nil
}

// proposalError says what became of an entry whose future has failed, or was not waited for.
func proposalError(err error) error {
	if errors.Is(err, ErrNotLeader) || errors.Is(err, ErrUnknown) || errors.Is(err, ErrBusy) {
		return err
	}
	// The leader could not write its log. The entry may be on disk and come back.
	return fmt.Errorf("%w: %w", ErrUnknown, err)
}

// outcome returns what applying an entry here has yielded.
func (s *Store) outcome(kind command.Kind, f raft.ApplyFuture) (*command.Response, error) {
	o, ok := f.Response().(outcome)
	if !ok {
		return nil, fmt.Errorf("%w: the state machine answered with a %T", ErrUnknown, f.Response())
	}
	if o.err != nil && kind == command.Query && s.failure.get() == nil {
		return nil, requestError(o.err)
	}
	if o.err == nil && o.resp.Error != "" {
		return nil, &RequestError{o.resp.Error}
	}
	return o.resp, o.err
}

// read answers req from the local database, as soon as the level allows it.
func (s *Store) read(ctx context.Context, req *command.Request) (*command.Response, error) {
	level := req.Level
	if level == command.Auto {
		level = command.None
		if s.Voter() {
			level = command.Weak
		}
	}
	var err error
	switch level {
	case command.None:
		if err = s.whole(); err == nil {
			err = s.checkFresh(req.Freshness, req.FreshnessStrict)
		}
	case command.Linearizable:
		timeout := req.LinearizableTimeout
		if timeout <= 0 {
			timeout = defaultFSMWait
		}
		err = s.readIndex(ctx, timeout)
	default:
		_, err = s.leaderTerm(ctx)
	}
	if err != nil {
		return nil, err
	}
	resp, err := s.db.Query(ctx, req)
	if err != nil {
		return nil, requestError(err)
	}
	return resp, nil
}

// checkFresh returns ErrStaleRead if the data of this node may be older than limit. The leader's
// never is, nor does a limit of 0 bound anything.
func (s *Store) checkFresh(limit time.Duration, strict bool) error {
	if limit <= 0 || s.raft.State() == raft.Leader {
		return nil
	}
	if time.Since(s.raft.LastContact()) > limit {
		return ErrStaleRead
	}
	if !strict {
		return nil
	}
	now := s.fsm.progress.now.Load()
	if now.index >= s.logs.lastCommand.Load() || now.appendedAt.IsZero() {
		return nil
	}
	if now.at.Sub(now.appendedAt) > limit {
		return ErrStaleRead
	}
	return nil
}
