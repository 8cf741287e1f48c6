package lint

import (
	"bytes"
	"fmt"
	"go/ast"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
)

// Limits of docs/ARCHITECTURE.md, section 8.
const (
	maxFileLines    = 800
	maxFuncLines    = 100
	maxStructFields = 15
)

// checkFileSize reports Go files that are too long to be about one concept.
func checkFileSize(t *tree) []fault {
	var faults []fault
	for _, f := range t.text {
		if n := bytes.Count(f.data, []byte("\n")); path.Ext(f.path) == ".go" && n > maxFileLines {
			faults = append(faults, fault{f.path, 0, fmt.Sprintf("%d lines, limit is %d", n, maxFileLines)})
		}
	}
	return faults
}

// checkFuncSize reports functions that do more than one thing.
func checkFuncSize(t *tree) []fault {
	var faults []fault
	for _, f := range t.gos {
		for _, decl := range f.ast.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok {
				continue
			}
			if n := t.line(fn.End()) - t.line(fn.Pos()) + 1; n > maxFuncLines {
				text := fmt.Sprintf("%s has %d lines, limit is %d", fn.Name.Name, n, maxFuncLines)
				faults = append(faults, fault{f.path, t.line(fn.Pos()), text})
			}
		}
	}
	return faults
}

// checkStructSize reports structs that are two types.
func checkStructSize(t *tree) []fault {
	var faults []fault
	for _, f := range t.gos {
		ast.Inspect(f.ast, func(n ast.Node) bool {
			s, ok := n.(*ast.StructType)
			if !ok {
				return true
			}
			if n := s.Fields.NumFields(); n > maxStructFields {
				text := fmt.Sprintf("struct has %d fields, limit is %d", n, maxStructFields)
				faults = append(faults, fault{f.path, t.line(s.Pos()), text})
			}
			return true
		})
	}
	return faults
}

// checkDoc reports packages whose doc.go does not say what they are.
func checkDoc(t *tree) []fault {
	names := map[string]string{} // directory to package name, of the package proper
	docs := map[string]string{}
	for _, f := range t.gos {
		name := f.ast.Name.Name
		if !f.test || names[f.dir()] == "" {
			names[f.dir()] = name
		}
		if path.Base(f.path) == "doc.go" {
			docs[f.dir()] = f.ast.Doc.Text()
		}
	}
	var faults []fault
	for _, dir := range slices.Sorted(maps.Keys(names)) {
		want := "Package " + names[dir] + " "
		if names[dir] == "main" {
			want = "Command " + path.Base(dir) + " "
		}
		if !strings.HasPrefix(docs[dir], want) {
			faults = append(faults, fault{dir + "/doc.go", 0, fmt.Sprintf("does not begin with %q", want)})
		}
	}
	return faults
}

// checkSleep reports tests that wait by the clock. In a file that uses synctest the clock is taken to
// be that of a bubble, where a sleep takes no time; the black-box tests wait for other processes.
func checkSleep(t *tree) []fault {
	var faults []fault
	for _, f := range t.gos {
		bubble := slices.ContainsFunc(f.ast.Imports, func(spec *ast.ImportSpec) bool {
			return spec.Path.Value == `"testing/synctest"`
		})
		if !f.test || bubble || within(f.dir(), "system_test") {
			continue
		}
		eachCall(f.ast, func(call *ast.CallExpr, fn string) {
			if fn == "time.Sleep" {
				faults = append(faults, fault{f.path, t.line(call.Pos()), "time.Sleep outside of synctest"})
			}
		})
	}
	return faults
}

// checkExit reports code outside of commands that ends the process.
func checkExit(t *tree) []fault {
	var faults []fault
	for _, f := range t.gos {
		if f.test || f.ast.Name.Name == "main" {
			continue
		}
		eachCall(f.ast, func(call *ast.CallExpr, fn string) {
			if fn == "os.Exit" || strings.HasPrefix(fn, "log.Fatal") {
				faults = append(faults, fault{f.path, t.line(call.Pos()), "only package main ends the process, not " + fn})
			}
		})
	}
	return faults
}

// eachCall calls visit for each call of a function written "package.Name".
func eachCall(root ast.Node, visit func(call *ast.CallExpr, fn string)) {
	ast.Inspect(root, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok {
			if sel, ok := call.Fun.(*ast.SelectorExpr); ok {
				if pkg, ok := sel.X.(*ast.Ident); ok {
					visit(call, pkg.Name+"."+sel.Sel.Name)
				}
			}
		}
		return true
	})
}

// foreign finds words about the place where the sources are written, which mean nothing to those
// who read them elsewhere. The classes keep the expression from finding itself.
var foreign = regexp.MustCompile(`/wor[k]/|\.\./share[d]\b|(?i:\bthis sessio[n]\b|\bsub-?agen[t])`)

// checkWords reports such words.
func checkWords(t *tree) []fault {
	var faults []fault
	for _, f := range t.text {
		for i, line := range bytes.Split(f.data, []byte("\n")) {
			if word := foreign.Find(line); word != nil {
				faults = append(faults, fault{f.path, i + 1, fmt.Sprintf("speaks of %q", word)})
			}
		}
	}
	return faults
}
