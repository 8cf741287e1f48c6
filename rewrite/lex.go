package rewrite

import "strings"

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
		return blob(s)
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

func blob(s string) (kind, int) {
	n := 2 + span(s[2:], func(c byte) bool { return digit(c) || c|0x20 >= 'a' && c|0x20 <= 'f' })
	if n < len(s) && s[n] == '\'' && n%2 == 0 {
		return literal, n + 1
	}
	return illegal, upTo(s, 2, "'")
}

// numeral measures a number. Digits may be separated by single underscores.
func numeral(s string) (kind, int) {
	digits := func(c byte) bool { return digit(c) || c == '_' }
	n := 0
	if s[0] == '0' && len(s) > 2 && s[1]|0x20 == 'x' {
		n = 2 + span(s[2:], func(c byte) bool { return digits(c) || c|0x20 >= 'a' && c|0x20 <= 'f' })
	} else {
		n = span(s, digits)
		if n < len(s) && s[n] == '.' {
			n += 1 + span(s[n+1:], digits)
		}
		if e := s[n:]; len(e) > 1 && e[0]|0x20 == 'e' {
			sign := 1
			if (e[1] == '+' || e[1] == '-') && len(e) > 2 {
				sign = 2
			}
			if digit(e[sign]) {
				n += sign + span(e[sign:], digits)
			}
		}
	}
	if more := span(s[n:], wordByte); more > 0 {
		return illegal, n + more
	}
	return number, n
}

// parameter measures a named parameter, which may be one of Tcl: $a::b(c).
func parameter(s string) (kind, int) {
	i, named := 1, false
	for i < len(s) {
		switch {
		case wordByte(s[i]):
			named = true
			i++
		case strings.HasPrefix(s[i:], "::"):
			i += 2
		case s[i] == '(' && named:
			n := i + span(s[i:], func(c byte) bool { return c != ')' && strings.IndexByte(" \t\n\v\f\r", c) < 0 })
			if n < len(s) && s[n] == ')' {
				return variable, n + 1
			}
			return illegal, n
		default:
			if named {
				return variable, i
			}
			return illegal, i
		}
	}
	if named {
		return variable, i
	}
	return illegal, i
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
