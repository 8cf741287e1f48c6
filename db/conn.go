package db

// #include "sqlite.h"
// #include <stdlib.h>
import "C"

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	_ "github.com/rqlite/go-sqlite3" // contains SQLite itself
)

// role says what a connection is for, and so what its statements may do.
type role C.int

const (
	writer     role = C.ROLE_WRITER
	reader     role = C.ROLE_READER
	classifier role = C.ROLE_CLASSIFIER // a reader that only prepares
)

// Flags of sqlite3_open_v2.
const (
	openReadOnly  = 0x1
	openReadWrite = 0x2
	openCreate    = 0x4
	openURI       = 0x40
	openNoMutex   = 0x8000
)

const (
	// maxCached bounds the prepared statements that a connection keeps, and cachedBytes the
	// length of their text.
	maxCached   = 128
	cachedBytes = 4096

	// maxText is SQLite's own limit of the length of a statement.
	maxText = 1_000_000_000

	// endOfText ends a long text, which SQLite would else copy, all that is left of it for each statement.
	endOfText = "\x00"
)

// errNoMemory is SQLite's SQLITE_NOMEM where there is no connection to ask.
var errNoMemory = &sqlError{code: codeNoMem, msg: "out of memory"}

// sqlError is what SQLite says about a statement that failed.
type sqlError struct {
	code int    // extended result code
	msg  string // SQLite's words, for the client
	full bool   // a write met a full disk
	out  bool   // another process held a lock

	bounded bool // by a bound that every replica meets
	undone  bool // the transaction was rolled back because of it
}

func (e *sqlError) Error() string { return e.msg }

// shim is a VFS of ours (vfs.c): it tells the writer the time of the entry being applied, and keeps
// and checks the checksums of the main file.
type shim struct{ v *C.struct_db_vfs }

// newShim makes the shim of the writer or of all other connections to the database at path.
func newShim(path string, r role) (shim, error) {
	if C.db_account_installed() == 0 {
		return shim{}, errors.New("install allocator of SQLite: it has been used already")
	}
	cpath := C.CString(path)
	defer C.free(unsafe.Pointer(cpath))
	bounded := C.int(0)
	if r == writer {
		bounded = 1
	}
	v := C.db_vfs_new(cpath, bounded)
	if v == nil {
		return shim{}, errors.New("register SQLite VFS: out of memory or no default VFS")
	}
	return shim{v}, nil
}

// use says what the sums of the main file are that is opened from now on.
func (v shim) use(s *sums) { C.db_vfs_use(v.v, s.c) }

// share bounds what the reads on connections of v use together: memory, and temporary files by what is free.
func (v shim) share(memory int64) { C.db_vfs_share(v.v, C.int64_t(memory)) }

// memoryUsed returns what they use of that memory.
func (v shim) memoryUsed() int64 { return int64(C.db_vfs_memory(v.v).used) }

func (v shim) free() {
	if v.v != nil {
		C.db_vfs_free(v.v)
	}
}

// conn is a connection to SQLite, used by one goroutine at a time; interrupt may be called by any.
type conn struct {
	c      *C.db_conn
	role   role
	cached map[string]*stmt // prepared and not in use

	// tainted is set once a statement may have left state on the connection. Its user then
	// replaces the connection.
	tainted bool

	bounds      bounds // of the writer; a reader has that of results only
	kept        int64  // bytes of rows that the request has yielded; of a reader
	used        usage  // by the last entry
	foreignKeys bool   // are enforced, unless a statement has changed that
	schema      traits // of the schema as it was when the connection was opened; of a writer
	undone      bool   // something was rolled back
}

