package vfs

import (
	"errors"
	"fmt"
	"path/filepath"
)

// ErrUncertain means that a sync or a rename failed. Whether what it was to make durable is on the
// disk cannot be known before the next start, and trying again would prove nothing.
var ErrUncertain = errors.New("vfs: uncertain what is on disk")

// WriteFileAtomic replaces name with data. A crash at any moment leaves the old content or the
// whole new one; once WriteFileAtomic has returned nil the new content survives power loss.
//
// After an error that is ErrUncertain it is open which of the two will be found. After any other
// error it is the old one. A failed call may leave name+".tmp" behind for the owner of the
// directory to remove when it next opens.
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
		return fmt.Errorf("%w: %w", ErrUncertain, err)
	}
	return SyncDir(fsys, filepath.Dir(name)) // then the name
}

// Sync syncs f and marks a failure as ErrUncertain.
func Sync(f File) error {
	if err := f.Sync(); err != nil {
		return fmt.Errorf("%w: %w", ErrUncertain, err)
	}
	return nil
}

// SyncDir syncs dir and marks a failure as ErrUncertain.
func SyncDir(fsys FS, dir string) error {
	if err := fsys.SyncDir(dir); err != nil {
		return fmt.Errorf("%w: directory %s: %w", ErrUncertain, dir, err)
	}
	return nil
}
