package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"syscall"
)

// bbolt maps its file and believes what it finds there: a flipped bit makes it panic, recurse for
// ever, take a used page for a free one, or go back to the transaction before the last. So the whole
// file is read and proven before bbolt gets to see it. What stands here is the format of that file,
// which has not changed since boltdb.
const (
	boltMagic   = 0xED0CDAED
	boltVersion = 2

	boltPageHeader = 16 // id, flags, count, overflow
	boltElement    = 16 // of a branch or a leaf, in front of the keys
	boltMetaSize   = 64

	boltBranch   = 0x01
	boltLeaf     = 0x02
	boltFreelist = 0x10

	boltSubBucket = 1          // flag of an element whose value is a bucket
	boltNoList    = ^uint64(0) // the list of free pages is not stored
)

// inspection is what is known of a raft.db that bbolt can be trusted with.
type inspection struct {
	sealed  bool   // by this package; else all that is known is that it holds together
	seal    seal   // if it is sealed
	damaged uint64 // the highest entry that is missing, or not as it was written; 0 is none
}

// inspectFile reads path from beginning to end, or returns what is wrong with it as an ErrLogDamaged.
func inspectFile(path string) (in inspection, err error) {
	f, err := os.Open(path)
	if err != nil {
		return in, err
	}
	defer f.Close()
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) // as bbolt does
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return in, fmt.Errorf("%s is in use by another process: %w", path, ErrLocked)
	}
	if err != nil {
		return in, fmt.Errorf("lock %s: %w", path, err)
	}
	info, err := f.Stat()
	if err != nil {
		return in, err
	}
	if in, err = inspect(f, info.Size()); err != nil {
		return in, fmt.Errorf("open %s: %w", path, err)
	}
	return in, nil
}

// boltFile walks the pages of a file. Each page is visited once, whatever the file says.
type boltFile struct {
	r        io.ReaderAt
	pageSize int64
	pages    uint64 // in use or free; what follows them means nothing
	seen     []bool // by page
}

func damagedf(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrLogDamaged}, args...)...)
}

func inspect(r io.ReaderAt, size int64) (in inspection, err error) {
	m, err := readMetas(r)
	if err != nil {
		return in, err
	}
	if m.txid == 1 {
		return inspection{}, nil // nothing was ever written to it
	}
	b := &boltFile{r: r, pageSize: int64(m.pageSize), pages: m.pages}
	if m.pages < 3 || m.pages > uint64(size/b.pageSize) {
		return in, damagedf("the file has %d bytes; want %d pages of %d", size, m.pages, m.pageSize)
	}
	b.seen = make([]bool, m.pages)
	c := &contents{file: b, empty: m.txid == 2}
	if err := b.tree(m.root, nil, nil, c.bucket); err != nil {
		return in, err
	}
	if err := b.checkFree(m.freelist); err != nil {
		return in, err
	}
	return c.end()
}

// boltMeta is one of the two pages at the beginning, which transactions write in turn.
type boltMeta struct {
	pageSize                    uint32
	root, freelist, pages, txid uint64
}

// readMetas returns the newer one. The other must be intact too and be that of the transaction before:
// bbolt would take that one, and lose the last transaction, if the newer one were damaged.
func readMetas(r io.ReaderAt) (m boltMeta, err error) {
	a, err := readMeta(r, 0)
	if err != nil {
		return m, err
	}
	if a.pageSize < 1<<10 || a.pageSize > 1<<16 || a.pageSize&(a.pageSize-1) != 0 {
		return m, damagedf("a page has %d bytes", a.pageSize)
	}
	b, err := readMeta(r, int64(a.pageSize))
	if err != nil {
		return m, err
	}
	if a.txid%2 != 0 || a.txid+1 != b.txid && b.txid+1 != a.txid || a.pageSize != b.pageSize {
		return m, damagedf("transactions %d and %d do not follow each other", a.txid, b.txid)
	}
	if a.txid > b.txid {
		return a, nil
	}
	return b, nil
}

func readMeta(r io.ReaderAt, at int64) (m boltMeta, err error) {
	p := make([]byte, boltPageHeader+boltMetaSize)
	if err := readFull(r, p, at); err != nil {
		return m, err
	}
	p = p[boltPageHeader:]
	h := fnv.New64a()
	h.Write(p[:boltMetaSize-8])
	ne := binary.NativeEndian
	if ne.Uint32(p) != boltMagic || ne.Uint32(p[4:]) != boltVersion || ne.Uint64(p[56:]) != h.Sum64() {
		return m, damagedf("checksum of the page at %d does not match", at)
	}
	return boltMeta{
		pageSize: ne.Uint32(p[8:]), root: ne.Uint64(p[16:]), freelist: ne.Uint64(p[32:]),
		pages: ne.Uint64(p[40:]), txid: ne.Uint64(p[48:]),
	}, nil
}

