package main

import (
	"fmt"
	"sync"
	"time"
)

// write is one small write, as a client saw it.
type write struct {
	begin time.Time
	took  time.Duration
}

// writer writes all the time, one small change after the other.
type writer struct {
	node *node
	stop chan struct{}
	done chan struct{}

	mu     sync.Mutex
	writes []write // guarded by mu
	err    error   // guarded by mu
}

// startWriter begins to write to n until finish is called.
func startWriter(n *node) *writer {
	w := &writer{node: n, stop: make(chan struct{}), done: make(chan struct{})}
	go w.run()
	return w
}

func (w *writer) run() {
	defer close(w.done)
	for i := 0; ; i++ {
		select {
		case <-w.stop:
			return
		default:
		}
		begin := time.Now()
		err := w.node.execute(fmt.Sprintf("INSERT OR REPLACE INTO small VALUES(%d, %d)", i%1000, i))
		w.mu.Lock()
		w.writes = append(w.writes, write{begin, time.Since(begin)})
		w.err = err
		w.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// finish ends the writer and returns why it ended before, if it did.
func (w *writer) finish() error {
	close(w.stop)
	<-w.done
	return w.err
}

// between returns how long the writes took that were under way at some time from begin to end.
func (w *writer) between(begin, end time.Time) []time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	var took []time.Duration
	for _, wr := range w.writes {
		if wr.begin.Before(end) && wr.begin.Add(wr.took).After(begin) {
			took = append(took, wr.took)
		}
	}
	return took
}
