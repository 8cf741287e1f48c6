package main

import "fmt"

const (
	minSize = 8       // MiB; below, the change is most of the database
	maxSize = 1 << 16 // MiB

	changeMiB  = 4
	pagesInMiB = 256 // of 4096 bytes

	// rowBytes is such that each page holds one row: changing n rows changes n pages.
	rowBytes = 3500

	rowsAtOnce = 16 * pagesInMiB
)

// createTables is the statement before all others. The table small is for writes that matter only
// for their latency.
const createTables = `CREATE TABLE big(id INTEGER PRIMARY KEY, v BLOB);
	CREATE TABLE small(id INTEGER PRIMARY KEY, n INTEGER)`

// insertRows returns a statement that adds n rows of noise.
func insertRows(n int) string {
	return fmt.Sprintf("WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<%d) "+
		"INSERT INTO big(v) SELECT randomblob(%d) FROM c", n, rowBytes)
}

// inserts returns the statements that make a database of that many MiB.
func inserts(mib int) []string {
	var all []string
	for rows := mib * pagesInMiB; rows > 0; rows -= rowsAtOnce {
		all = append(all, insertRows(min(rows, rowsAtOnce)))
	}
	return all
}

// change returns a statement that changes changeMiB of a database of that many MiB, spread evenly.
// Different rounds change different rows.
func change(mib, round int) string {
	rows, changed := mib*pagesInMiB, changeMiB*pagesInMiB
	return fmt.Sprintf("WITH RECURSIVE c(i) AS (SELECT 0 UNION ALL SELECT i+1 FROM c WHERE i<%d) "+
		"UPDATE big SET v=randomblob(%d) WHERE id IN (SELECT 1+(i*%d+%d)%%%d FROM c)",
		changed-1, rowBytes, rows/changed, round, rows)
}
