package system

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// compile makes a shared object of a file in testdata/extensions, with the compiler that SQLite itself is built with.
func compile(t *testing.T, source, out string, flags ...string) string {
	t.Helper()
	goSays := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("go", args...)
		cmd.Dir = ".."
		b, err := cmd.Output()
		if err != nil {
			t.Fatalf("go %v: %v", args, err)
		}
		return strings.TrimSpace(string(b))
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		t.Fatal(err)
	}
	cc := strings.Fields(goSays("env", "CC"))
	headers := goSays("list", "-m", "-f", "{{.Dir}}", "github.com/rqlite/go-sqlite3")
	args := slices.Concat(cc[1:], []string{"-shared", "-fPIC", "-I", headers}, flags, []string{"-o", out, filepath.Join("testdata", "extensions", source)})
	if msg, err := exec.Command(cc[0], args...).CombinedOutput(); err != nil {
		t.Fatalf("compile %s: %v\n%s", source, err, msg)
	}
	return out
}

func rot13(t *testing.T, dir string, flags ...string) string {
	t.Helper()
	return compile(t, "rot13.c", filepath.Join(dir, "rot13.so"), flags...)
}

// tarOf makes a tar.gz of a file.
func tarOf(t *testing.T, out, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	err = w.WriteHeader(&tar.Header{Name: filepath.Base(file), Mode: 0o644, Size: int64(len(data))})
	if err == nil {
		_, err = w.Write(data)
	}
	if err = errors.Join(err, w.Close(), z.Close(), os.WriteFile(out, b.Bytes(), 0o644)); err != nil {
		t.Fatal(err)
	}
	return out
}

// zipOf makes a zip with empty files of the given names.
func zipOf(t *testing.T, out string, names ...string) string {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, name := range names {
		if _, err := w.Create(name); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), os.WriteFile(out, b.Bytes(), 0o644)); err != nil {
		t.Fatal(err)
	}
	return out
}

// useRot13 has the schema need the extension, and writes some rows.
func useRot13(n *node) {
	n.t.Helper()
	n.execute(`CREATE TABLE foo (id INTEGER PRIMARY KEY, v TEXT COLLATE rot13, w TEXT GENERATED ALWAYS AS (rot13(v)) STORED, r INTEGER, CHECK (rot13(v) <> 'forbidden'))`,
		`CREATE INDEX rotated ON foo(rot13(v))`, `CREATE INDEX collated ON foo(v)`, `CREATE VIRTUAL TABLE bad USING broken`)
	for _, v := range []string{"hello", "world", "nop"} {
		n.execute([]any{"INSERT INTO foo(v, r) VALUES (?, random())", v})
	}
}

// expectRows checks that a node has the rows that useRot13 wrote, and finds them by the indexes.
func expectRows(n *node) {
	n.t.Helper()
	if got := n.query("none", "SELECT w FROM foo ORDER BY v"); !slices.Equal(got, []string{"abc", "jbeyq", "uryyb"}) {
		n.t.Errorf("%s: rows = %q", n.id, got)
	}
	if got := n.query("none", "SELECT v FROM foo INDEXED BY rotated WHERE rot13(v) = 'uryyb'"); !slices.Equal(got, []string{"hello"}) {
		n.t.Errorf("%s: by the index: %q", n.id, got)
	}
	if got := n.query("none", "PRAGMA integrity_check('foo')"); !slices.Equal(got, []string{"ok"}) {
		n.t.Errorf("%s: integrity_check = %q", n.id, got)
	}
}

