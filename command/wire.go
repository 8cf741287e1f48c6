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

// Field is one decoded field of a message: Bytes if it is length-delimited, else the Bits of a
// number.
type Field struct {
	Num   protowire.Number
	Type  protowire.Type
	Bits  uint64
	Bytes []byte // part of the message
}

// Message reports whether f is length-delimited: a message, bytes or text.
func (f Field) Message() bool { return f.Type == protowire.BytesType }

// Bool returns f as a truth value.
func (f Field) Bool() bool { return f.Bits != 0 }

// Text returns f as text, which need not be UTF-8.
func (f Field) Text() string { return string(f.Bytes) }

func (f Field) float() float64       { return math.Float64frombits(f.Bits) }
func (f Field) nanos() time.Duration { return time.Duration(f.Bits) }

// EachField calls visit for every field of the message b, in their order. It fails with
// ErrMalformed if b is not a message, or with visit's error.
func EachField(b []byte, visit func(Field) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return fmt.Errorf("%w: %w", ErrMalformed, protowire.ParseError(n))
		}
		b = b[n:]
		f := Field{Num: num, Type: typ}
		switch typ {
		case protowire.VarintType:
			f.Bits, n = protowire.ConsumeVarint(b)
		case protowire.Fixed64Type:
			f.Bits, n = protowire.ConsumeFixed64(b)
		case protowire.BytesType:
			f.Bytes, n = protowire.ConsumeBytes(b)
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

// AppendVarint appends a field that holds v, or nothing if v is 0.
func AppendVarint(b []byte, num protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), v)
}

// AppendBool appends a field that holds v, or nothing if v is false.
func AppendBool(b []byte, num protowire.Number, v bool) []byte {
	if !v {
		return b
	}
	return AppendVarint(b, num, 1)
}

// AppendString appends a field that holds s, or nothing if s is empty.
func AppendString(b []byte, num protowire.Number, s string) []byte {
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
	b = AppendString(b, 6, p.Name)
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
	err := EachField(b, func(f Field) error {
		switch {
		case f.Num == 1 && f.Type == protowire.VarintType:
			p.Value = protowire.DecodeZigZag(f.Bits)
		case f.Num == 2 && f.Type == protowire.Fixed64Type:
			p.Value = f.float()
		case f.Num == 3 && f.Type == protowire.VarintType:
			p.Value = f.Bool()
		case f.Num == 4 && f.Message():
			p.Value = append([]byte{}, f.Bytes...)
		case f.Num == 5 && f.Message():
			p.Value = f.Text()
		case f.Num == 6 && f.Message():
			p.Name = f.Text()
		}
		return nil
	})
	return p, err
}

// appendStatement appends the body of a Statement.
func appendStatement(b []byte, s *Statement) []byte {
	b = AppendString(b, 1, s.SQL)
	for _, p := range s.Params {
		b = appendMessage(b, 2, func(b []byte) []byte { return appendParam(b, p) })
	}
	b = AppendBool(b, 3, s.Returning)
	return AppendBool(b, 5, s.Explain)
}

func decodeStatement(b []byte) (Statement, error) {
	var s Statement
	err := EachField(b, func(f Field) error {
		switch {
		case f.Num == 1 && f.Message():
			s.SQL = f.Text()
		case f.Num == 2 && f.Message():
			p, err := decodeParam(f.Bytes)
			if err != nil {
				return err
			}
			s.Params = append(s.Params, p)
		case f.Num == 3:
			s.Returning = f.Bool()
		case f.Num == 5:
			s.Explain = f.Bool()
		}
		return nil
	})
	return s, err
}

// appendStatements appends the body of a Request message. It leaves dbTimeout out unless withTimeout:
// a log entry must not hold it.
func appendStatements(b []byte, r *Request, withTimeout bool) []byte {
	b = AppendBool(b, 1, r.Transaction)
	for i := range r.Statements {
		b = appendMessage(b, 2, func(b []byte) []byte { return appendStatement(b, &r.Statements[i]) })
	}
	if withTimeout {
		b = AppendVarint(b, 3, uint64(r.DBTimeout))
	}
	b = AppendBool(b, 4, r.RollbackOnError)
	return AppendBool(b, 5, r.QualifyColumns)
}

