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

// TestReadLevels reads at every level from every node right after each write. All levels but none
// see the write wherever they are asked; none sees it on the leader, and soon elsewhere.
func TestReadLevels(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	leader := c.leader()
	leader.execute("CREATE TABLE foo (id INTEGER PRIMARY KEY, v INTEGER)")
	row := 0
	for _, path := range []string{"/db/query", "/db/request"} {
		for _, level := range []string{"weak", "linearizable", "strong", "auto", "", "LINEARIZABLE", "nonsense"} {
			for _, n := range c {
				if path == "/db/request" && level == "auto" {
					continue // rqlite reads locally there
				}
				row++
				leader.execute([]any{"INSERT INTO foo VALUES (?, ?)", row, row * row})
				a, err := n.sql(requestLimit, path+"?level="+level, "SELECT max(id), count(*) FROM foo")
				if err != nil {
					t.Fatalf("%s level %q on %s: %v", path, level, n.id, err)
				}
				want := fmt.Sprintf("[[%d %d]]", row, row)
				if got := fmt.Sprint(a.Results[0].Values); got != want {
					t.Errorf("%s level %q on %s (leader is %s) = %s; want %s", path, level, n.id, leader.id, got, want)
				}
				servedBy := leader.httpAddr
				if n != leader {
					servedBy = leader.raftAddr
				}
				if got := a.header.Get("X-Rqlite-Served-By"); got != servedBy {
					t.Errorf("%s level %q on %s: served by %q; want %q", path, level, n.id, got, servedBy)
				}
			}
		}
	}
	for _, n := range c {
		within(t, 5*time.Second, "none on "+n.id, func() error {
			a, err := n.sql(requestLimit, "/db/query?level=none", "SELECT count(*) FROM foo")
			if err != nil {
				return err
			}
			if got := a.header.Get("X-Rqlite-Served-By"); got != n.httpAddr {
				t.Errorf("none on %s: served by %q", n.id, got)
			}
			if got := fmt.Sprint(a.Results[0].Values[0][0]); got != fmt.Sprint(row) {
				return fmt.Errorf("%s rows; want %d", got, row)
			}
			return nil
		})
	}
}

// TestForwarding writes through a follower: the answer is the one the leader would have given.
func TestForwarding(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	leader := c.leader()
	follower := c.without(leader)[0]
	leader.execute("CREATE TABLE foo (id INTEGER PRIMARY KEY, v BLOB UNIQUE)")

	a := follower.execute([]any{"INSERT INTO foo(v) VALUES (?)", "x'00ff'"}, []any{"INSERT INTO foo(v) VALUES (:v)", map[string]any{"v": 1.5}})
	if a.Results[0].LastInsertID != 1 || a.Results[1].LastInsertID != 2 || a.Results[1].RowsAffected != 1 {
		t.Errorf("forwarded inserts = %s", a.body)
	}
	if got := a.header.Get("X-Rqlite-Served-By"); got != leader.raftAddr {
		t.Errorf("forwarded write: served by %q; want %q", got, leader.raftAddr)
	}
	a, err := follower.do(requestLimit, http.MethodPost, "/db/request?raft_index", "application/json",
		`["INSERT INTO foo(v) VALUES (x'00ff')","SELECT id, v, typeof(v) FROM foo","SELECT missing"]`)
	const want = `{"results":[{"error":"UNIQUE constraint failed: foo.v"},` +
		`{"columns":["id","v","typeof(v)"],"types":["integer","blob","text"],"values":[[1,"AP8=","blob"],[2,1.5,"real"]]},` +
		`{"error":"no such column: missing"}],"raft_index":`
	if err != nil || !strings.HasPrefix(a.body, want) {
		t.Errorf("forwarded request = %+v, %v; want %sN}", a, err, want)
	}
	if got := leader.query("none", "SELECT hex(v) FROM foo ORDER BY id"); strings.Join(got, " ") != "00FF 312E35" {
		t.Errorf("the leader has %v", got)
	}
	c.equal()
}

