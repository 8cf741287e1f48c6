package system

import (
	"slices"
	"strings"
	"testing"
)

// splitSQL cuts a script into its statements. It knows comments, quoted text and names, and the
// bodies of triggers; a byte order mark is no part of the first statement.
func splitSQL(script string) []string {
	script = strings.TrimPrefix(script, "\ufeff")
	var stmts []string
	start, depth := 0, 0
	words := 0             // in the current statement
	var trigger, seen bool // CREATE was the first word; it is a trigger
	for i := 0; i < len(script); {
		size := tokenSize(script[i:])
		token := script[i : i+size]
		i += size
		switch word := strings.ToUpper(token); {
		case word == ";" && depth == 0:
			stmts = append(stmts, strings.TrimSpace(script[start:i]))
			start, words, trigger, seen = i, 0, false, false
		case isWord(token[0]):
			words++
			seen = seen || words == 1 && word == "CREATE"
			trigger = trigger || seen && word == "TRIGGER"
			if trigger && (word == "BEGIN" || word == "CASE") {
				depth++
			}
			if trigger && word == "END" {
				depth--
			}
		}
	}
	if rest := strings.TrimSpace(script[start:]); rest != "" {
		stmts = append(stmts, rest)
	}
	return stmts
}

// tokenSize returns the length of the comment, quoted part, word or single byte that s begins with.
func tokenSize(s string) int {
	until := func(end string, from int) int {
		if at := strings.Index(s[from:], end); at >= 0 {
			return from + at + len(end)
		}
		return len(s)
	}
	switch {
	case strings.HasPrefix(s, "--"):
		return until("\n", 2)
	case strings.HasPrefix(s, "/*"):
		return until("*/", 2)
	case s[0] == '[':
		return until("]", 1)
	case strings.ContainsRune(`'"`+"`", rune(s[0])):
		return until(s[:1], 1) // a doubled quote begins the next token, which is as good
	case isWord(s[0]):
		n := 1
		for n < len(s) && isWord(s[n]) {
			n++
		}
		return n
	}
	return 1
}

func isWord(b byte) bool {
	return b == '_' || b >= 0x80 || '0' <= b && b <= '9' || 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z'
}

func TestSplitSQL(t *testing.T) {
	t.Parallel()
	tests := []struct {
		in   string
		want []string
	}{
		{"", nil},
		{"\ufeffSELECT 1;", []string{"SELECT 1;"}},
		{"SELECT 1; SELECT 2", []string{"SELECT 1;", "SELECT 2"}},
		{"SELECT 'a;b''c;'; SELECT \"x;y\", [p;q], `r;s`;", []string{"SELECT 'a;b''c;';", "SELECT \"x;y\", [p;q], `r;s`;"}},
		{"-- one; two\nSELECT 1; /* a;b */ SELECT 2;", []string{"-- one; two\nSELECT 1;", "/* a;b */ SELECT 2;"}},
		{"BEGIN; SELECT 1; END;", []string{"BEGIN;", "SELECT 1;", "END;"}},
		{
			"CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT CASE WHEN 1 THEN 2 END; DELETE FROM b; END; SELECT 1;",
			[]string{"CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT CASE WHEN 1 THEN 2 END; DELETE FROM b; END;", "SELECT 1;"},
		},
	}
	for _, tt := range tests {
		if got := splitSQL(tt.in); !slices.Equal(got, tt.want) {
			t.Errorf("splitSQL(%q) = %q; want %q", tt.in, got, tt.want)
		}
	}
}
