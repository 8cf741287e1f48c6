package command

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

// goldenEntries returns the entries in testdata/entries.txt: source, command and data of each.
func goldenEntries(t testing.TB) [][3]string {
	t.Helper()
	b, err := os.ReadFile("testdata/entries.txt")
	if err != nil {
		t.Fatal(err)
	}
	var entries [][3]string
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] != "#" {
			data, err := hex.DecodeString(f[2])
			if err != nil {
				t.Fatal(err)
			}
			entries = append(entries, [3]string{f[0], f[1], string(data)})
		}
	}
	if len(entries) < 30 {
		t.Fatalf("only %d golden entries", len(entries))
	}
	return entries
}

// TestGoldenEntries decodes what real nodes wrote, and writes the same bytes again where neither
// a compressor nor a query's extra fields come in between.
func TestGoldenEntries(t *testing.T) {
	kinds := map[string]Kind{
		"QUERY": Query, "EXECUTE": Execute, "NOOP": Noop, "LOAD": Load,
		"EXECUTE_QUERY": Unified, "LOAD_CHUNK": LoadChunk,
	}
	for _, g := range goldenEntries(t) {
		e, err := DecodeEntry([]byte(g[2]))
		if err != nil {
			t.Errorf("%s %s: %v", g[0], g[1], err)
			continue
		}
		if e.Kind != kinds[g[1]] {
			t.Errorf("%s: kind %v, want %s", g[0], e.Kind, g[1])
		}
		got, err := EncodeEntry(nil, e)
		if err != nil {
			t.Errorf("%s %s: %v", g[0], g[1], err)
			continue
		}
		again, err := DecodeEntry(got)
		if err != nil || !reflect.DeepEqual(again, e) {
			t.Errorf("%s %s: decoded %+v, %v after encoding %+v", g[0], g[1], again, err, e)
		}
		compressed := strings.Contains(g[2], "\x1f\x8b\x08")
		if !compressed && string(got) != g[2] {
			t.Errorf("%s %s:\n got %x\nwant %x", g[0], g[1], got, g[2])
		}
	}
}

func TestEntryRoundTrip(t *testing.T) {
	long := strings.Repeat("x", compressBytes)
	tests := []struct {
		name string
		in   Entry
	}{
		{"every value", Entry{Kind: Execute, Time: time.Unix(1700000000, 5).UTC(), Seed: math.MaxUint64, Request: &Request{
			Kind: Execute, Transaction: true, Timings: true, RollbackOnError: true,
			Statements: []Statement{{SQL: "INSERT", Returning: true, Params: []Param{
				{Name: "n", Value: nil}, {Value: int64(math.MinInt64)}, {Value: 1.5}, {Value: false}, {Value: true},
				{Value: []byte{}}, {Value: []byte{0, 255}}, {Value: ""}, {Value: "a\x00\xff"},
			}}, {SQL: "EXPLAIN", Explain: true}, {}},
		}}},
		{"foreign keys on", Entry{Kind: Execute, ForeignKeys: On, Request: &Request{Kind: Execute}}},
		{"foreign keys off", Entry{Kind: Load, ForeignKeys: Off, Data: []byte("x")}},
		{"extensions", Entry{Kind: Execute, ForeignKeys: Off, Extensions: "00 a.so\n", Request: &Request{Kind: Execute}}},
		{"mark", Entry{Kind: Noop, Hash: true}},
		{"upkeep", Entry{Kind: Execute, Upkeep: Optimize, Request: &Request{Kind: Execute, Statements: []Statement{{SQL: "ANALYZE"}}}}},
		{"before 1970", Entry{Kind: Noop, Time: time.Unix(-1, 0).UTC()}},
		{"query", Entry{Kind: Query, Request: &Request{Kind: Query, Level: Strong, Freshness: time.Second,
			FreshnessStrict: true, LinearizableTimeout: time.Minute, QualifyColumns: true,
			Statements: []Statement{{SQL: "SELECT 1"}}}}},
		{"compressed", Entry{Kind: Unified, Request: &Request{Kind: Unified, Statements: []Statement{{SQL: long}}}}},
		{"many statements", Entry{Kind: Execute, Request: &Request{Kind: Execute, Statements: slicesOf("SELECT 1", 600)}}},
		{"load", Entry{Kind: Load, Data: []byte("SQLite format 3\x00")}},
		{"chunk", Entry{Kind: LoadChunk, Chunk: &Chunk{Stream: "s", Sequence: 7, Last: true, Data: []byte(long)}}},
		{"last chunk without data", Entry{Kind: LoadChunk, Chunk: &Chunk{Stream: "s", Sequence: 1, Last: true}}},
		{"abort", Entry{Kind: LoadChunk, Chunk: &Chunk{Stream: "s", Abort: true}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b, err := EncodeEntry([]byte("before"), &tt.in)
			if err != nil {
				t.Fatal(err)
			}
			rest, ok := bytes.CutPrefix(b, []byte("before"))
			if !ok {
				t.Fatal("EncodeEntry did not append")
			}
			got, err := DecodeEntry(rest)
			if err != nil || !reflect.DeepEqual(got, &tt.in) {
				t.Errorf("DecodeEntry = %+v, %v; want %+v", got, err, &tt.in)
			}
			if tt.name == "compressed" && len(rest) > compressBytes/2 {
				t.Errorf("%d bytes: not compressed", len(rest))
			}
		})
	}
}

