package db

import (
	"errors"
	"fmt"

	"rqlited/command"
	"rqlited/internal/vfs"
)

const (
	// loadSuffix follows the name of the database in the names of files being loaded.
	loadSuffix = ".load"

	// abandonedAfter is how many further entries end a chunked load that gets no more chunks. It
	// is counted in entries, so that all replicas agree on it.
	abandonedAfter = 100_000

	// maxLoads bounds the chunked loads that may be under way at one time.
	maxLoads = 16

	msgSequence   = "chunk out of sequence"
	msgManyLoads  = "too many chunked loads"
	msgNotADBFile = "invalid SQLite data"
)

// loads are the chunked loads under way. While there is one no capture is made: the chunks before
// it would be missing if the log were shortened behind it. Used by the goroutine of Apply only.
type loads struct {
	streams map[string]*loadStream
	created int // names the files
}

type loadStream struct {
	f    vfs.File
	name string
	last int64  // sequence number of the last chunk
	seen uint64 // DB.entries when it came
}

func (l *loads) open() bool { return len(l.streams) > 0 }

func (l *loads) close() error {
	var errs []error
	for _, s := range l.streams {
		errs = append(errs, s.f.Close())
	}
	clear(l.streams)
	return errors.Join(errs...)
}

// applyLoad replaces the database by a SQLite file. That it is none is a result: every replica
// finds so.
func (d *DB) applyLoad(data []byte) (*command.Response, error) {
	name := d.path + loadSuffix
	if err := writeAll(d.fs, name, data); err != nil {
		return nil, err
	}
	return d.load(name, int64(len(data)))
}

// load replaces the database by the file name, or removes the file if it is not fit for that.
func (d *DB) load(name string, size int64) (*command.Response, error) {
	var err error
	if size == 0 {
		err = ErrNotDatabase
	} else {
		_, err = d.checkImage(name, quickCheck)
	}
	if err == nil {
		// Not synced: no marker vouches for it, and a capture syncs it once it is published.
		return &command.Response{}, d.replaceBy(name, "")
	}
	if !errors.Is(err, ErrNotDatabase) {
		return nil, err
	}
	d.log.Warn("loaded file refused", "err", err)
	return errorResponse(msgNotADBFile), removeIfExists(d.fs, name)
}

// applyChunk adds a chunk to its stream. The first of a stream has number 1 and each later one the
// next; the last makes the database what the stream is. A stream that does not begin with 1 had
// its head before the snapshot that this replica started from, and is ignored.
func (d *DB) applyChunk(c *command.Chunk) (*command.Response, error) {
	if err := d.dropAbandoned(); err != nil {
		return nil, err
	}
	s := d.loads.streams[c.Stream]
	if c.Abort {
		return &command.Response{}, d.dropStream(c.Stream)
	}
	switch {
	case s == nil && c.Sequence != 1:
		return errorResponse(msgSequence), nil
	case s == nil && len(d.loads.streams) >= maxLoads:
		return errorResponse(msgManyLoads), nil
	case s == nil:
		var err error
		if s, err = d.newStream(c.Stream); err != nil {
			return nil, err
		}
	case c.Sequence != s.last+1:
		return errorResponse(msgSequence), d.dropStream(c.Stream)
	}
	if _, err := s.f.Write(c.Data); err != nil {
		return nil, err
	}
	s.last, s.seen = c.Sequence, d.entries
	if !c.Last {
		return &command.Response{}, nil
	}
	size, err := s.f.Size()
	if err = errors.Join(err, s.f.Close()); err != nil {
		return nil, err
	}
	delete(d.loads.streams, c.Stream)
	return d.load(s.name, size)
}

func (d *DB) newStream(id string) (*loadStream, error) {
	if d.loads.streams == nil {
		d.loads.streams = make(map[string]*loadStream)
	}
	d.loads.created++
	s := &loadStream{name: fmt.Sprintf("%s%s-%d", d.path, loadSuffix, d.loads.created)}
	f, err := d.fs.Create(s.name)
	if err != nil {
		return nil, err
	}
	s.f = f
	d.loads.streams[id] = s
	return s, nil
}

func (d *DB) dropStream(id string) error {
	s := d.loads.streams[id]
	if s == nil {
		return nil
	}
	delete(d.loads.streams, id)
	return errors.Join(s.f.Close(), removeIfExists(d.fs, s.name))
}

func (d *DB) dropAbandoned() error {
	for id, s := range d.loads.streams {
		if d.entries-s.seen > abandonedAfter {
			if err := d.dropStream(id); err != nil {
				return err
			}
		}
	}
	return nil
}

func errorResponse(msg string) *command.Response {
	return &command.Response{Results: []command.Result{{Error: msg}}}
}
