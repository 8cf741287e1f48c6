package snapshot

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"rqlited/internal/vfs/crashfs"
)

// TestDue is the table of what is compacted when. A chain is written as the records of its files,
// the base first; merged deltas are negative.
func TestDue(t *testing.T) {
	many := func(n int, records int) []int { return slices.Repeat([]int{records}, n) }
	cat := func(lists ...[]int) []int { return slices.Concat(lists...) }
	base := []int{100000}
	tests := []struct {
		name  string
		cfg   Config
		chain []int
		want  []int // where the rewritten ends of the chain begin
	}{
		{"nothing", Config{}, nil, nil},
		{"a base", Config{}, base, nil},
		{"31 deltas", Config{}, cat(base, many(31, 9)), nil},
		{"32 deltas", Config{}, cat(base, many(32, 9)), []int{1}},
		{"40 merged, 40 new", Config{}, cat(base, many(40, -99), many(40, 9)), nil},
		{"40 merged, 41 new", Config{}, cat(base, many(40, -99), many(41, 9)), []int{41}},
		{"just not crowded", Config{}, cat(base, many(120, -99), many(87, 9)), nil},
		{"crowded", Config{}, cat(base, many(120, -99), many(88, 9)), []int{121}},
		{"crowded by merged deltas", Config{}, cat(base, many(180, -99), many(28, 9)), []int{1}},
		{"lighter than the image", Config{}, []int{10000, 9990}, nil},
		{"as heavy as the image", Config{}, []int{10000, 10000}, []int{0}},
		{"light although as heavy as the image", Config{}, []int{100, 100}, nil},
		{"heavy and many", Config{}, cat([]int{1000}, many(32, 1000)), []int{0, 1}},
		{"off", Config{CompactDeltas: -1}, cat([]int{1000}, many(200, 1000)), nil},
		{"as configured", Config{CompactDeltas: 3, CompactBytes: 1}, []int{100, 1, 1, 1}, []int{1}},
		{"as configured", Config{CompactDeltas: 3, CompactBytes: 1}, []int{100, 50, 50}, []int{0}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := tt.cfg.withDefaults()
			must(t, err)
			var chain []link
			for i, n := range tt.chain {
				l := link{File: fileName(uint64(i), i > 0), PageSize: 4096, Pages: uint32(tt.chain[0]), Records: uint32(max(n, -n))}
				if n < 0 {
					l.Merges = 1
				}
				chain = append(chain, l)
			}
			var got []int
			for _, p := range c.due(chain) {
				got = append(got, p.from)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("due = %v; want %v", got, tt.want)
			}
		})
	}
}

// TestMerge merges deltas of a database that grows and shrinks. The head stays what it is, what was
// between is gone after its grace period, and new deltas fit on top.
func TestMerge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fsys := newDisk()
		s := openStore(t, fsys)
		c := fill(8, 0)
		ids, contents := []string{image(c)(t, s)}, []content{c}
		add := func(pages int) {
			next := c.change(pages, uint64(len(ids)))
			ids = append(ids, mustPublish(t, s, snap{index: uint64(len(ids)), term: 1, content: next, parent: &c, head: ids[len(ids)-1]}))
			contents, c = append(contents, next), next
		}
		for _, pages := range []int{12, 5, 9, 20, 11} { // in the end it has grown from 8 to 11
			add(pages)
		}
		head, _ := s.Head()
		must(t, s.compact(context.Background(), mergeAll))
		if got, _ := s.Head(); got != head {
			t.Errorf("head = %+v; want %+v", got, head)
		}
		for i, id := range ids {
			wantContent(t, s, id, contents[i])
		}
		add(14)
		add(3)
		must(t, s.compact(context.Background(), mergeAll)) // also what is merged already
		add(6)
		time.Sleep(s.cfg.Grace)
		synctest.Wait()
		for i, id := range ids {
			if kept := i == 0 || i >= len(ids)-2; kept {
				wantContent(t, s, id, contents[i])
			} else if _, _, err := s.Open(id); !errors.Is(err, ErrNotFound) {
				t.Errorf("Open(%s) = %v; want %v", id, err, ErrNotFound)
			}
		}
		must(t, checkTidy(fsys, s))
		if st := s.Stats(); st.Merges != 2 || st.Compactions != 2 || len(st.Snapshots) != 3 {
			t.Errorf("Stats() = %+v; want 2 merges and 3 snapshots", st)
		}
		must(t, s.Close())
		s = openStore(t, fsys)
		wantContent(t, s, ids[len(ids)-1], c)
		if got := s.catalog.man.Chain[1].Merges; got != 2 {
			t.Errorf("the delta was merged %d times; want 2", got)
		}
		must(t, s.Compact(context.Background()))
		wantContent(t, s, ids[len(ids)-1], c)
	})
}

