package snapshot

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"path/filepath"

	"rqlited/internal/vfs"
)

// mergeBuffers is how many bytes the buffers of a merge take together, unless its files have pages
// so large that one of each file takes more; with maxDeltas files that stays below 16 MiB.
const mergeBuffers = 8 << 20

// merge produces the units of one stream from those of several, each page from the newest that has
// it: an image from a whole chain, or a delta from a run of deltas. Every file is read from
// beginning to end, side by side.
type merge struct {
	header  Header
	sources []*source // oldest first
	newest  *source   // the record produced last is from here
	pgno    uint32    // of that record
	records uint32    // produced
	hash    hash.Hash
	begun   bool
	done    bool
}

// source is a file on its way through a merge.
type source struct {
	link *link
	file vfs.File
	dec  *decoder
	unit []byte // the current record; nil before the first and after the last
	pgno uint32 // of unit
	end  bool   // the trailer has been read and matches the manifest
}

// openMerge opens the files of run, to produce what h announces.
func openMerge(fsys vfs.FS, dir string, run []link, h Header) (*merge, error) {
	m := &merge{header: h, hash: sha256.New()}
	for i := range run {
		s, err := openSource(fsys, dir, &run[i], mergeBuffers/len(run))
		if err != nil {
			return nil, errors.Join(err, m.close())
		}
		m.sources = append(m.sources, s)
	}
	return m, nil
}

// openSource opens a file, to be read through a buffer of about the given size.
func openSource(fsys vfs.FS, dir string, l *link, buffer int) (*source, error) {
	f, err := fsys.Open(filepath.Join(dir, l.File))
	if err != nil {
		return nil, damaged(l.File, err)
	}
	dec, err := newDecoder(f, min(buffer, readBuffer))
	if err == nil && dec.header != l.header() {
		err = fmt.Errorf("%w: header is not the one in the manifest", ErrMalformed)
	}
	if err != nil {
		return nil, errors.Join(damaged(l.File, err), f.Close())
	}
	return &source{link: l, file: f, dec: dec}, nil
}

// next returns the next unit, valid until the call after; io.EOF after the trailer.
func (m *merge) next() (unit []byte, err error) {
	switch {
	case m.done:
		return nil, io.EOF
	case !m.begun:
		m.begun = true
		unit = appendHeader(nil, m.header)
	case m.records < m.header.Records:
		m.records++
		unit, err = m.record()
	default:
		return m.trailer()
	}
	m.hash.Write(unit)
	return unit, err
}

// record returns the next record. Records say nothing of the stream they are in, so they can be
// passed on as they are.
func (m *merge) record() ([]byte, error) {
	more, err := m.step()
	if err != nil {
		return nil, err
	}
	if !more || !m.header.Delta && m.pgno != m.records {
		return nil, fmt.Errorf("%w: no file has page %d", ErrDamaged, m.records)
	}
	return m.newest.unit, nil
}

// step finds the newest record of the first page behind the last one that some file has and that
// the result still holds, and reports whether there is any.
func (m *merge) step() (bool, error) {
	m.newest = nil
	for _, s := range m.sources {
		for !s.end && s.pgno <= m.pgno {
			if err := s.advance(); err != nil {
				return false, err
			}
		}
		if !s.end && (m.newest == nil || s.pgno <= m.newest.pgno) { // of equals, the newer one
			m.newest = s
		}
	}
	if m.newest == nil || m.newest.pgno > m.header.Pages {
		return false, nil
	}
	m.pgno = m.newest.pgno
	return true, nil
}

// finish reads all files to their ends, so that their digests are known to be right.
func (m *merge) finish() error {
	for _, s := range m.sources {
		if err := s.finish(); err != nil {
			return err
		}
	}
	return nil
}

// trailer declares the result complete.
func (m *merge) trailer() ([]byte, error) {
	if err := m.finish(); err != nil {
		return nil, err
	}
	m.newest, m.done = nil, true
	return appendTrailer(nil, digest(m.hash.Sum(nil))), nil
}

// close closes the files.
func (m *merge) close() error {
	var errs []error
	for _, s := range m.sources {
		errs = append(errs, s.file.Close())
	}
	return errors.Join(errs...)
}

// advance reads the next record, or the end of the file.
func (s *source) advance() error {
	unit, err := s.dec.next()
	if err != nil {
		return damaged(s.link.File, err)
	}
	if !s.dec.done {
		s.unit, s.pgno = unit, binary.BigEndian.Uint32(unit)
		return nil
	}
	s.unit, s.end = nil, true
	if s.dec.sum != s.link.Stream {
		return damaged(s.link.File, fmt.Errorf("%w: content is not the one in the manifest", ErrMalformed))
	}
	if err := s.dec.end(); err != nil {
		return damaged(s.link.File, err)
	}
	return nil
}

// finish reads the rest.
func (s *source) finish() error {
	for !s.end {
		if err := s.advance(); err != nil {
			return err
		}
	}
	return nil
}
