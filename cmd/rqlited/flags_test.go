package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	httpd "rqlited/http"
	"rqlited/store"
)

// TestCommandLine is the table of what each way to call the program says and returns, for the ways
// that start nothing.
func TestCommandLine(t *testing.T) {
	for _, tt := range []commandLine{
		{"", 1, "rqlited: failed to parse command-line flags: missing required argument: DataPath\n"},
		{"~", 1, fatal("data directory path is required")},
		{"-fk", 1, fatal("data directory path is required")},
		{"-h", 0, "Usage: rqlited [flags] <data directory>"},
		{"--help", 0, "Usage: rqlited [flags] <data directory>"},
		{"-version", 0, versionLine() + "\n"},
		{"-version d", 0, versionLine() + "\n"},
		{"-bogus d", 2, "flag provided but not defined: -bogus"},
		{"-raft-snap abc d", 2, `invalid value "abc" for flag -raft-snap: parse error`},
		{"-raft-heartbeat-timeout 5 d", 2, `invalid value "5" for flag -raft-heartbeat-timeout: parse error`},
		{"-fk=maybe d", 2, `invalid boolean value "maybe" for -fk: parse error`},
		{"-log-format xml d", 2, `invalid value "xml" for flag -log-format: want text or json`},
		{"-write-queue-capacity x d", 2, `invalid value "x" for flag -write-queue-capacity: parse error`},
		{"d e", 1, "arguments after data directory (d) are not accepted ([e])\n"},
		{"d -http-addr localhost:4001", 1, "arguments after data directory (d) are not accepted ([-http-addr localhost:4001])\n"},

		{"-raft-reap-node-timeout 0s d", 1, fatal("-raft-reap-node-timeout must be greater than 0")},
		{"-raft-reap-read-only-node-timeout -1s d", 1, fatal("-raft-reap-read-only-node-timeout must be greater than 0")},
		{"-http-addr localhost:4002 d", 1, fatal("HTTP and Raft addresses must differ")},
		{"-http-addr HTTP://localhost:4001 d", 1, fatal("HTTP options should not include protocol (http:// or https://)")},
		{"-http-adv-addr https://localhost:4001 d", 1, fatal("HTTP options should not include protocol (http:// or https://)")},
		{"-http-addr localhost d", 1, fatal("HTTP bind address not valid")},
		{"-http-adv-addr localhost d", 1, fatal("HTTP advertised HTTP address not valid")},
		{"-http-addr 0.0.0.0:4001 d", 1, fatal("advertised HTTP address is not routable (0.0.0.0), specify it via -http-addr or -http-adv-addr")},
		{"-http-addr [::]:4001 d", 1, fatal("advertised HTTP address is not routable (::), specify it via -http-addr or -http-adv-addr")},
		{"-raft-addr localhost d", 1, fatal("raft bind address not valid")},
		{"-raft-addr localhost:x d", 1, fatal("raft bind port not valid")},
		{"-raft-adv-addr localhost d", 1, fatal("raft advertised address not valid")},
		{"-raft-addr 0.0.0.0:4002 d", 1, fatal("advertised Raft address is not routable (0.0.0.0), specify it via -raft-addr or -raft-adv-addr")},
		{"-raft-adv-addr localhost:x d", 1, fatal("raft advertised port is not valid")},
		{"-raft-adv-addr host:1 -http-adv-addr host:1 d", 1, fatal("advertised HTTP and Raft addresses must differ")},
		{"-write-queue-capacity 0 -write-queue-batch-size -1 -write-queue-timeout -1s d", 1, fatal("-write-queue-capacity must be at least 1",
			"-write-queue-batch-size must be at least 1", "-write-queue-timeout must not be negative")},
		{"-raft-non-voter -bootstrap-expect 3 d", 1, fatal("bootstrapping only applicable to voting nodes")},
		{"-join foo d", 1, fatal("foo is an invalid join address")},
		{"-join host:1,,bar d", 1, fatal(" is an invalid join address", "bar is an invalid join address")},
		{"-join host:1,localhost:4002 d", 1, fatal("node cannot join with itself unless bootstrapping")},
		{"-raft-adv-addr me:1 -join me:1 d", 1, fatal("node cannot join with itself unless bootstrapping")},

		{"-raft-heartbeat-timeout 0s d", 1, fatal("-raft-heartbeat-timeout must be greater than 0")},
		{"-raft-snap-int 0s d", 1, fatal("-raft-snap-int must be greater than 0")},
		{"-raft-heartbeat-timeout 1ms -raft-election-timeout 1ms -raft-commit-timeout 1us -raft-snap-int 4ms -raft-leader-lease-timeout 4ms d", 1, fatal(
			"-raft-commit-timeout must be at least 1ms", "-raft-election-timeout must be at least 5ms", "-raft-heartbeat-timeout must be at least 5ms",
			"-raft-snap-int must be at least 5ms", "-raft-leader-lease-timeout must be 0 or at least 5ms")},
		{"-raft-timeout 2s d", 1, fatal("-raft-election-timeout (1s) must not be less than -raft-heartbeat-timeout (2s)")},
		{"-raft-leader-lease-timeout 2s d", 1, fatal("-raft-leader-lease-timeout (2s) must not be more than -raft-heartbeat-timeout (1s)")},
		{"-join-attempts 0 d", 1, fatal("-join-attempts must be greater than 0")},
		{"-bootstrap-expect -1 d", 1, fatal("-bootstrap-expect must not be negative")},
		{"-db-max-ro-conns -1 d", 1, fatal("-db-max-ro-conns must not be negative")},
		{"-hash-check-interval -1s d", 1, fatal("-hash-check-interval must be 0 or at least 1s")},
		{"-hash-check-interval 999ms -join-attempts 0 d", 1, fatal("-hash-check-interval must be 0 or at least 1s", "-join-attempts must be greater than 0")},
		{"-auto-vacuum-int -1s -auto-optimize-int -1s d", 1, fatal("-auto-vacuum-int must not be negative", "-auto-optimize-int must not be negative")},
		{"-hash-check-interval 5 d", 2, `invalid value "5" for flag -hash-check-interval: parse error`},
		{"-raft-leader-lease-timeout -1s d", 1, fatal("-raft-leader-lease-timeout must not be negative")},
		{"-raft-snap-wal-size 9223372036854775808 d", 1, fatal("-raft-snap-wal-size is too large")},
		{"-raft-reap-node-timeout 0s -http-addr x -raft-addr y -cdc-config a ~", 1, fatal( // all at once, in rqlite's order
			"-raft-reap-node-timeout must be greater than 0",
			"data directory path is required",
			"HTTP bind address not valid",
			"raft bind address not valid",
			"-cdc-config is not supported yet")},
	} {
		tt.check(t)
	}
}

