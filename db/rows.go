package db

// #include "sqlite.h"
import "C"

import (
	"encoding/binary"
	"math"
	"strings"
	"time"
	"unsafe"

	"rqlited/command"
)

// Rows come from SQLite in batches of at most this many rows, or about this many bytes.
const (
	batchRows  = 512
	batchBytes = 64 << 10
)

// Memory of a row and of a value in it, beside the bytes of the value.
const (
	goRow   = 24
	goValue = 40
)

// Storage classes, as sqlite.c writes them before each value.
const (
	typeInteger = 1
	typeFloat   = 2
	typeText    = 3
	typeBlob    = 4
)

// columns describes the columns of a statement.
type columns struct {
	names, tables []string // tables: where the column comes from; "" if not from a table
	types         []string // declared, in lower case; "" if there is none
	kinds         []kind
	derive        bool // some column has no declared type
	bytes         int  // of all the text
}

// kind is what the declared type of a column says about its values.
type kind uint8

const (
	plain   kind = iota
	boolean      // integers are true or false
	date         // integers and texts are points in time
	texty        // blobs are shown as text
	untyped      // as the value in the first row decides
)

// timeLayouts are the forms of a date that are understood.
var timeLayouts = []string{
	"2006-01-02 15:04:05.999999999-07:00",
	"2006-01-02T15:04:05.999999999-07:00",
	"2006-01-02 15:04:05.999999999",
	"2006-01-02T15:04:05.999999999",
	"2006-01-02 15:04",
	"2006-01-02T15:04",
	"2006-01-02",
}

var textyPrefixes = []string{"varchar", "varying character", "nchar", "native character", "nvarchar", "clob"}

func kindOf(declared string) kind {
	switch declared {
	case "":
		return untyped
	case "boolean":
		return boolean
	case "date", "datetime", "timestamp":
		return date
	case "text", "json":
		return texty
	}
	for _, p := range textyPrefixes {
		if strings.HasPrefix(declared, p) {
			return texty
		}
	}
	return plain
}

// rows runs s and returns its rows. If part is not nil it is given those that there are while more follow;
// then rows returns the rest. What part is given is changed when it has returned. Names and types may be
// shared with other results and must not be changed.
func (c *conn) rows(s *stmt, qualify bool, part func(*command.Rows) error) (*command.Rows, error) {
	if err := c.beforeStep(s); err != nil {
		return nil, err
	}
	if err := c.keepColumns(s); err != nil {
		return nil, err
	}
	rc := C.db_rows(c.c, s.s, batchRows, batchBytes)
	if err := c.rowsFailed(s, rc); err != nil {
		return nil, err
	}
	// SQLite prepares a statement anew at its first step if the schema has changed, so only now
	// the columns are those of the rows.
	meta, err := c.describe(s)
	if err != nil {
		return nil, err
	}
	out := &command.Rows{Columns: meta.names, Types: meta.types}
	if qualify {
		out.Columns = meta.qualified()
	}
	d := decoder{meta: meta, kinds: meta.kinds}
	b := batch{bytesOf(&c.c.buf), int(c.c.rows)}
	if meta.derive && b.rows > 0 {
		out.Types = d.derive(b.data)
	}
	for {
		if err := c.keepRows(s, d.size(b), part != nil); err != nil {
			return nil, err
		}
		out.Values = d.decode(out.Values, b)
		if rc != C.int(codeRow) {
			return out, nil
		}
		if part != nil {
			if err := part(out); err != nil {
				C.db_reset(c.c, s.s)
				return nil, err
			}
			d.reuse = true
			out = &command.Rows{Values: out.Values[:0]}
		}
		rc = C.db_rows(c.c, s.s, batchRows, batchBytes)
		if err := c.rowsFailed(s, rc); err != nil {
			return nil, err
		}
		b = batch{bytesOf(&c.c.buf), int(c.c.rows)}
	}
}

// batchSize returns the bytes of the rows that SQLite has yielded last.
func (c *conn) batchSize() int64 { return int64(c.c.buf.n) }

func (c *conn) rowsFailed(s *stmt, rc C.int) error {
	if (rc == codeRow || rc == codeDone) && c.c.overfull == 0 {
		return nil
	}
	err := c.failure(rc)
	C.db_reset(c.c, s.s)
	if full := c.overfull(); full != nil {
		return full
	}
	return err
}