// TestExtensions has a cluster load one extension from what each node finds it in, and use it for the schema. A node that is new
// gets it all by a snapshot.
func TestExtensions(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	so := rot13(t, filepath.Join(dir, "folder"))
	c := newCluster(t, 3)
	for i, path := range []string{so, filepath.Dir(so), tarOf(t, filepath.Join(dir, "archive"), so)} {
		c[i].flags = append(c[i].flags, "-extensions-path", path)
	}
	c.start()
	c.waitReady()
	useRot13(c[0])
	for _, n := range c {
		n.waitReady(formLimit)
		expectRows(n)
		var got struct {
			Dir   string
			Names []string
		}
		if err := n.get("/status?key=extensions", &got); err != nil || !slices.Equal(got.Names, []string{"rot13.so"}) || got.Dir != filepath.Join(n.dir, "extensions") {
			t.Errorf("%s: extensions of /status = %+v, %v", n.id, got, err)
		}
		for _, key := range []string{"store.sqlite3.extensions", "store.db_conf.extensions"} {
			var paths []string
			if err := n.get("/status?key="+key, &paths); err != nil || !slices.Equal(paths, []string{filepath.Join(got.Dir, "rot13.so")}) {
				t.Errorf("%s: %s = %q, %v", n.id, key, paths, err)
			}
		}
		for _, path := range []string{"/db/query", "/db/execute"} {
			a, err := n.sql(requestLimit, path, "SELECT load_extension('"+so+"')")
			if err == nil || a == nil || !strings.Contains(a.body, "not authorized") {
				t.Errorf("%s: load_extension: %v", path, err)
			}
		}
		if got := n.query("none", "SELECT count(DISTINCT r) FROM foo"); got[0] != "3" {
			t.Errorf("%s: an extension has replaced random(): %q distinct numbers", n.id, got)
		}
		if _, err := n.tryQuery("none", "SELECT a FROM bad"); err == nil {
			t.Errorf("%s: a table that can't be read was", n.id)
		}
	}
	leader := c.leader()
	leader.execute("DROP TABLE bad") // nobody can read it, which is what content does
	want := c.equal()
	leader.execute("CREATE VIRTUAL TABLE bad USING broken")
	for _, n := range c { // once by a snapshot and once by the log
		n.kill()
		n.forgetDatabase()
	}
	c.start()
	c.waitReady()
	c.leader().execute("DROP TABLE bad")
	c.holds(want)
	for _, query := range []string{"", "?vacuum"} {
		file := c[0].save(query)
		c.leader().execute("DELETE FROM foo")
		c[1].mustUpload("/db/load", file, true)
		c.waitReady()
		c.holds(want)
		for _, n := range c {
			expectRows(n)
		}
	}
	leader = c.leader()
	truncateLog(leader)
	late := cluster{leader}.join(t, "late", "-extensions-path", so)
	expectRows(late)
	if got := (cluster{late}).counter("store", "num_restores"); got != 1 {
		t.Errorf("the new node has restored %d snapshots; want 1", got)
	}
	append(c, late).holds(want)
}

// TestExtensionsJoin has nodes join a cluster that has other extensions. They are told so and end.
func TestExtensionsJoin(t *testing.T) {
	t.Parallel()
	so := rot13(t, t.TempDir())
	another := rot13(t, t.TempDir(), `-DNOTE="another"`)
	more := compile(t, "rot13.c", filepath.Join(t.TempDir(), "more.so"))
	const begins = "the node that asks does not have the SQLite extensions of this cluster (-extensions-path): it "
	first := startOne(t, append([]string{"-extensions-path", so}, swift...)...)
	useRot13(first)
	for _, tt := range []struct{ name, paths, want string }{
		{"none", "", "lacks rot13.so: all nodes must have the same"},
		{"another", another, "has another rot13.so: all nodes must have the same"},
		{"more", so + "," + more, "has besides more.so: all nodes must have the same"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			late := newNode(t, "late", "-join", first.raftAddr, "-join-interval", "200ms", "-join-attempts", "50", "-extensions-path", tt.paths)
			late.start()
			if code := late.wait(20 * time.Second); code != 1 {
				t.Errorf("exit code = %d; want 1", code)
			}
			if !strings.Contains(late.log(), begins+tt.want) {
				t.Errorf("the log lacks %q:\n%s", begins+tt.want, tail(late.log(), 10))
			}
		})
	}
	cluster{first}.expectMembers("n1")
	right := cluster{first}.join(t, "right", "-extensions-path", so)
	expectRows(right)
}

