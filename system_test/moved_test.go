package system

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// move renames the data directory of a node that does not run.
func (n *node) move(to string) {
	n.t.Helper()
	if err := os.Rename(n.dir, to); err != nil {
		n.t.Fatal(err)
	}
	n.dir = to
}

// TestFaultMovedDirectory kills a node in the middle of a snapshot, of a compaction and of a
// restore, and starts it with the data directory in another place, also by a relative path. Nothing
// on disk may know where it lies, and names may have any character. (#2621)
func TestFaultMovedDirectory(t *testing.T) {
	t.Parallel()
	rng := newRand(t)
	n := startOne(t, append(often, swift...)...)
	base := filepath.Dir(n.dir)
	l := newLedger(n)
	h := newHunt(t, l, rng)
	for _, tt := range []struct {
		at       moment
		starting bool
		to       string
		from     string // working directory of the process, if the path is to be relative
	}{
		{moment{"snapshots/MANIFEST.tmp", appears}, false, "elsewhere", ""},
		{moment{"snapshots/*.base", changes}, false, "a'b c", ""},
		{moment{"snapshots/*.delta", changes}, false, `100% "ö" ?#&=;*`, ""},
		{moment{"db.clean.tmp", appears}, false, "relative", "."},
		{moment{"db.sqlite.restore", changes}, true, "a'b c, relative", "deep/er"},
	} {
		l.begin(cluster{n}, 2, rng.Uint64())
		if tt.starting {
			n.kill()
			n.forgetMarker()
			if !h.starting(n, tt.at) {
				t.Fatalf("%s has not come", tt.at)
			}
		} else if !h.running(n, tt.at) {
			t.Fatalf("%s has not come", tt.at)
		}
		old := n.dir
		n.move(filepath.Join(base, tt.to))
		if tt.from != "" {
			n.workDir = filepath.Join(base, tt.from)
			if err := os.MkdirAll(n.workDir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		n.start()
		l.sound(n)
		l.end()
		if _, err := os.Stat(old); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is there again after the move to %s: %v", old, n.dir, err)
		}
		n.mustWork()
		n.kill()
		n.forgetDatabase()
		n.start()
		l.verify(cluster{n})
	}
}

// mustWork has the node do what makes other files than writes and snapshots do.
func (n *node) mustWork() {
	n.t.Helper()
	n.waitReady(formLimit)
	n.execute("VACUUM")
	n.execute("CREATE INDEX IF NOT EXISTS sorted ON ledger (noise)")
	n.mustSnapshot()
}
