package system

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// ledger writes rows from several clients at once and remembers which were acknowledged. Its
// table has no key and its counter is not idempotent, so a write that is applied twice shows.
type ledger struct {
	mu    sync.Mutex
	tried map[row]bool // whether it was acknowledged
	acked int
	stop  context.CancelFunc
	done  sync.WaitGroup
}

// row identifies one write; no write is sent twice.
type row struct{ client, seq int }

// newLedger creates the tables.
func newLedger(n *node) *ledger {
	n.t.Helper()
	n.execute(
		"CREATE TABLE ledger (client INTEGER, seq INTEGER, noise INTEGER)",
		"CREATE TABLE counter (n INTEGER)",
		"INSERT INTO counter VALUES (0)",
	)
	return &ledger{tried: map[row]bool{}}
}

// begin starts clients that write through any node until end is called.
func (l *ledger) begin(c cluster, clients int, seed uint64) {
	ctx, stop := context.WithCancel(context.Background())
	l.stop = stop
	c[0].t.Cleanup(func() { l.end() }) // also when the test gives up half-way
	for i := range clients {
		l.done.Go(func() { l.write(ctx, c, i, rand.New(rand.NewPCG(seed, uint64(i)))) })
	}
}

// end stops the clients and waits for their last answers.
func (l *ledger) end() {
	l.stop()
	l.done.Wait()
}

func (l *ledger) write(ctx context.Context, c cluster, client int, rng *rand.Rand) {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for seq := 0; ; seq++ {
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
		r := row{client, seq}
		l.note(r, false)
		_, err := c[rng.IntN(len(c))].sql(3*time.Second, "/db/execute?transaction&timeout=2s",
			[]any{"INSERT INTO ledger VALUES (?, ?, random())", client, seq},
			"UPDATE counter SET n = n + 1")
		if err != nil {
			pause.Reset(time.Duration(rng.IntN(100)) * time.Millisecond) // do not hammer a cluster without leader
			continue
		}
		l.note(r, true)
		pause.Reset(0)
	}
}

func (l *ledger) note(r row, acked bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tried[r] = acked
	if acked {
		l.acked++
	}
}

// progress waits until that many more writes have been acknowledged.
func (l *ledger) progress(t *testing.T, more int) {
	t.Helper()
	count := func() int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.acked
	}
	start := count()
	within(t, formLimit, fmt.Sprintf("%d more writes are acknowledged", more), func() error {
		if got := count() - start; got < more {
			return fmt.Errorf("only %d so far", got)
		}
		return nil
	})
}

// verify checks, on every node, that each acknowledged write is there exactly once and each other
// at most once, and that all nodes are equal. The clients must have ended.
func (l *ledger) verify(c cluster) {
	t := c[0].t
	t.Helper()
	c.equal()
	for _, n := range c {
		found := map[row]int{}
		for _, text := range n.query("none", "SELECT client, seq, count(*) FROM ledger GROUP BY 1, 2") {
			r, count := parseRow(t, text)
			found[r] = count
			if _, ok := l.tried[r]; !ok {
				t.Errorf("%s: %+v is there but was never written", n.id, r)
			}
		}
		total := 0
		for r, acked := range l.tried {
			total += found[r]
			if acked && found[r] != 1 {
				t.Errorf("%s: acknowledged %+v is there %d times", n.id, r, found[r])
			}
			if !acked && found[r] > 1 {
				t.Errorf("%s: unacknowledged %+v is there %d times", n.id, r, found[r])
			}
		}
		if got := n.query("none", "SELECT n FROM counter")[0]; got != strconv.Itoa(total) {
			t.Errorf("%s: counter = %s; want %d, the number of rows", n.id, got, total)
		}
	}
	t.Logf("%d writes tried, %d acknowledged", len(l.tried), l.acked)
}

// parseRow reads "client|seq|count".
func parseRow(t *testing.T, text string) (row, int) {
	t.Helper()
	var nums [3]int
	for i, field := range strings.SplitN(text, "|", 3) {
		n, err := strconv.Atoi(field)
		if err != nil {
			t.Fatalf("row %q: %v", text, err)
		}
		nums[i] = n
	}
	return row{nums[0], nums[1]}, nums[2]
}
