package db

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"rqlited/command"
	"rqlited/internal/vfs"
	"rqlited/internal/vfs/crashfs"
)

// life is a database on a mirror, with what a snapshot store would know of it.
type life struct {
	m     *mirror
	d     *DB
	s     chain
	image string // a file to replace it by, of snapshot 7-7

	// What the acts that have come to their end promise: the next start keeps the files for sure, and
	// not for gone.
	sure, gone string
	before     string // the head at the beginning of the act

	flipped bool // the main file was damaged, which is found when the page is read
}

// end closes the database, if it was opened, for better or worse.
func (l *life) end() {
	if l.d != nil {
		l.d.Close()
	}
}

func (l *life) run(sql ...string) error {
	_, err := l.d.Apply(&command.Entry{Kind: command.Execute, Request: &command.Request{Statements: statements(sql...)}})
	return err
}

// capture captures, and publishes under id if there is one. As in a snapshot store, an image is known
// before the capture is acknowledged.
func (l *life) capture(id string) error {
	c, err := l.d.Capture(l.s.head)
	if err != nil {
		return err
	}
	defer c.Release()
	image, err := l.s.merge(c)
	if err != nil || id == "" {
		return err
	}
	l.s.images[id], l.s.head = image, id
	if err := c.Published(id); err != nil {
		return err
	}
	l.sure = id
	return nil
}

// first is what a life begins with, with pages so small that their checksums are written in two groups.
var first = []string{"CREATE TABLE small (v)", "CREATE TABLE bulk (v)", "INSERT INTO bulk VALUES(zeroblob(70000))", "INSERT INTO small VALUES(1)"}

func smallPages(t testing.TB, d *DB) {
	t.Helper()
	name := filepath.Join(filepath.Dir(d.path), "image")
	data := sqliteFile(t, fmt.Sprintf("PRAGMA page_size=%d; CREATE TABLE none (x)", walMinPage))
	if err := errors.Join(writeAll(d.fs, name, data), d.Replace(name, "")); err != nil {
		t.Fatal(err)
	}
}

// otherImage is a database that is hard to tell from the first snapshot of a life: it has the same size and
// the same first page.
func otherImage(t testing.TB) []byte {
	d := openNew(t)
	smallPages(t, d)
	exec(t, d, first...)
	var s chain
	c, image, err := s.take(t, d)
	if err != nil {
		t.Fatal(err)
	}
	c.Release()
	exec(t, d, "UPDATE small SET v=7")
	c, other, err := s.take(t, d)
	if err != nil {
		t.Fatal(err)
	}
	c.Release()
	if len(other) != len(image) || !bytes.Equal(other[:walMinPage], image[:walMinPage]) || bytes.Equal(other, image) {
		t.Fatal("the image is easy to tell from the first snapshot")
	}
	return other
}

