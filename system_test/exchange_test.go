package system

import (
	"fmt"
	"regexp"
	"strings"
)

// exchange is one request of an example and the answer that it must get, or a direction.
type exchange struct {
	line      int    // in the file
	direction string // what is to be done with the nodes; empty for a request

	method  string
	url     string // as in the example: no scheme, and "localhost:4003" first if it is not for the first node
	headers map[string]string
	body    string
	saved   string // the file that takes the body of the answer, which is not compared then

	terminal bool // the answer is as a terminal shows it: newlines at its end are lost

	want   reply
	rqlite *reply // what rqlite answers, if that differs on purpose
	why    string // it does
}

// reply is an answer as an example shows it. "…" in it stands for what nobody can know.
type reply struct {
	status  string            // "200 text/plain; charset=utf-8"; "-" for no content type, "*" for any
	headers map[string]string // those that are shown; "-" for one that must not be there
	body    string
}

// numbers are what "…" behind the name of a JSON member may be.
const numbers = `-?[0-9][0-9.e+-]*`

var (
	numberAhead = regexp.MustCompile(`(": ?)…`)
	wholeLine   = regexp.MustCompile(`(?m)(\A|\n)…$`)
)

// pattern matches the text, in which "…" is a number behind the name of a JSON member, any lines or none
// where it is alone in a line, and otherwise any part of a line.
func pattern(text string) *regexp.Regexp {
	text = numberAhead.ReplaceAllString(regexp.QuoteMeta(text), "${1}\x00")
	text = wholeLine.ReplaceAllString(text, "(?:$1[\x01]*?)?")
	text = strings.NewReplacer("…", `[^\n]*?`, "\x00", numbers, "[\x01]", `[\s\S]`).Replace(text)
	return regexp.MustCompile(`\A` + text + `\z`)
}

// differs says in what an answer is not the one shown; empty if in nothing.
func (w *reply) differs(got *answer) string {
	var diffs []string
	expect := func(what, got, want string) {
		if !pattern(want).MatchString(got) {
			diffs = append(diffs, fmt.Sprintf("%s: %s\n    want: %s", what, got, want))
		}
	}
	header := func(key string) string {
		if len(got.header.Values(key)) == 0 {
			return "-"
		}
		return strings.Join(got.header.Values(key), ", ")
	}
	contentType := header("Content-Type")
	if strings.HasSuffix(w.status, " *") {
		contentType = "*"
	}
	expect("status", fmt.Sprintf("%d %s", got.status, contentType), w.status)
	for key, value := range w.headers {
		expect(key, header(key), value)
	}
	expect("body", got.body, w.body)
	return strings.Join(diffs, "\n")
}

// check compares what came back for x. An answer that differs from rqlite's on purpose has to differ.
func (x *exchange) check(got *answer) string {
	if x.terminal {
		got.body = strings.TrimRight(got.body, "\n")
	}
	d := x.want.differs(got)
	if d == "" && x.rqlite != nil && x.rqlite.differs(got) == "" {
		return "is as from rqlite, but should not: " + x.why
	}
	return d
}

// common are the headers that every answer has, whatever it is about.
func common(got *answer, auth bool) string {
	want := reply{status: "…", body: "…", headers: map[string]string{
		"X-Rqlite-Version":                 "v…",
		"Access-Control-Allow-Methods":     "OPTIONS, GET, POST",
		"Access-Control-Allow-Headers":     "Content-Type",
		"Access-Control-Allow-Credentials": "-",
		"Www-Authenticate":                 "-",
	}}
	if auth {
		want.headers["Access-Control-Allow-Headers"] = "Content-Type, Authorization"
		want.headers["Access-Control-Allow-Credentials"] = "true"
		want.headers["Www-Authenticate"] = `Basic realm="rqlite"`
	}
	return want.differs(&answer{status: got.status, header: got.header})
}

// name is how messages call the request.
func (x *exchange) name() string {
	return fmt.Sprintf("%s %s %s", x.method, x.url, x.body)
}
