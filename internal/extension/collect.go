package extension

import (
	"archive/tar"
	"archive/zip"
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of names and numbers of files.
const (
	maxFiles = 128
	maxName  = 255
)

// limits bounds what is taken, in bytes. Who meets one has most probably named a path that is not what he means.
type limits struct {
	all     int64 // all files together, and what a compressed archive decompresses to
	archive int64 // a zip, whose list of files is read into memory
}

var standard = limits{all: 1 << 30, archive: 256 << 20}

// Beginnings of files that are archives.
const (
	magicZip      = "PK\x03\x04"
	magicEmptyZip = "PK\x05\x06"
	magicGzip     = "\x1f\x8b"
)

var (
	errFolders = errors.New("contains subdirectories")
	errTooMany = fmt.Errorf("more than %d files", maxFiles)
)

// Collect replaces the directory dir by one with the extensions that sources have, each of them a shared object, a
// directory, a zip or a tar.gz; its content tells which. Of directories and archives the files at the top count whose
// names don't begin with a dot. Of files with one name the last one stays.
//
// The caller knows that nobody has loaded anything from dir. A failed call leaves dir as it was, unless it failed to
// exchange it; what is beside it, under dir+".tmp", is removed by the next call.
func Collect(sources []string, dir string) (Set, error) { return collect(sources, dir, standard) }

func collect(sources []string, dir string, l limits) (Set, error) {
	c := collector{dir: dir + ".tmp", limits: l, sums: map[string][sumSize]byte{}}
	err := os.RemoveAll(c.dir)
	if err == nil {
		err = os.Mkdir(c.dir, 0o700)
	}
	if err != nil {
		return nil, fmt.Errorf("failed to create extension store: %w", err) // rqlite's words
	}
	for _, source := range sources {
		if err := c.source(source); err != nil {
			return nil, err
		}
	}
	err = os.RemoveAll(dir)
	if err == nil {
		err = os.Rename(c.dir, dir)
	}
	if err != nil {
		return nil, fmt.Errorf("failed to create extension store: %w", err)
	}
	var s Set
	for name, sum := range c.sums {
		s = append(s, File{name, sum})
	}
	slices.SortFunc(s, byName)
	return s, nil
}

// collector fills a directory.
type collector struct {
	dir    string
	limits limits
	bytes  int64 // written so far
	sums   map[string][sumSize]byte
}

func (c *collector) source(path string) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return fmt.Errorf("failed to load extensions: %w", err)
	case info.IsDir():
		if err := c.directory(path); err != nil {
			return fmt.Errorf("failed to load extensions from directory: %s: %w", path, err)
		}
		return nil
	}
	kind, err := c.file(path)
	if err != nil && kind != "" {
		return fmt.Errorf("failed to load extensions from %[1]s file: %[1]s file %[2]w", kind, err) // rqlite's words, where it has some
	}
	if err != nil {
		return fmt.Errorf("failed to load extension: %w", err)
	}
	return nil
}

