package extension

import (
	"fmt"
	"strings"
	"testing"
)

func TestDifference(t *testing.T) {
	set := func(files ...string) (s Set) {
		for _, f := range files {
			name, sum, _ := strings.Cut(f, "=")
			s = append(s, File{Name: name, Sum: shorten([32]byte{0: byte(len(sum))})})
		}
		return s
	}
	var many []string
	for i := range 10 {
		many = append(many, fmt.Sprintf("%d.so", i))
	}
	tests := []struct {
		own, other Set
		want       string
	}{
		{nil, nil, ""},
		{set("a.so", "b.so"), set("a.so", "b.so"), ""},
		{nil, set("a.so"), "lacks a.so"},
		{set("a.so"), nil, "has besides a.so"},
		{set("a.so=x"), set("a.so=xx"), "has another a.so"},
		{set("a.so", "b.so=x", "c.so"), set("b.so", "c.so", "d.so"), "lacks d.so, has another b.so, has besides a.so"},
		{nil, set(many...), "lacks 0.so 1.so 2.so 3.so 4.so 5.so 6.so 7.so and 2 more"},
	}
	for _, tt := range tests {
		if got := tt.own.Difference(tt.other).String(); got != tt.want {
			t.Errorf("%v against %v: %q; want %q", tt.own.Names(), tt.other.Names(), got, tt.want)
		}
	}
}

func TestParseMalformed(t *testing.T) {
	sum := strings.Repeat("0a", sumSize)
	for _, text := range []string{
		"", "a.so", "\n", sum, sum + " ", sum + " ../a.so\n", sum[2:] + " a.so\n", sum + "0a a.so\n", "none\n",
		sum + " b.so\n" + sum + " a.so\n", sum + " a.so\n" + sum + " a.so\n", strings.Repeat(sum+" a.so\n", maxFiles+1),
	} {
		if s, err := Parse(text); err == nil {
			t.Errorf("Parse(%q) = %v", text, s)
		}
	}
}

// FuzzParse expects that what other nodes send is refused, or is a set that has no other text.
func FuzzParse(f *testing.F) {
	sum := strings.Repeat("0a", sumSize)
	for _, text := range []string{"", none, sum + " a.so\n", sum + " a.so\n" + sum + " b.so\n", sum + " a.so"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse(text)
		if err != nil {
			return
		}
		again, err := Parse(s.String())
		if err != nil || s.Difference(again).String() != "" || len(s) != len(again) || len(s) > maxFiles {
			t.Errorf("Parse(%q) = %v; again %v, %v", text, s, again, err)
		}
	})
}
