package command

import (
	"strings"
	"time"
)

// Kind says how the statements of a request are run, and what a log entry holds. The numbers are
// those in rqlite's log entries.
type Kind uint8

const (
	Query     Kind = 1 // every statement is a read and yields rows
	Execute   Kind = 2 // every statement is a write; rows are discarded unless it is Returning
	Noop      Kind = 3 // log entry only: changes nothing
	Load      Kind = 4 // log entry only: replaces the database by a SQLite file
	Unified   Kind = 6 // each statement is a read or a write, as SQLite says
	LoadChunk Kind = 7 // log entry only: a part of a SQLite file
)

func (k Kind) String() string {
	switch k {
	case Query:
		return "query"
	case Execute:
		return "execute"
	case Noop:
		return "noop"
	case Load:
		return "load"
	case Unified:
		return "request"
	case LoadChunk:
		return "load chunk"
	}
	return "unknown"
}

// Setting is a switch that may be unknown. The numbers are those in log entries and messages.
type Setting uint8

const (
	Unset Setting = 0 // not told
	Off   Setting = 1
	On    Setting = 2
)

// SettingOf returns On or Off.
func SettingOf(on bool) Setting {
	if on {
		return On
	}
	return Off
}

func (s Setting) String() string {
	switch s {
	case Off:
		return "off"
	case On:
		return "on"
	}
	return "unset"
}

// Level is the consistency of a read. The numbers are rqlite's.
type Level uint8

const (
	None         Level = 0 // whatever this node has
	Weak         Level = 1 // this node believes that it is the leader
	Strong       Level = 2 // the read is a log entry
	Auto         Level = 3 // Weak on a voter, None on a read-only node
	Linearizable Level = 4 // the leader confirms its leadership and waits for what was committed
)

var levelNames = [...]string{None: "none", Weak: "weak", Strong: "strong", Auto: "auto", Linearizable: "linearizable"}

func (l Level) String() string {
	if int(l) < len(levelNames) {
		return levelNames[l]
	}
	return "unknown"
}

// ParseLevel returns the level that s names, in any case, and Weak for every other text, the
// empty one included, as rqlite does.
func ParseLevel(s string) Level {
	for l, name := range levelNames {
		if strings.EqualFold(s, name) {
			return Level(l)
		}
	}
	return Weak
}

// Request is one request of a client: statements to run in order, and how.
type Request struct {
	Kind       Kind
	Statements []Statement

	Transaction     bool // all or nothing, in one SQLite transaction
	RollbackOnError bool // roll back and stop at the first error; for SQL scripts with a BEGIN of their own
	QualifyColumns  bool // name columns "table.column"
	Timings         bool // measure each statement

	Level               Level
	Freshness           time.Duration // with None: how old the last contact with the leader may be; 0 is any age
	FreshnessStrict     bool          // with Freshness: the data may not be older either
	LinearizableTimeout time.Duration // wait for the state machine; 0 means one second

	// DBTimeout bounds reads and the wait for a write; 0 means no bound. It never enters the log,
	// since a clock must not decide the result of a log entry.
	DBTimeout time.Duration

	// Seed is that of the log entry of a write, chosen by who wants to find it again there. 0 leaves
	// the choice to the leader.
	Seed uint64

	Forward Forward

	// Sink takes the results of a request that only reads and does not go through the log; then the
	// Response has none. Nil, and the results of all other requests: the Response has them.
	Sink Sink
}

// Sink takes results while they are made, so that nobody has to hold all of them. It is used by one
// goroutine at a time.
type Sink interface {
	// Begin says which node is asked now, by the address that Response.ServedBy has. It takes
	// everything back that an attempt before has yielded, and reports false if it can't: then there is no
	// further attempt.
	Begin(servedBy string) bool

	// Take takes the next result, or a part of one. If there is more, the next call goes on with it:
	// only the first part has Columns and Types, each may have Values, and the last has Time and Error. An
	// error ends the request. Nothing of r may be kept.
	Take(r *Result, more bool) error
}

// Forward says how a request reaches the leader when this node is not it.
type Forward struct {
	Timeout            time.Duration // of one attempt; 0 means 30 seconds
	Retries            int           // further attempts
	Username, Password string        // of the client; checked again by the leader
	Never              bool          // do not forward: the client wants the leader's address instead
	Load               bool          // an Execute that is the script of a load, which has a permission of its own
}

// Statement is one element of a request: usually one SQL statement.
type Statement struct {
	SQL    string
	Params []Param

	Returning bool // has a RETURNING clause: run as a write that yields rows
	Explain   bool // is an EXPLAIN: counts as a read
}

// Param is the value of a placeholder.
type Param struct {
	Name  string // without the prefix ":", "@" or "$"; empty for a positional value
	Value any    // nil, int64, float64, bool, []byte or string
}

// Response answers a Request.
type Response struct {
	Results  []Result // one per statement that has text, in order; none if there is an Error
	Error    string   // SQLite's message if the request as a whole failed
	Index    uint64   // log index of the request; 0 if it did not go through the log
	Writes   int      // of a Unified request: statements that were run as writes
	ServedBy string   // address of the node that answered: HTTP if this one, Raft if another
}

// Result is the outcome of one statement: rows of a read, counters of a write, or an error. An
// Error with Rows is the error of a statement that was run as a read.
type Result struct {
	Rows  *Rows
	Write *Write
	Error string  // SQLite's message; empty on success
	Time  float64 // seconds; 0 unless Timings were asked for
}

// Rows are what a read returned.
type Rows struct {
	Columns []string
	Types   []string // lower-case declared type, or the type of the value in the first row
	Values  [][]any  // rows of nil, int64, float64, bool, []byte or string
}

// Write is what a write did, as SQLite's connection counters say.
type Write struct {
	LastInsertID int64
	RowsAffected int64
}