func (r *Request) decodeStatements(b []byte) error {
	return EachField(b, func(f Field) error {
		switch {
		case f.Num == 1:
			r.Transaction = f.Bool()
		case f.Num == 2 && f.Message():
			s, err := decodeStatement(f.Bytes)
			if err != nil {
				return err
			}
			r.Statements = append(r.Statements, s)
		case f.Num == 3:
			r.DBTimeout = f.nanos()
		case f.Num == 4:
			r.RollbackOnError = f.Bool()
		case f.Num == 5:
			r.QualifyColumns = f.Bool()
		}
		return nil
	})
}

// Bounds of a request, wherever it comes from. What is in the log already is not subject to them.
const (
	MaxStatements = 1 << 18
	MaxParams     = 1 << 22 // of all statements
)

// CountRequest returns the number of statements and of parameters in the message b, that of a request of any
// kind, without taking memory for them. It fails with ErrMalformed.
func CountRequest(b []byte) (statements, params int, err error) {
	err = eachMessage(b, 1, func(request []byte) error {
		return eachMessage(request, 2, func(statement []byte) error {
			statements++
			return eachMessage(statement, 2, func([]byte) error {
				params++
				return nil
			})
		})
	})
	return statements, params, err
}

// eachMessage calls visit for the messages in the fields num of the message b.
func eachMessage(b []byte, num protowire.Number, visit func([]byte) error) error {
	return EachField(b, func(f Field) error {
		if f.Num == num && f.Message() {
			return visit(f.Bytes)
		}
		return nil
	})
}

// AppendRequest appends r as an ExecuteRequest, QueryRequest or ExecuteQueryRequest, as its Kind
// says. Forward is not part of it.
func AppendRequest(dst []byte, r *Request) []byte {
	return appendRequest(dst, r, true)
}

// appendRequest leaves out what a log entry does not hold, unless r is forwarded.
func appendRequest(b []byte, r *Request, forwarded bool) []byte {
	b = appendMessage(b, 1, func(b []byte) []byte { return appendStatements(b, r, forwarded) })
	b = AppendBool(b, 2, r.Timings)
	if forwarded && r.Seed != 0 {
		b = protowire.AppendFixed64(protowire.AppendTag(b, fieldSeed, protowire.Fixed64Type), r.Seed)
	}
	if r.Kind == Execute {
		return b
	}
	b = AppendVarint(b, 3, uint64(r.Level))
	b = AppendVarint(b, 4, uint64(r.Freshness))
	b = AppendBool(b, 5, r.FreshnessStrict)
	return AppendVarint(b, 6, uint64(r.LinearizableTimeout))
}

// DecodeRequest decodes what AppendRequest wrote for a request of kind k. A level that it does
// not know becomes Weak. It fails with ErrMalformed.
func DecodeRequest(k Kind, b []byte) (*Request, error) {
	r := &Request{Kind: k}
	err := EachField(b, func(f Field) error {
		switch {
		case f.Num == 1 && f.Message():
			return r.decodeStatements(f.Bytes)
		case f.Num == 2:
			r.Timings = f.Bool()
		case f.Num == fieldSeed && f.Type == protowire.Fixed64Type:
			r.Seed = f.Bits
		case k == Execute:
		case f.Num == 3:
			r.Level = Weak
			if f.Bits <= uint64(Linearizable) {
				r.Level = Level(f.Bits)
			}
		case f.Num == 4:
			r.Freshness = f.nanos()
		case f.Num == 5:
			r.FreshnessStrict = f.Bool()
		case f.Num == 6:
			r.LinearizableTimeout = f.nanos()
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("decode %s: %w", k, err)
	}
	return r, nil
}
