package http

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"maps"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"rqlited/command"
)

func TestDecodeStatements(t *testing.T) {
	tests := []struct {
		body string
		want []command.Statement
	}{
		{`["SELECT 1"]`, []command.Statement{{SQL: "SELECT 1"}}},
		{" [ \"a\" ,\n[\"b\"]\t] ", []command.Statement{{SQL: "a"}, {SQL: "b"}}},
		{`["SELECT 1"]garbage`, []command.Statement{{SQL: "SELECT 1"}}},
		{`["",[""]]`, []command.Statement{{}, {}}},
		{`["\u0041\ud83d\ude00\ud800x\/\"\\\b\f\n\r\t"]`, []command.Statement{{SQL: "A😀\ufffdx/\"\\\b\f\n\r\t"}}},
		{"[\"a\xffb\"]", []command.Statement{{SQL: "a\ufffdb"}}},
		{`[["x",{"a":1,"b":[1]},2,{"a":3,"c":null,"a":"last"}]]`, []command.Statement{{SQL: "x", Params: []command.Param{
			{Name: "a", Value: int64(1)}, {Name: "b", Value: []byte{1}}, {Value: int64(2)}, {Name: "a", Value: "last"}, {Name: "c"},
		}}}},
		{`[["x",{}]]`, []command.Statement{{SQL: "x"}}},
	}
	for _, tt := range tests {
		t.Run(tt.body, func(t *testing.T) {
			got, err := decodeStatements([]byte(tt.body), 10)
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("decodeStatements = %+v, %v; want %+v", got, err, tt.want)
			}
		})
	}
}

func TestDecodeValue(t *testing.T) {
	tests := []struct {
		in   string
		want any
	}{
		{`9007199254740993`, int64(9007199254740993)},
		{`9223372036854775807`, int64(math.MaxInt64)},
		{`-9223372036854775808`, int64(math.MinInt64)},
		{`9223372036854775808`, 9223372036854775808.0},
		{`-0`, int64(0)},
		{`1.0`, 1.0},
		{`1e2`, 100.0},
		{`1E-400`, 0.0},
		{`true`, true},
		{`false`, false},
		{`null`, nil},
		{`"it's"`, "it's"},
		{`"a\u0000b"`, "a\x00b"},
		{`"x'00ff'"`, []byte{0, 255}},
		{`" X'AbCd'\n"`, []byte{0xab, 0xcd}},
		{`"x''"`, []byte{}},
		{`"x'0'"`, "x'0'"},
		{`"x'zz'"`, "x'zz'"},
		{`"x'"`, "x'"},
		{`"AAH/"`, "AAH/"},
		{`[0,128,255]`, []byte{0, 128, 255}},
		{`[-0]`, []byte{0}},
		{`[ ]`, []byte{}},
	}
	for _, tt := range tests {
		t.Run(tt.in, func(t *testing.T) {
			got, err := decodeStatements([]byte(`[["x",`+tt.in+`]]`), 10)
			want := []command.Statement{{SQL: "x", Params: []command.Param{{Value: tt.want}}}}
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("decodeStatements = %+v, %v; want %+v", got, err, want)
			}
		})
	}
}

