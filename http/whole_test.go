package http

import (
	"bytes"
	"encoding/json"
	"strconv"
	"testing"
	"time"

	"rqlited/command"
)

// wholeAnswer encodes results that are all there, as was done before they came in parts. It is what
// encoder has to agree with.
func wholeAnswer(t *testing.T, f form, resp *command.Response, errText string, took time.Duration) []byte {
	t.Helper()
	w := &wholeEncoder{encoder{form: f}}
	w.envelope(resp, errText, took)
	if !f.pretty {
		return w.buf
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, w.buf, "", "    "); err != nil {
		t.Fatalf("%v in %s", err, w.buf)
	}
	return indented.Bytes()
}

// wholeEncoder borrows from encoder how values look, and nothing of what is between them.
type wholeEncoder struct{ encoder }

func (e *wholeEncoder) envelope(resp *command.Response, errText string, took time.Duration) {
	e.buf = append(e.buf, `{"results":[`...)
	for i := range resp.Results {
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
	e.buf = append(e.buf, '}')
}

func (e *wholeEncoder) result(r *command.Result) {
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

func (e *wholeEncoder) failure(text string, read bool) {
	e.buf = append(e.buf, '{')
	if read && e.associative {
		e.buf = append(e.buf, `"rows":[],`...)
	}
	e.buf = append(e.buf, `"error":`...)
	e.buf = appendString(e.buf, text)
	e.buf = append(e.buf, '}')
}

func (e *wholeEncoder) arrays(rows *command.Rows) {
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
	}
	e.buf = append(e.buf, ']')
}

func (e *wholeEncoder) objects(rows *command.Rows) {
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
	}
	e.buf = append(e.buf, ']')
}