// TestRedirect asks a follower to say where the leader is instead of forwarding.
func TestRedirect(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	leader := c.leader()
	for _, n := range c.without(leader) {
		for _, path := range []string{"/db/execute?redirect&timings", "/db/query?redirect", "/db/request?redirect"} {
			a, err := n.do(requestLimit, http.MethodPost, path, "application/json", `["CREATE TABLE IF NOT EXISTS foo (id INTEGER PRIMARY KEY)"]`)
			if err != nil {
				t.Fatal(err)
			}
			want := "http://" + leader.httpAddr + path
			if a.status != http.StatusMovedPermanently || a.header.Get("Location") != want || a.body != "" {
				t.Fatalf("%s on a follower = %d, Location %q, %q; want 301, %q, nothing", path, a.status, a.header.Get("Location"), a.body, want)
			}
			to, err := url.Parse(a.header.Get("Location"))
			if err != nil {
				t.Fatal(err)
			}
			a, err = leader.do(requestLimit, http.MethodPost, to.RequestURI(), "application/json", `["CREATE TABLE IF NOT EXISTS foo (id INTEGER PRIMARY KEY)"]`)
			if err != nil || a.status != http.StatusOK {
				t.Errorf("%s followed to the leader = %+v, %v; want 200", path, a, err)
			}
		}
	}
	if a, err := c.without(leader)[0].do(requestLimit, http.MethodGet, "/db/query?redirect&level=none&q=SELECT+1", "", ""); err != nil || a.status != http.StatusOK {
		t.Errorf("a local read with redirect = %+v, %v; want 200", a, err)
	}
}

// TestFreshness freezes the leader: a follower's local reads go on, but those that bound their age
// fail once the last word of the leader is older, and work again when there is a leader again.
func TestFreshness(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	leader := c.leader()
	leader.execute("CREATE TABLE foo (id INTEGER PRIMARY KEY)", "INSERT INTO foo VALUES (1)")
	c.equal()
	follower, other := c.without(leader)[0], c.without(leader)[1]
	ask := func(query string) error {
		_, err := follower.sql(requestLimit, "/db/query?level=none&"+query, "SELECT * FROM foo")
		return err
	}
	if err := errors.Join(ask("freshness=30s"), ask("freshness=30s&freshness_strict"), ask("")); err != nil {
		t.Fatal(err)
	}
	other.pause() // two of three are needed to elect another leader
	leader.pause()
	within(t, 10*time.Second, "a bounded read is refused", func() error {
		switch err := ask("freshness=500ms"); {
		case err == nil:
			return errors.New("still answered")
		case !strings.HasSuffix(err.Error(), ": stale read"):
			return hopelessError{err}
		}
		return nil
	})
	if err := errors.Join(ask("freshness=1h"), ask("")); err != nil {
		t.Errorf("reads without a tight bound: %v", err)
	}
	leader.resume()
	other.resume()
	c.waitReady()
	follower = c.without(c.leader())[0]
	within(t, 10*time.Second, "a bounded read is answered again", func() error { return ask("freshness=5s&freshness_strict") })
}

// TestTransferLeadership moves the leadership to a node that is named.
func TestTransferLeadership(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	old := c.leader()
	next := c.without(old)[1]
	a, err := old.do(requestLimit, http.MethodPost, "/leader?wait", "application/json", fmt.Sprintf(`{"id":%q}`, next.id))
	if err != nil || a.status != http.StatusOK {
		t.Fatalf("POST /leader = %+v, %v; want 200", a, err)
	}
	if got := c.leader(); got != next {
		t.Errorf("the leader is %s; want %s", got.id, next.id)
	}
	var m member
	if err := old.get("/leader", &m); err != nil || m.ID != next.id || m.APIAddr != "http://"+next.httpAddr || !m.Leader {
		t.Errorf("GET /leader = %+v, %v", m, err)
	}
	a, err = old.do(requestLimit, http.MethodPost, "/leader?wait", "application/json", `{"id":"nobody"}`)
	if err != nil || a.status != http.StatusInternalServerError || a.body != "stepdown: node not found in cluster\n" {
		t.Errorf("POST /leader to nobody = %+v, %v", a, err)
	}
}
