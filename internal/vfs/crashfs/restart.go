package crashfs

import (
	"maps"
	"math/rand/v2"
	"slices"
)

// Restart cuts the power, if it is still on, and returns the disk as the next start finds it when
// everything that was not synced is lost. It may be called again, and then returns another disk
// in the same state.
func (f *FS) Restart() *FS { return f.restart(nil) }

// RestartRandom is Restart for a disk that was about to write back: each unsynced block, length
// and name is kept or lost at random. Equal seeds give equal disks.
func (f *FS) RestartRandom(seed uint64) *FS {
	return f.restart(rand.New(rand.NewPCG(seed, 0)))
}

func (f *FS) restart(dice *rand.Rand) *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.off = true
	next := New()
	next.frozen = slices.Clone(f.frozen)
	next.ticks = f.ticks
	s := survivor{dice: dice, files: map[*file]*file{}}
	next.root = s.dir(f.root)
	return next
}

// survivor copies what a power cut leaves. Two names of one file stay two names of one file.
type survivor struct {
	dice  *rand.Rand // nil: nothing that was not synced survives
	files map[*file]*file
}

func (s *survivor) dir(d *dir) *dir {
	kept := newDir()
	union := maps.Clone(d.durable)
	maps.Copy(union, d.names)
	for _, name := range slices.Sorted(maps.Keys(union)) { // sorted: equal seeds, equal disks
		n := d.durable[name]
		if d.names[name] != n && s.luck() {
			n = d.names[name]
		}
		switch n := n.(type) {
		case *dir:
			kept.names[name] = s.dir(n)
		case *file:
			kept.names[name] = s.file(n)
		}
	}
	kept.durable = maps.Clone(kept.names)
	return kept
}

func (s *survivor) file(n *file) *file {
	if s.files[n] == nil {
		data := s.content(n)
		s.files[n] = &file{data: data, durable: slices.Clone(data), frozen: n.frozen, mod: n.mod}
	}
	return s.files[n]
}

// content mixes the durable content with blocks of the newer one. Blocks beyond the durable
// length that are lost read as zeros.
func (s *survivor) content(n *file) []byte {
	if s.dice == nil {
		return slices.Clone(n.durable)
	}
	size := len(n.durable)
	if len(n.data) != size && s.luck() {
		size = min(size, len(n.data)) + s.dice.IntN(max(size, len(n.data))-min(size, len(n.data))+1)
		if s.luck() {
			size = len(n.data)
		}
	}
	data := make([]byte, size)
	for off := 0; off < size; off += blockSize {
		end := min(off+blockSize, size)
		from := n.durable
		if s.luck() {
			from = n.data
		}
		if off < len(from) {
			copy(data[off:end], from[off:])
		}
	}
	return data
}

func (s *survivor) luck() bool { return s.dice != nil && s.dice.IntN(2) == 0 }
