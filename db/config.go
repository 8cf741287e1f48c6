package db

import (
	"cmp"
	"fmt"
	"log/slog"
	"time"

	"rqlited/internal/vfs"
)

const maxReaders = 1 << 16

// Config configures a DB. Open copies it.
type Config struct {
	// ForeignKeys enforces foreign keys. All nodes of a cluster must agree on it.
	ForeignKeys bool

	// MaxReaders bounds the connections that run queries at one time. Zero means 256, and 65536 or more
	// as good as no bound: there are not the descriptors for that many.
	MaxReaders int

	// Head is the snapshot that the caller will start from. Existing files are kept only if they
	// are proven to equal it; if Head is empty they never are.
	Head string

	// ReadersGrace is how long a capture, and with it every write, waits for queries that keep
	// it from being complete. Zero means 500 ms. After repeated failures it may be eleven times as
	// long, see Capture.
	ReadersGrace time.Duration

	// Damaged is called once, and without a lock, when a page of the main file turns out to be
	// damaged. Nothing can be applied any more; the next start will restore a snapshot.
	Damaged func(error)

	bounds bounds // other than the standard ones only in tests: all nodes must agree on them

	FS     vfs.FS       // for the marker and the main file; nil means vfs.OS
	Logger *slog.Logger // nil discards
}

func (c Config) withDefaults() (Config, error) {
	if c.MaxReaders < 0 {
		return c, fmt.Errorf("MaxReaders is %d: must not be negative", c.MaxReaders)
	}
	if c.ReadersGrace < 0 {
		return c, fmt.Errorf("ReadersGrace is %s: must not be negative", c.ReadersGrace)
	}
	c.bounds = c.bounds.withDefaults()
	c.ReadersGrace = cmp.Or(c.ReadersGrace, 500*time.Millisecond)
	c.MaxReaders = min(cmp.Or(c.MaxReaders, 256), maxReaders) // a pool that closes goes through all of them
	if c.Damaged == nil {
		c.Damaged = func(error) {}
	}
	if c.FS == nil {
		c.FS = vfs.OS
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, nil
}
