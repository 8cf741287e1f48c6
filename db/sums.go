package db

// #include "sqlite.h"
// #include "sums.h"
import "C"

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"unsafe"

	"rqlited/internal/vfs"
)

const (
	// sumsName is the file with the checksums of the pages of the main file: four bytes for each,
	// little-endian, in the order of the pages. What lies behind the last page means nothing.
	sumsName = "db.sums"
	sumSize  = 4

	// sumsBuffer is how much is read at a time, and sumsFlush how much is written at most, in bytes.
	sumsBuffer = 1 << 20
	sumsFlush  = 64 << 10
)

func sumsPath(path string) string { return filepath.Join(filepath.Dir(path), sumsName) }

// sums are the checksums of the pages of one main file (sums.c). The VFS keeps them up to date as
// SQLite writes, and checks every page against them the first time SQLite reads it. Safe for
// concurrent use.
type sums struct {
	c   *C.struct_db_sums
	bad *uint32 // the first page found damaged; 0: none
}

// newSums returns sums of no pages yet. The page size may be 0 for a file that is still empty.
func newSums(pageSize int) (*sums, error) {
	c := C.db_sums_new(C.uint32_t(pageSize))
	if c == nil {
		return nil, errNoMemory
	}
	s := &sums{c, (*uint32)(unsafe.Pointer(C.db_sums_damaged(c)))}
	// The last user of an old file may be any query, so the memory is given back when nobody can
	// ask any more.
	runtime.AddCleanup(s, func(c *C.struct_db_sums) { C.db_sums_unref(c) }, s.c)
	return s, nil
}

// pages returns how many pages there are.
func (s *sums) pages() uint32 {
	defer runtime.KeepAlive(s)
	return uint32(C.db_sums_pages(s.c))
}

// digest stands for all sums together. It is kept up to date sum by sum.
func (s *sums) digest() string {
	defer runtime.KeepAlive(s)
	return fmt.Sprintf("%016x", uint64(C.db_sums_digest(s.c)))
}

// damaged returns the first page that was found damaged by SQLite or check; 0 if none was.
func (s *sums) damaged() uint32 {
	defer runtime.KeepAlive(s)
	return atomic.LoadUint32(s.bad)
}

// check returns ErrDamaged if a page is not what was written.
func (s *sums) check(pgno uint32, page []byte) error {
	defer runtime.KeepAlive(s)
	if C.db_sums_check(s.c, C.uint32_t(pgno), unsafe.Pointer(unsafe.SliceData(page))) == 0 {
		C.db_sums_set_damaged(s.c, C.uint32_t(pgno))
		return damagedPage(pgno)
	}
	return nil
}

// eachPiece calls add with the content of r, size bytes long and made of units of the given length,
// piece by piece.
func eachPiece(r io.ReaderAt, size, unit int64, add func(first uint32, p []byte, n int) bool) error {
	buf := make([]byte, min(size, max(sumsBuffer, unit)))
	for off := int64(0); off < size; {
		p := buf[:min(int64(len(buf)), size-off)]
		if _, err := r.ReadAt(p, off); err != nil {
			return err
		}
		if !add(uint32(off/unit)+1, p, len(p)/int(unit)) {
			return errNoMemory
		}
		off += int64(len(p))
	}
	return nil
}

// computeSums returns the sums of the pages in f, which is not yet in use and is not empty.
func computeSums(f vfs.File) (*sums, error) {
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	pageSize, err := pageSizeOf(f)
	if err != nil {
		return nil, err
	}
	s, err := newSums(pageSize)
	if err != nil {
		return nil, err
	}
	err = eachPiece(f, size-size%int64(pageSize), int64(pageSize), func(first uint32, p []byte, n int) bool {
		return C.db_sums_compute(s.c, C.uint32_t(first), (*C.uchar)(unsafe.SliceData(p)), C.uint32_t(n)) != 0
	})
	runtime.KeepAlive(s)
	return s, err
}

// loadSums reads the sums of a file with so many pages.
func loadSums(fsys vfs.FS, name string, pageSize int, pages uint32) (_ *sums, err error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size < int64(pages)*sumSize {
		return nil, fmt.Errorf("%s has %d bytes, too few for %d pages", sumsName, size, pages)
	}
	s, err := newSums(pageSize)
	if err != nil {
		return nil, err
	}
	err = eachPiece(f, int64(pages)*sumSize, sumSize, func(first uint32, p []byte, n int) bool {
		return C.db_sums_load(s.c, C.uint32_t(first), (*C.uchar)(unsafe.SliceData(p)), C.uint32_t(n)) != 0
	})
	runtime.KeepAlive(s)
	return s, err
}

// flushSums brings db.sums up to date, durably, which costs what has changed since the last time. The
// first time in the life of a process all of it is written: package vfs opens existing files for
// reading only. No marker vouches for db.sums while it differs from the main file.
func (m *mainFile) flushSums(fsys vfs.FS, name string) error {
	defer runtime.KeepAlive(m.sums)
	if C.db_sums_changed(m.sums.c) == 0 {
		return nil
	}
	if m.sumsFile == nil {
		f, err := fsys.Create(name)
		if err != nil {
			return err
		}
		m.sumsFile = f
		C.db_sums_take_all(m.sums.c)
	}
	if err := m.writeSums(); err != nil {
		// What has been written and what not is best forgotten.
		C.db_sums_take_all(m.sums.c)
		err = errors.Join(err, m.sumsFile.Close())
		m.sumsFile = nil
		return err
	}
	return vfs.Sync(m.sumsFile) // what the marker's digest stands for
}

func (m *mainFile) writeSums() error {
	buf := make([]byte, sumsFlush)
	for pgno := C.uint32_t(1); ; {
		n := C.db_sums_take(m.sums.c, &pgno, (*C.uchar)(unsafe.SliceData(buf)), C.uint32_t(len(buf)/sumSize))
		if n == 0 {
			return nil
		}
		if _, err := m.sumsFile.WriteAt(buf[:n*sumSize], int64(pgno-1)*sumSize); err != nil {
			return err
		}
		pgno += n
	}
}

// sumsGroup is how many sums are written together, as soon as one of them has changed.
const sumsGroup = C.DB_SUMS_GROUP

// crc32c goes on with a CRC-32C; plain asks for the way that needs no instructions for it.
func crc32c(crc uint32, p []byte, plain bool) uint32 {
	way := C.int(0)
	if plain {
		way = 1
	}
	return uint32(C.db_crc32c(C.uint32_t(crc), unsafe.Pointer(unsafe.SliceData(p)), C.size_t(len(p)), way))
}
