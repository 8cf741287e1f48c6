// Package sqlgen makes random SQL programs for tests that compare databases.
//
// A program is an endless sequence of batches, each of which is one request to a node. The same
// seed always gives the same program. The generator believes in a schema: the tables, views, indexes
// and triggers that its own statements have made. It never sees an answer, so its belief may be
// wrong, and that is wanted: statements that fail, in every way SQL can fail, must leave all
// replicas equal too. Names are few and made again and again, so that no belief stays wrong for long.
//
// What a program does is chosen to end differently wherever clock, random numbers, counters, order
// of rows, settings of a connection or the borders of transactions are not the same. The
// database stays at some MiB, however long the program is.
package sqlgen
