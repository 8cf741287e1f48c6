package system

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// clockCode goes into the standard library's package time of a binary whose time of day follows
// RQLITED_TEST_CLOCK: seconds since 1970, and by how many it goes on with each real second. The
// monotonic clock stays as it is.
const clockCode = `
var clock = func() (c struct{ at, rate int64; set bool }) {
	text, ok := syscall.Getenv("RQLITED_TEST_CLOCK")
	for i, sign := 0, int64(1); ok && i < len(text); i++ {
		switch b := text[i]; {
		case b == ' ':
			c.at, c.rate, sign = c.rate, 0, 1
		case b == '-':
			sign = -1
		default:
			c.rate = c.rate*10 + sign*int64(b-'0')
		}
	}
	c.set = ok
	return c
}()

func swayed(sec int64, nsec int32, mono int64) (int64, int32, int64) {
	if !clock.set {
		return sec, nsec, mono
	}
	if clock.rate == 0 {
		return clock.at, 0, mono
	}
	return clock.at + clock.rate*((mono-startNano)/1e9), nsec, mono
}
`

// swayedBinary builds rqlited so that RQLITED_TEST_CLOCK sets its clock.
func swayedBinary(t *testing.T) string {
	t.Helper()
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(strings.TrimSpace(string(root)), "src", "time", "time.go")
	text, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	code := string(text) + clockCode
	for _, edit := range [][2]string{
		{"sec, nsec, mono := runtimeNow()", "sec, nsec, mono := swayed(runtimeNow())"},
		{"\t\"errors\"\n", "\t\"errors\"\n\t\"syscall\"\n"},
	} {
		if strings.Count(code, edit[0]) != 1 {
			t.Fatalf("%s has %q %d times; want once", source, edit[0], strings.Count(code, edit[0]))
		}
		code = strings.Replace(code, edit[0], edit[1], 1)
	}
	dir := t.TempDir()
	writeFile(t, dir, "time.go", code)
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{source: filepath.Join(dir, "time.go")}})
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, dir, "overlay.json", string(overlay))
	out := filepath.Join(dir, "rqlited")
	module, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	if err := build(module, "./cmd/rqlited", out, "-overlay", filepath.Join(dir, "overlay.json")); err != nil {
		t.Fatal(err)
	}
	return out
}

// setClock sets the time of day of the node's next process.
func (n *node) setClock(at time.Time, rate int) {
	n.env = []string{fmt.Sprintf("RQLITED_TEST_CLOCK=%d %d", at.Unix(), rate)}
}

// TestFaultClock runs a cluster in which one clock stands still, one goes back by a month each
// second, and one jumps by years, forth and back, from start to start. Nodes are killed at chosen
// moments, restored, and recovered twice at the very same time. Nothing that is kept may depend on
// the time of day.
func TestFaultClock(t *testing.T) {
	if !long() {
		t.Skip("NOT TESTED in the short form: clocks that stand still or go back; it builds the standard library anew, which takes minutes")
	}
	t.Parallel()
	binary := swayedBinary(t)
	rng := newRand(t)
	const month = 30 * 24 * 3600
	now := time.Now()
	c := newCluster(t, 3, often...)
	sway := func(round int) {
		c[0].setClock(now, 0)
		c[1].setClock(now.AddDate(-round, 0, 0), -month)
		c[2].setClock(now.AddDate(20-15*(round%3), 0, 0), 1)
	}
	sway(0)
	for _, n := range c {
		n.binary = binary
	}
	c.start()
	c.waitReady()
	l := newLedger(c[0])
	h := newHunt(t, l, rng)
	for round, start := 0, time.Now(); again(round, start); round++ {
		sway(round)
		l.begin(c, 4, rng.Uint64())
		for i := range 9 {
			h.both(c[i%3], pairs[rng.IntN(len(pairs))])
		}
		l.end()
		c.waitReady()
		for range 2 {
			for _, n := range c {
				n.kill()
			}
			c.writePeers()
			c.start()
			c.waitReady()
		}
		l.verify(c)
		for _, n := range c {
			n.kill()
			n.forgetDatabase()
		}
		sway(round + 1)
		c.start()
		l.verify(c)
	}
	for i, stamp := range []string{ // the clocks were what this is about
		now.UTC().Format("time=2006-01-02T15:04:05.000Z"),
		now.AddDate(-1, 0, 0).UTC().Format("time=2006"),
		now.AddDate(20, 0, 0).UTC().Format("time=2006-01"),
	} {
		if !mentions(c[i].log(), stamp) {
			t.Errorf("%s has never logged %s", c[i].id, stamp)
		}
	}
}
