package main

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// process is a run of the program inside the test.
type process struct {
	t       *testing.T
	signals chan os.Signal
	log     chan entry // closed when the program has ended
	code    chan int
}

// entry is one line of the log.
type entry struct{ Level, Msg, HTTP, Raft, Err, Flag string }

// start runs the program on ports that the kernel chooses.
func start(t *testing.T, args ...string) *process {
	t.Helper()
	r, w := io.Pipe()
	p := &process{
		t:       t,
		signals: make(chan os.Signal, 1),
		log:     make(chan entry, 10000), // more than a test logs, so that logging waits for nobody
		code:    make(chan int, 1),
	}
	args = append([]string{"-log-format", "json", "-http-addr", "127.0.0.1:0", "-raft-addr", "localhost:0"}, args...)
	go func() {
		p.code <- run(args, nil, w, p.signals)
		w.Close()
	}()
	go func() {
		defer close(p.log)
		lines := json.NewDecoder(r)
		for {
			var e entry
			err := lines.Decode(&e)
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				t.Errorf("log of the program: %v", err)
				io.Copy(io.Discard, r)
				return
			}
			p.log <- e
		}
	}()
	return p
}

// await returns the log entry with the message, and fails the test if the log ends without it.
func (p *process) await(msg string) entry {
	p.t.Helper()
	for e := range p.log {
		if e.Msg == msg {
			return e
		}
	}
	p.t.Fatalf("no log entry %q; exit code %d", msg, <-p.code)
	return entry{}
}

// end waits for the end of the program and returns its exit code and what it logged as errors
// since the last await.
func (p *process) end() (int, []entry) {
	p.t.Helper()
	var failures []entry
	for e := range p.log {
		if e.Level == "ERROR" {
			failures = append(failures, e)
		}
	}
	return <-p.code, failures
}

// TestStartStop starts a node on a new directory, stops it by a signal, and does so again.
func TestStartStop(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "data")
	for range 2 {
		p := start(t, "-node-id", "n1", dir)
		addr := p.await("node starting").HTTP
		p.await("node started")
		resp, err := http.Get("http://" + addr + "/status")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if got := resp.Header.Get("X-Rqlite-Version"); resp.StatusCode != http.StatusOK || got != version {
			t.Errorf("GET /status = %s, version %q; want 200, %q", resp.Status, got, version)
		}
		p.signals <- syscall.SIGTERM
		if code, failures := p.end(); code != 0 || len(failures) > 0 {
			t.Errorf("after SIGTERM: exit code %d, errors %v; want 0 and none", code, failures)
		}
	}
}

// TestHash asks a running node for the hash of its state, which /status repeats.
func TestHash(t *testing.T) {
	p := start(t, t.TempDir())
	addr := p.await("node starting").HTTP
	p.await("node started")
	get := func(path string) (code int, h map[string]any) {
		t.Helper()
		resp, err := http.Get("http://" + addr + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if err := json.NewDecoder(resp.Body).Decode(&h); err != nil {
			t.Fatalf("GET %s: %s: %v", path, resp.Status, err)
		}
		return resp.StatusCode, h
	}
	code, h := get("/db/hash")
	text, _ := h["hash"].(string)
	if _, isIndex := h["index"].(float64); code != http.StatusOK || len(h) != 2 || len(text) != 32 || !isIndex {
		t.Errorf("GET /db/hash = %d, %v; want an index and 32 digits", code, h)
	}
	if _, st := get("/status?key=store.hash"); st["hash"] != h["hash"] || st["index"] != h["index"] || st["checks"] != 0.0 {
		t.Errorf("store.hash of /status = %v; want the same as %v, and no checks", st, h)
	}
	p.signals <- syscall.SIGTERM
	if code, failures := p.end(); code != 0 || len(failures) > 0 {
		t.Errorf("exit code %d, errors %v; want 0 and none", code, failures)
	}
}

// TestFlagsInStatus gives flags to a node and finds them in what it says about itself.
func TestFlagsInStatus(t *testing.T) {
	p := start(t, "-raft-snap", "1000", "-raft-snap-int", "7s", "-raft-heartbeat-timeout", "300ms", "-raft-election-timeout", "400ms",
		"-raft-leader-lease-timeout", "200ms", "-raft-commit-timeout", "20ms", "-raft-apply-timeout", "6s", "-raft-reap-node-timeout", "2h",
		"-raft-reap-read-only-node-timeout", "1h", "-raft-remove-shutdown", "-compress-snap-transport", "-raft-log-level", "error", "-db-max-ro-conns", "3", "-fk",
		"-node-id", "n1", t.TempDir())
	addr := p.await("node starting").HTTP
	p.await("node started")
	for key, want := range map[string]string{
		"node_id": "n1", "snapshot_threshold": "1000", "trailing_logs": "1250", "snapshot_interval": "7s",
		"heartbeat_timeout": "300ms", "election_timeout": "400ms", "commit_timeout": "20ms", "apply_timeout": "6s",
		"reap_timeout": "2h0m0s", "reap_read_only_timeout": "1h0m0s", "db_conf.fk_constraints": "true",
		"raft.config.HeartbeatTimeout": "300000000", "raft.config.ElectionTimeout": "400000000",
		"raft.config.LeaderLeaseTimeout": "200000000", "raft.config.CommitTimeout": "20000000",
		"raft.config.SnapshotThreshold": "1000", "raft.config.SnapshotInterval": "7000000000",
		"raft.config.ShutdownOnRemove": "true", "raft.transport.compress_snap": "true", "raft.config.LogLevel": "ERROR",
		"sqlite3.conn_pool_stats.ro.max_open_connections": "3", "sqlite3.pragmas.rw.foreign_keys": "1",
	} {
		resp, err := http.Get("http://" + addr + "/status?key=store." + key)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || strings.Trim(string(got), `"`) != strings.Trim(want, `"`) {
			t.Errorf("store.%s of /status = %s, %v; want %s", key, got, err, want)
		}
	}
	p.signals <- syscall.SIGTERM
	if code, failures := p.end(); code != 0 || len(failures) > 0 {
		t.Errorf("exit code %d, errors %v; want 0 and none", code, failures)
	}
}

// TestFlagsWithoutEffect expects flags that older scripts may give to be accepted, and pointed out.
func TestFlagsWithoutEffect(t *testing.T) {
	elsewhere := filepath.Join(t.TempDir(), "db.sqlite")
	p := start(t, "-on-disk-path", elsewhere, "-http-no-verify", "-raft-timeout", "500ms", t.TempDir())
	if e := p.await("flag has a new name"); e.Level != "WARN" || e.Flag != "-raft-timeout" {
		t.Errorf("%+v; want a warning about -raft-timeout", e)
	}
	for _, want := range []string{"-http-no-verify", "-on-disk-path"} {
		if e := p.await("flag without effect"); e.Level != "WARN" || e.Flag != want {
			t.Errorf("%+v; want a warning about %s", e, want)
		}
	}
	p.await("node started")
	p.signals <- syscall.SIGTERM
	if code, failures := p.end(); code != 0 || len(failures) > 0 {
		t.Errorf("exit code %d, errors %v; want 0 and none", code, failures)
	}
	if _, err := os.Stat(elsewhere); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s: %v; want no such file", elsewhere, err)
	}
}

