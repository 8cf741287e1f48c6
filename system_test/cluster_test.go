package system

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// formLimit bounds the forming of a cluster and every election: generous, since the machine that
// runs the tests may be busy.
const formLimit = 60 * time.Second

// cluster is some nodes that were told of each other.
type cluster []*node

// newCluster prepares voters that will bootstrap together; nothing runs yet.
func newCluster(t *testing.T, size int, flags ...string) cluster {
	t.Helper()
	var c cluster
	var addrs []string
	for i := range size {
		n := newNode(t, fmt.Sprintf("n%d", i+1))
		c = append(c, n)
		addrs = append(addrs, n.raftAddr)
	}
	for _, n := range c {
		n.flags = append([]string{
			"-bootstrap-expect", fmt.Sprint(size), "-join", strings.Join(addrs, ","), "-raft-log-level", "INFO",
		}, flags...)
	}
	return c
}

// startCluster starts voters and waits until all of them are ready.
func startCluster(t *testing.T, size int, flags ...string) cluster {
	t.Helper()
	c := newCluster(t, size, flags...)
	c.start()
	c.waitReady()
	return c
}

// startOne starts a node that forms a cluster of its own.
func startOne(t *testing.T, flags ...string) *node {
	t.Helper()
	n := newNode(t, "n1", flags...)
	n.start()
	n.waitReady(formLimit)
	return n
}

// join starts one more node, which joins through the first.
func (c cluster) join(t *testing.T, id string, flags ...string) *node {
	t.Helper()
	n := newNode(t, id, append([]string{"-join", c[0].raftAddr, "-join-interval", "200ms", "-join-attempts", "50"}, flags...)...)
	n.start()
	n.waitReady(formLimit)
	return n
}

// start starts all nodes at once and waits for nothing.
func (c cluster) start() {
	for _, n := range c {
		n.t.Helper()
		n.start()
	}
}

// waitReady waits until every node is ready and has what was committed before.
func (c cluster) waitReady() {
	for _, n := range c {
		n.t.Helper()
		n.waitReady(formLimit)
	}
}

// running returns how many nodes run.
func (c cluster) running() (count int) {
	for _, n := range c {
		if n.running() {
			count++
		}
	}
	return count
}

// without returns the other nodes.
func (c cluster) without(some ...*node) cluster {
	var rest cluster
	for _, n := range c {
		if !slices.Contains(some, n) {
			rest = append(rest, n)
		}
	}
	return rest
}

// leader waits until the nodes agree on a leader among them, and returns it.
func (c cluster) leader() *node {
	c[0].t.Helper()
	var leader *node
	within(c[0].t, formLimit, "the nodes agree on a leader", func() error {
		l, err := c.tryLeader()
		leader = l
		return err
	})
	return leader
}

func (c cluster) tryLeader() (*node, error) {
	var leader *node
	var said string
	for _, n := range c {
		if err := n.alive(); err != nil {
			return nil, err
		}
		s, err := n.status()
		if err != nil {
			return nil, err
		}
		id := s.Store.Leader.NodeID
		switch {
		case id == "":
			return nil, fmt.Errorf("%s knows no leader", n.id)
		case said != "" && said != id:
			return nil, fmt.Errorf("%s says %s leads, another says %s", n.id, id, said)
		case (s.Store.Raft.State == "Leader") != (id == n.id):
			return nil, fmt.Errorf("%s is %s but says that %s leads", n.id, s.Store.Raft.State, id)
		case id == n.id:
			leader = n
		}
		said = id
	}
	if leader == nil {
		return nil, fmt.Errorf("%s, said to be the leader, is none of the nodes asked", said)
	}
	return leader, nil
}

// writePeers puts a peers.json that names all nodes of the cluster into each data directory.
func (c cluster) writePeers() {
	type peer struct {
		ID       string `json:"id"`
		Address  string `json:"address"`
		NonVoter bool   `json:"non_voter"`
	}
	var peers []peer
	for _, n := range c {
		peers = append(peers, peer{ID: n.id, Address: n.raftAddr})
	}
	data, err := json.Marshal(peers)
	if err != nil {
		c[0].t.Fatal(err)
	}
	for _, n := range c {
		n.t.Helper()
		dir := filepath.Join(n.dir, "raft")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			n.t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "peers.json"), data, 0o644); err != nil {
			n.t.Fatal(err)
		}
	}
}

// peersTaken checks that the node has taken over its peers.json, once.
func (n *node) peersTaken() {
	n.t.Helper()
	_, err := os.Stat(filepath.Join(n.dir, "raft", "peers.json"))
	if !errors.Is(err, os.ErrNotExist) {
		n.t.Errorf("%s: raft/peers.json after a start: %v; want it renamed", n.id, err)
	}
	if _, err := os.Stat(filepath.Join(n.dir, "raft", "peers.info")); err != nil {
		n.t.Errorf("%s: %v", n.id, err)
	}
}

