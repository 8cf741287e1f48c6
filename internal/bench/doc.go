// Command bench prints what snapshots cost: time, bytes and memory, and how long they keep writers
// waiting. It does so for databases of several sizes and always the same amount of change, because
// the question is which of these costs grow with the database. It is what "make bench" runs first.
//
//	go run ./internal/bench bin/rqlited 16 256 1024
//
// The sizes are in MiB. One part (engine.go) drives packages db and snapshot as a node does, in this
// process and without Raft; the other (cluster.go) starts the given binary, speaks HTTP to it, and
// kills it. Everything lies below the system's directory for temporary files, which should be on the
// disk in question, and is removed again; six times the size of the database should be free there.
// The page cache is warm: what is read was written just before. The disk is made idle before each
// part, but other work of the machine shows in all times, and most in the worst ones; bytes are exact.
//
// Bytes and memory come from /proc, so the command runs on Linux only.
package main
