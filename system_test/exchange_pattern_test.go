package system

import "testing"

// TestPattern holds the wildcard of examples to what it may stand for.
func TestPattern(t *testing.T) {
	t.Parallel()
	tests := []struct {
		pattern, text string
		want          bool
	}{
		{`{"time":…}`, `{"time":0.5e-7}`, true},
		{`{"time": …, "n":1}`, `{"time": 12, "n":1}`, true},
		{`{"time":…}`, `{"time":"soon"}`, false},
		{`{"time":…}`, `{"time":1,"more":2}`, false},
		{`"id":"…"`, `"id":"some text"`, true},
		{"a … d", "a b c d", true},
		{"a … d", "a b\nc d", false},
		{"a\n…\nd", "a\nb\nc\nd", true},
		{"a\n…", "a\nb\nc\n", true},
		{"a\n…", "a", true},
		{"a\n…", "b", false},
		{"a\n…", "ab", false},
		{"…\nb", "a\na\nb", true},
		{"Date: …", "Date: Mon, 23 Nov 2026", true},
		{`a.*`, `abc`, false},
	}
	for _, tt := range tests {
		if got := pattern(tt.pattern).MatchString(tt.text); got != tt.want {
			t.Errorf("pattern(%q) matches %q: %v; want %v", tt.pattern, tt.text, got, tt.want)
		}
	}
}
