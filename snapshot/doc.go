// Package snapshot keeps the database snapshots that let Raft shorten its log.
//
// A snapshot is the whole database as of one log index. On disk it is a base, a complete image,
// followed by deltas, each holding the pages that changed since the one before:
//
//	MANIFEST        names the files of the chain, their checksums and Raft's metadata
//	000012.base     a complete image
//	000013.delta    the pages changed since 000012
//	*.damaged       what Salvage and Discard have set aside
//
// Replacing MANIFEST is the only act that publishes, compacts or drops anything. A file it names
// never changes; a file it does not name is garbage, and Open deletes it. The head is the snapshot
// that was accepted last, whatever its term and index: a stream from the leader supersedes what
// was there, a capture of this node's own database must have been taken against the head.
//
// The chain is kept short by rewriting: the whole of it into a new base when the deltas weigh as
// much, or a run of small deltas into one. That writes at most two bytes more for each byte of
// change, and changes the identity and the content of no snapshot.
//
// # Locking
//
// Store.turn is held by whoever replaces MANIFEST, also during the I/O for it. Store.mu guards
// the state in memory and is never held over I/O, so List and Open wait for nobody. Who needs
// both takes turn first. Store.compacting, which admits one compaction at a time, comes before
// either.
//
// The package knows pages, files and checksums. It knows no SQL and never opens SQLite, and it
// reaches the disk only through package vfs, so that tests can cut the power between any two
// operations. Formats and proofs are in docs/design/snapshot-store.md.
package snapshot
