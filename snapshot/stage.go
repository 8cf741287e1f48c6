package snapshot

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"rqlited/internal/vfs"
)

// stage is a numbered file that is being written and that no manifest names yet. Bytes reach it
// only in units that the parser has accepted. It belongs to one goroutine.
type stage struct {
	store  *Store
	number uint64

	// admit is asked whether the stream is wanted, once its header is known and before the file
	// is created.
	admit func(Header) error

	check parser
	unit  []byte // the beginning of the next unit
	name  string // of the file, once it has been created
	file  vfs.File
	w     *bufio.Writer

	above uint32 // a page number
	grown uint32 // records with higher numbers than above
}

// Write checks p and appends it to the file.
func (g *stage) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		need := g.check.need()
		if need == 0 {
			return written, fmt.Errorf("%w: bytes follow the trailer", ErrMalformed)
		}
		take := min(need-len(g.unit), len(p))
		g.unit = append(g.unit, p[:take]...)
		p = p[take:]
		if len(g.unit) == need {
			if err := g.put(g.unit); err != nil {
				return written, err
			}
			g.unit = g.unit[:0]
		}
		written += take
	}
	return written, nil
}

// put checks one unit and appends it to the file.
func (g *stage) put(unit []byte) error {
	if err := g.check.accept(unit); err != nil {
		return err
	}
	if g.file == nil { // the unit was the header
		if err := g.admit(g.check.header); err != nil {
			return err
		}
		if err := g.create(); err != nil {
			return err
		}
	}
	if g.check.pgno > g.above && !g.check.done {
		g.grown++
	}
	_, err := g.w.Write(unit)
	return err
}

// create makes the file. It takes the store's turn so that Close can rely on no file appearing
// after it has returned.
func (g *stage) create() error {
	s := g.store
	s.turn.Lock()
	defer s.turn.Unlock()
	if err := s.usable(); err != nil {
		return err
	}
	name := filepath.Join(s.dir, fileName(g.number, g.check.header.Delta))
	f, err := s.fs.Create(name)
	if err != nil {
		return err
	}
	g.name, g.file, g.w = name, f, bufio.NewWriterSize(f, g.check.header.bufferSize(ioBuffer))
	return nil
}

// finish makes the complete stream durable under its number. The manifest may name it after.
func (g *stage) finish() error {
	if !g.check.done {
		return fmt.Errorf("%w: it ends after %d of %d records", ErrMalformed, g.check.records, g.check.header.Records)
	}
	if err := g.w.Flush(); err != nil {
		return err
	}
	if err := vfs.Sync(g.file); err != nil { // the bytes: a manifest must not name unwritten data
		return err
	}
	err := g.file.Close()
	g.file = nil
	if err != nil {
		return err
	}
	return vfs.SyncDir(g.store.fs, g.store.dir) // the name: nor a file that a power cut removes
}

// discard deletes the file, if there is one. A crash would leave it to be deleted by the next
// Open, and so may an error.
func (g *stage) discard() {
	if g.name == "" {
		return
	}
	var err error
	if g.file != nil {
		err = g.file.Close()
	}
	if err = errors.Join(err, g.store.fs.Remove(g.name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		g.store.log.Warn("unfinished snapshot file not deleted", "file", g.name, "err", err)
	}
}

// link returns the description of the finished file; the snapshot it ends remains to be named.
func (g *stage) link() link {
	h := g.check.header
	return link{
		File:     fileName(g.number, h.Delta),
		Size:     h.streamSize(),
		PageSize: h.PageSize,
		Pages:    h.Pages,
		Records:  h.Records,
		Stream:   g.check.sum,
	}
}
