package store

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"rqlited/internal/vfs"
	"rqlited/internal/vfs/crashfs"
)

var (
	errCut  = errors.New("killed")
	errDisk = errors.New("disk error")
)

// disk is the data directory of a node under test. It counts what is changed in it, also in raft.db,
// and can end or fail at any of these operations. SQLite and bbolt need a real directory; snapshots
// and marker are in memory, on a disk that loses what was not synced.
type disk struct {
	dir string
	mem *crashfs.FS

	mu     sync.Mutex // guards what follows
	left   int        // operations until the process is killed; negative: it is not
	dead   bool
	failIn int // operations until one fails; negative: none does
	sticky bool
	failed int
	trace  []string
}

// inMemory are the names that are on the disk in memory.
var inMemory = []string{snapshotsDir, "db.clean", "db.sums"}

func newDisk(t *testing.T) *disk {
	t.Helper()
	d := &disk{dir: quickDir(t), mem: crashfs.New(), left: -1, failIn: -1}
	if err := errors.Join(d.mem.MkdirAll("/data"), d.mem.SyncDir("/"), os.Mkdir(filepath.Join(d.dir, raftDir), 0o700)); err != nil {
		t.Fatal(err)
	}
	return d
}

// quickDir returns a directory in memory, if the system has one: bbolt syncs a lot.
func quickDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "rqlited-*")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// survival says what the next process finds of what was not synced.
type survival int

const (
	all  survival = iota // the process was killed, the machine goes on
	none                 // the power was cut
	some                 // the power was cut while the disk was writing back
)

func (s survival) String() string {
	return [...]string{"all survives", "what was synced survives", "some survives"}[s]
}

// after returns the disk as the next process finds it. Files outside the disk in memory are all there.
func (d *disk) after(t *testing.T, how survival, seed uint64) *disk {
	t.Helper()
	next := &disk{dir: quickDir(t), left: -1, failIn: -1}
	switch how {
	case all:
		next.mem = d.mem.Kill()
	case none:
		next.mem = d.mem.Restart()
	case some:
		next.mem = d.mem.RestartRandom(seed)
	}
	d.walk(t, func(name string, info fs.FileInfo, data []byte) {
		at := filepath.Join(next.dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o700), os.WriteFile(at, data, 0o600),
			os.Chtimes(at, time.Time{}, info.ModTime())); err != nil { // the marker knows that time
			t.Fatal(err)
		}
	})
	return next
}

// walk calls f for each file that is not in memory.
func (d *disk) walk(t *testing.T, f func(name string, info fs.FileInfo, data []byte)) {
	t.Helper()
	err := filepath.Walk(d.dir, func(name string, info fs.FileInfo, err error) error {
		if err != nil || !info.Mode().IsRegular() {
			return err
		}
		data, err := os.ReadFile(name)
		if err == nil {
			f(d.rel(name), info, data)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// modTime is the part of a marker that no two runs have in common.
var modTime = regexp.MustCompile(`"mod_time":"[^"]*"`)

// state identifies what a process would find. Whether that is durable makes no difference to it, nor
// does the content of files that it deletes unread: what MANIFEST does not name, and the database if
// there is no marker.
func (d *disk) state(t *testing.T) string {
	t.Helper()
	h := sha256.New()
	add := func(name string, data []byte) {
		fmt.Fprintln(h, name, len(data))
		h.Write(data)
	}
	mem := map[string][]byte{}
	d.visitMem(t, "/data", mem)
	manifest, marked := mem["/data/"+snapshotsDir+"/MANIFEST"], mem["/data/db.clean"] != nil
	for _, name := range slices.Sorted(maps.Keys(mem)) {
		data, base := mem[name], path.Base(name)
		switch {
		case strings.HasSuffix(base, ".tmp"),
			!marked && base == "db.sums",
			strings.HasSuffix(path.Dir(name), snapshotsDir) && base != "MANIFEST" && !bytes.Contains(manifest, []byte(base)):
			data = nil
		}
		add(name, modTime.ReplaceAll(data, nil))
	}
	d.walk(t, func(name string, _ fs.FileInfo, data []byte) {
		if name == restoreFile || !marked && strings.HasPrefix(name, dbFile) {
			data = nil
		}
		add(name, data)
	})
	return string(h.Sum(nil))
}

// visitMem adds the files below dir to files.
func (d *disk) visitMem(t *testing.T, dir string, files map[string][]byte) {
	t.Helper()
	names, err := d.mem.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		name := dir + "/" + n
		if info, err := d.mem.Stat(name); err == nil && info.Dir {
			d.visitMem(t, name, files)
		} else {
			files[name] = d.readMem(t, name)
		}
	}
}

// readMem reads a file of the disk in memory.
func (d *disk) readMem(t *testing.T, name string) []byte {
	t.Helper()
	f, err := d.mem.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(f)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return data
}

// kill lets n more operations happen; what follows does not.
func (d *disk) kill(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.left = n
}

// fail makes the operation after n more fail, and if sticky all that follow.
func (d *disk) fail(n int, sticky bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failIn, d.sticky, d.failed = n, sticky, 0
}

// killed reports whether the process has been killed.
func (d *disk) killed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.dead
}

// failures returns how many operations have failed since fail was called.
func (d *disk) failures() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.failed
}

// operations returns what was done.
func (d *disk) operations() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Join(d.trace, "\n") + "\n"
}

