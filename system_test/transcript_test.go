package system

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// exchange is one request of a transcript and the answer that it must get.
type exchange struct {
	line        int // in the file
	method      string
	path        string
	contentType string
	body        string

	status  string            // "200 text/plain; charset=utf-8"; "-" for no content type, "*" for any
	headers map[string]string // that must be there
	answer  string
}

// TestTranscripts plays each transcript to a node of its own and expects the answers byte for
// byte, but for what cannot be known beforehand.
func TestTranscripts(t *testing.T) {
	t.Parallel()
	names, err := filepath.Glob("testdata/transcripts/*.txt")
	if err != nil || len(names) == 0 {
		t.Fatalf("testdata/transcripts: %v, %v", names, err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txt"), func(t *testing.T) {
			n := startOne(t)
			for _, x := range readTranscript(t, name) {
				got, err := n.do(requestLimit, x.method, x.path, x.contentType, x.body)
				if err != nil {
					t.Fatalf("%s:%d: %s %s: %v", name, x.line, x.method, x.path, err)
				}
				if d := x.differs(n, got); d != "" {
					t.Errorf("%s:%d: %s %s %s\n%s", name, x.line, x.method, x.path, x.body, d)
				}
			}
		})
	}
}

var headerLine = regexp.MustCompile(`^[A-Z][A-Za-z-]+: `)

// readTranscript reads the format that the first lines of execute.txt describe.
func readTranscript(t *testing.T, name string) []*exchange {
	t.Helper()
	var all []*exchange
	var x *exchange
	var inRequest bool
	var body *string
	for i, line := range strings.Split(readFile(t, ".", name), "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		text := strings.TrimPrefix(line[1:], " ")
		switch {
		case line[0] == '>' && !inRequest:
			method, path, _ := strings.Cut(text, " ")
			x = &exchange{line: i + 1, method: method, path: path, headers: map[string]string{}}
			all, inRequest, body = append(all, x), true, nil
		case line[0] == '<' && inRequest:
			x.status, inRequest, body = text, false, nil
		case (line[0] == '>') == inRequest && body == nil && headerLine.MatchString(text):
			key, value, _ := strings.Cut(text, ": ")
			if inRequest {
				x.contentType = value // the only header a transcript sends
			} else {
				x.headers[key] = value
			}
		case (line[0] == '>') == inRequest && body != nil:
			*body += "\n" + text
		case line[0] == '>' && inRequest:
			x.body, body = text, &x.body
		case line[0] == '<' && x != nil:
			x.answer, body = text, &x.answer
		default:
			t.Fatalf("%s:%d: cannot read %q", name, i+1, line)
		}
	}
	return all
}

// unknowable replaces what differs from run to run.
var unknowable = []struct {
	pattern     *regexp.Regexp
	replacement string
}{
	{regexp.MustCompile(`("time": ?)[0-9][0-9.e+-]*`), "${1}TIME"},
	{regexp.MustCompile(`("time_s": ?)"[^"]+"`), `${1}"TIME"`},
	{regexp.MustCompile(`("version": ?)"[^"]+"`), `${1}"VERSION"`},
	{regexp.MustCompile(`("(?:raft_index|sequence_number)": ?)[1-9][0-9]*`), "${1}N"},
}

func normalize(n *node, text string) string {
	text = strings.NewReplacer(n.httpAddr, "HTTP_ADDR", n.raftAddr, "RAFT_ADDR").Replace(text)
	for _, u := range unknowable {
		text = u.pattern.ReplaceAllString(text, u.replacement)
	}
	return text
}

// differs says in what the answer is not the expected one.
func (x *exchange) differs(n *node, got *answer) string {
	var diffs []string
	expect := func(what, got, want string) {
		if got != want {
			diffs = append(diffs, fmt.Sprintf("%s: %s\n    want: %s", what, got, want))
		}
	}
	contentType := got.header.Get("Content-Type")
	if contentType == "" {
		contentType = "-"
	}
	if strings.HasSuffix(x.status, " *") {
		contentType = "*"
	}
	expect("status", fmt.Sprintf("%d %s", got.status, contentType), x.status)
	for key, value := range x.headers {
		expect(key, normalize(n, got.header.Get(key)), value)
	}
	expect("body", normalize(n, got.body), x.answer)
	expect("Access-Control-Allow-Methods", got.header.Get("Access-Control-Allow-Methods"), "OPTIONS, GET, POST")
	expect("Access-Control-Allow-Headers", got.header.Get("Access-Control-Allow-Headers"), "Content-Type")
	if got.header.Get("X-Rqlite-Version") == "" {
		diffs = append(diffs, "no X-Rqlite-Version")
	}
	return strings.Join(diffs, "\n")
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
