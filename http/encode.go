package http

import (
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"

	"rqlited/command"
)

// flushAt is the number of encoded bytes that are collected before they are handed on.
const flushAt = 64 << 10

// form is how a client wants its results.
type form struct {
	kind        command.Kind
	associative bool // rows as objects
	blobArray   bool // blobs as arrays of numbers
	pretty      bool
	timings     bool
	raftIndex   bool
	sequence    uint64 // of a queued write; 0 if it is none
}

func formOf(p *params, k command.Kind) form {
	return form{
		kind:        k,
		associative: p.has("associative"),
		blobArray:   p.has("blob_array"),
		pretty:      p.has("pretty"),
		timings:     p.has("timings"),
		raftIndex:   p.has("raft_index"),
	}
}

// write answers with resp, or with errText if the request failed as a whole. It returns nil, since
// there is nobody to tell when a client has gone.
func (f form) write(w http.ResponseWriter, resp *command.Response, errText string, took time.Duration) error {
	newEncoder(f, w).finish(resp, errText, took)
	return nil
}

// encoder writes results as JSON in the form that encoding/json would give them, as they come. What has been
// handed on can't be taken back: an error that arises later stands behind it.
//
// It is a command.Sink.
type encoder struct {
	form
	w        io.Writer
	header   http.Header // of w; nil if it has none
	servedBy string      // to be named there; empty if nobody is

	buf     []byte // not yet handed on
	indent  indenter
	sent    bool  // something was handed on
	err     error // of the first failed write; nothing is written after it
	results int   // that have been begun
	part    part
}

// part is a result that has been begun.
type part struct {
	open    bool // the next Take goes on with it
	start   int  // of it in buf; negative if a part of it has been handed on
	read    bool // it is that of a read
	failed  bool // it has an error, behind which nothing may stand
	columns bool // it has some
	list    bool // the list of rows has been begun
	rows    int  // in the list

	// Of rows as objects: the columns in their order there, and what stands before each.
	order []int
	keys  [][]byte
}

func newEncoder(f form, w http.ResponseWriter) *encoder {
	return &encoder{form: f, w: w, header: w.Header()}
}

// Begin implements command.Sink.
func (e *encoder) Begin(servedBy string) bool {
	if e.sent {
		return false
	}
	e.buf, e.results, e.part = e.buf[:0], 0, part{}
	e.servedBy = servedBy
	return true
}

// Take implements command.Sink.
func (e *encoder) Take(r *command.Result, more bool) error {
	first := !e.part.open
	if first {
		e.separate()
		e.results++
		e.part = part{start: len(e.buf), read: r.Rows != nil || e.kind == command.Query}
	}
	e.part.open = more
	if !e.part.failed || r.Error != "" && e.part.start >= 0 { // SQLite's error counts more
		e.result(r, first)
	}
	return e.err
}

// separate appends what stands before the next result.
func (e *encoder) separate() {
	if e.results == 0 {
		e.buf = append(e.buf, `{"results":[`...)
	} else {
		e.buf = append(e.buf, ',')
	}
}

func (e *encoder) flush() {
	out := e.buf
	if e.pretty {
		e.indent.out = e.indent.append(e.indent.out[:0], e.buf)
		out = e.indent.out
	}
	if e.err == nil && len(out) > 0 {
		if !e.sent && e.servedBy != "" && e.header != nil {
			e.header.Set("X-Rqlite-Served-By", e.servedBy)
		}
		e.sent = true
		_, e.err = e.w.Write(out)
	}
	e.buf = e.buf[:0]
	e.part.start = -1
}

