package certs

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// A window, and the lines that may be logged in it.
const (
	complaintWindow = time.Minute
	complaintLines  = 30
	complaintSame   = 3 // of these for one reason, so that one does not hide another
)

// Complaints logs warnings whose number others decide: three a minute for each reason, thirty in all, and how many were
// left out. It is safe for concurrent use.
type Complaints struct {
	log *slog.Logger

	mu      sync.Mutex
	begun   time.Time      // of the window; guarded by mu
	lines   int            // in it; guarded by mu
	reasons map[string]int // lines in it by reason, at most complaintLines; guarded by mu
	omitted int            // since the last line; guarded by mu
}

// NewComplaints returns Complaints that go to log.
func NewComplaints(log *slog.Logger) *Complaints { return &Complaints{log: log} }

// Warn logs a line with reason as its err, unless there were too many.
func (c *Complaints) Warn(msg, reason string, attrs ...slog.Attr) {
	omitted, ok := c.take(time.Now(), reason)
	if !ok {
		return
	}
	attrs = append(attrs, slog.String("err", reason))
	if omitted > 0 {
		attrs = append(attrs, slog.Int("omitted", omitted))
	}
	c.log.LogAttrs(context.Background(), slog.LevelWarn, msg, attrs...)
}

// take reports whether there is room for a line, and how many had none before it.
func (c *Complaints) take(now time.Time, reason string) (omitted int, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Sub(c.begun) >= complaintWindow {
		c.begun, c.lines, c.reasons = now, 0, map[string]int{}
	}
	if c.lines == complaintLines || c.reasons[reason] == complaintSame {
		c.omitted++
		return 0, false
	}
	c.lines++
	c.reasons[reason]++
	omitted, c.omitted = c.omitted, 0
	return omitted, true
}
