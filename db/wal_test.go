package db

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"rqlited/internal/vfs"
)

func TestPageSet(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	dice := rand.New(rand.NewPCG(seed, 0))
	var s, other pageSet
	want := map[uint32]bool{}
	for range 2000 {
		pgno := dice.Uint32N(1 << (1 + dice.Uint32N(31)))
		if dice.IntN(2) == 0 {
			s.add(pgno)
		} else {
			other.add(pgno)
		}
		want[pgno] = true
	}
	s.merge(other)
	for _, last := range []uint32{0, 1000, ^uint32(0)} {
		var sorted []uint32
		for pgno := range want {
			if pgno <= last {
				sorted = append(sorted, pgno)
			}
		}
		slices.Sort(sorted)
		if got := s.upTo(last); !slices.Equal(got, sorted) {
			t.Errorf("upTo(%d) = %d pages, want %d", last, len(got), len(sorted))
		}
	}
	if s.n != len(want) {
		t.Errorf("n = %d, want %d", s.n, len(want))
	}
}

// writtenWAL returns a WAL with some transactions.
func writtenWAL(t testing.TB) []byte {
	d := openNew(t)
	exec(t, d, setup)
	exec(t, d, "INSERT INTO t(n) VALUES('a')")
	exec(t, d, "INSERT INTO t(n) VALUES(hex(zeroblob(9000)))")
	data, err := os.ReadFile(d.path + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestReadWAL(t *testing.T) {
	wal := writtenWAL(t)
	all, err := readWAL(bytes.NewReader(wal), int64(len(wal)), walPos{})
	if err != nil {
		t.Fatal(err)
	}
	frame := walFrameSize + all.pageSize
	if want := (len(wal) - walHeaderSize) / frame; all.end.frames != want || all.pageSize != 4096 || all.dbPages == 0 || all.pages.n == 0 {
		t.Fatalf("found %d frames of %d, %d pages of %d bytes, %d in the database", all.end.frames, want, all.pages.n, all.pageSize, all.dbPages)
	}
	// Cut anywhere, the WAL ends at the last commit before; damaged anywhere, too. What was found
	// of a prefix is where reading goes on.
	for cut := 0; cut <= len(wal); cut += 997 {
		short, err := readWAL(bytes.NewReader(wal), int64(cut), walPos{})
		if err != nil {
			t.Fatal(err)
		}
		damaged := bytes.Clone(wal)
		if cut < len(wal) {
			damaged[cut] ^= 0x40
		}
		bad, err := readWAL(bytes.NewReader(damaged), int64(len(wal)), walPos{})
		if err != nil {
			t.Fatal(err)
		}
		if short.end != bad.end || short.end.frames > max(0, cut-walHeaderSize)/frame {
			t.Errorf("cut at %d: %d frames; damaged there: %d", cut, short.end.frames, bad.end.frames)
		}
		rest, err := readWAL(bytes.NewReader(wal), int64(len(wal)), short.end)
		if err != nil {
			t.Fatal(err)
		}
		rest.pages.merge(short.pages)
		if rest.end != all.end || !slices.Equal(rest.pages.upTo(^uint32(0)), all.pages.upTo(^uint32(0))) {
			t.Errorf("cut at %d: going on there does not lead to the same", cut)
		}
	}
	if _, err := readWAL(bytes.NewReader(wal), int64(len(wal)-frame), all.end); err == nil {
		t.Error("a WAL that has become shorter was not noticed")
	}
	if scan, err := scanWAL(vfs.OS, t.TempDir()+"/missing", all.end); err != nil || scan.end != (walPos{}) {
		t.Errorf("a missing WAL = %+v, %v", scan, err)
	}
}

// FuzzReadWAL reads any bytes: without panic, and never more than there is.
func FuzzReadWAL(f *testing.F) {
	wal := writtenWAL(f)
	f.Add(wal, 0, uint32(0), uint32(0))
	f.Add(wal[:5000], 1, binary.BigEndian.Uint32(wal[16:]), binary.BigEndian.Uint32(wal[20:]))
	f.Add(wal, 3, binary.BigEndian.Uint32(wal[16:]), binary.BigEndian.Uint32(wal[20:]))
	f.Add(wal[:walHeaderSize], 0, uint32(0), uint32(0))
	f.Add([]byte{}, 0, uint32(0), uint32(0))
	f.Fuzz(func(t *testing.T, data []byte, frames int, salt0, salt1 uint32) {
		from := walPos{salt: [2]uint32{salt0, salt1}, frames: max(0, frames%1000)}
		scan, err := readWAL(bytes.NewReader(data), int64(len(data)), from)
		if err == nil && scan.pages.n > len(data)/(walFrameSize+walMinPage) {
			t.Errorf("%d pages in %d bytes", scan.pages.n, len(data))
		}
	})
}

// frameSpec is a frame that a WAL is made of.
type frameSpec struct {
	pgno, commit uint32
	stale        bool // left from before the WAL was started again
}

// makeWAL writes frames with the right checksums, in either byte order.
func makeWAL(frames []frameSpec, big bool) []byte {
	var order binary.ByteOrder = binary.LittleEndian
	magic := uint32(walMagic)
	if big {
		order, magic = binary.BigEndian, walMagic|walMagicBigMask
	}
	const salt0, salt1 = 11, 12
	wal := make([]byte, walHeaderSize)
	for i, v := range []uint32{magic, walVersion, walMinPage, 0, salt0, salt1} {
		binary.BigEndian.PutUint32(wal[4*i:], v)
	}
	sum := walSum(order, [2]uint32{}, wal[:24])
	binary.BigEndian.PutUint32(wal[24:], sum[0])
	binary.BigEndian.PutUint32(wal[28:], sum[1])
	for i, f := range frames {
		frame := make([]byte, walFrameSize+walMinPage)
		salt := uint32(salt0)
		if f.stale {
			salt = ^salt // no flip of one bit makes it right
		}
		for k, v := range []uint32{f.pgno, f.commit, salt, salt1} {
			binary.BigEndian.PutUint32(frame[4*k:], v)
		}
		for k := range frame[walFrameSize:] {
			frame[walFrameSize+k] = byte(k * (i + 3))
		}
		sum = walSum(order, walSum(order, sum, frame[:8]), frame[walFrameSize:])
		binary.BigEndian.PutUint32(frame[16:], sum[0])
		binary.BigEndian.PutUint32(frame[20:], sum[1])
		wal = append(wal, frame...)
	}
	return wal
}

// FuzzWALFrames makes a WAL of any frames with the right checksums, damages one bit of it, and
// compares what is read, at once and in two parts, with the definition.
func FuzzWALFrames(f *testing.F) {
	f.Add([]byte{1, 0, 2, 9, 3, 0, 1, 4}, true, uint32(0), uint8(0), uint16(1))
	f.Add([]byte{1, 1, 0, 5, 7, 7}, false, uint32(700), uint8(3), uint16(0))
	f.Add([]byte{200, 3, 200, 0, 200, 3, 130, 3}, false, uint32(16), uint8(1), uint16(3))
	f.Add([]byte{1, 1, 2, 255, 3, 1}, true, uint32(0), uint8(0), uint16(1))
	f.Add([]byte{}, false, uint32(3), uint8(7), uint16(0))
	f.Fuzz(func(t *testing.T, spec []byte, big bool, at uint32, bit uint8, parts uint16) {
		var frames []frameSpec
		for ; len(spec) >= 2 && len(frames) < 60; spec = spec[2:] {
			frames = append(frames, frameSpec{pgno: uint32(spec[0]) * uint32(spec[0]), commit: uint32(spec[1] % 4), stale: spec[1] == 255})
		}
		wal := makeWAL(frames, big)
		damaged := len(frames) // the first frame that does not count
		if at > 0 {
			off := int(at) % len(wal)
			wal[off] ^= 1 << (bit % 8)
			damaged = max(-1, (off-walHeaderSize)/(walFrameSize+walMinPage))
			if off < walHeaderSize {
				damaged = -1
			}
		}
		var want, uncommitted pageSet
		end, dbPages := 0, uint32(0)
		for i, fr := range frames {
			if i >= damaged || fr.stale || fr.pgno == 0 {
				break
			}
			uncommitted.add(fr.pgno)
			if fr.commit != 0 {
				want.merge(uncommitted)
				uncommitted = pageSet{}
				end, dbPages = i+1, fr.commit
			}
		}
		all, err := readWAL(bytes.NewReader(wal), int64(len(wal)), walPos{})
		if err != nil {
			t.Fatal(err)
		}
		every := func(s pageSet) []uint32 { return s.upTo(^uint32(0)) }
		if all.end.frames != end || all.dbPages != dbPages || !slices.Equal(every(all.pages), every(want)) {
			t.Fatalf("read %d frames, %d pages; want %d, %d", all.end.frames, all.pages.n, end, want.n)
		}
		cut := min(len(wal), walHeaderSize+int(parts)%(len(frames)+1)*(walFrameSize+walMinPage))
		first, err := readWAL(bytes.NewReader(wal), int64(cut), walPos{})
		if err != nil {
			t.Fatal(err)
		}
		second, err := readWAL(bytes.NewReader(wal), int64(len(wal)), first.end)
		if err != nil {
			t.Fatal(err)
		}
		first.pages.merge(second.pages)
		if second.end != all.end || !slices.Equal(every(first.pages), every(all.pages)) {
			t.Fatalf("in two parts: %d frames, %d pages; at once %d, %d", second.end.frames, first.pages.n, all.end.frames, all.pages.n)
		}
	})
}
