package http

import (
	"math"
	"testing"
	"time"
)

func TestParseParamsErrors(t *testing.T) {
	tests := []struct{ query, want string }{
		{"a=%zz", `invalid URL escape "%zz"`},
		{"q=SELECT 1;", "invalid semicolon separator in query"},
		{"timeout=5", "timeout is not a valid duration"},
		{"timeout=", "timeout is not a valid duration"},
		{"timeout", "timeout is not a valid duration"},
		{"freshness=x", "freshness is not a valid duration"},
		{"db_timeout=1", "db_timeout is not a valid duration"},
		{"linearizable_timeout=1d", "linearizable_timeout is not a valid duration"},
		{"retries=", "retries is not a valid integer"},
		{"retries=1.5", "retries is not a valid integer"},
		{"trailing_logs=0x10", "trailing_logs is not a valid integer"},
		{"freshness_strict", "freshness_strict requires freshness"},
		{"q=", "query parameter not set"},
		{"q", "query parameter not set"},
		{"timeout=1s&timeout=5", ""}, // the first value counts
		{"Timeout=5", ""},            // another name
		{"pretty=false&x=y", ""},
	}
	for _, tt := range tests {
		t.Run(tt.query, func(t *testing.T) {
			_, err := parseParams(tt.query)
			got := ""
			if err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("parseParams(%q) = %q; want %q", tt.query, got, tt.want)
			}
		})
	}
}

func TestParseParams(t *testing.T) {
	p, err := parseParams("pretty=false&timeout=1h2m&freshness=500ms&db_timeout=0s&linearizable_timeout=0s&retries=3&trailing_logs=-1")
	if err != nil {
		t.Fatal(err)
	}
	p.values = nil
	want := params{timeout: 62 * time.Minute, freshness: 500 * time.Millisecond, retries: 3, trailing: math.MaxUint64}
	if got := *p; got.timeout != want.timeout || got.freshness != want.freshness || got.dbTimeout != 0 ||
		got.linearizableTimeout != 0 || got.retries != want.retries || got.trailing != want.trailing {
		t.Errorf("parseParams = %+v; want %+v", got, want)
	}
}
