// Package db keeps one SQLite database: it runs statements on it, deterministically for entries of
// the Raft log, captures the pages that changed since a snapshot, and lets the whole database be
// replaced.
//
//	db.sqlite       the main file; it changes only in Capture and Replace
//	db.sqlite-wal   what was applied since; no fsync, no automatic checkpoint
//	db.sums         the checksums of the pages of the main file
//	db.clean        the marker: names the snapshot that the main file equals, and the checksums
//
// The live database is disposable. Open keeps it only if the marker proves that the main file
// equals the snapshot the caller will start from; otherwise it deletes the files, and the caller
// restores a snapshot and replays the log. A page of a kept file is compared with its checksum the first
// time it is read; one that is wrong withdraws the marker and ends the use of the database.
//
// Other processes may read the database. One that writes to it, or moves the WAL, is noticed with the next
// entry or capture, which ends the use of the database in the same way (foreign.go).
//
// One connection writes and belongs to the caller of Apply, Capture and Replace, Raft's FSM
// goroutine. Readers come from a pool and belong to the call of Query or Prepare that took them.
// No state of a connection outlives the request that made it. Beside SQLite the package keeps one
// descriptor of the main file of its own, for as long as the file is in use: closing a descriptor
// drops the POSIX locks that the process, SQLite included, holds on the file.
//
// DB.mu guards what Capture, Published, Release and Replace share, and is held while they touch the
// main file; only Published syncs it without. Lock order: DB.mu, then a pool's opening, then its mu; the
// lock of the checksums (sums.c) is last, and held by the VFS.
//
// A Hash stands for schema and content, however they lie on the disk. It reads the pages of a state that a
// transaction keeps, without SQLite, and remembers what each page that has not changed since adds to it.
//
// SQLite is called through a small binding of our own (sqlite.h, sqlite.c, conn.go) instead of
// database/sql: the clock, the random numbers and the counters of a connection must follow the
// log entry, and that needs SQLite's own interface. The module of the driver supplies the library.
package db
