package cluster

import (
	"bufio"
	"fmt"
	"io"
)

// kind is what a msgpack token begins or is.
type kind uint8

const (
	kindNil kind = iota
	kindBool
	kindInt
	kindFloat
	kindBytes // text or binary: the old format, which Raft writes, knows no difference
	kindExt
	kindArray
	kindMap
)

// token is the head of one msgpack value.
type token struct {
	kind kind
	int  int64  // value of a kindInt; a value over the range of int64 is math.MinInt64
	size uint32 // bytes that follow (kindBytes, kindExt), elements (kindArray) or pairs (kindMap)
}

// readToken reads the head of the next value from r and appends its bytes to out. The size bytes
// that follow text and extensions are left to the caller, who has to bound them.
func readToken(r *bufio.Reader, out []byte) (token, []byte, error) {
	b, err := r.ReadByte()
	if err != nil {
		return token{}, out, err
	}
	out = append(out, b)
	switch {
	case b <= 0x7f || b >= 0xe0:
		return token{kind: kindInt, int: int64(int8(b))}, out, nil
	case b <= 0x8f:
		return token{kind: kindMap, size: uint32(b & 0x0f)}, out, nil
	case b <= 0x9f:
		return token{kind: kindArray, size: uint32(b & 0x0f)}, out, nil
	case b <= 0xbf:
		return token{kind: kindBytes, size: uint32(b & 0x1f)}, out, nil
	}
	// Of the rest the first byte says how long a number follows, and what it is.
	form := heads[b-0xc0]
	out = append(out, make([]byte, form.width)...)
	number := out[len(out)-int(form.width):]
	if _, err := io.ReadFull(r, number); err != nil {
		return token{}, out, err
	}
	var n uint64
	for _, digit := range number {
		n = n<<8 | uint64(digit)
	}
	t := token{kind: form.kind}
	switch form.kind {
	case kindInt:
		t.int = int64(n)
		if form.signed {
			shift := 64 - 8*form.width
			t.int = int64(n<<shift) >> shift
		} else if t.int < 0 {
			t.int = tooLarge
		}
	case kindBytes, kindArray, kindMap:
		t.size = uint32(n)
	case kindExt:
		t.size = form.size
		if form.width > 0 {
			t.size = uint32(n)
		}
		t.size++ // the byte that says which extension it is
		if t.size == 0 {
			return token{}, out, fmt.Errorf("extension of 4 GiB: %w", ErrTooLarge)
		}
	}
	if b == 0xc1 {
		return token{}, out, fmt.Errorf("msgpack byte c1: %w", ErrMalformed)
	}
	return t, out, nil
}

// tooLarge stands for integers over the range of int64, which no bound accepts.
const tooLarge = -1 << 63

// heads describes the first bytes from c0 to df.
var heads = [32]struct {
	kind   kind
	width  uint   // bytes of the number that follows
	size   uint32 // of extensions without a number
	signed bool
}{
	0x00: {kind: kindNil},
	0x01: {kind: kindNil}, // c1 is never used
	0x02: {kind: kindBool},
	0x03: {kind: kindBool},
	0x04: {kind: kindBytes, width: 1},
	0x05: {kind: kindBytes, width: 2},
	0x06: {kind: kindBytes, width: 4},
	0x07: {kind: kindExt, width: 1},
	0x08: {kind: kindExt, width: 2},
	0x09: {kind: kindExt, width: 4},
	0x0a: {kind: kindFloat, width: 4},
	0x0b: {kind: kindFloat, width: 8},
	0x0c: {kind: kindInt, width: 1},
	0x0d: {kind: kindInt, width: 2},
	0x0e: {kind: kindInt, width: 4},
	0x0f: {kind: kindInt, width: 8},
	0x10: {kind: kindInt, width: 1, signed: true},
	0x11: {kind: kindInt, width: 2, signed: true},
	0x12: {kind: kindInt, width: 4, signed: true},
	0x13: {kind: kindInt, width: 8, signed: true},
	0x14: {kind: kindExt, size: 1},
	0x15: {kind: kindExt, size: 2},
	0x16: {kind: kindExt, size: 4},
	0x17: {kind: kindExt, size: 8},
	0x18: {kind: kindExt, size: 16},
	0x19: {kind: kindBytes, width: 1},
	0x1a: {kind: kindBytes, width: 2},
	0x1b: {kind: kindBytes, width: 4},
	0x1c: {kind: kindArray, width: 2},
	0x1d: {kind: kindArray, width: 4},
	0x1e: {kind: kindMap, width: 2},
	0x1f: {kind: kindMap, width: 4},
}
