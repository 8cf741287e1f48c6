package crashfs

import (
	"errors"
	"io/fs"
	"sort"
	"syscall"

	"rqlited/internal/vfs"
)

// SetFree makes the disk so full that only so many bytes more fit on it; a negative number, as at
// first, means a disk without end. A write that does not fit writes what does and fails with
// syscall.ENOSPC. Making a file longer needs space, holes included, and so does the first change of
// a block that a clone shares; removing, replacing and truncating files gives it back, but an open
// file without a name keeps its own until it is closed. Names need none.
func (f *FS) SetFree(bytes int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.capacity = -1
	if bytes >= 0 {
		f.capacity = f.used + bytes
	}
}

// OfferClone makes vfs.Clone work, or fail with errors.ErrUnsupported as at first.
func (f *FS) OfferClone(offered bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.clones = offered
}

// Free is what vfs.Free calls.
func (f *FS) Free(dir string) (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.allow(); err != nil {
		return 0, err
	}
	if _, err := f.walk("statfs", dir); err != nil {
		return 0, err
	}
	if f.capacity < 0 {
		return 0, errors.ErrUnsupported
	}
	return max(f.capacity-f.used, 0), nil
}

// CloneFrom is what vfs.Clone calls.
func (h *handle) CloneFrom(src vfs.File) error {
	from, ok := src.(*handle)
	if !ok || from.fs != h.fs {
		return errors.ErrUnsupported
	}
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if !h.fs.clones {
		return errors.ErrUnsupported
	}
	if err := from.ready(); err != nil {
		return err
	}
	if err := h.ready("clone", from.name, h.name); err != nil {
		return err
	}
	h.file.mustChange("clone into", h.name)
	if len(h.file.data) > 0 {
		return &fs.PathError{Op: "clone", Path: h.name, Err: errors.New("the file is not empty")}
	}
	h.fs.change(h.file, func() {
		h.file.data = append([]byte(nil), from.file.data...)
		h.file.shared = int64(len(h.file.data))
	})
	return nil
}

// change lets act change the content of a file, and accounts for the space it takes.
func (f *FS) change(n *file, act func()) {
	f.used -= n.takes()
	act()
	f.used += n.takes()
	n.dirty = true
	n.mod = f.ticks
}

// takes returns how many bytes of the disk the file uses alone.
func (n *file) takes() int64 { return int64(len(n.data)) - n.shared }

// release gives the space of a file back when neither a name nor a handle leads to it any more.
func (f *FS) release(n *file) {
	if n.links == 0 && n.opens == 0 {
		f.used -= n.takes()
	}
}

// fitting returns how many of the count bytes that are to be written at off fit on the disk.
func (f *FS) fitting(n *file, off int64, count int) int {
	if f.capacity < 0 {
		return count
	}
	size, room := int64(len(n.data)), f.capacity-f.used
	return sort.Search(count, func(i int) bool { // the first i that cannot be written as well
		k := int64(i + 1)
		growth := max(off+k-size, 0)
		unshared := min(n.shared, max(min(k, size-off), 0))
		return growth+unshared > room
	})
}

// full is the error of a write that does not fit.
func full(name string) error { return &fs.PathError{Op: "write", Path: name, Err: syscall.ENOSPC} }
