package system

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
)

// TestDocuments plays the examples of the documents: what they show has to be what a user sees.
func TestDocuments(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"docs/http-api.md", "README.md"} {
		t.Run(strings.NewReplacer("/", "-", ".md", "").Replace(name), func(t *testing.T) {
			t.Parallel()
			newStage(t).playAll(name, readDocument(t, name))
		})
	}
}

var (
	remark = regexp.MustCompile(`^<!-- (.*) -->$`)
	fence  = regexp.MustCompile("^```([a-z]*)$")
)

// readDocument reads the examples of a Markdown document, which are its blocks of the language console. A
// line that begins with "$ " is a call of curl, which goes on in the next line after a backslash; what is
// between it and the next one is what curl prints. The status of the answer is 200, unless it is shown. Between
// the blocks are directions, in comments; "file NAME" says that the next block is the content of a file.
func readDocument(t *testing.T, name string) []*exchange {
	t.Helper()
	var all []*exchange
	var x *exchange
	var language, file string
	var output, content []string
	inside := false
	end := func() {
		if x != nil {
			x.expect(strings.Join(output, "\n"))
		}
		x, output = nil, nil
	}
	lines := strings.Split(readFile(t, "..", name), "\n")
	for i := 0; i < len(lines); i++ {
		line := lines[i]
		m := fence.FindStringSubmatch(line)
		command, isCommand := strings.CutPrefix(line, "$ ")
		switch {
		case m != nil && !inside:
			inside, language = true, m[1]
		case m != nil:
			end()
			if file != "" {
				all = append(all, &exchange{line: i, saved: file, body: strings.Join(content, "\n") + "\n", direction: "file"})
			}
			inside, file, content = false, "", nil
		case inside && file != "":
			content = append(content, line)
		case inside && language == "console" && isCommand:
			end()
			at := i + 1
			for strings.HasSuffix(command, "\\") && i+1 < len(lines) {
				i++
				command = strings.TrimSuffix(command, "\\") + strings.TrimSpace(lines[i])
			}
			x = parseCurl(t, command)
			x.line = at
			all = append(all, x)
		case inside && language == "console" && x != nil:
			output = append(output, line)
		case inside:
		default:
			if m := remark.FindStringSubmatch(line); m != nil {
				if name, ok := strings.CutPrefix(m[1], "file "); ok {
					file = name
					continue
				}
				all = append(all, &exchange{line: i + 1, direction: m[1]})
			}
		}
	}
	if len(all) == 0 {
		t.Fatalf("%s has no examples", name)
	}
	return all
}

// expect makes what curl prints the answer that x has to get.
func (x *exchange) expect(output string) {
	x.want = reply{status: "200 *", headers: map[string]string{}}
	if first, rest, _ := strings.Cut(output, "\n"); strings.HasPrefix(first, "HTTP/1.1 ") {
		x.want.status = strings.Fields(first)[1] + " *"
		for {
			var line string
			line, rest, _ = strings.Cut(rest, "\n")
			key, value, ok := strings.Cut(line, ": ")
			if !ok {
				break // the empty line, or the end
			}
			x.want.headers[key] = value
		}
		output = rest
	}
	x.want.body = strings.TrimRight(output, "\n")
	x.terminal = true
}

// parseCurl returns the request that a command line sends.
func parseCurl(t *testing.T, command string) *exchange {
	t.Helper()
	x := &exchange{method: http.MethodGet, headers: map[string]string{}}
	words := shellWords(command)
	var data []string
	inURL := false
	for i := 1; i < len(words); i++ {
		flag, value := words[i], ""
		if strings.HasPrefix(flag, "-X") && len(flag) > 2 {
			x.method = flag[2:]
			continue
		}
		switch flag {
		case "-s", "-i", "-G":
			inURL = inURL || flag == "-G"
			continue
		}
		if strings.HasPrefix(flag, "-") {
			i++
			if i == len(words) {
				t.Fatalf("%s: %s without a value", command, flag)
			}
			value = words[i]
		}
		switch flag {
		case "-X":
			x.method = value
		case "-H":
			key, content, _ := strings.Cut(value, ": ")
			x.headers[key] = content
		case "-u":
			x.headers["User"] = value
		case "-d", "--data-binary":
			data = append(data, value)
		case "--data-urlencode":
			name, content, _ := strings.Cut(value, "=")
			data = append(data, name+"="+url.QueryEscape(content))
		case "-o":
			x.saved = value
		case "--cacert":
		default:
			if strings.HasPrefix(flag, "-") || x.url != "" {
				t.Fatalf("%s: cannot read %q", command, flag)
			}
			x.url = strings.TrimPrefix(strings.TrimPrefix(flag, "http://"), "https://")
		}
	}
	if words[0] != "curl" || x.url == "" {
		t.Fatalf("%s: only curl can be played", command)
	}
	if joined := strings.Join(data, "&"); inURL {
		x.url += "?" + joined
	} else if data != nil {
		x.body = joined
		if !strings.Contains(" "+strings.Join(words, " "), " -X") {
			x.method = http.MethodPost
		}
		if x.headers["Content-Type"] == "" {
			x.headers["Content-Type"] = "application/x-www-form-urlencoded"
		}
	}
	return x
}

// shellWords splits a command line as a shell does that knows only quotes.
func shellWords(line string) []string {
	var words []string
	var word strings.Builder
	quote, some := rune(0), false
	for _, c := range line {
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '\'' || c == '"'):
			quote, some = c, true
		case quote == 0 && c == ' ':
			if some {
				words = append(words, word.String())
			}
			word.Reset()
			some = false
		default:
			word.WriteRune(c)
			some = true
		}
	}
	if some {
		words = append(words, word.String())
	}
	return words
}
