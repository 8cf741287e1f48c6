package db

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/bits"
	"slices"

	"rqlited/internal/vfs"
)

// Layout of a WAL, from SQLite's file format document. All numbers are big-endian.
const (
	walHeaderSize   = 32
	walFrameSize    = 24 // of the header before each page
	walMagic        = 0x377f0682
	walVersion      = 3007000
	walMinPage      = 512
	walMaxPage      = 65536
	walReadAhead    = 1 << 20
	walMagicBigMask = 1 // set in the magic number if the checksums read the bytes as big-endian
)

// walPos is a place in a WAL right behind a committed frame, with what is needed to read on.
type walPos struct {
	salt   [2]uint32 // changes whenever SQLite starts again at the beginning of the file
	frames int       // before this place
	sum    [2]uint32 // the running checksum
}

// walScan is what has been found behind a place in a WAL.
type walScan struct {
	end      walPos
	pageSize int
	pages    pageSet // in the frames that were committed
	dbPages  uint32  // size of the database after the last commit; 0 if there was none
}

// scanWAL reads the WAL file and returns what was committed behind from. If the WAL was started
// again since, all of it is behind from. A missing, empty or unfinished WAL holds nothing; and
// neither do frames that SQLite would ignore too: those left from before a restart, those of a
// transaction without a commit, and all behind a frame whose checksum is wrong.
func scanWAL(fsys vfs.FS, name string, from walPos) (walScan, error) {
	f, err := fsys.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return walScan{}, nil
	}
	if err != nil {
		return walScan{}, err
	}
	// The locks that SQLite holds are on other files, so this descriptor may be closed.
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return walScan{}, err
	}
	scan, err := readWAL(f, size, from)
	if err != nil {
		return scan, fmt.Errorf("read %s: %w", name, err)
	}
	return scan, nil
}

func readWAL(r io.ReaderAt, size int64, from walPos) (walScan, error) {
	var scan walScan
	var head [walHeaderSize]byte
	if size < walHeaderSize {
		return scan, nil
	}
	if _, err := r.ReadAt(head[:], 0); err != nil {
		return scan, err
	}
	order, pageSize, pos, ok := parseWALHeader(head[:])
	if !ok {
		return scan, nil
	}
	scan.pageSize = pageSize
	if pos.salt == from.salt && from.frames > 0 {
		pos = from
	}
	scan.end = pos
	frame := make([]byte, walFrameSize+pageSize)
	offset := walHeaderSize + int64(pos.frames)*int64(len(frame))
	if offset > size {
		return scan, fmt.Errorf("is shorter than before: %d bytes, want %d", size, offset)
	}
	in := bufio.NewReaderSize(io.NewSectionReader(r, offset, size-offset), int(min(walReadAhead, size-offset)))
	var uncommitted []uint32
	for {
		if _, err := io.ReadFull(in, frame); err == io.EOF || err == io.ErrUnexpectedEOF {
			return scan, nil
		} else if err != nil {
			return scan, err
		}
		pgno := binary.BigEndian.Uint32(frame)
		commit := binary.BigEndian.Uint32(frame[4:])
		pos.sum = walSum(order, pos.sum, frame[:8])
		pos.sum = walSum(order, pos.sum, frame[walFrameSize:])
		if pgno == 0 || be2(frame[8:]) != pos.salt || be2(frame[16:]) != pos.sum {
			return scan, nil
		}
		pos.frames++
		uncommitted = append(uncommitted, pgno)
		if commit != 0 {
			for _, pgno := range uncommitted {
				scan.pages.add(pgno)
			}
			uncommitted = uncommitted[:0]
			scan.end, scan.dbPages = pos, commit
		}
	}
}

func parseWALHeader(h []byte) (order binary.ByteOrder, pageSize int, pos walPos, ok bool) {
	magic := binary.BigEndian.Uint32(h)
	pageSize = int(binary.BigEndian.Uint32(h[8:]))
	if magic&^walMagicBigMask != walMagic || binary.BigEndian.Uint32(h[4:]) != walVersion ||
		pageSize < walMinPage || pageSize > walMaxPage || bits.OnesCount(uint(pageSize)) != 1 {
		return nil, 0, pos, false
	}
	order = binary.LittleEndian
	if magic&walMagicBigMask != 0 {
		order = binary.BigEndian
	}
	pos.salt = be2(h[16:])
	pos.sum = walSum(order, pos.sum, h[:24])
	return order, pageSize, pos, be2(h[24:]) == pos.sum
}

// walSum goes on with a checksum over p, whose length is a multiple of 8.
func walSum(order binary.ByteOrder, sum [2]uint32, p []byte) [2]uint32 {
	s0, s1 := sum[0], sum[1]
	if order == binary.LittleEndian { // told apart here so that the loops need no calls
		for ; len(p) >= 8; p = p[8:] {
			s0 += binary.LittleEndian.Uint32(p) + s1
			s1 += binary.LittleEndian.Uint32(p[4:]) + s0
		}
		return [2]uint32{s0, s1}
	}
	for ; len(p) >= 8; p = p[8:] {
		s0 += binary.BigEndian.Uint32(p) + s1
		s1 += binary.BigEndian.Uint32(p[4:]) + s0
	}
	return [2]uint32{s0, s1}
}

func be2(p []byte) [2]uint32 {
	return [2]uint32{binary.BigEndian.Uint32(p), binary.BigEndian.Uint32(p[4:])}
}

// pageSet is a set of page numbers: bitmaps of 16384 pages each, where there are any. Its size is
// bounded by the number of pages added.
type pageSet struct {
	chunks map[uint32]*[chunkPages / 64]uint64
	n      int
}

const chunkPages = 1 << 14

func (s *pageSet) add(pgno uint32) {
	if s.chunks == nil {
		s.chunks = make(map[uint32]*[chunkPages / 64]uint64)
	}
	chunk := s.chunks[pgno/chunkPages]
	if chunk == nil {
		chunk = new([chunkPages / 64]uint64)
		s.chunks[pgno/chunkPages] = chunk
	}
	word, bit := &chunk[pgno%chunkPages/64], uint64(1)<<(pgno%64)
	if *word&bit == 0 {
		*word |= bit
		s.n++
	}
}

func (s *pageSet) merge(other pageSet) {
	for _, pgno := range other.upTo(^uint32(0)) {
		s.add(pgno)
	}
}

// upTo returns the pages from 1 to last, in order.
func (s *pageSet) upTo(last uint32) []uint32 {
	pages := make([]uint32, 0, s.n)
	for _, hi := range slices.Sorted(maps.Keys(s.chunks)) {
		for w, word := range s.chunks[hi] {
			for ; word != 0; word &= word - 1 {
				pgno := hi*chunkPages + uint32(w*64+bits.TrailingZeros64(word))
				if pgno > last {
					return pages
				}
				pages = append(pages, pgno)
			}
		}
	}
	return pages
}
