package db

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"rqlited/command"
)

// TestFault2371: that the file had not changed since was taken for proof that it equals the newest
// snapshot (also #2374 to #2378). Here the marker names the snapshot, and a page that has gone bad
// behind it is never shown to anybody.
func TestFault2371(t *testing.T) {
	t.Run("marker", TestMarkerRules)
	t.Run("bit flip", func(t *testing.T) {
		path, image := prepareMarked(t)
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		image[bytes.Index(image, []byte("in the snapshot"))] ^= 1
		if err := errors.Join(os.WriteFile(path, image, 0o600), os.Chtimes(path, time.Time{}, info.ModTime())); err != nil {
			t.Fatal(err)
		}
		d := open(t, path, Config{Head: "1-1"})
		if d.Head() != "1-1" {
			t.Fatal("the file was not kept: not what this test is for")
		}
		req := &command.Request{Kind: command.Query, Statements: statements("SELECT n FROM t")}
		if resp, err := d.Query(context.Background(), req); !errors.Is(err, ErrDamaged) {
			t.Errorf("Query = %+v, %v; want %v", resp, err, ErrDamaged)
		}
		if again := open(t, killed(t, path), Config{Head: "1-1"}); again.Head() != "" {
			t.Error("the next start has kept the file")
		}
	})
}

// TestFault2103: an exchange of files that failed in the middle left no database, and the node went
// on with an index (also #2736, #2740, #2772, #2761, #2759); errors within a snapshot were dropped (#2473). Here every
// operation fails in turn, and is reported: the old database serves on, or none does. TestErrors
// looks at what the disk is left with.
func TestFault2103(t *testing.T) {
	t.Parallel()
	other := otherImage(t)
	tried := 0
	for name, act := range map[string]func(l *life) error{
		"replace": func(l *life) error { return l.d.Replace(l.image, "7-7") },
		"load": func(l *life) error {
			_, err := l.d.Apply(&command.Entry{Kind: command.Load, Data: other})
			return err
		},
		"publish": func(l *life) error { return l.capture("1-2") },
	} {
		for op := 0; ; op++ {
			l := newLife(t, other)
			l.m.failIn, l.m.failErr = op, syscall.EIO
			err := act(l)
			failed := l.m.failed
			l.m.failIn = -1
			if failed == 0 {
				if err != nil {
					t.Fatalf("%s = %v although nothing has failed", name, err)
				}
				break
			}
			tried++
			if err == nil { // which only the closing of a file that was read may be
				if name != "publish" || l.d.Head() != "1-2" || l.sure != "1-2" {
					t.Errorf("%s, operation %d fails: it has not noticed", name, op)
				}
				continue
			}
			if l.run("INSERT INTO small VALUES(3)") == nil {
				if got := value(t, l.d, "SELECT group_concat(v) FROM small"); got != "1,2,3" {
					t.Errorf("%s, operation %d fails: %v; then rows are %v", name, op, err, got)
				}
			} else if replace, capture := l.d.Replace(l.image, "7-7"), l.capture("1-3"); replace == nil || capture == nil {
				t.Errorf("%s, operation %d fails: %v; then Replace = %v, Capture = %v", name, op, err, replace, capture)
			}
		}
	}
	t.Logf("tried 0 crash points, %d error points", tried)
}

// TestFault2456: a WAL that lay beside a base was taken for its own. Here what lies beside the
// database, or beside an image that comes into its place, has no say.
func TestFault2456(t *testing.T) {
	d := openNew(t)
	bulkTable(t, d)
	var s chain
	snapshotNow(t, d, &s)
	exec(t, d, "INSERT INTO small VALUES('stray')")
	path := killed(t, d.path)
	if info, err := os.Stat(path + "-wal"); err != nil || info.Size() == 0 {
		t.Fatalf("there is no stray WAL: %v", err)
	}
	stray, err := os.ReadFile(path + "-wal") // of a database that begins with the same snapshot
	if err != nil {
		t.Fatal(err)
	}
	again := open(t, path, Config{Head: s.head})
	if got := value(t, again, "SELECT count(*) FROM small"); got != int64(0) || again.Head() != s.head {
		t.Errorf("%v rows come from the stray WAL, head %q", got, again.Head())
	}
	image := filepath.Join(filepath.Dir(path), "image")
	if err := errors.Join(os.WriteFile(image, s.images[s.head], 0o600), os.WriteFile(image+"-wal", stray, 0o600), os.WriteFile(image+"-journal", stray, 0o600)); err != nil {
		t.Fatal(err)
	}
	exec(t, again, "INSERT INTO small VALUES('old')")
	if err := again.Replace(image, s.head); err != nil {
		t.Fatal(err)
	}
	if got := value(t, again, "SELECT count(*) FROM small"); got != int64(0) || !bytes.Equal(mainFileOf(t, again), s.images[s.head]) {
		t.Errorf("%v rows after the replacement, or another main file", got)
	}
}

