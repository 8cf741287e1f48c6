package db

import "errors"

var (
	// ErrDisallowedPragma means that a request contains a PRAGMA that would take the database out
	// of the hands of this package; nothing of the request was run.
	ErrDisallowedPragma = errors.New("db: disallowed pragma")

	// ErrForbidden means that a request contains a statement that is never run here, such as
	// ATTACH; nothing of the request was run.
	ErrForbidden = errors.New("db: forbidden statement")

	// ErrBusy means that readers, or a capture not yet released, kept the main file from being
	// brought up to date. Nothing is lost; the next capture contains it.
	ErrBusy = errors.New("db: busy")

	// ErrNothingNew means that the newest snapshot already holds everything.
	ErrNothingNew = errors.New("db: nothing new")

	// ErrDamaged means that a page of the main file is not what was written. Nothing can be applied
	// any more, and the next start has to restore a snapshot.
	ErrDamaged = errors.New("db: damaged")

	// ErrForeign means that another process has written to the database, or has moved the WAL into the main
	// file. Nothing can be applied any more; the next start restores a snapshot, and with it drops what is
	// foreign.
	ErrForeign = errors.New("db: another process has changed the database")

	// ErrNoSpace means that the disk has no room for what was asked for, which has therefore not been begun.
	ErrNoSpace = errors.New("db: not enough free space on the disk")

	// ErrNotDatabase means that a file is no intact SQLite database, on any machine.
	ErrNotDatabase = errors.New("db: invalid SQLite data")

	// ErrClosed means that the database has been closed.
	ErrClosed = errors.New("db: closed")
)

// RefusedError says why Prepare refused a request. It unwraps to ErrDisallowedPragma or
// ErrForbidden.
type RefusedError struct {
	Msg    string // for the client
	reason error
}

func (e *RefusedError) Error() string { return e.reason.Error() + ": " + e.Msg }
func (e *RefusedError) Unwrap() error { return e.reason }

// OverloadError reports that there are so many reads that another was not begun.
type OverloadError struct{ Msg string }

func (e *OverloadError) Error() string { return "db: " + e.Msg }
