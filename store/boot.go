package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/hashicorp/raft"

	"rqlited/db"
	"rqlited/snapshot"
)

const (
	// bootMin is the length in bytes of what can be told from a file that is too short.
	bootMin = 32

	// sqliteMagic is how a SQLite file begins.
	sqliteMagic = "SQLite format"
)

// Boot replaces the database of a node that is a cluster on its own by the SQLite file in r, of any size. The file does
// not go through the log: it becomes a snapshot, which supersedes all that there is, log included, in one step. A power
// cut before that leaves the old database, and after it the new one. Then the snapshot becomes the database.
//
// Of what is written while Boot runs some may be replaced, and some may get ErrUnknown. Once the file has been checked
// Boot goes on to its end, whatever becomes of ctx. The errors are, in the order in which they are looked for:
//   - ErrNotLeader, ErrNotSingle: nothing was read from r.
//   - io.EOF: there are less than 32 bytes.
//   - ErrInvalidData: it is no SQLite file.
//   - ErrNoSpace, ErrNotOpen, ErrNotReady, the cause of the end of ctx, errors of r: the database is as it was.
//   - others: the snapshot was not published, and the database is as it was; or it was, and did not become the database: then
//     the node stops, and has the new database when it is started again.
func (s *Store) Boot(ctx context.Context, r io.Reader) error {
	if !s.gate.enter() {
		return ErrNotOpen
	}
	defer s.gate.leave()
	if err := s.failure.get(); err != nil {
		return fmt.Errorf("%w: %w", ErrNotReady, err)
	}
	if _, err := s.leaderTerm(ctx); err != nil {
		return err
	}
	if err := s.single(); err != nil {
		return err
	}
	var begin [bootMin]byte
	switch _, err := io.ReadFull(r, begin[:]); {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return io.EOF
	case err != nil:
		return err
	}
	if !bytes.HasPrefix(begin[:], []byte(sqliteMagic)) {
		return ErrInvalidData
	}
	u, done, err := s.receive(ctx, io.MultiReader(bytes.NewReader(begin[:]), r), bootCopies)
	if err != nil {
		return err
	}
	defer done()
	if err := s.single(); err != nil { // that may have taken long
		return err
	}
	start := time.Now()
	if err := s.boot(u); err != nil {
		return fmt.Errorf("boot: %w", err)
	}
	s.counters.boots.Add(1)
	s.log.Info("database booted", "bytes", u.Size(), "took", time.Since(start))
	return nil
}

// single returns nil if this node is the only one of its cluster.
func (s *Store) single() error {
	servers, err := s.Servers()
	if err == nil && len(servers) != 1 {
		err = ErrNotSingle
	}
	return err
}

// boot has Raft take the file for a snapshot, of an index behind its log.
func (s *Store) boot(u *db.Upload) error {
	p := filePages{u, s.closing}
	pr, pw := io.Pipe()
	written := make(chan struct{})
	go func() {
		defer close(written)
		pw.CloseWithError(snapshot.WriteStream(pw, p)) // of nil it is the end
	}()
	s.fsm.transfers.booting.Store(true)
	defer s.fsm.transfers.booting.Store(false)
	err := s.raft.Restore(&raft.SnapshotMeta{Version: raft.SnapshotVersionMax, Size: p.Header().StreamSize()}, pr, 0)
	pr.CloseWithError(ErrNotOpen) // Raft may not have wanted it
	<-written
	if failure := s.failure.get(); failure != nil {
		return fmt.Errorf("%w: %w", ErrUnknown, failure)
	}
	return translate(err)
}

// filePages presents a received file as the snapshot package wants it.
type filePages struct {
	*db.Upload
	closing <-chan struct{}
}

func (p filePages) Header() snapshot.Header {
	return snapshot.Header{PageSize: p.PageSize(), Pages: p.Pages(), Records: p.Pages()}
}

func (p filePages) Next(buf []byte) (uint32, error) {
	select {
	case <-p.closing:
		return 0, ErrNotOpen
	default:
		return p.NextPage(buf)
	}
}
