package http

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
	"unsafe"

	"rqlited/command"
	"rqlited/internal/budget"
)

// firstRead is the memory, in bytes, that a body gets before any of it has arrived. It is free, also while it
// is copied.
const firstRead = budget.Free / 4

// readBody reads the whole body, which may be as long as the configuration says, and may take memory as
// long as the bodies of others leave some. A client that stops sending is given up after the stall
// timeout, however much it has sent.
func (s *Server) readBody(w http.ResponseWriter, c *call) ([]byte, error) {
	limit := s.cfg.Limits.Body
	if c.ContentLength > limit {
		w.Header().Set("Connection", "close") // rather than read what nobody wants
		return nil, tooLarge("request body is larger than %d bytes", limit)
	}
	if err := c.claim.Fits(c.ContentLength); err != nil {
		w.Header().Set("Connection", "close")
		return nil, busy("%s", err)
	}
	defer connOf(c.Context()).waitsFor()()
	body := &stallReader{
		r:    http.MaxBytesReader(w, c.Body, limit),
		conn: http.NewResponseController(w),
		wait: s.cfg.Limits.Stall,
	}
	text, err := readAll(body, int(c.ContentLength), c.claim)
	if err = errors.Join(err, body.done()); err == nil {
		err = c.claim.Raise(bodyMemory(text))
	}
	if err == nil {
		return text, nil
	}
	if full, ok := errors.AsType[*budget.FullError](err); ok {
		w.Header().Set("Connection", "close")
		return nil, busy("%s", full)
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, tooLarge("request body is larger than %d bytes", limit)
	}
	return nil, s.unsent(w, err)
}

// readAll reads all of r, which has as many bytes as expected if that is not negative. What it allocates is
// claimed before, and grows with what has arrived rather than with what is expected.
func readAll(r io.Reader, expected int, claim *budget.Claim) ([]byte, error) {
	var text []byte
	for size := firstRead; ; size = 2 * cap(text) {
		if expected >= 0 {
			size = min(size, expected+1) // a byte more, to see the end
		}
		if err := claim.Raise(int64(cap(text) + size)); err != nil { // both while one is copied
			return nil, err
		}
		text = append(make([]byte, 0, size), text...)
		for len(text) < cap(text) {
			n, err := r.Read(text[len(text):cap(text)])
			text = text[:len(text)+n]
			if err == io.EOF {
				return text, nil
			}
			if err != nil {
				return nil, err
			}
		}
		if len(text) > expected && expected >= 0 {
			return nil, errors.New("body is longer than its length") // net/http sees to it
		}
	}
}

// bodyMemory returns what text takes together with the statements that it may hold. A comma in it may be
// the end of a value that is shorter than what stands for it in memory.
func bodyMemory(text []byte) int64 {
	const perValue = int64(unsafe.Sizeof(command.Statement{}))
	values := min(bytes.Count(text, []byte{','}), command.MaxStatements+command.MaxParams)
	return int64(cap(text)+len(text)) + int64(values)*perValue
}

// unsent returns what a client is told whose body ended with err before its end.
func (s *Server) unsent(w http.ResponseWriter, err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		w.Header().Set("Connection", "close") // what is missing will not come
		return &statusError{http.StatusRequestTimeout, fmt.Sprintf("client stopped sending the request body for %s", s.cfg.Limits.Stall)}
	}
	return badRequest("read request body: %s", err)
}

// stallReader reads from a connection of a client that may fall silent.
type stallReader struct {
	r    io.Reader
	conn *http.ResponseController
	wait time.Duration
}

// Read moves the deadline ahead: it bounds silence, not the time for the whole body.
func (sr *stallReader) Read(b []byte) (int, error) {
	if err := sr.deadline(time.Now().Add(sr.wait)); err != nil {
		return 0, err
	}
	return sr.r.Read(b)
}

// done lifts the deadline: while the request is answered, net/http reads on to notice that the
// client goes away, and would take an old deadline for that.
func (sr *stallReader) done() error { return sr.deadline(time.Time{}) }

func (sr *stallReader) deadline(t time.Time) error {
	err := sr.conn.SetReadDeadline(t)
	if errors.Is(err, http.ErrNotSupported) {
		return nil // not a connection: nothing to wait for
	}
	return err
}