func TestDecodeErrors(t *testing.T) {
	tests := []struct{ body, want string }{
		{``, "invalid JSON body"},
		{` `, "invalid JSON body"},
		{`SELECT 1`, "invalid JSON body"},
		{`["a"`, "invalid JSON body"},
		{`["a",]`, "invalid JSON body"},
		{`["a"}`, "invalid JSON body"},
		{`["a" "b"]`, "invalid JSON body"},
		{"[\"a\nb\"]", "invalid JSON body"},
		{`["\x"]`, "invalid JSON body"},
		{`["\u12g4"]`, "invalid JSON body"},
		{`[1,`, "invalid JSON body"}, // syntax comes before shape
		{`[["x",{"a" 1}]]`, "invalid JSON body"},
		{`[["x",01]]`, "invalid JSON body"},
		{`[["x",1.]]`, "invalid JSON body"},
		{`[["x",tru]]`, "invalid JSON body"},
		{`[["x",[256],}]]`, "invalid JSON body"},
		{`null`, "invalid request"},
		{`{}`, "invalid request"},
		{`{"a":[1,{"b":null}]} x`, "invalid request"},
		{`"SELECT 1"`, "invalid request"},
		{`12`, "invalid request"},
		{`[1]`, "invalid request"},
		{`["a",true]`, "invalid request"},
		{`[null]`, "invalid request"},
		{`[{}]`, "invalid request"},
		{`[[]]`, "invalid request"},
		{`[[1]]`, "invalid request"},
		{`[[null,"x"]]`, "invalid request"},
		{`[]`, "no statements"},
		{` [ ] `, "no statements"},
		{`[["x",1e400]]`, "invalid number 1e400"},
		{`[["x",` + strings.Repeat("9", 400) + `]]`, "invalid number " + strings.Repeat("9", 64) + "…"},
		{`[["x",[256]]]`, "unsupported type 256"},
		{`[["x",[-1]]]`, "unsupported type -1"},
		{`[["x",[1.5]]]`, "unsupported type 1.5"},
		{`[["x",["a"]]]`, "unsupported type string"},
		{`[["x",[true]]]`, "unsupported type bool"},
		{`[["x",[null]]]`, "unsupported type <nil>"},
		{`[["x",[[1]]]]`, "unsupported type []interface {}"},
		{`[["x",{"a":{}}]]`, "unsupported type map[string]interface {}"},
		{`[["x",{"a":{}},[256]]]`, "unsupported type map[string]interface {}"}, // the first
		{`["a","b","c"]`, "request has more than 2 statements"},
		{strings.Repeat("[", 1000000), "JSON body is nested more than 10000 levels deep"},
		{strings.Repeat(`{"a":`, 1000000), "JSON body is nested more than 10000 levels deep"},
	}
	for _, tt := range tests {
		t.Run(tt.body[:min(len(tt.body), 30)], func(t *testing.T) {
			got, err := decodeStatements([]byte(tt.body), 2)
			if err == nil || err.Error() != tt.want {
				t.Errorf("decodeStatements = %+v, %v; want %q", got, err, tt.want)
			}
		})
	}
}

func TestDecodeParamBound(t *testing.T) {
	d := &decoder{scanner: scanner{b: []byte(`[["x",1,2],["y",3]]`)}, maxStatements: 10, maxParams: 2}
	if d.array(d.element) || d.bound == nil || d.bound.Error() != "request has more than 2 parameters" {
		t.Errorf("bound = %v", d.bound)
	}
}

// FuzzDecodeStatements compares the decoder with encoding/json: what is JSON, what of it is taken, and what it
// says.
func FuzzDecodeStatements(f *testing.F) {
	for _, s := range []string{
		`["a",["b",1,-2.5e3,true,null,[1,2],"x'00'",{"n":"\ud83d\ude00\n"}]]x`, `[1,{}]`, `{"a":[]}`, "[\"\xff\"]", `[`, `[["x",1e400]]`,
		// shapes
		``, ` `, `null`, `{}`, `"SELECT 1"`, `[]`, `[[]]`, `[[1]]`, `[[null]]`, `["a",]`, `["a"}`, `["SELECT 1"]garbage`, `["",["",""]]`, `[["x"]]`, `[true]`,
		// values
		`[["x",-0,9007199254740993,9223372036854775807,-9223372036854775808,9223372036854775808,1.0,1e2,1E-400]]`, `[["x",true,false,null]]`,
		`[["x","it's","a\u0000b","\ud800","\udc00\ud800","\/"]]`, `[["x","x'00ff'"," X'AbCd'\n","x''","x'0'","x'zz'","x'","AAH/"]]`,
		`[["x",[0,128,255],[-0],[ ],[256]]]`, `[["x",[-1]]]`, `[["x",[1.5]]]`, `[["x",["a"]]]`, `[["x",[true]]]`, `[["x",[null]]]`, `[["x",[[1]]]]`, `[["x",[1e1]]]`,
		`[["x",{"a":1,"b":[1]},2,{"a":3,"c":null,"a":"last"},{}]]`, `[["x",{"a":{}}]]`, `[["x",{":a":1,"":2}]]`, `[["x",{"a":[1,"b"]}]]`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := decodeStatements(body, 1<<20)
		dec := json.NewDecoder(bytes.NewReader(body))
		dec.UseNumber()
		var v any
		jsonErr := dec.Decode(&v)
		if isSyntax := errors.Is(err, errSyntax) || errors.Is(err, errDepth); isSyntax != (jsonErr != nil) {
			t.Fatalf("decodeStatements(%q) = %v; encoding/json says %v", body, err, jsonErr)
		}
		if jsonErr == nil && (err == nil) != taken(v) {
			t.Fatalf("decodeStatements(%q) = %v; want an error: %v", body, err, !taken(v))
		}
		if err != nil {
			if len(err.Error()) > 200 {
				t.Fatalf("decodeStatements(%.100q): the error has %d bytes", body, len(err.Error()))
			}
			return
		}
		list := v.([]any)
		if len(list) != len(got) {
			t.Fatalf("decodeStatements(%q): %d statements; want %d", body, len(got), len(list))
		}
		for i, s := range got {
			compareStatement(t, s, list[i])
		}
	})
}

