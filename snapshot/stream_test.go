package snapshot

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"slices"
	"testing"
	"testing/iotest"

	"rqlited/internal/vfs"
	"rqlited/internal/vfs/crashfs"
)

// mutant returns a stream of three pages of an image of three, damaged by change and then sealed
// with checksums that match again.
func mutant(t testing.TB, change func(stream []byte) []byte) []byte {
	return reseal(change(slices.Clone(streamOf(t, fill(3, 1).image()))))
}

// reseal makes all checksums of a stream match, as far as the stream can be followed.
func reseal(b []byte) []byte {
	if len(b) < headerSize {
		return b
	}
	binary.BigEndian.PutUint32(b[28:], crc32.Checksum(b[:28], castagnoli))
	h, err := parseHeader(b[:headerSize])
	if err != nil {
		return b
	}
	off, size := headerSize, recordHeaderSize+h.PageSize
	for range h.Records {
		if len(b) < off+size {
			return b
		}
		rec := b[off : off+size]
		sealRecord(rec, binary.BigEndian.Uint32(rec))
		off += size
	}
	var p parser
	if len(b) >= off+trailerSize && p.acceptHeader(b[:headerSize]) == nil {
		p.hash.Write(b[headerSize:off])
		p.hash.Sum(p.sum[:0])
		copy(b[off+8:], p.sum[:])
	}
	return b
}

func put32(off int, v uint32) func([]byte) []byte {
	return func(b []byte) []byte {
		binary.BigEndian.PutUint32(b[off:], v)
		return b
	}
}

const testRecord = recordHeaderSize + testPageSize

