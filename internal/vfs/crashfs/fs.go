package crashfs

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"rqlited/internal/vfs"
)

// ErrPowerLost is what every operation returns once the power is gone.
var ErrPowerLost = errors.New("crashfs: power lost")

// FS is a file system in memory. Its root always exists, and relative names start there. It is
// safe for concurrent use.
type FS struct {
	mu     sync.Mutex
	root   *dir
	ticks  int64 // stands for the clock in modification times
	frozen []string
	trace  []string

	off     bool // the power is gone
	left    int  // changing operations until it goes; negative: it stays
	failIn  int  // operations until one fails; negative: none does
	failErr error
	sticky  bool
	failed  int // operations that have failed since FailAt

	capacity int64 // bytes that fit on the disk; negative: any number
	used     int64 // bytes on it
	clones   bool  // Clone works
	windows  bool  // the rules of NewWindows hold
}

// dir is a directory: the names everybody sees, and those that would survive a power cut. A node
// is a *dir or a *file.
type dir struct {
	names   map[string]any
	durable map[string]any
}

func newDir() *dir { return &dir{names: map[string]any{}, durable: map[string]any{}} }

// New returns an empty file system.
func New() *FS { return &FS{root: newDir(), left: -1, failIn: -1, capacity: -1} }

// CrashAfter cuts the power after op more operations that change something; CrashAfter(0) lets
// none happen. Reading and closing do not count, for they leave the disk as it is.
func (f *FS) CrashAfter(op int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.left = op
}

// FailAt lets op more operations of any kind succeed and makes the next one fail with err; if
// sticky, also all that follow, until FailAt is called again. A negative op stops all failing. A
// write that fails may have written its first half; every other failed operation did nothing.
func (f *FS) FailAt(op int, err error, sticky bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failIn, f.failErr, f.sticky, f.failed = op, err, sticky, 0
}

// Failed returns how many operations have failed as FailAt wanted, since it was called.
func (f *FS) Failed() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failed
}

// Freeze declares files whose base name matches one of the glob patterns as unchangeable once they
// have been synced and then closed, by a crash if need be, or renamed so as to match: writing to
// them, cloning into them, creating them anew, renaming them and renaming something onto them panics
// from then on, also after a restart. They may be removed, and set aside under their own name with
// something behind a further dot.
func (f *FS) Freeze(patterns ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.frozen = append(f.frozen, patterns...)
}

// Trace returns the operations that changed something since the last call of Trace. Repeated
// writes to one file are one line.
func (f *FS) Trace() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.trace
	f.trace = nil
	return t
}

// allow is called before every operation, with mu held, and decides whether it takes place. An
// operation that changes the disk passes its name and operands for the trace.
func (f *FS) allow(change ...string) error {
	if f.off {
		return ErrPowerLost
	}
	if len(change) > 0 && f.left == 0 {
		f.off = true
		return ErrPowerLost
	}
	if f.failIn == 0 {
		if !f.sticky {
			f.failIn = -1
		}
		f.failed++
		return f.failErr
	}
	if f.failIn > 0 {
		f.failIn--
	}
	if len(change) > 0 {
		if f.left > 0 {
			f.left--
		}
		f.ticks++
		line := fmt.Sprintf("%-7s %s", change[0], strings.Join(change[1:], " "))
		if change[0] != "write" || len(f.trace) == 0 || f.trace[len(f.trace)-1] != line {
			f.trace = append(f.trace, line)
		}
	}
	return nil
}

// walk returns the node that name stands for.
func (f *FS) walk(op, name string) (any, error) {
	var n any = f.root
	for elem := range strings.SplitSeq(clean(name), "/") {
		if elem == "" {
			continue
		}
		d, ok := n.(*dir)
		if !ok || d.names[elem] == nil {
			return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
		}
		n = d.names[elem]
	}
	return n, nil
}

// clean turns any name into an absolute one.
func clean(name string) string { return path.Clean("/" + filepath.ToSlash(name)) }

// parent returns the directory that holds name, and the last element of name.
func (f *FS) parent(op, name string) (*dir, string, error) {
	p := clean(name)
	n, err := f.walk(op, path.Dir(p))
	if err != nil {
		return nil, "", &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
	}
	d, ok := n.(*dir)
	if !ok {
		return nil, "", &fs.PathError{Op: op, Path: name, Err: errors.New("not a directory")}
	}
	return d, path.Base(p), nil
}

// Open implements vfs.FS.
func (f *FS) Open(name string) (vfs.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.allow(); err != nil {
		return nil, err
	}
	n, err := f.walk("open", name)
	if err != nil {
		return nil, err
	}
	file, ok := n.(*file)
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: errors.New("is a directory")}
	}
	return f.handle(file, name, true), nil
}

// Create implements vfs.FS.
func (f *FS) Create(name string) (vfs.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.allow("create", name); err != nil {
		return nil, err
	}
	d, base, err := f.parent("create", name)
	if err != nil {
		return nil, err
	}
	switch n := d.names[base].(type) {
	case *dir:
		return nil, &fs.PathError{Op: "create", Path: name, Err: errors.New("is a directory")}
	case *file:
		n.mustChange("create", name)
		f.change(n, func() { n.data, n.shared = nil, 0 })
		n.lost = false // the pages that a failed Sync has dropped are gone from the file
		return f.handle(n, name, false), nil
	}
	n := &file{links: 1, mod: f.ticks, dirty: true}
	d.names[base] = n
	return f.handle(n, name, false), nil
}

