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
// table has no key and its counters are not idempotent, so a write that is applied twice shows;
// heavy has one row of ten pages per client, which follows from the counter beside it, so a page
// of another state shows.
type ledger struct {
	mu    sync.Mutex
	tried map[row]bool // whether it was acknowledged
	acked int
	begun int // clients so far; each has a number of its own
	noise int // bytes of random text in each row; 0: a random number
	stop  context.CancelFunc
	done  sync.WaitGroup

	verified content // what all nodes had when nobody has written since; else nil
}

// row identifies one write; no write is sent twice.
type row struct{ client, seq int }

// newLedger creates the tables.
func newLedger(n *node) *ledger {
	n.t.Helper()
	n.repeat(
		"CREATE TABLE IF NOT EXISTS ledger (client INTEGER, seq INTEGER, noise INTEGER)",
		"CREATE TABLE IF NOT EXISTS counter (n INTEGER)",
		"INSERT INTO counter SELECT 0 WHERE NOT EXISTS (SELECT * FROM counter)",
		"CREATE TABLE IF NOT EXISTS heavy (client INTEGER PRIMARY KEY, n INTEGER, v TEXT)",
	)
	return &ledger{tried: map[row]bool{}}
}

// heavyEvery says how many writes of a client there are for one that touches its heavy row too.
const heavyEvery = 4

// writeHeavy is the statement for it.
const writeHeavy = `INSERT INTO heavy VALUES (?, 1, printf('%040000d', 1))
	ON CONFLICT(client) DO UPDATE SET n = n + 1, v = printf('%040000d', n + 1)`

// begin starts clients that write through any node until end is called. There may be more after
// that.
func (l *ledger) begin(c cluster, clients int, seed uint64) {
	ctx, stop := context.WithCancel(context.Background())
	l.stop, l.verified = stop, nil
	c[0].t.Cleanup(func() { l.end() }) // also when the test gives up half-way
	for range clients {
		i := l.begun
		l.begun++
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
		stmts := []any{[]any{"INSERT INTO ledger VALUES (?, ?, ?)", client, seq, l.text(rng)}, "UPDATE counter SET n = n + 1"}
		if seq%heavyEvery == 0 {
			stmts = append(stmts, []any{writeHeavy, client})
		}
		_, err := c[rng.IntN(len(c))].sql(3*time.Second, "/db/execute?transaction&timeout=2s", stmts...)
		if err != nil {
			pause.Reset(time.Duration(rng.IntN(100)) * time.Millisecond) // do not hammer a cluster without leader
			continue
		}
		l.note(r, true)
		pause.Reset(0)
	}
}

// text is what fills a row; it is not worth compressing.
func (l *ledger) text(rng *rand.Rand) any {
	if l.noise == 0 {
		return rng.Int64()
	}
	return randomText(rng, l.noise)
}

func randomText(rng *rand.Rand, size int) string {
	const digits = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_"
	text := make([]byte, size)
	for i := range text {
		text[i] = digits[rng.IntN(len(digits))]
	}
	return string(text)
}

func (l *ledger) note(r row, acked bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tried[r] = acked
	if acked {
		l.acked++
	}
}

// acknowledged returns how many writes have been acknowledged.
func (l *ledger) acknowledged() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.acked
}

// progress waits until that many more writes have been acknowledged.
func (l *ledger) progress(t *testing.T, more int) {
	t.Helper()
	start := l.acknowledged()
	within(t, formLimit, fmt.Sprintf("%d more writes are acknowledged", more), func() error {
		if got := l.acknowledged() - start; got < more {
			return fmt.Errorf("only %d so far", got)
		}
		return nil
	})
}

// sound waits until the node says that it is in sync: then it has all that had been acknowledged
// before. And it checks, while the clients go on, what must hold for the content at any moment: no row
// twice, counters and heavy rows as the rows say.
func (l *ledger) sound(n *node) {
	n.t.Helper()
	acked := l.acknowledged()
	n.waitReady(formLimit)
	if err := l.check(n, acked); err != nil {
		n.t.Fatal(err)
	}
}

// check returns an error if fewer rows are there than had been acknowledged, and ends the test if
// what is there is wrong in itself.
func (l *ledger) check(n *node, acked int) error {
	n.t.Helper()
	text := n.query("none", fmt.Sprintf(`SELECT
		count(*), count(DISTINCT client << 32 | seq), (SELECT n FROM counter),
		total(seq %% %d = 0) = (SELECT total(n) FROM heavy),
		(SELECT count(*) FROM heavy WHERE v <> printf('%%040000d', n)) FROM ledger`, heavyEvery))[0]
	var rows, distinct, counter, heavy, torn int
	if _, err := fmt.Sscanf(text, "%d|%d|%d|%d|%d", &rows, &distinct, &counter, &heavy, &torn); err != nil {
		n.t.Fatalf("%s: %q: %v", n.id, text, err)
	}
	if rows != distinct || rows != counter || heavy != 1 || torn != 0 {
		n.t.Fatalf("%s: %d rows, %d different, counter %d, heavy rows agree: %d, torn: %d", n.id, rows, distinct, counter, heavy, torn)
	}
	if rows < acked {
		return fmt.Errorf("%s: %d rows; %d had been acknowledged", n.id, rows, acked)
	}
	return nil
}

// verify checks, on every node, that each acknowledged write is there exactly once and each other
// at most once, and that all nodes are equal, also to what they were when that was checked last, unless
// clients have written since. The clients must have ended.
func (l *ledger) verify(c cluster) {
	t := c[0].t
	t.Helper()
	got := c.equal()
	if l.verified != nil {
		if d := got.diff(l.verified); d != "" {
			t.Errorf("nobody has written since the nodes were equal, but now: %s", d)
		}
	}
	l.verified = got
	for _, n := range c {
		found := map[row]int{}
		for _, text := range n.query("none", "SELECT client, seq, count(*) FROM ledger GROUP BY 1, 2") {
			r, count := parseRow(t, text)
			found[r] = count
			if _, ok := l.tried[r]; !ok {
				t.Errorf("%s: %+v is there but was never written", n.id, r)
			}
		}
		total, heavy := 0, map[int]int{}
		for r, acked := range l.tried {
			total += found[r]
			if r.seq%heavyEvery == 0 {
				heavy[r.client] += found[r]
			}
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
		for _, text := range n.query("none", "SELECT client, n, v = printf('%040000d', n) FROM heavy") {
			r, intact := parseRow(t, text)
			if intact != 1 || r.seq != heavy[r.client] {
				t.Errorf("%s: heavy row of client %d: counter %d, intact %d; want %d, 1", n.id, r.client, r.seq, intact, heavy[r.client])
			}
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
