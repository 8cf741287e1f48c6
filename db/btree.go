package db

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Kinds of b-tree pages, from SQLite's file format document.
const (
	indexInterior = 2
	tableInterior = 5
	indexLeaf     = 10
	tableLeaf     = 13

	// maxTreeDepth is SQLite's own limit.
	maxTreeDepth = 20
)

// errMalformed means that the pages of a database make no sense, although each is what was written.
var errMalformed = errors.New("db: malformed database")

func malformed(pgno uint32, what string) error {
	return fmt.Errorf("%w: page %d: %s", errMalformed, pgno, what)
}

// node is one page of a b-tree.
type node struct {
	pgno   uint32
	page   []byte // as long as SQLite uses it
	kind   byte
	cells  int
	offset int    // of the array of cell offsets
	right  uint32 // the last child; 0 in a leaf
}

// cell is one entry of a node. In a table it is a row; in an index, which a table WITHOUT ROWID is,
// interior ones are rows as well.
type cell struct {
	rowid    int64  // in a table
	size     int64  // of the payload
	local    []byte // its beginning
	overflow uint32 // the page where it goes on; 0: nowhere
}

// parseNode reads the header of a page, whose last bytes SQLite may leave to extensions.
func parseNode(pgno uint32, page []byte, usable int) (node, error) {
	n := node{pgno: pgno, page: page[:usable]}
	start := 0
	if pgno == 1 {
		start = headerSize
	}
	n.kind = page[start]
	n.cells = int(binary.BigEndian.Uint16(page[start+3:]))
	n.offset = start + 8
	switch n.kind {
	case indexInterior, tableInterior:
		n.right = binary.BigEndian.Uint32(page[start+8:])
		n.offset = start + 12
	case indexLeaf, tableLeaf:
	default:
		return n, malformed(pgno, fmt.Sprintf("not of a b-tree but of kind %d", n.kind))
	}
	if n.offset+2*n.cells > usable {
		return n, malformed(pgno, fmt.Sprintf("%d cells", n.cells))
	}
	return n, nil
}

func (n *node) leaf() bool { return n.kind == indexLeaf || n.kind == tableLeaf }

// at returns what the page has from cell i on.
func (n *node) at(i int) ([]byte, error) {
	off := int(binary.BigEndian.Uint16(n.page[n.offset+2*i:]))
	if off < n.offset || off+4 > len(n.page) {
		return nil, malformed(n.pgno, fmt.Sprintf("cell %d lies at %d", i, off))
	}
	return n.page[off:], nil
}

// child returns child i of an interior node; there is one more than cells.
func (n *node) child(i int) (uint32, error) {
	if i == n.cells {
		return n.right, nil
	}
	p, err := n.at(i)
	if err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint32(p), nil
}

// cell returns entry i of a node that has entries: any but an interior node of a table.
func (n *node) cell(i int) (c cell, err error) {
	p, err := n.at(i)
	if err != nil {
		return c, err
	}
	if n.kind == indexInterior {
		p = p[4:]
	}
	size, l := varint(p)
	p = p[l:]
	if n.kind == tableLeaf {
		c.rowid, l = varint(p)
		if l == 0 {
			return c, malformed(n.pgno, fmt.Sprintf("cell %d is cut off", i))
		}
		p = p[l:]
	}
	c.size = size
	local := n.local(size)
	if l == 0 || size < 0 || int64(len(p)) < local {
		return c, malformed(n.pgno, fmt.Sprintf("cell %d is cut off", i))
	}
	c.local = p[:local]
	if local == size {
		return c, nil
	}
	if p = p[local:]; len(p) < 4 {
		return c, malformed(n.pgno, fmt.Sprintf("cell %d is cut off", i))
	}
	c.overflow = binary.BigEndian.Uint32(p)
	return c, nil
}

// local returns how much of a payload lies in the page itself.
func (n *node) local(size int64) int64 {
	usable := int64(len(n.page))
	most := (usable-12)*64/255 - 23
	if n.kind == tableLeaf {
		most = usable - 35
	}
	if size <= most {
		return size
	}
	least := (usable-12)*32/255 - 23
	if k := least + (size-least)%(usable-4); k <= most {
		return k
	}
	return least
}

// varint reads one of SQLite's variable-length integers; its length is 0 if p ends too early.
func varint(p []byte) (v int64, length int) {
	var u uint64
	for i := range min(len(p), 9) {
		if i == 8 {
			return int64(u<<8 | uint64(p[8])), 9
		}
		u = u<<7 | uint64(p[i]&0x7f)
		if p[i] < 0x80 {
			return int64(u), i + 1
		}
	}
	return 0, 0
}

// recordFields cuts a record into its values: their serial types, and their bytes.
func recordFields(record []byte) (types []int64, values [][]byte, err error) {
	end, l := varint(record)
	if l == 0 || end < int64(l) || end > int64(len(record)) {
		return nil, nil, fmt.Errorf("%w: header of a record", errMalformed)
	}
	header, body := record[l:end], record[end:]
	for len(header) > 0 {
		t, l := varint(header)
		size := serialSize(t)
		if l == 0 || size < 0 || size > int64(len(body)) {
			return nil, nil, fmt.Errorf("%w: header of a record", errMalformed)
		}
		types, values = append(types, t), append(values, body[:size])
		header, body = header[l:], body[size:]
	}
	return types, values, nil
}

// serialSize returns how long a value is; negative if there is no such type.
func serialSize(t int64) int64 {
	if t >= 12 {
		return (t - 12) / 2
	}
	if t < 0 {
		return -1
	}
	return [...]int64{0, 1, 2, 3, 4, 6, 8, 8, 0, 0, -1, -1}[t]
}
