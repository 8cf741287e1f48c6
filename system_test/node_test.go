package system

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// node is one data directory with its addresses and, while it runs, its process. Only the
// goroutine that runs the test starts and ends processes; requests may come from any.
type node struct {
	t        *testing.T
	id       string
	dir      string // data directory
	workDir  string // where its processes are started, and dir is given relative to; empty: dir is absolute
	logName  string // standard output and error of all its processes
	scheme   string // of the HTTP API
	httpAddr string
	raftAddr string
	flags    []string // beside the id and the addresses
	binary   string   // what it runs
	env      []string // beside the environment of the tests
	bare     bool     // its settings are all in env: it has no command line
	client   *http.Client
	proc     *process // nil until the first start
}

// process is a started rqlited. done is closed when it has ended; state is valid from then on.
type process struct {
	cmd   *exec.Cmd
	done  chan struct{}
	state *os.ProcessState

	awaited bool // the test knows that it has to end
}

// newNode prepares a node; nothing runs yet. Its addresses stay reserved until the test ends.
func newNode(t *testing.T, id string, flags ...string) *node {
	t.Helper()
	base := nodeBase(t, id)
	n := &node{
		t:        t,
		id:       id,
		dir:      filepath.Join(base, "data"),
		logName:  filepath.Join(base, "log"),
		scheme:   "http",
		httpAddr: reserveAddr(t),
		raftAddr: reserveAddr(t),
		flags:    flags,
		binary:   rqlited,
		client: &http.Client{
			Transport:     &http.Transport{MaxIdleConnsPerHost: 32},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
	t.Cleanup(n.cleanup)
	return n
}

// nodeBase makes an empty directory for all that a node leaves on disk.
func nodeBase(t *testing.T, id string) string {
	t.Helper()
	if *flagKeep == "" {
		return t.TempDir()
	}
	if err := os.MkdirAll(*flagKeep, 0o755); err != nil {
		t.Fatal(err)
	}
	base, err := os.MkdirTemp(*flagKeep, strings.ReplaceAll(t.Name(), "/", "_")+"-"+id+"-")
	if err != nil {
		t.Fatal(err)
	}
	return base
}

// reserveAddr returns a loopback address that nobody else is given until the test ends: a socket
// stays bound to it without listening. A node may listen there all the same, since both sides
// allow the reuse of addresses, while the kernel hands the port to no outgoing connection and to
// no other listener on port 0, also while the node is down.
func reserveAddr(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	syscall.CloseOnExec(fd)
	loopback := &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	if err := syscall.Bind(fd, loopback); err != nil { // to a port that nobody uses
		t.Fatal(err)
	}
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort("127.0.0.1", fmt.Sprint(name.(*syscall.SockaddrInet4).Port))
}

// args is the node's command line. Given flags come after the node's own, so that they win.
func (n *node) args(extra ...string) []string {
	if n.bare {
		return extra
	}
	args := []string{"-node-id", n.id, "-http-addr", n.httpAddr, "-raft-addr", n.raftAddr}
	args = append(args, n.flags...)
	args = append(args, extra...)
	dir := n.dir
	if n.workDir != "" {
		rel, err := filepath.Rel(n.workDir, n.dir)
		if err != nil {
			n.t.Fatal(err)
		}
		dir = rel
	}
	return append(args, dir)
}

// start runs the node with further flags that hold for this process only. It waits for nothing.
func (n *node) start(extra ...string) {
	n.t.Helper()
	if n.running() {
		n.t.Fatalf("%s runs already", n.id)
	}
	n.client.CloseIdleConnections()
	log, err := os.OpenFile(n.logName, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		n.t.Fatal(err)
	}
	defer log.Close()
	args := n.args(extra...)
	fmt.Fprintf(log, "=== %s %s rqlited %s\n", time.Now().Format(time.RFC3339Nano), strings.Join(n.env, " "), strings.Join(args, " "))
	cmd := exec.Command(n.binary, args...)
	cmd.Env = append(ownEnv(), n.env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir = n.workDir
	p := &process{cmd: cmd, done: make(chan struct{})}
	if err := spawn(cmd); err != nil {
		n.t.Fatalf("start %s: %v", n.id, err)
	}
	go func() {
		defer close(p.done)
		cmd.Wait() // the state says how it ended
		p.state = cmd.ProcessState
	}()
	n.proc = p
}

// ownEnv returns the environment of the tests without what rqlited would take for settings.
func ownEnv() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "RQLITED_") })
}

// spawn starts cmd so that it dies with the test process, even if that one crashes. The kernel
// ties this to the thread that forks, so the thread must live on: see spawner.
func spawn(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	failed := make(chan error)
	spawner <- func() { failed <- cmd.Start() }
	return <-failed
}

