package command

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// Entry is one command in the Raft log. Applying it has the same effect on every node, at every
// time: what could differ, the clock and the random numbers, stands in the entry.
type Entry struct {
	Kind    Kind
	Request *Request // of Query, Execute and Unified
	Data    []byte   // of Load: a whole SQLite file
	Chunk   *Chunk   // of LoadChunk

	Time time.Time // the leader's clock; zero in entries written by rqlite
	Seed uint64    // of the random numbers, and unique among the entries of a leader; 0 in rqlite's

	// ForeignKeys says whether foreign keys are enforced while the entry is applied. Were that each
	// node's own matter, a statement could fail on some replicas only. Unset in rqlite's.
	ForeignKeys Setting

	// Extensions is what the leader has of SQLite extensions; empty if it has none, and in rqlite's. Other nodes do with
	// the entry what their own let them do, and compare.
	Extensions string

	Hash bool // of Noop: every node hashes its state exactly here

	Upkeep Upkeep // of Execute: no client has asked for it
}

// Upkeep says which work on the database, due now and then, an entry does. It changes nothing about how the entry is applied.
type Upkeep uint8

const (
	NoUpkeep Upkeep = 0
	Vacuum   Upkeep = 1
	Optimize Upkeep = 2
)

func (u Upkeep) String() string {
	switch u {
	case Vacuum:
		return "VACUUM"
	case Optimize:
		return "optimize"
	}
	return "none"
}

// Chunk is a part of a SQLite file that is on its way into the database. Releases of rqlite before 8.22
// wrote chunks too; later ones apply them.
type Chunk struct {
	Stream   string // which file
	Sequence int64  // 1, 2, 3 …
	Last     bool
	Abort    bool   // drop the stream
	Data     []byte // decompressed
}

const (
	// Requests with this many statements, or a statement of this many bytes, are compressed.
	compressStatements = 512
	compressBytes      = 4096

	// maxEntry bounds what an entry may decompress to. SQLite files of this size can't be loaded
	// through the log.
	maxEntry = 2 << 30
)

// Fields of the envelope that rqlite does not have, and skips.
const (
	fieldTime        protowire.Number = 1000 // zig-zag nanoseconds since 1970
	fieldSeed        protowire.Number = 1001 // fixed64
	fieldForeignKeys protowire.Number = 1002 // a Setting
	fieldHash        protowire.Number = 1003 // bool
	fieldUpkeep      protowire.Number = 1004 // an Upkeep
	fieldExtensions  protowire.Number = 1005 // string
)

// Packing says how an entry was encoded.
type Packing struct {
	Plain  int // bytes of the message before compression
	Stored int // bytes of the message in the entry

	Tried, Compressed bool // Tried but not Compressed: it would not have become smaller
}

// EncodeEntry appends e to dst as rqlite's Command message. The request's DBTimeout is left out:
// a clock must not decide the result of an entry. It fails with ErrTooLarge.
func EncodeEntry(dst []byte, e *Entry) ([]byte, error) {
	dst, _, err := PackEntry(dst, e)
	return dst, err
}

// PackEntry is EncodeEntry for those who want to know how e was encoded.
func PackEntry(dst []byte, e *Entry) ([]byte, Packing, error) {
	var p Packing
	var sub []byte
	switch e.Kind {
	case Query, Execute, Unified:
		sub = appendRequest(nil, e.Request, false)
	case Load:
		sub = protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), e.Data)
	case LoadChunk:
		sub = appendChunk(nil, e.Chunk)
	case Noop:
	default:
		return nil, p, fmt.Errorf("encode entry: kind %d is never written", e.Kind)
	}
	if len(sub) > maxEntry { // compressed or not: what can't be decoded would stop every node
		return nil, p, fmt.Errorf("encode %s: %w", e.Kind, ErrTooLarge)
	}
	p.Plain = len(sub)
	switch {
	case e.Kind == Load:
		sub = compress(sub) // a load always is, and never says so
		p.Tried = true
	case e.Request != nil && worthCompressing(e.Request):
		p.Tried = true
		if z := compress(sub); len(z) < len(sub) {
			sub, p.Compressed = z, true
		}
	}
	p.Stored = len(sub)
	dst = AppendVarint(dst, 1, uint64(e.Kind))
	dst = protowire.AppendBytes(protowire.AppendTag(dst, 2, protowire.BytesType), sub)
	dst = AppendBool(dst, 3, p.Compressed)
	if !e.Time.IsZero() {
		dst = AppendVarint(dst, fieldTime, protowire.EncodeZigZag(e.Time.UnixNano()))
	}
	if e.Seed != 0 {
		dst = protowire.AppendFixed64(protowire.AppendTag(dst, fieldSeed, protowire.Fixed64Type), e.Seed)
	}
	dst = AppendVarint(dst, fieldForeignKeys, uint64(e.ForeignKeys))
	p.Compressed = p.Compressed || e.Kind == Load
	dst = AppendBool(dst, fieldHash, e.Hash)
	dst = AppendVarint(dst, fieldUpkeep, uint64(e.Upkeep))
	return AppendString(dst, fieldExtensions, e.Extensions), p, nil
}