// openConn opens a connection with the extensions, which are paths of shared objects.
func openConn(path string, flags int, r role, v shim, extensions []string) (*conn, error) {
	cpath := C.CString(path)
	defer C.free(unsafe.Pointer(cpath))
	c := &conn{role: r, cached: make(map[string]*stmt), bounds: standard}
	list, free := cStrings(extensions)
	defer free()
	rc := C.db_open(cpath, C.int(flags|openNoMutex), C.int(r), v.v, list, C.int(len(extensions)), &c.c)
	if c.c == nil {
		return nil, errNoMemory
	}
	if rc != 0 {
		err := c.refusal(rc, extensions)
		if err == nil {
			err = c.failure(rc)
		}
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

func (c *conn) close() error {
	c.dropCached()
	if rc := C.db_close(c.c); rc != 0 {
		return &sqlError{code: int(rc), msg: fmt.Sprintf("close connection: code %d", int(rc))}
	}
	return nil
}

func (c *conn) dropCached() {
	for _, s := range c.cached {
		C.db_finalize(c.c, s.s)
	}
	clear(c.cached)
}

// failure describes the failure of the last call, which returned rc.
func (c *conn) failure(rc C.int) error {
	if hit := C.db_bound_hit(c.c, rc); hit != 0 {
		return &sqlError{code: int(rc), msg: c.boundText(hit), bounded: true}
	}
	if rc == codeNoMem || c.c.db == nil {
		return errNoMemory
	}
	if denied := deniedText[c.c.denied]; denied != "" && rc&0xff == codeAuth {
		if c.c.denied == C.DENIED_LOCAL {
			denied = C.GoString(&c.c.local[0]) + denied
		}
		return &sqlError{code: codeAuth, msg: denied}
	}
	e := &sqlError{code: int(rc), msg: C.GoString(C.sqlite3_errmsg(c.c.db)), full: C.db_disk_full(c.c) != 0, out: C.db_locked_out(c.c) != 0}
	if p := e.code & 0xff; p == codeIOErr || p == codeCantOpen {
		if errno := C.sqlite3_system_errno(c.c.db); errno != 0 {
			e.msg += ": " + syscall.Errno(errno).Error()
		}
	}
	return e
}

// exec runs SQL of our own, which no rule about statements applies to.
func (c *conn) exec(sql string) error {
	csql := C.CString(sql)
	defer C.free(unsafe.Pointer(csql))
	rc := C.db_exec(c.c, csql)
	if err := c.overfull(); err != nil {
		return err
	}
	if rc != 0 {
		return c.failure(rc)
	}
	return nil
}

// writeNothing does what SQLite does once, when a connection writes first.
func (c *conn) writeNothing() error {
	if rc := C.db_write_nothing(c.c); rc != 0 {
		return c.failure(rc)
	}
	return nil
}

// inTransaction says whether a transaction was open after the last statement.
func (c *conn) inTransaction() bool { return c.c.autocommit == 0 }

// rest ends a request of a reader. A connection that has met a bound is replaced.
func (c *conn) rest() {
	if C.db_rest(c.c) != 0 {
		c.tainted = true
	}
}

// interrupt ends the statement that a reader runs, and every further one until resume.
func (c *conn) interrupt() { atomic.StoreInt32((*int32)(unsafe.Pointer(&c.c.cancel)), 1) }
func (c *conn) resume()    { atomic.StoreInt32((*int32)(unsafe.Pointer(&c.c.cancel)), 0) }

// stmt is a prepared statement.
type stmt struct {
	s        *C.sqlite3_stmt
	sql      string // key in the cache; empty if it can't be cached
	columns  int
	params   int
	readOnly bool // it does not write, by SQLite's account
	explain  bool
	seen     C.uint // what else the authorizer saw: C.SEEN_…

	// Names and types of the columns, as of the given count of preparations.
	meta       *columns
	reprepared C.uint
}

// prepare prepares the first statement of sql and returns the text after it. The statement is nil
// if there is none, only blanks and comments. The caller releases it.
func (c *conn) prepare(sql string) (*stmt, string, error) {
	if s := c.cached[sql[:min(len(sql), cachedBytes+1)]]; s != nil {
		delete(c.cached, sql)
		return s, "", nil
	}
	if len(sql) > maxText {
		return nil, "", &sqlError{code: codeTooBig, msg: "string or blob too big"}
	}
	c.c.role = C.int(c.role)
	if len(sql) > cachedBytes && sql[len(sql)-1] != 0 {
		sql += endOfText
	}
	p := (*C.char)(unsafe.Pointer(unsafe.StringData(sql)))
	if rc := C.db_prepare(c.c, p, C.int(len(sql))); rc != 0 {
		return nil, "", c.failure(rc)
	}
	if c.c.stmt == nil {
		return nil, "", nil // SQLite has looked for one up to the end, or to a zero byte
	}
	tail := sql[c.c.tail:]
	if strings.TrimSpace(tail) == endOfText {
		tail = ""
	}
	s := &stmt{
		s:        c.c.stmt,
		columns:  int(c.c.columns),
		params:   int(c.c.params),
		readOnly: c.c.readonly != 0,
		explain:  c.c.explain != 0,
		seen:     c.c.seen,
	}
	if s.seen&C.SEEN_PRAGMA != 0 && c.role != classifier {
		c.taint(s) // it may have acted already
	}
	if err := c.checkStoredNames(s, sql[:len(sql)-len(tail)]); err != nil {
		C.db_finalize(c.c, s.s)
		return nil, "", err
	}
	if s.seen&C.SEEN_PRAGMA == 0 && !s.explain && c.c.heavy == 0 && len(sql) <= cachedBytes && strings.TrimSpace(tail) == "" {
		s.sql = sql
	}
	return s, tail, nil
}

// release takes back a statement that was prepared, run or not.
func (c *conn) release(s *stmt) {
	if s.sql == "" {
		C.db_finalize(c.c, s.s)
		return
	}
	C.db_reset(c.c, s.s)
	if old := c.cached[s.sql]; old != nil {
		C.db_finalize(c.c, old.s)
	} else if len(c.cached) >= maxCached {
		for key, victim := range c.cached { // a random one
			C.db_finalize(c.c, victim.s)
			delete(c.cached, key)
			break
		}
	}
	c.cached[s.sql] = s
}

// run runs s without returning rows. A statement that only reads is stepped once: that is what
// decides whether it fails.
func (c *conn) run(s *stmt) error {
	if err := c.beforeStep(s); err != nil {
		return err
	}
	once := C.int(0)
	if s.readOnly {
		once = 1
	}
	rc := C.db_run(c.c, s.s, once)
	if err := c.overfull(); err != nil {
		return err
	}
	if rc != 0 {
		return c.failure(rc)
	}
	return nil
}

// beforeStep does what the first step of s needs to have been done.
func (c *conn) beforeStep(s *stmt) error {
	c.taint(s)
	if s.seen&C.SEEN_SCHEMA != 0 {
		c.dropCached() // they would be prepared anew, and s.seen would not be theirs any more
	}
	if c.role != writer || c.c.trusted != 0 {
		return nil
	}
	return c.beforeWrite(s)
}

func (c *conn) taint(s *stmt) { c.tainted = c.tainted || s.state() || c.role == writer && s.schema() }

func (s *stmt) pragma() bool      { return s.seen&C.SEEN_PRAGMA != 0 }      // is one
func (s *stmt) state() bool       { return s.seen&C.SEEN_STATE != 0 }       // leaves state on the connection
func (s *stmt) check() bool       { return s.seen&C.SEEN_CHECK != 0 }       // looks for damage
func (s *stmt) schema() bool      { return s.seen&C.SEEN_SCHEMA != 0 }      // changes it
func (s *stmt) transaction() bool { return s.seen&C.SEEN_TRANSACTION != 0 } // begins or ends one

// bind binds the value of placeholder i, counted from 1.
func (c *conn) bind(s *stmt, i int, value any) error {
	var rc C.int
	n := C.int(i)
	switch v := value.(type) {
	case nil:
		rc = C.sqlite3_bind_null(s.s, n)
	case int64:
		rc = C.sqlite3_bind_int64(s.s, n, C.int64_t(v))
	case float64:
		rc = C.sqlite3_bind_double(s.s, n, C.double(v))
	case bool:
		b := C.int64_t(0)
		if v {
			b = 1
		}
		rc = C.sqlite3_bind_int64(s.s, n, b)
	case string:
		p := (*C.char)(unsafe.Pointer(unsafe.StringData(v)))
		rc = C.db_bind_text(s.s, n, p, C.size_t(len(v)))
	case []byte:
		rc = C.db_bind_blob(s.s, n, unsafe.Pointer(unsafe.SliceData(v)), C.size_t(len(v)))
	default:
		return &sqlError{code: codeError, msg: fmt.Sprintf("unsupported type %T", v)}
	}
	if rc != 0 {
		return c.failure(rc)
	}
	return nil
}

// placeholder returns the number of the placeholder with the given name and prefix, or 0.
func (c *conn) placeholder(s *stmt, name string) int {
	buf := make([]byte, len(name)+1) // with the terminating zero
	copy(buf, name)
	return int(C.sqlite3_bind_parameter_index(s.s, (*C.char)(unsafe.Pointer(&buf[0]))))
}

// beginEntry gives the writer the clock, the random numbers and the counters of an entry; a zero
// clock is the real time, a zero seed the system's random numbers.
func (c *conn) beginEntry(clockMillis int64, seed uint64) {
	C.db_begin_entry(c.c, C.int64_t(clockMillis), C.uint64_t(seed))
}

// endEntry ends it. A transaction or a statement that is still open would be part of what comes next.
func (c *conn) endEntry() {
	C.db_end_entry(c.c)
	if C.db_settle(c.c) != 0 {
		c.tainted = true
	}
}

// Modes of checkpoint.
const (
	checkpointNoop     = -1 // says only what it could do
	checkpointPassive  = 0
	checkpointTruncate = 3
)

// checkpoint copies frames of the WAL into the main file. It returns how many frames the WAL has
// and how many of them are in the main file now. A reader in the way is not an error; SQLite's
// answer to it is that fewer are.
func (c *conn) checkpoint(mode int, timeout time.Duration) (frames, moved int, busy bool, err error) {
	var log, ckpt C.int
	rc := C.db_checkpoint(c.c, C.int(mode), C.int(timeout.Milliseconds()), &log, &ckpt)
	busy = rc&0xff == codeBusy
	if rc != 0 && !busy {
		return 0, 0, false, c.failure(rc)
	}
	return int(log), int(ckpt), busy, nil
}

// text returns the first column of the first row of a query of our own, as text.
func (c *conn) text(sql string) (string, error) {
	rows, err := c.ownQuery(sql)
	if err != nil || len(rows) == 0 {
		return "", err
	}
	return fmt.Sprint(rows[0][0]), nil
}

// compileOptions lists how SQLite was compiled.
func compileOptions() []string {
	var opts []string
	for i := range math.MaxInt16 {
		p := C.sqlite3_compileoption_get(C.int(i))
		if p == nil {
			break
		}
		opts = append(opts, C.GoString(p))
	}
	return opts
}

// SQLiteVersion returns the version of the SQLite that is built in.
func SQLiteVersion() string { return C.GoString(C.sqlite3_libversion()) }
