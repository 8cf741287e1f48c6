package rewrite

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// Bounds of what a text may ask for.
const (
	maxDepth = 10000   // of parentheses
	maxBytes = 1 << 20 // of randomblob
)

// Sources are what literals are made of.
type Sources struct {
	Now    time.Time     // what 'now' means, to the millisecond; zero leaves the functions of time alone
	Random func() uint64 // nil leaves random and randomblob alone
}

// Text returns sql, which may be several statements, with its calls of random and time decided. The
// error is in the words of SQLite; io.EOF means that there is no statement.
func Text(sql string, from Sources) (string, error) {
	sql, _, _ = strings.Cut(sql, "\x00") // SQLite reads no further
	r := &rewriter{lexer: lexer{src: sql}, from: from}
	for {
		t := r.next()
		switch {
		case t.is(";"):
			continue
		case t.kind == end && len(r.out) == 0:
			return "", io.EOF
		case t.kind == end:
			return string(r.out), nil
		}
		if len(r.out) > 0 {
			r.out = append(r.out, "; "...)
		}
		if err := r.statement(t); err != nil {
			return "", err
		}
	}
}

// level is what is known of the tokens between two parentheses, or of those outside of all.
type level struct {
	fn  string // the function whose arguments these are, in lower case
	arg int    // commas so far

	order bool // within ORDER BY, maybe of a level further out
	limit bool // after LIMIT
	with  bool // among the names of WITH
	cast  bool // within CAST
	typed bool // where a type is named
	cases int  // CASE without END so far
}

// rewriter writes one text.
type rewriter struct {
	lexer
	from Sources
	out  []byte

	prev    token // the one written last; its text is as it was
	done    int   // where it ended
	operand bool  // it ends an operand
	tight   bool  // nothing comes between it and the next one
	raw     bool  // all but what is replaced stays as it is
	levels  []level
	bytes   int64 // that were asked of randomblob
}

// statement writes the statement that begins with t, without what ends it.
func (r *rewriter) statement(t token) error {
	r.prev, r.operand, r.tight, r.raw = token{}, false, true, false
	r.levels = append(r.levels[:0], level{})
	for t.is("EXPLAIN") || r.prev.is("EXPLAIN") && t.is("QUERY") || r.prev.is("QUERY") && t.is("PLAN") {
		r.write(t, strings.ToUpper(t.text), false)
		t = r.next()
	}
	if t.kind != illegal && (t.kind != word || !beginnings[strings.ToUpper(t.text)]) {
		return unexpected(t)
	}
	var err error
	if t.is("ALTER") || t.is("CREATE") || t.is("PRAGMA") {
		if len(r.out) > 0 && !r.tight {
			r.out = append(r.out, ' ')
		}
		r.raw, r.done = true, t.at
		t, err = r.schema(t)
	}
	for ; err == nil && !t.ends(); t = r.next() {
		err = r.token(t)
	}
	switch {
	case err != nil:
		return err
	case len(r.levels) > 1:
		return errIncomplete
	case !r.raw && openers[strings.ToUpper(r.prev.text)] && !r.operand:
		return unexpected(t)
	}
	return nil
}

var errIncomplete = errors.New("incomplete input")

// unexpected returns the error of a token that cannot be where it is.
func unexpected(t token) error {
	if t.kind == end {
		return errIncomplete
	}
	return fmt.Errorf("near \"%s\": syntax error", t.text)
}

// schema copies the statement that begins with t up to its end, which is returned, or up to the query of
// CREATE TABLE … AS.
func (r *rewriter) schema(t token) (token, error) {
	create := t.is("CREATE")
	var table, trigger, closed bool
	for n := 0; ; n++ {
		switch {
		case t.kind == end, t.is(";") && (closed || !trigger):
			return t, nil
		case n == 1 || n == 2 && (r.prev.is("TEMP") || r.prev.is("TEMPORARY")):
			table, trigger = create && t.is("TABLE"), create && t.is("TRIGGER")
		case table && len(r.levels) == 1 && t.is("AS"):
			return t, nil
		}
		if err := r.nest(t); err != nil {
			return t, err
		}
		closed = t.is("END") && r.prev.is(";") // as CASE has an END, too
		r.write(t, t.text, false)
		t = r.next()
	}
}