// DecodeEntry decodes the data of a log entry, whether this program or rqlite wrote it. An entry
// of an unknown kind is decoded to its kind alone. It fails with ErrMalformed or ErrTooLarge.
func DecodeEntry(b []byte) (*Entry, error) {
	e := &Entry{}
	var sub []byte
	var compressed bool
	err := EachField(b, func(f Field) error {
		switch {
		case f.Num == 1 && f.Type == protowire.VarintType:
			e.Kind = Kind(min(f.Bits, 255))
		case f.Num == 2 && f.Message():
			sub = f.Bytes
		case f.Num == 3:
			compressed = f.Bool()
		case f.Num == fieldTime && f.Type == protowire.VarintType:
			e.Time = time.Unix(0, protowire.DecodeZigZag(f.Bits)).UTC()
		case f.Num == fieldSeed && f.Type == protowire.Fixed64Type:
			e.Seed = f.Bits
		case f.Num == fieldForeignKeys:
			// What a later version means by another value is not known here. To go on by a guess
			// would be to differ from it; to stop is not.
			if f.Type != protowire.VarintType || f.Bits > uint64(On) {
				return fmt.Errorf("%w: foreign keys are %d", ErrMalformed, f.Bits)
			}
			e.ForeignKeys = Setting(f.Bits)
		case f.Num == fieldHash:
			e.Hash = f.Bool()
		case f.Num == fieldUpkeep && f.Type == protowire.VarintType:
			e.Upkeep = Upkeep(min(f.Bits, 255))
		case f.Num == fieldExtensions:
			e.Extensions = f.Text()
		}
		return nil
	})
	if err == nil && (compressed || e.Kind == Load) {
		sub, err = decompress(sub)
	}
	if err == nil {
		err = e.decodeSub(sub)
	}
	if err != nil {
		return nil, fmt.Errorf("decode entry: %w", err)
	}
	return e, nil
}

func (e *Entry) decodeSub(sub []byte) (err error) {
	switch e.Kind {
	case Query, Execute, Unified:
		e.Request, err = DecodeRequest(e.Kind, sub)
		if err == nil {
			e.Request.DBTimeout = 0 // rqlite's entries may hold it
		}
	case Load:
		err = EachField(sub, func(f Field) error {
			if f.Num == 1 && f.Message() {
				e.Data = f.Bytes
			}
			return nil
		})
	case LoadChunk:
		e.Chunk, err = decodeChunk(sub)
	}
	return err
}

func appendChunk(dst []byte, c *Chunk) []byte {
	dst = AppendString(dst, 1, c.Stream)
	dst = AppendVarint(dst, 2, uint64(c.Sequence))
	dst = AppendBool(dst, 3, c.Last)
	if len(c.Data) > 0 {
		dst = protowire.AppendBytes(protowire.AppendTag(dst, 4, protowire.BytesType), compress(c.Data))
	}
	return AppendBool(dst, 5, c.Abort)
}

func decodeChunk(b []byte) (*Chunk, error) {
	c := &Chunk{}
	var data []byte
	err := EachField(b, func(f Field) error {
		switch {
		case f.Num == 1 && f.Message():
			c.Stream = f.Text()
		case f.Num == 2:
			c.Sequence = int64(f.Bits)
		case f.Num == 3:
			c.Last = f.Bool()
		case f.Num == 4 && f.Message():
			data = f.Bytes
		case f.Num == 5:
			c.Abort = f.Bool()
		}
		return nil
	})
	if err == nil && len(data) > 0 {
		c.Data, err = decompress(data)
	}
	return c, err
}

func worthCompressing(r *Request) bool {
	if len(r.Statements) >= compressStatements {
		return true
	}
	for i := range r.Statements {
		if len(r.Statements[i].SQL) >= compressBytes {
			return true
		}
	}
	return false
}

func compress(b []byte) []byte {
	var buf bytes.Buffer
	w, err := gzip.NewWriterLevel(&buf, gzip.BestSpeed)
	if err == nil {
		_, err = w.Write(b)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		panic(err) // a write to memory at a valid level does not fail
	}
	return buf.Bytes()
}

// decompress reads one gzip stream. Memory grows with what is really read, up to maxEntry.
func decompress(b []byte) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	out, err := io.ReadAll(io.LimitReader(r, maxEntry+1))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if len(out) > maxEntry {
		return nil, ErrTooLarge
	}
	return out, nil
}
