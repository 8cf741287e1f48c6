package snapshot

import (
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"rqlited/internal/vfs"
)

// manifestPerLink bounds the bytes of MANIFEST for each file of a chain whose configuration does not
// change; manifestFixed those that come once.
const (
	manifestPerLink = 220
	manifestFixed   = 1 << 10
)

// countFS counts the bytes that are written to files.
type countFS struct {
	vfs.FS
	mu    sync.Mutex
	bytes int64
}

func (c *countFS) Create(name string) (vfs.File, error) {
	f, err := c.FS.Create(name)
	return countFile{f, c}, err
}

type countFile struct {
	vfs.File
	fs *countFS
}

func (f countFile) count(n int) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	f.fs.bytes += int64(n)
}

func (f countFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	f.count(n)
	return n, err
}

func (f countFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := f.File.WriteAt(p, off)
	f.count(n)
	return n, err
}

// versions is a database of small pages of which only the version of each is kept. As Pages it
// yields those that have changed since the last time.
type versions struct {
	version []uint32 // by page number less one
	dirty   map[uint32]bool
	image   bool
	next    uint32
}

func (v *versions) touch(pgno uint32) {
	for uint32(len(v.version)) < pgno {
		v.version = append(v.version, 0)
		v.dirty[uint32(len(v.version))] = true
	}
	v.version[pgno-1]++
	v.dirty[pgno] = true
}

func (v *versions) Header() Header {
	h := Header{PageSize: testPageSize, Pages: uint32(len(v.version)), Records: uint32(len(v.version))}
	if !v.image {
		h.Records, h.Delta = uint32(len(v.dirty)), true
	}
	return h
}

func (v *versions) Next(buf []byte) (uint32, error) {
	for v.next++; v.next <= uint32(len(v.version)); v.next++ {
		if v.image || v.dirty[v.next] {
			copy(buf, fmt.Appendf(buf[:0], "%0*d", testPageSize, uint64(v.next)<<32|uint64(v.version[v.next-1])))
			return v.next, nil
		}
	}
	return 0, io.EOF
}

// TestWriteCost lets the store work for long and counts what it writes: three bytes at most for each
// byte of change, and a MANIFEST for each snapshot.
func TestWriteCost(t *testing.T) {
	base := seed(t)
	anywhere := func(n int) func(v *versions, r *rand.Rand) {
		return func(v *versions, r *rand.Rand) {
			for range n {
				v.touch(1 + r.Uint32N(uint32(len(v.version))))
			}
		}
	}
	tests := []struct {
		name   string
		pages  uint32 // of the base
		deltas int
		change func(v *versions, r *rand.Rand)
	}{
		{"as 4 MiB upon 1 GiB", 2048, 500, anywhere(8)},
		{"large deltas upon a small base", 8, 60, func(v *versions, r *rand.Rand) { v.touch(300); anywhere(150)(v, r) }},
		{"growing", 16, 400, func(v *versions, _ *rand.Rand) { v.touch(uint32(len(v.version)) + 8) }},
		{"growing and changing", 16, 300, func(v *versions, r *rand.Rand) { v.touch(uint32(len(v.version)) + 4); anywhere(4)(v, r) }},
		{"hot pages", 1000, 300, func(v *versions, r *rand.Rand) {
			for range 16 {
				v.touch(1 + r.Uint32N(20))
			}
		}},
		{"tiny deltas", 1000, 800, anywhere(1)},
		{"growing and shrinking", 500, 100, func(v *versions, r *rand.Rand) {
			if v.version = v.version[:len(v.version)*3/4]; len(v.version) < 100 {
				v.touch(1000)
			}
			anywhere(10)(v, r)
		}},
		{"now and then all of it", 200, 200, func(v *versions, r *rand.Rand) {
			n := 3
			if r.IntN(20) == 0 {
				n = 400
			}
			anywhere(n)(v, r)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := rand.New(rand.NewPCG(base, uint64(tt.pages)))
				fsys := &countFS{FS: newDisk()}
				s, err := Open("snapshots", Config{FS: fsys, CompactBytes: 1})
				must(t, err)
				defer s.Close()
				v := &versions{dirty: map[uint32]bool{}, image: true}
				v.touch(tt.pages)
				opened := fsys.bytes
				head, manifests, longest := "", int64(0), 0
				for i := range tt.deltas {
					head = publishPages(t, s, head, v)
					*v = versions{version: v.version, dirty: map[uint32]bool{}}
					synctest.Wait()
					links := len(s.Stats().Snapshots)
					longest = max(longest, links)
					manifests += 2 * int64(manifestFixed+manifestPerLink*(links+1)) // one more if it has compacted
					if i < tt.deltas-1 {
						tt.change(v, r)
					}
				}
				st := s.Stats()
				written := fsys.bytes - opened
				if want := st.BytesWritten; written != want {
					t.Errorf("Stats().BytesWritten = %d; the file system has counted %d", want, written)
				}
				t.Logf("change %d, written %d: %.2f; without MANIFEST %.2f; %d compactions, %d merges, chain of %d at most",
					st.BytesChanged, written, float64(written)/float64(st.BytesChanged),
					1+float64(st.BytesCompacted)/float64(st.BytesChanged), st.Compactions, st.Merges, longest)
				if st.BytesCompacted > 2*st.BytesChanged {
					t.Errorf("%d bytes were written to compact %d bytes of change; want twice as many at most",
						st.BytesCompacted, st.BytesChanged)
				}
				if limit := 3*st.BytesChanged + manifests; written > limit {
					t.Errorf("%d bytes were written for %d bytes of change; want %d at most", written, st.BytesChanged, limit)
				}
				if st.Compactions == 0 {
					t.Error("nothing was compacted")
				}
				v.image = true
				wantStream(t, s, head, v)
			})
		})
	}
}