// finish writes the results in resp, which may be nil, and all that stands behind the results.
func (e *encoder) finish(resp *command.Response, errText string, took time.Duration) {
	if resp == nil {
		resp = &command.Response{}
	}
	for i := range resp.Results {
		if e.Take(&resp.Results[i], false) != nil {
			return
		}
	}
	if e.part.open && !e.part.failed {
		e.fail(errText)
	}
	if e.results == 0 {
		e.separate()
	}
	e.buf = append(e.buf, ']')
	if errText != "" {
		e.buf = append(e.buf, `,"error":`...)
		e.buf = appendString(e.buf, errText)
	}
	if e.timings {
		e.buf = append(e.buf, `,"time":`...)
		e.buf = appendFloat(e.buf, took.Seconds())
	}
	if e.raftIndex && resp.Index != 0 {
		e.buf = append(e.buf, `,"raft_index":`...)
		e.buf = strconv.AppendUint(e.buf, resp.Index, 10)
	}
	if e.sequence != 0 {
		e.buf = append(e.buf, `,"sequence_number":`...)
		e.buf = strconv.AppendUint(e.buf, e.sequence, 10)
	}
	e.buf = append(e.buf, '}')
	e.flush()
}

// result encodes the outcome of one statement, or the next part of it.
func (e *encoder) result(r *command.Result, first bool) {
	if r.Error != "" {
		e.fail(r.Error)
		return
	}
	if r.Rows != nil {
		if v, ok := unrepresentable(r.Rows.Values); ok {
			e.fail("JSON cannot represent the value " + strconv.FormatFloat(v, 'g', -1, 64))
			return
		}
	}
	if first {
		e.begin(r)
	}
	if r.Rows != nil && e.part.columns {
		e.rows(r.Rows.Values)
	}
	if !e.part.open {
		e.end(r)
	}
}

// begin encodes what stands before the rows, or the counters of a write.
func (e *encoder) begin(r *command.Result) {
	e.buf = append(e.buf, '{')
	e.part.columns = r.Rows != nil && len(r.Rows.Columns) > 0
	switch {
	case !e.part.read:
		e.write(r)
	case e.associative:
		e.beginObjects(r.Rows)
	case e.part.columns:
		e.buf = append(e.buf, `"columns":`...)
		e.strings(r.Rows.Columns)
		e.buf = append(e.buf, `,"types":`...)
		e.strings(r.Rows.Types)
	}
}

// end encodes what stands behind the rows.
func (e *encoder) end(r *command.Result) {
	e.endList()
	if r.Time != 0 {
		e.key(`"time":`)
		e.buf = appendFloat(e.buf, r.Time)
	}
	if !e.part.read && e.associative {
		e.key(`"rows":`)
		e.buf = append(e.buf, "null"...)
	}
	e.buf = append(e.buf, '}')
}

func (e *encoder) endList() {
	if e.part.list {
		e.buf = append(e.buf, ']')
	}
}

// fail puts an error in the place of the result. If a part of that has been handed on, it stands behind.
func (e *encoder) fail(text string) {
	e.part.failed = true
	if e.part.start >= 0 {
		e.buf = e.buf[:e.part.start]
		e.failure(text)
		return
	}
	e.endList()
	e.buf = append(e.buf, `,"error":`...)
	e.buf = appendString(e.buf, text)
	e.buf = append(e.buf, '}')
}

// key appends the name of an object's member, after a comma unless it is the first.
func (e *encoder) key(name string) {
	if n := len(e.buf); n > 0 && e.buf[n-1] != '{' {
		e.buf = append(e.buf, ',')
	}
	e.buf = append(e.buf, name...)
}

// failure encodes a statement's error, which stands alone but for the empty list of an
// associative read.
func (e *encoder) failure(text string) {
	e.buf = append(e.buf, '{')
	if e.part.read && e.associative {
		e.buf = append(e.buf, `"rows":[],`...)
	}
	e.buf = append(e.buf, `"error":`...)
	e.buf = appendString(e.buf, text)
	e.buf = append(e.buf, '}')
}

// write encodes the members of a write. Zeros are left out.
func (e *encoder) write(r *command.Result) {
	if r.Write == nil {
		return
	}
	if id := r.Write.LastInsertID; id != 0 {
		e.key(`"last_insert_id":`)
		e.buf = strconv.AppendInt(e.buf, id, 10)
	}
	if n := r.Write.RowsAffected; n != 0 {
		e.key(`"rows_affected":`)
		e.buf = strconv.AppendInt(e.buf, n, 10)
	}
}

