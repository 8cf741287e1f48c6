package http

import (
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth bounds the nesting of JSON values, as encoding/json does: each level costs stack.
const maxDepth = 10000

// scanner reads JSON (RFC 8259) from memory, accepting what encoding/json accepts. Its methods
// return false at what is not JSON; nothing can be read after that. Each begins at the first byte
// of a value.
type scanner struct {
	b     []byte
	i     int // the next byte
	depth int
	deep  bool // beyond maxDepth, which is why nothing more can be read
}

// peek returns the next byte, or 0 at the end.
func (s *scanner) peek() byte {
	if s.i < len(s.b) {
		return s.b[s.i]
	}
	return 0
}

// space skips white space.
func (s *scanner) space() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\t', '\n', '\r':
			s.i++
		default:
			return
		}
	}
}

// next skips white space and, if it is c, the byte after it.
func (s *scanner) next(c byte) bool {
	s.space()
	if s.peek() != c {
		return false
	}
	s.i++
	return true
}

// array reads an array, whose elements are read by element.
func (s *scanner) array(element func() bool) bool {
	return s.list('[', ']', element)
}

// object reads an object, whose values are read by member.
func (s *scanner) object(member func(name string) bool) bool {
	return s.list('{', '}', func() bool {
		if s.peek() != '"' {
			return false
		}
		name, ok := s.str()
		if !ok || !s.next(':') {
			return false
		}
		s.space()
		return member(name)
	})
}

// list reads items, separated by commas, between two brackets.
func (s *scanner) list(begin, end byte, item func() bool) bool {
	s.depth++
	defer func() { s.depth-- }()
	s.deep = s.deep || s.depth > maxDepth
	if s.deep || !s.next(begin) {
		return false
	}
	if s.next(end) {
		return true
	}
	for {
		s.space()
		if !item() {
			return false
		}
		if s.next(end) {
			return true
		}
		if !s.next(',') {
			return false
		}
	}
}

// skip reads any value and forgets it.
func (s *scanner) skip() bool {
	switch s.peek() {
	case '"':
		_, ok := s.rawString()
		return ok
	case '[':
		return s.array(s.skip)
	case '{':
		return s.object(func(string) bool { return s.skip() })
	case 't', 'f', 'n':
		_, ok := s.literal()
		return ok
	}
	_, ok := s.number()
	return ok
}

// literal reads true, false or null.
func (s *scanner) literal() (v any, ok bool) {
	rest := s.b[s.i:]
	for _, l := range []struct {
		text  string
		value any
	}{{"true", true}, {"false", false}, {"null", nil}} {
		if len(rest) >= len(l.text) && string(rest[:len(l.text)]) == l.text {
			s.i += len(l.text)
			return l.value, true
		}
	}
	return nil, false
}

// number reads a number and returns its text.
func (s *scanner) number() (text string, ok bool) {
	start := s.i
	if s.peek() == '-' {
		s.i++
	}
	if s.peek() == '0' {
		s.i++
	} else if !s.digits() {
		return "", false
	}
	if s.peek() == '.' {
		s.i++
		if !s.digits() {
			return "", false
		}
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		s.i++
		if c := s.peek(); c == '+' || c == '-' {
			s.i++
		}
		if !s.digits() {
			return "", false
		}
	}
	return string(s.b[start:s.i]), true
}

// digits skips one digit or more.
func (s *scanner) digits() bool {
	start := s.i
	for c := s.peek(); c >= '0' && c <= '9'; c = s.peek() {
		s.i++
	}
	return s.i > start
}

// str reads a string and returns its value. Like encoding/json it puts U+FFFD in place of what is
// not UTF-8 and of surrogates without their other half.
func (s *scanner) str() (string, bool) {
	raw, ok := s.rawString()
	if !ok {
		return "", false
	}
	return unescape(raw), true
}

// rawString reads a string and returns what stands between the quotes, its escapes checked.
func (s *scanner) rawString() ([]byte, bool) {
	s.i++ // the opening quote
	start := s.i
	for s.i < len(s.b) {
		switch c := s.b[s.i]; {
		case c == '"':
			s.i++
			return s.b[start : s.i-1], true
		case c < ' ':
			return nil, false
		case c == '\\':
			if !s.escape() {
				return nil, false
			}
		default:
			s.i++
		}
	}
	return nil, false
}

// escape skips an escape sequence.
func (s *scanner) escape() bool {
	rest := s.b[s.i:]
	if len(rest) < 2 {
		return false
	}
	if rest[1] == 'u' {
		s.i += 6
		_, ok := hexRune(rest)
		return ok
	}
	s.i += 2
	return strings.IndexByte(`"\/bfnrt`, rest[1]) >= 0
}

// hexRune returns the value of the \uXXXX that b begins with.
func hexRune(b []byte) (rune, bool) {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return 0, false
	}
	for _, c := range b[2:6] {
		if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F') {
			return 0, false // ParseUint would take an underscore or a sign in some bases
		}
	}
	n, err := strconv.ParseUint(string(b[2:6]), 16, 16)
	return rune(n), err == nil
}

// unescape returns the text that raw, a checked JSON string without its quotes, stands for.
func unescape(raw []byte) string {
	text := string(raw)
	if strings.IndexByte(text, '\\') < 0 {
		return repair(text)
	}
	out := make([]byte, 0, len(text))
	for i := 0; i < len(raw); {
		if raw[i] != '\\' {
			r, size := utf8.DecodeRune(raw[i:])
			out = utf8.AppendRune(out, r)
			i += size
			continue
		}
		if raw[i+1] != 'u' {
			out = append(out, unescaped(raw[i+1]))
			i += 2
			continue
		}
		r, _ := hexRune(raw[i:])
		i += 6
		if utf16.IsSurrogate(r) {
			low, _ := hexRune(raw[i:])
			if r = utf16.DecodeRune(r, low); r != utf8.RuneError {
				i += 6
			}
		}
		out = utf8.AppendRune(out, r)
	}
	return string(out)
}

// unescaped returns the byte that a backslash and c stand for.
func unescaped(c byte) byte {
	switch c {
	case 'b':
		return '\b'
	case 'f':
		return '\f'
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	}
	return c
}

// repair returns text with U+FFFD in place of each byte that is not part of UTF-8.
func repair(text string) string {
	if utf8.ValidString(text) {
		return text
	}
	return string([]rune(text))
}
