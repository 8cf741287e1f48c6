package system

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"rqlited/internal/certs/certstest"
)

// stage is the nodes that examples are played on. In an example they are three on one machine: the ids are
// 1 to 3, the ports of the API 4001, 4003 and 4005, those between nodes 4002, 4004 and 4006. The data
// directories are data1 to data3; they and the files that examples name are in one directory.
type stage struct {
	t     *testing.T
	dir   string
	nodes cluster
	auth  bool
	shown *strings.Replacer // of what nodes say
	sent  *strings.Replacer // of what examples say
}

func newStage(t *testing.T) *stage {
	t.Helper()
	return &stage{t: t, dir: t.TempDir(), shown: strings.NewReplacer(), sent: strings.NewReplacer()}
}

// steadily are flags with which a busy machine does not change the leader.
var steadily = []string{"-raft-heartbeat-timeout", "2s", "-raft-election-timeout", "2s", "-raft-leader-lease-timeout", "2s"}

// direct does what a direction says: "nodes COUNT FLAGS…" starts new nodes, the first of which leads; "start",
// "stop", "kill", "pause" and "resume" are followed by the id of a node. A node that starts is waited for, unless
// it is to be "started": then it only has to answer. "sync" waits until this one has what is committed, "leader" until
// all nodes say that it leads, and "leaderless" until it knows of no leader.
func (s *stage) direct(direction string) {
	s.t.Helper()
	words := strings.Fields(direction)
	if len(words) < 2 {
		s.t.Fatalf("direction %q says nothing", direction)
	}
	number, err := strconv.Atoi(words[1])
	if err != nil {
		s.t.Fatalf("direction %q names no number", direction)
	}
	if words[0] == "nodes" {
		s.set(number, words[2:])
		return
	}
	n := s.nodes[number-1]
	switch words[0] {
	case "start":
		n.start(words[2:]...)
		n.waitReady(formLimit)
	case "started":
		n.start(words[2:]...)
		n.waitServing(formLimit)
	case "stop":
		n.stop()
	case "kill":
		n.kill()
	case "pause":
		n.freeze()
	case "resume":
		n.resume()
	case "sync":
		n.await()
	case "leader":
		s.expectLeader(n.raftAddr, s.nodes)
	case "leaderless":
		s.expectLeader("", cluster{n})
	default:
		s.t.Fatalf("direction %q is none", direction)
	}
}

// expectLeader waits until those of the nodes that run say that the one with this address leads; empty: that none does.
func (s *stage) expectLeader(addr string, some cluster) {
	s.t.Helper()
	for _, n := range some {
		if !n.running() {
			continue
		}
		within(s.t, formLimit, fmt.Sprintf("the leader that %s knows is %q", n.id, addr), func() error {
			got, err := n.status()
			if err == nil && got.Store.Leader.Addr != addr {
				err = fmt.Errorf("it is %q", got.Store.Leader.Addr)
			}
			return err
		})
	}
}

// freeze pauses the node and waits until it does nothing more.
func (n *node) freeze() {
	n.t.Helper()
	n.pause()
	within(n.t, requestLimit, n.id+" is stopped", func() error {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", n.proc.cmd.Process.Pid))
		if err == nil && !bytes.Contains(stat, []byte(") T ")) {
			err = fmt.Errorf("its state is %s", stat)
		}
		return err
	})
}

