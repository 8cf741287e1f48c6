package command

import (
	"fmt"
	"math"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// The messages below are written field by field, which keeps text that is not UTF-8 intact and
// needs no generated code. Each function names its message and, as constants would only repeat
// the names, the field numbers stand in the code: they are rqlite's and never change.

// field is one decoded field: num and either bytes (length-delimited) or the bits of a number.
type field struct {
	num   protowire.Number
	typ   protowire.Type
	bits  uint64
	bytes []byte
}

func (f field) bool() bool           { return f.bits != 0 }
func (f field) string() string       { return string(f.bytes) }
func (f field) float() float64       { return math.Float64frombits(f.bits) }
func (f field) message() bool        { return f.typ == protowire.BytesType }
func (f field) nanos() time.Duration { return time.Duration(f.bits) }

// eachField calls visit for every field of the message b. It fails with ErrMalformed if b is not
// a message, or with visit's error.
func eachField(b []byte, visit func(field) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return fmt.Errorf("%w: %w", ErrMalformed, protowire.ParseError(n))
		}
		b = b[n:]
		f := field{num: num, typ: typ}
		switch typ {
		case protowire.VarintType:
			f.bits, n = protowire.ConsumeVarint(b)
		case protowire.Fixed64Type:
			f.bits, n = protowire.ConsumeFixed64(b)
		case protowire.BytesType:
			f.bytes, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(num, typ, b)
		}
		if n < 0 {
			return fmt.Errorf("%w: field %d: %w", ErrMalformed, num, protowire.ParseError(n))
		}
		b = b[n:]
		if err := visit(f); err != nil {
			return err
		}
	}
	return nil
}

func appendVarint(b []byte, num protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), v)
}

func appendBool(b []byte, num protowire.Number, v bool) []byte {
	if !v {
		return b
	}
	return appendVarint(b, num, 1)
}

func appendString(b []byte, num protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendTag(b, num, protowire.BytesType), s)
}

func appendDouble(b []byte, num protowire.Number, v float64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendFixed64(protowire.AppendTag(b, num, protowire.Fixed64Type), math.Float64bits(v))
}

// appendMessage appends a field that holds the message that body appends, empty or not.
func appendMessage(b []byte, num protowire.Number, body func([]byte) []byte) []byte {
	b = protowire.AppendTag(b, num, protowire.BytesType)
	// The length stands before the body: leave one byte for it, which is enough for most, and
	// make room if it is not.
	start := len(b)
	b = body(append(b, 0))
	size := len(b) - start - 1
	extra := protowire.SizeVarint(uint64(size)) - 1
	if extra > 0 {
		b = append(b, make([]byte, extra)...)
		copy(b[start+1+extra:], b[start+1:start+1+size])
	}
	protowire.AppendVarint(b[:start], uint64(size))
	return b
}

// appendParam appends the body of a Parameter. A nil value sets no field.
func appendParam(b []byte, p Param) []byte {
	b = appendString(b, 6, p.Name)
	switch v := p.Value.(type) {
	case nil:
	case int64:
		b = protowire.AppendVarint(protowire.AppendTag(b, 1, protowire.VarintType), protowire.EncodeZigZag(v))
	case float64:
		b = protowire.AppendFixed64(protowire.AppendTag(b, 2, protowire.Fixed64Type), math.Float64bits(v))
	case bool:
		var bit uint64
		if v {
			bit = 1
		}
		b = protowire.AppendVarint(protowire.AppendTag(b, 3, protowire.VarintType), bit)
	case []byte:
		b = protowire.AppendBytes(protowire.AppendTag(b, 4, protowire.BytesType), v)
	case string:
		b = protowire.AppendString(protowire.AppendTag(b, 5, protowire.BytesType), v)
	default:
		panic(fmt.Sprintf("command: value of type %T", v)) // a value that no decoder makes
	}
	return b
}