// badTransfer matches log lines about a snapshot that could not be handed over or taken back.
var badTransfer = regexp.MustCompile(
	`(?i)^.*(failed|cannot|could not) (to )?(install|finalize|open|send|create|restore|copy|stream|get)[a-z ]*snapshot.*$`)

// snapshotsWentWell checks that no node has complained about a snapshot, other than that the one
// to take it was down.
func (c cluster) snapshotsWentWell() {
	for _, n := range c {
		n.t.Helper()
		for line := range strings.Lines(n.log()) {
			if badTransfer.MatchString(strings.TrimSuffix(line, "\n")) && !strings.Contains(line, "connection refused") {
				n.t.Errorf("%s logged: %s", n.id, line)
			}
		}
	}
}

// content is every table's rows as SQLite quotes them, in order, the schema under "schema", and the
// state hash, if the node has one, under a name that no table has.
type content map[string][]string

const hashName = "\x00state hash"

// content reads the whole database of this node, whatever the others have. Rowids are included
// where there are any: replicas agree on them too.
func (n *node) content() content {
	n.t.Helper()
	all, err := n.tryContent()
	if err != nil {
		n.t.Fatalf("%s: %v", n.id, err)
	}
	return all
}

func (n *node) tryContent() (content, error) {
	schema, err := n.tryQuery("none", `SELECT type, name, tbl_name, sql FROM sqlite_master`)
	if err != nil {
		return nil, fmt.Errorf("schema: %w", err)
	}
	slices.Sort(schema)
	all := content{"schema": schema}
	if hashing {
		h, err := n.tryHash()
		if err != nil {
			return nil, err
		}
		all[hashName] = []string{h.Hash}
	}
	tables, err := n.tryQuery("none", `SELECT wr||name FROM pragma_table_list WHERE schema='main' AND type IN ('table', 'shadow') AND name<>'sqlite_schema'`)
	if err != nil {
		return nil, fmt.Errorf("tables: %w", err)
	}
	for _, table := range tables {
		hasRowid, name := table[:1] == "0", table[1:]
		if all[name], err = n.tryRows(name, hasRowid); err != nil {
			return nil, fmt.Errorf("table %s: %w", name, err)
		}
	}
	return all, nil
}

// tryRows reads a table, each column quoted, in the order of what it reads.
func (n *node) tryRows(table string, hasRowid bool) ([]string, error) {
	columns, err := n.tryQuery("none", fmt.Sprintf("SELECT name FROM pragma_table_xinfo(%s) WHERE hidden <> 1", quoteText(table)))
	if err != nil {
		return nil, err
	}
	var exprs, order []string
	if hasRowid {
		exprs = append(exprs, "rowid")
	}
	for _, col := range columns {
		exprs = append(exprs, "quote("+quoteName(col)+")")
	}
	for i := range exprs {
		order = append(order, fmt.Sprint(i+1))
	}
	return n.tryQuery("none", fmt.Sprintf("SELECT %s FROM %s ORDER BY %s",
		strings.Join(exprs, ", "), quoteName(table), strings.Join(order, ", ")))
}

func quoteName(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
func quoteText(text string) string { return `'` + strings.ReplaceAll(text, `'`, `''`) + `'` }

// diff says where two contents differ, or is empty. The hash counts if both have one, which only
// content that was not read from a node has not.
func (a content) diff(b content) string {
	for table, rows := range a {
		if table == hashName {
			continue
		}
		other, ok := b[table]
		if !ok {
			return fmt.Sprintf("table %s is missing", table)
		}
		for i := range min(len(rows), len(other)) {
			if rows[i] != other[i] {
				return fmt.Sprintf("table %s, row %d of %d: %.200s; other has %.200s", table, i, len(rows), rows[i], other[i])
			}
		}
		if len(rows) != len(other) {
			return fmt.Sprintf("table %s: %d rows; other has %d", table, len(rows), len(other))
		}
	}
	for table := range b {
		if _, ok := a[table]; !ok && table != hashName {
			return fmt.Sprintf("table %s is there too many", table)
		}
	}
	if h, other := a[hashName], b[hashName]; h != nil && other != nil && h[0] != other[0] {
		return fmt.Sprintf("all rows are equal, but the state hash is %s; other has %s", h[0], other[0])
	}
	return ""
}

// equal waits until every node is in sync and then checks, at once, that all hold the same rows
// and have the same hash. It returns the content.
func (c cluster) equal() content {
	c[0].t.Helper()
	c.sameHash()
	first := c[0].content()
	for _, n := range c[1:] {
		if d := n.content().diff(first); d != "" {
			n.t.Fatalf("%s differs from %s: %s", n.id, c[0].id, d)
		}
	}
	return first
}

// holds checks that every node, once in sync, has exactly the rows of want.
func (c cluster) holds(want content) {
	c[0].t.Helper()
	if d := c.equal().diff(want); d != "" {
		c[0].t.Fatalf("content of all nodes: %s", d)
	}
}
