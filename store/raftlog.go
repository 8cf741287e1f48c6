package store

import (
	"fmt"
	"log/slog"
	"strings"
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
	return 0, fmt.Errorf("Raft.LogLevel is %q: want DEBUG, INFO, WARN, ERROR or OFF", s)
}
