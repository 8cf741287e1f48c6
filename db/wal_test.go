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
	f.Add([]byte{}, 0, uint32(0), uint32(0))
	f.Fuzz(func(t *testing.T, data []byte, frames int, salt0, salt1 uint32) {
		from := walPos{salt: [2]uint32{salt0, salt1}, frames: max(0, frames%1000)}
		scan, err := readWAL(bytes.NewReader(data), int64(len(data)), from)
		if err == nil && scan.pages.n > len(data)/(walFrameSize+walMinPage) {
			t.Errorf("%d pages in %d bytes", scan.pages.n, len(data))
		}
	})
}