// TestMergeUnderInstall: an install that arrives while deltas are being merged wins.
func TestMergeUnderInstall(t *testing.T) {
	hook := &hookFS{FS: newDisk()}
	s := openStore(t, hook)
	c := fill(3, 1)
	head := chain(c, c.change(4, 2))(t, s)
	two := c.change(4, 2)
	mustPublish(t, s, snap{index: 3, term: 1, content: c, parent: &two, head: head})
	hook.once = func() { head = mustPublish(t, s, snap{index: 1, term: 1, content: two, install: true}) }
	must(t, s.compact(context.Background(), mergeAll))
	wantHead(t, s, head)
	wantContent(t, s, head, two)
	if st := s.Stats(); st.Merges != 0 {
		t.Errorf("Stats().Merges = %d; want 0", st.Merges)
	}
}

// TestClone compacts the same chains by copying and by changing a clone in place: the bytes are the
// same. The latter writes no more than what has changed.
func TestClone(t *testing.T) {
	c := fill(12, 1)
	tests := []struct {
		name   string
		states []content
		clones bool
	}{
		{"same size", []content{c, c.change(12, 2), c.change(12, 3)}, true},
		{"grown", []content{c, c.change(13, 2), c.change(30, 3)}, true},
		{"grown from nothing", []content{{pageSize: testPageSize}, c}, true},
		{"nothing at all", []content{{pageSize: testPageSize}, {pageSize: testPageSize}}, true},
		{"no change", []content{c, c}, true},
		{"shrunk", []content{c, c.change(13, 2), c.change(11, 3)}, false},
		{"shrunk and grown again", []content{c, c.change(3, 2), c.change(14, 3)}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var files [][]byte
			for _, disk := range []*crashfs.FS{newDisk(), cloningDisk()} {
				s := openStore(t, disk)
				head := image(tt.states[0])(t, s)
				for i, next := range tt.states[1:] {
					head = mustPublish(t, s, snap{index: 1, term: 1, content: next, parent: &tt.states[i], head: head})
				}
				deltas := weight(s.catalog.man.Chain[1:])
				must(t, s.Compact(context.Background()))
				wantContent(t, s, head, tt.states[len(tt.states)-1])
				base := s.catalog.man.Chain[0]
				f, err := disk.Open("snapshots/" + base.File)
				must(t, err)
				data, err := io.ReadAll(f)
				must(t, errors.Join(err, f.Close()))
				files = append(files, data)
				limit := base.size()
				if len(files) == 2 && tt.clones {
					limit = min(limit, headerSize+deltas+trailerSize)
				}
				if got := s.Stats().BytesCompacted; got > limit {
					t.Errorf("disk %d: %d bytes were written; want %d at most", len(files), got, limit)
				}
			}
			if !bytes.Equal(files[0], files[1]) {
				t.Error("a changed clone differs from a copy")
			}
		})
	}
}

// TestRoom checks that a compaction which would fill the disk is not begun, that one for which there
// is room takes its place, and that all is made up for when there is space again.
func TestRoom(t *testing.T) {
	one := fill(40, 1)
	two := one.change(40, 2)
	imageSize := two.image().Header().streamSize()
	tests := []struct {
		name   string
		clones bool
		free   int64
		err    error
	}{
		{"no space", true, 1000, ErrNoRoom},
		{"too little", false, withMargin(imageSize) - 1, ErrNoRoom},
		{"enough", false, withMargin(imageSize), nil},
		{"enough for a clone", true, withMargin(imageSize) - 1, nil},
		{"more than anybody knows", false, -1, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fsys := newDisk()
				fsys.OfferClone(tt.clones)
				s := openStore(t, fsys)
				head := chain(one, two)(t, s)
				fsys.SetFree(tt.free)
				if err := s.Compact(context.Background()); !errors.Is(err, tt.err) {
					t.Errorf("Compact = %v; want %v", err, tt.err)
				}
				wantContent(t, s, head, two)
				time.Sleep(s.cfg.Grace)
				synctest.Wait()
				must(t, checkTidy(fsys, s))
			})
		})
	}
}

