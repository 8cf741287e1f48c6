package snapshot

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rqlited/internal/vfs"
)

// The tests in faults_test.go, here and in other packages, provoke what has broken other snapshot
// stores. docs/design/known-faults.md says what went wrong there; numbers are those of rqlite's
// tracker. S1 to S7 are the shortest histories that tell a good store from a bad one.

// TestKnownFaults compares the table for people with the tests there are.
func TestKnownFaults(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join("..", "docs", "design", "known-faults.md"))
	must(t, err)
	named := map[string]bool{}
	for _, m := range regexp.MustCompile("`([a-z_/]+)\\.((?:Test|Fuzz)[A-Za-z0-9]+)`").FindAllStringSubmatch(string(doc), -1) {
		named[m[1]+"."+m[2]] = true
	}
	there := map[string]bool{}
	for _, dir := range []string{"snapshot", "db", "store", "cluster", "http", "cmd/rqlited", "system_test"} {
		files, err := filepath.Glob(filepath.Join("..", dir, "*_test.go"))
		must(t, err)
		for _, name := range files {
			source, err := os.ReadFile(name)
			must(t, err)
			for _, m := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`).FindAllStringSubmatch(string(source), -1) {
				there[dir+"."+m[1]] = true
				if regexp.MustCompile(`^Test(Fault|S\d)`).MatchString(m[1]) && !named[dir+"."+m[1]] {
					t.Errorf("%s has %s, which known-faults.md does not name", name, m[1])
				}
			}
		}
	}
	for name := range named {
		if !there[name] {
			t.Errorf("known-faults.md names %s, which does not exist", name)
		}
	}
	if len(named) < 100 {
		t.Errorf("only %d tests were found in known-faults.md", len(named))
	}
}

func TestS1(t *testing.T) { t.Run("an older install", TestInstallBelowHead) }
func TestS2(t *testing.T) { t.Run("an older install, then an increment", TestInstallBelowHead) }
func TestS3(t *testing.T) { t.Run("equal term and index", TestEqualIndex) }
func TestS4(t *testing.T) { t.Run("bytes of a reader", TestReaderStability) }
func TestS5(t *testing.T) { t.Run("listed is openable", TestListedIsOpenable) }
func TestS7(t *testing.T) { t.Run("recovery twice", TestRecoveryTwice) }

// TestS6 does what Raft does with an install: what was just closed is opened by another goroutine,
// while the compaction that this very Close has made due goes on.
func TestS6(t *testing.T) {
	s, err := Open("snapshots", Config{FS: newDisk(), CompactDeltas: 1, CompactBytes: 1})
	must(t, err)
	defer s.Close()
	c := fill(5, 0)
	head := mustPublish(t, s, snap{content: c})
	for i := range uint64(40) {
		next := c.change(5, i+1)
		head = mustPublish(t, s, snap{index: 40 - i, term: 1, content: next, parent: &c, head: head})
		c = next
		opened := make(chan error)
		go func() {
			got, err := read(s, head)
			if err == nil && !bytes.Equal(got, c.file()) {
				err = errors.New("other content")
			}
			opened <- err
		}()
		if err := <-opened; err != nil {
			t.Fatalf("snapshot %s, just closed: %v", head, err)
		}
	}
}

// TestFault1711: what a recovery by hand makes a leader send is lower than the follower's own
// snapshot. The order of term and index made the store delete what it had just been given (also
// #1714, #1717, #1718, #1719, #2471, and raft's FileSnapshotStore), or refuse it for ever; and what
// was opened without a lock was renamed or written under its reader (#1774, #1775, #1776).
func TestFault1711(t *testing.T) {
	t.Run("S1 and S2", TestS1)
	t.Run("S3", TestS3)
	t.Run("S4", TestS4)
	t.Run("S5", TestS5)
	t.Run("S6", TestS6)
	t.Run("S7", TestS7)
}

// TestFault1366: increments were moved into the base that readers had open (also #1367, #1410, #1412).
// The disk of this test panics if a published file is changed.
func TestFault1366(t *testing.T) { TestS4(t) }

// TestFault1369: names of snapshots were drawn from an unsynchronised source, and could be equal
// (also #1370). Here time stands still and everybody asks at once, before and after a restart.
func TestFault1369(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := newDisk()
		seen := map[string]bool{}
		for range 2 {
			s := openStore(t, disk)
			ids := make(chan string, 16*1000)
			var all sync.WaitGroup
			for range 16 {
				all.Go(func() {
					for range 1000 {
						k, err := s.Create(1, 8, 3, testConfiguration, 1, nil)
						if err != nil {
							t.Error(err)
							return
						}
						ids <- k.ID()
					}
				})
			}
			all.Wait()
			// What was published with the highest number is what makes the next start go on above it.
			id := mustPublish(t, s, snap{index: 8, term: 3, content: fill(1, 1), install: true})
			close(ids)
			for id := range ids {
				if seen[id] {
					t.Fatalf("id %s was given out twice", id)
				}
				seen[id] = true
			}
			if seen[id] {
				t.Fatalf("id %s was given out twice", id)
			}
			seen[id] = true
			must(t, s.Close())
		}
	})
}

// TestFault1580: of two snapshots that a kill had left behind, List named the older.
func TestFault1580(t *testing.T) {
	disk := newDisk()
	s := openStore(t, disk)
	one := fill(3, 1)
	two := one.change(4, 2)
	first := mustPublish(t, s, snap{index: 5, term: 1, content: one})
	second := mustPublish(t, s, snap{index: 9, term: 1, content: two, head: first})
	if got := only(names(t, disk), ".base"); len(got) != 2 {
		t.Fatalf("bases at the time of the kill: %q; want the old one as well", got)
	}
	s = openStore(t, disk.Kill())
	wantHead(t, s, second)
	wantContent(t, s, second, two)
}

// bigPages is a database that is never in memory as a whole.
type bigPages struct{ pages, next uint32 }

func (b *bigPages) Header() Header { return Header{PageSize: 65536, Pages: b.pages, Records: b.pages} }

func (b *bigPages) Next(buf []byte) (uint32, error) {
	if b.next == b.pages {
		return 0, io.EOF
	}
	b.next++
	for i := range 64 {
		buf[i*1024] = byte(b.next) ^ byte(i)
	}
	return b.next, nil
}

// TestFault1228: the recovery built a database in memory, and ended for want of it; another version
// held each increment in memory as a whole (#1644). Here nothing but buffers is allocated, however
// large the database.
func TestFault1228(t *testing.T) {
	const pages, limit = 512, 4 << 20 // 32 MiB
	dir := t.TempDir()
	s, err := Open(filepath.Join(dir, "snapshots"), Config{CompactDeltas: -1})
	must(t, err)
	defer s.Close()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)

	k, err := s.Create(1, 1, 1, testConfiguration, 1, nil)
	must(t, err)
	k.(*Sink).Local("")
	must(t, WriteStream(k, &bigPages{pages: pages}))
	must(t, k.Close())
	_, rc, err := s.Open(k.ID())
	must(t, err)
	image, err := vfs.OS.Create(filepath.Join(dir, "image"))
	must(t, err)
	h, err := Restore(context.Background(), rc, image)
	must(t, errors.Join(err, rc.Close(), image.Close()))

	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; h.Pages != pages || got > limit {
		t.Errorf("%d bytes were allocated for %d pages of 64 KiB; want at most %d", got, h.Pages, limit)
	}
}

// TestFault1474: what was announced and what was sent did not agree in length or form. No part of such a stream
// is published, and the next attempt works.
func TestFault1474(t *testing.T) {
	whole := streamOf(t, fill(3, 1).image())
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, err := z.Write(whole)
	must(t, errors.Join(err, z.Close()))
	tests := []struct {
		name   string
		stream []byte
	}{
		{"nothing", nil},
		{"shorter", whole[:len(whole)-1]},
		{"without its end", whole[:len(whole)-trailerSize]},
		{"longer", append(bytes.Clone(whole), 218)},
		{"compressed", zipped.Bytes()},
		{"a SQLite file", append([]byte("SQLite format 3\x00"), make([]byte, 4080)...)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			disk := newDisk()
			s := openStore(t, disk)
			old := fill(2, 7)
			head := mustPublish(t, s, snap{index: 1, term: 1, content: old})
			k, err := s.Create(1, 5, 2, testConfiguration, 1, nil)
			must(t, err)
			_, err = k.Write(tt.stream)
			if err = errors.Join(err, k.Close()); !errors.Is(err, ErrMalformed) {
				t.Errorf("Write and Close = %v; want %v", err, ErrMalformed)
			}
			wantHead(t, s, head)
			wantContent(t, s, head, old)
			if got := names(t, disk); len(got) != 2 {
				t.Errorf("left behind: %q", got)
			}
			next := mustPublish(t, s, snap{index: 5, term: 2, content: fill(3, 1), install: true})
			wantContent(t, s, next, fill(3, 1))
		})
	}
}

// TestFault1574: transfers of some sizes failed with another level of compression. Nothing is
// compressed here; every size goes through, cut into pieces anywhere.
func TestFault1574(t *testing.T) {
	dice := rand.New(rand.NewPCG(seed(t), 3))
	zeros := content{pageSize: 65536}
	for range 20 {
		zeros.pages = append(zeros.pages, make([]byte, 65536))
	}
	for _, c := range []content{{pageSize: 4096}, fill(1, 1), fill(200, 2), zeros} {
		from, to := openStore(t, newDisk()), openStore(t, newDisk())
		id := mustPublish(t, from, snap{index: 4, term: 2, content: c})
		meta, rc, err := from.Open(id)
		must(t, err)
		k, err := to.Create(meta.Version, meta.Index, meta.Term, meta.Configuration, meta.ConfigurationIndex, nil)
		must(t, err)
		sent := int64(0)
		for err == nil {
			var n int64
			n, err = io.CopyN(k, rc, 1+dice.Int64N(70000))
			sent += n
		}
		if err != io.EOF || sent != meta.Size {
			t.Fatalf("sent %d of %d bytes: %v", sent, meta.Size, err)
		}
		must(t, errors.Join(rc.Close(), k.Close()))
		wantContent(t, to, k.ID(), c)
	}
}

// TestFault1918: a stream that was the path of a file made the receiver take that file. Here a stream
// is a stream.
func TestFault1918(t *testing.T) {
	dir := t.TempDir()
	victim := filepath.Join(dir, "victim")
	must(t, os.WriteFile(victim, []byte("keep"), 0o600))
	s, err := Open(filepath.Join(dir, "snapshots"), Config{CompactDeltas: -1})
	must(t, err)
	defer s.Close()
	for _, stream := range []string{victim, victim + "\n", victim + strings.Repeat("\x00", 400), dir, `{"path":"` + dir + `"}`} {
		k, err := s.Create(1, 5, 2, testConfiguration, 1, nil)
		must(t, err)
		_, err = k.Write([]byte(stream))
		if err = errors.Join(err, k.Close()); !errors.Is(err, ErrMalformed) {
			t.Errorf("%q: Write and Close = %v; want %v", stream, err, ErrMalformed)
		}
	}
	got, err := os.ReadFile(victim)
	left, listErr := vfs.OS.ReadDir(s.dir)
	if string(got) != "keep" || !slices.Equal(left, []string{manifestName}) {
		t.Errorf("the file holds %q, the store %q: %v, %v", got, left, err, listErr)
	}
}

// TestFault2499: constant readers kept superseded files from being deleted. Here each costs its own
// files and no more.
func TestFault2499(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := newDisk()
		s, err := Open("snapshots", Config{FS: disk, Grace: 1, CompactDeltas: 2, CompactBytes: 1})
		must(t, err)
		defer s.Close()
		c := fill(5, 0)
		head := mustPublish(t, s, snap{content: c})
		_, rc, err := s.Open(head)
		must(t, err)
		for i := range uint64(60) {
			next := c.change(5, i+1)
			head = mustPublish(t, s, snap{index: i, term: 1, content: next, parent: &c, head: head})
			c = next
			_, newer, err := s.Open(head) // before the last one ends: there is always a reader
			must(t, err)
			must(t, rc.Close())
			rc = newer
			time.Sleep(time.Second)
			synctest.Wait()
			if got := names(t, disk); len(got) > 8 {
				t.Fatalf("after %d snapshots the directory holds %q", i, got)
			}
		}
		must(t, rc.Close())
		if s.Stats().Compactions < 20 {
			t.Errorf("%d compactions: not what this test is for", s.Stats().Compactions)
		}
	})
}

// TestFault2521: damage on the disk or on the way went unnoticed (also #2527, #2528, #2591, #2606).
// Each file and the stream are damaged in turn; nothing of it is ever used.
func TestFault2521(t *testing.T) {
	one := fill(3, 1)
	two := one.change(4, 2)
	want := streamOf(t, two.image())
	for _, name := range []string{manifestName, "000001.base", "000002.delta"} {
		for at := 0; at < 5000; at += 61 {
			disk := newDisk()
			s := openStore(t, disk)
			id := grow(t, s, one, two)
			must(t, s.Close())
			inside := false
			overwrite(t, disk, name, func(b []byte) []byte {
				if inside = at < len(b); inside {
					b[at] ^= 1 << (at % 8)
				}
				return b
			})
			s, err := Open("snapshots", Config{FS: disk, CompactDeltas: -1})
			if err == nil && inside {
				wantDamaged(t, fmt.Sprintf("%s, byte %d", name, at), s, id, want)
			}
			if !inside || err != nil && !errors.Is(err, ErrDamaged) {
				must(t, err)
			}
			if err == nil {
				must(t, s.Close())
			}
		}
	}
	for at := 0; at < len(want); at += 37 {
		bad := bytes.Clone(want)
		bad[at] ^= 1 << (at % 8)
		s := openStore(t, newDisk())
		k, err := s.Create(1, 1, 1, testConfiguration, 1, nil)
		must(t, err)
		_, err = k.Write(bad)
		if err = errors.Join(err, k.Close()); !errors.Is(err, ErrMalformed) {
			t.Fatalf("stream with byte %d changed: %v; want %v", at, err, ErrMalformed)
		}
	}
}

// TestFault2550: sinks that were closed at one time met the renaming of what they had published (also
// #2556). Here each is openable as soon as it is closed, and one of them is the head for good.
func TestFault2550(t *testing.T) {
	disk := newDisk()
	s := openStore(t, disk)
	var mu sync.Mutex
	holds := map[string]content{}
	var all sync.WaitGroup
	for i := range uint64(8) {
		all.Go(func() {
			for j := range uint64(5) {
				c := fill(3, 10*i+j)
				id, err := publish(s, snap{index: 9 - i, term: j, content: c, install: true})
				if err != nil {
					t.Error(err)
					return
				}
				if got, err := read(s, id); err != nil || !bytes.Equal(got, c.file()) {
					t.Errorf("snapshot %s, just closed: %v, or other content", id, err)
				}
				mu.Lock()
				holds[id] = c
				mu.Unlock()
			}
		})
	}
	all.Wait()
	head, _ := s.Head()
	must(t, s.Close())
	s = openStore(t, disk)
	wantHead(t, s, head.ID)
	wantContent(t, s, head.ID, holds[head.ID])
}

// TestFault2642: a transfer that stood still kept a lock, or was cut off after half a minute (also
// #2687, #2694, #2698). Here it may take two days, and costs disk space only.
func TestFault2642(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := Open("snapshots", Config{FS: newDisk(), CompactDeltas: 2, CompactBytes: 1})
		must(t, err)
		c := fill(6, 0)
		head := mustPublish(t, s, snap{content: c})
		want := streamOf(t, c.image())
		_, rc, err := s.Open(head)
		must(t, err)
		got := make([]byte, len(want)/2)
		_, err = io.ReadFull(rc, got)
		must(t, err)
		for i := range uint64(24) {
			next := c.change(6, i+1)
			head = mustPublish(t, s, snap{index: i, term: 1, content: next, parent: &c, head: head})
			c = next
			time.Sleep(2 * time.Hour)
			synctest.Wait()
		}
		if got := len(s.Stats().Snapshots); got > 3 || s.Stats().Superseded > 0 {
			t.Errorf("chain has %d files: compaction waits for the reader", got)
		}
		must(t, s.Close()) // and so does nobody else
		rest, err := io.ReadAll(rc)
		must(t, errors.Join(err, rc.Close()))
		if !bytes.Equal(append(got, rest...), want) {
			t.Error("the bytes are not those of the snapshot")
		}
	})
}

// TestFault2693: files were verified once for each process (also #2695, #2700, #2710). Here one that
// goes bad after it was verified is noticed by the sender, and the receiver takes nothing of it.
func TestFault2693(t *testing.T) {
	disk := newDisk()
	from, to := openStore(t, disk), openStore(t, newDisk())
	one := fill(5, 1)
	id := grow(t, from, one, one.change(6, 2))
	must(t, from.Verify(context.Background()))
	wantContent(t, from, id, one.change(6, 2))
	overwrite(t, disk, "000002.delta", flip(headerSize+recordHeaderSize+100))

	meta, rc, err := from.Open(id)
	must(t, err)
	k, err := to.Create(meta.Version, meta.Index, meta.Term, meta.Configuration, meta.ConfigurationIndex, nil)
	must(t, err)
	if n, err := io.Copy(k, rc); !errors.Is(err, ErrDamaged) || n >= meta.Size-trailerSize {
		t.Errorf("sent %d of %d bytes, %v; want %v", n, meta.Size, err, ErrDamaged)
	}
	must(t, rc.Close())
	if err := k.Close(); !errors.Is(err, ErrMalformed) {
		t.Errorf("Close at the receiver = %v; want %v", err, ErrMalformed)
	}
	if _, ok := to.Head(); ok {
		t.Error("the receiver has a snapshot")
	}
}

// TestFault2746: a snapshot of the same term, index and millisecond, or a clock that had gone back,
// made compaction rename a directory onto itself, for ever; or the newer sorted below the older (also #2749,
// #2757, #2807, #2809, #2812, #2819). Here time stands still.
func TestFault2746(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := newDisk()
		s := openStore(t, disk)
		used := map[string]bool{}
		begin := time.Now()
		c := fill(4, 0)
		head := mustPublish(t, s, snap{index: 8, term: 3, content: c})
		for i := range uint64(6) {
			if used[head] {
				t.Fatalf("id %s was used before", head)
			}
			used[head] = true
			next := c.change(5, i+1)
			n := snap{index: 8, term: 3, content: next, parent: &c, head: head}
			if i%3 == 2 {
				n = snap{index: 8, term: 3, content: next, install: true}
			}
			head, c = mustPublish(t, s, n), next
			must(t, s.Compact(context.Background()))
			wantHead(t, s, head)
			wantContent(t, s, head, c)
			must(t, s.Close())
			s = openStore(t, disk)
			wantHead(t, s, head)
			wantContent(t, s, head, c)
		}
		if time.Since(begin) != 0 {
			t.Error("time has gone on: not what this test is for")
		}
	})
}

// TestFaultMovedDirectory: a plan on the disk named files by absolute paths, so that a data directory that
// was moved after a kill could not be opened.
func TestFaultMovedDirectory(t *testing.T) {
	root := t.TempDir()
	old, moved := filepath.Join(root, "old place"), filepath.Join(root, "new place")
	must(t, os.Mkdir(old, 0o700))
	s, err := Open(filepath.Join(old, "snapshots"), Config{CompactDeltas: -1})
	must(t, err)
	one := fill(4, 1)
	two := one.change(5, 2)
	id := grow(t, s, one, two)
	must(t, s.Close())
	// What a kill in the middle of a compaction leaves.
	must(t, os.WriteFile(filepath.Join(old, "snapshots", "000003.base"), []byte("half"), 0o600))
	must(t, os.WriteFile(filepath.Join(old, "snapshots", manifestTmp), []byte("half"), 0o600))
	for _, name := range []string{manifestName, "000001.base", "000002.delta"} {
		data, err := os.ReadFile(filepath.Join(old, "snapshots", name))
		must(t, err)
		if bytes.Contains(data, []byte(root)) || bytes.Contains(data, []byte("old place")) {
			t.Errorf("%s says where it is", name)
		}
	}
	must(t, os.Rename(old, moved))

	s, err = Open(filepath.Join(moved, "snapshots"), Config{CompactDeltas: -1})
	must(t, err)
	defer s.Close()
	wantHead(t, s, id)
	wantContent(t, s, id, two)
	must(t, s.Compact(context.Background()))
	wantContent(t, s, id, two)
	if _, err := os.Stat(old); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the old place is there again: %v", err)
	}
}