// spawner takes work to the one thread that starts all processes.
var spawner = func() chan<- func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread() // never unlocked: the thread lives as long as the test process
		for f := range work {
			f()
		}
	}()
	return work
}()

func (n *node) running() bool {
	if n.proc == nil {
		return false
	}
	select {
	case <-n.proc.done:
		return false
	default:
		return true
	}
}

func (n *node) signal(sig os.Signal) {
	n.t.Helper()
	if !n.running() {
		n.t.Fatalf("%s: does not run", n.id)
	}
	if err := n.proc.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		n.t.Fatalf("%s: send %s: %v", n.id, sig, err)
	}
}

// stop ends the node as an operator does and expects it to go in peace.
func (n *node) stop() {
	n.t.Helper()
	n.signal(syscall.SIGTERM)
	if code := n.wait(30 * time.Second); code != 0 {
		n.t.Fatalf("%s: exit code after SIGTERM = %d; want 0", n.id, code)
	}
}

// kill ends the node as a power cut does, but for the disk.
func (n *node) kill() {
	n.t.Helper()
	n.signal(syscall.SIGKILL)
	n.wait(10 * time.Second)
}

func (n *node) pause()  { n.t.Helper(); n.signal(syscall.SIGSTOP) }
func (n *node) resume() { n.t.Helper(); n.signal(syscall.SIGCONT) }

// wait waits for the end of the process and returns its exit code, -1 if a signal ended it.
func (n *node) wait(limit time.Duration) int {
	n.t.Helper()
	n.proc.awaited = true
	select {
	case <-n.proc.done:
		n.client.CloseIdleConnections()
		return n.proc.state.ExitCode()
	case <-time.After(limit):
		n.signal(syscall.SIGQUIT) // its goroutines say in the log what it was waiting for
		select {
		case <-n.proc.done:
		case <-time.After(2 * time.Second):
		}
		n.t.Fatalf("%s: still runs after %s", n.id, limit)
		return -1
	}
}

// alive returns an error that makes further waiting hopeless if the process has ended.
func (n *node) alive() error {
	if n.running() {
		return nil
	}
	if n.proc == nil {
		return hopelessError{fmt.Errorf("%s was never started", n.id)}
	}
	return hopelessError{fmt.Errorf("%s has ended: %s", n.id, n.proc.state)}
}

// log returns what the node's processes have written so far.
func (n *node) log() string {
	b, err := os.ReadFile(n.logName)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		n.t.Fatal(err)
	}
	return string(b)
}

// crashed matches what only a bug writes.
var crashed = regexp.MustCompile(`(?m)^(panic: |fatal error: |WARNING: DATA RACE).*`)

// cleanup ends what still runs, and shows the logs if the test failed.
func (n *node) cleanup() {
	if n.running() {
		n.proc.cmd.Process.Kill()
		<-n.proc.done
	} else if n.proc != nil && !n.proc.awaited {
		n.t.Errorf("%s has ended by itself: %s", n.id, n.proc.state)
	}
	n.client.CloseIdleConnections()
	log := n.log()
	if crash := crashed.FindString(log); crash != "" {
		n.t.Errorf("%s crashed: %s", n.id, crash)
	}
	if n.t.Failed() {
		n.t.Logf("log of %s, last part:\n%s", n.id, tail(log, 80))
	}
}

func tail(text string, lines int) string {
	all := bytes.SplitAfter([]byte(text), []byte("\n"))
	return string(bytes.Join(all[max(0, len(all)-lines):], nil))
}

// forgetDatabase removes the working database and the marker that lets a node keep it, so that
// the next start has to rebuild everything from snapshots and log.
func (n *node) forgetDatabase() {
	n.t.Helper()
	for _, pattern := range []string{"db.clean", "clean_snapshot", "db.sums*", "db.sqlite*"} {
		names, err := filepath.Glob(filepath.Join(n.dir, pattern))
		if err != nil {
			n.t.Fatal(err)
		}
		for _, name := range names {
			if err := os.Remove(name); err != nil {
				n.t.Fatal(err)
			}
		}
	}
}

// forgetAll removes the whole data directory.
func (n *node) forgetAll() {
	n.t.Helper()
	if err := os.RemoveAll(n.dir); err != nil {
		n.t.Fatal(err)
	}
}

// forgetMarker removes only the marker: what the next start finds is a database of which nobody
// knows what it is.
func (n *node) forgetMarker() {
	n.t.Helper()
	if err := os.Remove(filepath.Join(n.dir, "db.clean")); err != nil && !errors.Is(err, os.ErrNotExist) {
		n.t.Fatal(err)
	}
}
