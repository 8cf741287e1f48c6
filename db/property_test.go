package db

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"rqlited/command"
)

// TestPropertyPrograms applies random programs to three databases, each with a life of its own, and
// demands that they are equal after each entry that all have reached, by their hash; by everything
// SQL sees at marks and at the end; and that each statement has the same result. One lives straight
// through. One is captured, restarted with and without its files, and given entries again. One
// replays the log later, beside readers, collections of garbage and other disturbances.
//
// The entries reach each database in groups of its own. Should a group ever be one transaction of SQLite,
// this is the test that has to find nothing.
func TestPropertyPrograms(t *testing.T) {
	programSeeds(t, []uint64{1, 2}, func(t *testing.T, seed uint64) {
		p := newProperty(t, seed)
		p.straight(150)
		t.Run("moving", func(t *testing.T) {
			t.Parallel()
			p.moving(t)
		})
		t.Run("replayed", func(t *testing.T) {
			t.Parallel()
			p.replayed(t)
		})
	})
}

// property is a log and what it makes of a database that nothing happens to.
type property struct {
	t    *testing.T
	seed uint64
	cfg  Config
	log  []programEntry
	made []outcome // of each entry
}

// outcome is what there is after an entry.
type outcome struct {
	results string
	hash    string
	state   []string // at marks only
	checks  string
}

// marks are so many entries apart.
const marks = 50

func newProperty(t *testing.T, seed uint64) *property {
	return &property{t: t, seed: seed, cfg: Config{ForeignKeys: seed%2 == 0, ReadersGrace: time.Millisecond}}
}

// straight makes the log by applying it.
func (p *property) straight(entries int) {
	d := open(p.t, testPath(p.t), p.cfg)
	w := newEntryWriter(p.seed, d, p.cfg.ForeignKeys)
	for n := range entries {
		e := w.next(p.t)
		o := outcome{results: resultText(apply(p.t, d, e.entry(p.t)))}
		o.hash = hashNow(p.t, d)
		if n%marks == marks-1 || n == entries-1 {
			o.state, o.checks = state(p.t, d), checks(p.t, d)
		}
		p.log, p.made = append(p.log, e), append(p.made, o)
	}
	if strings.Contains(p.made[entries-1].checks, "malformed") {
		p.t.Errorf("integrity_check: %s", p.made[entries-1].checks)
	}
}

// resultText writes the results of an entry as a client could tell them apart. The counters of
// writes are left out where they may be those of an entry before, see Apply.
func resultText(resp *command.Response) string {
	var out strings.Builder
	for _, r := range resp.Results {
		r.Write = nil
		if r.Rows != nil {
			fmt.Fprintf(&out, "%q %q ", r.Rows.Columns, r.Rows.Types)
			for _, row := range r.Rows.Values {
				fmt.Fprintf(&out, "%#v", row)
			}
		}
		fmt.Fprintf(&out, "error %q\n", r.Error)
	}
	fmt.Fprintf(&out, "error %q, %d writes\n", resp.Error, resp.Writes)
	return out.String()
}

// follower is a database that shall come to the same outcomes.
type follower struct {
	*property
	t       *testing.T
	d       *DB
	dice    *rand.Rand
	applied int // entries of the log that are in the database
	s       chain
	taken   int // entries that are in the head
	lives   map[string]int
}

func (p *property) follower(t *testing.T, salt uint64) *follower {
	f := &follower{property: p, t: t, dice: rand.New(rand.NewPCG(p.seed, salt)), lives: map[string]int{}}
	f.d = open(t, testPath(t), p.cfg)
	return f
}

// group applies the next entries up to number end, and compares.
func (f *follower) group(end int) {
	f.t.Helper()
	for ; f.applied < end; f.applied++ {
		e := &f.log[f.applied]
		got := resultText(apply(f.t, f.d, e.entry(f.t)))
		if want := f.made[f.applied].results; got != want {
			f.t.Fatalf("entry %d: results are\n%.3000s\nwant\n%.3000s\nof %s", f.applied, got, want, describe(e.batch))
		}
		// The comparisons read only. Where a group is one transaction they belong behind the loop.
		if hash := hashNow(f.t, f.d); hash != f.made[f.applied].hash {
			f.t.Errorf("after entry %d the hash is %s, want %s: %s", f.applied, hash, f.made[f.applied].hash, describe(e.batch))
			f.explain()
			f.t.FailNow()
		}
	}
	if want := f.made[end-1]; want.state != nil {
		if diff := difference(state(f.t, f.d), want.state); diff != "" {
			f.t.Fatalf("after entry %d the databases differ, but their hashes do not:\n%s", end-1, diff)
		}
		if got := checks(f.t, f.d); got != want.checks {
			f.t.Fatalf("after entry %d the checks say %s, want %s", end-1, got, want.checks)
		}
	}
}

