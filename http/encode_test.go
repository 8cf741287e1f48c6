package http

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"

	"rqlited/command"
)

// largeResult is too large to be written at once.
func largeResult() *command.Response {
	values := make([][]any, 5000)
	for i := range values {
		values[i] = []any{float64(i), strings.Repeat("<x>", i%50), nil, true}
	}
	return answerOf(rows([]string{"a", "b", "c", "d"}, []string{"real", "text", "", "boolean"}, values...), write(1, 1, 0.5))
}

// TestLargeResult checks that nothing is lost or doubled where one write ends and the next begins.
func TestLargeResult(t *testing.T) {
	resp := largeResult()
	for _, associative := range []bool{false, true} {
		var out bytes.Buffer
		writes := 0
		e := &encoder{form: form{associative: associative}, w: writerFunc(func(b []byte) { writes++; out.Write(b) })}
		e.finish(resp, "", 0)
		if writes < 3 {
			t.Errorf("%d writes; want several", writes)
		}
		var got struct {
			Results []struct {
				Values [][]any
				Rows   []map[string]any
				Time   float64
			}
		}
		if err := json.Unmarshal(out.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		want := resp.Results[0].Rows.Values
		if len(got.Results) != 2 || got.Results[1].Time != 0.5 || len(got.Results[0].Values)+len(got.Results[0].Rows) != len(want) {
			t.Fatalf("%d results", len(got.Results))
		}
		for i, row := range want {
			if !associative && !reflect.DeepEqual(got.Results[0].Values[i], row) {
				t.Fatalf("row %d = %v; want %v", i, got.Results[0].Values[i], row)
			}
			if object := map[string]any{"a": row[0], "b": row[1], "c": row[2], "d": row[3]}; associative && !reflect.DeepEqual(got.Results[0].Rows[i], object) {
				t.Fatalf("row %d = %v; want %v", i, got.Results[0].Rows[i], object)
			}
		}
	}
}

// failingWriter counts writes and fails them all.
type failingWriter struct{ writes int }

func (w *failingWriter) Write([]byte) (int, error) {
	w.writes++
	return 0, errors.New("broken pipe")
}

// TestClientGone checks that encoding ends with the first write that fails.
func TestClientGone(t *testing.T) {
	for _, associative := range []bool{false, true} {
		w := &failingWriter{}
		e := &encoder{form: form{associative: associative}, w: w}
		e.finish(largeResult(), "", 0)
		if w.writes != 1 || e.err == nil {
			t.Errorf("%d writes, error %v; want one write", w.writes, e.err)
		}
	}
}

// TestMalformedRows checks that a result of another node that does not fit together ends nothing.
func TestMalformedRows(t *testing.T) {
	resp := answerOf(rows([]string{"a", "b"}, []string{"text"}, []any{"x"}))
	var out bytes.Buffer
	e := &encoder{form: form{associative: true}, w: &out}
	e.finish(resp, "", 0)
	if got, want := out.String(), `{"results":[{"types":{"a":"text","b":""},"rows":[{"a":"x","b":null}]}]}`; got != want {
		t.Errorf("result = %s; want %s", got, want)
	}
}

func TestUnrepresentable(t *testing.T) {
	tests := []struct {
		form form
		v    float64
		want string
	}{
		{form{kind: command.Query}, inf, `{"error":"JSON cannot represent the value +Inf"}`},
		{form{kind: command.Unified}, -inf, `{"error":"JSON cannot represent the value -Inf"}`},
		{form{kind: command.Query, associative: true}, -inf, `{"rows":[],"error":"JSON cannot represent the value -Inf"}`},
	}
	for _, tt := range tests {
		e := &encoder{form: tt.form}
		r := rows([]string{"a"}, []string{"real"}, []any{1.5}, []any{tt.v})
		if err := e.Take(&r, false); err != nil {
			t.Fatal(err)
		}
		if got := strings.TrimPrefix(string(e.buf), `{"results":[`); got != tt.want {
			t.Errorf("result = %s; want %s", got, tt.want)
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	resp := largeResult()
	b.ReportAllocs()
	for b.Loop() {
		e := &encoder{w: io.Discard}
		e.finish(resp, "", 0)
	}
}

func BenchmarkDecode(b *testing.B) {
	body := []byte("[" + strings.Repeat(`["INSERT INTO foo(name, age) VALUES(?, ?)","fiona",20],`, 999) + `"SELECT 1"]`)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := decodeStatements(body, 1000); err != nil {
			b.Fatal(err)
		}
	}
}
