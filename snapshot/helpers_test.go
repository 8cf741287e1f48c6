package snapshot

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"rqlited/internal/vfs"
	"rqlited/internal/vfs/crashfs"
)

const testPageSize = minPageSize

// content is a database: the oracle that the store is compared with.
type content struct {
	pageSize int
	pages    [][]byte
}

// fill returns a database of n pages that looks like no other of another seed.
func fill(n int, seed uint64) content {
	r := rand.New(rand.NewPCG(seed, 1))
	c := content{pageSize: testPageSize}
	for range n {
		c.pages = append(c.pages, randomPage(r))
	}
	return c
}

func randomPage(r *rand.Rand) []byte {
	page := make([]byte, testPageSize)
	for i := 0; i < len(page); i += 8 {
		binary.LittleEndian.PutUint64(page[i:], r.Uint64())
	}
	return page
}

// change returns c with n pages, every third of the old ones and all new ones being different.
func (c content) change(n int, seed uint64) content {
	r := rand.New(rand.NewPCG(seed, 2))
	next := content{pageSize: testPageSize}
	for i := range n {
		if i < len(c.pages) && (uint64(i)+seed)%3 != 0 {
			next.pages = append(next.pages, c.pages[i])
		} else {
			next.pages = append(next.pages, randomPage(r))
		}
	}
	return next
}

func (c content) file() []byte { return bytes.Join(c.pages, nil) }

// pageList is a Pages.
type pageList struct {
	header Header
	pgnos  []uint32
	pages  [][]byte
	err    error // returned in place of the last page
}

func (p *pageList) Header() Header { return p.header }

func (p *pageList) Next(buf []byte) (uint32, error) {
	if len(p.pgnos) == 0 {
		return 0, io.EOF
	}
	if p.err != nil && len(p.pgnos) == 1 {
		return 0, p.err
	}
	pgno := p.pgnos[0]
	copy(buf, p.pages[0])
	p.pgnos, p.pages = p.pgnos[1:], p.pages[1:]
	return pgno, nil
}

// image returns all pages of c.
func (c content) image() *pageList {
	p := &pageList{header: Header{PageSize: c.pageSize, Pages: uint32(len(c.pages)), Records: uint32(len(c.pages))}}
	for i, page := range c.pages {
		p.pgnos, p.pages = append(p.pgnos, uint32(i+1)), append(p.pages, page)
	}
	return p
}

// since returns the pages that differ from those of parent.
func (c content) since(parent content) *pageList {
	p := &pageList{header: Header{PageSize: c.pageSize, Pages: uint32(len(c.pages)), Delta: true}}
	for i, page := range c.pages {
		if i >= len(parent.pages) || !bytes.Equal(page, parent.pages[i]) {
			p.pgnos, p.pages = append(p.pgnos, uint32(i+1)), append(p.pages, page)
		}
	}
	p.header.Records = uint32(len(p.pgnos))
	return p
}

// streamOf returns p as a stream.
func streamOf(t testing.TB, p Pages) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := WriteStream(&b, p); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// snap is a snapshot that somebody wants to publish.
type snap struct {
	index, term uint64
	content     content
	parent      *content // the stream is the delta to it; nil: an image
	install     bool
	head        string // of a local capture
}

var testConfiguration = raft.Configuration{Servers: []raft.Server{
	{ID: "1", Address: "one:4002", Suffrage: raft.Voter},
	{ID: "2", Address: "two:4002", Suffrage: raft.Nonvoter},
}}

// sinkFor returns a sink that has got all of n and waits for Close.
func sinkFor(s *Store, n snap) (*Sink, error) {
	rs, err := s.Create(1, n.index, n.term, testConfiguration, n.index/2, nil)
	if err != nil {
		return nil, err
	}
	k := rs.(*Sink)
	if !n.install {
		k.Local(n.head)
	}
	p := n.content.image()
	if n.parent != nil {
		p = n.content.since(*n.parent)
	}
	if err := WriteStream(k, p); err != nil {
		return nil, errors.Join(err, k.Cancel())
	}
	return k, nil
}