// taken says whether v, as encoding/json decodes it, is a list of statements.
func taken(v any) bool {
	list, ok := v.([]any)
	return ok && len(list) > 0 && !slices.ContainsFunc(list, func(element any) bool {
		if _, ok := element.(string); ok {
			return false
		}
		parts, ok := element.([]any)
		if !ok || len(parts) == 0 {
			return true
		}
		if _, ok := parts[0].(string); !ok {
			return true
		}
		return slices.ContainsFunc(parts[1:], func(param any) bool {
			if named, ok := param.(map[string]any); ok {
				return slices.ContainsFunc(slices.Collect(maps.Values(named)), func(v any) bool { return !takenValue(v) })
			}
			return !takenValue(param)
		})
	})
}

// takenValue says the same of the value of a parameter.
func takenValue(v any) bool {
	switch v := v.(type) {
	case map[string]any:
		return false
	case json.Number:
		_, err := v.Float64()
		return err == nil
	case []any:
		return !slices.ContainsFunc(v, func(b any) bool {
			n, ok := b.(json.Number)
			_, err := strconv.ParseUint(strings.TrimPrefix(n.String(), "-"), 10, 8)
			return !ok || err != nil || n[0] == '-' && n != "-0"
		})
	}
	return true
}

// compareStatement compares a statement with what encoding/json made of its element.
func compareStatement(t *testing.T, s command.Statement, element any) {
	t.Helper()
	if text, ok := element.(string); ok {
		element = []any{text}
	}
	list := element.([]any)
	if s.SQL != list[0] || !utf8.ValidString(s.SQL) {
		t.Fatalf("SQL = %q; want %q", s.SQL, list[0])
	}
	n := 0
	for _, want := range list[1:] {
		object, ok := want.(map[string]any)
		if !ok {
			compareValue(t, s.Params[n].Value, want)
			n++
			continue
		}
		for range object {
			p := s.Params[n]
			member, ok := object[p.Name]
			if !ok {
				t.Fatalf("parameter %q is not in %v", p.Name, object)
			}
			compareValue(t, p.Value, member)
			n++
		}
	}
	if n != len(s.Params) {
		t.Fatalf("%d parameters; want %d", len(s.Params), n)
	}
}

func compareValue(t *testing.T, got, want any) {
	t.Helper()
	switch want := want.(type) {
	case json.Number:
		if n, err := want.Int64(); err == nil {
			if got != n {
				t.Fatalf("value = %v; want %v", got, n)
			}
		} else if x, err := want.Float64(); err != nil || got != x {
			t.Fatalf("value = %v; want %v, %v", got, x, err)
		}
	case []any:
		b := got.([]byte)
		if len(b) != len(want) {
			t.Fatalf("blob = %v; want %v", b, want)
		}
		for i, v := range want {
			if n, err := v.(json.Number).Int64(); err != nil || n != int64(b[i]) {
				t.Fatalf("blob = %v; want %v", b, want)
			}
		}
	case string:
		literal := regexp.MustCompile(`^\s*[xX]'(([0-9a-fA-F]{2})*)'\s*$`).FindStringSubmatch(strings.TrimSpace(want))
		if b, isBlob := got.([]byte); isBlob != (literal != nil) || isBlob && !strings.EqualFold(hex.EncodeToString(b), literal[1]) {
			t.Fatalf("value = %q; want %q", got, want)
		}
		if literal == nil && got != want {
			t.Fatalf("value = %q; want %q", got, want)
		}
	default: // bool, nil
		if got != want {
			t.Fatalf("value = %v; want %v", got, want)
		}
	}
}
