package db

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"time"

	"rqlited/internal/vfs"
)

// markerName is the file that says that the main file equals a snapshot. It is removed durably
// before the main file changes, and written after the main file has been synced.
const markerName = "db.clean"

// maxMarker bounds the size of a marker in bytes.
const maxMarker = 64 << 10

// marker is the content of the marker. Size and time of the main file are there to notice that
// somebody else has changed it.
type marker struct {
	Version  int       `json:"version"`
	Snapshot string    `json:"snapshot"`
	Size     int64     `json:"size"`
	ModTime  time.Time `json:"mod_time"`
}

const markerVersion = 1

func markerPath(path string) string { return filepath.Join(filepath.Dir(path), markerName) }

// writeMarker says that the main file at path, which has been synced, equals the snapshot.
func writeMarker(fsys vfs.FS, path, snapshot string) error {
	info, err := fsys.Stat(path)
	if err != nil {
		return err
	}
	m := marker{Version: markerVersion, Snapshot: snapshot, Size: info.Size, ModTime: info.ModTime.UTC()}
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return vfs.WriteFileAtomic(fsys, markerPath(path), append(data, '\n'))
}

// withdrawMarker removes the marker, durably: once it has returned nil no crash brings it back.
func withdrawMarker(fsys vfs.FS, path string) error {
	if err := removeIfExists(fsys, markerPath(path)); err != nil {
		return err
	}
	return vfs.SyncDir(fsys, filepath.Dir(path))
}

// readMarker returns the marker; ok is false if there is none that can be understood.
func readMarker(fsys vfs.FS, path string) (m marker, ok bool, err error) {
	f, err := fsys.Open(markerPath(path))
	if errors.Is(err, fs.ErrNotExist) {
		return m, false, nil
	}
	if err != nil {
		return m, false, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxMarker+1))
	if err != nil {
		return m, false, fmt.Errorf("read marker: %w", err)
	}
	if len(data) > maxMarker || json.Unmarshal(data, &m) != nil || m.Version != markerVersion {
		return m, false, nil
	}
	return m, true, nil
}

// keepOrDelete decides about the files that a former process has left at path. The main file is
// kept if the marker says that it equals head; what was applied after head, the WAL, is deleted.
// Otherwise everything is, the marker first.
func keepOrDelete(fsys vfs.FS, path, head string) (kept bool, err error) {
	if err := removeLitter(fsys, path); err != nil {
		return false, err
	}
	if kept, err = provenEqual(fsys, path, head); err != nil {
		return false, err
	}
	if kept {
		for _, suffix := range []string{"-wal", "-shm", "-journal"} {
			if err := removeIfExists(fsys, path+suffix); err != nil {
				return false, err
			}
		}
		return true, nil
	}
	if err := withdrawMarker(fsys, path); err != nil {
		return false, err
	}
	return false, removeFiles(fsys, path)
}

// provenEqual reports whether the marker says that the main file at path equals head, and the file
// is still the one that the marker speaks of.
func provenEqual(fsys vfs.FS, path, head string) (bool, error) {
	m, ok, err := readMarker(fsys, path)
	if err != nil {
		return false, err
	}
	info, err := fsys.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if !ok || head == "" || m.Snapshot != head || m.Size != info.Size || !m.ModTime.Equal(info.ModTime) {
		return false, nil
	}
	return hasHeader(fsys, path)
}

// hasHeader reports whether the file begins as a database in WAL mode does. SQLite refuses one that
// does not, at every start, although it could be restored.
func hasHeader(fsys vfs.FS, path string) (bool, error) {
	f, err := fsys.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	var h [headerSize]byte
	if _, err := f.ReadAt(h[:], 0); err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	_, err = pageSizeOf(f)
	return err == nil && string(h[:len(headerMagic)]) == headerMagic && h[18] == walFormat && h[19] == walFormat, nil
}