// TestStartFails expects the one error that is logged to say why.
func TestStartFails(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	inUse := taken.Addr().String()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		args []string
		want string
	}{
		{"Raft port in use", []string{"-raft-addr", inUse, t.TempDir()}, "listen tcp " + inUse + ": bind: address already in use"},
		{"HTTP port in use", []string{"-http-addr", inUse, t.TempDir()}, "listen tcp " + inUse + ": bind: address already in use"},
		{"directory is a file", []string{file}, file + ": not a directory"},
		{"profile", []string{"-cpu-profile", file + "/cpu", t.TempDir()}, "create CPU profile file at " + file + "/cpu"},
		{"no credentials file", []string{"-auth", file + ".json", t.TempDir()}, "failed to get credential store: open " + file + ".json: no such file or directory"},
		{"empty credentials file", []string{"-auth", file, t.TempDir()}, "failed to get credential store: " + file + ": line 1: EOF"},
		{"HTTP certificate", []string{"-http-cert", file, "-http-key", file, t.TempDir()}, "TLS of the HTTP API: certificate " + file},
		{"node certificate", []string{"-node-cert", file, "-node-key", file, t.TempDir()}, "TLS between nodes: certificate " + file},
		{"authorities", []string{"-node-cert", file, "-node-key", file, "-node-ca-cert", file, t.TempDir()}, "no certificate in " + file},
		{"non-voter alone", []string{"-raft-non-voter", t.TempDir()}, "clustering failure: "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			code, failures := start(t, tt.args...).end()
			if code != 1 || len(failures) != 1 || !strings.Contains(failures[0].Err, tt.want) {
				t.Errorf("exit code %d, errors %v; want 1 and one with %q", code, failures, tt.want)
			}
		})
	}
}

// TestDirectoryInUse starts a second process on the directory of a running one.
func TestDirectoryInUse(t *testing.T) {
	dir := t.TempDir()
	first := start(t, dir)
	first.await("node started")
	code, failures := start(t, dir).end()
	if code != 1 || len(failures) != 1 || !strings.Contains(failures[0].Err, "data directory is in use by another process: "+dir) {
		t.Errorf("second process: exit code %d, errors %v", code, failures)
	}
	first.signals <- syscall.SIGTERM
	if code, failures := first.end(); code != 0 || len(failures) > 0 {
		t.Errorf("first process: exit code %d, errors %v; want 0 and none", code, failures)
	}
}

// TestForeignKeysDiffer starts nodes whose -fk is not that of the cluster they are to join. They are refused
// and stop for that reason, at once, and the leader says so too.
func TestForeignKeysDiffer(t *testing.T) {
	const words = "foreign keys are off in this cluster and on on the node that asks (-fk): all nodes must agree"
	leader := start(t, "-node-id", "n1", t.TempDir())
	addr := leader.await("node starting").Raft
	leader.await("node started")

	code, failures := start(t, "-node-id", "n2", "-fk", "-join", addr, t.TempDir()).end()
	if code != 1 || len(failures) != 1 || !strings.HasSuffix(failures[0].Err, words) {
		t.Errorf("joining: exit code %d, errors %v; want 1 and one that ends with %q", code, failures, words)
	}
	if e := leader.await("node refused"); e.Err != words {
		t.Errorf("the leader says %q; want %q", e.Err, words)
	}
	code, failures = start(t, "-node-id", "n2", "-fk", "-bootstrap-expect", "2", "-join", addr, t.TempDir()).end()
	if code != 1 || len(failures) != 1 || !strings.HasSuffix(failures[0].Err, words) {
		t.Errorf("bootstrapping: exit code %d, errors %v; want 1 and one that ends with %q", code, failures, words)
	}

	leader.signals <- syscall.SIGTERM
	if code, failures := leader.end(); code != 0 || len(failures) > 0 {
		t.Errorf("leader: exit code %d, errors %v; want 0 and none", code, failures)
	}
}
