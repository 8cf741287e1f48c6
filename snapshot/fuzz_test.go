package snapshot

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	"rqlited/internal/vfs/crashfs"
)

// FuzzStream checks that whatever comes is either refused or is, byte for byte, what WriteStream
// would write for the database that was read from it. With sealed, checksums are made to match, so
// that they do not hide the rest.
func FuzzStream(f *testing.F) {
	one := fill(2, 1)
	f.Add(streamOf(f, one.image()), false, uint16(7))
	f.Add(streamOf(f, one.change(3, 2).since(one)), false, uint16(1000))
	f.Add(streamOf(f, content{pageSize: 65536}.image()), true, uint16(1))
	f.Add(mutant(f, put32(20, 2)), true, uint16(100))
	f.Fuzz(func(t *testing.T, stream []byte, sealed bool, piece uint16) {
		if sealed {
			stream = reseal(bytes.Clone(stream))
		}
		image, err := crashfs.New().Create("image")
		must(t, err)
		h, err := Restore(context.Background(), bytes.NewReader(stream), image)
		if err != nil && !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrNotImage) {
			t.Fatalf("Restore = %v", err)
		}
		if err == nil {
			wantSameStream(t, h, image, stream)
		}
		pushed := push(stream, int(piece)+1)
		pulled := pull(stream)
		if pushed != pulled || (err == nil) && !pulled {
			t.Fatalf("Restore = %v; pulled to the end: %v; pushed to the end: %v", err, pulled, pushed)
		}
	})
}

// wantSameStream checks that the image that was restored from a stream gives the same stream.
func wantSameStream(t *testing.T, h Header, image io.ReaderAt, stream []byte) {
	t.Helper()
	c := content{pageSize: h.PageSize}
	for i := range int(h.Pages) {
		page := make([]byte, h.PageSize)
		_, err := image.ReadAt(page, int64(i*h.PageSize))
		must(t, err)
		c.pages = append(c.pages, page)
	}
	if !bytes.Equal(streamOf(t, c.image()), stream) {
		t.Fatal("the stream has a second form")
	}
}

// pull reports whether a decoder accepts the whole stream.
func pull(stream []byte) bool {
	d, err := newDecoder(bytes.NewReader(stream), 0)
	for err == nil {
		_, err = d.next()
	}
	return errors.Is(err, io.EOF) && d.end() == nil
}

// push reports whether a stage accepts the whole stream, piece by piece.
func push(stream []byte, piece int) bool {
	s := &Store{fs: crashfs.New(), dir: ".", closing: make(chan struct{})}
	g := &stage{store: s, admit: func(Header) error { return nil }}
	for len(stream) > 0 {
		n := min(piece, len(stream))
		if _, err := g.Write(stream[:n]); err != nil {
			return false
		}
		stream = stream[n:]
	}
	return g.finish() == nil
}

// FuzzManifest checks that a manifest is either refused or written back as it was.
func FuzzManifest(f *testing.F) {
	for _, m := range []*manifest{{Next: 1}, testManifest()} {
		data, err := m.encode()
		must(f, err)
		f.Add(data, false)
		f.Add(bytes.Replace(data, []byte("1"), []byte("2"), 3), true)
	}
	f.Fuzz(func(t *testing.T, data []byte, sealed bool) {
		if sealed {
			data = resealManifest(data)
		}
		m, err := decodeManifest(data)
		if err != nil {
			return
		}
		again, err := m.encode()
		if err != nil || !bytes.Equal(again, data) {
			t.Fatalf("manifest is written back differently: %v\n%s", err, again)
		}
		for i := range m.Chain {
			l := &m.Chain[i]
			if n, ok := fileNumber(l.File); !ok || n >= m.Next || l.header().validate() != nil || l.size() < headerSize+trailerSize {
				t.Fatalf("accepted file %q, size %d, next number %d", l.File, l.size(), m.Next)
			}
		}
	})
}
