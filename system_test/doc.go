// Package system holds the black-box tests of rqlited: it starts real processes on loopback and
// knows them only by their command line, their HTTP API, their signals, what they write to
// standard error and, where an operator would look there too, their data directories. It imports
// nothing of what it tests, so nothing here can pass because of a shared mistake; internal/sqlgen
// makes SQL and knows no node.
//
//	go test ./system_test                      build rqlited once and run everything
//	go test ./system_test -race-binary         the same with a race-detecting binary
//	go test ./system_test -rqlited PATH        the same with another binary (relative to the module root)
//	go test ./system_test -run Chaos -chaos 2m more chaos; the seed is logged, -seed repeats it
//	go test ./system_test -run 'Chaos|Moments|Fault|Ready|Programs|Defaults|Poison' -chaos 5m -timeout 0
//	                                           the long forms of all tests that do harm, for at least a minute each
//	go test ./system_test -keep DIR            leave data directories and logs in DIR
//	make clients                               rqlite's own client libraries, which need the network
//
// RQLITED_BINARY and RQLITED_RACE stand for the first two flags, RQLITED_TEST_DATA names a folder
// with real data (chinook.sql, chinook.sqlite).
//
// Words: a node is one data directory with its two addresses and, while it runs, its process. A
// cluster is some nodes that were started together. The content of a node is every row of every
// table, quoted by SQLite, and its state hash (GET /db/hash), which another binary may not have. A
// ledger remembers which writes were acknowledged. Programs send random SQL and remember nothing. A
// moment is something that happens to one of a node's files, and a trap sends the process a signal
// when it has come. A vigil and a witness ask a node whether it is ready, and hold it to that.
//
// An exchange is one request of an example and the answer that it must get; a stage is the nodes on which
// examples are played. They are read from transcripts (testdata/README.md) and from the documents.
//
// TestFaultN is about the fault with that number of other snapshot stores; P1 to P4 in comments are
// the scenarios of several processes in which they showed.
//
// Nothing sleeps for a fixed time: what takes time is polled until a deadline, and the message at
// the deadline says what was seen last.
package system
