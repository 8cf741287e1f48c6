package system

import (
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"testing"
	"time"
)

var flagStreamRows = flag.Int("stream-rows", 400_000, "`rows` of a hundred bytes that TestStream reads; a multiple of 100000")

// streamMemory is how much more memory a node may need for a result of any size.
const streamMemory = 64 << 20

var memoryLine = regexp.MustCompile(`(?m)^Vm(HWM|RSS):\s*(\d+) kB$`)

// memory returns how much memory the node's process has, and has had at most since the last call of it.
func (n *node) memory() (now, peak int) {
	n.t.Helper()
	proc := fmt.Sprintf("/proc/%d/", n.proc.cmd.Process.Pid)
	status, err := os.ReadFile(proc + "status")
	if err == nil {
		err = os.WriteFile(proc+"clear_refs", []byte("5"), 0)
	}
	if err != nil {
		n.t.Skipf("no account of memory on this system: %v", err)
	}
	for _, m := range memoryLine.FindAllStringSubmatch(string(status), -1) {
		kib, _ := strconv.Atoi(m[2])
		if m[1] == "HWM" {
			peak = kib << 10
		} else {
			now = kib << 10
		}
	}
	return now, peak
}

// stream asks for all rows and returns the answer once its beginning is there.
func (n *node) stream(ctx context.Context, query string) *http.Response {
	n.t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.scheme+"://"+n.httpAddr+"/db/query?q=SELECT+*+FROM+t"+query, nil)
	if err != nil {
		n.t.Fatal(err)
	}
	resp, err := n.client.Do(req)
	if err != nil {
		n.t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		n.t.Fatalf("%s: status %d", n.id, resp.StatusCode)
	}
	return resp
}

// idle waits until no node reads.
func (c cluster) idle(t *testing.T, why string) {
	t.Helper()
	for _, n := range c {
		within(t, 10*time.Second, n.id+" reads nothing "+why, func() error {
			var pool struct {
				InUse int `json:"in_use"`
			}
			if err := n.get("/status?key=store.sqlite3.conn_pool_stats.ro", &pool); err != nil {
				return err
			}
			if pool.InUse != 0 {
				return fmt.Errorf("%d connections are in use", pool.InUse)
			}
			return nil
		})
	}
}

// TestStream reads a result that is larger than what a node may use for it, from the leader and by way of a
// follower, while others write, and then leaves half-way.
func TestStream(t *testing.T) {
	c := startCluster(t, 3)
	leader := c.leader()
	follower := c.without(leader)[0]
	leader.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)", "CREATE TABLE other (n)")
	for done := 0; done < *flagStreamRows; done += 100_000 {
		leader.execute(fmt.Sprintf(`WITH RECURSIVE c(x) AS (SELECT %d UNION ALL SELECT x+1 FROM c LIMIT 100000) INSERT INTO t SELECT x, printf('%%0100d', x) FROM c`, done))
	}
	c.equal()
	want := sha256.New()
	fmt.Fprint(want, `{"results":[{"columns":["id","v"],"types":["integer","text"],"values":[[0,"`, fmt.Sprintf("%0100d", 0), `"]`)
	for i := 1; i < *flagStreamRows; i++ {
		fmt.Fprintf(want, `,[%d,"%0100d"]`, i, i)
	}
	fmt.Fprint(want, `]}]}`)
	for _, n := range []*node{leader, follower} {
		var before [3]int
		for i := range c {
			c[i].memory()
			before[i], _ = c[i].memory()
		}
		resp := n.stream(t.Context(), "")
		got := sha256.New()
		if _, err := io.CopyN(got, resp.Body, 1<<20); err != nil {
			t.Fatal(err)
		}
		leader.execute("INSERT INTO other VALUES(1)") // amid the answer, for which nobody waits now
		size, err := io.Copy(got, resp.Body)
		resp.Body.Close()
		if err != nil || string(got.Sum(nil)) != string(want.Sum(nil)) {
			t.Errorf("%s: the answer of %d bytes is another: %v", n.id, size+1<<20, err)
		}
		if servedBy := resp.Header.Get("X-Rqlite-Served-By"); servedBy != map[bool]string{true: leader.httpAddr, false: leader.raftAddr}[n == leader] {
			t.Errorf("%s: served by %q", n.id, servedBy)
		}
		for i := range c {
			if _, peak := c[i].memory(); peak > before[i]+streamMemory {
				t.Errorf("%s: %d MiB more on %s while %s answered", n.id, (peak-before[i])>>20, c[i].id, n.id)
			} else {
				t.Logf("%d MiB from %s: %d KiB more on %s", (size+1<<20)>>20, n.id, max(0, peak-before[i])>>10, c[i].id)
			}
		}
		c.idle(t, "after an answer")
		c.leaveHalfWay(t, n)
	}
	for _, n := range c {
		within(t, requestLimit, n.id+" takes a snapshot, in whose way no read is", n.snapshot)
	}
}

// leaveHalfWay leaves an answer of n in its middle.
func (c cluster) leaveHalfWay(t *testing.T, n *node) {
	t.Helper()
	for _, query := range []string{"", "&transaction&pretty", "&level=none&associative"} {
		ctx, leave := context.WithCancel(t.Context())
		resp := n.stream(ctx, query)
		if _, err := io.CopyN(io.Discard, resp.Body, 1<<20); err != nil {
			t.Fatal(err)
		}
		leave()
		if _, err := io.Copy(io.Discard, resp.Body); !errors.Is(err, context.Canceled) {
			t.Errorf("the rest of an answer that was left: %v", err)
		}
		resp.Body.Close()
		c.idle(t, "after its client has left "+n.id)
	}
}