// TestFeatureFaults is the part of it that is about TLS and about what is missing.
func TestFeatureFaults(t *testing.T) {
	for _, tt := range []commandLine{
		{"-cdc-config x d", 1, fatal("-cdc-config is not supported yet")},
		{"-extensions-path /no/a,/no/b -http-cert x d", 1, fatal("extension path does not exist: /no/a", "extension path does not exist: /no/b",
			"either both -http-cert and -http-key must be set, or neither", "-http-cert: x does not exist")},
		{"-http-cert /no/a d", 1, fatal("either both -http-cert and -http-key must be set, or neither", "-http-cert: /no/a does not exist")},
		{"-node-key /no/a d", 1, fatal("either both -node-cert and -node-key must be set, or neither", "-node-key: /no/a does not exist")},
		{"-http-verify-common-name a d", 1, fatal("-http-verify-common-name requires -http-verify-client")},
		{"-node-verify-common-name a d", 1, fatal("-node-verify-common-name requires -node-verify-client")},
		{"-join h:1 -auto-restore a d", 1, fatal("auto-restoring cannot be used when joining a cluster", "-auto-restore is not supported yet")},
		{"-join h:1 -disco-mode consul-kv d", 1, fatal("disco mode cannot be used when also explicitly joining a cluster", "-disco-mode is not supported yet")},
		{"-cdc-config a -raft-non-voter d", 1, fatal("CDC cannot be enabled on non-voting nodes", "-cdc-config is not supported yet")},
		{"-otlp-endpoint h:1 -otlp-key a d", 1, fatal("either both -otlp-cert and -otlp-key must be set, or neither", "-otlp-endpoint is not supported yet", "-otlp-key is not supported yet")},
		{"-otlp-insecure d", 1, fatal("OTLP options require -otlp-endpoint", "-otlp-insecure is not supported yet")},
		{"-otlp-endpoint http://h:1 d", 1, fatal("-otlp-endpoint must not include a protocol scheme", "-otlp-endpoint is not supported yet")},
		{"-otlp-endpoint h d", 1, fatal("-otlp-endpoint is not a valid address", "-otlp-endpoint is not supported yet")},
		{"-otlp-interval 0s d", 1, fatal("-otlp-interval must be greater than zero", "-otlp-interval is not supported yet")},
		{"-otlp-endpoint h:1 -otlp-insecure -otlp-no-verify d", 1, fatal("-otlp-insecure cannot be used with other OTLP TLS options",
			"-otlp-endpoint is not supported yet", "-otlp-insecure is not supported yet", "-otlp-no-verify is not supported yet")},
		{"-disco-mode etcd-kv -bootstrap-expect 3 d", 1, fatal("bootstrapping not applicable when using etcd-kv", "-disco-mode is not supported yet")},
		{"-disco-mode dns d", 1, fatal("bootstrap-expect value required when using dns with a voting node", "-disco-mode is not supported yet")},
		{"-disco-mode x d", 1, fatal("disco mode must be one of consul-kv, etcd-kv, dns, or dns-srv", "-disco-mode is not supported yet")},
		{"-http-cert /no/a -http-key /no/b -http-ca-cert /no/c d", 1, fatal("-http-cert: /no/a does not exist", "-http-key: /no/b does not exist", "-http-ca-cert: /no/c does not exist")},
		{"-http-verify-client d", 1, fatal("-http-verify-client requires -http-cert and -http-key")},
		{"-node-verify-client d", 1, fatal("-node-verify-client requires -node-cert and -node-key")},
		{"-node-ca-cert /no/c d", 1, fatal("-node-ca-cert requires -node-cert and -node-key", "-node-ca-cert: /no/c does not exist")},
	} {
		tt.check(t)
	}
}

