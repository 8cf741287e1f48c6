package snapshot

import (
	"bytes"
	"context"
	"errors"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"rqlited/internal/vfs"
	"rqlited/internal/vfs/crashfs"
)

// TestSwap is the table of who may publish what upon what.
func TestSwap(t *testing.T) {
	one := fill(4, 1)
	two := one.change(6, 2)
	tests := []struct {
		name string
		n    snap // head "H" stands for the id of the head
		err  error
	}{
		{"image upon the head", snap{content: two, head: "H"}, nil},
		{"image upon nothing", snap{content: two, head: ""}, ErrStaleHead},
		{"image upon another", snap{content: two, head: "1-1-77"}, ErrStaleHead},
		{"delta upon the head", snap{content: two, parent: &one, head: "H"}, nil},
		{"delta upon nothing", snap{content: two, parent: &one, head: ""}, ErrNotImage},
		{"delta upon another", snap{content: two, parent: &one, head: "1-1-77"}, ErrStaleHead},
		{"install of an image", snap{content: two, install: true}, nil},
		{"install of a delta", snap{content: two, parent: &one, install: true}, ErrNotImage},
		{"delta that changes nothing", snap{content: one, parent: &one, head: "H"}, nil},
		{"delta that removes all pages", snap{content: content{pageSize: testPageSize}, parent: &one, head: "H"}, nil},
		{"delta that lacks new pages", snap{content: two, parent: &two, head: "H"}, ErrMalformed},
		{"install of nothing", snap{content: content{pageSize: 65536}, install: true}, nil},
		{"index and term 0", snap{content: two, install: true, index: 0, term: 0}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			fsys := newDisk()
			s := openStore(t, fsys)
			head := image(one)(t, s)
			tt.n.head = strings.Replace(tt.n.head, "H", head, 1)
			id, err := publish(s, tt.n)
			if !errors.Is(err, tt.err) {
				t.Fatalf("publish = %v; want %v", err, tt.err)
			}
			want, holds := id, tt.n.content
			if tt.err != nil {
				want, holds = head, one
			}
			wantHead(t, s, want)
			wantContent(t, s, want, holds)
			if got := names(t, fsys); tt.err != nil && len(got) != 2 {
				t.Errorf("a refused stream left %q behind", got)
			}
		})
	}
}

// TestDeltaOfOtherPageSize checks that pages of one size are not laid over those of another.
func TestDeltaOfOtherPageSize(t *testing.T) {
	s := openStore(t, newDisk())
	head := image(fill(4, 1))(t, s)
	k, err := s.Create(1, 2, 1, testConfiguration, 1, nil)
	must(t, err)
	k.(*Sink).Local(head)
	p := &pageList{header: Header{PageSize: 1024, Pages: 4, Delta: true}}
	if err := WriteStream(k, p); !errors.Is(err, ErrNotImage) {
		t.Errorf("WriteStream = %v; want %v", err, ErrNotImage)
	}
	must(t, k.Cancel())
}

// TestRace lets two finished sinks race for one head, in every pairing of an install with itself
// and with captures.
func TestRace(t *testing.T) {
	one := fill(4, 1)
	first, second := one.change(4, 2), one.change(5, 3)
	tests := []struct {
		name          string
		first, second snap
		err           error
	}{
		{"two deltas", snap{content: first, parent: &one, head: "H"}, snap{content: second, parent: &one, head: "H"}, ErrStaleHead},
		{"delta, image", snap{content: first, parent: &one, head: "H"}, snap{content: second, head: "H"}, ErrStaleHead},
		{"install, delta", snap{content: first, install: true}, snap{content: second, parent: &one, head: "H"}, ErrStaleHead},
		{"install, image", snap{content: first, install: true}, snap{content: second, head: "H"}, ErrStaleHead},
		{"delta, install", snap{content: first, parent: &one, head: "H"}, snap{content: second, install: true}, nil},
		{"two installs", snap{content: first, install: true}, snap{content: second, install: true}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := openStore(t, newDisk())
			head := image(one)(t, s)
			var sinks []*Sink
			for _, n := range []snap{tt.first, tt.second} {
				n.head = strings.Replace(n.head, "H", head, 1)
				k, err := sinkFor(s, n)
				must(t, err)
				sinks = append(sinks, k)
			}
			must(t, sinks[0].Close())
			if err := sinks[1].Close(); !errors.Is(err, tt.err) {
				t.Fatalf("second Close = %v; want %v", err, tt.err)
			}
			if tt.err != nil {
				wantContent(t, s, sinks[0].ID(), first)
				wantHead(t, s, sinks[0].ID())
			} else {
				wantContent(t, s, sinks[1].ID(), second)
				wantHead(t, s, sinks[1].ID())
			}
		})
	}
}

