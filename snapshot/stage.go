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
	// is created. Nil wants all.
	admit func(Header) error

	check parser
	unit  []byte // the beginning of the next unit
	file  string // its name, once it has been created
	out   output
	w     *bufio.Writer // to out

	above uint32 // a page number
	grown uint32 // records with higher numbers than above
}

// output is the place in a file where writing goes on.
type output struct {
	file    vfs.File // nil: not open
	cloned  bool     // the file has content that is kept or replaced
	off     int64
	written int64 // bytes
}

func (o *output) Write(p []byte) (n int, err error) {
	if o.cloned {
		n, err = o.file.WriteAt(p, o.off)
	} else {
		n, err = o.file.Write(p)
	}
	o.off += int64(n)
	o.written += int64(n)
	return n, err
}

// clone gives the empty file the content of src, if the disk can, without its being written.
func (o *output) clone(src vfs.File) error {
	err := vfs.Clone(o.file, src)
	if errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	o.cloned = true
	return err
}

// close closes the file, if it is open.
func (o *output) close() error {
	if o.file == nil {
		return nil
	}
	err := o.file.Close()
	o.file = nil
	return err
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
	if g.w == nil { // the unit was the header
		if g.admit != nil {
			if err := g.admit(g.check.header); err != nil {
				return err
			}
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

// keep checks one unit that is in the file already, because that was cloned.
func (g *stage) keep(unit []byte) error {
	if err := errors.Join(g.check.accept(unit), g.w.Flush()); err != nil {
		return err
	}
	g.out.off += int64(len(unit))
	return nil
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
	name := fileName(g.number, g.check.header.Delta)
	f, err := s.fs.Create(filepath.Join(s.dir, name))
	if err != nil {
		return err
	}
	g.file, g.out.file = name, f
	g.w = bufio.NewWriterSize(&g.out, g.check.header.bufferSize(ioBuffer))
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
	if err := vfs.Sync(g.out.file); err != nil { // the bytes: a manifest must not name unwritten data
		return err
	}
	if err := g.out.close(); err != nil {
		return err
	}
	return vfs.SyncDir(g.store.fs, g.store.dir) // the name: nor a file that a power cut removes
}

// discard deletes the file, if there is one. A crash would leave it to be deleted by the next
// Open; an error leaves it to the store's goroutine.
func (g *stage) discard() {
	if g.file == "" {
		return
	}
	err := errors.Join(g.out.close(), g.store.fs.Remove(filepath.Join(g.store.dir, g.file)))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		g.store.remains([]string{g.file}, err)
		g.store.wake()
	}
}

// link returns the description of the finished file; the snapshot it ends remains to be named.
func (g *stage) link() link {
	h := g.check.header
	return link{
		File:     fileName(g.number, h.Delta),
		PageSize: h.PageSize,
		Pages:    h.Pages,
		Records:  h.Records,
		Stream:   g.check.sum,
	}
}
