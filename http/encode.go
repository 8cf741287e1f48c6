package http

import (
	"bytes"
	"encoding/json"
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
	if resp == nil {
		resp = &command.Response{}
	}
	if !f.pretty {
		e := &encoder{form: f, w: w}
		e.envelope(resp, errText, took)
		e.flush()
		return nil
	}
	var compact, indented bytes.Buffer
	e := &encoder{form: f, w: &compact}
	e.envelope(resp, errText, took)
	e.flush()
	if err := json.Indent(&indented, compact.Bytes(), "", "    "); err != nil {
		return fmt.Errorf("indent results: %w", err)
	}
	_, _ = w.Write(indented.Bytes())
	return nil
}

// encoder writes results as JSON in the form that encoding/json would give them.
type encoder struct {
	form
	w   io.Writer
	buf []byte
	err error // of the first failed write; nothing is written after it
}

func (e *encoder) flush() {
	if e.err == nil && len(e.buf) > 0 {
		_, e.err = e.w.Write(e.buf)
	}
	e.buf = e.buf[:0]
}

func (e *encoder) envelope(resp *command.Response, errText string, took time.Duration) {
	e.buf = append(e.buf, `{"results":[`...)
	for i := range resp.Results {
		if e.err != nil {
			return
		}
		if i > 0 {
			e.buf = append(e.buf, ',')
		}
		e.result(&resp.Results[i])
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
}

// result encodes the outcome of one statement.
func (e *encoder) result(r *command.Result) {
	read := r.Rows != nil || e.kind == command.Query
	if r.Error != "" {
		e.failure(r.Error, read)
		return
	}
	if r.Rows != nil {
		if v, ok := unrepresentable(r.Rows.Values); ok {
			e.failure("JSON cannot represent the value "+strconv.FormatFloat(v, 'g', -1, 64), read)
			return
		}
	}
	e.buf = append(e.buf, '{')
	switch {
	case !read:
		e.write(r)
	case e.associative:
		e.objects(r.Rows)
	case r.Rows != nil && len(r.Rows.Columns) > 0:
		e.arrays(r.Rows)
	}
	if r.Time != 0 {
		e.key(`"time":`)
		e.buf = appendFloat(e.buf, r.Time)
	}
	if !read && e.associative {
		e.key(`"rows":`)
		e.buf = append(e.buf, "null"...)
	}
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
func (e *encoder) failure(text string, read bool) {
	e.buf = append(e.buf, '{')
	if read && e.associative {
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

// arrays encodes rows as arrays, in the order of the columns.
func (e *encoder) arrays(rows *command.Rows) {
	e.buf = append(e.buf, `"columns":`...)
	e.strings(rows.Columns)
	e.buf = append(e.buf, `,"types":`...)
	e.strings(rows.Types)
	if len(rows.Values) == 0 {
		return
	}
	e.buf = append(e.buf, `,"values":[`...)
	for i, row := range rows.Values {
		if i > 0 {
			e.buf = append(e.buf, ',')
		}
		e.buf = append(e.buf, '[')
		for j, v := range row {
			if j > 0 {
				e.buf = append(e.buf, ',')
			}
			e.value(v)
		}
		e.buf = append(e.buf, ']')
		if e.rowDone(); e.err != nil {
			return
		}
	}
	e.buf = append(e.buf, ']')
}

// objects encodes rows as objects with sorted keys. Of columns with the same name the last wins.
func (e *encoder) objects(rows *command.Rows) {
	if rows == nil || len(rows.Columns) == 0 {
		e.buf = append(e.buf, `"rows":[]`...)
		return
	}
	order, keys := objectOrder(rows.Columns)
	e.buf = append(e.buf, `"types":{`...)
	for i, col := range order {
		e.buf = append(e.buf, keys[i]...)
		e.buf = appendString(e.buf, at(rows.Types, col))
	}
	e.buf = append(e.buf, `},"rows":[`...)
	for i, row := range rows.Values {
		if i > 0 {
			e.buf = append(e.buf, ',')
		}
		e.buf = append(e.buf, '{')
		for k, col := range order {
			e.buf = append(e.buf, keys[k]...)
			e.value(at(row, col))
		}
		e.buf = append(e.buf, '}')
		if e.rowDone(); e.err != nil {
			return
		}
	}
	e.buf = append(e.buf, ']')
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
