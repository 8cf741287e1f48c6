// Package store is the replicated database: Raft, the state machine, consistency levels,
// membership, and when to take a snapshot.
package store
