package snapshot

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"path/filepath"
	"sync"

	"github.com/hashicorp/raft"

	"rqlited/internal/vfs"
)

// reader streams one snapshot as a complete image. It belongs to one goroutine.
type reader struct {
	meta    *raft.SnapshotMeta
	merge   *merge
	rest    []byte // of the current unit
	err     error
	release func() // returns the pin; once
}

// Read implements io.Reader. Every byte it returns has been verified; the trailer comes only
// after the digests of all files have been.
func (r *reader) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		if len(r.rest) == 0 {
			if r.err == nil {
				r.rest, r.err = r.merge.next()
			}
			if r.err != nil {
				break
			}
		}
		c := copy(p[n:], r.rest)
		r.rest = r.rest[c:]
		n += c
	}
	if n > 0 {
		return n, nil
	}
	return 0, r.err
}

// Close lets the store delete the files, if they have been superseded.
func (r *reader) Close() error {
	defer r.release()
	r.rest, r.err = nil, errReaderClosed
	return r.merge.close()
}

// MetaOf returns the description of the snapshot that rc reads, if rc is a reader of a Store, also
// inside the wrappers that Raft puts around it. A state machine that is told to restore learns
// this way what it restores.
func MetaOf(rc io.ReadCloser) (raft.SnapshotMeta, bool) {
	for {
		switch v := rc.(type) {
		case *reader:
			meta := *v.meta
			meta.Configuration = meta.Configuration.Clone()
			return meta, true
		case raft.ReadCloserWrapper:
			rc = v.WrappedReadCloser()
		default:
			return raft.SnapshotMeta{}, false
		}
	}
}

// newReader opens the files of chain, which the caller has pinned; release returns the pin.
func newReader(fsys vfs.FS, dir string, chain []link, release func()) (*reader, error) {
	m, err := openMerge(fsys, dir, chain)
	if err != nil {
		release()
		return nil, err
	}
	return &reader{meta: chain[len(chain)-1].meta(), merge: m, release: sync.OnceFunc(release)}, nil
}

// merge produces the units of an image from the files of a chain: each page from the newest file
// that has it. Every file is read from beginning to end, side by side.
type merge struct {
	header  Header // of the image
	sources []*source
	page    uint32 // last page produced
	hash    hash.Hash
	begun   bool
	done    bool
}

// source is a file of the chain on its way through the merge.
type source struct {
	link *link
	file vfs.File
	dec  *decoder
	unit []byte // the current record; nil before the first and after the last
	pgno uint32 // of unit
	end  bool   // the trailer has been read and matches the manifest
}

func openMerge(fsys vfs.FS, dir string, chain []link) (*merge, error) {
	m := &merge{header: chain[len(chain)-1].header().image(), hash: sha256.New()}
	for i := range chain {
		s, err := openSource(fsys, dir, &chain[i])
		if err != nil {
			return nil, errors.Join(err, m.close())
		}
		m.sources = append(m.sources, s)
	}
	return m, nil
}

func openSource(fsys vfs.FS, dir string, l *link) (*source, error) {
	f, err := fsys.Open(filepath.Join(dir, l.File))
	if err != nil {
		return nil, err
	}
	dec, err := newDecoder(bufio.NewReaderSize(f, l.header().bufferSize(readBuffer)))
	if err == nil && dec.header != l.header() {
		err = fmt.Errorf("%w: header is not the one in the manifest", ErrMalformed)
	}
	if err != nil {
		return nil, errors.Join(damaged(l.File, err), f.Close())
	}
	return &source{link: l, file: f, dec: dec}, nil
}

// next returns the next unit of the image, valid until the call after; io.EOF after the trailer.
func (m *merge) next() (unit []byte, err error) {
	switch {
	case m.done:
		return nil, io.EOF
	case !m.begun:
		m.begun = true
		unit = appendHeader(nil, m.header)
	case m.page < m.header.Pages:
		m.page++
		unit, err = m.find(m.page)
	default:
		return m.trailer()
	}
	m.hash.Write(unit)
	return unit, err
}

// find returns the newest record of a page. Records say nothing of the stream they are in, so
// they can be passed on as they are.
func (m *merge) find(pgno uint32) ([]byte, error) {
	var unit []byte
	for _, s := range m.sources { // oldest first: the last that has the page wins
		if err := s.skipTo(pgno); err != nil {
			return nil, err
		}
		if s.unit != nil && s.pgno == pgno {
			unit = s.unit
		}
	}
	if unit == nil {
		return nil, fmt.Errorf("%w: no file has page %d", ErrDamaged, pgno)
	}
	return unit, nil
}

// trailer reads all files to their ends, so that their digests are known to be right before the
// image is declared complete.
func (m *merge) trailer() ([]byte, error) {
	for _, s := range m.sources {
		for !s.end {
			if err := s.advance(); err != nil {
				return nil, err
			}
		}
	}
	m.done = true
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

// skipTo advances to the first record at or beyond the page.
func (s *source) skipTo(pgno uint32) error {
	for !s.end && s.pgno < pgno {
		if err := s.advance(); err != nil {
			return err
		}
	}
	return nil
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