// readFull reads all of p; a file that ends before is damaged, one that can't be read is not.
func readFull(r io.ReaderAt, p []byte, at int64) error {
	n, err := r.ReadAt(p, at)
	if n == len(p) {
		return nil
	}
	if errors.Is(err, io.EOF) {
		return damagedf("the file ends at %d", at+int64(n))
	}
	return fmt.Errorf("read at %d: %w", at, err)
}

// page reads a page that nothing else refers to, with those that it flows over to.
func (b *boltFile) page(id uint64, kinds uint16) (p []byte, err error) {
	if id < 2 || id >= b.pages {
		return nil, damagedf("page %d is referred to, but there are %d", id, b.pages)
	}
	head := make([]byte, boltPageHeader)
	if err := readFull(b.r, head, int64(id)*b.pageSize); err != nil {
		return nil, err
	}
	ne := binary.NativeEndian
	kind, more := ne.Uint16(head[8:]), uint64(ne.Uint32(head[12:]))
	if ne.Uint64(head) != id || kind&kinds == 0 || kind&(kind-1) != 0 || id+more >= b.pages {
		return nil, damagedf("page %d is not what it should be", id)
	}
	for i := id; i <= id+more; i++ {
		if b.seen[i] {
			return nil, damagedf("page %d is referred to twice", i)
		}
		b.seen[i] = true
	}
	p = make([]byte, int64(more+1)*b.pageSize)
	return p, readFull(b.r, p, int64(id)*b.pageSize)
}

// tree visits the elements below page id, whose keys must ascend from low, up to but without high.
func (b *boltFile) tree(id uint64, low, high []byte, visit visitor) error {
	p, err := b.page(id, boltBranch|boltLeaf)
	if err != nil {
		return err
	}
	if kind(p) == boltLeaf {
		return leaf(p, low, high, visit)
	}
	type child struct {
		key []byte
		id  uint64
	}
	var children []child
	err = elements(p, low, high, func(e []byte) (pos, ksize, vsize uint32) {
		return binary.NativeEndian.Uint32(e), binary.NativeEndian.Uint32(e[4:]), 0
	}, func(e, key, _ []byte) error {
		children = append(children, child{key, binary.NativeEndian.Uint64(e[8:])})
		return nil
	})
	if err != nil {
		return err
	}
	if len(children) == 0 {
		return damagedf("page %d is a branch without children", id)
	}
	for i, c := range children {
		end := high
		if i+1 < len(children) {
			end = children[i+1].key
		}
		if err := b.tree(c.id, c.key, end, visit); err != nil {
			return err
		}
	}
	return nil
}

// visitor is given an element of a leaf. The slices are its own.
type visitor func(flags uint32, key, value []byte) error

func kind(p []byte) uint16 { return binary.NativeEndian.Uint16(p[8:]) }

func leaf(p, low, high []byte, visit visitor) error {
	ne := binary.NativeEndian
	return elements(p, low, high, func(e []byte) (pos, ksize, vsize uint32) {
		return ne.Uint32(e[4:]), ne.Uint32(e[8:]), ne.Uint32(e[12:])
	}, func(e, key, value []byte) error { return visit(ne.Uint32(e), key, value) })
}

// elements visits the elements of a page, which stand in front of what they refer to.
func elements(p, low, high []byte, where func(e []byte) (pos, ksize, vsize uint32), visit func(e, key, value []byte) error) error {
	count := int(binary.NativeEndian.Uint16(p[10:]))
	if boltPageHeader+count*boltElement > len(p) {
		return damagedf("a page of %d bytes has %d elements", len(p), count)
	}
	for i := range count {
		e := p[boltPageHeader+i*boltElement:]
		pos, ksize, vsize := where(e)
		end := uint64(pos) + uint64(ksize) + uint64(vsize)
		if ksize == 0 || int(pos) < (count-i)*boltElement || end > uint64(len(e)) {
			return damagedf("an element of a page lies outside of it")
		}
		key, value := e[pos:pos+ksize], e[pos+ksize:end]
		c := bytes.Compare(key, low)
		if low != nil && (c < 0 || c == 0 && i > 0) || high != nil && bytes.Compare(key, high) >= 0 {
			return damagedf("keys are out of order")
		}
		low = key
		if err := visit(e, key, value); err != nil {
			return err
		}
	}
	return nil
}