// set ends the nodes of before and starts others.
func (s *stage) set(count int, flags []string) {
	s.t.Helper()
	for _, n := range s.nodes {
		if n.running() {
			n.kill()
		}
	}
	s.nodes, s.auth = nil, slices.Contains(flags, "-auth")
	if count > 1 {
		flags = append(flags, steadily...)
	}
	var shown, sent []string
	for i := range count {
		n := newNode(s.t, strconv.Itoa(i+1), flags...)
		n.workDir = s.dir
		n.dir = filepath.Join(s.dir, fmt.Sprintf("data%d", i+1))
		if err := os.RemoveAll(n.dir); err != nil {
			s.t.Fatal(err)
		}
		api, raft := fmt.Sprintf("localhost:%d", 4001+2*i), fmt.Sprintf("localhost:%d", 4002+2*i)
		shown = append(shown, n.httpAddr, api, n.raftAddr, raft)
		sent = append(sent, api, n.httpAddr, raft, n.raftAddr)
		if i > 0 {
			n.flags = append(slices.Clone(n.flags), "-join", s.nodes[0].raftAddr, "-join-interval", "200ms", "-join-attempts", "50")
		}
		s.nodes = append(s.nodes, n)
	}
	s.shown, s.sent = strings.NewReplacer(append(shown, s.dir+"/", "", rqlited, "rqlited")...), strings.NewReplacer(sent...)
	if slices.Contains(flags, "-http-cert") {
		s.secure()
	}
	for _, n := range s.nodes {
		n.start()
		n.waitServing(formLimit)
		n.await()
	}
}

// await waits until the node knows a leader and has what that one has committed, whoever may ask it for that.
func (n *node) await() {
	n.t.Helper()
	within(n.t, formLimit, n.id+" is ready", func() error {
		err := n.readyz("sync&timeout=2s")
		if err != nil && strings.Contains(err.Error(), ": 401 ") {
			n.t.Fatalf("%s: the users of an example need one, *, with the permission ready", n.id)
		}
		return err
	})
}

// secure writes certificates, as the files that the flags name, and has the clients believe them.
func (s *stage) secure() {
	s.t.Helper()
	authority := certstest.NewAuthority(s.t)
	cert, key := authority.Issue(s.t, "node", "127.0.0.1", "localhost")
	certstest.Put(s.t, filepath.Join(s.dir, "node.pem"), cert)
	certstest.Put(s.t, filepath.Join(s.dir, "node.key"), key)
	certstest.Put(s.t, filepath.Join(s.dir, "ca.pem"), authority.PEM())
	for _, n := range s.nodes {
		n.scheme = "https"
		n.client.Transport = secureTransport(s.t, authority)
	}
}

// file puts a file where examples find it.
func (s *stage) file(name, content string) {
	s.t.Helper()
	if name != filepath.Base(name) {
		s.t.Fatalf("an example has a file %q", name)
	}
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(content), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// play does what one step of an example says and returns what is wrong with what came of it.
func (s *stage) play(x *exchange) string {
	s.t.Helper()
	switch x.direction {
	case "":
	case "file":
		s.file(x.saved, x.body)
		return ""
	default:
		s.direct(x.direction)
		return ""
	}
	got, err := s.send(x)
	if err != nil {
		return err.Error()
	}
	if d := common(got, s.auth); d != "" && !strings.HasPrefix(x.url, "http:") {
		return d
	}
	if x.saved != "" {
		s.file(x.saved, got.body)
		got.body = ""
	}
	got.body = s.shown.Replace(got.body)
	for _, values := range got.header {
		for i, v := range values {
			values[i] = s.shown.Replace(v)
		}
	}
	return x.check(got)
}

// send sends the request of x to the node it is for.
func (s *stage) send(x *exchange) (*answer, error) {
	n, path := s.nodes[0], x.url
	for i, other := range s.nodes {
		if rest, ok := strings.CutPrefix(x.url, fmt.Sprintf("localhost:%d", 4001+2*i)); ok {
			n, path = other, rest
		}
	}
	scheme := n.scheme
	if rest, ok := strings.CutPrefix(path, "http:"); ok { // to a node that may expect TLS
		scheme, path = "http", rest
	}
	body := s.sent.Replace(x.body)
	if name, ok := strings.CutPrefix(body, "@"); ok {
		body = readFile(s.t, s.dir, name)
	}
	ctx, cancel := context.WithTimeout(context.Background(), formLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, x.method, scheme+"://"+n.httpAddr+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	for key, value := range x.headers {
		if name, password, ok := strings.Cut(value, ":"); ok && key == "User" {
			req.SetBasicAuth(name, password)
			continue
		}
		req.Header.Set(key, value)
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
