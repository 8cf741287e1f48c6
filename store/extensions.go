package store

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync/atomic"

	"rqlited/command"
	"rqlited/internal/extension"
)

// Extensions returns the directory of this node's SQLite extensions, and the names of the files in it.
func (s *Store) Extensions() (dir string, names []string) {
	return s.cfg.extensionsDir(), s.extensions.Names()
}

// ExtensionSet returns the extensions in the words of Server.Extensions.
func (s *Store) ExtensionSet() string { return s.extensions.String() }

func (c Config) extensionsDir() string { return filepath.Join(c.Dir, extensionsDir) }

// inEntries returns what entries say of the leader's extensions.
func inEntries(s extension.Set) string {
	if len(s) == 0 {
		return ""
	}
	return s.String()
}

// extensionsError is the ErrExtensions of a node whose extensions are not those of this one.
type extensionsError struct{ text string }

// extensionsText begins the text of each extensionsError.
const extensionsText = "the node that asks does not have the SQLite extensions of "

func newExtensionsError(difference string, formed bool) error {
	whose := "this cluster (-extensions-path)"
	if !formed {
		whose = "the node asked (-extensions-path), and there is no cluster yet"
	}
	return extensionsError{fmt.Sprintf("%s%s: it %s: all nodes must have the same", extensionsText, whose, difference)}
}

func (e extensionsError) Error() string { return e.text }
func (extensionsError) Unwrap() error   { return ErrExtensions }

// sameExtensions returns an error if a node that describes its extensions by text has others than this one.
func (s *Store) sameExtensions(text string, formed bool) error {
	if text == "" {
		return nil // it is one of rqlite's, and nobody knows
	}
	theirs, err := extension.Parse(text)
	if err != nil {
		return newExtensionsError("describes its own in a way that is not known here", formed)
	}
	if d := theirs.Difference(s.extensions).String(); d != "" {
		return newExtensionsError(d, formed)
	}
	return nil
}

// extensions compares this node's extensions with those of the leaders whose entries it applies. All but differs
// belongs to the FSM goroutine.
type extensions struct {
	own        extension.Set
	leaders    string   // what the last entry said
	difference string   // how own differs from that
	missing    []string // what own lacks of it
	said       bool     // the difference was logged

	differs atomic.Pointer[string] // difference, for others
}

func newExtensions(own extension.Set) extensions {
	return extensions{own: own, leaders: inEntries(own)}
}

// note compares with the leader of an entry, and says once if there is a difference, unless the entry is an old one: all
// nodes may have been given other extensions since.
func (x *extensions) note(e *command.Entry, old bool, log *slog.Logger) {
	if e.ForeignKeys == command.Unset {
		return // written by rqlite, which says nothing
	}
	if e.Extensions != x.leaders {
		x.compare(e.Extensions)
	}
	if x.difference == "" || x.said || old {
		return
	}
	x.said = true
	log.Error("extensions are not those of the leader, what is written with them may differ between the nodes", "node", x.difference, "flag", "-extensions-path")
}

func (x *extensions) compare(text string) {
	x.leaders, x.said, x.missing = text, false, nil
	var theirs extension.Set
	var err error
	if text != "" {
		theirs, err = extension.Parse(text)
	}
	if err != nil {
		x.difference = "cannot read how the leader describes its own"
	} else {
		d := x.own.Difference(theirs)
		x.difference, x.missing = d.String(), d.Missing
	}
	x.differs.Store(&x.difference)
}

// differing returns how this node differs from the leader of the newest entry.
func (x *extensions) differing() string {
	if d := x.differs.Load(); d != nil {
		return *d
	}
	return ""
}

// lacking are words by which SQLite, or a load, tells that something is missing which an extension could bring.
var lacking = []string{"no such function: ", "unknown function: ", "no such module: ", "no such collation sequence: ", "no such tokenizer: ",
	"unknown tokenizer: ", "invalid SQLite data"}

// check returns an error if an entry may have failed here because this node lacks an extension of the leader's. To go on
// would be to differ from it. Nothing can be said of entries that have not failed, nor of what other nodes lack.
func (x *extensions) check(resp *command.Response) error {
	if len(x.missing) == 0 || resp == nil {
		return nil
	}
	texts := []string{resp.Error}
	for i := range resp.Results {
		texts = append(texts, resp.Results[i].Error)
	}
	for _, text := range texts {
		for _, words := range lacking {
			if strings.Contains(text, words) {
				return fmt.Errorf("%s: this node %s, which the leader had when it wrote the entry (-extensions-path)", text, x.difference)
			}
		}
	}
	return nil
}
