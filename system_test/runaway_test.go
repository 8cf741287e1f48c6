package system

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// endless is a statement that yields no row and does not end.
const endless = "WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s) SELECT count(*) FROM s"

// reading returns how many reads are under way on the node.
func (n *node) reading() (int, error) {
	var pools struct {
		Read struct {
			InUse int `json:"in_use"`
		} `json:"ro"`
	}
	err := n.get("/status?key=store.sqlite3.conn_pool_stats", &pools)
	return pools.Read.InUse, err
}

// TestRunawayReads has clients ask for what does not end, and go away, or set a time. The node that reads stops
// doing so, also if it reads for another.
func TestRunawayReads(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	leader := c.leader()
	follower := c.without(leader)[0]
	c[0].execute("CREATE TABLE foo (id INTEGER PRIMARY KEY)")
	body := fmt.Sprintf("[%q]", endless)
	tests := []struct {
		name         string
		at           *node
		path, body   string
		within, want string // a db_timeout and what it leads to
	}{
		{"here", leader, "/db/query?level=weak", body, "", ""},
		{"forwarded", follower, "/db/query?level=weak", body, "", ""},
		{"forwarded, of several", follower, "/db/query?level=weak", fmt.Sprintf(`["SELECT 1",%q,%q]`, endless, endless), "", ""},
		{"forwarded, in a request", follower, "/db/request?level=weak", body, "", ""},
		{"forwarded, in a transaction", follower, "/db/query?level=weak&transaction", body, "", ""},
		{"linearizable, forwarded", follower, "/db/query?level=linearizable", body, "", ""},
		{"in the log", leader, "/db/query?level=strong", body, "", ""},
		{"in the log, forwarded", follower, "/db/query?level=strong", body, "", ""},
		{"here, in time", leader, "/db/query?level=weak", body, "300ms", "query timeout"},
		{"forwarded, in time", follower, "/db/query?level=weak", body, "300ms", "query timeout"},
		{"none", follower, "/db/query?level=none", body, "", ""},
	}
	for _, tt := range tests {
		path := tt.path
		if tt.within != "" {
			path += "&db_timeout=" + url.QueryEscape(tt.within)
		}
		reader := leader
		if strings.HasSuffix(tt.path, "none") {
			reader = tt.at
		}
		done := make(chan string, 1)
		go func() {
			a, err := tt.at.do(time.Second, http.MethodPost, path, "application/json", tt.body)
			if err != nil {
				done <- ""
				return
			}
			done <- a.body
		}()
		within(t, 5*time.Second, tt.name+": it is being read", func() error {
			switch n, err := reader.reading(); {
			case err != nil:
				return err
			case n == 0:
				return errors.New("no read is under way")
			}
			return nil
		})
		if got := <-done; !strings.Contains(got, tt.want) || tt.want == "" && got != "" {
			t.Errorf("%s: answer = %q; want %q", tt.name, got, tt.want)
		}
		within(t, 5*time.Second, tt.name+": nothing is read any more", func() error {
			switch n, err := reader.reading(); {
			case err != nil:
				return err
			case n != 0:
				return fmt.Errorf("%d reads are under way", n)
			}
			return nil
		})
	}
	for _, n := range c {
		n.execute("INSERT INTO foo DEFAULT VALUES")
	}
	c.equal()
}

// TestReadsLeaveRoom sorts what is larger than the disk. The read fails, the disk does not become full, and the
// node goes on.
func TestReadsLeaveRoom(t *testing.T) {
	t.Parallel()
	d := newDisk(t, plenty)
	n := newNode(t, "n1").on(d)
	n.start()
	n.waitReady(formLimit)
	n.execute("CREATE TABLE foo (id INTEGER PRIMARY KEY)")
	a, err := n.do(time.Minute, http.MethodGet, "/db/query?q="+url.QueryEscape("WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s) SELECT i, hex(randomblob(500)) AS v FROM s ORDER BY v"), "", "")
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"results":[{"error":"reads that are under way need more temporary space than they would leave free on the disk"}]}`; a.body != want {
		t.Errorf("answer = %.300s; want %s", a.body, want)
	}
	n.execute("INSERT INTO foo DEFAULT VALUES")
	n.mustSnapshot()
}
