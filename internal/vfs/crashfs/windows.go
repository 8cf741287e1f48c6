package crashfs

import (
	"errors"
	"io/fs"
	"maps"
)

// ErrInUse is the error of an act that the rules of Windows forbid on an open file.
var ErrInUse = errors.New("crashfs: file is in use")

// NewWindows returns an empty file system that works as NTFS does for Go programs, which open files
// without the right to delete them:
//
//   - A file that is open cannot be removed, renamed or replaced by a rename, and neither can a
//     directory above it be renamed. A closed file can be replaced: os.Rename and vfs.OS ask for
//     MOVEFILE_REPLACE_EXISTING. Reading, writing and truncating through several handles works.
//   - SyncDir succeeds and does nothing, not even notice that there is no such directory.
//   - NTFS journals changes of names in order. A file's Sync brings the journal to the disk up to
//     that point, and so does Rename, because vfs.OS asks for MOVEFILE_WRITE_THROUGH; all earlier
//     creations, renames and removals anywhere become durable with it. What comes after the last of
//     these may be lost: the removal of a file, say, or the name of a file that was never synced.
//
// RestartRandom still keeps or loses each unsynced name by itself, which is more disorder than a
// journal allows.
func NewWindows() *FS {
	f := New()
	f.windows = true
	return f
}

// idle returns nil if the rules allow to take the node n from its name or to replace it.
func (f *FS) idle(op, name string, n any) error {
	if f.windows && inUse(n) {
		return &fs.PathError{Op: op, Path: name, Err: ErrInUse}
	}
	return nil
}

func inUse(n any) bool {
	switch n := n.(type) {
	case *file:
		return n.opens > 0
	case *dir:
		for _, below := range n.names {
			if inUse(below) {
				return true
			}
		}
	}
	return false
}

// flushJournal makes every change of names so far durable, where the file system has a journal.
func (f *FS) flushJournal() {
	if f.windows {
		f.root.settle()
	}
}

func (d *dir) settle() {
	d.durable = maps.Clone(d.names)
	for _, n := range d.names {
		if sub, ok := n.(*dir); ok {
			sub.settle()
		}
	}
}
