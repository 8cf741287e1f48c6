package system

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// answer is what the HTTP API said.
type answer struct {
	status int
	header http.Header
	body   string

	Results   []result `json:"results"`
	Error     string   `json:"error"`
	RaftIndex uint64   `json:"raft_index"`
}

// result is the outcome of one statement.
type result struct {
	Columns      []string `json:"columns"`
	Types        []string `json:"types"`
	Values       [][]any  `json:"values"` // numbers are json.Number
	LastInsertID int64    `json:"last_insert_id"`
	RowsAffected int64    `json:"rows_affected"`
	Error        string   `json:"error"`
}

// requestLimit bounds every request that names no limit of its own.
const requestLimit = 20 * time.Second

// do sends one request and reads the whole answer. An error means that there was none.
func (n *node) do(limit time.Duration, method, path, contentType, body string) (*answer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, n.scheme+"://"+n.httpAddr+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := n.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	return &answer{status: resp.StatusCode, header: resp.Header, body: string(text)}, nil
}

// sql sends statements to /db/execute, /db/query or /db/request. A statement is a string, or a
// []any of SQL and parameters. An error means that not all of them are known to have succeeded.
func (n *node) sql(limit time.Duration, path string, statements ...any) (*answer, error) {
	body, err := json.Marshal(statements)
	if err != nil {
		return nil, err
	}
	a, err := n.do(limit, http.MethodPost, path, "application/json", string(body))
	if err != nil {
		return nil, err
	}
	if a.status != http.StatusOK {
		return a, fmt.Errorf("%s: status %d: %s", path, a.status, a.body)
	}
	dec := json.NewDecoder(strings.NewReader(a.body))
	dec.UseNumber()
	if err := dec.Decode(a); err != nil {
		return a, fmt.Errorf("%s: %w in %q", path, err, a.body)
	}
	if a.Error != "" {
		return a, fmt.Errorf("%s: %s", path, a.Error)
	}
	for i, r := range a.Results {
		if r.Error != "" {
			return a, fmt.Errorf("%s: statement %d: %s", path, i, r.Error)
		}
	}
	if len(a.Results) != len(statements) {
		return a, fmt.Errorf("%s: %d results for %d statements: %s", path, len(a.Results), len(statements), a.body)
	}
	return a, nil
}

// execute writes and ends the test if that does not succeed. While there is no leader, which may
// happen at any time on a busy machine, nothing is applied, and it is asked again.
func (n *node) execute(statements ...any) *answer {
	n.t.Helper()
	var done *answer
	within(n.t, formLimit, fmt.Sprintf("%s executes %.200v", n.id, statements), func() error {
		a, err := n.sql(requestLimit, "/db/execute", statements...)
		if err != nil && (a == nil || a.status != http.StatusServiceUnavailable) {
			return hopelessError{err}
		}
		done = a
		return err
	})
	return done
}

// repeat writes, as one transaction, what does no harm if it is done twice, until it is known to be
// done.
func (n *node) repeat(statements ...any) {
	n.t.Helper()
	within(n.t, formLimit, fmt.Sprintf("%s executes %.200v", n.id, statements), func() error {
		_, err := n.sql(requestLimit, "/db/execute?transaction", statements...)
		return err
	})
}

// tryQuery reads rows; their values are written as Go prints them, NULL as <nil>.
func (n *node) tryQuery(level, sql string) ([]string, error) {
	a, err := n.sql(requestLimit, "/db/query?level="+url.QueryEscape(level), sql)
	if err != nil {
		return nil, err
	}
	rows := []string{}
	for _, values := range a.Results[0].Values {
		var row bytes.Buffer
		for i, v := range values {
			if i > 0 {
				row.WriteByte('|')
			}
			fmt.Fprint(&row, v)
		}
		rows = append(rows, row.String())
	}
	return rows, nil
}

// query reads rows and ends the test if that does not succeed.
func (n *node) query(level, sql string) []string {
	n.t.Helper()
	rows, err := n.tryQuery(level, sql)
	if err != nil {
		n.t.Fatalf("%s: query %q: %v", n.id, sql, err)
	}
	return rows
}