// commandLine is a way to call the program, and what it says and returns.
type commandLine struct {
	args string // separated by spaces; ~ stands for an empty argument
	code int
	want string // the whole output, or its first line if there may be more
}

func (l commandLine) check(t *testing.T) {
	t.Helper()
	t.Run(l.args, func(t *testing.T) {
		var out bytes.Buffer
		code := run(split(l.args), nil, &out, nil)
		got := out.String()
		if !strings.HasSuffix(l.want, "\n") {
			got, _, _ = strings.Cut(got, "\n")
		}
		if code != l.code || got != l.want {
			t.Errorf("exit code %d, output %q; want %d, %q", code, got, l.code, l.want)
		}
	})
}

func fatal(faults ...string) string { return faultsError(faults).Error() + "\n" }

// split makes arguments of a line; ~ stands for an empty one.
func split(line string) []string {
	args := strings.Fields(line)
	for i, arg := range args {
		args[i] = strings.Trim(arg, "~")
	}
	return args
}

// accepted is a command line that starts a node, given before the data directory.
func accepted(t *testing.T, args string) settings {
	t.Helper()
	var out bytes.Buffer
	s, err := parse(append(split(args), "d"), nil, &out)
	if err != nil {
		t.Fatalf("parse(%s) = %v; output %q", args, err, out.String())
	}
	return s
}

