package db

// Result codes of SQLite that decisions are made by.
const (
	codeError     = 1
	codeBusy      = 5
	codeNoMem     = 7
	codeIOErr     = 10
	codeFull      = 13
	codeCantOpen  = 14
	codeTooBig    = 18
	codeAuth      = 23
	codeReadOnly  = 8
	codeInterrupt = 9
	codeRow       = 100
	codeDone      = 101
)

// machineCodes are the primary result codes by which SQLite reports a fault of this machine, or of
// this program, and not of the statement. Other replicas may not meet it, so an entry that
// fails with one must not count as applied. All other codes are results: every replica gets them.
var machineCodes = map[int]string{
	2:             "SQLITE_INTERNAL",
	3:             "SQLITE_PERM",
	4:             "SQLITE_ABORT",
	codeBusy:      "SQLITE_BUSY",
	codeNoMem:     "SQLITE_NOMEM",
	codeReadOnly:  "SQLITE_READONLY",
	codeInterrupt: "SQLITE_INTERRUPT",
	codeIOErr:     "SQLITE_IOERR",
	11:            "SQLITE_CORRUPT",
	codeCantOpen:  "SQLITE_CANTOPEN",
	15:            "SQLITE_PROTOCOL",
	17:            "SQLITE_SCHEMA",
	21:            "SQLITE_MISUSE",
	22:            "SQLITE_NOLFS",
	26:            "SQLITE_NOTADB",
}

// resultCodes are the extended codes that are results although their primary code is not. A
// client can cause each of them with permitted statements, on every replica alike.
var resultCodes = map[int]string{
	4 | 2<<8:  "SQLITE_ABORT_ROLLBACK",   // the statement's own ROLLBACK
	11 | 1<<8: "SQLITE_CORRUPT_VTAB",     // damaged shadow tables of a full-text or R-tree index
	11 | 2<<8: "SQLITE_CORRUPT_SEQUENCE", // a damaged sqlite_sequence table
}

// machineError says whether err is not a result. SQLITE_FULL is none only if a write
// met a full disk: a table that has used up its AUTOINCREMENT numbers reports it too. What a bound
// of ours has refused is a result, whatever code SQLite makes of it.
func machineError(err error) bool {
	e, ok := err.(*sqlError)
	if !ok {
		return err != nil
	}
	if e.bounded {
		return false
	}
	if e.code == codeFull {
		return e.full
	}
	if _, ok := resultCodes[e.code]; ok {
		return false
	}
	_, ok = machineCodes[e.code&0xff]
	return ok
}
