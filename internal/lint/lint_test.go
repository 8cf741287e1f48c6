package lint

import (
	"bytes"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const root = "../.."

// TestRepository runs every rule over the sources of this repository.
func TestRepository(t *testing.T) {
	tr, err := load(os.DirFS(root))
	if err != nil {
		t.Fatal(err)
	}
	if len(tr.gos) == 0 {
		t.Fatalf("no Go files below %s", root)
	}
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			for _, f := range r.check(tr) {
				t.Error(f)
			}
		})
	}
}

// TestTableMatchesDocument compares layers with the table in the document.
func TestTableMatchesDocument(t *testing.T) {
	data, err := os.ReadFile(root + "/docs/ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := readTable(data)
	for dir, want := range layers {
		got, ok := documented[dir]
		if !ok {
			t.Errorf("%s is not in the document's table", dir)
			continue
		}
		want = slices.Sorted(slices.Values(want))
		if !slices.Equal(got, want) {
			t.Errorf("%s may import %v here, %v in the document", dir, want, got)
		}
	}
	for dir := range documented {
		if _, ok := layers[dir]; !ok {
			t.Errorf("%s is in the document's table, not here", dir)
		}
	}
}

// tableRow matches "| `dir/` | purpose | own imports | may import alone |".
var tableRow = regexp.MustCompile("(?m)^\\| `([a-z_/]+)/` \\|[^|]*\\|([^|]*)\\|[^|]*\\|$")

func readTable(doc []byte) map[string][]string {
	table := map[string][]string{}
	for _, m := range tableRow.FindAllSubmatch(doc, -1) {
		cell := bytes.NewBuffer(m[2]).String()
		cell = strings.NewReplacer("¹", "", "–", "", "none", "").Replace(cell)
		table[string(m[1])] = slices.Sorted(slices.Values(strings.Fields(cell)))
	}
	return table
}
