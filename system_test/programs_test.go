package system

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"rqlited/internal/sqlgen"
)

// programs are clients that send random SQL through all nodes. What they are answered does not
// matter to them: a statement may fail, a batch may be lost or applied after its client has given up.
type programs struct {
	t       *testing.T
	c       cluster
	clients []*program
	stop    context.CancelFunc // nil while they rest
	done    sync.WaitGroup

	mu       sync.Mutex
	statuses map[int]int // of the answers; 0: none. Guarded by mu
	failed   int         // statements that have failed; guarded by mu
}

// program is used by one goroutine at a time.
type program struct {
	gen *sqlgen.Generator
	rng *rand.Rand
}

func newPrograms(t *testing.T, c cluster, clients int, rng *rand.Rand) *programs {
	p := &programs{t: t, c: c, statuses: map[int]int{}}
	for range clients {
		seed := rng.Uint64()
		p.clients = append(p.clients, &program{sqlgen.New(seed), rand.New(rand.NewPCG(seed, 1))})
	}
	t.Cleanup(p.rest) // also when the test gives up half-way
	return p
}

// work has the clients send batches until rest is called.
func (p *programs) work() {
	ctx, stop := context.WithCancel(context.Background())
	p.stop = stop
	for _, client := range p.clients {
		p.done.Go(func() {
			for ctx.Err() == nil {
				if !p.send(p.c[client.rng.IntN(len(p.c))], client.gen.Next()) {
					<-time.After(time.Duration(client.rng.IntN(50)) * time.Millisecond) // do not hammer a node that is down
				}
			}
		})
	}
}

// rest stops the clients and waits for their last answers.
func (p *programs) rest() {
	if p.stop != nil {
		p.stop()
		p.done.Wait()
		p.stop = nil
	}
}

// send reports whether there was an answer.
func (p *programs) send(n *node, b sqlgen.Batch) bool {
	path := "/db/execute?timeout=2s"
	if b.Unified {
		path = "/db/request?timeout=2s"
	}
	if b.Transaction {
		path += "&transaction"
	}
	body, err := json.Marshal(batchValues(b))
	if err != nil {
		panic(err) // the generator has made what JSON has no form for
	}
	a, err := n.do(5*time.Second, http.MethodPost, path, "application/json", string(body))
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.statuses[0]++
		return false
	}
	p.statuses[a.status]++
	p.failed += strings.Count(a.body, `"error":`)
	return a.status == http.StatusOK
}

// batchValues returns the statements in the form that the API takes them.
func batchValues(b sqlgen.Batch) []any {
	all := []any{}
	for _, s := range b.Statements {
		stmt := []any{s.SQL}
		for _, v := range s.Args {
			stmt = append(stmt, parameter(v))
		}
		if s.Named != nil {
			named := map[string]any{}
			for name, v := range s.Named {
				named[name] = parameter(v)
			}
			stmt = append(stmt, named)
		}
		all = append(all, stmt)
	}
	return all
}

// answered returns how many batches were answered.
func (p *programs) answered() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.statuses[http.StatusOK]
}

// progress waits until that many more batches have been answered.
func (p *programs) progress(more int) {
	p.t.Helper()
	start := p.answered()
	within(p.t, formLimit, fmt.Sprintf("%d more batches are answered", more), func() error {
		if got := p.answered() - start; got < more {
			return fmt.Errorf("only %d so far", got)
		}
		return nil
	})
}

// ordeal is what a cluster goes through while programs run, and how often.
type ordeal struct {
	*programs
	rng      *rand.Rand
	h        *hunt
	compared int // rounds of hashes of all nodes
	count    map[string]int
}

// trial is one thing that happens to one of the nodes, which is in sync again at its end.
type trial struct {
	name string
	run  func(o *ordeal, victim *node)
}

var trials = []trial{
	{"killed", func(o *ordeal, victim *node) {
		victim.kill()
		victim.start()
	}},
	{"killed at two moments", func(o *ordeal, victim *node) {
		p := pairs[o.rng.IntN(len(pairs))]
		if o.h.running(victim, p.running) {
			o.count["kills at moments"]++
		} else {
			victim.kill()
		}
		if o.h.starting(victim, p.starting) {
			o.count["kills at moments"]++
			victim.start()
		}
	}},
	{"killed in a restore of its own", func(o *ordeal, victim *node) {
		victim.kill()
		victim.forgetDatabase()
		if o.h.starting(victim, moment{"db.sqlite.restore", changes}) {
			o.count["kills at moments"]++
			victim.start()
		}
	}},
	{"without database", func(o *ordeal, victim *node) {
		victim.kill()
		victim.forgetDatabase()
		victim.start()
	}},
	{"behind the log", func(o *ordeal, victim *node) {
		victim.kill()
		o.installFor(victim)
		victim.start()
	}},
	{"without anything", func(o *ordeal, victim *node) {
		victim.kill()
		victim.forgetAll()
		o.installFor(victim)
		victim.start()
	}},
	{"made the leader", func(o *ordeal, victim *node) { o.c.lead(victim) }},
	{"stopped", func(o *ordeal, victim *node) {
		victim.signal(os.Interrupt)
		victim.wait(30 * time.Second)
		victim.start()
	}},
	{"killed with all others", func(o *ordeal, victim *node) {
		for _, n := range o.c {
			n.kill()
		}
		victim.forgetMarker()
		o.c.start()
	}},
}