// TestExtensionsMember starts a member again without the extension, or with another build of it.
func TestExtensionsMember(t *testing.T) {
	t.Parallel()
	const said = "extensions are not those of the leader"
	so := rot13(t, t.TempDir())
	another := rot13(t, t.TempDir(), `-DNOTE="another"`)
	c := startCluster(t, 3, "-extensions-path", so)
	useRot13(c[0])
	c.leader().execute("DROP TABLE bad", "CREATE TABLE bar (v)")
	c.equal()
	odd := c.without(c.leader())[0]

	odd.kill()
	odd.start("-extensions-path", "")
	if code := odd.wait(formLimit); code != 1 {
		t.Errorf("exit code of a node without the extension = %d; want 1", code)
	}
	if last := odd.lastRun(); !strings.Contains(last, "rot13") {
		t.Errorf("it does not say what it lacks:\n%s", tail(last, 10))
	}
	odd.start()
	c.waitReady()

	c.leader().execute("DROP TABLE foo") // the schema does not need it any more, but what is written may
	c.equal()
	for _, n := range c {
		n.mustSnapshot()
	}
	odd.kill()
	odd.start("-extensions-path", "")
	odd.waitReady(formLimit)
	c.leader().execute("INSERT INTO bar VALUES (1)")
	c.equal()
	if n := strings.Count(odd.lastRun(), said+`, what is written with them may differ between the nodes" node="lacks rot13.so"`); n != 1 {
		t.Errorf("it says %d times what it lacks; want once:\n%s", n, tail(odd.lastRun(), 10))
	}
	c.leader().execute("INSERT INTO bar VALUES (rot13('a'))")
	if code := odd.wait(formLimit); code != 1 {
		t.Errorf("exit code of a node that lacks a function = %d; want 1", code)
	}
	if last := odd.lastRun(); !strings.Contains(last, "no such function: rot13: this node lacks rot13.so, which the leader had when it wrote the entry") {
		t.Errorf("it does not say why:\n%s", tail(last, 10))
	}
	odd.start()
	c.waitReady()
	c.equal()

	for _, n := range c { // another build, node by node
		n.stop()
		n.flags = append(n.flags, "-extensions-path", another)
		n.start()
		c.waitReady()
		c.leader().execute("INSERT INTO bar VALUES (rot13('b'))")
		c.equal()
	}
	for _, n := range c {
		n.stop()
		n.start()
	}
	c.waitReady()
	c.leader().execute("INSERT INTO bar VALUES (rot13('c'))")
	c.equal()
	for _, n := range c {
		if strings.Contains(n.lastRun(), said) {
			t.Errorf("%s says that its extensions differ when all have the same:\n%s", n.id, tail(n.lastRun(), 10))
		}
	}
}

// TestExtensionsStart starts nodes that cannot have the extensions that they are to have.
func TestExtensionsStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	text := filepath.Join(dir, "text.so")
	if err := os.WriteFile(text, []byte(strings.Repeat("this is no shared object\n", 100)), 0o644); err != nil {
		t.Fatal(err)
	}
	empty := compile(t, "empty.c", filepath.Join(dir, "empty.so"))
	for _, tt := range []struct{ name, path, want string }{
		{"nowhere", "/nope", "extension path does not exist: /nope"},
		{"not trimmed", text + ", /nope", "extension path does not exist:  /nope"},
		{"folders", zipOf(t, filepath.Join(dir, "zip"), "sub/a.so"), "failed to load extensions from zip file: zip file contains subdirectories"},
		{"escape", zipOf(t, filepath.Join(dir, "escape"), "../../a.so"), "failed to load extensions from zip file: zip file contains subdirectories"},
		{"text", text, "load extension text.so: "},
		{"no extension", empty, "load extension empty.so: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := newNode(t, "n1", "-extensions-path", tt.path)
			n.start()
			if code := n.wait(20 * time.Second); code != 1 {
				t.Errorf("exit code = %d; want 1", code)
			}
			if !strings.Contains(n.log(), tt.want) {
				t.Errorf("the log lacks %q:\n%s", tt.want, tail(n.log(), 10))
			}
		})
	}
}

// TestExtensionsInUse starts a second process in the data directory of a node, with nothing to load. It ends, and what the first one
// has loaded stays.
func TestExtensionsInUse(t *testing.T) {
	t.Parallel()
	so := rot13(t, t.TempDir())
	n := startOne(t, "-extensions-path", so)
	useRot13(n)
	second := newNode(t, "n1")
	second.dir = n.dir
	second.start()
	if code := second.wait(20 * time.Second); code != 1 {
		t.Errorf("exit code = %d; want 1", code)
	}
	if !strings.Contains(second.log(), "data directory is in use by another process") {
		t.Errorf("the log does not say why:\n%s", tail(second.log(), 10))
	}
	names, err := os.ReadDir(filepath.Join(n.dir, "extensions"))
	if err != nil || len(names) != 1 {
		t.Errorf("extensions of the first node: %v, %v", names, err)
	}
	n.execute("INSERT INTO foo(v) VALUES ('more')")
	n.kill()
	n.start()
	n.waitReady(formLimit)
	if got := n.query("none", "SELECT w FROM foo WHERE v='more'"); !slices.Equal(got, []string{"zber"}) {
		t.Errorf("after a restart: %q", got)
	}
}
