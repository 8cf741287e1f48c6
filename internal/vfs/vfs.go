package vfs

import (
	"io"
	"time"
)

// FS is a file system. Names are slash-separated or native paths; errors for names that do not
// exist satisfy errors.Is(err, fs.ErrNotExist). An FS is safe for concurrent use.
type FS interface {
	// Open opens an existing file for reading only.
	Open(name string) (File, error)

	// Create opens a file for reading and writing, with no content, whether it existed or not.
	Create(name string) (File, error)

	// Rename gives the file oldname the name newname, replacing what had it. Other processes
	// see the old file or the new one; which of them survives a power cut is open until SyncDir.
	Rename(oldname, newname string) error

	// Remove removes a file or an empty directory. Open files stay readable until closed.
	Remove(name string) error

	// MkdirAll creates a directory and the parents it lacks. None of them is durable until the
	// directory above it has been synced.
	MkdirAll(dir string) error

	// ReadDir returns the base names in a directory, sorted.
	ReadDir(dir string) ([]string, error)

	// Stat describes a file or directory.
	Stat(name string) (FileInfo, error)

	// SyncDir makes every creation, renaming and removal of a name in dir durable. It says
	// nothing about the content of the files.
	SyncDir(dir string) error
}

// File is an open file. Read and Write share one position, ReadAt and WriteAt have their own; the
// latter two may be used by several goroutines at once.
type File interface {
	io.Reader
	io.Writer
	io.ReaderAt
	io.WriterAt
	io.Closer

	// Sync makes the content and the size of the file durable, not its name. After an error
	// what was written since the last Sync may be lost although it can still be read; a second
	// Sync that succeeds proves nothing about it.
	Sync() error

	// Size returns the length of the file in bytes.
	Size() (int64, error)
}

// FileInfo describes a file or directory.
type FileInfo struct {
	Size    int64 // bytes; of no meaning for a directory
	ModTime time.Time
	Dir     bool
}