// TestHarmless holds command lines that scripts for rqlite use, and which have to work.
func TestHarmless(t *testing.T) {
	for _, args := range []string{
		"",
		"-http-addr :4001",
		"-http-addr 0.0.0.0:4001 -http-adv-addr host:4001 -raft-addr 0.0.0.0:4002 -raft-adv-addr host:4002",
		"-join http://nonsense", // host "http", port "//nonsense"
		"-join localhost:4002,other:4002 -bootstrap-expect 2",
		"-node-id 1 -http-addr localhost:4003 -http-adv-addr localhost:4003 -bootstrap-expect 0 -raft-addr localhost:4004" +
			" -raft-snap 8192 -raft-snap-int 1s -raft-cluster-remove-shutdown=false -raft-non-voter=false" +
			" -join-interval 1s -raft-log-level INFO",
		"-auto-optimize-int 24h -auto-vacuum-int 0s -write-queue-capacity 1024 -http-verify-client=false -disco-key rqlite",
		"-auto-optimize-int 0h",
		"-raft-timeout 2s -raft-election-timeout 2s -raft-leader-lease-timeout 2s",
		"-on-disk-path /dev/shm/db.sqlite",
		"-raft-log-level chatty",
		"-raft-reap-node-timeout 1h",
		"-join-as bob -join host:1",
		"-http-no-verify -node-no-verify -node-verify-server-name x",
	} {
		t.Run(args, func(t *testing.T) { accepted(t, args) })
	}
}

// TestSettings shows where flags end up whose value is translated.
func TestSettings(t *testing.T) {
	tests := []struct {
		args string
		got  func(s settings) any
		want any
	}{
		{"", func(s settings) any { return s.http.public() }, "localhost:4001"},
		{"-http-adv-addr h:1", func(s settings) any { return s.http.public() }, "h:1"},
		{"-raft-addr h:1", func(s settings) any { return s.raft.public() }, "h:1"},
		{"", func(s settings) any { return s.store.Dir }, "d"},
		{"", func(s settings) any { return s.form.Voter }, true},
		{"-raft-non-voter", func(s settings) any { return s.form.Voter }, false},
		{"", func(s settings) any { return s.store.Upkeep }, store.UpkeepConfig{Optimize: 24 * time.Hour}},
		{"-auto-vacuum-int 1h -auto-optimize-int 0h", func(s settings) any { return s.store.Upkeep }, store.UpkeepConfig{Vacuum: time.Hour}},
		{"", func(s settings) any { return s.stepdown }, true},
		{"-raft-shutdown-stepdown=false", func(s settings) any { return s.stepdown }, false},
		{"", func(s settings) any { return len(s.form.Join) }, 0},
		{"-join=", func(s settings) any { return len(s.form.Join) }, 0},
		{"-join a:1 -join b:1,c:1", func(s settings) any { return fmt.Sprint(s.form.Join) }, "[b:1 c:1]"},
		{"-bootstrap-expect 3", func(s settings) any { return s.store.BootstrapExpect }, 3},
		{"-bootstrap-expect 3", func(s settings) any { return s.form.BootstrapExpect }, 3},
		{"-write-queue-capacity 9 -write-queue-batch-size 8 -write-queue-timeout 7s -write-queue-tx", func(s settings) any { return s.http.queue },
			httpd.QueueConfig{Capacity: 9, BatchSize: 8, Timeout: 7 * time.Second, Transaction: true}},
		{"-write-queue-timeout 0", func(s settings) any { return s.http.queue.Timeout < 0 }, true},
		{"", func(s settings) any { return s.store.MaxReaders }, 256},
		{"-db-max-ro-conns 0", func(s settings) any { return s.store.MaxReaders }, math.MaxInt},
		{"", func(s settings) any { return s.store.Snapshot.WALSize }, int64(4 << 20)},
		{"-raft-snap-wal-size 0", func(s settings) any { return s.store.Snapshot.WALSize }, int64(-1)},
		{"-raft-timeout 200ms", func(s settings) any { return s.store.Raft.HeartbeatTimeout }, 200 * time.Millisecond},
		{"-raft-heartbeat-timeout 300ms", func(s settings) any { return s.store.Raft.HeartbeatTimeout }, 300 * time.Millisecond},
		{"-raft-log-level debug", func(s settings) any { return s.store.Raft.LogLevel }, "DEBUG"},
		{"-raft-log-level chatty", func(s settings) any { return s.store.Raft.LogLevel }, "WARN"},
		{"-raft-reap-node-timeout 1h", func(s settings) any { return s.store.Reap.Voter }, time.Hour},
		{"", func(s settings) any { return s.store.HashCheckInterval }, time.Duration(0)},
		{"-hash-check-interval 1m", func(s settings) any { return s.store.HashCheckInterval }, time.Minute},
		{"-log-level warn", func(s settings) any { return s.log.level.String() }, "WARN"},
		{"", func(s settings) any { return s.log.format }, logText},
		{"-log-format json", func(s settings) any { return s.log.format }, logJSON},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			if got := tt.got(accepted(t, tt.args)); got != tt.want {
				t.Errorf("got %v; want %v", got, tt.want)
			}
		})
	}
}

