package command

import (
	"encoding/hex"
	"reflect"
	"strings"
	"testing"
)

// TestAppendResponse compares with the messages that rqlite 10 and 8.22.1 send.
func TestAppendResponse(t *testing.T) {
	write := func(id, rows int64) Result { return Result{Write: &Write{LastInsertID: id, RowsAffected: rows}} }
	rows := Result{Rows: &Rows{Columns: []string{"a", "b"}, Types: []string{"integer", "text"},
		Values: [][]any{{int64(1), "x"}, {int64(2), "y"}}}}
	tests := []struct {
		name string
		kind Kind
		in   Response
		want string // hexadecimal
	}{
		{"error of an execute", Execute, Response{Results: []Result{{Error: "no such table: nosuch"}}, Index: 5},
			"1217 1a15 6e6f2073756368207461626c653a206e6f73756368 1805"},
		{"two writes", Execute, Response{Results: []Result{write(0, 0), write(1, 1)}, Index: 3},
			"1202 1200 120a 1204 08011001 08011001 1803"},
		{"query", Query, Response{Results: []Result{rows}},
			"122b 0a0161 0a0162 1207696e7465676572 120474657874 1a09 0a020802 0a032a0178 1a09 0a020804 0a032a0179"},
		{"request", Unified, Response{Results: []Result{write(3, 1)}, Index: 7, Writes: 1},
			"1206 1204 08031001 1807 2001"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := hex.EncodeToString(AppendResponse(nil, tt.kind, &tt.in, ""))
			if want := strings.ReplaceAll(tt.want, " ", ""); got != want {
				t.Errorf("AppendResponse = %s; want %s", got, want)
			}
		})
	}
}

func TestResponseRoundTrip(t *testing.T) {
	in := Response{Index: 9, Results: []Result{
		{Rows: &Rows{Columns: []string{"", "b"}, Types: []string{"", "text"}, Values: [][]any{{nil, "x"}, {1.5, true}, {[]byte{1}, int64(-1)}, {}}}, Time: 0.25},
		{Rows: &Rows{}, Error: "interrupted"},
		{Write: &Write{LastInsertID: -7, RowsAffected: 2}, Time: 0.5},
		{Write: &Write{}},
		{Error: "no such table: t"},
	}}
	for _, kind := range []Kind{Execute, Unified} {
		got, errText, err := DecodeResponse(kind, AppendResponse(nil, kind, &in, "late"))
		if err != nil || errText != "late" || !reflect.DeepEqual(got, &in) {
			t.Errorf("%v: %+v, %q, %v; want %+v", kind, got, errText, err, &in)
		}
	}
	in.Results = in.Results[:2]
	got, _, err := DecodeResponse(Query, AppendResponse(nil, Query, &in, ""))
	if err != nil || !reflect.DeepEqual(got, &in) {
		t.Errorf("query: %+v, %v; want %+v", got, err, &in)
	}
}

// TestDecodeOldExecuteResult reads the element that releases before 8.23 send.
func TestDecodeOldExecuteResult(t *testing.T) {
	got, _, err := DecodeResponse(Execute, []byte("\x12\x00\x12\x04\x08\x01\x10\x01"))
	want := []Result{{Write: &Write{}}, {Write: &Write{LastInsertID: 1, RowsAffected: 1}}}
	if err != nil || !reflect.DeepEqual(got.Results, want) {
		t.Errorf("DecodeResponse = %+v, %v; want %+v", got, err, want)
	}
}

func FuzzDecodeResponse(f *testing.F) {
	f.Add(uint8(Execute), []byte("\x12\x04\x08\x01\x10\x01"))
	f.Add(uint8(Query), []byte("\x12\x03\x0a\x01a\x18\x05"))
	f.Fuzz(func(t *testing.T, k uint8, b []byte) {
		r, errText, err := DecodeResponse(Kind(k), b)
		if err == nil {
			AppendResponse(nil, Kind(k), r, errText)
		}
	})
}
