package lint

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strings"
	"unicode/utf8"
)

// module is the path under which the packages of this repository import each other.
const module = "rqlited"

// skipped are the top-level directories that are not part of the sources: version control, what a
// build leaves behind, and the script of the machine that runs the tests.
var skipped = []string{".git", ".ci", "bin", "data", "data1", "data2", "data3"}

// tree is the sources of a repository.
type tree struct {
	fset *token.FileSet
	gos  []goFile
	text []textFile
}

// goFile is one parsed Go source.
type goFile struct {
	path string // slash-separated, relative to the root
	ast  *ast.File
	test bool
}

// dir is the directory of the file: with the module path before it, the import path of its package.
func (f goFile) dir() string { return path.Dir(f.path) }

// textFile is any file of the tree that holds text, the Go sources among them.
type textFile struct {
	path string
	data []byte
}

// fault is one place where a rule is broken.
type fault struct {
	path string
	line int // 0 if the fault belongs to the whole file
	text string
}

func (f fault) String() string {
	if f.line == 0 {
		return fmt.Sprintf("%s: %s", f.path, f.text)
	}
	return fmt.Sprintf("%s:%d: %s", f.path, f.line, f.text)
}

// load reads all sources below the root of fsys.
func load(fsys fs.FS) (*tree, error) {
	t := &tree{fset: token.NewFileSet()}
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains(skipped, name):
			return fs.SkipDir
		case !d.Type().IsRegular():
			return nil
		}
		return t.add(fsys, name)
	})
	return t, err
}

func (t *tree) add(fsys fs.FS, name string) error {
	data, err := fs.ReadFile(fsys, name)
	if err != nil {
		return err
	}
	if utf8.Valid(data) && !bytes.ContainsRune(data, 0) {
		t.text = append(t.text, textFile{name, data})
	}
	if path.Ext(name) != ".go" || strings.Contains("/"+name, "/testdata/") {
		return nil
	}
	f, err := parser.ParseFile(t.fset, name, data, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	t.gos = append(t.gos, goFile{name, f, strings.HasSuffix(name, "_test.go")})
	return nil
}

// line returns the line of pos in its file.
func (t *tree) line(pos token.Pos) int { return t.fset.Position(pos).Line }
