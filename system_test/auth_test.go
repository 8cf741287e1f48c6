package system

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// login is a transport that gives every request a user, unless the name is empty.
type login struct {
	name, password string
	*http.Transport
}

func (l login) RoundTrip(r *http.Request) (*http.Response, error) {
	if l.name != "" {
		r = r.Clone(r.Context())
		r.SetBasicAuth(l.name, l.password)
	}
	return l.Transport.RoundTrip(r)
}

// logIn makes the user the one who sends all requests of n from now on.
func (n *node) logIn(name, password string) {
	transport := n.client.Transport
	if l, ok := transport.(login); ok {
		transport = l.Transport
	}
	n.client.Transport = login{name, password, transport.(*http.Transport)}
}

// rootUser may do everything.
const rootUser = `{"username": "root", "password": "secret", "perms": ["all"]}`

// credentials are the users of the cluster, more of whom a node may have. The password of hashed is
// U*U.
func credentials(more ...string) string {
	return "[" + strings.Join(append(more, rootUser,
		`{"username": "joiner", "password": "j", "perms": ["join", "join-read-only", "remove"]}`,
		`{"username": "reader", "password": "r", "perms": ["query"]}`,
		`{"username": "hashed", "password": "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "perms": ["execute", "query"]}`,
		`{"username": "*", "perms": ["ready"]}`), ",\n") + "]\n"
}

// usersFile is where the node's credentials file is.
func (n *node) usersFile() string { return filepath.Join(filepath.Dir(n.dir), "users.json") }

// writeUsers replaces the node's credentials file.
func (n *node) writeUsers(content string) {
	n.t.Helper()
	name := n.usersFile()
	if err := os.WriteFile(name+".new", []byte(content), 0o600); err != nil {
		n.t.Fatal(err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		n.t.Fatal(err)
	}
}

// newAuthNode prepares a node with a credentials file, whose requests are root's.
func newAuthNode(t *testing.T, id string, flags ...string) *node {
	t.Helper()
	n := newNode(t, id, flags...)
	n.flags = append(n.flags, "-auth", n.usersFile())
	n.writeUsers(credentials())
	n.logIn("root", "secret")
	return n
}

// expect sends a request as a user and compares the answer; a body of "…" may be any.
func (n *node) expect(name, password, method, path, body string, code int, want string) *answer {
	n.t.Helper()
	n.logIn(name, password)
	defer n.logIn("root", "secret")
	a, err := n.do(requestLimit, method, path, "application/json", body)
	if err != nil {
		n.t.Fatalf("%s: %s %s as %q: %v", n.id, method, path, name, err)
	}
	if a.status != code || want != "…" && a.body != want {
		n.t.Errorf("%s: %s %s as %q = %d %q; want %d %q", n.id, method, path, name, a.status, a.body, code, want)
	}
	return a
}

// TestAuth forms a cluster of nodes that ask for credentials, uses it as several users on the leader
// and through a follower, and changes what they may.
func TestAuth(t *testing.T) {
	t.Parallel()
	first := newAuthNode(t, "n1")
	first.start()
	first.waitReady(formLimit)
	c := cluster{first}

	joining := []string{"-join", first.raftAddr, "-join-interval", "200ms", "-join-attempts", "50", "-join-as", "joiner"}
	c = append(c, newAuthNode(t, "n2", joining...), newAuthNode(t, "n3", append(joining, "-raft-cluster-remove-shutdown")...))
	for _, user := range []string{"", "stranger", "hashed"} { // none of them has a password to send
		c[1].start("-join-attempts", "2", "-join-as", user)
		if code := c[1].wait(formLimit); code != 1 || !strings.Contains(c[1].log(), "did you forget to set -join-as?") {
			t.Errorf("joining as %q: exit code %d; want 1, and a hint in the log", user, code)
		}
	}
	c[1].start("-join-attempts", "2", "-join-as", "reader")
	if code := c[1].wait(formLimit); code != 1 {
		t.Errorf("joining as a reader: exit code %d; want 1", code)
	}
	cluster{first}.expectMembers(first.id)
	c[1].start()
	c[2].start()
	c.waitReady()

	leader := c.leader()
	follower := c.without(leader)[0]
	first.execute("CREATE TABLE foo (id INTEGER PRIMARY KEY)")
	const insert, read = `["INSERT INTO foo DEFAULT VALUES"]`, "/db/query?level=strong&q=SELECT+1"
	for _, n := range []*node{leader, follower} {
		n.expect("", "", "POST", "/db/execute", insert, 401, "")
		n.expect("", "", "GET", "/status", "", 401, "")
		n.expect("", "", "GET", "/readyz", "", 200, "…") // as everyone may
		n.expect("stranger", "x", "GET", "/readyz", "", 200, "…")
		n.expect("root", "wrong", "GET", read, "", 401, "")
		n.expect("reader", "r", "GET", read, "", 200, "…")
		n.expect("reader", "r", "POST", "/db/execute", insert, 401, "")
		n.expect("hashed", "U*V", "POST", "/db/execute", insert, 401, "")
		a := n.expect("hashed", "U*U", "POST", "/db/execute", insert, 200, "…")
		if got := a.header.Get("X-Rqlite-Served-By"); n == follower && got != leader.raftAddr {
			t.Errorf("write through a follower was served by %q; want %q", got, leader.raftAddr)
		}
		n.expect("hashed", "U*U", "DELETE", "/remove", `{"id":"n3"}`, 401, "")
	}

	// The leader judges by its own file, and does so anew when it has changed.
	follower.writeUsers(credentials(`{"username": "late", "password": "l", "perms": ["execute", "remove"]}`))
	try := func(n *node, what string, code int) {
		t.Helper()
		n.logIn("late", "l")
		defer n.logIn("root", "secret")
		within(t, requestLimit, what, func() error {
			a, err := n.do(requestLimit, "POST", "/db/execute", "application/json", insert)
			if err != nil {
				return err
			}
			if a.status != code || code == 401 && a.body != "remote Execute not authorized\n" {
				return fmt.Errorf("%s answers %d %q", n.id, a.status, a.body)
			}
			return nil
		})
	}
	try(follower, "the follower takes what the leader refuses", 401)
	follower.expect("late", "l", "DELETE", "/remove", `{"id":"n3"}`, 401, "remote remove node not authorized\n")
	follower.expect("late", "l", "POST", "/db/execute?redirect", insert, 301, "")
	leader.writeUsers(credentials(`{"username": "late", "password": "l", "perms": ["execute"]}`))
	try(follower, "the leader takes it, too", 200)
	leader.writeUsers(`[{"username": "late",`)
	within(t, requestLimit, "the leader notes a broken file", func() error {
		leader.expect("late", "l", "POST", "/db/execute", insert, 200, "…")
		if !strings.Contains(leader.log(), "credentials file cannot be used") {
			return errors.New("its log says nothing")
		}
		return nil
	})
	try(follower, "the leader goes on with the file before", 200)
	leader.writeUsers(credentials())
	try(follower, "the leader refuses again", 401)

	// A node that leaves is removed in the name that it joined with.
	c[2].stop()
	c[:2].expectMembers(c[0].id, c[1].id)
}

// TestAuthBootstrap has nodes that ask each other for credentials form a cluster.
func TestAuthBootstrap(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, "-join-as", "joiner")
	for _, n := range c {
		n.flags = append(n.flags, "-auth", n.usersFile())
		n.writeUsers(credentials())
		n.logIn("root", "secret")
	}
	c.start()
	c.waitReady()
	c.leader()
}