// allow is called before each operation.
func (d *disk) allow(op ...string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dead || d.left == 0 {
		d.dead = true
		return errCut
	}
	if d.failIn == 0 {
		if !d.sticky {
			d.failIn = -1
		}
		d.failed++
		return errDisk
	}
	if d.failIn > 0 {
		d.failIn--
	}
	if d.left > 0 {
		d.left--
	}
	line := fmt.Sprintf("%-7s %s", op[0], strings.Join(op[1:], " "))
	if op[0] != "write" || len(d.trace) == 0 || d.trace[len(d.trace)-1] != line {
		d.trace = append(d.trace, line)
	}
	return nil
}

func (d *disk) logStep(name string) error { return d.allow("log", name) }

// rel returns name relative to the directory.
func (d *disk) rel(name string) string {
	rel, err := filepath.Rel(d.dir, name)
	if err != nil || strings.HasPrefix(rel, "..") {
		return name
	}
	return filepath.ToSlash(rel)
}

// on returns the file system that name is on, and its name there.
func (d *disk) on(name string) (vfs.FS, string) {
	rel := d.rel(name)
	if slices.ContainsFunc(inMemory, func(p string) bool { return strings.HasPrefix(rel, p) }) {
		return d.mem, "/data/" + rel
	}
	return vfs.OS, name
}

func (d *disk) Open(name string) (vfs.File, error) {
	fsys, at := d.on(name)
	f, err := fsys.Open(at)
	if err != nil {
		return nil, err
	}
	return &diskFile{f, d, d.rel(name)}, nil
}

func (d *disk) Create(name string) (vfs.File, error) {
	if err := d.allow("create", d.rel(name)); err != nil {
		return nil, err
	}
	fsys, at := d.on(name)
	f, err := fsys.Create(at)
	if err != nil {
		return nil, err
	}
	return &diskFile{f, d, d.rel(name)}, nil
}

func (d *disk) Rename(from, to string) error {
	if err := d.allow("rename", d.rel(from), d.rel(to)); err != nil {
		return err
	}
	fsys, from := d.on(from)
	_, to = d.on(to)
	return fsys.Rename(from, to)
}

func (d *disk) Remove(name string) error {
	if _, err := d.Stat(name); errors.Is(err, fs.ErrNotExist) {
		return err // nothing changes
	}
	if err := d.allow("remove", d.rel(name)); err != nil {
		return err
	}
	fsys, at := d.on(name)
	return fsys.Remove(at)
}

func (d *disk) MkdirAll(name string) error {
	if _, err := d.Stat(name); err == nil {
		return nil
	}
	if err := d.allow("mkdir", d.rel(name)); err != nil {
		return err
	}
	fsys, at := d.on(name)
	return fsys.MkdirAll(at)
}

func (d *disk) ReadDir(name string) ([]string, error) {
	fsys, at := d.on(name)
	names, err := fsys.ReadDir(at)
	if err != nil || d.rel(name) != "." {
		return names, err
	}
	more, err := d.mem.ReadDir("/data")
	set := map[string]bool{}
	for _, n := range append(names, more...) {
		set[n] = true
	}
	return slices.Sorted(maps.Keys(set)), err
}

func (d *disk) Stat(name string) (vfs.FileInfo, error) {
	fsys, at := d.on(name)
	return fsys.Stat(at)
}

func (d *disk) SyncDir(name string) error {
	if err := d.allow("syncdir", d.rel(name)); err != nil {
		return err
	}
	if d.rel(name) == "." {
		return d.mem.SyncDir("/data")
	}
	if fsys, at := d.on(name); fsys == d.mem {
		return fsys.SyncDir(at)
	}
	return nil // what is not in memory survives anyway
}

// diskFile is an open file.
type diskFile struct {
	vfs.File
	disk *disk
	name string
}

func (f *diskFile) Write(p []byte) (int, error) {
	if err := f.disk.allow("write", f.name); err != nil {
		n, _ := f.File.Write(p[:len(p)/2]) // it stops anywhere
		return n, err
	}
	return f.File.Write(p)
}

func (f *diskFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.disk.allow("write", f.name); err != nil {
		n, _ := f.File.WriteAt(p[:len(p)/2], off)
		return n, err
	}
	return f.File.WriteAt(p, off)
}

func (f *diskFile) Sync() error {
	if err := f.disk.allow("sync", f.name); err != nil {
		return err
	}
	if fsys, _ := f.disk.on(filepath.Join(f.disk.dir, f.name)); fsys == f.disk.mem {
		return f.File.Sync()
	}
	return nil
}