// handle opens a file.
func (f *FS) handle(n *file, name string, readOnly bool) *handle {
	n.opens++
	return &handle{fs: f, file: n, name: name, readOnly: readOnly}
}

// Rename implements vfs.FS.
func (f *FS) Rename(oldname, newname string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.allow("rename", oldname, newname); err != nil {
		return err
	}
	from, oldBase, err := f.parent("rename", oldname)
	if err != nil {
		return err
	}
	to, newBase, err := f.parent("rename", newname)
	if err != nil {
		return err
	}
	n := from.names[oldBase]
	if n == nil {
		return &fs.PathError{Op: "rename", Path: oldname, Err: fs.ErrNotExist}
	}
	target := to.names[newBase]
	if err := errors.Join(f.idle("rename", oldname, n), f.idle("rename", newname, target)); err != nil {
		return err
	}
	if err := f.replace(n, target, oldname, newname); err != nil {
		return err
	}
	delete(from.names, oldBase)
	to.names[newBase] = n
	f.flushJournal()
	return nil
}

// replace prepares the rename of the node n onto target, which may be nil.
func (f *FS) replace(n, target any, oldname, newname string) error {
	moved, isFile := n.(*file)
	switch target := target.(type) {
	case *dir:
		return &fs.PathError{Op: "rename", Path: newname, Err: errors.New("is a directory")}
	case *file:
		if !isFile {
			return &fs.PathError{Op: "rename", Path: newname, Err: errors.New("not a directory")}
		}
		if target == moved {
			return nil
		}
		target.mustChange("rename onto", newname)
		target.links--
		f.release(target)
	}
	if isFile {
		if !strings.HasPrefix(clean(newname), clean(oldname)+".") {
			moved.mustChange("rename", oldname)
		}
		f.freeze(moved, newname)
	}
	return nil
}

// Remove implements vfs.FS.
func (f *FS) Remove(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.allow("remove", name); err != nil {
		return err
	}
	d, base, err := f.parent("remove", name)
	if err != nil {
		return err
	}
	if err := f.idle("remove", name, d.names[base]); err != nil {
		return err
	}
	switch n := d.names[base].(type) {
	case nil:
		return &fs.PathError{Op: "remove", Path: name, Err: fs.ErrNotExist}
	case *dir:
		if len(n.names) > 0 {
			return &fs.PathError{Op: "remove", Path: name, Err: errors.New("directory not empty")}
		}
	case *file:
		n.links--
		f.release(n)
	}
	delete(d.names, base)
	return nil
}

// MkdirAll implements vfs.FS.
func (f *FS) MkdirAll(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n, err := f.walk("mkdir", name); err == nil && !f.off {
		if _, ok := n.(*dir); ok {
			return f.allow() // it is there: nothing changes
		}
	}
	if err := f.allow("mkdir", name); err != nil {
		return err
	}
	d := f.root
	for elem := range strings.SplitSeq(clean(name), "/") {
		if elem == "" {
			continue
		}
		switch n := d.names[elem].(type) {
		case nil:
			sub := newDir()
			d.names[elem] = sub
			d = sub
		case *dir:
			d = n
		default:
			return &fs.PathError{Op: "mkdir", Path: name, Err: errors.New("not a directory")}
		}
	}
	return nil
}

// ReadDir implements vfs.FS.
func (f *FS) ReadDir(name string) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.allow(); err != nil {
		return nil, err
	}
	d, err := f.dir("readdir", name)
	if err != nil {
		return nil, err
	}
	return slices.Sorted(maps.Keys(d.names)), nil
}

// dir returns the directory name.
func (f *FS) dir(op, name string) (*dir, error) {
	n, err := f.walk(op, name)
	if err != nil {
		return nil, err
	}
	d, ok := n.(*dir)
	if !ok {
		return nil, &fs.PathError{Op: op, Path: name, Err: errors.New("not a directory")}
	}
	return d, nil
}

// Stat implements vfs.FS.
func (f *FS) Stat(name string) (vfs.FileInfo, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.allow(); err != nil {
		return vfs.FileInfo{}, err
	}
	n, err := f.walk("stat", name)
	if err != nil {
		return vfs.FileInfo{}, err
	}
	if file, ok := n.(*file); ok {
		return vfs.FileInfo{Size: int64(len(file.data)), ModTime: time.Unix(file.mod, 0)}, nil
	}
	return vfs.FileInfo{Dir: true}, nil
}

// SyncDir implements vfs.FS. After a failed SyncDir the names are still waiting to be synced, and so
// they are on Windows after one that succeeded.
func (f *FS) SyncDir(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.allow("syncdir", name); err != nil {
		return err
	}
	if f.windows {
		return nil
	}
	d, err := f.dir("syncdir", name)
	if err != nil {
		return err
	}
	d.durable = maps.Clone(d.names)
	return nil
}
