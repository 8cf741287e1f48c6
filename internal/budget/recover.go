package budget

import (
	"net"
	"time"
)

// Recover waits until there are descriptors again besides the last ones, so that the next connection of ln takes none
// of these. That of a connection that has been closed is free only when nobody reads from it any more. If it
// takes longer, relieve closes more of them: else those that have once taken the last descriptors would keep them, each
// making room for the next. It waits for a second at most, since all others may be in use for good.
func Recover(ln net.Listener, relieve func() bool, rest func(time.Duration)) {
	const pause, patience, limit = time.Millisecond, 10, 1000
	for n := 1; n <= limit && Exhausted(ln); n++ {
		if n%patience == 0 {
			relieve()
		}
		rest(pause)
	}
}
