package command

import "testing"

func TestParseLevel(t *testing.T) {
	tests := []struct {
		in   string
		want Level
	}{
		{"", Weak}, // an absent parameter
		{"none", None},
		{"STRONG", Strong}, // case does not matter
		{"linearizable", Linearizable},
		{"auto", Auto},
		{"quorum", Weak}, // neither does nonsense
	}
	for _, tt := range tests {
		t.Run(tt.in, func(t *testing.T) {
			if got := ParseLevel(tt.in); got != tt.want {
				t.Errorf("ParseLevel(%q) = %v; want %v", tt.in, got, tt.want)
			}
		})
	}
}
