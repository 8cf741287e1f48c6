package store

import (
	"context"
	"fmt"
	"io"

	"rqlited/command"
)

// Backup writes a copy of this node's database, as it is at one moment after the call, to w, uncompressed whatever
// req.Compress says. Writes go on meanwhile; a slow w holds up nothing but the backup, since what it gets is
// copied, or cloned, to the disk first. If it fails before the first byte:
//   - ErrNotLeader: req.Leader is set, and this node does not lead; the caller may ask the leader.
//   - *RequestError: there is no such backup.
//   - ErrOverloaded: as many backups are under way as may be.
//   - ErrNoSpace: the disk has no room for the copy.
//   - ErrNotOpen, ErrNotReady, the cause of the end of ctx, errors of the disk.
//
// After the first byte the errors are those of w, of ctx and of the disk, and what was written is of no use.
func (s *Store) Backup(ctx context.Context, req *command.BackupRequest, w io.Writer) error {
	if !s.gate.enter() {
		return ErrNotOpen
	}
	defer s.gate.leave()
	if err := s.failure.get(); err != nil {
		return fmt.Errorf("%w: %w", ErrNotReady, err)
	}
	if req.Check() != nil {
		return &RequestError{"invalid backup format"}
	}
	var err error
	if req.Leader {
		_, err = s.leaderTerm(ctx)
	} else {
		err = s.whole()
	}
	if err != nil {
		return err
	}
	select {
	case s.fsm.transfers.backups <- struct{}{}:
		defer func() { <-s.fsm.transfers.backups }()
	default:
		return &OverloadError{fmt.Sprintf("%d backups are under way, which is all that this node makes at a time", maxBackups)}
	}
	ctx, cancel := until(ctx, s.closing, ErrNotOpen)
	defer cancel()
	if err := s.fsm.turn.await(ctx); err != nil {
		return err
	}
	b, err := s.db.BeginBackup()
	s.fsm.turn.give()
	if err != nil {
		return transferError(err)
	}
	if err := b.Write(ctx, w, req); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return transferError(err)
	}
	s.counters.backups.Add(1)
	return nil
}
