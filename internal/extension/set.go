package extension

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

// none is the text of a Set without files; the empty text is that of nobody who has one.
const none = "none"

// sumSize is how many bytes of a SHA-256 tell two files apart: nobody has to be kept from making
// two that agree in them.
const sumSize = 16

var errMalformed = errors.New("extension: malformed set")

// File is one extension.
type File struct {
	Name string
	Sum  [sumSize]byte // of the content
}

// Set is the extensions of a node, in the order of their names, in which they are loaded.
type Set []File

// Names returns the names of the files; never nil.
func (s Set) Names() []string {
	names := make([]string, 0, len(s))
	for _, f := range s {
		names = append(names, f.Name)
	}
	return names
}

// Paths returns the files as they lie in the directory dir.
func (s Set) Paths(dir string) []string {
	var paths []string
	for _, f := range s {
		paths = append(paths, filepath.Join(dir, f.Name))
	}
	return paths
}

// String returns the text that Parse reads: a line with sum and name for each file, or "none".
func (s Set) String() string {
	if len(s) == 0 {
		return none
	}
	var b strings.Builder
	for _, f := range s {
		fmt.Fprintf(&b, "%x %s\n", f.Sum, f.Name)
	}
	return b.String()
}

// Parse reads what String has made, here or on another node.
func Parse(text string) (Set, error) {
	if text == none {
		return nil, nil
	}
	var s Set
	for line := range strings.Lines(text) {
		sum, name, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		raw, err := hex.DecodeString(sum)
		if !ok || err != nil || len(raw) != sumSize || checkName(name) != nil || len(s) == maxFiles ||
			len(s) > 0 && name <= s[len(s)-1].Name {
			return nil, errMalformed
		}
		s = append(s, File{name, [sumSize]byte(raw)})
	}
	if len(s) == 0 {
		return nil, errMalformed
	}
	return s, nil
}

func byName(a, b File) int { return strings.Compare(a.Name, b.Name) }

// Difference is what a set has otherwise than another one: names of files.
type Difference struct {
	Missing []string // only the other one has them
	Added   []string // only this one has them
	Changed []string // of another content
}

// Difference returns how s differs from other.
func (s Set) Difference(other Set) Difference {
	var d Difference
	theirs := make(map[string][sumSize]byte)
	for _, f := range other {
		theirs[f.Name] = f.Sum
	}
	for _, f := range s {
		switch sum, ok := theirs[f.Name]; {
		case !ok:
			d.Added = append(d.Added, f.Name)
		case sum != f.Sum:
			d.Changed = append(d.Changed, f.Name)
		}
		delete(theirs, f.Name)
	}
	for _, f := range other {
		if _, left := theirs[f.Name]; left {
			d.Missing = append(d.Missing, f.Name)
		}
	}
	return d
}

// String says it in words, behind the name of who has the set: "lacks a.so, has another b.so". It is empty if there is
// no difference.
func (d Difference) String() string {
	var parts []string
	for _, p := range []struct {
		verb  string
		names []string
	}{{"lacks", d.Missing}, {"has another", d.Changed}, {"has besides", d.Added}} {
		if len(p.names) > 0 {
			parts = append(parts, p.verb+" "+some(p.names))
		}
	}
	return strings.Join(parts, ", ")
}

// some lists names; of many only the first.
func some(names []string) string {
	const most = 8
	if more := len(names) - most; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], " "), more)
	}
	return strings.Join(names, " ")
}

func shorten(sum [sha256.Size]byte) [sumSize]byte { return [sumSize]byte(sum[:sumSize]) }
