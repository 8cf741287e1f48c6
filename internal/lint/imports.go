package lint

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// anything stands for the right to import every package of the repository.
const anything = "all"

// layers says which packages of this repository a package may import. It is the table in section 2
// of docs/ARCHITECTURE.md. A package below one of these directories has the rights of that
// directory, and counts as it.
var layers = map[string][]string{
	"cmd/rqlited":        {anything},
	"http":               {"store", "rewrite", "command", "auth", "internal/budget", "internal/certs"},
	"cluster":            {"store", "command", "auth", "internal/budget", "internal/certs"},
	"store":              {"db", "snapshot", "command", "internal/vfs", "internal/extension"},
	"snapshot":           {"internal/vfs"},
	"db":                 {"command", "internal/vfs"},
	"rewrite":            {},
	"command":            {},
	"auth":               {},
	"internal/budget":    {},
	"internal/certs":     {},
	"internal/extension": {},
	"internal/vfs":       {},
	"internal/lint":      {},
	"internal/bench":     {"db", "snapshot", "command", "internal/vfs"},
	"internal/sqlgen":    {},
	"system_test":        {"internal/sqlgen", "internal/certs"},
}

// testLayers says what the tests of a package may import besides, as the table says in words.
var testLayers = map[string][]string{
	"db":      {"internal/sqlgen"},
	"rewrite": {"internal/sqlgen", "db", "command"},
}

// owner says which directories alone may import a package from outside, or a package below it.
type owner struct {
	path  string
	dirs  []string
	tests bool // tests elsewhere may import it too
}

// owners is the last column of the same table, and the sentence on Raft below it.
var owners = []owner{
	{path: "flag", dirs: []string{"cmd/rqlited"}, tests: true},
	{path: "os/signal", dirs: []string{"cmd/rqlited"}},
	{path: "os/exec", dirs: []string{"system_test", "internal/bench"}},
	{path: "go/parser", dirs: []string{"internal/lint"}},
	{path: "C", dirs: []string{"db"}},
	{path: "golang.org/x/crypto/bcrypt", dirs: []string{"auth"}, tests: true},
	{path: "github.com/prometheus/client_golang", dirs: []string{"http"}, tests: true},
	{path: "github.com/rqlite/go-sqlite3", dirs: []string{"db"}},
	{path: "github.com/hashicorp/raft-boltdb", dirs: []string{"store"}},
	{path: "github.com/hashicorp/raft-wal", dirs: []string{"store"}},
	{path: "go.etcd.io/bbolt", dirs: []string{"store"}},
	{path: "github.com/hashicorp/raft", dirs: []string{"store", "snapshot", "cluster", "internal/bench"}},
}

// within reports whether p is dir or lies below it.
func within(p, dir string) bool {
	rest, ok := strings.CutPrefix(p, dir)
	return ok && (rest == "" || rest[0] == '/')
}

// layerOf returns the entry of layers that dir belongs to.
func layerOf(dir string) (string, bool) {
	for _, layer := range slices.Sorted(maps.Keys(layers)) {
		if within(dir, layer) {
			return layer, true
		}
	}
	return "", false
}

// checkImports reports imports that the table does not allow, and packages that it does not know.
func checkImports(t *tree) []fault {
	var faults []fault
	for _, f := range t.gos {
		layer, ok := layerOf(f.dir())
		if !ok {
			faults = append(faults, fault{f.path, 0, fmt.Sprintf("package %s is not in the table of layers", f.dir())})
			continue
		}
		for _, spec := range f.ast.Imports {
			name, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				faults = append(faults, fault{f.path, t.line(spec.Pos()), err.Error()})
				continue
			}
			if text := judgeImport(layer, f.test, name); text != "" {
				faults = append(faults, fault{f.path, t.line(spec.Pos()), text})
			}
		}
	}
	return faults
}

// judgeImport returns why a file of layer may not import name, or "".
func judgeImport(layer string, test bool, name string) string {
	if within(name, module) {
		target, ok := layerOf(strings.TrimPrefix(name, module+"/"))
		allowed := layers[layer]
		if test {
			allowed = slices.Concat(allowed, testLayers[layer])
		}
		switch {
		case !ok:
			return fmt.Sprintf("%s is not in the table of layers", name)
		case target == layer || slices.Contains(allowed, anything) || slices.Contains(allowed, target):
			return ""
		}
		return fmt.Sprintf("%s may not import %s", layer, target)
	}
	for _, o := range owners {
		if within(name, o.path) && !slices.Contains(o.dirs, layer) && !(test && o.tests) {
			return fmt.Sprintf("only %s may import %s", strings.Join(o.dirs, ", "), o.path)
		}
	}
	return ""
}
