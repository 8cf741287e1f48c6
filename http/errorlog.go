package http

import (
	"context"
	"log"
	"log/slog"
	"strings"

	"rqlited/internal/certs"
)

// errorLog takes what net/http has to say, a line of text at a time, into the log. Most of it is the doing of
// clients, so that it is not let out at any rate.
type errorLog struct {
	log   *slog.Logger
	lines *certs.Complaints
}

func newErrorLog(l *slog.Logger) *log.Logger {
	return log.New(errorLog{l, certs.NewComplaints(l)}, "", 0)
}

func (e errorLog) Write(b []byte) (int, error) {
	text := strings.TrimSuffix(string(b), "\n")
	rest, handshake := strings.CutPrefix(text, "http: TLS handshake error from ")
	if !handshake {
		e.lines.Warn("http server", text)
		return len(b), nil
	}
	client, reason, _ := strings.Cut(rest, ": ") // no address holds this
	if reason == "EOF" || strings.HasSuffix(reason, "connection reset by peer") {
		// It connected and hung up, as those do who only look whether the port is open.
		e.log.LogAttrs(context.Background(), slog.LevelDebug, "client hung up before TLS", slog.String("client", client))
		return len(b), nil
	}
	e.lines.Warn("tls handshake failed", reason, slog.String("client", client))
	return len(b), nil
}