// nest follows the parentheses, and refuses what is no token.
func (r *rewriter) nest(t token) error {
	switch {
	case t.kind == illegal:
		return fmt.Errorf("unrecognized token: \"%s\"", t.text)
	case t.is("(") && len(r.levels) > maxDepth:
		return errors.New("parser stack overflow")
	case t.is("("):
		r.levels = append(r.levels, level{order: r.level().order})
	case t.is(")") && len(r.levels) == 1:
		return unexpected(t)
	case t.is(")"):
		r.levels = r.levels[:len(r.levels)-1]
	case t.is(","):
		r.level().arg++
	}
	return nil
}

func (r *rewriter) level() *level { return &r.levels[len(r.levels)-1] }

// token writes t, or what takes its place.
func (r *rewriter) token(t token) error {
	upper := strings.ToUpper(t.text)
	after := r.ahead(1)
	switch {
	case openers[strings.ToUpper(r.prev.text)] && !r.operand && closers[upper]:
		return unexpected(t)
	case r.operand && r.prev.kind != word && r.prev.kind != quoted && (t.kind == number || t.kind == variable):
		return unexpected(t)
	}
	if fn, ok := r.call(t, after); ok {
		return r.function(t, fn)
	}
	if r.present(t, after) {
		r.replace(t, julianDay(r.from.Now))
		return nil
	}
	if err := r.nest(t); err != nil {
		return err
	}
	switch t.kind {
	case word:
		r.word(t, upper, after)
	case quoted:
		r.write(t, quote(t.name()), true)
	case symbol:
		r.symbol(t)
	default:
		r.write(t, t.text, true)
	}
	return nil
}

// call reports whether t is the name of a function that is called, and returns it in lower case.
func (r *rewriter) call(t, after token) (fn string, ok bool) {
	switch {
	case !after.is("(") || t.kind != word && t.kind != quoted:
		return "", false
	case r.prev.is("INTO") || r.prev.is(".") || r.prev.is("AS") || r.level().typed:
		return "", false // a table, or a type
	case r.level().with && (r.prev.is("WITH") || r.prev.is("RECURSIVE") || r.prev.is(",")):
		return "", false // what WITH names
	case t.kind == quoted:
		return strings.ToLower(t.name()), true
	}
	upper := strings.ToUpper(t.text)
	sides, soft := either[upper]
	if reserved[upper] || soft && r.known(upper, sides, after) {
		return "", false
	}
	return strings.ToLower(t.text), true
}

// function writes the call of fn, or the beginning of it, up to the first argument.
func (r *rewriter) function(t token, fn string) error {
	if r.from.Random != nil && !r.level().order {
		switch arg := r.ahead(2); {
		case fn == "random":
			r.next()
			for depth := 1; depth > 0; {
				switch arg := r.next(); {
				case arg.kind == end || arg.kind == illegal || arg.is(";"):
					return unexpected(arg)
				case arg.is("("):
					depth++
				case arg.is(")"):
					depth--
				}
			}
			r.replace(t, strconv.FormatUint(r.from.Random()>>1, 10))
			return nil
		case fn == "randomblob" && arg.kind == number && r.ahead(3).is(")"):
			if n, err := strconv.ParseInt(arg.text, 0, 64); err == nil {
				return r.randomBytes(t, max(n, 1))
			}
		}
	}
	r.write(t, t.text, false)
	r.tight = true
	paren := r.next()
	if err := r.nest(paren); err != nil {
		return err
	}
	r.level().fn = fn
	r.write(paren, "(", false)
	r.tight = true
	return nil
}

// randomBytes writes n random bytes in the place of the call of randomblob that t begins.
func (r *rewriter) randomBytes(t token, n int64) error {
	if r.bytes += n; n > maxBytes || r.bytes > maxBytes {
		return errors.New("string or blob too big")
	}
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.from.Random() >> 7)
	}
	for range 3 { // the parentheses and the number
		r.next()
	}
	r.replace(t, "x'"+strings.ToUpper(hex.EncodeToString(b))+"'")
	return nil
}

// present reports whether t is 'now' where a function of time takes that for the present.
func (r *rewriter) present(t, after token) bool {
	l := r.level()
	at := times[l.fn]
	return !r.from.Now.IsZero() && l.arg < len(at) && at[l.arg] && (r.prev.is("(") || r.prev.is(",")) &&
		(t.kind == word || t.kind == quoted || t.kind == literal) && strings.EqualFold(t.name(), "now") &&
		(after.is(",") || after.is(")"))
}

