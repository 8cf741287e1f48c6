package rewrite

import (
	"regexp"
	"strings"
)

type kind uint8

const (
	end     kind = iota
	word         // a keyword, or a name without quotes
	quoted       // a name in double quotes, backticks or brackets
	literal      // a text in single quotes, or a blob
	number
	variable
	symbol // one of ; ( ) , . or an operator
	illegal
)

// token is one token of SQL.
type token struct {
	kind kind
	text string // as written
	at   int    // where it begins
}

// is says whether t is the symbol, or the word, which is given in upper case.
func (t token) is(text string) bool {
	return t.text == text && t.kind == symbol || t.kind == word && len(t.text) == len(text) && strings.EqualFold(t.text, text)
}

// ends reports whether t is the end of a statement.
func (t token) ends() bool { return t.kind == end || t.is(";") }

// name returns what t stands for as a name or a text.
func (t token) name() string {
	switch {
	case t.kind != quoted && t.kind != literal || len(t.text) < 2:
		return t.text
	case t.text[0] == '[':
		return t.text[1 : len(t.text)-1]
	}
	q := t.text[:1]
	return strings.ReplaceAll(t.text[1:len(t.text)-1], q+q, q)
}

// lexer cuts SQL into tokens as SQLite does.
type lexer struct {
	src string
	pos int
}

// ahead returns the n-th token after the one read last, and reads none.
func (l lexer) ahead(n int) (t token) {
	for range n {
		t = l.next()
	}
	return t
}

func (l *lexer) next() token {
	l.skipBlanks()
	rest := l.src[l.pos:]
	t := token{at: l.pos}
	if rest == "" {
		return t
	}
	var n int
	t.kind, n = measure(rest)
	t.text = rest[:n]
	l.pos += n
	return t
}

// skipBlanks skips white space and comments.
func (l *lexer) skipBlanks() {
	for {
		rest := l.src[l.pos:]
		switch {
		case rest != "" && strings.IndexByte(" \t\n\f\r", rest[0]) >= 0:
			l.pos++
		case strings.HasPrefix(rest, "\ufeff"): // a byte order mark
			l.pos += len("\ufeff")
		case strings.HasPrefix(rest, "--"):
			l.pos += upTo(rest, 2, "\n")
		case strings.HasPrefix(rest, "/*") && len(rest) > 2:
			l.pos += upTo(rest, 2, "*/")
		default:
			return
		}
	}
}

// upTo returns where in s what, which is looked for from a place on, ends; the end of s if it is not there.
func upTo(s string, from int, what string) int {
	if i := strings.Index(s[from:], what); i >= 0 {
		return from + i + len(what)
	}
	return len(s)
}

// operators are those of more than one byte, the longer ones first.
var operators = []string{"->>", "->", "<=", "<>", "<<", ">=", ">>", "==", "!=", "||"}

// measure returns kind and length of the token that s begins with.
func measure(s string) (kind, int) {
	c := s[0]
	switch {
	case (c == 'x' || c == 'X') && len(s) > 1 && s[1] == '\'':
		k, n := text(s[1:])
		return k, n + 1
	case wordByte(c) && !digit(c) && c != '$':
		return word, span(s, wordByte)
	case digit(c) || c == '.' && len(s) > 1 && digit(s[1]):
		return numeral(s)
	case c == '\'' || c == '"' || c == '`':
		return text(s)
	case c == '[':
		if n := upTo(s, 1, "]"); s[n-1] == ']' && n > 1 {
			return quoted, n
		}
		return illegal, len(s)
	case c == '?':
		return variable, 1 + span(s[1:], digit)
	case c == '$' || c == '@' || c == ':' || c == '#':
		return parameter(s)
	}
	for _, op := range operators {
		if strings.HasPrefix(s, op) {
			return symbol, len(op)
		}
	}
	if strings.IndexByte(";(),.*/%+-~<>=&|", c) >= 0 {
		return symbol, 1
	}
	return illegal, 1
}

// text measures what stands between quotes; a doubled quote stands for itself.
func text(s string) (kind, int) {
	k := quoted
	if s[0] == '\'' {
		k = literal
	}
	for i := 1; i < len(s); i++ {
		if s[i] != s[0] {
			continue
		}
		if i+1 == len(s) || s[i+1] != s[0] {
			return k, i + 1
		}
		i++
	}
	return illegal, len(s)
}

var numbers = regexp.MustCompile(`^(0[xX][0-9a-fA-F_]+|[0-9_]*(\.[0-9_]*)?([eE][+-]?[0-9][0-9_]*)?)`)

func numeral(s string) (kind, int) {
	n := numbers.FindStringIndex(s)[1]
	if more := span(s[n:], wordByte); more > 0 {
		return illegal, n + more
	}
	return number, n
}

// parameter measures a named parameter, which may be one of Tcl: $a::b(c).
func parameter(s string) (kind, int) {
	n := 1 + span(s[1:], func(c byte) bool { return wordByte(c) || c == ':' })
	if n == 1 {
		return illegal, n
	}
	if n < len(s) && s[n] == '(' {
		n = upTo(s, n, ")")
	}
	return variable, n
}

// span returns how many bytes at the beginning of s are in a class.
func span(s string, in func(byte) bool) int {
	n := 0
	for n < len(s) && in(s[n]) {
		n++
	}
	return n
}

func digit(c byte) bool { return '0' <= c && c <= '9' }

func wordByte(c byte) bool {
	return c >= 0x80 || c == '_' || c == '$' || digit(c) || 'a' <= c|0x20 && c|0x20 <= 'z'
}
