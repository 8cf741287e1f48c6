package system

import (
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"testing"
)

// hashing says whether the binary under test has GET /db/hash, which ours always has. Without it
// only the rows of all tables are compared. Set once by TestMain.
var hashing = true

// detectHashing looks whether a binary that was not built here is one of ours.
func detectHashing(binary string) bool {
	help, _ := exec.Command(binary, "-h").CombinedOutput() // the exit code is another in each program
	return strings.Contains(string(help), "-hash-check-interval")
}

// stateHash is the hash of a node's whole database behind the log entry of that index.
type stateHash struct {
	Index uint64 `json:"index"`
	Hash  string `json:"hash"`
}

func (n *node) tryHash() (h stateHash, err error) {
	err = n.get("/db/hash", &h)
	if err == nil && (h.Index == 0 || len(h.Hash) != 32) {
		err = hopelessError{fmt.Errorf("%s: /db/hash = %+v", n.id, h)}
	}
	return h, err
}

// hash returns the state hash of a node that is ready. It may be busy with another.
func (n *node) hash() (h stateHash) {
	n.t.Helper()
	within(n.t, requestLimit, n.id+" gives its state hash", func() (err error) {
		h, err = n.tryHash()
		return err
	})
	return h
}

// sameHash waits until all nodes, which nobody writes to, are at the same index, and checks that
// their hashes are equal there.
func (c cluster) sameHash() {
	c[0].t.Helper()
	c.waitReady()
	if !hashing {
		return
	}
	within(c[0].t, formLimit, "all nodes have a hash at the same index", func() error {
		first := c[0].hash()
		for _, n := range c[1:] {
			h := n.hash()
			if h.Index == first.Index && h.Hash != first.Hash {
				n.t.Fatalf("at index %d the hash of %s is %s, that of %s is %s: %s", h.Index, n.id, h.Hash, c[0].id, first.Hash, n.content().diff(c[0].content()))
			}
			if h.Index != first.Index {
				// One has restored a snapshot that ends with an entry of Raft's own. An entry that
				// changes nothing brings them together again.
				_, err := c[0].tryQuery("strong", "SELECT 1")
				c.waitReady()
				return errors.Join(fmt.Errorf("%s is at %d, %s at %d", c[0].id, first.Index, n.id, h.Index), err)
			}
		}
		return nil
	})
}

// has checks that the node, once it is ready, has exactly this content.
func (n *node) has(want content) {
	n.t.Helper()
	n.waitReady(formLimit)
	if d := n.content().diff(want); d != "" {
		n.t.Fatalf("%s: %s", n.id, d)
	}
}

// hashChecks returns how often the leader has compared the hashes of all nodes since it was
// started, and how often they differed.
func (c cluster) hashChecks() (checks, mismatches int) {
	for _, n := range c {
		n.t.Helper()
		var s struct {
			Store struct {
				Hash struct {
					Checks     int `json:"checks"`
					Mismatches int `json:"mismatches"`
				} `json:"hash"`
			} `json:"store"`
		}
		if err := n.get("/status", &s); err != nil {
			n.t.Fatal(err)
		}
		checks += s.Store.Hash.Checks
		mismatches += s.Store.Hash.Mismatches
	}
	return checks, mismatches
}

// TestStateHash asks for what other tests rely on: the hash stays while nothing is written, also
// through restarts, and a change of anything changes it, on all nodes alike.
func TestStateHash(t *testing.T) {
	if !hashing {
		t.Skip("NOT TESTED: the binary has no GET /db/hash")
	}
	t.Parallel()
	c := startCluster(t, 2)
	seen := map[string]string{}
	for _, sql := range []string{
		"CREATE TABLE foo (id INTEGER PRIMARY KEY, v)", "INSERT INTO foo VALUES (1, 1), (2, 2)", "UPDATE foo SET v = '1' WHERE id = 1",
		"UPDATE foo SET v = x'31' WHERE id = 1", "UPDATE foo SET id = 3 WHERE id = 1", "CREATE INDEX bar ON foo (v)", "DROP INDEX bar",
		"PRAGMA user_version = 7", "CREATE TABLE seq (id INTEGER PRIMARY KEY AUTOINCREMENT)", "INSERT INTO seq DEFAULT VALUES", "DELETE FROM seq",
		"CREATE VIRTUAL TABLE words USING fts5(w)", "INSERT INTO words VALUES ('one two')", "ANALYZE",
	} {
		c[0].execute(sql)
		c.sameHash()
		h := c[1].hash().Hash
		if before, ok := seen[h]; ok && sql != "DROP INDEX bar" {
			t.Errorf("the hash after %q is the one after %q", sql, before)
		}
		seen[h] = sql
	}
	want := c[1].hash()
	for _, sql := range []string{"UPDATE foo SET v = v", "DELETE FROM foo WHERE id > 100", "VACUUM", "REINDEX"} {
		c[0].execute(sql)
		c.sameHash()
		if got := c[1].hash(); got.Hash != want.Hash || got.Index <= want.Index {
			t.Errorf("after %q: %+v; want the hash of %+v at a later index", sql, got, want)
		}
	}
	for _, lose := range []func(){func() {}, c[1].forgetMarker, c[1].forgetDatabase} {
		c.sameHash()
		want := c[1].hash()
		c[1].kill()
		lose()
		c[1].start()
		c.sameHash()
		if got := c[1].hash(); got.Hash != want.Hash || got.Index < want.Index {
			t.Errorf("after a restart: %+v; before: %+v", got, want)
		}
	}
	if a, err := c[0].do(requestLimit, http.MethodPost, "/db/hash", "", ""); err != nil || a.status != http.StatusMethodNotAllowed {
		t.Errorf("POST /db/hash = %+v, %v; want 405", a, err)
	}
}
