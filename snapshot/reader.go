package snapshot

import (
	"io"
	"sync"

	"github.com/hashicorp/raft"
)

// reader streams one snapshot as a complete image. It belongs to one goroutine.
type reader struct {
	meta    *raft.SnapshotMeta
	merge   *merge
	rest    []byte // of the current unit
	err     error
	report  func(error) // told of the error that ended reading
	release func()      // returns the pin; once
}

// Read implements io.Reader. Every byte it returns has been verified; the trailer comes only
// after the digests of all files have been.
func (r *reader) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		if len(r.rest) == 0 {
			if r.err == nil {
				r.fill()
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

// fill fetches the next unit.
func (r *reader) fill() {
	if r.rest, r.err = r.merge.next(); r.err != nil {
		r.rest = nil
		r.report(r.err)
	}
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

// newReader opens the files of chain, which the caller has pinned; release returns the pin, also
// after an error.
func (s *Store) newReader(chain []link, release func()) (*reader, error) {
	head := &chain[len(chain)-1]
	m, err := openMerge(s.fs, s.dir, chain, head.header().image())
	if err != nil {
		release()
		s.report(err)
		return nil, err
	}
	return &reader{meta: head.meta(), merge: m, report: s.report, release: sync.OnceFunc(release)}, nil
}
