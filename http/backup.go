package http

import (
	"bufio"
	"compress/gzip"
	"errors"
	"net/http"
	"strings"
	"time"

	"rqlited/command"
)

// backup serves GET /db/backup: a copy of the database, as a SQLite file or as SQL.
func (s *Server) backup(w http.ResponseWriter, c *call) error {
	req, ctype := c.params.backup()
	if req.Check() != nil {
		return &statusError{http.StatusInternalServerError, "invalid backup format"}
	}
	f := c.params.forward(c.caller)
	out := &payload{w: w, ctype: ctype, compress: req.Compress}
	err := s.db.Backup(c.Context(), req, f, out)
	if err == nil {
		err = out.end()
	}
	switch {
	case err == nil:
		now := time.Now()
		s.lastBackup.Store(&now)
		return nil
	case out.begun:
		if c.Context().Err() == nil {
			s.log.Warn("backup cut off", "err", err)
		}
		panic(http.ErrAbortHandler) // or the client would take a part for the whole
	case leaderUnknown(err) && f.Never:
		return s.redirect(w, c)
	}
	return remoteError(err, "backup")
}

// backup returns what the parameters ask for, and the Content-Type of that.
func (p *params) backup() (*command.BackupRequest, string) {
	req := &command.BackupRequest{
		Format:   command.BackupBinary,
		Leader:   !p.has("noleader"),
		Vacuum:   p.has("vacuum"),
		Compress: p.has("compress"),
	}
	switch strings.ToLower(p.get("fmt")) {
	case "delete":
		req.Format = command.BackupDelete
	case "sql":
		req.Format = command.BackupSQL
		for name := range strings.SplitSeq(p.get("tables"), ",") {
			if name = strings.TrimSpace(name); name != "" {
				req.Tables = append(req.Tables, name)
			}
		}
		return req, "application/sql"
	}
	return req, "application/octet-stream"
}

// payload is the body of an answer that has a type, and may be compressed, only if there is one.
type payload struct {
	w        http.ResponseWriter
	ctype    string
	compress bool

	begun bool
	z     *gzip.Writer // nil unless compress
	buf   *bufio.Writer
}

func (p *payload) begin() {
	if p.begun {
		return
	}
	p.begun = true
	p.w.Header().Set("Content-Type", p.ctype)
	if p.compress {
		p.buf = bufio.NewWriterSize(p.w, flushAt)
		p.z, _ = gzip.NewWriterLevel(p.buf, gzip.BestSpeed) // the level is valid
	}
}

func (p *payload) Write(b []byte) (int, error) {
	p.begin()
	if p.z != nil {
		return p.z.Write(b)
	}
	return p.w.Write(b)
}

// end completes the body. Without it what is compressed is visibly cut off.
func (p *payload) end() error {
	p.begin()
	if p.z == nil {
		return nil
	}
	return errors.Join(p.z.Close(), p.buf.Flush())
}
