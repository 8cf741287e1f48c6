package snapshot

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"syscall"

	"rqlited/internal/vfs"
)

// found is what recoverDir makes of a directory.
type found struct {
	man  *manifest
	next uint64 // higher than every number in use or seen

	garbage []string // files that could not be deleted
}

// recoverDir brings the directory into the state that its MANIFEST describes. It reads, decides,
// and only then acts; each step may be cut off and repeated.
func recoverDir(fsys vfs.FS, dir string, log *slog.Logger) (*found, error) {
	if err := fsys.MkdirAll(dir); err != nil {
		return nil, err
	}
	// The directory's own name: what is published in it would be lost together with it. Another
	// start may have made it and been cut off here, so it is not enough to sync a new one.
	if err := vfs.SyncDir(fsys, filepath.Dir(dir)); err != nil {
		return nil, err
	}
	names, err := fsys.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	m, err := readManifest(fsys, dir)
	if errors.Is(err, fs.ErrNotExist) {
		m, err = firstManifest(fsys, dir, names)
	}
	if err != nil {
		return nil, err
	}
	for i := range m.Chain {
		if err := checkFile(fsys, dir, &m.Chain[i]); err != nil {
			return nil, err
		}
	}
	// MANIFEST's name: it may have been replaced by a start that was cut off before it could sync.
	// Were its replacement lost after what only the older one names had been deleted, nothing
	// would be left.
	if err := vfs.SyncDir(fsys, dir); err != nil {
		return nil, err
	}
	left := deleteGarbage(fsys, dir, names, m, log)
	return &found{man: m, next: nextNumber(names, m.Next), garbage: left}, nil
}

// firstManifest makes an empty store. Since MANIFEST is durable before the first numbered file is
// created, a directory that has such files and no MANIFEST has lost it, and is left alone.
func firstManifest(fsys vfs.FS, dir string, names []string) (*manifest, error) {
	if err := lostManifest(names); err != nil {
		return nil, err
	}
	m := &manifest{Next: 1, Chain: []link{}}
	return m, writeManifest(fsys, dir, m)
}

// lostManifest returns ErrDamaged if the files of a directory without MANIFEST prove that it had
// one.
func lostManifest(names []string) error {
	for _, name := range names {
		if _, ok := fileNumber(strings.TrimSuffix(name, damagedExt)); ok {
			return fmt.Errorf("%w: %s is there but %s is not: put %s back, %s", ErrDamaged,
				name, manifestName, manifestName, orStartOver)
		}
	}
	return nil
}

// writeManifest makes m what is on disk. When it has returned nil, m survives power loss.
func writeManifest(fsys vfs.FS, dir string, m *manifest) error {
	data, err := m.encode()
	if err != nil {
		return err
	}
	return vfs.WriteFileAtomic(fsys, filepath.Join(dir, manifestName), data)
}

// orStartOver is the way out that is left to a human when a file is beyond repair.
const orStartOver = "or move the data directory away and let the node join the cluster again"

func readManifest(fsys vfs.FS, dir string) (*manifest, error) {
	name := filepath.Join(dir, manifestName)
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	data, err := readAll(f)
	if err = errors.Join(err, f.Close()); err != nil && !errors.Is(err, syscall.EIO) {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	var m *manifest
	if err == nil {
		m, err = decodeManifest(data)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w: put an intact copy back, %s", ErrDamaged, name, err, orStartOver)
	}
	return m, nil
}

// readAll reads a file, or so much of it that it is seen to be too long for a manifest.
func readAll(f vfs.File) ([]byte, error) {
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	data := make([]byte, min(size, maxManifestSize+1))
	_, err = io.ReadFull(f, data)
	return data, err
}

// checkFile makes sure that a file of the chain is there, as long as it should be, and begins and
// ends as it should. Its pages are verified whenever they are read.
func checkFile(fsys vfs.FS, dir string, l *link) error {
	f, err := fsys.Open(filepath.Join(dir, l.File))
	if err == nil {
		err = errors.Join(checkEnds(f, l), f.Close())
	}
	if err == nil {
		return nil
	}
	if err = damaged(l.File, err); errors.Is(err, ErrDamaged) {
		err = fmt.Errorf("%w: put an intact copy back, %s", err, orStartOver)
	}
	return err
}

func checkEnds(f vfs.File, l *link) error {
	size, err := f.Size()
	if err != nil {
		return err
	}
	if size != l.size() {
		return fmt.Errorf("%w: it has %d bytes, the manifest says %d", ErrMalformed, size, l.size())
	}
	ends := make([]byte, headerSize+trailerSize)
	if _, err := f.ReadAt(ends[:headerSize], 0); err != nil {
		return err
	}
	if _, err := f.ReadAt(ends[headerSize:], size-trailerSize); err != nil {
		return err
	}
	if !bytes.Equal(ends, appendTrailer(appendHeader(nil, l.header()), l.Stream)) {
		return fmt.Errorf("%w: its header or trailer is not the one in the manifest", ErrMalformed)
	}
	return nil
}

// deleteGarbage deletes the store's own files that m does not name. Files of other names are none
// of its business. It returns what it could not delete.
func deleteGarbage(fsys vfs.FS, dir string, names []string, m *manifest, log *slog.Logger) (left []string) {
	named := map[string]bool{}
	for i := range m.Chain {
		named[m.Chain[i].File] = true
	}
	for _, name := range names {
		_, numbered := fileNumber(name)
		if named[name] || !numbered && name != manifestTmp {
			continue
		}
		err := fsys.Remove(filepath.Join(dir, name))
		if err == nil || errors.Is(err, fs.ErrNotExist) { // firstManifest has renamed the .tmp
			continue
		}
		log.Warn("unused snapshot file not deleted", "file", name, "err", err)
		if numbered { // the other is written over, or renamed, by whoever publishes
			left = append(left, name)
		}
	}
	return left
}
