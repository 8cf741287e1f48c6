package main

import (
	"errors"
	"io"
	"log/slog"
)

// logSettings say what is logged and how.
type logSettings struct {
	level  slog.Level
	format logFormat
}

// logFormat is the form of a line of the log.
type logFormat string

const (
	logText logFormat = "text"
	logJSON logFormat = "json"
)

// MarshalText implements encoding.TextMarshaler.
func (f logFormat) MarshalText() ([]byte, error) { return []byte(f), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (f *logFormat) UnmarshalText(text []byte) error {
	v := logFormat(text)
	if v != logText && v != logJSON {
		return errors.New("want text or json")
	}
	*f = v
	return nil
}

func (s logSettings) logger(w io.Writer) *slog.Logger {
	opts := &slog.HandlerOptions{Level: s.level}
	if s.format == logJSON {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}
