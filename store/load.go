package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"rqlited/command"
	"rqlited/db"
)

const (
	// chunkSize is how many bytes of a SQLite file an entry of a load has. Raft sends and applies up to 64 entries at
	// one time, for which there must be memory.
	chunkSize = 1 << 20

	// chunksTogether is how many of them are proposed at once, while the next ones are encoded. With each transaction bbolt
	// writes up to four of the entries before anew, since it has at least two of any size in a page; so a transaction should have many.
	chunksTogether = 16

	// largeEntry is from how many bytes on an entry counts for largeLimit, and is not kept in memory.
	largeEntry = 64 << 10

	// largeLimit, unless a test says otherwise, is how many bytes of large entries make a node shorten its log. The number of entries alone would
	// keep those of a load of gigabytes for days.
	largeLimit = 64 << 20

	// largeTrailing is how many entries are kept then. A follower that lacks more gets the snapshot, which has
	// about the size of what made the log large.
	largeTrailing = 1

	// tidyRetry is the pause before a load that was given up is taken back again, if that has failed.
	tidyRetry = time.Second

	// loadCopies is how many more copies of a loaded file a node needs for a while: in the log, beside the database, and
	// as a snapshot. bootCopies are the last two.
	loadCopies = 3
	bootCopies = 2

	// maxBackups bounds the backups that are made at one time, each of which needs room on the disk.
	maxBackups = 4
)

// transfers is what is known about whole databases on their way in and out, and what they leave in the log.
type transfers struct {
	kick    chan struct{} // of capacity 1: there may be something to tidy
	turn    turn          // of a Load or a Boot
	backups chan struct{} // has an element for each backup under way
	booting atomic.Bool
	limit   atomic.Int64 // of large; changes in tests only

	open  atomic.Int32 // chunked loads under way, by the log
	large atomic.Int64 // bytes of large entries in the log, as far as they are not behind a snapshot for sure

	mu  sync.Mutex
	own string // id of the load that this node is proposing; empty if there is none. Guarded by mu
}

func newTransfers() *transfers {
	t := &transfers{kick: make(chan struct{}, 1), turn: newTurn(), backups: make(chan struct{}, maxBackups)}
	t.limit.Store(largeLimit)
	return t
}

func (t *transfers) wake() {
	select {
	case t.kick <- struct{}{}:
	default:
	}
}

// applied is told of each entry behind which so many chunked loads are under way. FSM goroutine only.
func (t *transfers) applied(bytes, open int) {
	if bytes >= largeEntry {
		t.large.Add(int64(bytes))
	}
	if before := t.open.Swap(int32(open)); before != int32(open) || t.large.Load() >= t.limit.Load() {
		t.wake()
	}
}

func (t *transfers) setOwn(id string) {
	t.mu.Lock()
	t.own = id
	t.mu.Unlock()
	t.wake()
}

// orphan says whether nobody goes on with the load id, provided that this node leads.
func (t *transfers) orphan(id string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return id != t.own
}

// Load replaces the database of the whole cluster by the SQLite file in r, of any size, and returns the index of
// the entry that did it. The file is received and checked before anything of it gets into the log, in entries of
// chunkSize; with the last of them it becomes the database on each node. Reads and writes go on until then, and
// what is written meanwhile is replaced. It needs three times the size of the file on the leader's disk and twice on
// others', for a while, and some MiB of memory. One Load or Boot runs at a time; others wait.
//
// If it fails the database stays as it was, unless the error is ErrUnknown:
//   - ErrNotLeader: nothing was read from r.
//   - ErrInvalidData: it is no SQLite file that can be loaded. Some errors of r are not told from that.
//   - ErrNoSpace: this node has no room for it.
//   - ErrUnknown, which is also ErrLeadershipLost if that is why: the file may have been loaded or not.
//   - ErrBusy, ErrNotOpen, ErrNotReady, *RequestError, the cause of the end of ctx, errors of r.
//
// A Load that comes to no end is taken back by the leader, be it this node or the next one.
func (s *Store) Load(ctx context.Context, r io.Reader) (index uint64, err error) {
	if !s.gate.enter() {
		return 0, ErrNotOpen
	}
	defer s.gate.leave()
	if err := s.failure.get(); err != nil {
		return 0, fmt.Errorf("%w: %w", ErrNotReady, err)
	}
	if _, err := s.leaderTerm(ctx); err != nil {
		return 0, err
	}
	u, done, err := s.receive(ctx, r, loadCopies)
	if err != nil {
		return 0, err
	}
	defer done()
	start := time.Now()
	index, err = s.proposeFile(ctx, u)
	if errors.Is(err, ErrNotLeader) {
		err = ErrLeadershipLost // it was when Load began, and r is used up
	}
	if err != nil {
		return 0, fmt.Errorf("load SQLite file: %w", err)
	}
	s.counters.loads.Add(1)
	s.log.Info("database loaded", "index", index, "bytes", u.Size(), "took", time.Since(start))
	return index, nil
}

// receive takes the turn and r, and asks for so many copies of room. The caller calls done.
func (s *Store) receive(ctx context.Context, r io.Reader, copies int64) (_ *db.Upload, done func(), err error) {
	ctx, cancel := until(ctx, s.closing, ErrNotOpen)
	defer cancel()
	if err := s.fsm.transfers.turn.await(ctx); err != nil {
		return nil, nil, err
	}
	u, err := s.db.Receive(ctx, r)
	if err == nil {
		if err = u.AskSpace(copies); err != nil {
			err = errors.Join(err, u.Close())
		}
	}
	if err != nil {
		s.fsm.transfers.turn.give()
		return nil, nil, transferError(err)
	}
	return u, func() {
		if err := u.Close(); err != nil {
			s.log.Warn("received file not closed", "err", err)
		}
		s.fsm.transfers.turn.give()
	}, nil
}

