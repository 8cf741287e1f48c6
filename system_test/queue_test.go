package system

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rqlite/gorqlite"
)

// queue sends statements to the write queue and returns their sequence number. Query is what else
// stands behind the question mark, such as &wait.
func (n *node) queue(query string, statements ...any) (sequence uint64, err error) {
	body := []byte("[]") // a mark
	if len(statements) > 0 {
		if body, err = json.Marshal(statements); err != nil {
			return 0, err
		}
	}
	a, err := n.do(requestLimit, http.MethodPost, "/db/execute?queue"+query, "", string(body))
	if err != nil {
		return 0, err
	}
	var answer struct {
		Error    string `json:"error"`
		Sequence uint64 `json:"sequence_number"`
	}
	if a.status != http.StatusOK {
		return 0, fmt.Errorf("queue: %d %s", a.status, a.body)
	}
	if err := json.Unmarshal([]byte(a.body), &answer); err != nil || answer.Error != "" || answer.Sequence == 0 {
		return 0, fmt.Errorf("queue: %s: %w", a.body, err)
	}
	return answer.Sequence, nil
}

func (n *node) mustQueue(query string, statements ...any) uint64 {
	n.t.Helper()
	seq, err := n.queue(query, statements...)
	if err != nil {
		n.t.Fatalf("%s: %v", n.id, err)
	}
	return seq
}

// TestQueue queues writes on a follower; the last waits, and then all are on the leader, in order.
func TestQueue(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	leader := c.leader()
	follower := c.without(leader)[0]
	leader.execute("CREATE TABLE queued (id INTEGER PRIMARY KEY, n INTEGER)")
	const writes = 2000
	last := uint64(0)
	for i := range writes {
		query := ""
		if i == writes-1 {
			query = "&wait"
		}
		seq := follower.mustQueue(query, []any{"INSERT INTO queued(n) VALUES (?)", i})
		if seq != last+1 && last != 0 {
			t.Fatalf("sequence number %d follows %d", seq, last)
		}
		last = seq
	}
	want := []string{fmt.Sprint(writes, "|", writes, "|0")}
	if got := leader.query("strong", "SELECT count(*), sum(n = id - 1), min(n) FROM queued"); !slices.Equal(got, want) {
		t.Errorf("leader has %v; want %v", got, want)
	}
	var queue struct {
		Sequence json.Number `json:"sequence_number"`
	}
	if err := follower.get("/status?key=http.queue._default", &queue); err != nil || queue.Sequence == "0" {
		t.Errorf("last sequence number = %s, %v", queue.Sequence, err)
	}
	follower.mustQueue("&wait") // a mark
	if _, err := follower.queue("", "PRAGMA journal_mode=DELETE"); err == nil {
		t.Error("a PRAGMA that no node runs was queued")
	}
	follower.mustQueue("&wait", "INSERT INTO nowhere VALUES (1)", "INSERT INTO queued(n) VALUES (-1)")
	if got := leader.query("strong", "SELECT count(*) FROM queued WHERE n = -1"); !slices.Equal(got, []string{"1"}) {
		t.Errorf("%v rows after a statement that failed; want 1", got)
	}
}

// TestQueueKillLeader kills the leader, again and again, while the queue of another node is written to. What
// was acknowledged, also before it was carried out, is there once, and in the order in which it was queued.
func TestQueueKillLeader(t *testing.T) {
	t.Parallel()
	rounds := 3
	if long() {
		rounds = 30
	}
	c := startCluster(t, 3)
	c[0].execute("CREATE TABLE queued (id INTEGER PRIMARY KEY, client INTEGER, n INTEGER)")
	// A short wait for others, so that the kills meet batches under way: their outcome is unknown.
	n := c.join(t, "queue", "-raft-non-voter", "-write-queue-timeout", "1ms")
	acked := make([][]int, 3) // by client
	progress := make(chan struct{})
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for i := range acked {
		clients.Go(func() {
			for seq := 0; ; seq++ {
				query := "&noleader"
				if seq%5 == 4 {
					query = "&noleader&wait"
				}
				if _, err := n.queue(query, []any{"INSERT INTO queued(client, n) VALUES (?, ?)", i, seq}); err == nil {
					acked[i] = append(acked[i], seq)
				}
				select {
				case <-stop:
					return
				case progress <- struct{}{}:
				}
			}
		})
	}
	for range rounds {
		for range 300 { // the leader of the round before is dead for the first of them
			<-progress
		}
		leader := c.leader()
		leader.kill()
		for range 300 {
			<-progress
		}
		leader.start()
		leader.waitReady(formLimit)
	}
	close(stop)
	clients.Wait()
	n.mustQueue("&wait&timeout=20s") // all before it is carried out
	for i := range acked {
		rows := n.query("strong", fmt.Sprintf("SELECT n FROM queued WHERE client = %d ORDER BY id", i))
		var want []string
		for _, seq := range acked[i] {
			want = append(want, fmt.Sprint(seq))
		}
		// Besides these there may be some whose client gave up waiting.
		rows = slices.DeleteFunc(rows, func(s string) bool { return !slices.Contains(want, s) })
		if !slices.Equal(rows, want) {
			t.Errorf("client %d: rows\n%v\nwant what was acknowledged\n%v", i, rows, want)
		}
	}
	var vars struct {
		HTTP map[string]int `json:"http"`
	}
	if err := n.get("/debug/vars?key=http", &vars); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d rounds: batches of unknown outcome: %d found in the log, %d repeated without knowing",
		rounds, vars.HTTP["queued_executions_found"], vars.HTTP["queued_executions_repeated"])
	append(slices.Clone(c), n).equal()
}

