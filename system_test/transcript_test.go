package system

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestTranscripts plays what a single node answers, case by case.
func TestTranscripts(t *testing.T) {
	t.Parallel()
	playTranscripts(t, "testdata/transcripts")
}

// TestConformance plays rqlite's reference of its HTTP API, by its sections. Where the answer here is
// another one on purpose, the transcript has both, and why.
func TestConformance(t *testing.T) {
	t.Parallel()
	playTranscripts(t, "testdata/conformance")
}

// playTranscripts plays each transcript of the directory on nodes of its own and expects the answers
// byte for byte, but for what cannot be known beforehand.
func playTranscripts(t *testing.T, dir string) {
	names, err := filepath.Glob(filepath.Join(dir, "*.txt"))
	if err != nil || len(names) == 0 {
		t.Fatalf("%s: %v, %v", dir, names, err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txt"), func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			if err := os.CopyFS(s.dir, os.DirFS("testdata/files")); err != nil {
				t.Fatal(err)
			}
			s.playAll(name, readTranscript(t, name))
		})
	}
}

// playAll plays what was read from a file, to its end, on one node if it says nothing else.
func (s *stage) playAll(name string, all []*exchange) {
	s.t.Helper()
	for _, x := range all {
		if x.direction == "" && s.nodes == nil {
			s.direct("nodes 1")
		}
		if d := s.play(x); d != "" {
			s.t.Errorf("%s:%d: %s\n%s", name, x.line, x.name(), d)
		}
	}
}

// readTranscript reads a file of the format that testdata/README.md describes.
func readTranscript(t *testing.T, name string) []*exchange {
	t.Helper()
	var all []*exchange
	var x *exchange
	var last byte    // what the line before began with
	var text *string // where lines of a body go; nil before the first
	for i, line := range strings.Split(readFile(t, ".", name), "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		mark, rest := line[0], strings.TrimPrefix(line[1:], " ")
		if mark != last {
			text = nil
		}
		switch {
		case mark == '=':
			all, x = append(all, &exchange{line: i + 1, direction: rest}), nil
		case mark == '>' && (last != '>' || x == nil):
			method, url, _ := strings.Cut(rest, " ")
			x = &exchange{line: i + 1, method: method, url: url, headers: map[string]string{}}
			all = append(all, x)
		case mark == '>':
			text = put(rest, x.headers, &x.body, text)
		case x != nil && mark == '!':
			x.why += rest
		case x != nil && mark == '-' && x.why != "":
			if last != mark {
				x.rqlite = &reply{status: rest, headers: map[string]string{}}
				break
			}
			text = put(rest, x.rqlite.headers, &x.rqlite.body, text)
		case x != nil && mark == '<':
			if last != mark {
				x.want = reply{status: rest, headers: map[string]string{}}
				break
			}
			text = put(rest, x.want.headers, &x.want.body, text)
		default:
			t.Fatalf("%s:%d: cannot read %q", name, i+1, line)
		}
		last = mark
	}
	for _, x := range all {
		if x.direction == "" && x.want.status == "" || (x.why == "") != (x.rqlite == nil) {
			t.Fatalf("%s:%d: has no answer, or a reason without rqlite's answer", name, x.line)
		}
	}
	return all
}

var headerLine = regexp.MustCompile(`^[A-Z][A-Za-z-]+: `)

// put puts a line where it belongs: among the headers, or into the body once that has begun.
func put(line string, headers map[string]string, body, begun *string) *string {
	if begun != nil {
		*body += "\n" + line
		return body
	}
	if headerLine.MatchString(line) {
		key, value, _ := strings.Cut(line, ": ")
		headers[key] = value
		return nil
	}
	*body = line
	return body
}