// newLife makes a database at snapshot 1-1, with a marker and writes behind it.
func newLife(t testing.TB, other []byte) *life {
	t.Helper()
	l := &life{m: newMirror(memoryDir(t), -1), s: chain{images: map[string][]byte{"7-7": other}}, sure: "1-1"}
	l.image = filepath.Join(l.m.dir, "image")
	var err error
	if l.d, err = Open(l.m.path(), Config{FS: l.m, ReadersGrace: time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.end)
	smallPages(t, l.d)
	f, err := l.m.Create(l.image)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Write(other)
	err = errors.Join(err, f.Sync(), f.Close(), l.run(first...), l.capture("1-1"), l.run("INSERT INTO small VALUES(2)"))
	if err != nil {
		t.Fatal(err)
	}
	l.m.trace = nil
	return l
}

// fileAct is one thing that this package does to files, upon a new life. prepare may be nil.
type fileAct struct {
	name    string
	prepare func(l *life) error
	act     func(l *life) error
}

var acts = []fileAct{
	{"capture", nil, func(l *life) error { l.sure = ""; return l.capture("") }},
	{"publish", nil, func(l *life) error { l.sure = ""; return l.capture("1-2") }},
	{"announce", nil, func(l *life) error { l.sure = ""; return l.d.Announce() }},
	{"publish_after_failure", func(l *life) error { return errors.Join(l.capture(""), l.run("DELETE FROM bulk", "VACUUM")) },
		func(l *life) error { l.sure = ""; return l.capture("1-2") }},
	{"publish_first", func(l *life) error { return l.reopen("") }, func(l *life) error {
		l.sure = ""
		return errors.Join(l.run("CREATE TABLE t (n)"), l.capture("1-2"))
	}},
	{"publish_kept", func(l *life) error { return errors.Join(l.reopen("1-1"), l.run("INSERT INTO small VALUES(2)")) },
		func(l *life) error { l.sure = ""; return l.capture("1-2") }},
	{"adopt", func(l *life) error { l.s.images["1-2"] = l.s.images["1-1"]; return nil }, func(l *life) error {
		l.sure = ""
		if err := l.d.Adopt("1-1", "1-2"); err != nil {
			return err
		}
		l.sure, l.s.head = "1-2", "1-2"
		return nil
	}},
	{"adopt_kept", func(l *life) error { l.s.images["1-2"] = l.s.images["1-1"]; return l.reopen("1-1") }, func(l *life) error {
		l.sure = ""
		if err := l.d.Adopt("1-1", "1-2"); err != nil {
			return err
		}
		l.sure, l.s.head = "1-2", "1-2"
		return nil
	}},
	{"withdraw", nil, func(l *life) error {
		l.sure = ""
		err := l.d.WithdrawMarker()
		if err == nil {
			l.gone = "1-1"
		}
		return err
	}},
	{"replace", nil, func(l *life) error {
		l.sure = ""
		if err := l.d.Replace(l.image, "7-7"); err != nil {
			return err
		}
		l.sure, l.s.head = "7-7", "7-7"
		return nil
	}},
	{"load", nil, func(l *life) error {
		l.sure = ""
		_, err := l.d.Apply(&command.Entry{Kind: command.Load, Data: l.s.images["7-7"]})
		if err != nil {
			return err
		}
		return l.capture("1-2")
	}},
	{"load_chunks", nil, func(l *life) error {
		l.sure = ""
		data := l.s.images["7-7"]
		for i, part := range [][]byte{data[:3000], data[3000:]} {
			chunk := &command.Chunk{Stream: "s", Sequence: int64(i) + 1, Data: part, Last: i == 1}
			if _, err := l.d.Apply(&command.Entry{Kind: command.LoadChunk, Chunk: chunk}); err != nil {
				return err
			}
		}
		return nil
	}},
	{"load_chunks_replaced", nil, func(l *life) error { // the leader sends a snapshot amid a load
		l.sure = ""
		chunk := &command.Chunk{Stream: "s", Sequence: 1, Data: l.s.images["7-7"][:3000]}
		if _, err := l.d.Apply(&command.Entry{Kind: command.LoadChunk, Chunk: chunk}); err != nil {
			return err
		}
		if err := l.d.Replace(l.image, "7-7"); err != nil {
			return err
		}
		l.sure, l.s.head = "7-7", "7-7"
		return nil
	}},
	{"backup", nil, func(l *life) error {
		b, err := l.d.BeginBackup()
		if err != nil {
			return err
		}
		return b.Write(context.Background(), io.Discard, &command.BackupRequest{Format: command.BackupDelete})
	}},
	{"receive", nil, func(l *life) error {
		u, err := l.d.Receive(context.Background(), bytes.NewReader(l.s.images["7-7"]))
		if err != nil {
			return err
		}
		return u.Close()
	}},
	{"damage", func(l *life) error { return errors.Join(l.reopen("1-1"), l.flip()) }, func(l *life) error {
		l.sure = ""
		err := l.run("UPDATE bulk SET v=v||'x'")
		if l.m.hurt() || !errors.Is(err, ErrDamaged) {
			return fmt.Errorf("damage settled: %w", err)
		}
		l.gone = "1-1"
		return nil
	}},
	{"close", nil, func(l *life) error { return l.d.Close() }},
	{"open", func(l *life) error { return l.d.Close() }, func(l *life) (err error) {
		l.d, err = Open(l.m.path(), Config{FS: l.m, Head: "1-1"})
		return err
	}},
	{"open_other", func(l *life) error { return l.d.Close() }, func(l *life) (err error) {
		l.sure = ""
		l.d, err = Open(l.m.path(), Config{FS: l.m, Head: "1-2"})
		return err
	}},
}

// reopen opens the database for another snapshot.
func (l *life) reopen(head string) (err error) {
	if err := l.d.Close(); err != nil {
		return err
	}
	if l.d, err = Open(l.m.path(), Config{FS: l.m, Head: head, ReadersGrace: time.Millisecond}); err != nil {
		return err
	}
	if l.d.Head() != head {
		return fmt.Errorf("opened at %q, want %q", l.d.Head(), head)
	}
	l.s.head = head
	return nil
}

// flip changes a bit in the last page of the main file, and with it of the database.
func (l *life) flip() error {
	f, err := os.OpenFile(l.m.path(), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	l.flipped = true
	off := int64(len(l.s.images["1-1"]) - 100)
	_, err = f.WriteAt([]byte{l.s.images["1-1"][off] ^ 4}, off)
	return err
}

// begin makes a new life on which the act can be done.
func (a fileAct) begin(t *testing.T, other []byte) *life {
	t.Helper()
	l := newLife(t, other)
	if a.prepare != nil {
		if err := a.prepare(l); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.m.follow(); err != nil {
		t.Fatal(err)
	}
	l.m.trace = nil
	l.before = l.s.head
	return l
}

var update = flag.Bool("update", false, "write golden files")

// TestOrder compares the order of the operations on files with the one that was reviewed.
func TestOrder(t *testing.T) {
	other := otherImage(t)
	for _, a := range acts {
		t.Run(a.name, func(t *testing.T) {
			l := a.begin(t, other)
			if err := errors.Join(a.act(l), l.m.follow()); err != nil {
				t.Fatal(err)
			}
			got := strings.Join(append(l.m.trace, ""), "\n")
			golden := filepath.Join("testdata", a.name+".txt")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("operations are\n%s; want those in %s", got, golden)
			}
		})
	}
}

// scenario is a long life of a database: captures, published and not, a restore, a loaded file. It
// records the image of each snapshot before the capture is acknowledged, as the store does.
func scenario(t *testing.T, m *mirror, s *chain) error {
	d, err := Open(filepath.Join(m.dir, "db.sqlite"), Config{FS: m, ReadersGrace: time.Millisecond})
	if err != nil {
		return err
	}
	defer d.Close()
	run := func(sql ...string) error {
		_, err := d.Apply(&command.Entry{Kind: command.Execute, Request: &command.Request{Statements: statements(sql...)}})
		return err
	}
	capture := func(publish bool) error {
		c, err := d.Capture(s.head)
		if err != nil {
			return err
		}
		defer c.Release()
		image, err := s.merge(c)
		if err != nil || !publish {
			return err
		}
		id := fmt.Sprintf("1-%d", len(s.images)+1)
		s.images[id], s.head = image, id
		return c.Published(id)
	}
	steps := []func() error{
		func() error { return run(setup, "INSERT INTO t(n) VALUES('one')") },
		func() error { return capture(true) },
		func() error { return run("INSERT INTO t(n) VALUES(hex(zeroblob(30000)))") },
		func() error { return capture(false) },
		func() error { return run("INSERT INTO t(n) VALUES('two')") },
		func() error { return capture(true) },
		func() error { return run("INSERT INTO t(n) VALUES('three')") },
		func() error { return capture(true) },
		func() error { return run("INSERT INTO t(n) VALUES('four')") },
		func() error { // the leader sends an older snapshot
			name := filepath.Join(m.dir, "image")
			f, err := m.Create(name)
			if err != nil {
				return err
			}
			_, err = f.Write(s.images["1-1"])
			if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
				return err
			}
			s.images["2-1"], s.head = s.images["1-1"], "2-1"
			return d.Replace(name, "2-1")
		},
		func() error { return run("INSERT INTO t(n) VALUES('five')") },
		func() error { return capture(true) },
		func() error {
			_, err := d.Apply(&command.Entry{Kind: command.Load, Data: s.images["1-2"]})
			return err
		},
		func() error { return capture(true) },
		func() error { return run("DELETE FROM t", "VACUUM") },
		func() error { return capture(true) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// TestMarkerCrash cuts the power before each operation of a long life.
func TestMarkerCrash(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	v := &verifier{seed: seed}
	for op := 0; ; op++ {
		l := &life{m: newMirror(memoryDir(t), op), s: chain{images: map[string][]byte{}}}
		err := scenario(t, l.m, &l.s)
		v.when = fmt.Sprintf("power cut before operation %d", op)
		if err != nil && !errors.Is(err, crashfs.ErrPowerLost) {
			t.Fatalf("%s: %v", v.when, err)
		}
		if err := l.m.follow(); err != nil {
			t.Fatal(err)
		}
		v.disks(t, l, 0, 1, 2, 3)
		if err == nil {
			t.Logf("tried %d crash points, 0 error points; %d starts, of which %d kept the files", op, v.starts, v.kept)
			break
		}
	}
	if v.kept == 0 || v.kept == v.starts {
		t.Errorf("kept %d times of %d: one case was never met", v.kept, v.starts)
	}
}

// TestCrash cuts the power before each operation of each act, and again before each operation of the
// opening that follows. Whatever the disk has kept of what was not synced, the files are kept only
// for a snapshot that they equal, and they are kept if the act has come to its end.
func TestCrash(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	other := otherImage(t)
	for _, a := range acts {
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			v := &verifier{seed: seed}
			disks := []int{0, 1, 2, 3}
			if a.name == "replace" { // three names change at once: what a missing sync does shows on one disk in eight
				disks = append(disks, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
			}
			points := 0
			for op := 0; ; op++ {
				l := a.begin(t, other)
				l.m.left = op
				err := a.act(l)
				v.when = fmt.Sprintf("%s, power cut before operation %d", a.name, op)
				if cut := l.m.cut; cut != errors.Is(err, crashfs.ErrPowerLost) || !cut && err != nil {
					t.Fatalf("%s (%t): %v", v.when, cut, err)
				}
				if err := l.m.follow(); err != nil {
					t.Fatal(err)
				}
				v.disks(t, l, disks...)
				v.secondCut(t, l)
				l.end()
				if err == nil {
					break // the cut lies past the last operation
				}
				points++
			}
			t.Logf("tried %d crash points, 0 error points; %d starts, of which %d kept the files", points+v.cuts, v.starts, v.kept)
		})
	}
}

// TestErrors lets every operation of each act fail, reading ones too, once and for ever. Then either
// all goes on, and the next capture is one that a start keeps the files for; or nothing does, and the
// start after it works.
func TestErrors(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	other := otherImage(t)
	for _, a := range acts {
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			v := &verifier{seed: seed}
			points := 0
			for _, forever := range []bool{false, true} {
				for op := 0; ; op++ {
					l := a.begin(t, other)
					l.m.failIn, l.m.forever, l.m.failErr = op, forever, []error{syscall.EIO, syscall.ENOSPC}[op%2]
					err := a.act(l)
					v.when = fmt.Sprintf("%s, operation %d fails, for ever %t: %v", a.name, op, forever, err)
					failed := l.m.failed
					l.m.failIn, l.m.failed = -1, 0
					if failed == 0 {
						l.end()
						break
					}
					points++
					private := a.name == "backup" || a.name == "receive" // a file that can't be removed is left to the next start
					if err == nil && forever && !strings.HasPrefix(a.name, "open") && !private {
						t.Fatalf("%s: it has not noticed", v.when)
					}
					if err != nil && strings.HasPrefix(a.name, "load") {
						l.end() // Apply has failed: nobody goes on with this database
					}
					v.goOn(t, l)
				}
			}
			t.Logf("tried 0 crash points, %d error points; %d starts, of which %d kept the files", points, v.starts, v.kept)
		})
	}
}

// goOn goes on after an error that has passed, and then cuts the power.
func (v *verifier) goOn(t *testing.T, l *life) {
	t.Helper()
	if l.d == nil || l.d.closed {
		var err error
		if l.d, err = Open(l.m.path(), Config{FS: l.m, Head: "1-1"}); err != nil {
			t.Fatalf("%s; then opening = %v", v.when, err)
		}
		l.s.head = l.d.Head()
	}
	err := errors.Join(l.run("CREATE TABLE IF NOT EXISTS small (v)", "INSERT INTO small VALUES(9)"), l.capture("9-9"))
	if final := l.d.failed(); (err != nil) != (final != nil) {
		t.Fatalf("%s; then %v although the final error is %v", v.when, err, final)
	}
	if err := l.m.follow(); err != nil {
		t.Fatal(err)
	}
	v.disks(t, l, v.starts%2) // in turn: power cut, killed
	l.end()
}

// verifier opens what crashes have left.
type verifier struct {
	when         string
	seed         uint64
	starts, kept int
	cuts         int // second ones
}

// disk returns one of the disks that l may leave: without what was not synced, with all of it, with
// parts. The WAL is found on all but the first.
func (v *verifier) disk(l *life, kind int) (disk *crashfs.FS, wal []byte) {
	switch kind {
	case 0:
		return l.m.copy.Restart(), nil
	case 1:
		return l.m.copy.Kill(), l.m.wal
	}
	return l.m.copy.RestartRandom(v.seed + uint64(kind)), l.m.wal
}

// mount makes a real disk of one that l may leave.
func (v *verifier) mount(t *testing.T, l *life, kind int) *mirror {
	t.Helper()
	disk, wal := v.disk(l, kind)
	return remount(t, disk, wal)
}

// disks starts from disks of the given kinds.
func (v *verifier) disks(t *testing.T, l *life, kinds ...int) {
	t.Helper()
	for _, kind := range kinds {
		for _, head := range v.heads(l, kind) {
			v.start(t, l, v.mount(t, l, kind), head, fmt.Sprintf("%s, disk %d", v.when, kind))
		}
	}
}

// heads returns the snapshots that a start may have as the head and that matter: the one that the
// marker names, the newest and the one before it.
func (v *verifier) heads(l *life, kind int) []string {
	heads := map[string]bool{l.s.head: true, l.sure: true, l.before: true}
	disk, _ := v.disk(l, kind)
	if m, err := readMarker(disk, "/db.sqlite"); err == nil {
		heads[m.Snapshot] = true
	}
	delete(heads, "")
	return slices.Sorted(maps.Keys(heads))
}

// secondCut cuts the power in the opening too.
func (v *verifier) secondCut(t *testing.T, l *life) {
	t.Helper()
	for _, head := range v.heads(l, 2) {
		for op := 0; ; op++ {
			m := v.mount(t, l, 2)
			m.left = op
			d, err := Open(m.path(), Config{FS: m, Head: head})
			if err == nil {
				d.Close()
				break
			}
			if !errors.Is(err, crashfs.ErrPowerLost) {
				t.Fatalf("%s: %v", v.when, err)
			}
			v.cuts++
			again := &life{m: m, s: l.s, flipped: l.flipped, gone: l.gone}
			v.start(t, again, v.mount(t, again, op%4), head, fmt.Sprintf("%s, again before operation %d of opening", v.when, op))
		}
	}
}

// start opens m for head and looks at what that has found.
func (v *verifier) start(t *testing.T, l *life, m *mirror, head, when string) {
	t.Helper()
	d, err := Open(m.path(), Config{FS: m, Head: head})
	if err != nil {
		t.Fatalf("%s: opening for %s: %v", when, head, err)
	}
	defer func() {
		d.Close()
		os.RemoveAll(m.dir) // thousands of them would fill memory
	}()
	v.starts++
	kept := d.Head() == head
	if kept {
		v.kept++
	}
	switch {
	case head == l.sure && !kept:
		t.Fatalf("%s: the files were not kept for %s, which was promised\n%s", when, head, strings.Join(l.m.trace, "\n"))
	case kept && head == l.gone:
		t.Fatalf("%s: the files were kept for %s although the marker was withdrawn", when, head)
	}
	if err := whole(d, l.s.images[head], kept); err != nil && !(kept && l.flipped && errors.Is(err, ErrDamaged)) {
		t.Fatalf("%s: opened for %s, kept %t: %v\n%s", when, head, kept, err, strings.Join(l.m.trace, "\n"))
	}
	names, err := vfs.OS.ReadDir(m.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		known := []string{"db.sqlite", "db.sqlite-wal", "db.sqlite-shm", "image"} // image is the caller's
		if !slices.Contains(known, name) && !(kept && (name == markerName || name == sumsName)) {
			t.Fatalf("%s: opened for %s, kept %t: %s was left", when, head, kept, name)
		}
	}
}

// whole compares the main file with the image that it is kept for; with nothing if it is not kept. All
// checksums are right, or ErrDamaged.
func whole(d *DB, image []byte, kept bool) error {
	f, err := d.fs.Open(d.path)
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return err
	}
	data, err := io.ReadAll(io.NewSectionReader(f, 0, size))
	if err != nil {
		return err
	}
	s, err := computeSums(f)
	if err != nil {
		return err
	}
	if s.digest() != d.main.sums.digest() {
		return fmt.Errorf("%w: the checksums are not those of the main file", ErrDamaged)
	}
	switch {
	case kept && !bytes.Equal(data, image):
		return errors.New("the main file differs")
	case !kept && len(data) != 4096:
		return fmt.Errorf("a new main file has %d bytes", len(data))
	}
	return nil
}
