package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// writeConfig makes rqlited.conf in a new directory, which becomes the working directory.
func writeConfig(t *testing.T, text string) {
	t.Helper()
	t.Chdir(t.TempDir())
	if err := os.WriteFile("rqlited.conf", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestPrecedence shows which source wins.
func TestPrecedence(t *testing.T) {
	const env, file = "RQLITED_RAFT_SNAP=2", "raft-snap = 3"
	dir := []string{"d"}
	tests := []struct {
		name string
		args []string
		env  []string
		file string
		got  func(s settings) any
		want any
	}{
		{"default", dir, nil, "", threshold, uint64(8192)},
		{"file", dir, nil, file, threshold, uint64(3)},
		{"environment over file", dir, []string{env}, file, threshold, uint64(2)},
		{"command line over environment", []string{"-raft-snap=1", "d"}, []string{env}, file, threshold, uint64(1)},
		{"command line over file", []string{"-raft-snap=1", "d"}, nil, file, threshold, uint64(1)},
		{"default given over environment", []string{"-raft-snap=8192", "d"}, []string{env}, file, threshold, uint64(8192)},
		{"empty variable is not set", dir, []string{"RQLITED_RAFT_SNAP="}, file, threshold, uint64(3)},
		{"new name over old name", []string{"-raft-heartbeat-timeout=10ms", "d"}, []string{"RQLITED_RAFT_TIMEOUT=20ms"}, "raft-timeout = 30ms", heartbeat, 10 * time.Millisecond},
		{"old name over new name", []string{"-raft-timeout=10ms", "d"}, []string{"RQLITED_RAFT_HEARTBEAT_TIMEOUT=20ms"}, "", heartbeat, 10 * time.Millisecond},
		{"old name in the environment", dir, []string{"RQLITED_RAFT_TIMEOUT=20ms"}, "raft-heartbeat-timeout = 30ms", heartbeat, 20 * time.Millisecond},
		{"list", []string{"-join=a:1", "d"}, []string{"RQLITED_JOIN=b:1,c:1"}, "join = d:1", joins, "[a:1]"},
		{"list of the environment", dir, []string{"RQLITED_JOIN=b:1,c:1"}, "join = d:1", joins, "[b:1 c:1]"},
		{"list taken away", []string{"-join=", "d"}, []string{"RQLITED_JOIN=b:1"}, "", joins, "[]"},
		{"flag turned off", []string{"-fk=false", "d"}, []string{"RQLITED_FK=true"}, "fk = true", fk, false},
		{"flag turned on by a number", dir, []string{"RQLITED_FK=1"}, "", fk, true},
		{"directory of the file", nil, nil, "data-dir = f", directory, "f"},
		{"directory of the environment", nil, []string{"RQLITED_DATA_DIR=e"}, "data-dir = f", directory, "e"},
		{"directory by flag", []string{"-data-dir=g"}, []string{"RQLITED_DATA_DIR=e"}, "", directory, "g"},
		{"directory as argument", dir, []string{"RQLITED_DATA_DIR=e"}, "data-dir = f", directory, "d"},
		{"value with = in it", dir, []string{"RQLITED_NODE_ID=a=b"}, "", nodeID, "a=b"},
		{"quoted value", dir, nil, `node-id = " a # b\t"   # comment`, nodeID, " a # b\t"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			writeConfig(t, tt.file)
			s, err := parse(tt.args, append(tt.env, "RQLITED_CONFIG=rqlited.conf"), io.Discard)
			if err != nil {
				t.Fatal(err)
			}
			if got := tt.got(s); got != tt.want {
				t.Errorf("got %v; want %v", got, tt.want)
			}
		})
	}
}

func threshold(s settings) any { return s.store.Snapshot.Threshold }
func heartbeat(s settings) any { return s.store.Raft.HeartbeatTimeout }
func joins(s settings) any     { return fmt.Sprint(s.form.Join) }
func fk(s settings) any        { return s.store.ForeignKeys }
func directory(s settings) any { return s.dir }
func nodeID(s settings) any    { return s.store.NodeID }

// TestConfigFlag expects -config to win over RQLITED_CONFIG.
func TestConfigFlag(t *testing.T) {
	writeConfig(t, "node-id = a")
	s, err := parse([]string{"-config", "rqlited.conf", "d"}, []string{"RQLITED_CONFIG=missing"}, io.Discard)
	if err != nil || s.store.NodeID != "a" {
		t.Errorf("node id %q, %v; want a", s.store.NodeID, err)
	}
}

// TestSourceFaults is the table of what is said about wrong settings that are not on the command line.
func TestSourceFaults(t *testing.T) {
	tests := []struct {
		name string
		args string
		env  []string
		file string
		want []string
	}{
		{"values", "d", []string{"RQLITED_RAFT_SNAP=abc", "RQLITED_FK=maybe"}, "raft-snap-int = 5\nlog-format = xml", []string{
			`rqlited.conf:1: invalid value "5" for -raft-snap-int: parse error`,
			`rqlited.conf:2: invalid value "xml" for -log-format: want text or json`,
			`RQLITED_FK: invalid value "maybe" for -fk: parse error`,
			`RQLITED_RAFT_SNAP: invalid value "abc" for -raft-snap: parse error`}},
		{"also if another source wins", "-raft-snap 1 d", []string{"RQLITED_RAFT_SNAP=abc"}, "raft-snap = x", []string{
			`rqlited.conf:1: invalid value "x" for -raft-snap: parse error`,
			`RQLITED_RAFT_SNAP: invalid value "abc" for -raft-snap: parse error`}},
		{"values and contradictions", "-raft-addr x d", []string{"RQLITED_HTTP_ADDR=x", "RQLITED_RAFT_SNAP=abc"}, "\n# two lines\njoin-attempts = 0", []string{
			`RQLITED_RAFT_SNAP: invalid value "abc" for -raft-snap: parse error`,
			"HTTP and Raft addresses must differ (RQLITED_HTTP_ADDR)",
			"HTTP bind address not valid (RQLITED_HTTP_ADDR)",
			"raft bind address not valid",
			"-join-attempts must be greater than 0 (rqlited.conf:3)"}},
		{"contradiction between sources", "d", []string{"RQLITED_JOIN=a:1"}, "disco-mode = dns\nbootstrap-expect = 3", []string{
			"disco mode cannot be used when also explicitly joining a cluster (RQLITED_JOIN, rqlited.conf:1)",
			"-disco-mode is not supported yet (rqlited.conf:1)"}},
		{"given, though the default", "d", []string{"RQLITED_RAFT_REAP_NODE_TIMEOUT=0s"}, "", []string{
			"-raft-reap-node-timeout must be greater than 0 (RQLITED_RAFT_REAP_NODE_TIMEOUT)"}},
		{"old name", "d", nil, "raft-timeout = 0s", []string{"-raft-heartbeat-timeout must be greater than 0 (rqlited.conf:1)"}},
		{"won by the command line", "-join-attempts 0 d", nil, "join-attempts = 1", []string{"-join-attempts must be greater than 0"}},
		{"blank directory", "", []string{"RQLITED_DATA_DIR= "}, "", []string{"data directory path is required (RQLITED_DATA_DIR)"}},
		{"blank argument", "~", []string{"RQLITED_DATA_DIR=e"}, "", []string{"data directory path is required"}},
		{"no directory", "", nil, "fk = true", []string{"data directory path is required"}},
		{"two directories", "-data-dir a b", nil, "", []string{"the data directory is given twice, as b and by -data-dir"}},

		{"unknown keys", "d", nil, "htp-addr = a\ncertificates = b\n-fk = true\nFK = true", []string{
			`rqlited.conf:1: "htp-addr" is not a setting, did you mean "http-addr"?`,
			`rqlited.conf:2: "certificates" is not a setting`,
			`rqlited.conf:3: "-fk" is not a setting, did you mean "fk"?`,
			`rqlited.conf:4: "FK" is not a setting`}},
		{"not in a file", "d", nil, "version = true\nconfig = other", []string{
			`rqlited.conf:1: "version" cannot be set in a file`,
			`rqlited.conf:2: "config" cannot be set in a file`}},
		{"duplicates", "d", nil, "fk = true\n\nfk = true\nraft-timeout = 1s\nraft-heartbeat-timeout = 1s", []string{
			"rqlited.conf:3: -fk is set by rqlited.conf:1 already",
			"rqlited.conf:5: -raft-heartbeat-timeout is set by rqlited.conf:4 already"}},
		{"duplicate variable", "d", []string{"RQLITED_RAFT_TIMEOUT=1s", "RQLITED_RAFT_HEARTBEAT_TIMEOUT=1s"}, "", []string{
			"RQLITED_RAFT_TIMEOUT: -raft-heartbeat-timeout is set by RQLITED_RAFT_HEARTBEAT_TIMEOUT already"}},
		{"malformed lines", "d", nil, "fk\n= true\n[http]\n{\"fk\": \"a=b\"}\nnode-id = \"a\nnode-id = \"a\" b\nnode-id = \"\\q\"", []string{
			"rqlited.conf:1: want key = value",
			"rqlited.conf:2: want key = value",
			"rqlited.conf:3: want key = value",
			"rqlited.conf:4: want key = value",
			"rqlited.conf:5: the quoted value does not end, or has an unknown escape",
			"rqlited.conf:6: only a comment may follow the quoted value",
			"rqlited.conf:7: the quoted value does not end, or has an unknown escape"}},
		{"empty value", "d", nil, "raft-snap =\nnode-id = # none", []string{`rqlited.conf:1: invalid value "" for -raft-snap: parse error`}},
		{"too large", "d", nil, "# " + strings.Repeat("x", maxConfigFile), []string{"RQLITED_CONFIG: rqlited.conf has more than 65536 bytes"}},
		{"no file", "-config missing d", nil, "", []string{"-config: open missing: no such file or directory"}},
		{"no regular file", "-config . d", nil, "", []string{"-config: read .: is a directory"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			writeConfig(t, tt.file)
			var out bytes.Buffer
			code := run(split(tt.args), append(tt.env, "RQLITED_CONFIG=rqlited.conf"), &out, nil)
			if got, want := out.String(), faultsError(tt.want).Error()+"\n"; code != 1 || got != want {
				t.Errorf("exit code %d, output\n%s\nwant 1 and\n%s", code, got, want)
			}
		})
	}
}

// TestNotes expects what is harmless to be pointed out, once each.
func TestNotes(t *testing.T) {
	writeConfig(t, "# nothing\nraft-timeout = 200ms\n")
	env := []string{"RQLITED_HTTP_ADR=x:1", "RQLITED_PORT_4001_TCP=tcp://10.0.0.1:4001", "RQLITED_VERSION=1", "RQLITED_NODE_ID=n", "RQLITED_FK=", "HOME=/root"}
	s, err := parse([]string{"-raft-timeout", "300ms", "-config", "rqlited.conf", "d"}, env, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, n := range s.notes {
		got = append(got, fmt.Sprint(n.level, " ", n.msg, " ", n.attrs))
	}
	want := []string{
		"WARN flag has a new name [flag -raft-timeout name -raft-heartbeat-timeout from rqlited.conf:2]",
		"WARN environment variable is not a setting [variable RQLITED_HTTP_ADR nearest RQLITED_HTTP_ADDR]",
		"WARN environment variable is not a setting [variable RQLITED_PORT_4001_TCP]",
		"WARN environment variable is not a setting [variable RQLITED_VERSION]",
		"INFO settings beside the command line [file rqlited.conf variables [RQLITED_NODE_ID]]",
		"WARN flag has a new name [flag -raft-timeout name -raft-heartbeat-timeout from command line]",
	}
	if !slices.Equal(got, want) {
		t.Errorf("notes\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestSecrets expects no value that may be a secret in what is printed or logged, whatever else is wrong.
func TestSecrets(t *testing.T) {
	const secret = "tok3n"
	config := `{"token": "` + secret + `"}`
	for _, tt := range []struct {
		name string
		args []string
		env  []string
		file string
	}{
		{"command line", []string{"-disco-config", config, "d"}, nil, ""},
		{"environment", []string{"d"}, []string{"RQLITED_DISCO_CONFIG=" + config, "RQLITED_CDC_CONFIG=http://u:" + secret + "@h"}, ""},
		{"unknown variable", []string{"-raft-snap-int", "0s", "d"}, []string{"RQLITED_TOKEN=" + secret}, ""},
		{"file", []string{"d"}, nil, "disco-config = " + config + "\ndisco-config = " + config},
		{"malformed file", []string{"d"}, nil, config + "\n" + secret + "\nauth \"x=" + secret + "\"\ncdc-config = \"" + secret + "\ncdc-config = \"\" " + secret},
		{"unknown key", []string{"d"}, nil, "token = " + secret},
	} {
		t.Run(tt.name, func(t *testing.T) {
			writeConfig(t, tt.file)
			var out bytes.Buffer
			if code := run(tt.args, append(tt.env, "RQLITED_CONFIG=rqlited.conf"), &out, nil); code != 1 || out.Len() == 0 {
				t.Errorf("exit code %d; want 1 and a reason", code)
			}
			if strings.Contains(out.String(), secret) {
				t.Errorf("secret in %q", out.String())
			}
		})
	}
}

// TestEverySettingEverywhere sets each flag by its variable and by its line, to its default.
func TestEverySettingEverywhere(t *testing.T) {
	for _, name := range (&sources{fs: new(settings).newFlagSet(io.Discard)}).names(notInFile) {
		def := new(settings).newFlagSet(io.Discard).Lookup(name).DefValue
		for _, src := range []struct {
			origin string
			env    []string
			file   string
		}{
			{envName(name), []string{envName(name) + "=" + def}, ""},
			{"rqlited.conf:1", nil, name + " = " + def},
		} {
			writeConfig(t, src.file)
			fs := new(settings).newFlagSet(io.Discard)
			s := sources{fs: fs, origins: map[string]string{}}
			s.read("rqlited.conf", src.env)
			want := map[string]string{s.today(name, ""): src.origin}
			if def == "" && src.env != nil {
				want = nil
			}
			if len(s.faults) > 0 || fmt.Sprint(s.origins) != fmt.Sprint(want) {
				t.Errorf("%s: faults %v, origins %v; want none, %v", src.origin, s.faults, s.origins, want)
			}
		}
	}
}

func TestNearest(t *testing.T) {
	known := []string{"fk", "http-addr", "http-adv-addr", "raft-addr", "raft-snap", "raft-snap-int"}
	for _, tt := range []struct{ name, want string }{
		{"http-adr", "http-addr"},
		{"raft-snaps", "raft-snap"},
		{"raftaddr", "raft-addr"},
		{"raft-snap-interval", "raft-snap-int"},
		{"f", ""},
		{"", ""},
		{"listen", ""},
	} {
		if got := nearest(tt.name, known, 0); got != tt.want {
			t.Errorf("nearest(%q) = %q; want %q", tt.name, got, tt.want)
		}
	}
}

// FuzzParseConfig expects no text to break the reader, or what it says to leave its line.
func FuzzParseConfig(f *testing.F) {
	f.Add("http-addr = localhost:4001 # comment\r\n\nfk=true\nnode-id = \"a # b\" # c\nbad")
	f.Add("a=\"\\x")
	f.Fuzz(func(t *testing.T, text string) {
		lines := parseConfig("f", text)
		if max := strings.Count(text, "\n") + 1; len(lines) > max {
			t.Errorf("%d settings on %d lines", len(lines), max)
		}
		for _, l := range lines {
			if l.fault == "" && !isKey(l.key) || !strings.HasPrefix(l.origin, "f:") {
				t.Errorf("line %+v", l)
			}
		}
	})
}
