package cluster

import (
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// TestPoolIdle puts connections back and looks at how many are kept.
func TestPoolIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewClient(ClientConfig{})
		p, err := c.enter("peer")
		if err != nil {
			t.Fatal(err)
		}
		put := func(n int) {
			for range n {
				ours, theirs := net.Pipe()
				theirs.Close()
				p.slots <- struct{}{}
				p.open++
				c.give(p, ours)
			}
		}
		expect := func(when string, idle int) {
			t.Helper()
			want := PoolStatus{Idle: idle, MaxOpen: maxOpen, Open: idle}
			if got := c.Pools()["peer"]; got != want || len(p.slots) != 0 {
				t.Errorf("%s: %+v, %d in use; want %+v, 0 in use", when, got, len(p.slots), want)
			}
		}
		put(maxIdle + 5)
		expect("full", maxIdle)
		time.Sleep(maxIdleTime)
		put(3)
		expect("after a pause", 3)
		c.leave("peer", p)
		expect("unused", 3)
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if p.open != 0 || len(p.idle) != 0 {
			t.Errorf("%d connections are open after Close", p.open)
		}
	})
}
