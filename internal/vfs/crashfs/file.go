package crashfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
)

// blockSize is the unit in which unsynced content is kept or lost. It is smaller than that of any
// disk so that small files tear as well.
const blockSize = 64

// file is the content of a file; it lives as long as a name or a handle leads to it. Guarded by
// the mutex of its FS.
type file struct {
	data    []byte // what everybody reads
	durable []byte // what survives a power cut
	dirty   bool   // data was changed since the last Sync
	lost    bool   // a Sync has failed: no later one will make this content durable
	frozen  bool   // may not change any more
	links   int    // names that lead to it
	opens   int    // handles that are not closed
	shared  int64  // bytes of data in blocks that belong to other files too
	mod     int64
}

// mustChange panics if the file may not be changed: its owner has declared it finished.
func (n *file) mustChange(op, name string) {
	if n.frozen {
		panic(fmt.Sprintf("crashfs: %s %s: the file is finished and must never change", op, name))
	}
}

// handle is an open file.
type handle struct {
	fs       *FS
	file     *file
	name     string
	readOnly bool
	pos      int64 // guarded by fs.mu
	closed   bool  // guarded by fs.mu
}

// ready decides, with the mutex held, whether an operation on the handle takes place.
func (h *handle) ready(change ...string) error {
	if h.closed {
		return &fs.PathError{Op: "use", Path: h.name, Err: fs.ErrClosed}
	}
	if len(change) > 0 && h.readOnly {
		return &fs.PathError{Op: change[0], Path: h.name, Err: fs.ErrPermission}
	}
	return h.fs.allow(change...)
}

func (h *handle) Read(p []byte) (int, error) {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err := h.ready(); err != nil {
		return 0, err
	}
	n, err := h.file.readAt(p, h.pos)
	h.pos += int64(n)
	if n > 0 {
		err = nil
	}
	return n, err
}

func (h *handle) ReadAt(p []byte, off int64) (int, error) {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err := h.ready(); err != nil {
		return 0, err
	}
	return h.file.readAt(p, off)
}

func (n *file) readAt(p []byte, off int64) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if off < 0 {
		return 0, errors.New("negative offset")
	}
	if off >= int64(len(n.data)) {
		return 0, io.EOF
	}
	c := copy(p, n.data[off:])
	if c < len(p) {
		return c, io.EOF
	}
	return c, nil
}

func (h *handle) Write(p []byte) (int, error) {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	n, err := h.writeAt(p, h.pos)
	h.pos += int64(n)
	return n, err
}

func (h *handle) WriteAt(p []byte, off int64) (int, error) {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	return h.writeAt(p, off)
}

func (h *handle) writeAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("negative offset")
	}
	usable := !h.closed && !h.readOnly && !h.fs.off
	err := h.ready("write", h.name)
	if err != nil {
		if !usable {
			return 0, err
		}
		p = p[:len(p)/2] // a full disk, or a power cut, stops a write anywhere
	}
	h.file.mustChange("write", h.name)
	if n := h.fs.fitting(h.file, off, len(p)); n < len(p) {
		p, err = p[:n], errors.Join(err, full(h.name))
	}
	if len(p) > 0 {
		h.fs.change(h.file, func() { h.file.put(p, off) })
	}
	return len(p), err
}

// put writes p into the content.
func (n *file) put(p []byte, off int64) {
	size, end := int64(len(n.data)), off+int64(len(p))
	n.shared -= min(n.shared, max(min(end, size)-off, 0))
	if end > size {
		n.data = append(n.data, make([]byte, end-size)...)
	}
	copy(n.data[off:], p)
}

func (h *handle) Sync() error {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err := h.ready("sync", h.name); err != nil {
		h.file.lost = h.file.lost || !h.closed
		return err
	}
	h.file.dirty = false
	if !h.file.lost {
		h.file.durable = slices.Clone(h.file.data)
	}
	h.fs.flushJournal()
	return nil
}

func (h *handle) Size() (int64, error) {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err := h.ready(); err != nil {
		return 0, err
	}
	return int64(len(h.file.data)), nil
}

// Close closes the handle even if it reports an error.
func (h *handle) Close() error {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	err := h.ready()
	if h.closed {
		return err
	}
	h.closed = true
	h.file.opens--
	if !h.readOnly {
		h.fs.freeze(h.file, h.name)
	}
	h.fs.release(h.file)
	return err
}

// freeze finishes a file if it is synced and Freeze was called for its name.
func (f *FS) freeze(n *file, name string) {
	n.frozen = n.frozen || !n.dirty && slices.ContainsFunc(f.frozen, func(pattern string) bool {
		ok, err := path.Match(pattern, filepath.Base(name))
		return ok && err == nil
	})
}