// TestRoomLater leaves it to the store to compact, on a disk without room for it.
func TestRoomLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fsys := newDisk()
		s, err := Open("snapshots", Config{FS: fsys, CompactDeltas: 4, CompactBytes: 1})
		must(t, err)
		defer s.Close()
		c := fill(100, 0)
		head := image(c)(t, s)
		grow := func(deltas, pages int) {
			for range deltas {
				next := content{pageSize: testPageSize, pages: slices.Clone(c.pages)}
				copy(next.pages, fill(pages, uint64(time.Now().UnixNano())).pages)
				head = mustPublish(t, s, snap{index: 1, term: 1, content: next, parent: &c, head: head})
				c = next
				synctest.Wait()
				time.Sleep(time.Second)
			}
		}
		fsys.SetFree(withMargin(0))
		grow(4, 1)
		if st := s.Stats(); st.CompactionsSkipped != 1 || st.Compactions != 0 || len(st.Snapshots) != 5 {
			t.Errorf("without space: Stats() = %+v; want one skipped compaction, and five snapshots", st)
		}
		fsys.SetFree(withMargin(30 << 10)) // for a delta, not for an image
		time.Sleep(retryAfter)
		synctest.Wait()
		if st := s.Stats(); st.Merges != 1 || len(st.Snapshots) != 2 {
			t.Errorf("with some space: Stats() = %+v; want one merge, and two snapshots", st)
		}
		grow(2, 51) // which together weigh as much as the image
		if st := s.Stats(); st.CompactionsSkipped != 2 || len(st.Snapshots) != 4 {
			t.Errorf("with some space: Stats() = %+v; want two skipped compactions, and four snapshots", st)
		}
		fsys.SetFree(-1)
		time.Sleep(retryAfter)
		synctest.Wait()
		if st := s.Stats(); len(st.Snapshots) != 1 {
			t.Errorf("with space: Stats() = %+v; want one snapshot", st)
		}
		wantContent(t, s, head, c)
		time.Sleep(s.cfg.Grace)
		synctest.Wait()
		must(t, checkTidy(fsys, s))
	})
}

// TestCompactsByItself lets the store compact as it sees fit, with an error in between.
func TestCompactsByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fsys := newDisk()
		s, err := Open("snapshots", Config{FS: fsys, CompactDeltas: 4})
		must(t, err)
		defer s.Close()
		c := fill(9, 0)
		head := image(c)(t, s)
		for i := range uint64(4) {
			next := c.change(9, i)
			if i == 3 {
				fsys.FailAt(14, errors.New("disk full"), false) // in the merge, behind the delta
			}
			head = mustPublish(t, s, snap{index: 1, term: 1, content: next, parent: &c, head: head})
			c = next
			synctest.Wait()
		}
		if st := s.Stats(); fsys.Failed() != 1 || len(st.Snapshots) != 5 {
			t.Errorf("%d operations have failed, Stats() = %+v; want one, and five snapshots", fsys.Failed(), st)
		}
		time.Sleep(retryAfter)
		synctest.Wait()
		if st := s.Stats(); len(st.Snapshots) != 2 {
			t.Errorf("Stats() = %+v; want two snapshots", st)
		}
		wantContent(t, s, head, c)
	})
}

// TestReaderMemory opens the longest chain there can be, of the largest pages there are.
func TestReaderMemory(t *testing.T) {
	s := openStore(t, newDisk())
	page := bytes.Repeat([]byte{7}, maxPageSize)
	pages := func(delta bool) *pageList {
		return &pageList{
			header: Header{PageSize: maxPageSize, Pages: 1, Records: 1, Delta: delta},
			pgnos:  []uint32{1},
			pages:  [][]byte{page},
		}
	}
	head := publishPages(t, s, "", pages(false))
	for range maxDeltas {
		head = publishPages(t, s, head, pages(true))
	}
	_, rc, err := s.Open(head)
	must(t, err)
	bytes, files := 0, 0
	for _, src := range rc.(*reader).merge.sources {
		bytes += src.dec.r.Size()
		files++
	}
	if files != maxDeltas+1 || bytes >= 16<<20 {
		t.Errorf("a reader of %d files has buffers of %d bytes; want less than 16 MiB", files, bytes)
	}
	_, err = io.Copy(io.Discard, rc)
	must(t, errors.Join(err, rc.Close()))
}
