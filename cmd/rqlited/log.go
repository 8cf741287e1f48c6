package main

import (
	"io"
	"log/slog"
)

// logSettings say what is logged and how.
type logSettings struct {
	level  slog.Level
	format string // "text" or "json"
}

func (s logSettings) logger(w io.Writer) *slog.Logger {
	opts := &slog.HandlerOptions{Level: s.level}
	if s.format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}
