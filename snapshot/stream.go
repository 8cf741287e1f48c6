package snapshot

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"rqlited/internal/vfs"
)

// ioBuffer is the size in bytes of the pieces in which files are written.
const ioBuffer = 256 << 10

// readBuffer is the size in bytes of the pieces in which a stream is read.
const readBuffer = 64 << 10

// bufferSize returns the size of a buffer for a stream, which is no larger than limit.
func (h Header) bufferSize(limit int) int { return int(min(int64(limit), h.streamSize())) }

// Pages yields the pages of a database, or of a change to it, once.
type Pages interface {
	// Header says what follows.
	Header() Header

	// Next puts the next page in buf, which holds at least PageSize bytes, and returns its
	// number. Numbers ascend, beginning with 1 or higher. After Header().Records pages it
	// returns io.EOF.
	Next(buf []byte) (pgno uint32, err error)
}

// WriteStream writes p to w as a stream. If p does not keep to its own header, the error is
// ErrMalformed and w has got a stream that every reader refuses. Errors of p and w are returned.
func WriteStream(w io.Writer, p Pages) error {
	h := p.Header()
	if err := h.validate(); err != nil {
		return err
	}
	// The parser checks what is written by the same code that will read it.
	var check parser
	bw := bufio.NewWriterSize(w, h.bufferSize(ioBuffer))
	put := func(unit []byte) error {
		if err := check.accept(unit); err != nil {
			return err
		}
		_, err := bw.Write(unit)
		return err
	}
	if err := put(appendHeader(nil, h)); err != nil {
		return err
	}
	record := make([]byte, recordHeaderSize+h.PageSize)
	for range h.Records {
		pgno, err := p.Next(record[recordHeaderSize:])
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("%w: pages end early: %d of %d", ErrMalformed, check.records, h.Records)
		}
		if err != nil {
			return err
		}
		sealRecord(record, pgno)
		if err := put(record); err != nil {
			return err
		}
	}
	if _, err := p.Next(record[recordHeaderSize:]); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: more pages than the %d announced (%v)", ErrMalformed, h.Records, err)
	}
	check.hash.Sum(check.sum[:0])
	if err := put(appendTrailer(nil, check.sum)); err != nil {
		return err
	}
	return bw.Flush()
}

// decoder pulls the units of a stream out of a reader.
type decoder struct {
	parser
	r    *bufio.Reader
	used int // bytes of the buffer that hold the unit returned last
}

// newDecoder reads the header of the stream in r. It will hold buffer bytes in memory, or one unit.
func newDecoder(r io.Reader, buffer int) (*decoder, error) {
	var unit [headerSize]byte
	if _, err := io.ReadFull(r, unit[:]); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fmt.Errorf("%w: it ends within its header", ErrMalformed)
	} else if err != nil {
		return nil, err
	}
	d := &decoder{}
	if err := d.accept(unit[:]); err != nil {
		return nil, err
	}
	buffer = d.header.bufferSize(max(buffer, recordHeaderSize+d.header.PageSize)) // bounded by validate
	d.r = bufio.NewReaderSize(r, buffer)
	return d, nil
}

// next returns the next unit, valid until the call after; io.EOF after the trailer.
func (d *decoder) next() ([]byte, error) {
	n := d.need()
	if n == 0 {
		return nil, io.EOF
	}
	d.skip()
	unit, err := d.r.Peek(n)
	if errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: it ends after %d of %d records", ErrMalformed, d.records, d.header.Records)
	}
	if err != nil {
		return nil, err
	}
	d.used = n
	return unit, d.accept(unit)
}

// skip gives up the unit returned last.
func (d *decoder) skip() {
	_, _ = d.r.Discard(d.used) // it is in the buffer
	d.used = 0
}

// end fails unless the reader ends where the stream does.
func (d *decoder) end() error {
	d.skip()
	switch _, err := d.r.ReadByte(); {
	case err == nil:
		return fmt.Errorf("%w: bytes follow the trailer", ErrMalformed)
	case errors.Is(err, io.EOF):
		return nil
	default:
		return err
	}
}

// Restore writes the database that the stream r holds to image, an empty file, as SQLite would
// have it on disk, and syncs it. It returns what it has read.
//
// An error that is ErrMalformed or ErrNotImage means that r is at fault. After any error image
// is worthless. If ctx ends first, Restore returns its cause.
func Restore(ctx context.Context, r io.Reader, image vfs.File) (Header, error) {
	if size, err := image.Size(); err != nil {
		return Header{}, err
	} else if size != 0 {
		return Header{}, fmt.Errorf("snapshot: file to restore into has %d bytes already", size)
	}
	d, err := newDecoder(r, readBuffer)
	if err != nil {
		return Header{}, err
	}
	if d.header.Delta {
		return Header{}, ErrNotImage
	}
	// An image has each page once and in order, so its pages, one after the other, are the file.
	w := bufio.NewWriterSize(image, d.header.bufferSize(ioBuffer))
	for d.records < d.header.Records {
		if ctx.Err() != nil {
			return Header{}, context.Cause(ctx)
		}
		unit, err := d.next()
		if err != nil {
			return Header{}, err
		}
		if _, err := w.Write(unit[recordHeaderSize:]); err != nil {
			return Header{}, err
		}
	}
	if _, err := d.next(); err != nil { // the trailer
		return Header{}, err
	}
	if err := d.end(); err != nil {
		return Header{}, err
	}
	if err := w.Flush(); err != nil {
		return Header{}, err
	}
	// The caller renames image over its database next, which must not expose unwritten pages.
	if err := vfs.Sync(image); err != nil {
		return Header{}, err
	}
	return d.header, nil
}

// chainDigest is the identity of a snapshot's content: of an image by itself, or of a delta on
// top of its parent. Compaction rewrites files but keeps it.
func chainDigest(parent digest, delta bool, stream digest) digest {
	h := sha256.New()
	if delta {
		h.Write([]byte("delta\n"))
		h.Write(parent[:])
	} else {
		h.Write([]byte("image\n"))
	}
	h.Write(stream[:])
	return digest(h.Sum(nil))
}
