package auth

import (
	"runtime"
	"sync/atomic"
	"time"
)

const (
	maxChecks    = 2               // at a time, and never more than half of the processors
	maxWaiting   = 64              // for one of them
	maxWait      = 5 * time.Second // then nobody looks at the password
	complainOnce = int64(time.Minute)
)

// gate bounds what checking passwords costs: guesses, which cost nothing to make, must not keep
// the node from its work.
type gate struct {
	running chan struct{}
	waiting chan struct{}
	refused atomic.Int64

	began      time.Time
	complained atomic.Int64 // when it was last said that somebody was refused, since began
}

// checksAtOnce is how many checks run at a time.
func checksAtOnce() int { return min(maxChecks, max(1, runtime.GOMAXPROCS(0)/2)) }

func newGate() *gate {
	return &gate{
		running: make(chan struct{}, checksAtOnce()),
		waiting: make(chan struct{}, maxWaiting),
		began:   time.Now(),
	}
}

// enter waits for a turn and reports whether it came; then leave ends it.
func (g *gate) enter() bool {
	select {
	case g.running <- struct{}{}:
		return true
	default:
	}
	select {
	case g.waiting <- struct{}{}:
		defer func() { <-g.waiting }()
	default:
		g.refused.Add(1)
		return false
	}
	late := time.NewTimer(maxWait)
	defer late.Stop()
	select {
	case g.running <- struct{}{}:
		return true
	case <-late.C:
		g.refused.Add(1)
		return false
	}
}

func (g *gate) leave() { <-g.running }

// complain reports whether it is time to say again that somebody was refused.
func (g *gate) complain() bool {
	last, now := g.complained.Load(), int64(time.Since(g.began))
	return (last == 0 || now-last >= complainOnce) && g.complained.CompareAndSwap(last, max(1, now))
}
