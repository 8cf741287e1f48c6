package db

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"rqlited/command"
)

// TestPropertyPrograms applies random programs to three databases, each with a life of its own, and
// demands that each statement has the same result, and that the databases are equal: by their hash after
// each group of entries, by everything SQL sees at marks and at the end. One lives straight through,
// with a capture now and then. One is captured at other times, restarted with and without its files, and given
// entries again. One replays the log later in one go, beside readers, collections of garbage and other disturbances.
//
// The entries reach each database in groups of its own. Should a group ever be one transaction of SQLite,
// this is the test that has to find nothing.
func TestPropertyPrograms(t *testing.T) {
	t.Parallel()
	programSeeds(t, []uint64{2}, func(t *testing.T, seed uint64) {
		p := newProperty(t, seed)
		p.straight(150)
		t.Run("moving", func(t *testing.T) {
			t.Parallel()
			p.live(t, 2, (*follower).moving)
		})
		t.Run("replayed", func(t *testing.T) {
			t.Parallel()
			p.live(t, 3, (*follower).replayed)
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
	return &property{t: t, seed: seed, cfg: Config{ForeignKeys: seed%2 == 0, ReadersGrace: time.Millisecond, bounds: small}}
}

// straight makes the log by applying it.
func (p *property) straight(entries int) {
	d := open(p.t, testPath(p.t), p.cfg)
	w := newEntryWriter(p.seed, d, p.cfg.ForeignKeys)
	for n := range entries {
		e := w.next(p.t)
		o := outcome{results: resultText(apply(p.t, d, e.entry(p.t)))}
		if o.hash = hashNow(p.t, d); n%8 == 7 {
			captured(p.t, d) // the frames of the WAL are read for each hash
		}
		if n%marks == marks-1 || n == entries-1 {
			o.state, o.checks = state(p.t, ask(p.t, d)), checks(p.t, askAnew(p.t, d))
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
	taken   int  // entries that are in the head
	each    bool // the state is compared after each entry, not only after groups
	lives   map[string]int
	fault   string
}

// live lets a follower live, and if it turns out to differ lets another live the same life, only with
// more comparisons, to find the first entry after which it does.
func (p *property) live(t *testing.T, salt uint64, life func(*follower)) {
	for _, each := range []bool{false, true} {
		f := &follower{property: p, t: t, dice: rand.New(rand.NewPCG(p.seed, salt)), each: each, lives: map[string]int{}}
		f.d = open(t, testPath(t), p.cfg)
		life(f)
		t.Log(f.lives)
		if f.fault == "" {
			if each {
				t.Log("no difference when the states are compared after each entry")
			}
			return
		}
		t.Errorf("compared after each entry %t: %s", each, f.fault)
	}
}

// goesOn says whether there are entries left and no difference was found.
func (f *follower) goesOn() bool { return f.applied < len(f.log) && f.fault == "" }

// group applies the next entries up to number end, and compares. Where a group is one transaction
// the comparison of results belongs behind it.
func (f *follower) group(end int) {
	for f.applied < end && f.fault == "" {
		n := f.applied
		got := resultText(apply(f.t, f.d, f.log[n].entry(f.t)))
		f.applied++
		f.fault = differentResults(n, got, f.made[n].results, f.log[n].batch)
		if f.fault == "" && (f.each || f.applied == end) {
			f.compare(n)
		}
	}
}

// compare compares the database as it is after entry n.
func (f *follower) compare(n int) {
	want := f.made[n]
	if hash := hashNow(f.t, f.d); hash != want.hash {
		f.fault = fmt.Sprintf("after entry %d the hash is %s, want %s: %s\n%s", n, hash, want.hash, describe(f.log[n].batch), f.explain())
		return
	}
	if want.state == nil {
		return
	}
	if diff := difference(state(f.t, ask(f.t, f.d)), want.state); diff != "" {
		f.fault = fmt.Sprintf("after entry %d the databases differ, and their hashes do not:\n%s", n, diff)
	} else if got := checks(f.t, askAnew(f.t, f.d)); got != want.checks {
		f.fault = fmt.Sprintf("after entry %d the checks say %s, want %s", n, got, want.checks)
	}
}

// explain says what is different, by making the state that is wanted once more.
func (f *follower) explain() string {
	d := open(f.t, testPath(f.t), f.cfg)
	for i := range f.log[:f.applied] {
		apply(f.t, d, f.log[i].entry(f.t))
	}
	return difference(state(f.t, ask(f.t, f.d)), state(f.t, ask(f.t, d)))
}

// next returns where the next group ends, which is at the next mark at last.
func (f *follower) next(most int) int {
	mark := (f.applied/marks + 1) * marks
	return min(f.applied+1+f.dice.IntN(most), mark, len(f.log))
}

// moving is the life of a node that takes snapshots and is restarted.
func (f *follower) moving() {
	for f.goesOn() {
		f.group(f.next(7))
		switch f.dice.IntN(5) {
		case 0, 1:
			f.capture()
		case 2:
			f.restart()
		}
	}
	if f.fault == "" && (f.lives["captured"] == 0 || f.lives["kept"]+f.lives["restored"]+f.lives["emptied"] == 0) {
		f.t.Errorf("nothing has happened: %v", f.lives)
	}
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
	if f.goesOn() && f.dice.IntN(3) == 0 {
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
func (f *follower) replayed() {
	turns, stop := f.readBeside(2)
	for f.goesOn() {
		for range 6 {
			select {
			case turns <- f.log[f.dice.IntN(len(f.log))]:
			default: // all are reading
			}
		}
		f.group(f.next(20))
		switch f.dice.IntN(5) {
		case 0:
			runtime.GC()
		case 1:
			f.d.writer.dropCached()
		case 2:
			if err := f.d.reopenWriter(); err != nil {
				f.t.Fatal(err)
			}
		}
	}
	if f.lives["reads"] = stop(); f.lives["reads"] < 10 {
		f.t.Errorf("%d reads", f.lives["reads"])
	}
}

// readBeside reads on so many goroutines, from the database being written, what the entries given in
// turns read. The second function ends that and says how many queries there were.
func (f *follower) readBeside(readers int) (chan<- programEntry, func() int) {
	turns := make(chan programEntry, readers)
	var wg sync.WaitGroup
	var count atomic.Int64
	for range readers {
		wg.Go(func() {
			for e := range turns {
				req := requestOf(e.batch)
				req.Kind, req.Transaction, req.DBTimeout = command.Query, true, 20*time.Millisecond
				if _, err := f.d.Prepare(req); err != nil {
					f.t.Error(err) // a writer has let it pass
				}
				if _, err := f.d.Query(context.Background(), req); err != nil && !errors.Is(err, errTransactionTimeout) && !errors.Is(err, context.DeadlineExceeded) {
					f.t.Error(err)
				}
				count.Add(1)
			}
		})
	}
	stop := sync.OnceValue(func() int {
		close(turns)
		wg.Wait()
		return int(count.Load())
	})
	f.t.Cleanup(func() { stop() })
	return turns, stop
}