func slicesOf(sql string, n int) []Statement {
	s := make([]Statement, n)
	for i := range s {
		s[i].SQL = sql
	}
	return s
}

// TestEntryHoldsNoTimeout shows that a time limit reaches another node, but never the log. Of the seed there
// is one in an entry, its own.
func TestEntryHoldsNoTimeout(t *testing.T) {
	req := &Request{Kind: Execute, DBTimeout: time.Second, Seed: 7, Statements: []Statement{{SQL: "x"}}}
	b, err := EncodeEntry(nil, &Entry{Kind: Execute, Request: req})
	if err != nil {
		t.Fatal(err)
	}
	e, err := DecodeEntry(b)
	if err != nil || e.Request.DBTimeout != 0 || e.Request.Seed != 0 {
		t.Errorf("entry has timeout %v, seed %d, %v; want none", e.Request.DBTimeout, e.Request.Seed, err)
	}
	forwarded, err := DecodeRequest(Execute, AppendRequest(nil, req))
	if err != nil || forwarded.DBTimeout != time.Second || forwarded.Seed != 7 {
		t.Errorf("forwarded request has timeout %v, seed %d, %v; want 1s, 7", forwarded.DBTimeout, forwarded.Seed, err)
	}
}

func TestDecodeEntryMalformed(t *testing.T) {
	for _, in := range []string{"\x08", "\x12\xff\xff\xff\xff\x0f", "\x08\x02\x12\x02\x0a\x05", "\x08\x04\x12\x01x", "\x08\x02\x12\x01x\x18\x01"} {
		if e, err := DecodeEntry([]byte(in)); !errors.Is(err, ErrMalformed) {
			t.Errorf("DecodeEntry(%q) = %+v, %v; want ErrMalformed", in, e, err)
		}
	}
}

// TestEntryFieldsOfOurs pins the bytes of what rqlite does not have, and what becomes of values that
// this version does not know: an entry that might mean something else to another node is no entry.
func TestEntryFieldsOfOurs(t *testing.T) {
	tests := []struct {
		name, in string
		want     *Entry // nil: ErrMalformed
	}{
		{"every field", "\x08\x03\x12\x00\xc0\x3e\x0a\xc9\x3e\x07\x00\x00\x00\x00\x00\x00\x00\xd0\x3e\x02\xd8\x3e\x01\xea\x3e\x01x",
			&Entry{Kind: Noop, Time: time.Unix(0, 5).UTC(), Seed: 7, ForeignKeys: On, Hash: true, Extensions: "x"}},
		{"off", "\x08\x03\x12\x00\xd0\x3e\x01", &Entry{Kind: Noop, ForeignKeys: Off}},
		{"upkeep", "\x08\x03\x12\x00\xe0\x3e\x02", &Entry{Kind: Noop, Upkeep: Optimize}},
		{"a later field", "\x08\x03\x12\x00\xf0\x3e\x01", &Entry{Kind: Noop}},
		{"foreign keys are 3", "\x08\x03\x12\x00\xd0\x3e\x03", nil},
		{"foreign keys are 2^64-1", "\x08\x03\x12\x00\xd0\x3e\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", nil},
		{"foreign keys are text", "\x08\x03\x12\x00\xd2\x3e\x01x", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := DecodeEntry([]byte(tt.in))
			if tt.want == nil {
				if !errors.Is(err, ErrMalformed) {
					t.Errorf("DecodeEntry = %+v, %v; want ErrMalformed", got, err)
				}
				return
			}
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Fatalf("DecodeEntry = %+v, %v; want %+v", got, err, tt.want)
			}
			if b, err := EncodeEntry(nil, got); err != nil || string(b) != tt.in && tt.name != "a later field" {
				t.Errorf("EncodeEntry = %x, %v; want %x", b, err, tt.in)
			}
		})
	}
}

func TestEncodeEntryRefuses(t *testing.T) {
	if _, err := EncodeEntry(nil, &Entry{Kind: 9}); err == nil {
		t.Error("an entry of an unknown kind was encoded")
	}
}

func FuzzDecodeEntry(f *testing.F) {
	for _, g := range goldenEntries(f) {
		f.Add([]byte(g[2]))
	}
	f.Add([]byte("\x08\x02\x12\x02\x0a\x00\xc0\x3e\x0a\xc9\x3e\x07\x00\x00\x00\x00\x00\x00\x00\xd0\x3e\x02\xd8\x3e\x01"))
	f.Add([]byte("\x08\x03\x12\x00\xd0\x3e\x03"))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := DecodeEntry(b)
		if err != nil || e.Request == nil && e.Chunk == nil && e.Kind != Noop {
			return
		}
		enc, err := EncodeEntry(nil, e)
		if err != nil {
			t.Fatal(err)
		}
		again, err := DecodeEntry(enc)
		if err != nil {
			t.Fatalf("%v after encoding %+v", err, e)
		}
		enc2, err := EncodeEntry(nil, again)
		if err != nil || !bytes.Equal(enc, enc2) {
			t.Fatalf("encoding is not stable: %x, then %x, %v", enc, enc2, err)
		}
	})
}
