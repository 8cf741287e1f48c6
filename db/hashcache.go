package db

// hashCache keeps what the pages of one main file add to its hash, so that a page that has not
// changed is not read again: 17 bytes for each page, in pieces that are made when they are needed.
//
// What a node adds is the sum over its own cells with their overflow pages, and depends on neither
// the tree that the node is in nor its place there. So an entry is right until the page, or an
// overflow page of one of its cells, is written; forget is told of each page that was. It finds the node
// that an overflow page belongs to because the entry of that page names it:
//
//   - When the sum of a node is kept, each page of its chains is made to name it. No other node of the
//     same state has these pages.
//   - A page that is in no tree any more may keep its entry, and lose the pages of its chains to other
//     nodes. SQLite writes a page when it takes it for a tree or a chain, so by the time it matters
//     again the entry is gone.
type hashCache struct {
	usable int // bytes of a page; with another number nothing kept is right
	chunks []*hashChunk
}

type hashChunk struct {
	sum  [hashChunkPages]sum128 // of a node; the owner of an overflow page
	kind [hashChunkPages]hashKind
}

const hashChunkPages = 1 << 12

type hashKind uint8

const (
	unknown      hashKind = iota
	leafNode              // sum is what it adds
	interiorNode          // likewise; its children have to be looked at all the same
	overflowPage          // sum.lo is the node that it belongs to
)

// begin prepares for a state with pages of the given usable size.
func (c *hashCache) begin(usable int) {
	if c.usable != usable {
		*c = hashCache{usable: usable}
	}
}

func (c *hashCache) get(pgno uint32) (hashKind, sum128) {
	i := pgno / hashChunkPages
	if int(i) >= len(c.chunks) || c.chunks[i] == nil {
		return unknown, sum128{}
	}
	return c.chunks[i].kind[pgno%hashChunkPages], c.chunks[i].sum[pgno%hashChunkPages]
}

func (c *hashCache) set(pgno uint32, k hashKind, s sum128) {
	i := pgno / hashChunkPages
	for int(i) >= len(c.chunks) {
		c.chunks = append(c.chunks, nil)
	}
	if c.chunks[i] == nil {
		c.chunks[i] = new(hashChunk)
	}
	c.chunks[i].kind[pgno%hashChunkPages], c.chunks[i].sum[pgno%hashChunkPages] = k, s
}

// forget drops what depends on the given pages.
func (c *hashCache) forget(pages pageSet) {
	for _, pgno := range pages.upTo(^uint32(0)) {
		kind, sum := c.get(pgno)
		if kind == unknown {
			continue
		}
		c.set(pgno, unknown, sum128{})
		if kind != overflowPage {
			continue
		}
		// It may have become an overflow page itself since, of a node whose entry is right.
		owner := uint32(sum.lo)
		if k, _ := c.get(owner); k == leafNode || k == interiorNode {
			c.set(owner, unknown, sum128{})
		}
	}
}
