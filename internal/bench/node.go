package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

const (
	readyLimit = 5 * time.Minute // for a node to get ready
	readyPoll  = 2 * time.Millisecond
)

// node is a data directory and, while it runs, its process.
type node struct {
	binary     string
	id, dir    string
	http, raft string // addresses
	flags      []string
	client     *http.Client
	cmd        *exec.Cmd  // nil while nothing runs
	ended      chan error // how it ended
}

// newNode prepares a node. It takes snapshots only when told to.
func newNode(binary, dir, id string, flags ...string) (*node, error) {
	n := &node{binary: binary, id: id, dir: filepath.Join(dir, id), client: &http.Client{}}
	n.flags = append([]string{"-raft-snap", "1000000000", "-raft-snap-wal-size", "0", "-raft-snap-int", "1h"}, flags...)
	var err error
	if n.http, err = freeAddr(); err != nil {
		return nil, err
	}
	n.raft, err = freeAddr()
	return n, err
}

// freeAddr returns a loopback address that nobody listens at just now.
func freeAddr() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return ln.Addr().String(), ln.Close()
}

// hastily are flags for a node that is alone: its elections end so soon that the rest of a start can
// be seen. By default it waits for other candidates for one to two seconds.
var hastily = []string{"-raft-timeout", "20ms", "-raft-election-timeout", "20ms", "-raft-leader-lease-timeout", "20ms"}

// start runs the node with further flags, and returns how long it took until it was ready.
func (n *node) start(flags ...string) (time.Duration, error) {
	log, err := os.OpenFile(n.dir+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	defer log.Close() // the process has its own descriptor
	args := slices.Concat([]string{"-node-id", n.id, "-http-addr", n.http, "-raft-addr", n.raft}, n.flags, flags, []string{n.dir})
	cmd := exec.Command(n.binary, args...)
	cmd.Stdout, cmd.Stderr = log, log
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	n.cmd, n.ended = cmd, make(chan error, 1)
	go func() { n.ended <- cmd.Wait() }()
	if err := n.awaitReady(); err != nil {
		text, logErr := os.ReadFile(n.dir + ".log")
		return 0, errors.Join(fmt.Errorf("node %s: %w; its log:\n%s", n.id, err, text), logErr)
	}
	return time.Since(begin), nil
}

func (n *node) awaitReady() error {
	tick := time.NewTicker(readyPoll)
	defer tick.Stop()
	limit := time.After(readyLimit)
	for {
		resp, err := n.client.Get("http://" + n.http + "/readyz")
		if err == nil {
			resp.Body.Close() // what it says does not matter
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case err := <-n.ended:
			n.cmd = nil
			return fmt.Errorf("ended by itself: %w", err)
		case <-limit:
			return fmt.Errorf("not ready after %s", readyLimit)
		case <-tick.C:
		}
	}
}

// end sends sig to the process and waits until it is gone.
func (n *node) end(sig syscall.Signal) error {
	if n.cmd == nil {
		return nil
	}
	if err := n.cmd.Process.Signal(sig); err != nil {
		return err
	}
	err := <-n.ended
	n.cmd = nil
	n.client.CloseIdleConnections()
	if _, killed := errors.AsType[*exec.ExitError](err); killed && sig == syscall.SIGKILL {
		return nil
	}
	return err
}

// restart ends the process with sig and starts it anew, hastily. It returns how long the start took.
func (n *node) restart(sig syscall.Signal) (ready time.Duration, err error) {
	if err := n.end(sig); err != nil {
		return 0, err
	}
	return n.start(hastily...)
}

// rows returns how many rows the node has, whatever the others have.
func (n *node) rows() (int, error) {
	text, err := n.post("/db/query?level=none", []string{"SELECT COUNT(*) FROM big"})
	if err != nil {
		return 0, err
	}
	var answer struct{ Results []struct{ Values [][]int } }
	if err := json.Unmarshal(text, &answer); err != nil {
		return 0, err
	}
	if len(answer.Results) != 1 || len(answer.Results[0].Values) != 1 || len(answer.Results[0].Values[0]) != 1 {
		return 0, fmt.Errorf("count rows: %s", text)
	}
	return answer.Results[0].Values[0][0], nil
}

func (n *node) peak() (int64, error) { return peakMemory(n.cmd.Process.Pid) }

// post sends a body and returns what comes back with status 200.
func (n *node) post(path string, body any) ([]byte, error) {
	data, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	resp, err := n.client.Post("http://"+n.http+path, "application/json", bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() // read to its end
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", path, resp.Status, text)
	}
	return text, err
}

// execute runs one statement.
func (n *node) execute(sql string) error {
	text, err := n.post("/db/execute", []string{sql})
	if err == nil && bytes.Contains(text, []byte(`"error"`)) {
		err = fmt.Errorf("%s: %s", sql, text)
	}
	return err
}

// snapshot takes a snapshot and leaves next to nothing in the log.
func (n *node) snapshot() error {
	_, err := n.post("/snapshot?trailing_logs=1", nil)
	return err
}