// TestSinkMisuse checks what a Sink does when it is used after its end or in the wrong order.
func TestSinkMisuse(t *testing.T) {
	s := openStore(t, newDisk())
	create := func() *Sink {
		k, err := s.Create(1, 1, 1, testConfiguration, 1, nil)
		must(t, err)
		return k.(*Sink)
	}
	k := create()
	if err := k.Close(); !errors.Is(err, ErrMalformed) {
		t.Errorf("Close of an empty sink = %v; want %v", err, ErrMalformed)
	}
	must(t, k.Cancel())
	if err := k.Close(); !errors.Is(err, ErrMalformed) {
		t.Errorf("second Close = %v; want %v again", err, ErrMalformed)
	}
	k = create()
	must(t, WriteStream(k, fill(1, 1).image()))
	k.Local("")
	if err := k.Close(); !errors.Is(err, errLateLocal) {
		t.Errorf("Close after a late Local = %v; want %v", err, errLateLocal)
	}
	k = create()
	must(t, k.Cancel())
	if _, err := k.Write([]byte("x")); !errors.Is(err, errSinkClosed) {
		t.Errorf("Write after Cancel = %v; want %v", err, errSinkClosed)
	}
	k = create()
	must(t, WriteStream(k, fill(1, 1).image()))
	must(t, k.Close())
	must(t, k.Close())
	must(t, k.Cancel())
	wantContent(t, s, k.ID(), fill(1, 1))
	if _, err := s.Create(0, 1, 1, testConfiguration, 1, nil); err == nil {
		t.Error("Create with version 0 succeeded")
	}
}

// TestMetadata checks that what Raft gives comes back, also after a restart and a compaction.
func TestMetadata(t *testing.T) {
	fsys := newDisk()
	s := openStore(t, fsys)
	one := fill(3, 1)
	two := one.change(5, 2)
	id := chain(one, two)(t, s)
	check := func(when string) {
		t.Helper()
		list, err := s.List()
		must(t, err)
		want := raft.SnapshotMeta{
			Version: 1, ID: id, Index: 2, Term: 1, Configuration: testConfiguration, ConfigurationIndex: 1,
			Size: int64(len(streamOf(t, two.image()))),
		}
		meta, rc, err := s.Open(id)
		must(t, err)
		of, ok := MetaOf(wrapped{wrapped{rc}})
		must(t, rc.Close())
		for name, got := range map[string]raft.SnapshotMeta{"List": *list[0], "Open": *meta, "MetaOf": of} {
			if !sameMeta(got, want) {
				t.Errorf("%s: %s = %+v; want %+v", when, name, got, want)
			}
		}
		if head, found := s.Head(); !ok || !found || head.Index != 2 || head.Pages != 5 || head.PageSize != testPageSize || head.Size != want.Size {
			t.Errorf("%s: Head() = %+v, %v", when, head, found)
		}
	}
	check("published")
	head, _ := s.Head()
	digest := head.Digest
	must(t, s.Compact(context.Background()))
	check("compacted")
	must(t, s.Close())
	s = openStore(t, fsys)
	check("reopened")
	if head, _ := s.Head(); head.Digest != digest {
		t.Errorf("compaction has changed the digest from %s to %s", digest, head.Digest)
	}
	if _, ok := MetaOf(io.NopCloser(nil)); ok {
		t.Error("MetaOf of a foreign reader = true")
	}
	if _, ok := MetaOf(wrapped{}); ok {
		t.Error("MetaOf of a wrapper around nothing = true")
	}
}

