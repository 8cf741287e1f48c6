package snapshot

import "errors"

var (
	// ErrClosed means that the Store has been closed. Readers opened before go on working.
	ErrClosed = errors.New("snapshot: store is closed")

	// ErrNotFound means that no snapshot has this id, or that it was superseded longer ago than
	// the grace period.
	ErrNotFound = errors.New("snapshot: not found")

	// ErrStaleHead means that a local capture was taken against a snapshot that is not the head,
	// and was not published. Only a complete image can be published next.
	ErrStaleHead = errors.New("snapshot: capture was not taken against the head")

	// ErrNotImage means that a delta came where only a complete image will do: from the leader,
	// from a capture without a head, or to Restore. Nothing was published.
	ErrNotImage = errors.New("snapshot: stream is not a complete image")

	// ErrMalformed means that a stream breaks the format or does not match its checksums. No
	// part of it was published.
	ErrMalformed = errors.New("snapshot: malformed stream")

	// ErrChainFull means that a delta was refused because too many wait to be compacted.
	// Compaction has been asked for; the same pages can be offered again later.
	ErrChainFull = errors.New("snapshot: too many deltas")

	// ErrNoRoom means that a compaction was not begun because the disk has too little free space
	// for it. The chain works as it is.
	ErrNoRoom = errors.New("snapshot: no room to compact")

	// ErrDamaged means that the files of the store are not as they were published, or that the
	// disk does not return them any more. Nothing was changed. Salvage and Discard are the ways
	// out.
	ErrDamaged = errors.New("snapshot: damaged store")

	// ErrSyncFailed means that the disk failed to sync earlier. Nothing more is published until
	// the Store is opened anew; published snapshots can still be read.
	ErrSyncFailed = errors.New("snapshot: publishing stopped after a failed sync")
)

var (
	errReaderClosed = errors.New("snapshot: reader is closed")
	errSinkClosed   = errors.New("snapshot: sink is closed")
	errLateLocal    = errors.New("snapshot: Local called after Write")
	errVersion      = errors.New("snapshot: Raft asks for an unknown version of metadata")
)
