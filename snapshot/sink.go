package snapshot

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"rqlited/internal/vfs"
)

// Sink receives one snapshot as a stream. Nothing of it exists before Close has returned nil. A
// Sink belongs to one goroutine.
//
// A Sink is an install unless Local is called: its stream must be a complete image, and it
// supersedes all there is, whatever its term and index, because a leader has sent it.
type Sink struct {
	store *Store
	meta  link // of the snapshot; says nothing of files
	stage stage

	local  bool
	head   string // with local: what the capture was taken against
	parent *link  // with local: that snapshot, if there is one

	err    error // of the first thing that went wrong; nothing works after
	closed bool
}

var _ raft.SnapshotSink = (*Sink)(nil)

// Local says that the stream is a capture of this node's own database, taken against the snapshot
// head, or against none if head is empty. The stream may be a delta upon head, or an image. Close
// publishes it only if head is still the store's head then, and returns ErrStaleHead otherwise.
// Local must be called before the first Write.
func (k *Sink) Local(head string) {
	if k.stage.check.begun || len(k.stage.unit) > 0 {
		k.err = errLateLocal
		return
	}
	k.local, k.head = true, head
	k.store.mu.Lock()
	defer k.store.mu.Unlock()
	if chain, ok := k.store.catalog.find(head); ok {
		k.parent = &chain[len(chain)-1]
		k.stage.above = k.parent.Pages
	}
}

// ID returns the id of the snapshot.
func (k *Sink) ID() string { return k.meta.ID }

// Write checks the next bytes of the stream and stores them. An error that is ErrMalformed,
// ErrNotImage or ErrStaleHead means that the stream can never be published.
func (k *Sink) Write(p []byte) (n int, err error) {
	if k.err == nil && k.closed {
		k.err = errSinkClosed
	}
	if k.err != nil {
		return 0, k.err
	}
	n, k.err = k.stage.Write(p)
	return n, k.err
}

// admit decides by the header whether the stream can be published at all.
func (k *Sink) admit(h Header) error {
	switch {
	case !h.Delta:
		return nil
	case !k.local || k.head == "":
		return ErrNotImage
	case k.parent == nil:
		return ErrStaleHead
	case k.parent.PageSize != h.PageSize:
		return ErrNotImage // pages of one size cannot replace those of another
	}
	return nil
}

// Close publishes the snapshot: once it has returned nil, the snapshot is the head and survives
// power loss. After an error it is not published; only if the error is vfs.ErrUncertain may it
// yet turn out to be, when the store is next opened.
func (k *Sink) Close() error {
	if k.closed {
		return k.err
	}
	k.closed = true
	start := time.Now()
	if k.err == nil {
		k.err = k.publish()
	}
	k.store.count.written.Add(k.stage.out.written)
	if k.err != nil {
		k.store.abandon(&k.stage, k.err)
		return k.err
	}
	k.store.count.published(k)
	k.store.log.Info("snapshot published", "snapshot", k.meta.ID, "index", k.meta.Index, "term", k.meta.Term,
		"install", !k.local, "delta", k.stage.check.header.Delta, "bytes", k.stage.check.header.streamSize(),
		"took", time.Since(start))
	return nil
}

// Cancel gives the snapshot up. After Close it does nothing.
func (k *Sink) Cancel() error {
	if !k.closed {
		k.closed = true
		k.store.count.written.Add(k.stage.out.written)
		k.stage.discard()
	}
	return nil
}

// publish makes the stream durable and then the head.
func (k *Sink) publish() error {
	if err := k.stage.finish(); err != nil {
		return err
	}
	return k.store.replace(func(cur *manifest) (*manifest, error) {
		if k.local {
			// Only the turn's owner changes the head, so this comparison and the swap that
			// follows are one step.
			if head := cur.head(); headID(head) != k.head {
				return nil, ErrStaleHead
			}
		}
		return k.extend(cur)
	})
}

// extend returns cur with the new snapshot as its head.
func (k *Sink) extend(cur *manifest) (*manifest, error) {
	l := k.stage.link()
	l.ID, l.Index, l.Term, l.Configuration = k.meta.ID, k.meta.Index, k.meta.Term, k.meta.Configuration
	if !k.stage.check.header.Delta {
		l.Snapshot = chainDigest(digest{}, false, l.Stream)
		return &manifest{Chain: []link{l}}, nil
	}
	parent := cur.head()
	if l.Pages > parent.Pages && k.stage.grown != l.Pages-parent.Pages {
		return nil, fmt.Errorf("%w: delta grows the database from %d to %d pages but has %d of them", ErrMalformed,
			parent.Pages, l.Pages, k.stage.grown)
	}
	if len(cur.Chain) > maxDeltas {
		return nil, ErrChainFull
	}
	l.Snapshot = chainDigest(parent.Snapshot, true, l.Stream)
	return &manifest{Chain: append(slices.Clip(cur.Chain), l)}, nil
}

// headID returns the id of l; empty if there is no l.
func headID(l *link) string {
	if l == nil {
		return ""
	}
	return l.ID
}

// abandon deletes a file that will not be published because of err, unless a manifest that names
// it may be on disk. Then it only closes it.
func (s *Store) abandon(g *stage, err error) {
	if errors.Is(err, ErrChainFull) {
		s.wake()
	}
	if errors.Is(err, vfs.ErrUncertain) {
		s.fail(errors.Join(err, g.out.close()))
		return
	}
	g.discard()
}
