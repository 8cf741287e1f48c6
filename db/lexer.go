package db

import "strings"

type tokenKind uint8

const (
	tokenEnd tokenKind = iota
	tokenSemicolon
	tokenWord   // a keyword or a name
	tokenQuoted // a text, or a name in quotes
	tokenOther
)

// token is one token of SQL.
type token struct {
	kind tokenKind
	text string // as written
}

// is says whether t is the given keyword, written in upper case.
func (t token) is(keyword string) bool {
	return t.kind == tokenWord && len(t.text) == len(keyword) && strings.EqualFold(t.text, keyword)
}

func (t token) ends() bool { return t.kind == tokenEnd || t.kind == tokenSemicolon }

// name returns what t stands for as a name.
func (t token) name() string {
	if t.kind != tokenQuoted || len(t.text) < 2 {
		return t.text
	}
	q := t.text[0]
	if q == '[' {
		return t.text[1 : len(t.text)-1]
	}
	return strings.ReplaceAll(t.text[1:len(t.text)-1], string([]byte{q, q}), string(q))
}

// lexer cuts SQL into tokens by SQLite's rules, as far as finding the ends of statements, their
// keywords and names needs them.
type lexer struct{ rest string }

func (l *lexer) next() token {
	l.skipBlanks()
	s := l.rest
	if s == "" || s[0] == 0 { // SQLite reads no further than a zero byte
		l.rest = ""
		return token{}
	}
	n := 1
	kind := tokenOther
	switch b := s[0]; {
	case b == ';':
		kind = tokenSemicolon
	case b == '\'' || b == '"' || b == '`':
		kind, n = tokenQuoted, quotedLen(s)
	case b == '[':
		kind = tokenQuoted
		if i := strings.IndexByte(s, ']'); i >= 0 {
			n = i + 1
		} else {
			n = len(s)
		}
	case wordByte(b):
		kind = tokenWord
		for n < len(s) && wordByte(s[n]) {
			n++
		}
	}
	l.rest = s[n:]
	return token{kind, s[:n]}
}

// skipBlanks skips white space and comments.
func (l *lexer) skipBlanks() {
	for s := l.rest; ; {
		switch {
		case s != "" && strings.IndexByte(" \t\n\f\r", s[0]) >= 0:
			s = s[1:]
		case strings.HasPrefix(s, "\ufeff"): // a byte order mark
			s = s[len("\ufeff"):]
		case strings.HasPrefix(s, "--"):
			if i := strings.IndexByte(s, '\n'); i >= 0 {
				s = s[i+1:]
			} else {
				s = ""
			}
		case strings.HasPrefix(s, "/*"):
			if i := strings.Index(s[2:], "*/"); i >= 0 {
				s = s[2+i+2:]
			} else {
				s = ""
			}
		default:
			l.rest = s
			return
		}
	}
}

// quotedLen returns the length of the quoted text that s begins with. A doubled quote stands for
// itself.
func quotedLen(s string) int {
	for i := 1; i < len(s); i++ {
		if s[i] != s[0] {
			continue
		}
		if i+1 == len(s) || s[i+1] != s[0] {
			return i + 1
		}
		i++
	}
	return len(s)
}

func wordByte(b byte) bool {
	return b >= 0x80 || b == '_' || b == '$' || '0' <= b && b <= '9' || 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z'
}

// blank says whether SQLite finds no statement in sql.
func blank(sql string) bool {
	l := lexer{rest: sql}
	for {
		switch l.next().kind {
		case tokenEnd:
			return true
		case tokenSemicolon:
		default:
			return false
		}
	}
}
