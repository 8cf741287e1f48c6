package system

import (
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// refused starts the node and expects it to end by itself with exit code 1 and one line that
// names what is wrong, having changed none of the files that were there.
func refused(t *testing.T, n *node, mention string) {
	t.Helper()
	before := tree(t, n.dir)
	logged := len(n.log())
	n.start()
	if code := n.wait(20 * time.Second); code != 1 {
		t.Errorf("exit code = %d; want 1", code)
	}
	if !mentions(n.log()[logged:], mention) {
		t.Errorf("no line says what is wrong with %s:\n%s", mention, tail(n.log()[logged:], 20))
	}
	after := tree(t, n.dir)
	for _, name := range slices.Sorted(maps.Keys(before)) {
		switch got, ok := after[name]; {
		case name == "db.sqlite-wal" || name == "db.sqlite-shm":
			// every start drops what the working database had not checkpointed
		case !ok:
			t.Errorf("%s was deleted", name)
		case name == "LOCK" || name == "raft.db" && mention != "raft.db":
			// a lock holds nothing; a log that is whole is opened, and notes that
		case got != before[name]:
			t.Errorf("%s was changed from %s to %s", name, before[name], got)
		}
	}
}

// mentions says whether one line other than the harness's own has the text.
func mentions(log, text string) bool {
	for line := range strings.Lines(log) {
		if !strings.HasPrefix(line, "=== ") && strings.Contains(line, text) {
			return true
		}
	}
	return false
}

// TestRefuseDamage damages the files that hold the truth, one after the other. The node does not
// start, says which file it is, deletes nothing, and has all rows when the damage is undone.
func TestRefuseDamage(t *testing.T) {
	t.Parallel()
	n := startOne(t)
	n.execute("CREATE TABLE foo (id INTEGER NOT NULL PRIMARY KEY, name TEXT)")
	insertRows(n, 10)
	truncateLog(n) // which could make up for the snapshot
	insertRows(n, 10)
	want := n.content()
	n.kill()
	tests := []struct {
		file   string
		damage func(text string) string
	}{
		{"snapshots/MANIFEST", func(text string) string { return "" }},
		{"snapshots/MANIFEST", func(text string) string { return text[:len(text)/2] }},
		{"snapshots/MANIFEST", func(text string) string { return flip(text, len(text)/3) }},
		{"snapshots/MANIFEST", func(text string) string { return strings.Repeat("\x00", len(text)) }},
		{"snapshots/MANIFEST", func(text string) string { return text + "more" }},
		{"raft.db", func(text string) string { return strings.Repeat("\xa5", len(text)) }},
		{"raft.db", func(text string) string { return strings.Repeat("\x00", len(text)) }},
		{"raft.db", func(text string) string { return text[:len(text)/4] }},
	}
	for _, tt := range tests {
		good := readFile(t, n.dir, tt.file)
		writeFile(t, n.dir, tt.file, tt.damage(good))
		refused(t, n, filepath.Base(tt.file))
		writeFile(t, n.dir, tt.file, good)
	}
	n.start()
	n.has(want)
}

// TestRefuseDamagedSnapshot damages the snapshot itself, whose log entries are gone: the node
// must not serve less than it acknowledged.
func TestRefuseDamagedSnapshot(t *testing.T) {
	t.Parallel()
	n := startOne(t, "-raft-snap", "4")
	n.execute("CREATE TABLE foo (id INTEGER NOT NULL PRIMARY KEY, name TEXT)")
	insertRows(n, 40)
	want := n.content()
	n.mustSnapshot()
	n.kill()
	n.forgetDatabase()
	names, err := filepath.Glob(filepath.Join(n.dir, "snapshots", "*.base"))
	if err != nil || len(names) == 0 {
		t.Fatalf("snapshots/*.base: %v, %v", names, err)
	}
	name := filepath.Join("snapshots", filepath.Base(names[len(names)-1]))
	good := readFile(t, n.dir, name)
	writeFile(t, n.dir, name, flip(good, len(good)/2))
	refused(t, n, "snapshot")
	writeFile(t, n.dir, name, good)
	n.start()
	n.has(want)
}

// flip inverts one byte.
func flip(text string, at int) string {
	b := []byte(text)
	b[at] ^= 0xff
	return string(b)
}

// TestRefuseSharedDirectory starts a second process on the directory of a running one.
func TestRefuseSharedDirectory(t *testing.T) {
	t.Parallel()
	n := startOne(t)
	n.execute("CREATE TABLE foo (id INTEGER NOT NULL PRIMARY KEY, name TEXT)")
	second := newNode(t, "n1-again")
	second.dir = n.dir
	second.start()
	if code := second.wait(10 * time.Second); code != 1 {
		t.Errorf("exit code of the second process = %d; want 1", code)
	}
	if !mentions(second.log(), n.dir) {
		t.Errorf("no line names the directory:\n%s", second.log())
	}
	insertRows(n, 3)
	want := n.content()
	n.kill()
	n.start()
	n.has(want)
}

// TestRefuseDirectory gives data directories that cannot be made.
func TestRefuseDirectory(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("not a directory"), 0o644); err != nil {
		t.Fatal(err)
	}
	dirs := []string{file, filepath.Join(file, "below")}
	if _, err := os.Stat("/proc/self"); err == nil {
		dirs = append(dirs, "/proc/nope") // not even root may write there
	}
	if os.Getuid() != 0 { // root may write anywhere
		readOnly := filepath.Join(t.TempDir(), "readonly")
		if err := os.Mkdir(readOnly, 0o555); err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, readOnly)
	}
	for _, dir := range dirs {
		n := newNode(t, "n1")
		n.dir = dir
		n.start()
		if code := n.wait(10 * time.Second); code != 1 {
			t.Errorf("%s: exit code = %d; want 1", dir, code)
		}
		if !mentions(n.log(), dir) {
			t.Errorf("%s: no line names the directory:\n%s", dir, n.log())
		}
	}
	if got := readFile(t, filepath.Dir(file), "file"); got != "not a directory" {
		t.Errorf("the file has become %q", got)
	}
}

