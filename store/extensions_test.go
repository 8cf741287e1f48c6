package store

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rqlited/command"
	"rqlited/internal/extension"
)

// twoExtensions describes what no node of these tests has.
const twoExtensions = "00112233445566778899aabbccddeeff a.so\nffeeddccbbaa99887766554433221100 b.so\n"

// TestExtensionsOfOthers refuses nodes with other extensions, and says when this node differs from a leader. It stops where
// a statement lacks something that the leader may have had.
func TestExtensionsOfOthers(t *testing.T) {
	t.Parallel()
	var log lines
	leader := newCluster(t, 1, func(c *Config) { c.Logger = log.logger() })[0]
	const text = "the node that asks does not have the SQLite extensions of this cluster (-extensions-path): it has besides a.so b.so: all nodes must have the same"
	for _, tt := range []struct{ extensions, want string }{
		{twoExtensions, text},
		{"what is this", strings.Replace(text, "has besides a.so b.so", "describes its own in a way that is not known here", 1)},
		{"none", ""},
		{"", ""}, // as a node of rqlite
	} {
		sv := leader.server()
		sv.Extensions = tt.extensions
		err := leader.Join(t.Context(), sv)
		if tt.want == "" && err != nil || tt.want != "" && (!errors.Is(err, ErrExtensions) || err.Error() != tt.want) {
			t.Errorf("Join of a node with extensions %q = %v; want %q", tt.extensions, err, tt.want)
		}
		if again := FromText(Text(err)); tt.want != "" && again != err {
			t.Errorf("%v becomes %v on another node", err, again)
		}
	}
	if leader.ExtensionSet() != "none" {
		t.Errorf("ExtensionSet() = %q", leader.ExtensionSet())
	}

	write := func(extensions string, keys command.Setting, sql string) (*command.Response, error) {
		return leader.propose(t.Context(), &command.Entry{
			Kind: command.Execute, Seed: newSeed(), Request: request(command.Execute, command.Weak, sql), ForeignKeys: keys, Extensions: extensions,
		})
	}
	for _, tt := range []struct {
		extensions string
		keys       command.Setting
		sql, want  string
	}{
		{"", command.Off, "CREATE TABLE foo (v)", ""},
		{"", command.Off, "SELECT missing()", ""}, // all nodes lack it
		{twoExtensions, command.Unset, "SELECT missing()", ""},
		{twoExtensions, command.Off, "INSERT INTO foo VALUES (1)", "lacks a.so b.so"},
		{twoExtensions, command.Off, "INSERT INTO nothing VALUES (1)", ""}, // was said
		{"what is this", command.Off, "SELECT missing()", "cannot read how the leader describes its own"},
		{"", command.Off, "SELECT missing()", ""},
	} {
		resp, err := write(tt.extensions, tt.keys, tt.sql)
		if err != nil || len(resp.Results) != 1 {
			t.Fatalf("%s: %v, %v", tt.sql, resp, err)
		}
		want := []string{}
		if tt.want != "" {
			want = append(want, "extensions are not those of the leader, what is written with them may differ between the nodes node="+tt.want+" flag=-extensions-path")
		}
		if got := log.take("extensions are not"); strings.Join(got, "|") != strings.Join(want, "|") {
			t.Errorf("%s: said %q; want %q", tt.sql, got, want)
		}
	}
	if got := leader.databaseStats()["extensions_differ"]; got != nil {
		t.Errorf("extensions_differ = %v after an entry of a leader with the same", got)
	}
	const stopped = "no such function: missing: this node lacks a.so b.so, which the leader had when it wrote the entry (-extensions-path)"
	if resp, err := write(twoExtensions, command.Off, "SELECT missing()"); !errors.Is(err, ErrUnknown) {
		t.Errorf("a function that is missing here: %v, %v; want %v", resp, err, ErrUnknown)
	}
	if err := leader.Failed(); err == nil || !strings.Contains(err.Error(), stopped) {
		t.Errorf("Failed() = %v; want %q", err, stopped)
	}
	if got := leader.databaseStats()["extensions_differ"]; got != "this node lacks a.so b.so" {
		t.Errorf("extensions_differ = %v", got)
	}
}

// TestExtensionsReplay replaces the membership of a node that lacks what its log needs.
func TestExtensionsReplay(t *testing.T) {
	x := newExtensions(nil)
	x.note(&command.Entry{ForeignKeys: command.Off, Extensions: twoExtensions}, true, nil)
	for _, tt := range []struct {
		resp  command.Response
		stops bool
	}{
		{command.Response{}, false},
		{command.Response{Results: []command.Result{{Error: "UNIQUE constraint failed: foo.v"}}}, false},
		{command.Response{Results: []command.Result{{}, {Error: "no such collation sequence: german"}}}, true},
		{command.Response{Error: "no such module: vec0"}, true},
		{command.Response{Results: []command.Result{{Error: "invalid SQLite data"}}}, true},
	} {
		if err := x.check(&tt.resp); (err != nil) != tt.stops {
			t.Errorf("check(%+v) = %v", tt.resp, err)
		}
	}
	own, err := extension.Parse(twoExtensions)
	if err != nil {
		t.Fatal(err)
	}
	same := newExtensions(own)
	same.note(&command.Entry{ForeignKeys: command.Off, Extensions: twoExtensions}, false, nil)
	if err := same.check(&command.Response{Error: "no such module: vec0"}); err != nil || same.differing() != "" {
		t.Errorf("of a node with the same: %v, %q", err, same.differing())
	}
}

// TestExtensionsDirectory opens a node with files that are no extensions, and twice at a time.
func TestExtensionsDirectory(t *testing.T) {
	t.Parallel()
	n := newNode(t, "n1")
	bad := filepath.Join(t.TempDir(), "bad.so")
	if err := os.WriteFile(bad, []byte(strings.Repeat("no shared object ", 100)), 0o644); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(n.cfg.Dir, extensionsDir)
	old := filepath.Join(dir, "old.so")
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(old, nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	lock, err := lockDir(n.cfg.Dir)
	if err != nil {
		t.Fatal(err)
	}
	n.cfg.Extensions = []string{bad}
	if err := n.tryOpen(t); !errors.Is(err, ErrLocked) {
		t.Errorf("Open of a directory in use = %v", err)
	}
	if _, err := os.Stat(old); err != nil {
		t.Errorf("the extensions of a running node were touched: %v", err)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	if err := n.tryOpen(t); err == nil || !strings.Contains(err.Error(), "load extension bad.so: ") {
		t.Errorf("Open with a text for an extension = %v", err)
	}
	n.cfg.Extensions = nil
	n.open(t)
	if got, names := n.Extensions(); got != dir || names == nil || len(names) > 0 {
		t.Errorf("Extensions() = %s, %q", got, names)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%s has %v, %v; want nothing", dir, left, err)
	}
}
