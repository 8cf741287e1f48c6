package system

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// deed is what can happen to a file.
type deed string

const (
	appears deed = "appears" // is created, or renamed to this name, also over another file
	changes deed = "changes" // is written to or truncated
	goes    deed = "goes"    // is removed, or renamed away
)

// moment is something that happens to one of a node's files.
type moment struct {
	file string // pattern of path.Match; relative to the data directory
	what deed
}

func (m moment) String() string { return m.file + " " + string(m.what) }

// matches says whether other, which names one file, is a case of m.
func (m moment) matches(other moment) bool {
	ok, err := path.Match(m.file, other.file)
	return err == nil && ok && m.what == other.what
}

// watch tells what happens in a data directory the moment the kernel says so.
type watch struct {
	inotify *os.File
	dirs    map[int32]string // watch descriptor to directory, relative to the data directory
	done    sync.WaitGroup
}

// newWatch calls see, on a goroutine of its own, for each thing that happens from now on in the
// directories of a node's data that exist, until the watch is closed.
func newWatch(t *testing.T, dir string, see func(moment)) *watch {
	t.Helper()
	fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC | syscall.IN_NONBLOCK)
	if err != nil {
		t.Fatalf("inotify: %v", err)
	}
	w := &watch{inotify: os.NewFile(uintptr(fd), "inotify"), dirs: map[int32]string{}}
	const mask = syscall.IN_CREATE | syscall.IN_MOVED_TO | syscall.IN_MODIFY | syscall.IN_DELETE | syscall.IN_MOVED_FROM
	for _, sub := range []string{"", "snapshots", "raft"} {
		wd, err := syscall.InotifyAddWatch(fd, filepath.Join(dir, sub), mask)
		if err != nil && (sub == "" || !errors.Is(err, fs.ErrNotExist)) {
			t.Fatalf("watch %s: %v", filepath.Join(dir, sub), err)
		}
		if err == nil {
			w.dirs[int32(wd)] = sub
		}
	}
	w.done.Go(func() { w.read(see) })
	return w
}

// read decodes what the kernel reports.
func (w *watch) read(see func(moment)) {
	buf := make([]byte, 64<<10)
	for {
		n, err := w.inotify.Read(buf)
		if err != nil {
			return // closed
		}
		for rest := buf[:n]; len(rest) >= syscall.SizeofInotifyEvent; {
			wd := int32(binary.NativeEndian.Uint32(rest))
			mask := binary.NativeEndian.Uint32(rest[4:])
			end := syscall.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(rest[12:]))
			name := string(bytes.TrimRight(rest[syscall.SizeofInotifyEvent:end], "\x00"))
			rest = rest[end:]
			m := moment{file: path.Join(w.dirs[wd], name)}
			switch {
			case mask&(syscall.IN_CREATE|syscall.IN_MOVED_TO) != 0:
				m.what = appears
			case mask&syscall.IN_MODIFY != 0:
				m.what = changes
			case mask&(syscall.IN_DELETE|syscall.IN_MOVED_FROM) != 0:
				m.what = goes
			default:
				continue // the kernel's own: a queue that has run over, a watch that has ended
			}
			see(m)
		}
	}
}

func (w *watch) close() {
	w.inotify.Close()
	w.done.Wait()
}

// trap sends a signal to a node's process when a moment has come.
type trap struct {
	at     moment
	watch  *watch
	prey   chan *process
	struck chan struct{} // closed when the signal has been sent
	once   sync.Once
}

// blow says what a trap does: which signal it sends, how long after the moment, and how often it
// lets the moment pass before.
type blow struct {
	signal syscall.Signal
	skip   int
	lag    time.Duration
}

// trap lays a trap for the running process.
func (n *node) trap(at moment, how blow) *trap {
	n.t.Helper()
	tr := n.lay(at, how)
	tr.prey <- n.proc
	return tr
}

// startInto starts the node with a trap laid for it.
func (n *node) startInto(at moment, how blow) *trap {
	n.t.Helper()
	tr := n.lay(at, how)
	n.start()
	tr.prey <- n.proc
	return tr
}

func (n *node) lay(at moment, how blow) *trap {
	n.t.Helper()
	tr := &trap{at: at, prey: make(chan *process, 1), struck: make(chan struct{})}
	tr.watch = newWatch(n.t, n.dir, func(m moment) {
		if !at.matches(m) {
			return
		}
		if how.skip--; how.skip < 0 {
			tr.once.Do(func() { tr.spring(how) })
		}
	})
	n.t.Cleanup(func() { tr.watch.inotify.Close() }) // also when the test gives up half-way
	return tr
}

func (tr *trap) spring(how blow) {
	p := <-tr.prey
	if how.lag > 0 {
		<-time.After(how.lag)
	}
	select {
	case <-p.done: // it has ended by itself
	default:
		if p.cmd.Process.Signal(how.signal) == nil {
			close(tr.struck)
		}
	}
}

// sprung reports whether the trap has struck.
func (tr *trap) sprung() bool {
	select {
	case <-tr.struck:
		return true
	default:
		return false
	}
}

// await calls provoke until the trap has struck, and reports whether it has. It gives up at the
// limit, or when provoke returns nil, which means that the moment will not come any more.
func (tr *trap) await(limit time.Duration, provoke func() error) bool {
	poll(limit, time.Millisecond, func() error {
		if tr.sprung() {
			return nil
		}
		return provoke()
	})
	tr.once.Do(func() {}) // from now on it strikes no more
	tr.watch.close()
	return tr.sprung()
}