// TestMalformedStream gives streams whose checksums are right and whose form is wrong to all that
// reads streams.
func TestMalformedStream(t *testing.T) {
	tests := []struct {
		name   string
		change func([]byte) []byte
	}{
		{"empty", func([]byte) []byte { return nil }},
		{"other magic", func(b []byte) []byte { b[0] ^= 1; return b }},
		{"newer version", func(b []byte) []byte { b[6]++; return b }},
		{"unknown flag", put32(8, 2)},
		{"page size 0", put32(12, 0)},
		{"page size 256", put32(12, 256)},
		{"page size 513", put32(12, 513)},
		{"page size 128 KiB", put32(12, 131072)},
		{"page size 4 GiB - 1", put32(12, 0xffffffff)},
		{"more pages than records", put32(16, 4)},
		{"fewer pages than records", put32(16, 2)},
		{"4 G pages", func(b []byte) []byte { return put32(20, 0xffffffff)(put32(16, 0xffffffff)(put32(12, 65536)(b))) }},
		{"reserved field", put32(24, 1)},
		{"page 0", put32(headerSize, 0)},
		{"page beyond the end", put32(headerSize+2*testRecord, 4)},
		{"page twice", put32(headerSize+testRecord, 1)},
		{"page missing, one beyond", func(b []byte) []byte { return put32(headerSize+2*testRecord, 5)(put32(headerSize+testRecord, 3)(b)) }},
		{"trailer magic", func(b []byte) []byte { b[len(b)-trailerSize] ^= 1; return b }},
		{"extra byte", func(b []byte) []byte { return append(b, 0) }},
		{"two streams", func(b []byte) []byte { return append(b, b...) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { wantMalformed(t, mutant(t, tt.change)) })
	}
	t.Run("control", func(t *testing.T) {
		if _, err := restored(bytes.NewReader(mutant(t, slices.Clip)), headerSize+3*testRecord+trailerSize); err != nil {
			t.Errorf("restore an undamaged stream: %v", err)
		}
	})
}

// wantMalformed checks that neither Restore nor a sink accepts the stream.
func wantMalformed(t *testing.T, stream []byte) {
	t.Helper()
	f, err := crashfs.New().Create("image")
	must(t, err)
	if _, err := Restore(context.Background(), bytes.NewReader(stream), f); !errors.Is(err, ErrMalformed) {
		t.Errorf("Restore = %v; want %v", err, ErrMalformed)
	}
	fsys := newDisk()
	s := openStore(t, fsys)
	k, err := s.Create(1, 1, 1, testConfiguration, 1, nil)
	must(t, err)
	_, err = k.Write(stream)
	if closeErr := k.Close(); !errors.Is(errors.Join(err, closeErr), ErrMalformed) || closeErr == nil {
		t.Errorf("Write, Close = %v, %v; want %v", err, closeErr, ErrMalformed)
	}
	if got := names(t, fsys); len(got) != 1 {
		t.Errorf("left behind: %q", got)
	}
	if _, ok := s.Head(); ok {
		t.Error("the store has a head")
	}
}

// TestTruncatedStream cuts a stream at every length.
func TestTruncatedStream(t *testing.T) {
	stream := streamOf(t, fill(2, 1).image())
	for n := range len(stream) {
		f, err := crashfs.New().Create("image")
		must(t, err)
		if _, err := Restore(context.Background(), bytes.NewReader(stream[:n]), f); !errors.Is(err, ErrMalformed) {
			t.Fatalf("Restore of %d bytes of %d = %v; want %v", n, len(stream), err, ErrMalformed)
		}
	}
}

// TestFlippedBit changes every byte of a stream, one at a time.
func TestFlippedBit(t *testing.T) {
	stream := streamOf(t, fill(2, 1).image())
	for n := range stream {
		bad := slices.Clone(stream)
		bad[n] ^= 1 << (n % 8)
		f, err := crashfs.New().Create("image")
		must(t, err)
		if _, err := Restore(context.Background(), bytes.NewReader(bad), f); !errors.Is(err, ErrMalformed) {
			t.Fatalf("Restore with byte %d changed = %v; want %v", n, err, ErrMalformed)
		}
	}
}

// TestSinkChunks writes one stream in pieces of every kind of size.
func TestSinkChunks(t *testing.T) {
	c := fill(3, 1)
	stream := streamOf(t, c.image())
	for _, size := range []int{1, 7, headerSize, headerSize + 1, testRecord, 1000, len(stream) - 1, len(stream)} {
		s := openStore(t, newDisk())
		k, err := s.Create(1, 1, 1, testConfiguration, 1, nil)
		must(t, err)
		for piece := range slices.Chunk(stream, size) {
			if n, err := k.Write(piece); n != len(piece) || err != nil {
				t.Fatalf("Write of %d bytes = %d, %v", len(piece), n, err)
			}
		}
		must(t, k.Close())
		wantContent(t, s, k.ID(), c)
	}
}

// TestReaderChunks reads one snapshot in single bytes, in pieces, and with data and EOF mixed.
func TestReaderChunks(t *testing.T) {
	c := fill(3, 1)
	s := openStore(t, newDisk())
	id := chain(c, c.change(4, 2))(t, s)
	want := streamOf(t, c.change(4, 2).image())
	for _, wrap := range []func(io.Reader) io.Reader{iotest.OneByteReader, iotest.HalfReader, iotest.DataErrReader} {
		_, rc, err := s.Open(id)
		must(t, err)
		got, err := io.ReadAll(wrap(rc))
		must(t, err)
		must(t, rc.Close())
		if !bytes.Equal(got, want) {
			t.Error("bytes differ from those of a stream of the same database")
		}
		if n, err := rc.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("Read after Close = %d, %v; want an error", n, err)
		}
	}
}

