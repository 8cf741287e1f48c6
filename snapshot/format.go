package snapshot

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
)

// A stream is a header, one record per page in ascending order, and a trailer. Files and network
// streams have this one format. Integers are big-endian; docs/design/snapshot-store.md has the
// tables.
const (
	headerSize       = 32
	recordHeaderSize = 8
	trailerSize      = 8 + sha256.Size

	minPageSize = 512
	maxPageSize = 65536

	flagDelta = 1
)

var (
	headerMagic  = []byte("RQSNAP\x01\n")
	trailerMagic = []byte("RQSEND\x01\n")

	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// digest is the SHA-256 of a stream, or of a chain of them.
type digest [sha256.Size]byte

// Header says what a stream holds. An image has one record for each page of the database; a delta
// has one for each page that differs from its parent, and for each page that the database has
// grown by, also the one that contains byte 2^30, which SQLite never writes.
type Header struct {
	PageSize int    // bytes; a power of two from 512 to 65536
	Pages    uint32 // in the database
	Records  uint32 // in this stream
	Delta    bool
}

func (h Header) validate() error {
	switch {
	case h.PageSize < minPageSize || h.PageSize > maxPageSize || h.PageSize&(h.PageSize-1) != 0:
		return fmt.Errorf("%w: page size is %d", ErrMalformed, h.PageSize)
	case h.Delta && h.Records > h.Pages:
		return fmt.Errorf("%w: %d records for %d pages", ErrMalformed, h.Records, h.Pages)
	case !h.Delta && h.Records != h.Pages:
		return fmt.Errorf("%w: image with %d records for %d pages", ErrMalformed, h.Records, h.Pages)
	}
	return nil
}

// StreamSize returns the length of the stream in bytes, which Raft wants to know before it begins.
func (h Header) StreamSize() int64 { return h.streamSize() }

// streamSize returns the exact length of the stream in bytes. It is below 2^49.
func (h Header) streamSize() int64 {
	return headerSize + int64(h.Records)*int64(recordHeaderSize+h.PageSize) + trailerSize
}

// image returns the header of a complete image of the same database.
func (h Header) image() Header {
	return Header{PageSize: h.PageSize, Pages: h.Pages, Records: h.Pages}
}

func appendHeader(dst []byte, h Header) []byte {
	var flags uint32
	if h.Delta {
		flags = flagDelta
	}
	start := len(dst)
	dst = append(dst, headerMagic...)
	dst = binary.BigEndian.AppendUint32(dst, flags)
	dst = binary.BigEndian.AppendUint32(dst, uint32(h.PageSize))
	dst = binary.BigEndian.AppendUint32(dst, h.Pages)
	dst = binary.BigEndian.AppendUint32(dst, h.Records)
	dst = binary.BigEndian.AppendUint32(dst, 0)
	return binary.BigEndian.AppendUint32(dst, crc32.Checksum(dst[start:], castagnoli))
}

func parseHeader(b []byte) (Header, error) {
	if !bytes.Equal(b[:8], headerMagic) {
		return Header{}, fmt.Errorf("%w: it does not begin like a snapshot", ErrMalformed)
	}
	if crc32.Checksum(b[:28], castagnoli) != binary.BigEndian.Uint32(b[28:]) {
		return Header{}, fmt.Errorf("%w: header checksum does not match", ErrMalformed)
	}
	flags, reserved := binary.BigEndian.Uint32(b[8:]), binary.BigEndian.Uint32(b[24:])
	pageSize := binary.BigEndian.Uint32(b[12:])
	if flags&^flagDelta != 0 || reserved != 0 || pageSize > maxPageSize {
		return Header{}, fmt.Errorf("%w: header asks for flags %#x, %#x, page size %d", ErrMalformed, flags, reserved, pageSize)
	}
	h := Header{
		PageSize: int(pageSize),
		Pages:    binary.BigEndian.Uint32(b[16:]),
		Records:  binary.BigEndian.Uint32(b[20:]),
		Delta:    flags&flagDelta != 0,
	}
	return h, h.validate()
}

// sealRecord fills in the header of the record in b, whose page is in place behind it.
func sealRecord(b []byte, pgno uint32) {
	binary.BigEndian.PutUint32(b, pgno)
	binary.BigEndian.PutUint32(b[4:], recordChecksum(b))
}

// recordChecksum covers the page number and the page.
func recordChecksum(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[:4], castagnoli), castagnoli, b[recordHeaderSize:])
}

// parser checks a stream unit by unit, header, records and trailer, as they pass by. It is the
// only code that decides what a valid stream is: sinks push units into it, readers pull them.
// The zero parser is ready for use.
type parser struct {
	header Header
	begun  bool // the header has been accepted
	done   bool // the trailer has been accepted

	pgno    uint32 // of the last record
	records uint32 // accepted so far
	hash    hash.Hash
	sum     digest // of all that precedes the trailer; valid when done
}

// need returns the exact size of the next unit in bytes; 0 when the stream is complete.
func (p *parser) need() int {
	switch {
	case p.done:
		return 0
	case !p.begun:
		return headerSize
	case p.records < p.header.Records:
		return recordHeaderSize + p.header.PageSize
	}
	return trailerSize
}

// accept checks the next unit, which has the size that need returned. A parser that has returned
// an error must not be used again.
func (p *parser) accept(unit []byte) error {
	switch {
	case p.done:
		return errors.New("snapshot: accept after the end") // a caller that ignores need
	case !p.begun:
		return p.acceptHeader(unit)
	case p.records < p.header.Records:
		return p.acceptRecord(unit)
	}
	return p.acceptTrailer(unit)
}

func (p *parser) acceptHeader(unit []byte) (err error) {
	if p.header, err = parseHeader(unit); err != nil {
		return err
	}
	p.begun = true
	p.hash = sha256.New()
	p.hash.Write(unit)
	return nil
}

func (p *parser) acceptRecord(unit []byte) error {
	pgno := binary.BigEndian.Uint32(unit)
	switch {
	case pgno <= p.pgno || pgno > p.header.Pages:
		return fmt.Errorf("%w: page %d of %d after page %d", ErrMalformed, pgno, p.header.Pages, p.pgno)
	case recordChecksum(unit) != binary.BigEndian.Uint32(unit[4:]):
		return fmt.Errorf("%w: checksum of page %d does not match", ErrMalformed, pgno)
	}
	p.pgno = pgno
	p.records++
	p.hash.Write(unit)
	return nil
}

func (p *parser) acceptTrailer(unit []byte) error {
	p.hash.Sum(p.sum[:0])
	if !bytes.Equal(unit, appendTrailer(nil, p.sum)) {
		return fmt.Errorf("%w: trailer does not match the content", ErrMalformed)
	}
	p.done = true
	return nil
}

func appendTrailer(dst []byte, sum digest) []byte {
	return append(append(dst, trailerMagic...), sum[:]...)
}