// installFor shortens the logs of the others, so that the victim needs a snapshot.
func (o *ordeal) installFor(victim *node) {
	o.t.Helper()
	rest := o.c.without(victim)
	o.progress(20)
	for _, n := range rest {
		truncateLog(n)
	}
	o.progress(10)
	rest.swap() // a leader that has tried to reach the victim in vain waits ever longer
}

// undergo has something happen to a random node, and compares the nodes then.
func (o *ordeal) undergo(what trial) {
	o.t.Helper()
	o.work()
	o.progress(10)
	what.run(o, o.c[o.rng.IntN(len(o.c))])
	o.count[what.name]++
	o.c.waitReady()
	o.progress(10)
	o.rest()
	o.c.sameHash()
	o.compared++
}

// restored and installed match what a node logs when it rebuilds its database from its own
// snapshot, and from the leader's.
var (
	restored  = regexp.MustCompile(`msg="live database is not known to equal the newest snapshot, which is restored"`)
	installed = regexp.MustCompile(`msg="snapshot restored"`)
)

// logged counts the log lines of all nodes that match.
func (c cluster) logged(what *regexp.Regexp) (count int) {
	for _, n := range c {
		count += len(what.FindAllString(n.log(), -1))
	}
	return count
}

// TestGeneratedPrograms runs random SQL on a cluster to which all that may happen to a node does
// happen, and compares the nodes at many moments: by their hashes at the same index, and in the end
// row by row.
func TestGeneratedPrograms(t *testing.T) {
	t.Parallel()
	rng := newRand(t)
	flags := []string{"-raft-snap", "40", "-raft-snap-int", "300ms", "-raft-snap-wal-size", "65536"}
	if hashing {
		flags = append(flags, "-hash-check-interval", "1s")
	}
	c := startCluster(t, 3, flags...)
	p := newPrograms(t, c, 3, rng)
	o := &ordeal{programs: p, rng: rng, h: newHunt(t, nil, rng), count: map[string]int{}}
	for round, start := 0, time.Now(); again(round, start); round++ {
		for _, i := range rng.Perm(len(trials)) {
			o.undergo(trials[i])
		}
	}
	c.agreeOnTimer()
	c.equal()
	c.sameIntegrity()
	for _, n := range c {
		n.kill()
		n.forgetDatabase()
	}
	c.start()
	c.equal()
	o.report()
}

// report logs what has happened, and fails if that is nothing.
func (o *ordeal) report() {
	o.t.Helper()
	o.t.Logf("answers by status: %v, %d statements failed", o.statuses, o.failed)
	o.t.Logf("happened: %v", o.count)
	restores, installs := o.c.logged(restored), o.c.logged(installed)
	o.t.Logf("%d hashes of all nodes compared, %d databases restored from a node's own snapshots, %d snapshots installed", o.compared, restores, installs)
	if o.answered() < 100 || o.compared < len(trials) || o.count["kills at moments"] == 0 {
		o.t.Error("too little has happened")
	}
	if hashing && (restores == 0 || installs == 0) { // else it is another program, which says so in other words
		o.t.Error("no restore or no install")
	}
	for status := range o.statuses {
		if !slices.Contains([]int{0, http.StatusOK, http.StatusBadRequest, http.StatusServiceUnavailable}, status) {
			o.t.Errorf("a batch was answered with status %d", status)
		}
	}
}

// agreeOnTimer waits until the leader has compared the hashes of all nodes by itself, and checks that
// it found them equal, now and ever before.
func (c cluster) agreeOnTimer() {
	c[0].t.Helper()
	if !hashing {
		return
	}
	within(c[0].t, formLimit, "the leader compares the hashes", func() error {
		checks, mismatches := c.hashChecks()
		if mismatches > 0 {
			c[0].t.Fatalf("%d mismatches", mismatches)
		}
		if checks == 0 {
			return fmt.Errorf("no check so far")
		}
		return nil
	})
	if n := c.logged(mismatch); n > 0 {
		c[0].t.Errorf("%d lines say that nodes differ", n)
	}
}

// mismatch matches what the leader logs about a node whose hash is another than its own.
var mismatch = regexp.MustCompile(`level=ERROR msg="replica differs".*`)

// tolerable matches what integrity_check finds in rows that clients were allowed to write: against
// constraints that they had turned off, and behind the back of full-text indexes.
var tolerable = regexp.MustCompile(`^(ok|CHECK constraint failed in .*|NULL value in .*|malformed inverted index for FTS5 table .*|unable to validate the inverted index for FTS5 table .*)$`)

// sameIntegrity has SQLite look over every node's database: it finds nothing that is not the
// clients' doing, and the same everywhere.
func (c cluster) sameIntegrity() {
	first := c[0].query("none", "PRAGMA integrity_check")
	for _, n := range c {
		n.t.Helper()
		got := n.query("none", "PRAGMA integrity_check")
		if !slices.Equal(got, first) {
			n.t.Errorf("%s: integrity_check = %q; %s has %q", n.id, got, c[0].id, first)
		}
		for _, line := range got {
			if !tolerable.MatchString(line) {
				n.t.Errorf("%s: integrity_check: %s", n.id, line)
			}
		}
	}
}
