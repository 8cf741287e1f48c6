package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the generated part of docs/flags.md")

// docsTables returns all flags as docs/flags.md shows them.
func docsTables() string {
	var b strings.Builder
	for _, g := range groups {
		fmt.Fprintf(&b, "\n### %s\n\n| Flag | Default | Meaning |\n|---|---|---|\n", g.title)
		g.flagSet(nil).VisitAll(func(f *flag.Flag) {
			value, usage := flag.UnquoteUsage(f)
			if value != "" {
				value = " *" + value + "*"
			}
			def := f.DefValue
			if def != "" {
				def = "`" + def + "`"
			}
			fmt.Fprintf(&b, "| `-%s`%s | %s | %s |\n", f.Name, value, def, usage)
		})
	}
	return b.String()
}

// TestDocs compares the tables of docs/flags.md with the flags.
func TestDocs(t *testing.T) {
	const name, mark = "../../docs/flags.md", "<!-- from here on: go test ./cmd/rqlited -run Docs -update -->\n"
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	hand, tables, ok := strings.Cut(string(text), mark)
	if !ok {
		t.Fatalf("no line %q in %s", mark, name)
	}
	want := docsTables()
	if *update {
		if err := os.WriteFile(name, []byte(hand+mark+want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if tables != want {
		t.Errorf("the tables of %s are not those of the flags, run: go test ./cmd/rqlited -run Docs -update", name)
	}
}

// TestHelp expects -h to explain each flag, under the heading of its group.
func TestHelp(t *testing.T) {
	var out bytes.Buffer
	if code := run([]string{"-h"}, nil, &out, nil); code != 0 {
		t.Errorf("exit code %d; want 0", code)
	}
	rest := out.String()
	for _, g := range groups {
		heading := "\n\n" + g.title + "\n\n"
		if g.title == groups[0].title {
			heading = heading[1:]
		}
		_, after, ok := strings.Cut(rest, heading)
		if !ok {
			t.Fatalf("no %q in what is left:\n%s", heading, rest)
		}
		rest = after
		g.flagSet(nil).VisitAll(func(f *flag.Flag) {
			if _, after, ok = strings.Cut(rest, "  -"+f.Name); !ok || f.Usage == "" {
				t.Errorf("-%s is not explained under %s", f.Name, g.title)
				return
			}
			rest = after
		})
	}
}
