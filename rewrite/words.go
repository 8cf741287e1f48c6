package rewrite

import "strings"

// reserved are the words that are never a name.
var reserved = set("ADD ALL ALTER AND AS AUTOINCREMENT BETWEEN CASE CHECK COLLATE COMMIT CONSTRAINT CREATE DEFAULT " +
	"DEFERRABLE DELETE DISTINCT DROP ELSE ESCAPE EXCEPT EXISTS FOREIGN FROM GROUP HAVING IN INDEX INSERT INTERSECT INTO " +
	"IS ISNULL JOIN LIMIT NOT NOTHING NOTNULL NULL ON OR ORDER PRIMARY REFERENCES RETURNING SELECT SET TABLE THEN TO " +
	"TRANSACTION UNION UNIQUE UPDATE USING VALUES WHEN WHERE WITH")

// values are words that mean a value unless they name something: quotes would make other values of them.
var values = set("CURRENT_DATE CURRENT_TIME CURRENT_TIMESTAMP FALSE TRUE")

// sides tell the neighbours by which a word that may be a name is known to be a keyword: one of the words and
// symbols before it, or one of those after it. "^" is the beginning of a statement. An empty pair is no help.
type sides struct{ before, after map[string]bool }

// either are the words that SQLite takes for a keyword or for a name.
var either = func() map[string]sides {
	const joins = "JOIN LEFT RIGHT FULL INNER OUTER CROSS"
	m := make(map[string]sides)
	for _, w := range []struct{ words, before, after string }{
		{"ANALYZE ATTACH BEGIN DETACH END EXPLAIN REINDEX RELEASE VACUUM", "^", ""},
		{"SAVEPOINT", "^ TO RELEASE", ""},
		{"REPLACE ROLLBACK", "^ OR", "INTO"},
		{"ABORT FAIL IGNORE", "OR", ""},
		{"DEFERRED EXCLUSIVE IMMEDIATE", "BEGIN", ""},
		{"DATABASE", "ATTACH DETACH", ""},
		{"TEMP TEMPORARY TRIGGER VIEW", "DROP CREATE", ""},
		{"IF", "", "EXISTS NOT"},
		{"QUERY", "EXPLAIN", ""},
		{"PLAN", "QUERY", ""},
		{"RECURSIVE", "WITH", ""},
		{"MATERIALIZED", "NOT", "("},
		{"BY", "GROUP ORDER PARTITION INDEXED", ""},
		{"INDEXED", "NOT", "BY"},
		{"CONFLICT", "ON", ""},
		{"DO", "", "UPDATE NOTHING"},
		{"CROSS FULL INNER LEFT NATURAL OUTER RIGHT", "", joins},
		{"CAST RAISE", "", "("},
		{"NULLS", "", "FIRST LAST"},
		{"FIRST LAST", "NULLS", ""},
		{"FILTER OVER", ")", "("},
		{"PARTITION", "", "BY"},
		{"GROUPS RANGE ROWS", "", "BETWEEN UNBOUNDED CURRENT"},
		{"CURRENT", "", "ROW"},
		{"ROW", "CURRENT", ""},
		{"UNBOUNDED", "", "PRECEDING FOLLOWING"},
		{"FOLLOWING PRECEDING", "UNBOUNDED ROW", "AND )"},
		{"EXCLUDE", "", "NO CURRENT GROUP TIES"},
		{"NO", "EXCLUDE", ""},
		{"OTHERS", "NO", ""},
		{"TIES", "EXCLUDE", ""},
		{"ACTION AFTER ALWAYS BEFORE CASCADE COLUMN EACH FOR GENERATED INITIALLY INSTEAD KEY OF RENAME RESTRICT VIRTUAL WITHOUT WITHIN", "", ""},
		{"ASC DESC GLOB LIKE MATCH OFFSET REGEXP WINDOW", "", ""}, // known by what stands further away
	} {
		for name := range strings.FieldsSeq(w.words) {
			m[name] = sides{set(w.before), set(w.after)}
		}
	}
	return m
}()

// beginnings are the words that a statement may begin with.
var beginnings = set("ALTER ANALYZE ATTACH BEGIN COMMIT CREATE DELETE DETACH DROP END EXPLAIN INSERT PRAGMA REINDEX RELEASE REPLACE " +
	"ROLLBACK SAVEPOINT SELECT UPDATE VACUUM VALUES WITH")

// openers need something after them, and none of these closers. A star may be both.
var (
	openers = set("SELECT WHERE HAVING AND OR NOT FROM JOIN SET THEN ELSE WHEN LIMIT INTO BETWEEN " +
		", / % + - ~ < > = & | -> ->> <= <> << >= >> == != ||")
	closers = set("FROM WHERE HAVING AND OR JOIN SET THEN ELSE LIMIT INTO GROUP ORDER UNION INTERSECT EXCEPT ON USING " +
		"RETURNING , / % < > = & | -> ->> <= <> << >= >> == != || )")
)

// times says which arguments of the functions of time may be 'now'.
var times = map[string][2]bool{
	"date": {true}, "time": {true}, "datetime": {true}, "julianday": {true}, "unixepoch": {true},
	"strftime": {false, true}, "timediff": {true, true},
}

func set(list string) map[string]bool {
	m := make(map[string]bool)
	for s := range strings.FieldsSeq(list) {
		m[s] = true
	}
	return m
}
