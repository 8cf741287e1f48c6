// Package store is the replicated database: Raft, the state machine, consistency levels,
// membership, and when to take a snapshot.
//
//	LOCK                 held while a process uses the directory
//	raft.db              the Raft log, the node's term and vote, and what standing.go notes; see boltlog.go
//	db.sqlite…           the live database, which is db's
//	db.sqlite.restore    a snapshot on its way to become the database; garbage after a crash
//	snapshots/           which is snapshot's
//	raft/peers.json      put there by a human to replace the membership at the next start
//
// A write becomes a log entry, which the state machine applies on every node; the node that
// proposed it answers with what applying it yielded. Reads use the local database, after the node
// has made sure of what their level promises.
//
// Three things are always kept in step, and files logstore.go, snapshots.go and fsm.go hold the
// argument: the log goes on where the newest snapshot ends; a capture is published only upon the
// snapshot that the database descends from; a snapshot that a leader sends replaces the log unless
// the log contains it.
//
// Snapshots and log entries that are damaged are made up for by each other or by the leader, or the node is not started;
// heal.go decides, and standing.go says why a node that has lost its state has no vote.
//
// An error of this machine is final: the state machine applies nothing after it, Wait returns it,
// and the process ends.
//
// # Goroutines
//
// The Store owns: leadership (one barrier per term), rounds (checks of the leadership for
// linearizable reads), hashes (of the state, one at a time), replicas (the leader compares hashes, with a
// goroutine for each member that it asks), WAL size, upkeep, damage, observer, dead members, and one that cuts the
// connections when the node fails. Close joins them. Raft has its own; it calls the state machine on its FSM
// goroutine, publishes captures on its snapshot goroutine and installs on its main goroutine.
// A node that starts silent has one more, the transport's, which ends with that. Besides, each Raft
// future that is being waited for has a goroutine, which ends with the future, each connection being
// dialled one, which ends with the dialling, and each pipeline to a peer one, which ends when Raft
// closes the pipeline.
//
// # Locks
//
// fsm.turn is had by the state machine while it changes or captures the database, and by whoever wants to come
// in between; other locks may be taken under it, but it is never waited for under another. snapshots.turn is held over the publication of a snapshot, and by a capture until Raft has
// shortened the log; the log and the snapshot store are called under it, and their own locks come
// after it. machinery.settings is held while Raft takes over new settings. All others are held for a few instructions and call nothing.
package store