// TestRefusePort starts a node on ports where another process listens.
func TestRefusePort(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, flag := range []string{"-raft-addr", "-http-addr"} {
		n := newNode(t, "n1", flag, taken.Addr().String())
		n.start()
		if code := n.wait(10 * time.Second); code != 1 {
			t.Errorf("%s taken: exit code = %d; want 1", flag, code)
		}
		want := "listen tcp " + taken.Addr().String() + ": bind: address already in use"
		if !mentions(n.log(), want) {
			t.Errorf("%s taken: no line says %q:\n%s", flag, want, n.log())
		}
	}
}

// TestCommandLine runs rqlited with command lines that end it at once.
func TestCommandLine(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	tests := []struct {
		args []string
		code int
		want string // on standard error
	}{
		{nil, 1, "missing required argument: DataPath\n"},
		{[]string{""}, 1, "fatal: data directory path is required\n"},
		{[]string{"-fk"}, 1, "fatal: data directory path is required\n"},
		{[]string{"-h"}, 0, "-bootstrap-expect"},
		{[]string{"--help"}, 0, "-raft-non-voter"},
		{[]string{"-version"}, 0, "rqlited "},
		{[]string{"-bogus", dir}, 2, "flag provided but not defined: -bogus\n"},
		{[]string{"-raft-snap", "abc", dir}, 2, `invalid value "abc" for flag -raft-snap: parse error` + "\n"},
		{[]string{"-raft-heartbeat-timeout", "5", dir}, 2, `invalid value "5" for flag -raft-heartbeat-timeout: parse error` + "\n"},
		{[]string{"-fk=maybe", dir}, 2, `invalid boolean value "maybe" for -fk: parse error` + "\n"},
		{[]string{dir, "-http-addr", "localhost:4001"}, 1, "arguments after data directory (" + dir + ") are not accepted ([-http-addr localhost:4001])\n"},
		{[]string{"-raft-reap-node-timeout", "0s", dir}, 1, "fatal: -raft-reap-node-timeout must be greater than 0\n"},
		{[]string{"-http-cert", "a", dir}, 1, "fatal: either both -http-cert and -http-key must be set, or neither\n"},
		{[]string{"-node-key", "a", dir}, 1, "fatal: either both -node-cert and -node-key must be set, or neither\n"},
		{[]string{"-node-verify-common-name", "a", dir}, 1, "fatal: -node-verify-common-name requires -node-verify-client\n"},
		{[]string{"-raft-addr", "localhost:1", "-http-addr", "localhost:1", dir}, 1, "fatal: HTTP and Raft addresses must differ\n"},
		{[]string{"-http-addr", "http://localhost:1", dir}, 1, "fatal: HTTP options should not include protocol (http:// or https://)\n"},
		{[]string{"-http-addr", "localhost", dir}, 1, "fatal: HTTP bind address not valid\n"},
		{[]string{"-http-adv-addr", "localhost", dir}, 1, "fatal: HTTP advertised HTTP address not valid\n"},
		{[]string{"-http-addr", "0.0.0.0:1", dir}, 1, "fatal: advertised HTTP address is not routable (0.0.0.0), specify it via -http-addr or -http-adv-addr\n"},
		{[]string{"-raft-addr", "localhost", dir}, 1, "fatal: raft bind address not valid\n"},
		{[]string{"-raft-addr", "localhost:x", dir}, 1, "fatal: raft bind port not valid\n"},
		{[]string{"-raft-adv-addr", "localhost", dir}, 1, "fatal: raft advertised address not valid\n"},
		{[]string{"-raft-addr", "0.0.0.0:1", dir}, 1, "fatal: advertised Raft address is not routable (0.0.0.0), specify it via -raft-addr or -raft-adv-addr\n"},
		{[]string{"-http-adv-addr", "localhost:1", "-raft-adv-addr", "localhost:1", dir}, 1, "fatal: advertised HTTP and Raft addresses must differ\n"},
		{[]string{"-bootstrap-expect", "3", "-raft-non-voter", dir}, 1, "fatal: bootstrapping only applicable to voting nodes\n"},
		{[]string{"-join", "foo", dir}, 1, "fatal: foo is an invalid join address\n"},
		{[]string{"-join", "localhost:4002", dir}, 1, "fatal: node cannot join with itself unless bootstrapping\n"},
		{[]string{"-join", "localhost:1", "-disco-mode", "dns", dir}, 1, "fatal: disco mode cannot be used when also explicitly joining a cluster\n"},
		{[]string{"-disco-mode", "nope", dir}, 1, "fatal: disco mode must be one of consul-kv, etcd-kv, dns, or dns-srv\n"},
	}
	for _, tt := range tests {
		t.Run(strings.ReplaceAll(strings.Join(tt.args, " "), dir, "DIR"), func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), rqlited, tt.args...)
			var stdout, stderr strings.Builder
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			cmd.Run() // the exit code says how it went
			if code := cmd.ProcessState.ExitCode(); code != tt.code || !strings.Contains(stderr.String(), tt.want) {
				t.Errorf("exit code %d, want %d; standard error:\n%swant: %s", code, tt.code, tail(stderr.String(), 5), tt.want)
			}
			if stdout.Len() > 0 {
				t.Errorf("standard output: %s", stdout.String())
			}
		})
	}
	if files := tree(t, dir); len(files) > 0 {
		t.Errorf("refused command lines left %v", files)
	}
}
