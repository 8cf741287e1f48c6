package http

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"time"
	"unicode/utf8"

	"rqlited/command"
	"rqlited/store"
)

// sqliteMagic is how a SQLite file begins.
const sqliteMagic = "SQLite format"

// load serves POST /db/load. What the body is tells its beginning: a SQLite file, which replaces the
// database, or a script of SQL.
func (s *Server) load(w http.ResponseWriter, c *call) error {
	start := time.Now()
	body := s.newUpload(w, c)
	head, err := body.Peek(len(sqliteMagic))
	if err != nil && err != io.EOF {
		return s.unsent(w, body.err)
	}
	f := form{kind: command.Execute, pretty: c.params.has("pretty"), timings: c.params.has("timings")}
	if string(head) != sqliteMagic {
		c.Body = struct {
			io.Reader
			io.Closer
		}{body, c.Body}
		return s.loadSQL(w, c, f, start)
	}
	servedBy, err := s.db.Load(c.Context(), body, c.ContentLength, c.params.forward(c.caller))
	switch {
	case err == nil:
		w.Header().Set("X-Rqlite-Served-By", s.servedBy(servedBy))
		return f.write(w, nil, "", time.Since(start))
	case body.err != nil:
		return s.unsent(w, body.err)
	case leaderUnknown(err):
		if _, known := s.node.Leader(); known && c.params.has("redirect") {
			return s.redirect(w, c)
		}
		return &statusError{http.StatusInternalServerError, "store not ready"} // rqlite's words
	case errors.Is(err, store.ErrInvalidData):
		return badRequest("%s", store.Text(err))
	}
	return remoteError(err, "load")
}

// loadSQL runs the body as one statement.
func (s *Server) loadSQL(w http.ResponseWriter, c *call, f form, start time.Time) error {
	body, err := s.readBody(w, c)
	if err != nil {
		return err
	}
	if !utf8.Valid(body) { // as validText
		return f.write(w, nil, "string field contains invalid UTF-8", time.Since(start))
	}
	req, err := command.ScriptRequest(string(body))
	if err != nil {
		return tooLarge("%s", err)
	}
	req.Timings = f.timings
	req.Forward = c.params.forward(c.caller)
	req.Forward.Load = true
	resp, err := s.db.Do(c.Context(), req)
	switch {
	case err == nil:
		w.Header().Set("X-Rqlite-Served-By", s.servedBy(resp.ServedBy))
		return f.write(w, resp, "", time.Since(start))
	case inBand(err):
		return f.write(w, nil, store.Text(err), time.Since(start))
	case leaderUnknown(err) && req.Forward.Never:
		return s.redirect(w, c)
	}
	return remoteError(err, "load")
}

// boot serves POST /boot: the SQLite file in the body becomes the database of a node that is a cluster on its own.
func (s *Server) boot(w http.ResponseWriter, c *call) error {
	body := s.newUpload(w, c)
	err := s.node.Boot(c.Context(), body)
	switch {
	case err == nil:
		return nil
	case body.err != nil:
		return s.unsent(w, body.err)
	case errors.Is(err, store.ErrInvalidData):
		return badRequest("%s", store.Text(err))
	case errors.Is(err, io.EOF), errors.Is(err, store.ErrNotLeader), errors.Is(err, store.ErrNotSingle),
		errors.Is(err, store.ErrNotOpen), errors.Is(err, store.ErrNotReady):
		return &statusError{http.StatusServiceUnavailable, store.Text(err)}
	}
	return err
}

// upload is a body of any length that is read as it arrives. Its client may not fall silent, but while nobody
// reads it may wait as long as it likes.
type upload struct {
	*bufio.Reader
	client *clientConn
	body   stallReader
	err    error // of the client, other than the end
}

func (s *Server) newUpload(w http.ResponseWriter, c *call) *upload {
	u := &upload{client: connOf(c.Context()), body: stallReader{r: c.Body, conn: http.NewResponseController(w), wait: s.cfg.Limits.Stall}}
	u.Reader = bufio.NewReaderSize(arriving{u}, flushAt)
	return u
}

// arriving reads from the connection.
type arriving struct{ *upload }

func (a arriving) Read(b []byte) (int, error) {
	defer a.client.waitsFor()()
	n, err := a.body.Read(b)
	if lifted := a.body.done(); err == nil {
		err = lifted
	}
	if err != nil && err != io.EOF {
		a.err = err
	}
	return n, err
}