// TestFault2640: frames that are none were taken for some (also #2655): of a WAL that was too short,
// and with page number 0.
func TestFault2640(t *testing.T) {
	wal := writtenWAL(t)
	all, err := readWAL(bytes.NewReader(wal), int64(len(wal)), walPos{})
	if err != nil {
		t.Fatal(err)
	}
	frame := walFrameSize + all.pageSize
	for n := range all.end.frames {
		bad := bytes.Clone(wal)
		binary.BigEndian.PutUint32(bad[walHeaderSize+n*frame:], 0)
		reseal(bad, frame)
		scan, err := readWAL(bytes.NewReader(bad), int64(len(bad)), walPos{})
		if err != nil || scan.end.frames > n || slices.Contains(scan.pages.upTo(^uint32(0)), 0) {
			t.Errorf("frame %d is of page 0: %d frames count, %v", n, scan.end.frames, err)
		}
	}
	control := bytes.Clone(wal)
	reseal(control, frame)
	if !bytes.Equal(control, wal) {
		t.Error("the checksums are not those of SQLite: not what this test is for")
	}
	for _, size := range []int{0, 1, walHeaderSize - 1, walHeaderSize, walHeaderSize + walFrameSize, walHeaderSize + frame - 1} {
		if scan, err := readWAL(bytes.NewReader(wal[:size]), int64(size), walPos{}); err != nil || scan.end.frames != 0 {
			t.Errorf("%d bytes: %d frames count, %v", size, scan.end.frames, err)
		}
	}
}

// reseal computes the checksums of all frames anew.
func reseal(wal []byte, frame int) {
	order, _, pos, _ := parseWALHeader(wal)
	for off := walHeaderSize; off+frame <= len(wal); off += frame {
		pos.sum = walSum(order, pos.sum, wal[off:off+8])
		pos.sum = walSum(order, pos.sum, wal[off+walFrameSize:off+frame])
		binary.BigEndian.PutUint32(wal[off+16:], pos.sum[0])
		binary.BigEndian.PutUint32(wal[off+20:], pos.sum[1])
	}
}

// TestFault2647: a marker that an older version had written was taken for damage, and ended the
// start. Here a marker that is not understood is none.
func TestFault2647(t *testing.T) {
	for _, text := range []string{
		"", "\x00\x00\x00\x00", `{}`, `{"mod_time":"2024-01-02T03:04:05Z","size":8192}`,
		`{"mod_time":"2024-01-02T03:04:05Z","size":8192,"crc32":1234567}`, `{"version":1}`, `{"version":1,"snapshot":7}`,
	} {
		path, _ := prepareMarked(t)
		if err := os.WriteFile(markerPath(path), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if d := open(t, path, Config{Head: "1-1"}); d.Head() != "" {
			t.Errorf("%q was taken for a marker", text)
		}
	}
}

// TestFaultMarkerOrder: the marker's renaming, and worse its withdrawal before a change, were not
// synced, so that a power cut could bring it back beside a main file that it does not speak of. This
// is the order of all operations of a long life; TestMarkerCrash cuts the power in it.
func TestFaultMarkerOrder(t *testing.T) {
	m := newMirror(t.TempDir(), -1)
	if err := scenario(t, m, &chain{images: map[string][]byte{}}); err != nil {
		t.Fatal(err)
	}
	const none, removed, present = 0, 1, 2
	marker, changes := none, 0
	synced := map[string]bool{}
	for i, op := range m.trace {
		what, name, _ := strings.Cut(op, " ")
		from, to, _ := strings.Cut(name, " ")
		recent := m.trace[max(0, i-4) : i+1]
		switch {
		case what == "sync":
			synced[name] = true
		case op == "remove /db.clean":
			marker = min(marker, removed)
		case what == "syncdir" && marker == removed:
			marker = none
		case to == "/db.clean":
			if marker = present; !synced["/db.sqlite"] {
				t.Errorf("operation %d: a marker for a main file that is not synced: %q", i, recent)
			}
		case to == "/db.sqlite", op == "(main file changed)" && !strings.HasSuffix(m.trace[i-1], " /db.sqlite"):
			changes++
			synced["/db.sqlite"] = synced[from]
			if marker != none {
				t.Errorf("operation %d: the main file changes beside a marker: %q", i, recent)
			}
		}
	}
	if changes < 5 {
		t.Errorf("the main file has changed %d times: not what this test is for", changes)
	}
}