// checkFree makes sure that each page is either used or free. A page taken for free would be
// written over, one taken for used would hide that something is gone.
func (b *boltFile) checkFree(list uint64) error {
	if list == boltNoList {
		return nil
	}
	p, err := b.page(list, boltFreelist)
	if err != nil {
		return err
	}
	ne := binary.NativeEndian
	count, at := uint64(ne.Uint16(p[10:])), boltPageHeader
	if count == 0xFFFF { // too many for the field
		count, at = ne.Uint64(p[at:]), at+8
	}
	if count > uint64(len(p)-at)/8 {
		return damagedf("%d pages are said to be free", count)
	}
	for range count {
		id := ne.Uint64(p[at:])
		at += 8
		if id < 2 || id >= b.pages || b.seen[id] {
			return damagedf("page %d is said to be free", id)
		}
		b.seen[id] = true
	}
	for id := uint64(2); id < b.pages; id++ {
		if !b.seen[id] {
			return damagedf("page %d is neither used nor free", id)
		}
	}
	return nil
}

// contents checks what the buckets hold.
type contents struct {
	file  *boltFile
	empty bool // there was no transaction since the buckets were made
	names []string
	conf  []confValue
	in    inspection
	want  uint64 // the next entry; of a sealed log
	count int    // entries
}

// bucket visits an element of the root.
func (c *contents) bucket(flags uint32, key, value []byte) error {
	c.names = append(c.names, string(key))
	if flags != boltSubBucket || len(value) < 16 {
		return damagedf("%q is no bucket", key)
	}
	var visit visitor
	switch string(key) {
	case string(bucketConf):
		visit = c.setting
	case string(bucketLogs):
		if err := c.readSeal(); err != nil {
			return err
		}
		visit = c.entry
	default:
		return damagedf("there is a bucket %q", key)
	}
	if root := binary.NativeEndian.Uint64(value); root != 0 {
		return c.file.tree(root, nil, nil, visit)
	}
	value = value[16:] // a page within the page
	if len(value) < boltPageHeader || kind(value) != boltLeaf {
		return damagedf("bucket %q is not what it should be", key)
	}
	return leaf(value, nil, nil, visit)
}

func (c *contents) setting(flags uint32, key, value []byte) error {
	if flags != 0 {
		return damagedf("there is a bucket %q", key)
	}
	c.conf = append(c.conf, confValue{key, value})
	return nil
}

// readSeal is called once all settings are known, which are in front of the log.
func (c *contents) readSeal() (err error) {
	for _, v := range c.conf {
		if bytes.Equal(v.key, keySeal) {
			c.in.sealed = true
			c.in.seal, err = openSeal(c.conf)
			c.want = c.in.seal.first
			return err
		}
	}
	return nil
}

func (c *contents) entry(flags uint32, key, value []byte) error {
	if flags != 0 || len(key) != 8 {
		return damagedf("there is something else in the log")
	}
	c.count++
	if !c.in.sealed {
		return nil
	}
	index, s := binary.BigEndian.Uint64(key), c.in.seal
	if index < s.first || index > s.last {
		return damagedf("there is an entry %d, but the log is from %d to %d", index, s.first, s.last)
	}
	if index > c.want {
		c.in.damaged = index - 1
	}
	if _, err := unsealEntry(index, value); err != nil {
		c.in.damaged = index
	}
	c.want = index + 1
	return nil
}

func (c *contents) end() (inspection, error) {
	if len(c.names) != 2 {
		return c.in, damagedf("the buckets are %q", c.names)
	}
	if !c.in.sealed {
		return c.in, c.older()
	}
	if last := c.in.seal.last; last > 0 && c.want <= last {
		c.in.damaged = last
	}
	return c.in, nil
}

// older makes sure that the file was never sealed. Whoever seals it notes the node's id before Raft
// starts, and the seal stands in front of all other settings: where none of ours is, it has not been
// cut off, and where its own key was damaged, ours are still there.
func (c *contents) older() error {
	if len(c.conf) == 0 && c.count == 0 && c.empty {
		return nil
	}
	term := false
	for _, v := range c.conf {
		if bytes.HasPrefix(v.key, ownKeys) || len(v.value) == sealSize {
			return damagedf("there is no checksum of the settings, but one that it should cover")
		}
		term = term || string(v.key) == "CurrentTerm" && len(v.value) == 8
	}
	if !term && (c.count > 0 || len(c.conf) == 0) {
		return damagedf("there is no term")
	}
	return nil
}