func sameMeta(a, b raft.SnapshotMeta) bool {
	return a.Version == b.Version && a.ID == b.ID && a.Index == b.Index && a.Term == b.Term && a.Size == b.Size &&
		a.ConfigurationIndex == b.ConfigurationIndex && slices.Equal(a.Configuration.Servers, b.Configuration.Servers)
}

// wrapped is what Raft does to readers.
type wrapped struct{ io.ReadCloser }

func (w wrapped) WrappedReadCloser() io.ReadCloser { return w.ReadCloser }

var _ raft.ReadCloserWrapper = wrapped{}

// TestOnRealFiles runs once through everything on the file system of the machine.
func TestOnRealFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "snapshots")
	s, err := Open(dir, Config{CompactDeltas: -1})
	must(t, err)
	one := fill(40, 1)
	two := one.change(50, 2)
	id := chain(one, two)(t, s)
	must(t, s.Compact(context.Background()))
	_, rc, err := s.Open(id)
	must(t, err)
	mustPublish(t, s, snap{index: 1, term: 1, content: one, install: true})
	must(t, s.Close())

	s, err = Open(dir, Config{})
	must(t, err)
	defer s.Close()
	head, _ := s.Head()
	wantContent(t, s, head.ID, one)
	left, err := vfs.OS.ReadDir(dir)
	must(t, err)
	if want := []string{"000004.base", "MANIFEST"}; !slices.Equal(left, want) {
		t.Errorf("directory holds %q; want %q", left, want)
	}
	got, err := io.ReadAll(rc) // opened before the restart, and its files are deleted by now
	must(t, err)
	must(t, rc.Close())
	if !bytes.Equal(got, streamOf(t, two.image())) {
		t.Error("a reader of before the restart has got other bytes")
	}
	must(t, s.Verify(context.Background()))
}

// TestGrace checks how long a superseded snapshot can be opened, and what a reader keeps.
func TestGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fsys := newDisk()
		s := openStore(t, fsys)
		one := fill(3, 1)
		two := one.change(4, 2)
		first := image(one)(t, s)
		second := mustPublish(t, s, snap{index: 2, term: 1, content: two, parent: &one, head: first})
		must(t, s.Compact(context.Background()))
		third := mustPublish(t, s, snap{index: 2, term: 1, content: one, install: true})

		time.Sleep(s.cfg.Grace - time.Nanosecond)
		synctest.Wait()
		wantContent(t, s, first, one)
		wantContent(t, s, second, two)
		_, rc, err := s.Open(second)
		must(t, err)

		time.Sleep(time.Nanosecond)
		synctest.Wait()
		for _, id := range []string{first, second} {
			if _, _, err := s.Open(id); !errors.Is(err, ErrNotFound) {
				t.Errorf("Open(%s) after the grace period = %v; want %v", id, err, ErrNotFound)
			}
		}
		if got, want := names(t, fsys), []string{"000003.base", "000004.base", "MANIFEST"}; !slices.Equal(got, want) {
			t.Errorf("directory holds %q while a reader is open; want %q", got, want)
		}
		got, err := io.ReadAll(rc)
		must(t, err)
		if !bytes.Equal(got, streamOf(t, two.image())) {
			t.Error("the reader has got other bytes")
		}
		must(t, rc.Close())
		_ = rc.Close() // the pin is returned once
		synctest.Wait()
		if got, want := names(t, fsys), []string{"000004.base", "MANIFEST"}; !slices.Equal(got, want) {
			t.Errorf("directory holds %q; want %q", got, want)
		}
		wantContent(t, s, third, one)
	})
}