func TestWriteStream(t *testing.T) {
	errDisk := errors.New("disk")
	c := fill(4, 1)
	tests := []struct {
		name   string
		change func(p *pageList)
		err    error
	}{
		{"image", func(p *pageList) {}, nil},
		{"no pages", func(p *pageList) { *p = *content{pageSize: 4096}.image() }, nil},
		{"delta without records", func(p *pageList) { *p = *c.since(c) }, nil},
		{"page size", func(p *pageList) { p.header.PageSize = 1000 }, ErrMalformed},
		{"image with a page missing", func(p *pageList) { p.header.Records = 3 }, ErrMalformed},
		{"ends early", func(p *pageList) { p.pgnos, p.pages = p.pgnos[:3], p.pages[:3] }, ErrMalformed},
		{"too many", func(p *pageList) { p.pgnos, p.pages = append(p.pgnos, 5), append(p.pages, p.pages[0]) }, ErrMalformed},
		{"descending", func(p *pageList) { p.pgnos[2] = 1 }, ErrMalformed},
		{"error of the pages", func(p *pageList) { p.err = errDisk }, errDisk},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := c.image()
			tt.change(p)
			var b bytes.Buffer
			want := p.header.streamSize()
			if err := WriteStream(&b, p); !errors.Is(err, tt.err) {
				t.Fatalf("WriteStream = %v; want %v", err, tt.err)
			}
			if tt.err == nil && int64(b.Len()) != want {
				t.Errorf("wrote %d bytes; streamSize() = %d", b.Len(), want)
			}
		})
	}
	if err := WriteStream(iotestErrWriter{errDisk}, c.image()); !errors.Is(err, errDisk) {
		t.Errorf("WriteStream to a bad writer = %v; want %v", err, errDisk)
	}
}

type iotestErrWriter struct{ err error }

func (w iotestErrWriter) Write([]byte) (int, error) { return 0, w.err }

func TestRestore(t *testing.T) {
	c := fill(5, 1)
	create := func(t *testing.T, data string) (*crashfs.FS, vfs.File) {
		t.Helper()
		fsys := crashfs.New()
		f, err := fsys.Create("image")
		must(t, err)
		_, err = f.Write([]byte(data))
		must(t, err)
		must(t, fsys.SyncDir("/"))
		return fsys, f
	}
	t.Run("synced", func(t *testing.T) {
		fsys, f := create(t, "")
		h, err := Restore(context.Background(), bytes.NewReader(streamOf(t, c.image())), f)
		if want := c.image().Header(); err != nil || h != want {
			t.Fatalf("Restore = %+v, %v; want %+v", h, err, want)
		}
		after, err := fsys.Restart().Open("image")
		must(t, err)
		if got, err := io.ReadAll(after); err != nil || !bytes.Equal(got, c.file()) {
			t.Errorf("a power cut after Restore leaves %d bytes, %v; want all %d", len(got), err, len(c.file()))
		}
	})
	t.Run("no pages", func(t *testing.T) {
		_, f := create(t, "")
		_, err := Restore(context.Background(), bytes.NewReader(streamOf(t, content{pageSize: 4096}.image())), f)
		if size, _ := f.Size(); err != nil || size != 0 {
			t.Errorf("Restore = %v, and %d bytes; want nothing", err, size)
		}
	})
	t.Run("file in use", func(t *testing.T) {
		_, f := create(t, "x")
		if _, err := Restore(context.Background(), bytes.NewReader(streamOf(t, c.image())), f); err == nil {
			t.Error("Restore over other content succeeded")
		}
	})
	t.Run("delta", func(t *testing.T) {
		_, f := create(t, "")
		_, err := Restore(context.Background(), bytes.NewReader(streamOf(t, c.change(5, 2).since(c))), f)
		if !errors.Is(err, ErrNotImage) {
			t.Errorf("Restore = %v; want %v", err, ErrNotImage)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		_, f := create(t, "")
		why := errors.New("enough")
		ctx, cancel := context.WithCancelCause(context.Background())
		cancel(why)
		if _, err := Restore(ctx, bytes.NewReader(streamOf(t, c.image())), f); !errors.Is(err, why) {
			t.Errorf("Restore = %v; want %v", err, why)
		}
	})
	t.Run("any operation fails", func(t *testing.T) {
		errDisk := errors.New("disk")
		for op := 0; ; op++ {
			fsys, f := create(t, "")
			fsys.FailAt(op, errDisk, false)
			_, err := Restore(context.Background(), bytes.NewReader(streamOf(t, c.image())), f)
			if fsys.Failed() == 0 {
				must(t, err)
				return
			}
			if !errors.Is(err, errDisk) {
				t.Fatalf("operation %d failed: Restore = %v; want %v", op, err, errDisk)
			}
		}
	})
}
