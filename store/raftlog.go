package store

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// levelOff is above every level that anything is logged at.
const levelOff = slog.Level(100)

func parseRaftLevel(s string) (slog.Level, error) {
	switch strings.ToUpper(s) {
	case "TRACE":
		return slog.LevelDebug - 4, nil
	case "DEBUG":
		return slog.LevelDebug, nil
	case "INFO":
		return slog.LevelInfo, nil
	case "WARN":
		return slog.LevelWarn, nil
	case "ERROR", "ERR":
		return slog.LevelError, nil
	case "OFF":
		return levelOff, nil
	}
	return 0, fmt.Errorf("log level of Raft is %q: want DEBUG, INFO, WARN, ERROR or OFF", s)
}

// logBridge passes Raft's messages on to a slog.Logger.
type logBridge struct {
	log     *slog.Logger
	level   slog.Level
	closing <-chan struct{} // after that, what breaks is no news
	failed  <-chan struct{} // likewise: what has failed is told elsewhere, in one line
}

// newRaftLogger returns the logger that Raft is given. Messages below level are dropped.
func newRaftLogger(log *slog.Logger, level slog.Level, closing, failed <-chan struct{}) hclog.Logger {
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Name: "raft", Level: hclog.Off, Output: io.Discard})
	l.RegisterSink(&logBridge{log.With("part", "raft"), level, closing, failed})
	return l
}

// Accept implements hclog.SinkAdapter.
func (b *logBridge) Accept(_ string, level hclog.Level, msg string, args ...any) {
	l := slog.LevelInfo
	switch level {
	case hclog.Trace:
		l = slog.LevelDebug - 4
	case hclog.Debug:
		l = slog.LevelDebug
	case hclog.Warn:
		l = slog.LevelWarn
	case hclog.Error:
		l = slog.LevelError
	}
	switch {
	case slices.Contains(args, any(raft.ErrNothingNewToSnapshot)):
		l = slog.LevelDebug // the node is idle
	case msg == "failed to take snapshot" && strings.Contains(fmt.Sprint(args...), errHashing.Error()):
		l = slog.LevelDebug // a hash takes a moment, and gives way in the end; Raft passes on no more than the text
	case msg == "failed to take snapshot":
		l = slog.LevelWarn // Raft tries again; what is final ends the node, and says so
	}
	select {
	case <-b.closing:
		l = min(l, slog.LevelDebug)
	case <-b.failed:
		l = min(l, slog.LevelDebug)
	default:
	}
	if l < b.level || !b.log.Enabled(context.Background(), l) {
		return
	}
	attrs := make([]any, len(args))
	for i, a := range args {
		if f, ok := a.(hclog.Format); ok && len(f) > 0 {
			a = fmt.Sprintf(fmt.Sprint(f[0]), f[1:]...)
		}
		if s, ok := a.(fmt.Stringer); ok {
			a = s.String() // now: Raft's own objects change under a later reader
		}
		attrs[i] = a
	}
	b.log.Log(context.Background(), l, msg, attrs...)
}