// directory takes the files in a directory. Links are followed: that is how volumes of Kubernetes are made.
func (c *collector) directory(path string) error {
	entries, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := filepath.Join(path, e.Name())
		if hidden(e.Name()) {
			continue
		}
		if info, err := os.Stat(name); err != nil || info.IsDir() {
			if err != nil {
				return err
			}
			continue
		}
		f, err := openRegular(name)
		if err != nil {
			return err
		}
		if err := errors.Join(c.add(e.Name(), f), f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// file takes an archive, whose kind it returns, or a single extension.
func (c *collector) file(path string) (kind string, err error) {
	f, err := openRegular(path)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	head := make([]byte, len(magicZip))
	n, err := f.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return "", err
	}
	switch head = head[:n]; {
	case bytes.HasPrefix(head, []byte(magicZip)), bytes.HasPrefix(head, []byte(magicEmptyZip)):
		return "zip", c.zip(f)
	case bytes.HasPrefix(head, []byte(magicGzip)):
		return "tar.gz", c.tarGzip(f)
	}
	return "", c.add(filepath.Base(path), f)
}

func (c *collector) zip(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() > c.limits.archive {
		return fmt.Errorf("has more than %d bytes", c.limits.archive)
	}
	z, err := zip.NewReader(f, info.Size())
	if err != nil {
		return fmt.Errorf("cannot be read: %w", err)
	}
	for _, e := range z.File {
		name, err := flat(e.Name, e.Mode())
		if err != nil {
			return err
		}
		if name == "" {
			continue
		}
		in, err := e.Open()
		if err != nil {
			return fmt.Errorf("cannot be read: %s: %w", name, err)
		}
		if err := errors.Join(c.add(name, in), in.Close()); err != nil {
			return fmt.Errorf("cannot be taken: %w", err)
		}
	}
	return nil
}

func (c *collector) tarGzip(f *os.File) error {
	z, err := gzip.NewReader(bufio.NewReader(f))
	if err != nil {
		return fmt.Errorf("cannot be read: %w", err)
	}
	whole := &bounded{z, c.limits.all, c.limits.all} // what is skipped is decompressed as well
	for t := tar.NewReader(whole); ; {
		h, err := t.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("cannot be read: %w", err)
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue // what "git archive" has to say
		}
		name, err := flat(h.Name, h.FileInfo().Mode())
		if err != nil {
			return err
		}
		if h.Typeflag == tar.TypeLink {
			return fmt.Errorf("contains %s, which is not a regular file", printable(h.Name))
		}
		if name == "" {
			continue
		}
		if err := c.add(name, t); err != nil {
			return fmt.Errorf("cannot be taken: %w", err)
		}
	}
}

// flat returns the name that an entry of an archive has in the directory; it is empty if the entry does not count. A
// name may begin with "./", as those do that tar makes of a directory.
func flat(name string, mode os.FileMode) (string, error) {
	rest := strings.TrimPrefix(name, "./")
	switch {
	case rest == "" && mode.IsDir():
		return "", nil
	case rest == "":
		return "", checkName(rest)
	case mode.IsDir() || strings.ContainsAny(rest, `/\`) || rest == "." || rest == "..":
		return "", errFolders
	case !mode.IsRegular():
		return "", fmt.Errorf("contains %s, which is not a regular file", printable(name))
	case hidden(rest):
		return "", nil
	}
	return rest, nil
}

func hidden(name string) bool { return strings.HasPrefix(name, ".") }

// add copies an extension into the directory.
func (c *collector) add(name string, in io.Reader) error {
	if err := checkName(name); err != nil {
		return err
	}
	if _, again := c.sums[name]; !again && len(c.sums) == maxFiles {
		return errTooMany
	}
	out, err := os.OpenFile(filepath.Join(c.dir, name), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	hash := sha256.New()
	n, err := io.Copy(io.MultiWriter(out, hash), &bounded{in, c.limits.all - c.bytes, c.limits.all})
	c.bytes += n
	if err = errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("copy %s: %w", name, err)
	}
	c.sums[name] = shorten([sha256.Size]byte(hash.Sum(nil)))
	return nil
}

// checkName refuses names that are no names of files, or that a line of text can't hold.
func checkName(name string) error {
	if name == "" || name == "." || name == ".." || len(name) > maxName || !utf8.ValidString(name) ||
		strings.ContainsAny(name, `/\`) || strings.ContainsFunc(name, unicode.IsControl) {
		return fmt.Errorf("%s is not a name of an extension", printable(name))
	}
	return nil
}

// printable quotes a name that may be anything.
func printable(name string) string { return fmt.Sprintf("%.*q", maxName, name) }

// openRegular opens a file that is one: opening a pipe would wait for somebody to write to it.
func openRegular(name string) (*os.File, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", name)
	}
	return os.Open(name)
}

// bounded reads up to left bytes and fails if there are more.
type bounded struct {
	io.Reader
	left int64
	all  int64 // for the error
}

func (b *bounded) Read(p []byte) (int, error) {
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.Reader.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return n, fmt.Errorf("more than %d bytes", b.all)
	}
	return n, err
}
