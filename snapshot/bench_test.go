package snapshot

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"testing"

	"rqlited/internal/vfs"
)

// uniform is a database of equal pages of 4096 bytes, or every n-th of them.
type uniform struct {
	pages, step, pgno uint32
	delta             bool
}

func (u *uniform) Header() Header {
	return Header{PageSize: 4096, Pages: u.pages, Records: u.pages / u.step, Delta: u.delta}
}

func (u *uniform) Next(buf []byte) (uint32, error) {
	if u.pgno += u.step; u.pgno > u.pages {
		return 0, io.EOF
	}
	clear(buf)
	buf[0] = byte(u.pgno)
	return u.pgno, nil
}

const benchPages = 16 << 10 // 64 MiB

func benchStore(b *testing.B) *Store {
	s, err := Open(filepath.Join(b.TempDir(), "snapshots"), Config{CompactDeltas: -1})
	must(b, err)
	b.Cleanup(func() { must(b, s.Close()) })
	b.SetBytes(benchPages * 4096)
	return s
}

func benchPublish(b *testing.B, s *Store, head string, p Pages) string {
	k, err := s.Create(1, 1, 1, testConfiguration, 1, nil)
	must(b, err)
	k.(*Sink).Local(head)
	must(b, errors.Join(WriteStream(k, p), k.Close()))
	return k.ID()
}

func BenchmarkPublishImage(b *testing.B) {
	s, head := benchStore(b), ""
	for b.Loop() {
		head = benchPublish(b, s, head, &uniform{pages: benchPages, step: 1})
	}
}

// BenchmarkRestore reads a chain of an image and eight deltas and writes the database.
func BenchmarkRestore(b *testing.B) {
	s := benchStore(b)
	head := benchPublish(b, s, "", &uniform{pages: benchPages, step: 1})
	for range 8 {
		head = benchPublish(b, s, head, &uniform{pages: benchPages, step: 100, delta: true})
	}
	name := filepath.Join(b.TempDir(), "image")
	for b.Loop() {
		_, rc, err := s.Open(head)
		must(b, err)
		f, err := vfs.OS.Create(name)
		must(b, err)
		_, err = Restore(context.Background(), rc, f)
		must(b, errors.Join(err, rc.Close(), f.Close()))
	}
}
