package db

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"time"

	"rqlited/internal/vfs"
)

// markerName is the file that says that the main file equals a snapshot, and what its checksums are. It is
// removed durably before the main file changes, and written after both have been synced.
const markerName = "db.clean"

// maxMarker bounds the size of a marker in bytes.
const maxMarker = 64 << 10

// marker is the content of the marker. Size and time of the main file are there to notice that
// somebody else has changed it, the digest to notice a db.sums that is not the one of this file.
type marker struct {
	Version  int       `json:"version"`
	Snapshot string    `json:"snapshot"`
	Size     int64     `json:"size"`
	ModTime  time.Time `json:"mod_time"`
	Sums     string    `json:"sums"` // sums.digest
}

const markerVersion = 2 // 1 knew no checksums

func markerPath(path string) string { return filepath.Join(filepath.Dir(path), markerName) }

// mark says, durably, that the main file, which has been synced, equals the snapshot. A failed sync is
// final; after another error there is no marker, and the next start has to restore. The caller
// holds mu.
func (d *DB) mark(snapshot string) error {
	d.track.marked = true // even if writing it fails
	err := d.main.flushSums(d.fs, sumsPath(d.path))
	if err == nil {
		err = writeMarker(d.fs, d.path, snapshot, d.main.sums.digest())
	}
	if err != nil {
		err = fmt.Errorf("mark database as %s: %w", snapshot, err)
	}
	if errors.Is(err, vfs.ErrUncertain) {
		return d.fail(err)
	}
	return err
}

func writeMarker(fsys vfs.FS, path, snapshot, digest string) error {
	info, err := fsys.Stat(path)
	if err != nil {
		return err
	}
	m := marker{Version: markerVersion, Snapshot: snapshot, Size: info.Size, ModTime: info.ModTime.UTC(), Sums: digest}
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

// readMarker returns the marker, or why there is none that can be understood.
func readMarker(fsys vfs.FS, path string) (m marker, err error) {
	f, err := fsys.Open(markerPath(path))
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	data, err := io.ReadAll(io.LimitReader(f, maxMarker+1))
	if err != nil {
		return m, err
	}
	return parseMarker(data)
}

func parseMarker(data []byte) (m marker, err error) {
	if len(data) > maxMarker {
		return m, fmt.Errorf("marker has more than %d bytes", maxMarker)
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return m, fmt.Errorf("parse marker: %w", err)
	}
	if m.Version != markerVersion {
		return m, fmt.Errorf("marker is of version %d", m.Version)
	}
	return m, nil
}

// maxPages is SQLite's limit.
const maxPages = 1<<32 - 2

// keepOrDelete decides about the files that a former process has left at path. The main file is
// kept if the marker proves that it equals head, and keepOrDelete returns its checksums; what was
// applied after head, the WAL, is deleted. Otherwise everything is.
func keepOrDelete(fsys vfs.FS, log *slog.Logger, path, head string) (*sums, error) {
	if err := removeLitter(fsys, path); err != nil {
		return nil, err
	}
	// Whatever goes wrong with the proof, even a file that can't be read, leads to a restore: that
	// always helps, and an error could come back at every start.
	s, err := prove(fsys, path, head)
	if err == nil {
		return s, removeCompanions(fsys, path)
	}
	if head != "" {
		log.Info("live database not kept", "head", head, "err", err)
	}
	return nil, deleteFiles(fsys, path)
}

// deleteFiles removes everything, the marker first: no crash may leave it beside another file.
func deleteFiles(fsys vfs.FS, path string) error {
	if err := withdrawMarker(fsys, path); err != nil {
		return err
	}
	for _, name := range []string{path, sumsPath(path)} {
		if err := removeIfExists(fsys, name); err != nil {
			return err
		}
	}
	return removeCompanions(fsys, path)
}

// removeCompanions removes what belongs to a main file and must never lie beside another one.
func removeCompanions(fsys vfs.FS, path string) error {
	for _, suffix := range []string{"-wal", "-shm", "-journal"} {
		if err := removeIfExists(fsys, path+suffix); err != nil {
			return err
		}
	}
	return nil
}

// prove returns the checksums of the main file at path if the marker proves that it equals head,
// provided that each page has its checksum. How long that takes depends on the size of the
// checksums, a thousandth of the database, alone.
func prove(fsys vfs.FS, path, head string) (_ *sums, err error) {
	m, err := readMarker(fsys, path)
	if err != nil {
		return nil, err
	}
	if head == "" || m.Snapshot != head {
		return nil, fmt.Errorf("marker names %q", m.Snapshot)
	}
	info, err := fsys.Stat(path)
	if err != nil {
		return nil, err
	}
	if m.Size != info.Size || !m.ModTime.Equal(info.ModTime) {
		return nil, fmt.Errorf("main file has %d bytes of %s; the marker says %d of %s", info.Size, info.ModTime.UTC(), m.Size, m.ModTime)
	}
	f, err := fsys.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	pageSize, err := pageSizeOf(f) // if it is wrong, so are the number of pages and the digest
	if err != nil {
		return nil, err
	}
	pages := m.Size / int64(pageSize)
	if pages*int64(pageSize) != m.Size || pages > maxPages {
		return nil, fmt.Errorf("%d bytes are not whole pages of %d", m.Size, pageSize)
	}
	s, err := loadSums(fsys, sumsPath(path), pageSize, uint32(pages))
	if err != nil {
		return nil, err
	}
	if got := s.digest(); got != m.Sums {
		return nil, fmt.Errorf("%s has the digest %s; the marker says %s", sumsName, got, m.Sums)
	}
	return s, nil
}