// get reads a JSON document into v.
func (n *node) get(path string, v any) error {
	a, err := n.do(requestLimit, http.MethodGet, path, "", "")
	if err != nil {
		return err
	}
	if a.status != http.StatusOK {
		return fmt.Errorf("%s: status %d: %s", path, a.status, a.body)
	}
	if err := json.Unmarshal([]byte(a.body), v); err != nil {
		return fmt.Errorf("%s: %w in %q", path, err, a.body)
	}
	return nil
}

// status is the part of /status that the tests read.
type status struct {
	Store struct {
		Leader struct {
			Addr   string `json:"addr"`
			NodeID string `json:"node_id"`
		} `json:"leader"`
		Raft struct {
			State             string `json:"state"`
			Voter             bool   `json:"voter"`
			Term              uint64 `json:"term"`
			CommitIndex       uint64 `json:"commit_index"`
			AppliedIndex      uint64 `json:"applied_index"`
			LastLogIndex      uint64 `json:"last_log_index"`
			LastSnapshotIndex uint64 `json:"last_snapshot_index"`
		} `json:"raft"`
	} `json:"store"`
}

func (n *node) status() (status, error) {
	var s status
	err := n.get("/status", &s)
	return s, err
}

// member is an entry of /nodes.
type member struct {
	ID        string  `json:"id"`
	APIAddr   string  `json:"api_addr"`
	Addr      string  `json:"addr"`
	Voter     bool    `json:"voter"`
	Reachable bool    `json:"reachable"`
	Leader    bool    `json:"leader"`
	Time      float64 `json:"time"`
	Error     string  `json:"error"`
}

// members returns /nodes?nonvoters, which is keyed by id.
func (n *node) members() (map[string]member, error) {
	var all map[string]member
	err := n.get("/nodes?nonvoters", &all)
	return all, err
}

// readyz asks once whether the node is ready; query is what follows the question mark.
func (n *node) readyz(query string) error {
	if err := n.alive(); err != nil {
		return err
	}
	a, err := n.do(requestLimit, http.MethodGet, "/readyz?"+query, "", "")
	if err != nil {
		return err
	}
	if a.status != http.StatusOK {
		return fmt.Errorf("%s: /readyz?%s: %d %q", n.id, query, a.status, a.body)
	}
	return nil
}

// waitReady waits until the node says that it is ready and has all that the leader had committed
// when it was asked.
func (n *node) waitReady(limit time.Duration) time.Duration {
	n.t.Helper()
	return within(n.t, limit, n.id+" is ready", func() error { return n.readyz("sync&timeout=2s") })
}

// waitServing waits until the node answers HTTP, ready or not.
func (n *node) waitServing(limit time.Duration) {
	n.t.Helper()
	within(n.t, limit, n.id+" answers HTTP", func() error { return n.readyz("noleader") })
}

// snapshot asks the node for a snapshot; there may be nothing new to take.
func (n *node) snapshot() error {
	a, err := n.do(requestLimit, http.MethodPost, "/snapshot", "", "")
	if err != nil {
		return err
	}
	if a.status != http.StatusOK && a.status != http.StatusNoContent {
		return fmt.Errorf("/snapshot: %d %s", a.status, a.body)
	}
	return nil
}

// mustSnapshot takes a snapshot and ends the test if there is none to take. The node may be busy
// with one already: then it is asked again.
func (n *node) mustSnapshot() {
	n.t.Helper()
	before, err := n.status()
	if err != nil {
		n.t.Fatal(err)
	}
	n.mustSnapshotSince(before)
}

// mustSnapshotSince has the node take a snapshot that covers more than the last one did when its status was before.
func (n *node) mustSnapshotSince(before status) {
	n.t.Helper()
	within(n.t, requestLimit, n.id+" takes a snapshot", func() error {
		if err := n.snapshot(); err != nil {
			return err
		}
		now, err := n.status()
		if err != nil {
			return err
		}
		if now.Store.Raft.LastSnapshotIndex <= before.Store.Raft.LastSnapshotIndex {
			return errors.New("the last snapshot's index has not grown")
		}
		return nil
	})
}
