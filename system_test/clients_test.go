package system

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

var flagClients = flag.String("clients", "", "also run rqlite-js, from this `directory`, which make clients fills; relative to the module root")

// clientPrograms use a cluster through rqlite's client libraries, each in what is ordinary for it.
var clientPrograms = []struct {
	name    string
	command func(t *testing.T) *exec.Cmd
	all     bool // is told the addresses of all nodes, not of one follower
}{
	{name: "gorqlite", command: gorqliteProgram},
	{name: "rqlite-js", command: jsProgram, all: true},
}

func gorqliteProgram(t *testing.T) *exec.Cmd {
	program := filepath.Join(t.TempDir(), "gorqlite")
	if err := build("..", "./system_test/clients/gorqlite", program); err != nil {
		t.Fatal(err)
	}
	return exec.Command(program)
}

func jsProgram(t *testing.T) *exec.Cmd {
	if *flagClients == "" {
		t.Skip("needs packages from the network: make clients")
	}
	cmd := exec.Command("node", "./rqlite-js/main.js")
	cmd.Dir = filepath.Join("..", *flagClients)
	return cmd
}

// TestClients runs rqlite's own client libraries against a cluster whose leader is killed while they write, and
// counts what they were told is written. What they send has to be what TestRecorded plays.
func TestClients(t *testing.T) {
	t.Parallel()
	for _, p := range clientPrograms {
		t.Run(p.name, func(t *testing.T) {
			cmd := p.command(t)
			s := newStage(t)
			s.direct("nodes 3")
			leader, follower := s.nodes[0], s.nodes[1]
			if p.all {
				cmd.Args = append(cmd.Args, leader.httpAddr, follower.httpAddr, s.nodes[2].httpAddr)
			} else {
				cmd.Args = append(cmd.Args, follower.httpAddr)
			}
			requests, acknowledged := s.converse(cmd)

			var want []string
			for _, x := range readTranscript(t, "testdata/clients/"+p.name+".txt") {
				if x.direction == "" {
					want = append(want, x.name())
				}
			}
			if !slices.Equal(requests, want) {
				t.Errorf("it sends\n%s\nTestRecorded plays\n%s", strings.Join(requests, "\n"), strings.Join(want, "\n"))
			}
			leader.start()
			s.nodes.waitReady()
			s.nodes.expectAcked(acknowledged)
		})
	}
}

// converse runs a client program to its end, kills the leader when it says so, and returns the requests that it
// tells of and the keys that were acknowledged.
func (s *stage) converse(cmd *exec.Cmd) (requests, acknowledged []string) {
	s.t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	var faults strings.Builder
	cmd.Stderr = &faults
	if err := spawn(cmd); err != nil {
		s.t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		word, rest, _ := strings.Cut(lines.Text(), " ")
		switch word {
		case "request":
			requests = append(requests, strings.Replace(s.shown.Replace(rest), " localhost:4001", " ", 1))
		case "kill":
			s.nodes[0].kill()
			if _, err := io.WriteString(in, "killed\n"); err != nil {
				s.t.Error(err)
			}
		case "acknowledged":
			acknowledged = append(acknowledged, rest)
		default:
			s.t.Errorf("it says %q", lines.Text())
		}
	}
	if err := cmd.Wait(); err != nil || lines.Err() != nil {
		s.t.Fatalf("%v, %v\n%s", err, lines.Err(), faults.String())
	}
	return requests, acknowledged
}

// expectAcked checks that all nodes have the rows that were acknowledged, of a table whose keys the clients choose
// so that none can be there twice.
func (c cluster) expectAcked(acknowledged []string) {
	c[0].t.Helper()
	rows := c.equal()["acked"]
	there := map[string]bool{}
	for _, row := range rows {
		_, quoted, _ := strings.Cut(row, "|")
		there[quoted] = true
	}
	for _, key := range acknowledged {
		if !there[key] {
			c[0].t.Errorf("row %s was acknowledged and is not there", key)
		}
	}
	if len(acknowledged) < 200 {
		c[0].t.Errorf("only %d rows were acknowledged", len(acknowledged))
	}
	c[0].t.Logf("%d rows acknowledged, %d there", len(acknowledged), len(rows))
}

// TestRecorded plays what rqlite's client libraries send, as TestClients has seen it.
func TestRecorded(t *testing.T) {
	t.Parallel()
	playTranscripts(t, "testdata/clients")
}

// resender is what a client library does to have a write reach a cluster of which nodes fail.
type resender struct {
	path    string
	refused []int // statuses with which it goes on to the next node; empty: all but 200
	retries int   // how often it goes on
}

var resenders = map[string]resender{
	"gorqlite":  {path: "/db/execute?timings&level=weak&transaction", retries: 2},
	"rqlite-js": {path: "/db/execute", refused: []int{408, 413, 429, 500, 502, 503, 504, 521, 522, 524}, retries: 9},
}

// TestResending writes as rqlite's client libraries do while the leader is killed: they ask one node after the other
// until one does not refuse. Whatever is acknowledged has to be there.
func TestResending(t *testing.T) {
	t.Parallel()
	for name, r := range resenders {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			s.direct("nodes 3")
			s.nodes[0].execute("CREATE TABLE acked (id INTEGER NOT NULL PRIMARY KEY)")

			var mu sync.Mutex
			var acknowledged []string
			count := func() int {
				mu.Lock()
				defer mu.Unlock()
				return len(acknowledged)
			}
			ctx, stop := context.WithCancel(context.Background())
			var writers sync.WaitGroup
			for writer := range 3 {
				writers.Go(func() {
					for key := (writer + 1) * 1_000_000; ctx.Err() == nil; key++ {
						if r.write(s.nodes, key) {
							mu.Lock()
							acknowledged = append(acknowledged, strconv.Itoa(key))
							mu.Unlock()
						}
					}
				})
			}
			more := func(n int) {
				enough := count() + n
				_, err := poll(formLimit, pollEvery, func() error {
					if got := count(); got < enough {
						return fmt.Errorf("%d of %d rows are acknowledged", got, enough)
					}
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			}
			more(100)
			s.nodes[0].kill()
			more(200)
			stop()
			writers.Wait()
			s.nodes[0].start()
			s.nodes.waitReady()
			s.nodes.expectAcked(acknowledged)
		})
	}
}

// write reports whether the row is known to be written.
func (r resender) write(nodes cluster, key int) bool {
	for attempt := range r.retries + 1 {
		if attempt >= len(nodes) {
			time.Sleep(100 * time.Millisecond) // it has tried all
		}
		body := fmt.Sprintf(`[["INSERT INTO acked VALUES (?)",%d]]`, key)
		a, err := nodes[attempt%len(nodes)].do(requestLimit, http.MethodPost, r.path, "application/json", body)
		if err != nil || slices.Contains(r.refused, a.status) || r.refused == nil && a.status != http.StatusOK {
			continue
		}
		return a.status == http.StatusOK && strings.Contains(a.body, `"rows_affected":1`) && !strings.Contains(a.body, `"error"`)
	}
	return false
}
