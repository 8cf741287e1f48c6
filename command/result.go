package command

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// AppendResponse appends r as the answer to a request of kind k between nodes: 1 error,
// 2 repeated result, 3 log index, 4 number of writes. errText is the error of the request as a
// whole; r may then be nil.
//
// Releases before 8.23 expect another element in the answer to an Execute than later ones. Since
// the wire types of the two forms differ, an element holds both, and either reader finds its own.
func AppendResponse(dst []byte, k Kind, r *Response, errText string) []byte {
	dst = AppendString(dst, 1, errText)
	if r == nil {
		return dst
	}
	for i := range r.Results {
		res := &r.Results[i]
		dst = appendMessage(dst, 2, func(b []byte) []byte {
			switch k {
			case Query:
				return appendRows(b, res)
			case Execute:
				return appendExecuteResult(b, res)
			default:
				return appendResult(b, res)
			}
		})
	}
	dst = AppendVarint(dst, 3, r.Index)
	if k == Unified {
		dst = AppendVarint(dst, 4, uint64(r.Writes))
	}
	return dst
}

// appendRows appends the body of a QueryRows.
func appendRows(b []byte, r *Result) []byte {
	if r.Rows != nil {
		for _, c := range r.Rows.Columns {
			b = protowire.AppendString(protowire.AppendTag(b, 1, protowire.BytesType), c)
		}
		for _, t := range r.Rows.Types {
			b = protowire.AppendString(protowire.AppendTag(b, 2, protowire.BytesType), t)
		}
		for _, row := range r.Rows.Values {
			b = appendMessage(b, 3, func(b []byte) []byte { return appendRow(b, row) })
		}
	}
	b = AppendString(b, 4, r.Error)
	return appendDouble(b, 5, r.Time)
}

func appendRow(b []byte, row []any) []byte {
	for _, v := range row {
		b = appendMessage(b, 1, func(b []byte) []byte { return appendParam(b, Param{Value: v}) })
	}
	return b
}

// appendWrite appends the body of an ExecuteResult without its error.
func appendWrite(b []byte, w *Write, time float64) []byte {
	b = AppendVarint(b, 1, uint64(w.LastInsertID))
	b = AppendVarint(b, 2, uint64(w.RowsAffected))
	return appendDouble(b, 4, time)
}

// appendResult appends the body of an ExecuteQueryResponse.
func appendResult(b []byte, r *Result) []byte {
	switch {
	case r.Rows != nil:
		return appendMessage(b, 1, func(b []byte) []byte { return appendRows(b, r) })
	case r.Write != nil && r.Error == "":
		return appendMessage(b, 2, func(b []byte) []byte { return appendWrite(b, r.Write, r.Time) })
	default:
		return AppendString(b, 3, r.Error)
	}
}

// appendExecuteResult appends an ExecuteQueryResponse that is an ExecuteResult as well.
func appendExecuteResult(b []byte, r *Result) []byte {
	b = appendResult(b, r)
	if r.Rows == nil && r.Write != nil && r.Error == "" {
		b = appendWrite(b, r.Write, r.Time)
	}
	return b
}

// DecodeResponse decodes the answer to a request of kind k: the response, and the error text of
// the request as a whole, empty if it was answered. It fails with ErrMalformed.
func DecodeResponse(k Kind, b []byte) (*Response, string, error) {
	r := &Response{}
	var errText string
	err := EachField(b, func(f Field) error {
		switch {
		case f.Num == 1 && f.Message():
			errText = f.Text()
		case f.Num == 2 && f.Message():
			var res Result
			var err error
			if k == Query {
				err = res.decodeRows(f.Bytes)
			} else {
				err = res.decode(f.Bytes)
			}
			r.Results = append(r.Results, res)
			return err
		case f.Num == 3:
			r.Index = f.Bits
		case f.Num == 4:
			r.Writes = int(f.Bits)
		}
		return nil
	})
	if err != nil {
		return nil, "", fmt.Errorf("decode answer to %s: %w", k, err)
	}
	return r, errText, nil
}

// decode decodes an ExecuteQueryResponse or an ExecuteResult, or both in one.
func (r *Result) decode(b []byte) error {
	var old Write
	var wrapped bool
	err := EachField(b, func(f Field) error {
		switch {
		case f.Num == 1 && f.Message():
			wrapped = true
			return r.decodeRows(f.Bytes)
		case f.Num == 2 && f.Message():
			wrapped = true
			return r.decodeWrite(f.Bytes)
		case f.Num == 1:
			old.LastInsertID = int64(f.Bits)
		case f.Num == 2:
			old.RowsAffected = int64(f.Bits)
		case f.Num == 3 && f.Message():
			r.Error = f.Text()
		case f.Num == 4 && f.Type == protowire.Fixed64Type:
			r.Time = f.float()
		}
		return nil
	})
	if !wrapped && r.Error == "" {
		r.Write = &old
	}
	return err
}

func (r *Result) decodeWrite(b []byte) error {
	r.Write = &Write{}
	return EachField(b, func(f Field) error {
		switch {
		case f.Num == 1:
			r.Write.LastInsertID = int64(f.Bits)
		case f.Num == 2:
			r.Write.RowsAffected = int64(f.Bits)
		case f.Num == 3 && f.Message():
			r.Error = f.Text()
		case f.Num == 4 && f.Type == protowire.Fixed64Type:
			r.Time = f.float()
		}
		return nil
	})
}

func (r *Result) decodeRows(b []byte) error {
	r.Rows = &Rows{}
	return EachField(b, func(f Field) error {
		switch {
		case f.Num == 1 && f.Message():
			r.Rows.Columns = append(r.Rows.Columns, f.Text())
		case f.Num == 2 && f.Message():
			r.Rows.Types = append(r.Rows.Types, f.Text())
		case f.Num == 3 && f.Message():
			row, err := decodeRow(f.Bytes)
			r.Rows.Values = append(r.Rows.Values, row)
			return err
		case f.Num == 4 && f.Message():
			r.Error = f.Text()
		case f.Num == 5 && f.Type == protowire.Fixed64Type:
			r.Time = f.float()
		}
		return nil
	})
}

func decodeRow(b []byte) ([]any, error) {
	row := []any{}
	err := EachField(b, func(f Field) error {
		if f.Num != 1 || !f.Message() {
			return nil
		}
		p, err := decodeParam(f.Bytes)
		row = append(row, p.Value)
		return err
	})
	return row, err
}
