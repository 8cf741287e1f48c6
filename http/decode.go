package http

import (
	"encoding/hex"
	"strconv"
	"strings"

	"rqlited/command"
)

var (
	errSyntax = badRequest("invalid JSON body")
	errShape  = badRequest("invalid request")
	errEmpty  = badRequest("no statements")
	errDepth  = tooLarge("JSON body is nested more than %d levels deep", maxDepth)
)

// decodeStatements reads the JSON array of statements that body begins with; what follows the
// array does not count. Text that is not JSON is reported before anything else that is wrong.
func decodeStatements(body []byte, maxStatements int) ([]command.Statement, error) {
	d := &decoder{scanner: scanner{b: body}, maxStatements: maxStatements, maxParams: command.MaxParams}
	d.space()
	if d.peek() != '[' {
		if !d.skip() {
			return nil, d.unreadable()
		}
		return nil, errShape
	}
	if !d.array(d.element) {
		return nil, d.unreadable()
	}
	if d.fault != nil {
		return nil, d.fault
	}
	if len(d.stmts) == 0 {
		return nil, errEmpty
	}
	return d.stmts, nil
}

// decoder builds statements. Its methods return false if reading cannot go on, because of the
// syntax or of a bound; other faults are kept, the first of them, while the syntax is read on.
type decoder struct {
	scanner
	stmts         []command.Statement
	params        int // of all statements
	maxStatements int
	maxParams     int

	fault error // the first that does not concern syntax
	bound error
}

// unreadable says why reading could not go on.
func (d *decoder) unreadable() error {
	switch {
	case d.bound != nil:
		return d.bound
	case d.deep:
		return errDepth
	}
	return errSyntax
}

func (d *decoder) fail(err error) {
	if d.fault == nil {
		d.fault = err
	}
}

// element reads one element of the outer array: a string, or an array of a string and parameters.
func (d *decoder) element() bool {
	switch {
	case d.fault != nil:
		return d.skip()
	case d.peek() == '"':
		sql, ok := d.str()
		return ok && d.statement(command.Statement{SQL: sql})
	case d.peek() == '[':
		return d.parameterised()
	}
	d.fail(errShape)
	return d.skip()
}

func (d *decoder) statement(s command.Statement) bool {
	if len(d.stmts) >= d.maxStatements {
		d.bound = tooLarge("request has more than %d statements", d.maxStatements)
		return false
	}
	d.stmts = append(d.stmts, s)
	return true
}

// parameterised reads [sql, p1, p2, …].
func (d *decoder) parameterised() bool {
	var s command.Statement
	first := true
	ok := d.array(func() bool {
		switch {
		case d.fault != nil:
			return d.skip()
		case !first && d.peek() == '{':
			return d.named(&s)
		case !first:
			v, ok := d.value()
			return ok && d.param(&s, command.Param{Value: v})
		}
		first = false
		if d.peek() != '"' {
			d.fail(errShape)
			return d.skip()
		}
		var ok bool
		s.SQL, ok = d.str()
		return ok
	})
	if !ok {
		return false
	}
	if first {
		d.fail(errShape)
	}
	return d.fault != nil || d.statement(s)
}

func (d *decoder) param(s *command.Statement, p command.Param) bool {
	d.params++
	if d.params > d.maxParams {
		d.bound = tooLarge("request has more than %d parameters", d.maxParams)
		return false
	}
	s.Params = append(s.Params, p)
	return true
}

// named reads an object of named parameters. Of members with the same name the last wins.
func (d *decoder) named(s *command.Statement) bool {
	at := map[string]int{}
	return d.object(func(name string) bool {
		if d.fault != nil {
			return d.skip()
		}
		v, ok := d.value()
		if !ok {
			return false
		}
		if i, ok := at[name]; ok {
			s.Params[i].Value = v
			return true
		}
		at[name] = len(s.Params)
		return d.param(s, command.Param{Name: name, Value: v})
	})
}

// value reads the value of a parameter.
func (d *decoder) value() (v any, ok bool) {
	switch d.peek() {
	case '"':
		s, ok := d.str()
		if b, isBlob := hexBlob(s); ok && isBlob {
			return b, true
		}
		return s, ok
	case '[':
		return d.blob()
	case '{':
		d.fail(unsupported("map[string]interface {}"))
		return nil, d.skip()
	case 't', 'f', 'n':
		return d.literal()
	}
	text, ok := d.number()
	if !ok {
		return nil, false
	}
	v, err := numberValue(text)
	if err != nil {
		d.fail(err)
	}
	return v, true
}

// numberValue returns the value of a JSON number: an int64 if it is an integer that fits, else a
// float64.
func numberValue(text string) (any, error) {
	if !strings.ContainsAny(text, ".eE") {
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			return n, nil
		}
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return nil, badRequest("invalid number %s", clip(text))
	}
	return f, nil
}

// blob reads an array of numbers 0 to 255.
func (d *decoder) blob() (v any, ok bool) {
	b := []byte{}
	ok = d.array(func() bool {
		if d.fault != nil {
			return d.skip()
		}
		switch c := d.peek(); {
		case c == '-' || c >= '0' && c <= '9':
			text, ok := d.number()
			if n, err := strconv.ParseInt(text, 10, 64); ok && (err != nil || n < 0 || n > 255) {
				d.fail(unsupported(clip(text)))
			} else {
				b = append(b, byte(n))
			}
			return ok
		default:
			d.fail(unsupported(typeNames[c]))
			return d.skip()
		}
	})
	return b, ok
}

// typeNames are the names by which clients know the types of JSON values, by first byte.
var typeNames = map[byte]string{
	'"': "string",
	't': "bool",
	'f': "bool",
	'n': "<nil>",
	'[': "[]interface {}",
	'{': "map[string]interface {}",
}

func unsupported(what string) error { return badRequest("unsupported type %s", what) }

// clip shortens the text of a number for an error: it may be as long as the body.
func clip(text string) string {
	const most = 64
	if len(text) <= most {
		return text
	}
	return text[:most] + "…"
}

// hexBlob returns the bytes of s if s is a blob literal, x'hex'.
func hexBlob(s string) ([]byte, bool) {
	s = strings.TrimSpace(s)
	if len(s) < 3 || s[0] != 'x' && s[0] != 'X' || s[1] != '\'' || s[len(s)-1] != '\'' {
		return nil, false
	}
	b, err := hex.DecodeString(s[2 : len(s)-1])
	return b, err == nil
}
