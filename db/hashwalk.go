package db

import (
	"encoding/binary"
	"fmt"
	"unicode/utf16"
)

// minUsable is the least that SQLite allows.
const minUsable = 480

// Encodings of text in the header of a database.
const (
	encodingUTF8    = 1
	encodingUTF16LE = 2
	encodingUTF16BE = 3
)

// walker walks through the b-trees of a state and hashes what is in them.
type walker struct {
	pages  *pinned
	cache  *hashCache
	usable int          // bytes of a page
	left   uint32       // pages that may still be met: a tree that bites its tail must not hold us for ever
	check  func() error // says why to stop

	nodes [maxTreeDepth][]byte // the path to where we are
	link  []byte               // an overflow page
}

// visitor is what is done with the nodes of a tree.
type visitor struct {
	known func(pgno uint32) bool // this is a leaf that need not be read
	visit func(n *node) error    // a node with entries
}

// step is taken before each page: no state has more of them than pages.
func (w *walker) step(pgno uint32) error {
	if w.left == 0 {
		return malformed(pgno, "met twice")
	}
	w.left--
	return w.check()
}

// walk visits the tree under a page.
func (w *walker) walk(pgno uint32, depth int, v *visitor) error {
	if depth == maxTreeDepth {
		return malformed(pgno, "a tree too deep")
	}
	if err := w.step(pgno); err != nil {
		return err
	}
	if v.known(pgno) {
		return nil
	}
	if w.nodes[depth] == nil {
		w.nodes[depth] = make([]byte, w.pages.pageSize)
	}
	if err := w.pages.read(pgno, w.nodes[depth]); err != nil {
		return err
	}
	n, err := parseNode(pgno, w.nodes[depth], w.usable)
	if err != nil {
		return err
	}
	if n.kind != tableInterior {
		if err := v.visit(&n); err != nil {
			return err
		}
	}
	if n.leaf() {
		return nil
	}
	for i := range n.cells + 1 {
		child, err := n.child(i)
		if err != nil {
			return err
		}
		if err := w.walk(child, depth+1, v); err != nil {
			return err
		}
	}
	return nil
}

// table returns the sum of the rows of a table.
func (w *walker) table(root uint32) (total sum128, err error) {
	v := visitor{
		known: func(pgno uint32) bool {
			kind, sum := w.cache.get(pgno)
			if kind == leafNode {
				total = total.plus(sum)
			}
			return kind == leafNode
		},
		visit: func(n *node) error {
			sum, err := w.node(n)
			total = total.plus(sum)
			return err
		},
	}
	err = w.walk(root, 0, &v)
	return total, err
}

// node returns the sum of the rows in a node.
func (w *walker) node(n *node) (total sum128, err error) {
	if kind, sum := w.cache.get(n.pgno); kind == interiorNode {
		return sum, nil
	}
	for i := range n.cells {
		c, err := n.cell(i)
		if err != nil {
			return total, err
		}
		m := newMurmur(domainKey, 0)
		if n.kind == tableLeaf {
			m = newMurmur(domainRow, uint64(c.rowid))
		}
		m.write(c.local)
		err = w.chain(n.pgno, &c, func(pgno uint32, part []byte) {
			w.cache.set(pgno, overflowPage, sum128{lo: uint64(n.pgno)})
			m.write(part)
		})
		if err != nil {
			return total, err
		}
		total = total.plus(m.sum())
	}
	kind := interiorNode
	if n.leaf() {
		kind = leafNode
	}
	w.cache.set(n.pgno, kind, total)
	return total, nil
}

// chain calls add with each overflow page of a cell and the part of the payload in it.
func (w *walker) chain(owner uint32, c *cell, add func(pgno uint32, part []byte)) error {
	if c.overflow == 0 {
		return nil
	}
	if w.link == nil {
		w.link = make([]byte, w.pages.pageSize)
	}
	next := c.overflow
	for rest := c.size - int64(len(c.local)); rest > 0; {
		if err := w.step(next); err != nil {
			return err
		}
		if next <= 1 {
			return malformed(owner, "an overflow chain that is too short")
		}
		if err := w.pages.read(next, w.link); err != nil {
			return err
		}
		part := w.link[4:w.usable]
		part = part[:min(rest, int64(len(part)))]
		add(next, part)
		rest -= int64(len(part))
		next = binary.BigEndian.Uint32(w.link)
	}
	return nil
}

// object is a row of sqlite_schema.
type object struct {
	sum  sum128
	name []byte
	root uint32 // of a table; 0: has no rows of its own
}

// schema reads sqlite_schema, always the whole of it. The numbers of the roots are not part of the
// sums, nor are the rowids, which VACUUM changes and nothing refers to.
func (w *walker) schema(encoding uint32) (objects []object, err error) {
	table := encodeASCII("table", encoding)
	v := visitor{known: func(uint32) bool { return false }}
	v.visit = func(n *node) error {
		if n.kind != tableLeaf {
			return malformed(n.pgno, "not of a table")
		}
		for i := range n.cells {
			c, err := n.cell(i)
			if err != nil {
				return err
			}
			record, err := w.payload(n.pgno, &c)
			if err != nil {
				return err
			}
			o, err := newObject(record, table)
			if err != nil {
				return err
			}
			objects = append(objects, o)
		}
		return nil
	}
	err = w.walk(1, 0, &v)
	return objects, err
}

// payload returns a whole payload.
func (w *walker) payload(owner uint32, c *cell) ([]byte, error) {
	if c.size > int64(w.pages.pages)*int64(w.usable) {
		return nil, malformed(owner, fmt.Sprintf("a payload of %d bytes", c.size))
	}
	p := append(make([]byte, 0, c.size), c.local...)
	err := w.chain(owner, c, func(_ uint32, part []byte) { p = append(p, part...) })
	return p, err
}

// newObject reads a row of sqlite_schema: type, name, table, root and SQL text.
func newObject(record, table []byte) (o object, err error) {
	types, values, err := recordFields(record)
	if err != nil {
		return o, err
	}
	const columns, name, root = 5, 1, 3
	if len(values) != columns {
		return o, fmt.Errorf("%w: %d columns in sqlite_schema", errMalformed, len(values))
	}
	m := newMurmur(domainSchema, 0)
	for i := range values {
		if i != root {
			m.write(binary.BigEndian.AppendUint64(nil, uint64(types[i]))) // with the length
			m.write(values[i])
		}
	}
	o = object{sum: m.sum(), name: values[name]}
	if string(values[0]) != string(table) {
		return o, nil
	}
	number := uint64(0)
	switch t := types[root]; {
	case t == 9:
		number = 1
	case t >= 1 && t <= 6:
		for _, b := range values[root] {
			number = number<<8 | uint64(b)
		}
	}
	if number > maxPages {
		return o, fmt.Errorf("%w: a root at page %d", errMalformed, number)
	}
	o.root = uint32(number)
	return o, nil
}

// encodeASCII returns s as the database would hold it.
func encodeASCII(s string, encoding uint32) []byte {
	if encoding == encodingUTF8 {
		return []byte(s)
	}
	var out []byte
	for _, u := range utf16.Encode([]rune(s)) {
		if encoding == encodingUTF16BE {
			out = binary.BigEndian.AppendUint16(out, u)
		} else {
			out = binary.LittleEndian.AppendUint16(out, u)
		}
	}
	return out
}
