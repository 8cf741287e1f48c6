package store

import (
	"strings"
	"testing"
)

func TestParsePeers(t *testing.T) {
	tests := []struct {
		name, in string
		want     []string // parts of the error; none is success
	}{
		{"good", `[{"id":"a","address":"h:1"},{"id":"b","address":"h:2","non_voter":true}]`, nil},
		{"no list", `{"id":"a"}`, []string{"want a JSON list"}},
		{"no JSON", `nodes`, []string{"want a JSON list"}},
		{"trailer", `[{"id":"a","address":"h:1"}] x`, []string{"something follows"}},
		{"empty", `[]`, []string{"no voter"}},
		{"only non-voters", `[{"id":"a","address":"h:1","non_voter":true}]`, []string{"no voter"}},
		{
			"all faults at once",
			`[{"id":"","address":"h:1"},{"id":"b","address":"h"},{"id":"b","address":"http://h:2"},{"id":"c","address":""},{"id":"d","address":"h:1"}]`,
			[]string{"element 1: id is empty", "element 2: address \"h\" has no port", "element 3: id \"b\" is used twice",
				"element 3: address \"http://h:2\" is a URL", "element 4: address is empty", "element 5: address \"h:1\" is used twice"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parsePeers([]byte(tt.in))
			if (err != nil) != (tt.want != nil) {
				t.Fatalf("parsePeers = %v; want %q", err, tt.want)
			}
			for _, part := range tt.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("parsePeers = %v; want %q in it", err, part)
				}
			}
		})
	}
}