// explain says what is different after the last entry, by making that state once more.
func (f *follower) explain() {
	d := open(f.t, testPath(f.t), f.cfg)
	for i := range f.log[:f.applied+1] {
		apply(f.t, d, f.log[i].entry(f.t))
	}
	f.t.Logf("compared with a database made anew:\n%s", difference(state(f.t, f.d), state(f.t, d)))
}

// next returns where the next group ends, which is at the next mark at last.
func (f *follower) next(most int) int {
	mark := (f.applied/marks + 1) * marks
	return min(f.applied+1+f.dice.IntN(most), mark, len(f.log))
}

// moving is the life of a node that takes snapshots and is restarted.
func (p *property) moving(t *testing.T) {
	f := p.follower(t, 2)
	for f.applied < len(f.log) {
		f.group(f.next(7))
		switch f.dice.IntN(5) {
		case 0, 1:
			f.capture()
		case 2:
			f.restart()
		}
	}
	if f.lives["captured"] == 0 || f.lives["kept"]+f.lives["restored"]+f.lives["emptied"] == 0 {
		t.Errorf("nothing has happened: %v", f.lives)
	}
	t.Log(f.lives)
}

// capture takes a snapshot, of which the main file gets to know or not.
func (f *follower) capture() {
	c, image, err := f.s.take(f.t, f.d)
	if errors.Is(err, ErrNothingNew) || errors.Is(err, ErrBusy) {
		f.lives[err.Error()]++
		return
	}
	if err != nil {
		f.t.Fatal(err)
	}
	if f.dice.IntN(4) == 0 {
		c.Release()
		f.lives["released"]++
		return
	}
	if f.applied < len(f.log) && f.dice.IntN(3) == 0 {
		f.taken = f.applied
		f.group(f.next(4)) // written beside the capture
		f.s.publish(f.t, c, image)
		f.lives["captured beside"]++
		return
	}
	f.s.publish(f.t, c, image)
	f.taken = f.applied
	f.lives["captured"]++
}

// restart closes the database and opens it from the head, whose entries it has then; sometimes without its files.
func (f *follower) restart() {
	path := f.d.path
	if err := f.d.Close(); err != nil {
		f.t.Fatal(err)
	}
	cfg := f.cfg
	cfg.Head = f.s.head
	if f.dice.IntN(3) == 0 {
		path = testPath(f.t)
	}
	f.d = open(f.t, path, cfg)
	switch {
	case f.s.head == "":
		f.lives["emptied"]++
	case f.d.Head() == "":
		if err := f.d.Replace(imageOf(f.t, f.d, f.s.images[f.s.head]), f.s.head); err != nil {
			f.t.Fatal(err)
		}
		f.lives["restored"]++
	default:
		f.lives["kept"]++
	}
	f.applied = f.taken
}

// replayed is the life of a node that gets the whole log later, while it is busy otherwise.
func (p *property) replayed(t *testing.T) {
	f := p.follower(t, 3)
	stop := f.readBeside(2)
	for f.applied < len(f.log) {
		f.group(f.next(20))
		switch f.dice.IntN(6) {
		case 0:
			runtime.GC()
		case 1:
			f.d.writer.dropCached()
		case 2:
			if err := f.d.reopenWriter(); err != nil {
				t.Fatal(err)
			}
		case 3:
			f.capture()
		}
	}
	if n := stop(); n == 0 {
		t.Error("no reader has read anything")
	}
}

// readBeside reads on so many goroutines what the program reads, over and over, until the function it
// returns is called, which says how many queries there were.
func (f *follower) readBeside(readers int) (stop func() int) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	counts := make([]int, readers)
	for i := range readers {
		dice := rand.New(rand.NewPCG(f.seed, uint64(100+i)))
		wg.Go(func() {
			for ctx.Err() == nil {
				req := requestOf(f.log[dice.IntN(len(f.log))].batch)
				req.Kind = command.Query
				req.Transaction = dice.IntN(2) == 0
				if _, err := f.d.Prepare(req); err != nil {
					continue
				}
				if _, err := f.d.Query(ctx, req); err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, ErrClosed) {
					f.t.Error(err)
				}
				counts[i]++
			}
		})
	}
	stop = sync.OnceValue(func() int {
		cancel()
		wg.Wait()
		n := 0
		for _, c := range counts {
			n += c
		}
		return n
	})
	f.t.Cleanup(func() { stop() })
	return stop
}
