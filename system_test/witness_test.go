package system

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"
)

// witness asks one process of a node without a pause whether it is ready, and as soon as it says so
// for the rows it has. From the moment a node has failed it must not say so any more, and at no
// moment while it lacks what was acknowledged before, or has what makes no sense.
type witness struct {
	n     *node
	state string     // a query for the number of rows and whether they make sense
	acked func() int // rows that have been acknowledged
	stop  context.CancelFunc
	done  sync.WaitGroup

	asked, ready, failed int
	lies                 []string
}

// witness starts with the node's process and is ended when that has ended.
func (n *node) witness(state string, acked func() int) *witness {
	ctx, stop := context.WithCancel(context.Background())
	w := &witness{n: n, state: state, acked: acked, stop: stop}
	p := n.proc
	w.done.Go(func() {
		for ctx.Err() == nil {
			select {
			case <-p.done:
				return
			default:
				w.ask()
			}
		}
	})
	n.t.Cleanup(func() { w.stop(); w.done.Wait() }) // also when the test gives up half-way
	return w
}

// end checks what was seen.
func (w *witness) end() {
	w.n.t.Helper()
	w.stop()
	w.done.Wait()
	for _, lie := range w.lies[:min(3, len(w.lies))] {
		w.n.t.Errorf("%s says that it is ready: %s (%d such answers)", w.n.id, lie, len(w.lies))
	}
}

func (w *witness) ask() {
	least := w.acked()
	a, err := w.n.do(requestLimit, http.MethodGet, "/readyz?sync&timeout=500ms", "", "")
	if err != nil {
		<-time.After(time.Millisecond) // what refuses connections does so fast
		return
	}
	w.asked++
	if a.status != http.StatusOK {
		if strings.Contains(a.body, "node not ok") {
			w.failed++
		}
		return
	}
	w.ready++
	if w.failed > 0 {
		w.lies = append(w.lies, "it had failed before")
	}
	rows, err := w.n.tryQuery("none", w.state)
	if err != nil {
		return // it has ended or failed in the meantime
	}
	var count int
	if _, err := fmt.Sscanf(rows[0], "%d|1", &count); err != nil || count < least {
		w.lies = append(w.lies, fmt.Sprintf("it has %q after %d rows had been acknowledged", rows[0], least))
	}
}
