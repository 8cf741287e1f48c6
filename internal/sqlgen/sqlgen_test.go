package sqlgen

import (
	"encoding/json"
	"reflect"
	"testing"
	"unicode/utf8"
)

func TestSameSeedSameProgram(t *testing.T) {
	a, b, other := New(7), New(7), New(8)
	differs := false
	for i := range 2000 {
		x, y := a.Next(), b.Next()
		if !reflect.DeepEqual(x, y) {
			t.Fatalf("batch %d is %+v and %+v", i, x, y)
		}
		differs = differs || !reflect.DeepEqual(x, other.Next())
	}
	if !differs {
		t.Error("another seed gives the same program")
	}
}

// TestBatches looks at what users of the package rely on.
func TestBatches(t *testing.T) {
	classes := map[string]int{}
	types := map[reflect.Type]int{}
	var unified, transactions, named, positional, longest int
	g := New(1)
	for i := range 5000 {
		b := g.Next()
		if len(b.Statements) == 0 {
			t.Fatalf("batch %d is empty", i)
		}
		if b.Unified {
			unified++
		}
		if b.Transaction {
			transactions++
		}
		for _, st := range b.Statements {
			classes[st.Class()]++
			longest = max(longest, len(st.SQL))
			if len(st.Args) > 0 && len(st.Named) > 0 {
				t.Fatalf("positional and named values: %+v", st)
			}
			if len(st.Args) > 0 {
				positional++
			}
			if len(st.Named) > 0 {
				named++
			}
			if !utf8.ValidString(st.SQL) {
				t.Fatalf("no JSON can hold %q", st.SQL)
			}
			for _, v := range st.Args {
				types[reflect.TypeOf(v)]++
				checkValue(t, v)
			}
			for _, v := range st.Named {
				checkValue(t, v)
			}
		}
	}
	for _, list := range [][]maker{writes, reads, structural, upkeep, wrong, unwanted} {
		for _, m := range list {
			if classes[m.class] < 5 {
				t.Errorf("%q is made %d times", m.class, classes[m.class])
			}
		}
	}
	for _, v := range []any{nil, int64(0), 0.0, false, "", []byte{}} {
		if types[reflect.TypeOf(v)] < 50 {
			t.Errorf("%d values of type %T", types[reflect.TypeOf(v)], v)
		}
	}
	if unified < 500 || transactions < 500 || named < 500 || positional < 500 || longest > 20000 {
		t.Errorf("%d unified, %d transactions, %d and %d statements with values, longest %d", unified, transactions, named, positional, longest)
	}
}

// checkValue fails the test if v does not survive JSON, in which a number has a fraction or an
// exponent exactly if it is a float64.
func checkValue(t *testing.T, v any) {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	switch v := v.(type) {
	case nil, bool, []byte:
		return
	case int64:
		var back int64
		if err := json.Unmarshal(b, &back); err != nil || back != v {
			t.Fatalf("%d comes as %s out of JSON", v, b)
		}
	case float64:
		var whole int64
		var back float64
		if err := json.Unmarshal(b, &back); err != nil || back != v || json.Unmarshal(b, &whole) == nil {
			t.Fatalf("%g comes as %s out of JSON", v, b)
		}
	case string:
		var back string
		if err := json.Unmarshal(b, &back); err != nil || back != v {
			t.Fatalf("%q comes as %q out of JSON", v, back)
		}
	default:
		t.Fatalf("value %v has type %T", v, v)
	}
}