// julianDay returns the day number of now, with as many digits as SQLite needs to find the millisecond.
func julianDay(now time.Time) string {
	const day = 24 * 60 * 60 * 1000
	ms := now.UnixMilli() + 210866760000000 // since noon of 24 November 4714 BC
	return fmt.Sprintf("%d.%09d", ms/day, (ms%day*1e9+day/2)/day)
}

// word writes a keyword in upper case, a name in quotes, and as it is what may be either.
func (r *rewriter) word(t token, upper string, after token) {
	l := r.level()
	sides, soft := either[upper]
	part := r.prev.is(".") || after.is(".")
	switch {
	case l.typed:
		r.write(t, t.text, true)
	case reserved[upper]:
		r.keyword(t, upper)
	case !part && values[upper] && !r.prev.is("AS"):
		r.write(t, upper, true)
	case !part && soft && r.known(upper, sides, after):
		r.keyword(t, upper)
	case !soft || part || r.prev.is("AS"):
		r.write(t, quote(t.text), true)
	default:
		r.write(t, t.text, true)
	}
}

// known reports whether a word that may be a name is a keyword here.
func (r *rewriter) known(upper string, s sides, after token) bool {
	before := strings.ToUpper(r.prev.text)
	if r.prev.kind == end || r.prev.is("EXPLAIN") || r.prev.is("PLAN") {
		before = "^"
	}
	l := r.level()
	switch {
	case upper == "REPLACE" && after.is("("):
		return false // the function
	case s.before[before] || s.after[strings.ToUpper(after.text)]:
		return true
	case upper == "ASC" || upper == "DESC":
		return l.order && r.operand
	case upper == "OFFSET":
		return l.limit && r.operand
	case upper == "END":
		return l.cases > 0
	case upper == "WINDOW":
		return r.operand && r.ahead(2).is("AS")
	case upper == "LIKE" || upper == "GLOB" || upper == "MATCH" || upper == "REGEXP":
		return r.operand && after.kind != end && !after.is(",") && !after.is(")")
	}
	return false
}

// keyword writes a keyword and notes what it changes for those after it.
func (r *rewriter) keyword(t token, upper string) {
	l := r.level()
	switch upper {
	case "BY":
		l.order = l.order || r.prev.is("ORDER")
	case "LIMIT":
		l.limit = true
		l.order = len(r.levels) > 1 && r.levels[len(r.levels)-2].order
	case "WITH":
		l.with = true
	case "SELECT", "VALUES", "INSERT", "REPLACE", "UPDATE", "DELETE":
		l.with = false
	case "CASE":
		l.cases++
	case "END":
		l.cases = max(l.cases-1, 0)
	case "AS":
		l.typed = l.cast
	}
	r.write(t, upper, upper == "NULL" || upper == "END" || upper == "ISNULL" || upper == "NOTNULL")
}

// symbol writes an operator or what separates.
func (r *rewriter) symbol(t token) {
	switch t.text {
	case "(":
		r.level().cast = r.prev.is("CAST")
		r.tight = r.tight || r.prev.is("CAST") || r.prev.is("RAISE")
		r.write(t, t.text, false)
		r.tight = true
	case ".":
		r.tight = true
		r.write(t, t.text, false)
		r.tight = true
	case ")", ",":
		r.tight = true
		r.write(t, t.text, t.text == ")")
	case "*":
		r.write(t, t.text, !r.operand) // all columns, or a product
	case "-", "+", "~":
		sign := !r.operand
		r.write(t, t.text, false)
		r.tight = sign
	default:
		r.write(t, t.text, false)
	}
}

// replace writes text for all that was read from t on.
func (r *rewriter) replace(t token, text string) {
	r.put(t, text, true)
	r.done = r.pos
}

// write writes t, as text where the statement is written anew. Operand says whether it ends an operand.
func (r *rewriter) write(t token, text string, operand bool) {
	if r.raw {
		text = t.text
	}
	r.put(t, text, operand)
}

func (r *rewriter) put(t token, text string, operand bool) {
	switch {
	case r.raw:
		r.out = append(r.out, r.src[r.done:t.at]...)
	case !r.tight || text[0] == '-' && r.prev.is("-"): // two would begin a comment
		r.out = append(r.out, ' ')
	}
	r.out = append(r.out, text...)
	r.prev, r.done, r.operand, r.tight = t, t.at+len(t.text), operand, false
}

func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
