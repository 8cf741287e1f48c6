package db

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"rqlited/internal/vfs"
	"rqlited/internal/vfs/crashfs"
)

// mirror is the real disk, since SQLite opens its files there, with a copy on one that loses power.
// Each operation of this package happens on both. What SQLite writes to the main file reaches the
// copy before the next operation, unsynced; its WAL, which nobody syncs, is found after a cut or
// not. The real disk is not synced, which would only take time.
type mirror struct {
	vfs.FS
	dir   string
	copy  *crashfs.FS
	main  []byte              // what the copy has as the main file
	made  map[string]vfs.File // what was created on the copy, by its name now; stays open, to be synced
	wal   []byte              // the last WAL that was seen
	trace []string

	left int  // changing operations until the power is cut; negative: never
	cut  bool // an operation was refused for that

	failIn  int // operations, reading ones too, until one fails; negative: none does
	failErr error
	forever bool
	failed  int // operations that have failed
}

// newMirror returns a mirror of dir that loses power after so many changing operations; negative:
// never.
func newMirror(dir string, left int) *mirror {
	return &mirror{FS: vfs.OS, dir: dir, copy: crashfs.New(), made: map[string]vfs.File{}, left: left, failIn: -1}
}

// memoryDir returns a directory in memory if there is enough, for nothing in it has to last: ext4 takes long to find an
// inode for a new file when many files have just been deleted.
func memoryDir(t testing.TB) string {
	t.Helper()
	const memory = "/dev/shm"
	var st syscall.Statfs_t
	if err := syscall.Statfs(memory, &st); err != nil || st.Bavail*uint64(st.Bsize) < 1<<30 {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp(memory, "rqlited-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func (m *mirror) path() string { return filepath.Join(m.dir, "db.sqlite") }

func (m *mirror) name(name string) string {
	return "/" + strings.TrimPrefix(strings.TrimPrefix(name, m.dir), "/")
}

// remount makes a real disk of what a power cut has left of another.
func remount(t testing.TB, disk *crashfs.FS, wal []byte) *mirror {
	t.Helper()
	m := newMirror(memoryDir(t), -1)
	m.copy = disk
	names, err := disk.ReadDir("/")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		f, err := disk.Open("/" + name)
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(f)
		if err = errors.Join(err, f.Close(), os.WriteFile(filepath.Join(m.dir, name), data, 0o600)); err != nil {
			t.Fatal(err)
		}
		if name == "db.sqlite" {
			m.main = data
		}
	}
	if wal != nil {
		if err := os.WriteFile(m.path()+"-wal", wal, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m.matchTime(t)
	return m
}

// matchTime gives the main file the time that the marker wants: the harder case.
func (m *mirror) matchTime(t testing.TB) {
	t.Helper()
	mk, err := readMarker(vfs.OS, m.path())
	if err == nil && m.main != nil {
		if err := os.Chtimes(m.path(), time.Time{}, mk.ModTime); err != nil {
			t.Fatal(err)
		}
	}
}

// op lets an operation happen on both disks, on none, or fail. Reading ones have no trace.
func (m *mirror) op(trace string, real, copied func() error) error {
	if trace != "" {
		if err := m.follow(); err != nil {
			return err
		}
	}
	if m.failIn >= 0 {
		if m.failIn > 0 {
			m.failIn--
		} else {
			m.failed++
			if !m.forever {
				m.failIn = -1
			}
			return m.failErr
		}
	}
	if m.left == 0 {
		m.cut = true
		return crashfs.ErrPowerLost
	}
	if trace != "" {
		m.trace = append(m.trace, trace)
		m.left--
	}
	if err := real(); err != nil {
		return err
	}
	return copied()
}

// hurt says whether an operation was refused or has failed.
func (m *mirror) hurt() bool { return m.cut || m.failed > 0 }

// follow takes over what SQLite has written until the power was cut.
func (m *mirror) follow() error {
	if m.cut {
		return nil
	}
	if wal, err := os.ReadFile(m.path() + "-wal"); err == nil && len(wal) > 0 {
		m.wal = wal
	}
	data, err := os.ReadFile(m.path())
	if err != nil || bytes.Equal(data, m.main) {
		return nil
	}
	m.trace = append(m.trace, "(main file changed)")
	f := m.made["/db.sqlite"]
	if f == nil || len(data) < len(m.main) {
		if f, err = m.copy.Create("/db.sqlite"); err != nil {
			return err
		}
		m.main, m.made["/db.sqlite"] = nil, f
	}
	for off := 0; off < len(data); off += walMinPage {
		end := min(off+walMinPage, len(data))
		if end <= len(m.main) && bytes.Equal(data[off:end], m.main[off:end]) {
			continue
		}
		if _, err := f.WriteAt(data[off:end], int64(off)); err != nil {
			return err
		}
	}
	m.main = data
	return nil
}

func nothing() error { return nil }

func (m *mirror) Create(name string) (vfs.File, error) {
	f := &mirrorFile{m: m, name: m.name(name)}
	err := m.op("create "+f.name,
		func() (err error) { f.File, err = m.FS.Create(name); return err },
		func() (err error) { f.copy, err = m.copy.Create(f.name); return err })
	if err != nil {
		return nil, err
	}
	m.made[f.name] = f.copy
	return f, nil
}

func (m *mirror) Open(name string) (vfs.File, error) {
	f := &mirrorFile{m: m, name: m.name(name)}
	if err := m.op("", func() (err error) { f.File, err = m.FS.Open(name); return err }, nothing); err != nil {
		return nil, err
	}
	return f, nil
}

func (m *mirror) Stat(name string) (info vfs.FileInfo, err error) {
	err = m.op("", func() (err error) { info, err = m.FS.Stat(name); return err }, nothing)
	return info, err
}

func (m *mirror) ReadDir(name string) (names []string, err error) {
	err = m.op("", func() (err error) { names, err = m.FS.ReadDir(name); return err }, nothing)
	return names, err
}

func (m *mirror) Rename(from, to string) error {
	return m.op("rename "+m.name(from)+" "+m.name(to), func() error { return m.FS.Rename(from, to) }, func() error {
		if to == m.path() {
			data, err := os.ReadFile(to)
			if err != nil {
				return err
			}
			m.main = data // another file, which the copy has too
		}
		m.made[m.name(to)] = m.made[m.name(from)]
		delete(m.made, m.name(from))
		return m.copy.Rename(m.name(from), m.name(to))
	})
}

func (m *mirror) Remove(name string) error {
	if _, err := os.Stat(name); err != nil {
		return m.op("", func() error { return err }, nothing) // nothing to do is nothing to cut
	}
	return m.op("remove "+m.name(name), func() error { return m.FS.Remove(name) }, func() error {
		if strings.HasSuffix(name, "-wal") || strings.HasSuffix(name, "-shm") {
			return nil
		}
		if name == m.path() {
			m.main = nil
		}
		delete(m.made, m.name(name))
		return m.copy.Remove(m.name(name))
	})
}

func (m *mirror) SyncDir(name string) error {
	return m.op("syncdir", nothing, func() error { return m.copy.SyncDir("/") })
}

type mirrorFile struct {
	vfs.File
	m    *mirror
	name string
	copy vfs.File // nil if opened for reading
}

// Write writes half if it fails, as a full disk does.
func (f *mirrorFile) Write(p []byte) (n int, err error) {
	err = f.m.op("write "+f.name, func() (err error) { n, err = f.File.Write(p); return err },
		func() error { _, err := f.copy.Write(p); return err })
	if err != nil && n == 0 && f.m.left != 0 {
		n, _ = f.File.Write(p[:len(p)/2])
		_, _ = f.copy.Write(p[:len(p)/2])
	}
	return n, err
}

func (f *mirrorFile) WriteAt(p []byte, off int64) (n int, err error) {
	err = f.m.op("write "+f.name, func() (err error) { n, err = f.File.WriteAt(p, off); return err },
		func() error { _, err := f.copy.WriteAt(p, off); return err })
	if err != nil && n == 0 && f.m.left != 0 {
		n, _ = f.File.WriteAt(p[:len(p)/2], off)
		_, _ = f.copy.WriteAt(p[:len(p)/2], off)
	}
	return n, err
}

func (f *mirrorFile) Read(p []byte) (n int, err error) {
	err = f.m.op("", func() (err error) { n, err = f.File.Read(p); return err }, nothing)
	return n, err
}

func (f *mirrorFile) ReadAt(p []byte, off int64) (n int, err error) {
	err = f.m.op("", func() (err error) { n, err = f.File.ReadAt(p, off); return err }, nothing)
	return n, err
}

func (f *mirrorFile) Size() (n int64, err error) {
	err = f.m.op("", func() (err error) { n, err = f.File.Size(); return err }, nothing)
	return n, err
}

// Sync reaches the copy. One that fails has lost the data for good, whatever later ones say.
func (f *mirrorFile) Sync() error {
	if err := f.m.follow(); err != nil {
		return err
	}
	c := f.copy
	if c == nil {
		c = f.m.made[f.name] // the main file is synced through a descriptor for reading
	}
	if c == nil {
		return f.m.op("sync "+f.name, nothing, nothing) // nothing was written since it was mounted
	}
	failed := f.m.failed
	err := f.m.op("sync "+f.name, nothing, func() error { return c.Sync() })
	if f.m.failed > failed {
		f.m.copy.FailAt(0, err, false)
		if c.Sync() == nil {
			return errors.New("the copy was to fail")
		}
		f.m.copy.FailAt(-1, nil, false)
	}
	return err
}

// Close closes the file even if it fails.
func (f *mirrorFile) Close() error {
	return errors.Join(f.m.op("", nothing, nothing), f.File.Close())
}
