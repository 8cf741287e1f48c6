// Package command holds the words that all layers share: requests, results, parameters, and the
// encoding of log entries.
//
// A Request is what a client asks, whatever way it came in; a Response holds one Result per
// statement. An Entry is what one command in the Raft log says. Entries and node-to-node messages
// use the same protocol buffer messages, whose field numbers are rqlite's; fields of our own have
// numbers from 1000 up, which rqlite skips. The messages are written down as code, in wire.go,
// and described in docs/design/peer-protocol.md.
//
// The package knows no network, no disk and no SQLite. Decoders accept any bytes: they bound what
// they allocate by the length of their input, and return ErrMalformed for what is not a message.
package command