// rows encodes rows as arrays, or as objects with sorted keys.
func (e *encoder) rows(rows [][]any) {
	if len(rows) > 0 && !e.part.list {
		e.buf = append(e.buf, `,"values":[`...)
		e.part.list = true
	}
	for _, row := range rows {
		if e.part.rows > 0 {
			e.buf = append(e.buf, ',')
		}
		e.part.rows++
		if e.associative {
			e.object(row)
		} else {
			e.array(row)
		}
		if e.rowDone(); e.err != nil {
			return
		}
	}
}

func (e *encoder) array(row []any) {
	e.buf = append(e.buf, '[')
	for j, v := range row {
		if j > 0 {
			e.buf = append(e.buf, ',')
		}
		e.value(v)
	}
	e.buf = append(e.buf, ']')
}

func (e *encoder) object(row []any) {
	e.buf = append(e.buf, '{')
	for k, col := range e.part.order {
		e.buf = append(e.buf, e.part.keys[k]...)
		e.value(at(row, col))
	}
	e.buf = append(e.buf, '}')
}

// beginObjects encodes what stands before rows as objects. Of columns with the same name the last wins.
func (e *encoder) beginObjects(rows *command.Rows) {
	if !e.part.columns {
		e.buf = append(e.buf, `"rows":[]`...)
		return
	}
	e.part.order, e.part.keys = objectOrder(rows.Columns)
	e.buf = append(e.buf, `"types":{`...)
	for i, col := range e.part.order {
		e.buf = append(e.buf, e.part.keys[i]...)
		e.buf = appendString(e.buf, at(rows.Types, col))
	}
	e.buf = append(e.buf, `},"rows":[`...)
	e.part.list = true
}

// at returns list[i], or nothing if list is too short: results may come from another node, which
// need not be right.
func at[T any](list []T, i int) (v T) {
	if i < len(list) {
		v = list[i]
	}
	return v
}

// objectOrder returns the indexes of the columns in the order in which an object names them, and
// for each what stands before its value.
func objectOrder(columns []string) (order []int, keys [][]byte) {
	last := make(map[string]int, len(columns))
	for i, name := range columns {
		last[name] = i
	}
	order = make([]int, 0, len(last))
	for _, i := range last {
		order = append(order, i)
	}
	slices.SortFunc(order, func(a, b int) int {
		if columns[a] < columns[b] {
			return -1
		}
		return 1
	})
	keys = make([][]byte, len(order))
	for k, col := range order {
		if k > 0 {
			keys[k] = append(keys[k], ',')
		}
		keys[k] = append(appendString(keys[k], columns[col]), ':')
	}
	return order, keys
}

// rowDone hands on what was collected, if that is worth it.
func (e *encoder) rowDone() {
	if len(e.buf) >= flushAt {
		e.flush()
	}
}

func (e *encoder) strings(list []string) {
	e.buf = append(e.buf, '[')
	for i, s := range list {
		if i > 0 {
			e.buf = append(e.buf, ',')
		}
		e.buf = appendString(e.buf, s)
	}
	e.buf = append(e.buf, ']')
}

func (e *encoder) value(v any) {
	switch v := v.(type) {
	case nil:
		e.buf = append(e.buf, "null"...)
	case int64:
		e.buf = strconv.AppendInt(e.buf, v, 10)
	case float64:
		e.buf = appendFloat(e.buf, v)
	case string:
		e.buf = appendString(e.buf, v)
	case bool:
		e.buf = strconv.AppendBool(e.buf, v)
	case []byte:
		e.buf = appendBlob(e.buf, v, e.blobArray)
	default:
		panic(fmt.Sprintf("http: result holds a %T", v))
	}
}

// unrepresentable returns a number of rows that JSON has no word for, if there is one.
func unrepresentable(rows [][]any) (float64, bool) {
	for _, row := range rows {
		for _, v := range row {
			if f, ok := v.(float64); ok && (math.IsInf(f, 0) || math.IsNaN(f)) {
				return f, true
			}
		}
	}
	return 0, false
}
