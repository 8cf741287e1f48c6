package db

// #include "sqlite.h"
import "C"

import "strings"

// What a client is told about statements that are refused.
const (
	msgPragma      = "disallowed pragma"
	msgAttach      = "ATTACH is not allowed"
	msgDetach      = "DETACH is not allowed"
	msgVacuumInto  = "VACUUM INTO is not allowed"
	msgTransaction = "transaction control is not allowed in a query"
	msgOptimize    = "PRAGMA optimize is not allowed, its effect depends on the node: use ANALYZE"
	msgWrite       = "attempt to change database via query operation"
	msgLocal       = " is not allowed in a statement that writes: it differs between nodes" // behind a name
	msgTokenizer   = "fts3_tokenizer() is not allowed"
	msgColumns     = "more than five columns have the same name: SQLite would number them at random"
	msgRowid       = "rowid 9223372036854775807 is not allowed in table %s: its further rows would get random rowids"
	msgFull        = "table %s holds the rowid 9223372036854775807 and takes no more rows, they would get random rowids"
	msgTakenBack   = "rolled back with the transaction that a later statement has ended"
	msgOpen        = "transaction not ended in the same request: rolled back"
)

// deniedText is what a client is told when SQLite's authorizer, in sqlite.c, refuses a statement.
var deniedText = [...]string{
	C.DENIED_NOT:         "",
	C.DENIED_PRAGMA:      msgPragma,
	C.DENIED_ATTACH:      msgAttach,
	C.DENIED_DETACH:      msgDetach,
	C.DENIED_VACUUM_INTO: msgVacuumInto,
	C.DENIED_TRANSACTION: msgTransaction,
	C.DENIED_OPTIMIZE:    msgOptimize,
	C.DENIED_LOCAL:       msgLocal,
}

// pragmaRule says which uses of a PRAGMA are refused.
type pragmaRule uint8

const (
	noValue pragmaRule = iota + 1 // it may be read and not set
	never
)

// pragmas are those that would change how the database is kept on disk, hide it from other
// connections, set a limit of the whole process, or damage the schema. A request with one is
// refused before anything of it runs.
var pragmas = map[string]pragmaRule{
	"wal_checkpoint":       never,
	"journal_mode":         noValue,
	"wal_autocheckpoint":   noValue,
	"synchronous":          noValue,
	"query_only":           noValue,
	"locking_mode":         noValue,
	"writable_schema":      noValue,
	"schema_version":       noValue,
	"hard_heap_limit":      noValue,
	"soft_heap_limit":      noValue,
	"temp_store_directory": noValue,
	"data_store_directory": noValue,
}

// scan is what the words of a request's statement tell without knowing the schema.
type scan struct {
	refused    error // *RefusedError
	statements int
	returning  bool // a single INSERT, UPDATE or DELETE with a RETURNING clause
	explain    bool // the first statement is an EXPLAIN
	writes     bool // the first statement is one that writes, by its first word
}

// scanSQL looks at each statement of sql. The authorizer refuses the same things again when a
// statement is prepared, by what SQLite makes of it; here the whole request is refused before
// any part of it runs.
func scanSQL(sql string) scan {
	var sc scan
	l := lexer{rest: sql}
	for sc.refused == nil {
		t := l.next()
		if t.kind == tokenEnd {
			break
		}
		if t.kind == tokenSemicolon {
			continue
		}
		sc.statements++
		sc.statement(&l, t)
	}
	sc.returning = sc.returning && sc.statements == 1
	return sc
}

// statement reads one statement, whose first token is t, up to its end. The statements in the
// body of a trigger are not told apart; they need not be, as none of them can be one that is
// looked for.
func (sc *scan) statement(l *lexer, t token) {
	explain := t.is("EXPLAIN")
	if explain {
		sc.explain = sc.explain || sc.statements == 1
		t = l.next()
		if t.is("QUERY") {
			l.next() // PLAN
			t = l.next()
		}
	}
	switch {
	case t.is("PRAGMA"):
		sc.pragma(l)
	case t.is("ATTACH"):
		sc.refuse(ErrForbidden, msgAttach)
	case t.is("DETACH"):
		sc.refuse(ErrForbidden, msgDetach)
	case t.is("VACUUM"):
		for ; !t.ends(); t = l.next() {
			if t.is("INTO") {
				sc.refuse(ErrForbidden, msgVacuumInto)
			}
		}
	case t.is("CREATE"):
		sc.writes = sc.writes || sc.statements == 1 && !explain
		sc.create(l)
	case t.is("INSERT"), t.is("REPLACE"), t.is("UPDATE"), t.is("DELETE"), t.is("WITH"):
		sc.writes = sc.writes || sc.statements == 1 && !explain && !t.is("WITH")
		for ; !t.ends(); t = l.next() {
			sc.returning = sc.returning || t.is("RETURNING")
		}
	default:
		for !t.ends() {
			t = l.next()
		}
	}
}

// create skips a CREATE; that of a trigger ends with the END after a semicolon.
func (sc *scan) create(l *lexer) {
	t := l.next()
	if t.is("TEMP") || t.is("TEMPORARY") {
		t = l.next()
	}
	trigger := t.is("TRIGGER")
	for ended := false; t.kind != tokenEnd; t = l.next() {
		if t.kind == tokenSemicolon && (!trigger || ended) {
			return
		}
		if t.kind == tokenSemicolon {
			t = l.next()
			ended = t.is("END")
			if t.kind == tokenEnd {
				return
			}
		}
	}
}

func (sc *scan) pragma(l *lexer) {
	t := l.next()
	name := t.name()
	t = l.next()
	if t.text == "." {
		name = l.next().name()
		t = l.next()
	}
	name = strings.ToLower(name)
	rule := pragmas[name]
	if rule == never || rule == noValue && !t.ends() {
		sc.refuse(ErrDisallowedPragma, msgPragma)
	}
	for !t.ends() {
		t = l.next()
	}
}

func (sc *scan) refuse(reason error, msg string) {
	sc.refused = &RefusedError{Msg: msg, reason: reason}
}