// TestQueueStop stops nodes whose queues would wait for an hour. All is carried out before they end, on the
// node itself or, if it does not lead, by the leader.
func TestQueueStop(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3, "-write-queue-timeout", "1h", "-write-queue-batch-size", "40")
	leader := c.leader()
	leader.execute("CREATE TABLE queued (n INTEGER)")
	follower := c.without(leader)[0]
	for i, n := range []*node{follower, leader} {
		for j := range 100 {
			n.mustQueue("", []any{"INSERT INTO queued VALUES (?)", i*100 + j})
		}
		n.stop()
	}
	last := c.without(leader, follower)[0]
	follower.start()
	last.waitReady(formLimit)
	want := []string{"200|200"}
	if got := last.query("strong", "SELECT count(*), count(DISTINCT n) FROM queued"); !slices.Equal(got, want) {
		t.Errorf("rows and different rows after two stops = %v; want %v", got, want)
	}
	leader.start()
	c.waitReady()
	c.equal()
}

// TestQueueStopAll stops all members at once, so that there may be nobody to carry out what is queued:
// it is there, or the log says what is lost, and all are gone in time.
func TestQueueStopAll(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3, "-write-queue-timeout", "1h")
	c.leader().execute("CREATE TABLE queued (n INTEGER)")
	for _, n := range c {
		n.mustQueue("", "INSERT INTO queued VALUES (1)")
	}
	start := time.Now()
	for _, n := range c {
		n.signal(syscall.SIGTERM)
	}
	for _, n := range c {
		if code := n.wait(11*time.Second - time.Since(start)); code != 0 {
			t.Errorf("%s: exit code = %d; want 0", n.id, code)
		}
	}
	lost := 0
	for _, n := range c {
		lost += countLines(n.log(), `msg="queued writes lost" requests=1`)
	}
	c.start()
	c.waitReady()
	rows := c[0].query("strong", "SELECT count(*) FROM queued")
	t.Logf("%s rows, %d lost", rows[0], lost)
	var count int
	if _, err := fmt.Sscan(rows[0], &count); err != nil || count+lost < len(c) {
		t.Errorf("%v rows, and %d that the logs call lost; want %d together", rows, lost, len(c))
	}
}

func countLines(log, what string) (count int) {
	for line := range strings.Lines(log) {
		if strings.Contains(line, what) {
			count++
		}
	}
	return count
}

// TestQueueTransaction has batches that are all or nothing.
func TestQueueTransaction(t *testing.T) {
	t.Parallel()
	n := startOne(t, "-write-queue-tx", "-write-queue-timeout", "1h", "-write-queue-batch-size", "3")
	n.execute("CREATE TABLE queued (n INTEGER UNIQUE)")
	for _, v := range []int{1, 2, 2 /* undoes the batch */, 3, 4} {
		n.mustQueue("", []any{"INSERT INTO queued VALUES (?)", v})
	}
	n.mustQueue("&wait")
	if got := n.query("strong", "SELECT n FROM queued"); !slices.Equal(got, []string{"3", "4"}) {
		t.Errorf("rows = %v; want 3 and 4", got)
	}
}

// TestGorqliteQueue queues through rqlite's own Go client.
func TestGorqliteQueue(t *testing.T) {
	t.Parallel()
	n := startOne(t)
	n.execute("CREATE TABLE queued (n INTEGER)")
	conn, err := gorqlite.Open("http://" + n.httpAddr + "/?level=strong&timeout=5")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	first, err := conn.QueueOne("INSERT INTO queued VALUES (1)")
	if err != nil || first == 0 {
		t.Fatalf("QueueOne = %d, %v", first, err)
	}
	second, err := conn.QueueOneParameterized(gorqlite.ParameterizedStatement{Query: "INSERT INTO queued VALUES (?)", Arguments: []any{2}})
	if err != nil || second != first+1 {
		t.Errorf("QueueOneParameterized = %d, %v; want %d", second, err, first+1)
	}
	third, err := conn.Queue([]string{"INSERT INTO queued VALUES (3)", "INSERT INTO queued VALUES (4)"})
	if err != nil || third != second+1 {
		t.Errorf("Queue = %d, %v; want %d", third, err, second+1)
	}
	n.mustQueue("&wait")
	if got := n.query("strong", "SELECT n FROM queued ORDER BY rowid"); !slices.Equal(got, []string{"1", "2", "3", "4"}) {
		t.Errorf("rows = %v; want 1 to 4", got)
	}
}
