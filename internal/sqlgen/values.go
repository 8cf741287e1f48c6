package sqlgen

import (
	"fmt"
	"strconv"
	"strings"
)

// params are the values of the statement being made.
type params struct {
	mode  paramMode
	args  []any
	named map[string]any
}

type paramMode int

const (
	literal    paramMode = iota // values stand in the text
	positional                  // ?
	numbered                    // ?1
	named                       // :p1
)

var integerBorders = []int64{
	0, 1, -1, 2, 7, 10, 127, 128, -128, -129, 255, 32767, 32768, -32768, 65536, 1<<23 - 1, 1 << 23, 1<<31 - 1, 1 << 31, -1 << 31,
	1<<47 - 1, 1 << 47, 1<<53 + 1, 1<<62 + 1, -1 << 63, -1<<63 + 1,
}

// Those without a fraction would come as integers out of JSON.
var realBorders = []float64{
	0.5, -0.5, 0.1, 1.5, -2.75, 1e-5, 5e-324, -5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, -1.7976931348623157e308, 1e300, 123456789.125,
	3.141592653589793, 1e-300,
}

var textChoices = []string{
	"", "a", "A", "abc", "ABC", "Abc def", "é", "É", "straße", "𝒳😀", "日本語", "a'b", `a"b`, "a\nb", "1", "1.5", "-0", "1e5", "0x10", " 12 ", "NULL",
	"%", "_", "a%b", "2024-02-29 12:34:56", "2024-02-29", "now", `{"a":[1,2,{"b":null}]}`, `[1,"x",2.5,true]`, `{"a":1,"a":2}`, "{bad json",
	"lorem ipsum dolor sit amet", "the quick brown fox", "\u202eright", "e\u0301",
}

// value returns a value as the text of an expression: a literal or a placeholder.
func (g *Generator) value(v any) string {
	if g.params.mode == literal || g.fixed || g.chance(15) {
		return literalText(v)
	}
	return g.param(v)
}

func (g *Generator) param(v any) string {
	p := &g.params
	switch p.mode {
	case named:
		if p.named == nil {
			p.named = map[string]any{}
		}
		name := fmt.Sprintf("p%d", len(p.named)+1)
		p.named[name] = v
		return g.pick(":", "@", "$") + name
	case numbered:
		p.args = append(p.args, v)
		return fmt.Sprintf("?%d", len(p.args))
	case positional:
		p.args = append(p.args, v)
		return "?"
	}
	return literalText(v)
}

func literalText(v any) string {
	switch v := v.(type) {
	case nil:
		return "NULL"
	case int64:
		if v == -1<<63 {
			return "(-9223372036854775807-1)"
		}
		return strconv.FormatInt(v, 10)
	case float64:
		return strconv.FormatFloat(v, 'e', -1, 64)
	case bool:
		return strings.ToUpper(strconv.FormatBool(v))
	case string:
		if strings.ContainsRune(v, 0) {
			return fmt.Sprintf("CAST(x'%x' AS TEXT)", v)
		}
		return quote(v)
	case []byte:
		return fmt.Sprintf("x'%x'", v)
	}
	return "NULL"
}

func (g *Generator) integer() int64 {
	switch g.n(10) {
	case 0:
		if g.chance(10) {
			return 1<<63 - 1
		}
		return integerBorders[g.n(len(integerBorders))]
	case 1:
		return int64(g.n(100000)) - 50000
	}
	return int64(g.n(90))
}

func (g *Generator) text() string {
	switch g.n(10) {
	case 0:
		return strings.Repeat(textChoices[g.n(len(textChoices))]+" ", g.n(200))
	case 1:
		g.serial++
		return fmt.Sprintf("%c%d", 'a'+g.n(26), g.serial)
	case 2:
		return "a\x00b" + textChoices[g.n(len(textChoices))]
	case 3:
		var words []string
		for range 1 + g.n(9) {
			words = append(words, g.word())
		}
		return strings.Join(words, " ")
	}
	return textChoices[g.n(len(textChoices))]
}

func (g *Generator) word() string {
	return g.pick("alpha", "beta", "gamma", "delta", "Alpha", "BETA", "omega", "zürich", "running", "runs", "日本", "x1", "42", "fox", "foxes")
}

func (g *Generator) bytes() []byte {
	n := g.n(40)
	if g.chance(3) {
		n = g.n(6000)
	}
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(g.dice.Uint32())
	}
	return b
}

func (g *Generator) json() string {
	switch g.n(6) {
	case 0:
		return fmt.Sprintf(`{"a":%d,"b":[%d,"%s",null,1.5],"c":{"d":true}}`, g.integer(), g.n(9), g.word())
	case 1:
		return fmt.Sprintf(`[%d,%d,"%s"]`, g.n(9), g.n(9), g.word())
	case 2:
		return fmt.Sprintf(`{"%s":{"%s":[]}}`, g.word(), g.word())
	case 3:
		return g.pick("null", "7", `"x"`, "[]", "{}", "1e5", "[1,2", `{"a":}`, "{a:1}", "")
	}
	return fmt.Sprintf(`{"a":"%s","n":%d}`, g.word(), g.n(100))
}

// valueOf returns a value that suits a column, mostly.
func (g *Generator) valueOf(k kind) string {
	if g.chance(4) {
		return g.value(nil)
	}
	if g.chance(3) {
		k = anything
	}
	switch k {
	case integers:
		if g.chance(8) {
			return g.pick("random()", "unixepoch()", "last_insert_rowid()", "changes()", "total_changes()", "abs(random())%100", "CAST(strftime('%s', 'now') AS INTEGER)")
		}
		return g.value(g.integer())
	case reals:
		if g.chance(10) {
			return g.pick("julianday('now')", "random()/1e9", "unixepoch('subsec')", "9e999", "-9e999")
		}
		if g.chance(50) {
			return g.value(float64(g.n(1000)) + 0.25)
		}
		return g.value(realBorders[g.n(len(realBorders))])
	case texts:
		if g.chance(8) {
			return g.pick("hex(randomblob(6))", "CURRENT_TIMESTAMP", "strftime('%f', 'now')", "datetime('now', '-1 day')", "printf('%s-%d', time('now'), random())", "date()")
		}
		return g.value(g.text())
	case blobs:
		if g.chance(30) {
			return fmt.Sprintf("randomblob(%d)", g.n(60))
		}
		return g.value(g.bytes())
	case documents:
		if g.chance(15) {
			return fmt.Sprintf("jsonb(%s)", g.value(g.json()))
		}
		return g.value(g.json())
	case moments:
		return g.pick("CURRENT_TIMESTAMP", "datetime('now')", "unixepoch()", "'2024-02-29 12:00:00'", "strftime('%Y-%m-%d %H:%M:%f', 'now', '+1 month')", "julianday()", "0", "CURRENT_DATE", "CURRENT_TIME")
	}
	switch g.n(6) {
	case 0:
		return g.value(g.chance(50))
	case 1:
		return g.value(realBorders[g.n(len(realBorders))])
	case 2:
		return g.value(g.bytes())
	case 3:
		return g.value(g.text())
	case 4:
		return g.pick("random()", "CURRENT_TIMESTAMP", "randomblob(9)", "last_insert_rowid()")
	}
	return g.value(g.integer())
}