// statusKeys are the keys of /status that clients and monitoring read.
var statusKeys = strings.Fields(`
	build.version build.commit build.compiler_toolchain
	cluster.addr cluster.api_addr cluster.https
	http.auth http.bind_addr http.cluster.local_node_addr http.tls.enabled
	mux.addr node.start_time node.uptime node.current_time
	os.executable os.hostname os.page_size os.pid
	runtime.GOARCH runtime.GOMAXPROCS runtime.GOOS runtime.num_cpu runtime.num_goroutine runtime.version
	store.addr store.apply_timeout store.commit_timeout store.db_applied_index store.db_conf.fk_constraints
	store.dir store.dir_size store.election_timeout store.fsm_index store.fsm_term store.heartbeat_timeout
	store.leader.addr store.leader.node_id store.node_id store.nodes store.open
	store.raft.applied_index store.raft.commit_index store.raft.fsm_pending store.raft.last_contact
	store.raft.last_log_index store.raft.last_log_term store.raft.last_snapshot_index
	store.raft.last_snapshot_term store.raft.latest_configuration store.raft.log_size store.raft.num_peers
	store.raft.state store.raft.term store.raft.voter
	store.ready store.snapshot_interval store.snapshot_store.dir store.snapshot_store.snapshots
	store.snapshot_threshold store.sqlite3.compile_options store.sqlite3.conn_pool_stats.ro
	store.sqlite3.conn_pool_stats.rw store.sqlite3.db_size store.sqlite3.mem_stats.page_size
	store.sqlite3.path store.sqlite3.pragmas.ro store.sqlite3.pragmas.rw store.sqlite3.version
	store.sqlite3.wal_size store.trailing_logs`)

// TestStatusKeys looks for each key by itself and in the whole document.
func TestStatusKeys(t *testing.T) {
	t.Parallel()
	n := startOne(t)
	n.execute("CREATE TABLE foo (id INTEGER PRIMARY KEY)")
	var whole map[string]any
	if err := n.get("/status?pretty", &whole); err != nil {
		t.Fatal(err)
	}
	for _, key := range statusKeys {
		value := any(whole)
		for part := range strings.SplitSeq(key, ".") {
			m, ok := value.(map[string]any)
			if value = m[part]; !ok || value == nil {
				t.Errorf("/status has no %s", key)
				break
			}
		}
		a, err := n.do(requestLimit, http.MethodGet, "/status?key="+key, "", "")
		if err != nil || a.status != http.StatusOK || !json.Valid([]byte(a.body)) || (a.body == "{}" && key != "store.open") {
			t.Errorf("/status?key=%s = %+v, %v", key, a, err)
		}
	}
	want := fmt.Sprintf(`"nodes":[{"id":"n1","addr":%q,"suffrage":"voter"}]`, n.raftAddr)
	if a, err := n.do(requestLimit, http.MethodGet, "/status", "", ""); err != nil || !strings.Contains(a.body, want) {
		t.Errorf("/status = %+v, %v; want it to contain %s", a, err, want)
	}
	a, err := n.do(requestLimit, http.MethodGet, "/status?key=store.snapshot_store.snapshots", "", "")
	if err != nil || !strings.HasPrefix(a.body, "[") {
		t.Errorf("store.snapshot_store.snapshots = %+v, %v; want a list", a, err)
	}
}

// varsKeys are the counters of /debug/vars that clients' tests read.
var varsKeys = strings.Fields(`
	cluster.num_join_req cluster.num_client_force_new_conn store.num_snapshots store.num_restores
	store.num_restores_start store.num_restores_start_skipped store.num_ignored_joins
	store.num_removed_before_joins http.user_snapshots http.executions http.queries http.requests`)

// TestDebugVars checks the counters' names and that a snapshot asked for is counted once.
func TestDebugVars(t *testing.T) {
	t.Parallel()
	c := cluster{startOne(t)}
	c[0].execute("CREATE TABLE foo (id INTEGER PRIMARY KEY)")
	c[0].mustSnapshot()
	for _, key := range varsKeys {
		group, name, _ := strings.Cut(key, ".")
		c.counter(group, name)
	}
	if got := c.counter("http", "user_snapshots"); got != 1 {
		t.Errorf("http.user_snapshots = %d after one POST /snapshot; want 1", got)
	}
	if got := c.counter("store", "num_snapshots"); got < 1 {
		t.Errorf("store.num_snapshots = %d after a snapshot; want more", got)
	}
	c[0].kill()
	c[0].start()
	c.waitReady()
	skipped, done := c.counter("store", "num_restores_start_skipped"), c.counter("store", "num_restores_start")
	if skipped != 1 || done != 0 {
		t.Errorf("after a kill: %d restores skipped, %d done; want 1 and 0", skipped, done)
	}
}
