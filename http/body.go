package http

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"time"
)

// maxPrealloc bounds, in bytes, the memory set aside on the word of a Content-Length header alone.
const maxPrealloc = 1 << 20

// readBody reads the whole body, which may be as long as the configuration says. A client that
// stops sending is given up after the stall timeout, however much it has sent.
func (s *Server) readBody(w http.ResponseWriter, c *call) ([]byte, error) {
	limit := s.cfg.Limits.Body
	if c.ContentLength > limit {
		w.Header().Set("Connection", "close") // rather than read what nobody wants
		return nil, tooLarge("request body is larger than %d bytes", limit)
	}
	var buf bytes.Buffer
	buf.Grow(int(min(max(c.ContentLength, 0), maxPrealloc)) + bytes.MinRead)
	body := &stallReader{
		r:    http.MaxBytesReader(w, c.Body, limit),
		conn: http.NewResponseController(w),
		wait: s.cfg.Limits.Stall,
	}
	_, err := buf.ReadFrom(body)
	if err := errors.Join(err, body.done()); err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return nil, tooLarge("request body is larger than %d bytes", limit)
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			w.Header().Set("Connection", "close") // what is missing will not come
			return nil, &statusError{http.StatusRequestTimeout, "client stopped sending the request body"}
		}
		return nil, badRequest("read request body: %s", err)
	}
	return buf.Bytes(), nil
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