func decodeParam(b []byte) (Param, error) {
	var p Param
	err := eachField(b, func(f field) error {
		switch {
		case f.num == 1 && f.typ == protowire.VarintType:
			p.Value = protowire.DecodeZigZag(f.bits)
		case f.num == 2 && f.typ == protowire.Fixed64Type:
			p.Value = f.float()
		case f.num == 3 && f.typ == protowire.VarintType:
			p.Value = f.bool()
		case f.num == 4 && f.message():
			p.Value = append([]byte{}, f.bytes...)
		case f.num == 5 && f.message():
			p.Value = f.string()
		case f.num == 6 && f.message():
			p.Name = f.string()
		}
		return nil
	})
	return p, err
}

// appendStatement appends the body of a Statement.
func appendStatement(b []byte, s *Statement) []byte {
	b = appendString(b, 1, s.SQL)
	for _, p := range s.Params {
		b = appendMessage(b, 2, func(b []byte) []byte { return appendParam(b, p) })
	}
	b = appendBool(b, 3, s.Returning)
	return appendBool(b, 5, s.Explain)
}

func decodeStatement(b []byte) (Statement, error) {
	var s Statement
	err := eachField(b, func(f field) error {
		switch {
		case f.num == 1 && f.message():
			s.SQL = f.string()
		case f.num == 2 && f.message():
			p, err := decodeParam(f.bytes)
			if err != nil {
				return err
			}
			s.Params = append(s.Params, p)
		case f.num == 3:
			s.Returning = f.bool()
		case f.num == 5:
			s.Explain = f.bool()
		}
		return nil
	})
	return s, err
}

// appendStatements appends the body of a Request message. It leaves dbTimeout out unless withTimeout:
// a log entry must not hold it.
func appendStatements(b []byte, r *Request, withTimeout bool) []byte {
	b = appendBool(b, 1, r.Transaction)
	for i := range r.Statements {
		b = appendMessage(b, 2, func(b []byte) []byte { return appendStatement(b, &r.Statements[i]) })
	}
	if withTimeout {
		b = appendVarint(b, 3, uint64(r.DBTimeout))
	}
	b = appendBool(b, 4, r.RollbackOnError)
	return appendBool(b, 5, r.QualifyColumns)
}

func (r *Request) decodeStatements(b []byte) error {
	return eachField(b, func(f field) error {
		switch {
		case f.num == 1:
			r.Transaction = f.bool()
		case f.num == 2 && f.message():
			s, err := decodeStatement(f.bytes)
			if err != nil {
				return err
			}
			r.Statements = append(r.Statements, s)
		case f.num == 3:
			r.DBTimeout = f.nanos()
		case f.num == 4:
			r.RollbackOnError = f.bool()
		case f.num == 5:
			r.QualifyColumns = f.bool()
		}
		return nil
	})
}

// AppendRequest appends r as an ExecuteRequest, QueryRequest or ExecuteQueryRequest, as its Kind
// says. Forward is not part of it.
func AppendRequest(dst []byte, r *Request) []byte {
	return appendRequest(dst, r, true)
}

func appendRequest(b []byte, r *Request, withTimeout bool) []byte {
	b = appendMessage(b, 1, func(b []byte) []byte { return appendStatements(b, r, withTimeout) })
	b = appendBool(b, 2, r.Timings)
	if r.Kind == Execute {
		return b
	}
	b = appendVarint(b, 3, uint64(r.Level))
	b = appendVarint(b, 4, uint64(r.Freshness))
	b = appendBool(b, 5, r.FreshnessStrict)
	return appendVarint(b, 6, uint64(r.LinearizableTimeout))
}

// DecodeRequest decodes what AppendRequest wrote for a request of kind k. A level that it does
// not know becomes Weak. It fails with ErrMalformed.
func DecodeRequest(k Kind, b []byte) (*Request, error) {
	r := &Request{Kind: k}
	err := eachField(b, func(f field) error {
		switch {
		case f.num == 1 && f.message():
			return r.decodeStatements(f.bytes)
		case f.num == 2:
			r.Timings = f.bool()
		case k == Execute:
		case f.num == 3:
			r.Level = Weak
			if f.bits <= uint64(Linearizable) {
				r.Level = Level(f.bits)
			}
		case f.num == 4:
			r.Freshness = f.nanos()
		case f.num == 5:
			r.FreshnessStrict = f.bool()
		case f.num == 6:
			r.LinearizableTimeout = f.nanos()
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("decode %s: %w", k, err)
	}
	return r, nil
}
