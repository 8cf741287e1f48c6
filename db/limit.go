package db

import (
	"sync"
	"time"
)

// limit interrupts what has run for too long. A nil limit never does.
type limit struct {
	left    time.Duration // when the timer was last set; of the goroutine that runs the query
	since   time.Time     // it was set
	timer   *time.Timer
	mu      sync.Mutex
	expired bool // guarded by mu
	ended   bool // guarded by mu; nothing may be interrupted any more
}

// newLimit calls interrupt after d, unless end is called before.
func newLimit(d time.Duration, interrupt func()) *limit {
	l := &limit{left: d, since: time.Now()}
	l.timer = time.AfterFunc(d, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if !l.ended {
			l.expired = true
			interrupt()
		}
	})
	return l
}

// over says whether the time is over.
func (l *limit) over() bool {
	if l == nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.expired
}

// pause stops the clock until resume.
func (l *limit) pause() {
	if l != nil && l.timer.Stop() {
		l.left -= time.Since(l.since)
	}
}

func (l *limit) resume() {
	if l != nil && !l.over() {
		l.since = time.Now()
		l.timer.Reset(l.left)
	}
}

// end returns when nothing will be interrupted any more.
func (l *limit) end() {
	if l == nil {
		return
	}
	l.timer.Stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
}
