package cluster

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"

	"rqlited/internal/budget"
)

const (
	// frameHeader is the length of the length that precedes each message.
	frameHeader = 8

	// maxFrame bounds a message: a request is at most what HTTP lets in or a script of SQL, an
	// answer is the rows of a query, which SQLite can make much larger than anybody can use.
	maxFrame = 1 << 30

	// frameChunk is what is read or written between two looks at the clock.
	frameChunk = 64 << 10

	// firstChunk is the memory that a peer gets for a length that it only claims. It is free, even if
	// it is copied, so that at least the type of a call can be read.
	firstChunk = budget.Free / 2
)

// readFrame reads one message into buf, which it may replace by a larger one. A connection that
// ends before the first byte returns io.EOF, later io.ErrUnexpectedEOF.
func readFrame(r io.Reader, buf []byte) ([]byte, error) {
	size, err := readLength(r, maxFrame)
	if err != nil {
		return nil, err
	}
	return readBody(r, size, buf[:0], nil)
}

// readLength reads the length of a message and makes sure that it is within its bound.
func readLength(r io.Reader, limit uint64) (int, error) {
	var header [frameHeader]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return 0, err
	}
	length := binary.LittleEndian.Uint64(header[:])
	if length > limit {
		return 0, fmt.Errorf("frame of %d bytes: %w", length, ErrTooLarge)
	}
	return int(length), nil
}

// readBody reads a message of size bytes, of which buf has the first. Memory grows with what really arrives, not with
// what the length claims, and as far as claim does, unless that is nil. With the *budget.FullError
// that ends it comes what was read before.
func readBody(r io.Reader, size int, buf []byte, claim *budget.Claim) ([]byte, error) {
	for len(buf) < size {
		have := len(buf)
		// Doubling keeps the copying linear and the memory within twice what has arrived.
		step := min(size-have, max(have, firstChunk))
		if claim != nil {
			if err := claim.Raise(int64(2 * (have + step))); err != nil { // both while one is copied
				return buf, err
			}
		}
		buf = append(buf, make([]byte, step)...)
		if _, err := io.ReadFull(r, buf[have:]); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
	return buf, nil
}

// beginFrame reserves the room for the length in front of a message; endFrame fills it in.
func beginFrame(b []byte) []byte { return append(b, make([]byte, frameHeader)...) }

func endFrame(b []byte) []byte {
	binary.LittleEndian.PutUint64(b, uint64(len(b)-frameHeader))
	return b
}

// writeFrame writes frame, which may take any time as long as the peer goes on reading.
func writeFrame(conn net.Conn, frame []byte, stall time.Duration) error {
	for len(frame) > 0 {
		if err := conn.SetWriteDeadline(time.Now().Add(stall)); err != nil {
			return err
		}
		n, err := conn.Write(frame[:min(len(frame), frameChunk)])
		if err != nil {
			return err
		}
		frame = frame[n:]
	}
	return nil
}
