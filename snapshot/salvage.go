package snapshot

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"rqlited/internal/vfs"
)

// damagedExt is appended to the name of a file that was found damaged and is kept for a human.
const damagedExt = ".damaged"

// skipped is how far the counter jumps when no MANIFEST says how far it had come: names that are
// gone with their files may have been higher than all that are left.
const skipped = 1 << 20

// Salvage repairs the store in dir, which must not be open, after ErrDamaged. It verifies every
// byte of the chain, and puts the longest intact beginning of it in the place of the chain whose
// last snapshot satisfies covers. What was damaged is kept under a name that ends in ".damaged";
// what was intact but lay upon it is deleted by the next Open.
//
// Covers is asked for ever older snapshots. It must report whether the log goes on behind the one
// it is given, and reaches Until at least, so that nothing this node has ever acknowledged is
// given up. A chain that is intact is left as it is, without a question.
//
// An error that is ErrDamaged says what is wrong and that no such snapshot is left, or that
// MANIFEST itself is damaged; ErrNotFound, that there is no snapshot at all. After either, and
// after any other error that is not vfs.ErrUncertain, nothing has been changed. Salvage may be
// cut off anywhere and repeated.
func Salvage(dir string, cfg Config, covers func(Head) bool) (Head, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return Head{}, fmt.Errorf("snapshot configuration: %w", err)
	}
	h, err := salvage(cfg, dir, covers)
	if err != nil {
		return Head{}, fmt.Errorf("salvage snapshots in %s: %w", dir, err)
	}
	return h, nil
}

func salvage(cfg Config, dir string, covers func(Head) bool) (Head, error) {
	names, err := cfg.FS.ReadDir(dir)
	if err != nil {
		return Head{}, err
	}
	m, err := readManifest(cfg.FS, dir)
	if errors.Is(err, fs.ErrNotExist) {
		err = lostManifest(names)
	}
	if err != nil {
		return Head{}, err
	}
	if len(m.Chain) == 0 {
		return Head{}, ErrNotFound
	}
	bad, err := verifyChain(cfg.FS, dir, m.Chain)
	if err != nil {
		return Head{}, err
	}
	n := slices.IndexFunc(bad, func(err error) bool { return err != nil })
	if n < 0 {
		return m.head().head(), nil
	}
	what := bad[n]
	for n > 0 && !covers(candidate(m.Chain, n)) {
		n--
	}
	if n == 0 {
		return Head{}, fmt.Errorf("%w: no intact snapshot is left from which the log goes on", what)
	}
	kept := &manifest{Next: nextNumber(names, m.Next), Chain: m.Chain[:n]}
	if err := writeManifest(cfg.FS, dir, kept); err != nil {
		return Head{}, err
	}
	head := kept.head().head()
	cfg.Logger.Warn("damaged snapshots given up", "snapshot", head.ID, "index", head.Index,
		"lost", len(m.Chain)-n, "err", what)
	for i, l := range m.Chain {
		if bad[i] != nil {
			setAside(cfg, dir, l.File)
		}
	}
	return head, nil
}

// candidate describes the n-th snapshot of the chain, and what the log must make up for if it
// becomes the head.
func candidate(chain []link, n int) Head {
	h := chain[n-1].head()
	for _, l := range chain[n:] {
		h.Until = max(h.Until, l.Index)
	}
	return h
}

// verifyChain reads all files of the chain and returns for each what is wrong with it.
func verifyChain(fsys vfs.FS, dir string, chain []link) ([]error, error) {
	bad := make([]error, len(chain))
	for i := range chain {
		err := verifyFile(fsys, dir, &chain[i])
		if err != nil && !errors.Is(err, ErrDamaged) {
			return nil, err // it may be intact: nothing is decided without having read it
		}
		bad[i] = err
	}
	return bad, nil
}

// verifyFile reads a file of the chain to its end.
func verifyFile(fsys vfs.FS, dir string, l *link) error {
	if err := checkFile(fsys, dir, l); err != nil {
		return err
	}
	s, err := openSource(fsys, dir, l, readBuffer)
	if err != nil {
		return err
	}
	return errors.Join(s.finish(), s.file.Close())
}

