package crashfs

import (
	"maps"
	"math/rand/v2"
	"slices"
)

// Restart cuts the power, if it is still on, and returns the disk as the next start finds it when
// everything that was not synced is lost. It may be called again, and then returns another disk
// in the same state.
func (f *FS) Restart() *FS { return f.restart(survivor{}) }

// RestartRandom is Restart for a disk that was about to write back: each unsynced block, length
// and name is kept or lost at random. Equal seeds give equal disks.
func (f *FS) RestartRandom(seed uint64) *FS {
	return f.restart(survivor{dice: rand.New(rand.NewPCG(seed, 0))})
}

// Kill ends the use of f, and returns the disk as the next process finds it when only the last
// one was killed and the machine goes on: everything is there, and what was not synced still is
// not.
func (f *FS) Kill() *FS { return f.restart(survivor{everything: true}) }

func (f *FS) restart(s survivor) *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.off = true
	next := New()
	next.frozen = slices.Clone(f.frozen)
	next.ticks = f.ticks
	next.capacity, next.clones, next.windows = f.capacity, f.clones, f.windows
	s.next = next
	s.files = map[*file]*file{}
	s.dirs = map[*dir]*dir{}
	next.root = s.dir(f.root)
	for _, kept := range s.files {
		if kept.links > 0 {
			next.used += kept.takes()
		}
	}
	return next
}

// survivor copies what is left. Two names of one file stay two names of one file.
type survivor struct {
	dice       *rand.Rand // nil: nothing that was not synced survives
	everything bool       // also what is not synced stays as it is
	next       *FS
	files      map[*file]*file
	dirs       map[*dir]*dir
}

func (s *survivor) dir(d *dir) *dir {
	if s.dirs[d] != nil {
		return s.dirs[d]
	}
	kept := newDir()
	s.dirs[d] = kept
	union := maps.Clone(d.durable)
	maps.Copy(union, d.names)
	for _, name := range slices.Sorted(maps.Keys(union)) { // sorted: equal seeds, equal disks
		now, durable := d.names[name], d.durable[name]
		if !s.everything {
			if now != durable && !s.luck() {
				now = durable
			}
			durable = now
		}
		s.put(kept.durable, name, durable)
		s.put(kept.names, name, now)
		if n, ok := now.(*file); ok {
			s.files[n].links++
			if !n.dirty { // the crash has closed it
				s.next.freeze(s.files[n], name)
			}
		}
	}
	return kept
}

// put gives a copy of the node n a name, if there is a node.
func (s *survivor) put(names map[string]any, name string, n any) {
	switch n := n.(type) {
	case *dir:
		names[name] = s.dir(n)
	case *file:
		names[name] = s.file(n)
	}
}

func (s *survivor) file(n *file) *file {
	if s.files[n] == nil {
		kept := &file{frozen: n.frozen, mod: n.mod}
		if s.everything {
			kept.data, kept.durable = slices.Clone(n.data), slices.Clone(n.durable)
			kept.dirty, kept.lost = n.dirty, n.lost
		} else {
			kept.data = s.content(n)
			kept.durable = slices.Clone(kept.data)
		}
		kept.shared = min(n.shared, int64(len(kept.data)))
		s.files[n] = kept
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