func TestChainFull(t *testing.T) {
	s := openStore(t, newDisk())
	c := fill(2, 1)
	head := image(c)(t, s)
	for range maxDeltas {
		head = mustPublish(t, s, snap{index: 1, term: 1, content: c, parent: &c, head: head})
	}
	next := c.change(3, 2)
	if _, err := publish(s, snap{index: 1, term: 1, content: next, parent: &c, head: head}); !errors.Is(err, ErrChainFull) {
		t.Fatalf("publish of delta %d = %v; want %v", maxDeltas+1, err, ErrChainFull)
	}
	wantContent(t, s, head, c)
	must(t, s.Compact(context.Background()))
	head = mustPublish(t, s, snap{index: 1, term: 1, content: next, parent: &c, head: head})
	wantContent(t, s, head, next)
}

// TestNumbers checks that a file which a crash has left behind keeps its number for itself.
func TestNumbers(t *testing.T) {
	fsys := newDisk()
	s := openStore(t, fsys)
	image(fill(2, 1))(t, s)
	must(t, s.Close())
	litter(t, fsys, "000041.delta", "1000007.base", "99.base", "000050.bak")
	s = openStore(t, fsys)
	if got, want := mustPublish(t, s, snap{index: 3, term: 2, content: fill(2, 2), install: true}), "2-3-1000008"; got != want {
		t.Errorf("id = %s; want %s", got, want)
	}
	want := []string{"000001.base", "000050.bak", "1000008.base", "99.base", "MANIFEST"}
	if got := names(t, fsys); !slices.Equal(got, want) {
		t.Errorf("directory holds %q; want %q: foreign files are not the store's to delete", got, want)
	}
}

func TestClosed(t *testing.T) {
	fsys := newDisk()
	s := openStore(t, fsys)
	one := fill(3, 1)
	id := chain(one, one.change(4, 2))(t, s)
	k, err := sinkFor(s, snap{index: 9, term: 9, content: one, install: true})
	must(t, err)
	early, err := s.Create(1, 1, 1, testConfiguration, 1, nil)
	must(t, err)
	_, rc, err := s.Open(id)
	must(t, err)
	must(t, s.Close())
	must(t, s.Close())

	if err := k.Close(); !errors.Is(err, ErrClosed) {
		t.Errorf("Sink.Close = %v; want %v", err, ErrClosed)
	}
	if err := WriteStream(early, one.image()); !errors.Is(err, ErrClosed) {
		t.Errorf("Write to a sink of a closed store = %v; want %v", err, ErrClosed)
	}
	if _, err := s.Create(1, 1, 1, testConfiguration, 1, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("Create = %v; want %v", err, ErrClosed)
	}
	if err := s.Compact(context.Background()); !errors.Is(err, ErrClosed) {
		t.Errorf("Compact = %v; want %v", err, ErrClosed)
	}
	got, err := io.ReadAll(rc)
	must(t, err)
	must(t, rc.Close())
	if !bytes.Equal(got, streamOf(t, one.change(4, 2).image())) {
		t.Error("a reader of before Close has got other bytes")
	}
	if got, want := names(t, fsys), []string{"000001.base", "000002.delta", "MANIFEST"}; !slices.Equal(got, want) {
		t.Errorf("directory holds %q; want %q", got, want)
	}
}

func TestVerify(t *testing.T) {
	s := openStore(t, newDisk())
	must(t, s.Verify(context.Background())) // there is nothing to be wrong
	one := fill(3, 1)
	chain(one, one.change(4, 2))(t, s)
	must(t, s.Verify(context.Background()))
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(why)
	if err := s.Verify(ctx); !errors.Is(err, why) {
		t.Errorf("Verify = %v; want %v", err, why)
	}
	if err := s.Compact(ctx); !errors.Is(err, why) {
		t.Errorf("Compact = %v; want %v", err, why)
	}
	if got := len(s.Stats().Snapshots); got != 2 {
		t.Errorf("chain has %d files; want 2", got)
	}
}

// TestConfig checks that every fault of a Config is reported.
func TestConfig(t *testing.T) {
	_, err := Open("snapshots", Config{FS: crashfs.New(), Grace: -1, CompactDeltas: 1000, CompactBytes: -1})
	for _, field := range []string{"Grace", "CompactDeltas", "CompactBytes"} {
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("Open = %v; want an error about %s", err, field)
		}
	}
}
