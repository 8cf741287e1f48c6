package system

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// frozen is a data directory as it was at one moment: the files by their names.
type frozen map[string]frozenFile

type frozenFile struct {
	data []byte
	time time.Time // of the last change
}

func freeze(t *testing.T, dir string) frozen {
	t.Helper()
	f := frozen{}
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		data, err := os.ReadFile(name)
		f[rel] = frozenFile{data, info.ModTime()}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// thaw makes the directory what it was, as a careful copy does.
func (f frozen) thaw(t *testing.T, dir string) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Sorted(maps.Keys(f)) {
		writeFile(t, dir, name, string(f[name].data))
		if err := os.Chtimes(filepath.Join(dir, name), f[name].time, f[name].time); err != nil {
			t.Fatal(err)
		}
	}
}

// flipBit inverts one bit of a file in place, keeping its times, as a disk does.
func flipBit(t *testing.T, name string, at int64, bit uint) {
	t.Helper()
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1)
	_, err = f.ReadAt(b, at)
	b[0] ^= 1 << bit
	if err == nil {
		_, err = f.WriteAt(b, at)
	}
	if err = errors.Join(err, f.Close(), os.Chtimes(name, info.ModTime(), info.ModTime())); err != nil {
		t.Fatal(err)
	}
}

// meaningful returns a random offset in a file: mostly of a byte that is not zero, since large
// parts of some files are empty.
func meaningful(rng *rand.Rand, data []byte) int64 {
	at := rng.IntN(len(data))
	for range 1000 {
		if data[at] != 0 {
			break
		}
		at = rng.IntN(len(data))
	}
	return int64(at)
}

// flippable returns the kinds of file of a data directory after a stop in peace, and how many bits
// of each are tried.
func flippable() (kinds []string, flips int) {
	kinds = []string{"raft.db", "db.sqlite", "db.sqlite-wal", "db.sums", "db.clean", "snapshots/MANIFEST", "snapshots/*.base", "snapshots/*.delta"}
	if long() {
		return kinds, 30
	}
	return kinds, 1
}

// verdict is the outcome of a start with a flipped bit.
type verdict string

const (
	right verdict = "right content"
	ends  verdict = "ends and says why"
)

// startFlipped starts a node with damaged data and waits for what becomes of it. It may have the
// right content, whether from its own files or from the leader, or end with exit code 1 and a
// reason that names the file. Once it says that it is ready, whoever asks gets what is right or an
// error.
func (n *node) startFlipped(file string, want content) verdict {
	n.t.Helper()
	logged := len(n.log())
	n.start()
	_, err := poll(formLimit, pollEvery, func() error {
		if err := n.readyz("sync&timeout=2s"); err != nil {
			return err
		}
		got, err := n.tryContent()
		if err != nil {
			return err
		}
		if d := got.diff(want); d != "" {
			n.t.Fatalf("%s is ready with other content: %s", n.id, d)
		}
		return nil
	})
	if err == nil {
		return right
	}
	if n.running() {
		n.t.Fatalf("%s neither gets ready nor ends: %v", n.id, err)
	}
	if code := n.wait(time.Second); code != 1 {
		n.t.Errorf("%s: exit code = %d; want 1", n.id, code)
	}
	log := n.log()[logged:]
	if !mentions(reason(log), path.Base(file)) {
		n.t.Errorf("%s: the reason does not name %s:\n%s", n.id, file, reason(log))
	}
	return ends
}

// reason returns the errors of a log without what differs from run to run.
func reason(log string) string {
	var lines []string
	for line := range strings.Lines(log) {
		if strings.Contains(line, "level=ERROR") || strings.HasPrefix(line, "fatal") {
			lines = append(lines, stamp.ReplaceAllString(line, ""))
		}
	}
	return strings.Join(lines, "")
}

var stamp = regexp.MustCompile(`^time=\S+ `)

// flipAll damages each kind of file, one bit at a time, and looks at the start that follows and at
// the one after that, which must not end for another reason.
func flipAll(t *testing.T, rng *rand.Rand, n *node, want content) {
	t.Helper()
	good := freeze(t, n.dir)
	kinds, flips := flippable()
	for _, kind := range kinds {
		files := slices.DeleteFunc(slices.Sorted(maps.Keys(good)), func(name string) bool {
			ok, err := path.Match(kind, name)
			return err != nil || !ok || len(good[name].data) == 0
		})
		if len(files) == 0 {
			if kind != "db.sqlite-wal" { // may be empty
				t.Errorf("there is no %s", kind)
			}
			continue
		}
		count := map[string]int{}
		for range flips {
			file := files[rng.IntN(len(files))]
			at, bit := meaningful(rng, good[file].data), uint(rng.IntN(8))
			if !t.Run(fmt.Sprintf("%s/byte %d bit %d", file, at, bit), func(t *testing.T) {
				n.t = t
				good.thaw(t, n.dir)
				flipBit(t, filepath.Join(n.dir, file), at, bit)
				if strings.HasPrefix(file, "snapshots/") && (!long() || rng.IntN(2) == 0) {
					n.forgetMarker() // with it, nobody reads the snapshots
				}
				how := n.startFlipped(file, want)
				if how == right {
					n.kill()
				}
				said := reason(n.lastRun())
				again := n.startFlipped(file, want)
				count[fmt.Sprintf("%s, then %s", how, again)]++
				if how == right && again == ends {
					t.Errorf("first it %s, then it %s", how, again)
				}
				if how == ends && again == ends && reason(n.lastRun()) != said {
					t.Errorf("the first start says\n%sthe second\n%s", said, reason(n.lastRun()))
				}
				if n.running() {
					n.kill()
				}
			}) && n.running() {
				n.kill()
			}
			n.t = t
		}
		t.Logf("%s: %v", kind, count)
	}
	good.thaw(t, n.dir)
	n.start()
	n.has(want)
}

// lastRun returns what the node's last process has logged.
func (n *node) lastRun() string {
	log := n.log()
	return log[max(0, strings.LastIndex(log, "=== ")):]
}

// fillForFlips gives the node a base, some deltas, a log that goes on behind them, and a marker.
func fillForFlips(n *node) {
	n.t.Helper()
	bulk(n, "big", 2000)
	n.execute("CREATE TABLE foo (id INTEGER NOT NULL PRIMARY KEY, name TEXT)")
	n.mustSnapshot()
	for range 3 {
		insertRows(n, 5)
		n.mustSnapshot()
	}
}

// TestFault2521 flips bits of a node that is alone. It has nobody to ask: what its older snapshots
// and its log can't make good, it must not serve.
func TestFault2521(t *testing.T) {
	t.Parallel()
	rng := newRand(t)
	n := startOne(t, swift...)
	fillForFlips(n)
	insertRows(n, 20)
	want := n.content()
	n.stop()
	flipAll(t, rng, n, want)

	truncateLog(n) // now the log can't make up for anything
	insertRows(n, 20)
	want = n.content()
	n.stop()
	flipAll(t, rng, n, want)
}

// TestFault1303 flips bits of a follower. The leader can give it all it lacks.
func TestFault1303(t *testing.T) {
	t.Parallel()
	rng := newRand(t)
	c := startCluster(t, 3)
	n := c.without(c.leader())[0]
	fillForFlips(n)
	for _, n := range c {
		truncateLog(n)
	}
	insertRows(n, 20)
	want := c.equal()
	n.stop()
	flipAll(t, rng, n, want)
	c.holds(want)
}
