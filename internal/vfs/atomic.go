package vfs

import (
	"errors"
	"fmt"
	"path/filepath"
)

// ErrSync means that a file or directory could not be synced. What had been written to it may be
// lost, or not; nobody can tell before the next start, and trying again would prove nothing.
var ErrSync = errors.New("vfs: sync failed")

// WriteFileAtomic replaces name with data. A crash at any moment leaves the old content or the
// whole new one; once WriteFileAtomic has returned nil the new content survives power loss.
//
// After an error that is ErrSync it is open which of the two will be found. After any other error
// it is the old one. A failed call may leave name+".tmp" behind for the owner of the directory to
// remove when it next opens.
func WriteFileAtomic(fsys FS, name string, data []byte) error {
	tmp := name + ".tmp"
	f, err := fsys.Create(tmp)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = Sync(f) // the bytes first: a rename must not expose unwritten data
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := fsys.Rename(tmp, name); err != nil {
		return err
	}
	return SyncDir(fsys, filepath.Dir(name)) // then the name
}

// Sync syncs f and marks a failure as ErrSync.
func Sync(f File) error {
	if err := f.Sync(); err != nil {
		return fmt.Errorf("%w: %w", ErrSync, err)
	}
	return nil
}

// SyncDir syncs dir and marks a failure as ErrSync.
func SyncDir(fsys FS, dir string) error {
	if err := fsys.SyncDir(dir); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrSync, dir, err)
	}
	return nil
}