// publishPages publishes p as a capture taken against head.
func publishPages(t *testing.T, s *Store, head string, p Pages) string {
	t.Helper()
	k, err := s.Create(1, 1, 1, testConfiguration, 1, nil)
	must(t, err)
	k.(*Sink).Local(head)
	must(t, WriteStream(k, p))
	must(t, k.Close())
	return k.ID()
}

func wantStream(t *testing.T, s *Store, id string, p Pages) {
	t.Helper()
	_, rc, err := s.Open(id)
	must(t, err)
	got, err := io.ReadAll(rc)
	must(t, err)
	must(t, rc.Close())
	if string(got) != string(streamOf(t, p)) {
		t.Errorf("snapshot %s holds something else than was captured", id)
	}
}

// TestCostOfPolicy runs the decisions of due alone, over histories so long that merged deltas have
// to be merged again. No page is ever written twice, so merging saves nothing.
func TestCostOfPolicy(t *testing.T) {
	c, err := Config{}.withDefaults()
	must(t, err)
	ext := map[bool]string{false: baseExt, true: deltaExt}
	for _, tt := range []struct {
		base, records uint32 // pages of the base, and of each delta on average
		deltas        int
		grow          bool
	}{
		{base: 1 << 18, records: 1000, deltas: 5000}, // 1 GiB, deltas of 4 MiB
		{base: 1 << 18, records: 100, deltas: 15000},
		{base: 1 << 18, records: 16, deltas: 40000},
		{base: 1 << 18, records: 1, deltas: 40000},
		{base: 1 << 28, records: 1000, deltas: 25000}, // 1 TiB
		{base: 1, records: 1000, deltas: 25000, grow: true},
		{base: 1 << 20, records: 10, deltas: 25000, grow: true},
	} {
		t.Run(strings.Join(strings.Fields(fmt.Sprintf("%+v", tt)), ","), func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, 1))
			pages, number := tt.base, uint64(0)
			file := func(records uint32, delta bool) link {
				number++
				return link{File: strconv.FormatUint(number, 10) + ext[delta], PageSize: 4096, Pages: pages, Records: records}
			}
			chain := []link{file(pages, false)}
			change, merged, rewritten, longest, most := chain[0].size(), int64(0), int64(0), 0, 0
			for range tt.deltas {
				n := 1 + r.Uint32N(2*tt.records-1)
				if tt.grow {
					pages += n
				}
				chain = append(chain, file(n, true))
				change += chain[len(chain)-1].size()
				for plans := c.due(chain); len(plans) > 0; plans = c.due(chain) {
					p := plans[0]
					records := uint32(0)
					for _, l := range p.run() {
						records = min(records+l.Records, pages)
					}
					next, err := p.replace(&manifest{Chain: chain}, file(records, p.from > 0))
					must(t, err)
					if chain = next.Chain; p.from == 0 {
						chain[0].Records = pages
						rewritten += chain[0].size()
					} else {
						merged += chain[p.from].size()
					}
					most = max(most, chain[p.from].Merges)
				}
				longest = max(longest, len(chain))
			}
			allowance := int64(tt.deltas) * Header{PageSize: 4096, Pages: pages, Records: pages}.streamSize() / 8192
			t.Logf("per byte of change: merged %.2f, rewritten %.2f; merged %d times at most, chain of %d",
				float64(merged)/float64(change), float64(rewritten)/float64(change), most, longest)
			if rewritten > change {
				t.Errorf("bases of %d bytes were written for %d bytes of change", rewritten, change)
			}
			if merged > change+allowance || merged > change*int64(most) {
				t.Errorf("deltas of %d bytes were merged for %d bytes of change; allowed are %d more", merged, change, allowance)
			}
			if merged+rewritten > 2*change+allowance {
				t.Errorf("%d bytes were compacted for %d bytes of change; allowed are twice as many and %d", merged+rewritten, change, allowance)
			}
			if longest > crowdedDeltas+2 {
				t.Errorf("chain of %d files", longest)
			}
		})
	}
}
