package system

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"
)

// vigil asks a node for its readiness without a pause, and as soon as it says that it is in sync
// whether its content is the one that is committed.
type vigil struct {
	n    *node
	want string
	stop context.CancelFunc
	done sync.WaitGroup

	asked, ready int
	lies         []string
}

// sum is a query that no half of the content answers like the whole.
const sum = "SELECT count(*), total(length(v)), max(id) FROM blob"

func (n *node) vigil(want string) *vigil {
	ctx, stop := context.WithCancel(context.Background())
	v := &vigil{n: n, want: want, stop: stop}
	n.t.Cleanup(v.end) // also when the test gives up half-way
	v.done.Go(func() {
		for ctx.Err() == nil {
			v.ask()
		}
	})
	return v
}

// end ends the vigil; its counts are valid from then on.
func (v *vigil) end() {
	v.stop()
	v.done.Wait()
}

func (v *vigil) ask() {
	a, err := v.n.do(requestLimit, http.MethodGet, "/readyz?sync&timeout=1s", "", "")
	v.asked++
	if err != nil || a.status != http.StatusOK {
		<-time.After(time.Millisecond) // what refuses connections does so fast
		return
	}
	v.ready++
	rows, err := v.n.tryQuery("none", sum)
	if err == nil && rows[0] != v.want {
		err = fmt.Errorf("%s; want %s", rows[0], v.want)
	}
	if err != nil && !v.gone(err) {
		v.lies = append(v.lies, fmt.Sprintf("%s after %q", err, a.body))
	}
}

// gone says whether there was no answer because the process had been killed.
func (v *vigil) gone(err error) bool {
	_, refused := errors.AsType[interface {
		error
		Timeout() bool
	}](err)
	return refused
}

// TestFault1672 asks followers whether they are in sync while they receive a snapshot, restore one,
// are killed in the middle and start again: none says so before it has all there is.
func TestFault1672(t *testing.T) {
	t.Parallel()
	rng := newRand(t)
	c := startCluster(t, 3, "-raft-snap-wal-size", "0")
	blobs(c[0], 20)
	c.waitReady()
	want := c[0].query("none", sum)[0]
	wiped := c.without(c.leader())[0]
	l := newLedger(c[0])
	h := newHunt(t, l, rng)
	for _, n := range c {
		truncateLog(n)
	}
	v := wiped.vigil(want)
	kinds := []struct {
		name string
		lose func()
	}{
		{"everything", func() {
			if err := os.RemoveAll(wiped.dir); err != nil {
				t.Fatal(err)
			}
		}},
		{"its database", wiped.forgetDatabase},
		{"its marker", wiped.forgetMarker},
		{"nothing", func() {}},
	}
	for round, start := 0, time.Now(); again(round, start); round++ {
		for _, kind := range kinds {
			wiped.kill()
			kind.lose()
			if kind.name != "everything" { // else there is no directory to watch
				h.starting(wiped, moment{"db.sqlite", appears})
				if wiped.running() {
					wiped.kill()
				}
			}
			c.without(wiped).swap()
			wiped.start()
			wiped.waitReady(formLimit)
		}
	}
	v.end()
	t.Logf("asked %d times, in sync %d times", v.asked, v.ready)
	if v.ready == 0 {
		t.Error("never in sync")
	}
	for _, lie := range v.lies {
		t.Errorf("%s says it is in sync: %s", wiped.id, lie)
	}
	c.equal()
}

// TestFault1694 cuts a follower off: whatever it answers, it is not in sync until it has caught up.
func TestFault1694(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	c[0].execute("CREATE TABLE blob (id INTEGER PRIMARY KEY, v BLOB)")
	for range 5 {
		c.waitReady()
		leader := c.leader()
		behind := c.without(leader)[0]
		behind.pause()
		leader.execute("INSERT INTO blob(v) VALUES (randomblob(100))")
		want := leader.query("none", sum)[0]
		v := behind.vigil(want)
		behind.resume()
		behind.waitReady(formLimit)
		v.end()
		for _, lie := range v.lies {
			t.Errorf("%s says it is in sync: %s", behind.id, lie)
		}
	}
	c.equal()
}

// TestReadyAfterElection kills the leader the moment it has acknowledged something. Its successor
// has it, but does not know yet that it is committed; who asks whether a node is in sync must not be
// told so before that.
func TestReadyAfterElection(t *testing.T) {
	t.Parallel()
	rng := newRand(t)
	c := startCluster(t, 3)
	l := newLedger(c[0])
	for range 4 {
		l.begin(c, 4, rng.Uint64())
		l.progress(t, 20)
		old := c.leader()
		old.kill()
		l.end()
		old.start()
		l.sound(old)
		for _, n := range c.without(old) {
			l.sound(n)
		}
	}
	l.verify(c)
}