// setAside keeps a file that MANIFEST does not name any more from being deleted by the next Open.
// Nothing depends on it, so it is not made durable, and failing is no error.
func setAside(cfg Config, dir, file string) {
	name := filepath.Join(dir, file)
	if err := cfg.FS.Rename(name, name+damagedExt); err != nil && !errors.Is(err, fs.ErrNotExist) {
		cfg.Logger.Warn("damaged snapshot file not kept", "file", name, "err", err)
	}
}

// Discard gives up all snapshots of the store in dir, which must not be open: the state of the node
// is to come from the leader. Once it has returned nil the store is empty, also after a power cut,
// and opens. No number, and so no id, will be used again. The files are kept under names that end
// in ".damaged", as is a MANIFEST that cannot be read. Discard may be cut off anywhere and repeated;
// after an error that is not vfs.ErrUncertain the snapshots are as they were.
func Discard(dir string, cfg Config) error {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return fmt.Errorf("snapshot configuration: %w", err)
	}
	if err := discard(cfg, dir); err != nil {
		return fmt.Errorf("discard snapshots in %s: %w", dir, err)
	}
	return nil
}

func discard(cfg Config, dir string) error {
	names, err := cfg.FS.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // there was never a store
	}
	if err != nil {
		return err
	}
	m, err := readManifest(cfg.FS, dir)
	var next uint64
	switch {
	case err == nil:
		next = nextNumber(names, m.Next)
	case errors.Is(err, ErrDamaged), errors.Is(err, fs.ErrNotExist):
		cfg.Logger.Warn("snapshot manifest given up", "err", err)
		next = nextNumber(names, 1) + skipped
		keepManifest(cfg, dir)
	default:
		return err
	}
	if err := writeManifest(cfg.FS, dir, &manifest{Next: next, Chain: []link{}}); err != nil {
		return err
	}
	for _, name := range names {
		if _, ok := fileNumber(name); ok {
			setAside(cfg, dir, name)
		}
	}
	return nil
}

// keepManifest copies a MANIFEST that cannot be read for a human, who may be able to. The original
// stays until it is replaced: a directory without one looks new if it has no other file.
func keepManifest(cfg Config, dir string) {
	name := filepath.Join(dir, manifestName)
	err := copyFile(cfg.FS, name, name+damagedExt)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		cfg.Logger.Warn("damaged snapshot manifest not kept", "file", name, "err", err)
	}
}

func copyFile(fsys vfs.FS, from, to string) error {
	src, err := fsys.Open(from)
	if err != nil {
		return err
	}
	data, err := readAll(src)
	if err = errors.Join(err, src.Close()); err != nil {
		return err
	}
	dst, err := fsys.Create(to)
	if err != nil {
		return err
	}
	_, err = dst.Write(data)
	return errors.Join(err, dst.Close())
}

// nextNumber returns a number that is at least next and above that of every file in names, also of
// those that were set aside.
func nextNumber(names []string, next uint64) uint64 {
	for _, name := range names {
		if number, ok := fileNumber(strings.TrimSuffix(name, damagedExt)); ok {
			next = max(next, number+1)
		}
	}
	return next
}

// damage says that a published file is not what it was, or that the disk does not return it any
// more. It is ErrDamaged.
type damage struct {
	file string // its name in the directory
	err  error
}

func (d *damage) Error() string        { return fmt.Sprintf("%v: file %s: %v", ErrDamaged, d.file, d.err) }
func (d *damage) Is(target error) bool { return target == ErrDamaged }
func (d *damage) Unwrap() error        { return d.err }

// damaged tells damage to a published file from other errors of reading it. A sector that cannot
// be read is damage like any other; want of descriptors or of permission is not.
func damaged(file string, err error) error {
	if errors.Is(err, ErrMalformed) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.EIO) {
		return &damage{file: file, err: err}
	}
	return fmt.Errorf("read %s: %w", file, err)
}