// describe returns the columns of s as they are after its first step.
func (c *conn) describe(s *stmt) (*columns, error) {
	if s.meta != nil && s.reprepared == c.c.reprepared {
		return s.meta, nil
	}
	if rc := C.db_columns(c.c, s.s); rc != 0 {
		return nil, c.failure(rc)
	}
	n := int(c.c.columns)
	m := &columns{names: make([]string, n), tables: make([]string, n), types: make([]string, n), kinds: make([]kind, n)}
	p := bytesOf(&c.c.meta)
	m.bytes = len(p)
	for i := range n {
		m.names[i], p = cutText(p)
		m.types[i], p = cutText(p)
		m.tables[i], p = cutText(p)
		m.types[i] = strings.ToLower(m.types[i])
		m.kinds[i] = kindOf(m.types[i])
		m.derive = m.derive || m.types[i] == ""
	}
	s.meta, s.reprepared = m, c.c.reprepared
	return m, nil
}

func (m *columns) qualified() []string {
	names := make([]string, len(m.names))
	for i, name := range m.names {
		if m.tables[i] != "" {
			name = m.tables[i] + "." + name
		}
		names[i] = name
	}
	return names
}

// batch is some rows as sqlite.c wrote them: for each value its storage class, then eight bytes of
// a number, or a four-byte length and the bytes of a text or blob.
type batch struct {
	data []byte
	rows int
}

// bytesOf returns the content of a buffer of C, which the next call changes.
func bytesOf(b *C.db_buf) []byte { return unsafe.Slice((*byte)(unsafe.Pointer(b.p)), int(b.n)) }

func cutText(p []byte) (string, []byte) {
	n := binary.NativeEndian.Uint32(p[1:])
	return string(p[5 : 5+n]), p[5+n:]
}

// decoder turns batches into values.
type decoder struct {
	meta   *columns
	kinds  []kind // with the kinds of untyped columns as the first row decided
	reuse  bool   // the values of the last batch are not needed any more
	values []any  // of the last batch
}

// size returns about how much memory the rows of b take once they are decoded.
func (d *decoder) size(b batch) int64 {
	return int64(len(b.data) + b.rows*(goRow+len(d.kinds)*goValue))
}

// derive decides the columns without a declared type by their value in the first row, and
// returns the types to report.
func (d *decoder) derive(p []byte) []string {
	types := make([]string, len(d.meta.types))
	copy(types, d.meta.types)
	d.kinds = make([]kind, len(types))
	copy(d.kinds, d.meta.kinds)
	for i := range types {
		class := p[0]
		switch class {
		case typeInteger, typeFloat:
			p = p[9:]
		case typeText, typeBlob:
			p = p[5+binary.NativeEndian.Uint32(p[1:]):]
		default:
			p = p[1:]
		}
		if types[i] != "" {
			continue
		}
		d.kinds[i] = texty // of a NULL too: an empty type counts as text
		switch class {
		case typeInteger:
			types[i], d.kinds[i] = "integer", plain
		case typeFloat:
			types[i], d.kinds[i] = "real", plain
		case typeText, typeBlob:
			types[i] = "text"
		}
	}
	return types
}

func (d *decoder) decode(rows [][]any, b batch) [][]any {
	n := len(d.kinds)
	if b.rows == 0 || n == 0 {
		return rows
	}
	if !d.reuse || len(d.values) < b.rows*n {
		d.values = make([]any, b.rows*n) // one allocation for all rows of the batch
	}
	values := d.values
	p := b.data
	for r := range b.rows {
		row := values[r*n : (r+1)*n : (r+1)*n]
		for i := range row {
			row[i], p = d.value(d.kinds[i], p)
		}
		rows = append(rows, row)
	}
	return rows
}

func (d *decoder) value(k kind, p []byte) (any, []byte) {
	switch p[0] {
	case typeInteger:
		v := int64(binary.NativeEndian.Uint64(p[1:]))
		switch k {
		case boolean:
			return v > 0, p[9:]
		case date:
			return unixDate(v), p[9:]
		}
		return v, p[9:]
	case typeFloat:
		return math.Float64frombits(binary.NativeEndian.Uint64(p[1:])), p[9:]
	case typeText:
		s, rest := cutText(p)
		if k == date {
			s = textDate(s)
		}
		return s, rest
	case typeBlob:
		s, rest := cutText(p)
		if k == texty {
			return s, rest
		}
		return []byte(s), rest
	}
	return nil, p[1:]
}

// unixDate reads v as seconds since 1970, or as milliseconds if it is too large for that.
func unixDate(v int64) string {
	t := time.Unix(v, 0)
	if v > 1e12 || v < -1e12 {
		t = time.UnixMilli(v)
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// textDate reads s as a date; what is none is the zero time.
func textDate(s string) string {
	s = strings.TrimSuffix(s, "Z")
	for _, layout := range timeLayouts {
		if t, err := time.ParseInLocation(layout, s, time.UTC); err == nil {
			return t.Format(time.RFC3339Nano)
		}
	}
	return time.Time{}.Format(time.RFC3339Nano)
}