// transferError makes err, which db returned, the caller's.
func transferError(err error) error {
	switch {
	case errors.Is(err, db.ErrNotDatabase):
		return ErrInvalidData
	case errors.Is(err, db.ErrNoSpace):
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	case errors.Is(err, db.ErrClosed):
		return ErrNotOpen
	}
	return err
}

// proposeFile puts a file into the log, many entries at a time, so that they share the transactions of the log. One that
// gets lost makes all further ones worthless on each node, since their numbers don't follow.
func (s *Store) proposeFile(ctx context.Context, u *db.Upload) (index uint64, err error) {
	id := fmt.Sprintf("%016x%016x", rand.Uint64(), rand.Uint64())
	s.fsm.transfers.setOwn(id)
	defer s.fsm.transfers.setOwn("")
	var sent []raft.ApplyFuture
	for last, off := false, int64(0); !last; {
		var batch [][]byte
		for len(batch) < chunksTogether && !last {
			c := command.Chunk{Stream: id, Sequence: 1 + off/chunkSize, Data: make([]byte, min(chunkSize, u.Size()-off))}
			if _, err := u.ReadAt(c.Data, off); err != nil {
				return 0, fmt.Errorf("read received file: %w", err)
			}
			off += int64(len(c.Data))
			last = off == u.Size()
			c.Last = last
			data, err := s.encode(&command.Entry{
				Kind: command.LoadChunk, Chunk: &c, ForeignKeys: command.SettingOf(s.cfg.ForeignKeys), Extensions: inEntries(s.extensions),
			})
			if err != nil {
				return 0, err
			}
			batch = append(batch, data)
		}
		if _, err := s.awaitChunks(ctx, sent); err != nil {
			return 0, err
		}
		sent = sent[:0]
		for _, data := range batch {
			sent = append(sent, s.raft.Apply(data, s.cfg.Raft.ApplyTimeout)) // not in await, which knows no order
		}
	}
	return s.awaitChunks(ctx, sent)
}

// awaitChunks returns the index of the last.
func (s *Store) awaitChunks(ctx context.Context, sent []raft.ApplyFuture) (index uint64, err error) {
	for _, f := range sent {
		if index, err = s.awaitChunk(ctx, f); err != nil {
			return 0, err
		}
	}
	return index, nil
}

func (s *Store) awaitChunk(ctx context.Context, f raft.ApplyFuture) (index uint64, err error) {
	if err := s.await(ctx, func() raft.Future { return f }); err != nil {
		return 0, proposalError(err)
	}
	resp, err := s.outcome(command.LoadChunk, f)
	if err == nil && len(resp.Results) > 0 && resp.Results[0].Error != "" {
		err = &RequestError{resp.Results[0].Error}
	}
	if err != nil {
		return 0, err
	}
	return resp.Index, nil
}

// watchTransfers takes loads back that nobody goes on with, and shortens a log that has become large.
func (s *Store) watchTransfers(ctx context.Context) error {
	for {
		var again <-chan time.Time
		changed := s.lead.changed.wait()
		if pause := s.tidy(ctx); pause > 0 {
			again = time.After(pause)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.fsm.transfers.kick:
		case <-changed:
		case <-again:
		}
	}
}

// tidy returns after which time there may be something left to do; 0 is never.
func (s *Store) tidy(ctx context.Context) time.Duration {
	t := s.fsm.transfers
	if t.open.Load() > 0 && s.raft.State() == raft.Leader {
		if err := s.abortOrphans(ctx); err != nil {
			s.log.Debug("load that was given up not taken back", "err", err) // tried again
			return tidyRetry
		}
	}
	large := t.large.Load()
	if large < t.limit.Load() || t.open.Load() > 0 {
		return 0
	}
	if err := s.snapshotTrailing(ctx, largeTrailing); err != nil {
		if !errors.Is(err, ErrNothingNew) {
			s.log.Warn("large log not shortened", "bytes", large, "err", err) // tried again
		}
		return s.cfg.Snapshot.Interval
	}
	t.large.Add(-large)
	s.log.Info("large log shortened", "bytes", large)
	return 0
}

// abortOrphans ends the loads that are under way in the log and nobody goes on with: those of former leaders, who can't,
// and of this one if they have failed. Until then no node could take a snapshot. What former leaders have left in the
// log is applied by then.
func (s *Store) abortOrphans(ctx context.Context) error {
	if _, err := s.leaderTerm(ctx); err != nil {
		return err
	}
	if err := s.fsm.turn.await(ctx); err != nil {
		return err
	}
	ids := s.db.Loads()
	s.fsm.turn.give()
	slices.Sort(ids)
	for _, id := range ids {
		if !s.fsm.transfers.orphan(id) {
			continue
		}
		if _, err := s.propose(ctx, &command.Entry{Kind: command.LoadChunk, Chunk: &command.Chunk{Stream: id, Abort: true}}); err != nil {
			return err
		}
		s.log.Warn("load taken back that was not brought to its end", "load", id)
	}
	return nil
}
