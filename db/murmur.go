package db

import (
	"encoding/binary"
	"fmt"
	"math/bits"
)

// sum128 is a number modulo 2^128. Sums of hashes don't depend on the order of what was hashed.
type sum128 struct{ hi, lo uint64 }

func (s sum128) plus(o sum128) sum128 {
	lo, carry := bits.Add64(s.lo, o.lo, 0)
	hi, _ := bits.Add64(s.hi, o.hi, carry)
	return sum128{hi, lo}
}

func (s sum128) String() string { return fmt.Sprintf("%016x%016x", s.hi, s.lo) }

// murmur is MurmurHash3_x64_128, by Austin Appleby, in the public domain, which is fast, known and
// the same on every machine. It is no protection from somebody who looks for collisions. What is written in
// parts has the hash of the whole.
type murmur struct {
	h1, h2 uint64
	n      uint64   // bytes written
	tail   [16]byte // the last n%16 of them, and zeros
}

const (
	murmurC1 = 0x87c37b91114253d5
	murmurC2 = 0x4cf5ad432745937f
	golden   = 0x9e3779b97f4a7c15
)

// newMurmur returns a hash that begins, in both halves, with a mixed value of n; domain keeps hashes
// of different things apart.
func newMurmur(domain, n uint64) murmur {
	h1 := murmurMix(n + domain*golden)
	return murmur{h1: h1, h2: murmurMix(h1 + golden)}
}

func (m *murmur) block(k1, k2 uint64) {
	h1 := m.h1 ^ bits.RotateLeft64(k1*murmurC1, 31)*murmurC2
	h1 = (bits.RotateLeft64(h1, 27)+m.h2)*5 + 0x52dce729
	h2 := m.h2 ^ bits.RotateLeft64(k2*murmurC2, 33)*murmurC1
	m.h1, m.h2 = h1, (bits.RotateLeft64(h2, 31)+h1)*5+0x38495ab5
}

func (m *murmur) write(p []byte) {
	have := int(m.n % 16)
	m.n += uint64(len(p))
	if have > 0 {
		c := copy(m.tail[have:], p)
		if p = p[c:]; have+c < 16 {
			return
		}
		m.block(binary.LittleEndian.Uint64(m.tail[:]), binary.LittleEndian.Uint64(m.tail[8:]))
		m.tail = [16]byte{}
	}
	for ; len(p) >= 16; p = p[16:] {
		m.block(binary.LittleEndian.Uint64(p), binary.LittleEndian.Uint64(p[8:]))
	}
	copy(m.tail[:], p)
}

func (m *murmur) sum() sum128 {
	k1, k2 := binary.LittleEndian.Uint64(m.tail[:]), binary.LittleEndian.Uint64(m.tail[8:])
	h1 := m.h1 ^ bits.RotateLeft64(k1*murmurC1, 31)*murmurC2 ^ m.n
	h2 := m.h2 ^ bits.RotateLeft64(k2*murmurC2, 33)*murmurC1 ^ m.n
	h1 += h2
	h2 += h1
	h1, h2 = murmurMix(h1), murmurMix(h2)
	h1 += h2
	h2 += h1
	return sum128{h1, h2}
}

func murmurMix(k uint64) uint64 {
	k = (k ^ k>>33) * 0xff51afd7ed558ccd
	k = (k ^ k>>33) * 0xc4ceb9fe1a85ec53
	return k ^ k>>33
}