// TestEveryFlagIsKnown compares names, types and defaults of the flags with those that rqlite has.
func TestEveryFlagIsKnown(t *testing.T) {
	text, err := os.ReadFile("testdata/rqlite_flags.txt")
	if err != nil {
		t.Fatal(err)
	}
	fs := new(settings).newFlagSet(io.Discard)
	rqlites := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] == "#" {
			continue
		}
		name, kind, def := words[0], words[1], strings.Trim(words[2], "-")
		rqlites[name] = true
		f := fs.Lookup(name)
		if f == nil {
			t.Errorf("-%s is not known", name)
			continue
		}
		if got := kindOf(f); got != kind {
			t.Errorf("-%s is a %s; want %s", name, got, kind)
		}
		if err := f.Value.Set(def); err != nil { // so that both are in the same form
			t.Errorf("-%s %s: %v", name, def, err)
		}
		if got := f.Value.String(); got != f.DefValue {
			t.Errorf("default of -%s = %q; want %q", name, f.DefValue, got)
		}
	}
	ours := []string{"config", "data-dir", "hash-check-interval", "http-no-verify", "log-format", "log-level"}
	fs.VisitAll(func(f *flag.Flag) {
		if !rqlites[f.Name] && !slices.Contains(ours, f.Name) {
			t.Errorf("-%s is neither rqlite's nor one of %v", f.Name, ours)
		}
	})
}

// kindOf names the type of a flag as testdata/rqlite_flags.txt does.
func kindOf(f *flag.Flag) string {
	switch v := f.Value.(type) {
	case *list:
		return "list"
	case flag.Getter:
		switch v.Get().(type) {
		case time.Duration:
			return "duration"
		case uint64:
			return "uint"
		default:
			return fmt.Sprintf("%T", v.Get())
		}
	}
	return fmt.Sprintf("%T", f.Value)
}

// TestEveryFlagHasEffect gives each flag another value than its default, and expects it to get anywhere.
func TestEveryFlagHasEffect(t *testing.T) {
	var plain settings
	fs := plain.newFlagSet(io.Discard)
	fs.VisitAll(func(f *flag.Flag) {
		if slices.ContainsFunc(later, func(l laterFlag) bool { return l.name == f.Name }) {
			return // refused, as TestLaterFlags shows
		}
		var s settings
		set := s.newFlagSet(io.Discard)
		for _, v := range []string{"h:1", "true", "false", "3", "3s", "json", "DEBUG"} {
			if err := set.Set(f.Name, v); err == nil && set.Lookup(f.Name).Value.String() != f.DefValue {
				break
			}
		}
		if reflect.DeepEqual(s, plain) {
			t.Errorf("-%s %s changes nothing", f.Name, set.Lookup(f.Name).Value)
		}
	})
}

// TestLaterFlags asks for each missing feature, and expects to be told that it is missing.
func TestLaterFlags(t *testing.T) {
	for _, f := range later {
		t.Run(f.name, func(t *testing.T) {
			value := ""
			switch f.def.(type) {
			case string:
				value = "x"
			case bool:
				value = "true"
			case time.Duration:
				value = "1h"
			}
			var out bytes.Buffer
			_, err := parse([]string{"-" + f.name + "=" + value, "d"}, nil, &out)
			faults, _ := errors.AsType[faultsError](err)
			if want := "-" + f.name + " is not supported yet"; !slices.Contains(faults, want) {
				t.Errorf("-%s=%s: err = %v; want %s", f.name, value, err, want)
			}
		})
	}
}
