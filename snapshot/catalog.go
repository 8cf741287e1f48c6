package snapshot

import (
	"slices"
	"time"
)

// catalog is what the Store knows about its files: which snapshots can be opened, and which files
// nobody needs any more. It does no I/O. Guarded by Store.mu.
type catalog struct {
	man *manifest // as on disk

	// needs counts, for each file, the reasons to keep it: that the manifest names it, each
	// superseded chain in its grace period, each open reader.
	needs   map[string]int
	retired []retiree // by time of expiry
	dead    []string  // files without a reason, to be deleted
}

// retiree is what one change of the manifest has superseded and what can still be opened for a
// while: every snapshot of chain, so far as it is not in the manifest anyway.
type retiree struct {
	chain []link
	gone  int // snapshots that the change has superseded
	until time.Time
}

func newCatalog(m *manifest, dead []string) *catalog {
	c := &catalog{man: m, needs: map[string]int{}, dead: dead}
	c.keep(m.Chain)
	return c
}

// find returns the files that make up the snapshot, oldest first.
func (c *catalog) find(id string) ([]link, bool) {
	if i := indexID(c.man.Chain, id); i >= 0 {
		return c.man.Chain[:i+1], true
	}
	for _, r := range c.retired {
		if i := indexID(r.chain, id); i >= 0 {
			return r.chain[:i+1], true
		}
	}
	return nil, false
}

func indexID(chain []link, id string) int {
	return slices.IndexFunc(chain, func(l link) bool { return l.ID == id })
}

// keep adds a reason to keep the files of chain.
func (c *catalog) keep(chain []link) {
	for i := range chain {
		c.needs[chain[i].File]++
	}
}

// drop takes a reason away again.
func (c *catalog) drop(chain []link) {
	for i := range chain {
		name := chain[i].File
		switch c.needs[name] {
		case 0:
			panic("snapshot: a reason to keep " + name + " was taken away twice")
		case 1:
			delete(c.needs, name)
			c.dead = append(c.dead, name)
		default:
			c.needs[name]--
		}
	}
}

// replace makes next the current manifest. Snapshots that it no longer names stay openable until
// the given time; those it names in other files are read from there from now on.
func (c *catalog) replace(next *manifest, until time.Time) {
	old := c.man
	c.man = next
	c.keep(next.Chain)
	named := make(map[string]bool, len(next.Chain))
	for i := range next.Chain {
		named[next.Chain[i].ID] = true
	}
	r := retiree{until: until}
	for i := range old.Chain {
		if !named[old.Chain[i].ID] {
			r.chain = old.Chain[:i+1]
			r.gone++
		}
	}
	if r.gone > 0 {
		c.keep(r.chain)
		c.retired = append(c.retired, r)
	}
	c.drop(old.Chain)
}

// expire ends the grace periods that are over and returns when the next one ends, if any is left.
func (c *catalog) expire(now time.Time) (next time.Time, ok bool) {
	for len(c.retired) > 0 && !c.retired[0].until.After(now) {
		c.drop(c.retired[0].chain)
		c.retired = slices.Delete(c.retired, 0, 1)
	}
	if len(c.retired) == 0 {
		return time.Time{}, false
	}
	return c.retired[0].until, true
}

// takeDead returns the files to delete and forgets them.
func (c *catalog) takeDead() []string {
	dead := c.dead
	c.dead = nil
	return dead
}

// superseded returns how many snapshots are kept for their grace period.
func (c *catalog) superseded() int {
	n := 0
	for _, r := range c.retired {
		n += r.gone
	}
	return n
}