// publish publishes n and returns its id.
func publish(s *Store, n snap) (string, error) {
	k, err := sinkFor(s, n)
	if err != nil {
		return "", err
	}
	return k.ID(), k.Close()
}

func mustPublish(t testing.TB, s *Store, n snap) string {
	t.Helper()
	id, err := publish(s, n)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// openStore opens the store in "snapshots", with compaction left to the test.
func openStore(t testing.TB, fsys vfs.FS) *Store {
	t.Helper()
	s, err := Open("snapshots", Config{FS: fsys, CompactDeltas: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

// newDisk returns an empty disk that panics if a published file is changed.
func newDisk() *crashfs.FS {
	fsys := crashfs.New()
	fsys.Freeze("*.base", "*.delta")
	return fsys
}

// read returns the database that the snapshot holds, as a file.
func read(s *Store, id string) ([]byte, error) {
	meta, rc, err := s.Open(id)
	if err != nil {
		return nil, err
	}
	file, err := restored(rc, meta.Size)
	return file, errors.Join(err, rc.Close())
}

// restored returns the database in the stream r, and checks the announced length.
func restored(r io.Reader, size int64) ([]byte, error) {
	stream, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	if int64(len(stream)) != size {
		return nil, fmt.Errorf("stream has %d bytes, %d were announced", len(stream), size)
	}
	fsys := crashfs.New()
	f, err := fsys.Create("image")
	if err != nil {
		return nil, err
	}
	if _, err := Restore(context.Background(), bytes.NewReader(stream), f); err != nil {
		return nil, err
	}
	n, err := f.Size()
	if err != nil {
		return nil, err
	}
	file := make([]byte, n)
	_, err = f.ReadAt(file, 0)
	if n == 0 {
		err = nil
	}
	return file, err
}

// wantContent checks what a snapshot holds.
func wantContent(t testing.TB, s *Store, id string, want content) {
	t.Helper()
	got, err := read(s, id)
	if err != nil {
		t.Fatalf("read snapshot %s: %v", id, err)
	}
	if !bytes.Equal(got, want.file()) {
		t.Fatalf("snapshot %s holds something else than was captured", id)
	}
}

// wantHead checks that Head, List and Stats agree that the head is id.
func wantHead(t testing.TB, s *Store, id string) {
	t.Helper()
	head, ok := s.Head()
	list, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	ids := s.Stats().Snapshots
	if !ok || head.ID != id || len(list) != 1 || list[0].ID != id || ids[len(ids)-1] != id {
		t.Fatalf("head = %+v, %v, list = %+v, stats = %q; want %s", head, ok, list, ids, id)
	}
}

// names returns what is in the store's directory.
func names(t testing.TB, fsys vfs.FS) []string {
	t.Helper()
	n, err := fsys.ReadDir("snapshots")
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// golden compares lines with a file, or writes that file if UPDATE_GOLDEN is set.
func golden(t *testing.T, file string, lines []string) {
	t.Helper()
	got := strings.Join(lines, "\n") + "\n"
	file = filepath.Join("testdata", file)
	if os.Getenv("UPDATE_GOLDEN") != "" {
		must(t, os.WriteFile(file, []byte(got), 0o644))
	}
	want, err := os.ReadFile(file)
	must(t, err)
	if got != string(want) {
		t.Errorf("%s: got\n%swant\n%s", file, got, want)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// seed returns a seed that differs from run to run and logs it.
func seed(t testing.TB) uint64 {
	t.Helper()
	n := uint64(time.Now().UnixNano())
	if v := os.Getenv("SEED"); v != "" {
		_, err := fmt.Sscan(v, &n)
		must(t, err)
	}
	t.Logf("SEED=%d", n)
	return n
}

// only returns the names that end in one of the suffixes.
func only(names []string, suffixes ...string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		return !slices.ContainsFunc(suffixes, func(s string) bool { return strings.HasSuffix(name, s) })
	})
}
