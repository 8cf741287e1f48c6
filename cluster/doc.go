// Package cluster is everything between nodes: the shared port, the calls nodes make to each
// other, forwarding to the leader, and the forming of a cluster.
//
// A node has one port for its peers. The first byte of a connection says what it carries: Raft's
// own messages, or calls (frames of protocol buffers, answered one after the other). Mux splits
// the port, Service answers calls, Client makes them, Router sends a request to whoever can
// answer it, and Form makes a node a member when it starts.
//
// Nothing that arrives on the port is believed: lengths are bounded before memory is taken for
// them, Raft's messages are checked before Raft's decoder sees them, and a connection that makes
// no sense is closed without a word.
//
// The package knows no SQL, no disk and no HTTP beyond the question whether a peer speaks it. It
// takes its words from command, its errors from store, and whatever it does to the database
// through interfaces it declares itself.
package cluster
