package db

import (
	"cmp"
	"errors"
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

	// MaxWaiting bounds the reads that wait for one of these, and MaxWait the time for which each does. Zero
	// means 1024, and 10 s.
	MaxWaiting int
	MaxWait    time.Duration

	// ReadMemory bounds, in bytes, what SQLite has allocated for all reads, the first MiB of each not
	// counted. Zero means 512 MiB.
	ReadMemory int64

	// Extensions are the paths of SQLite extensions, which are loaded into each connection in this order. The files
	// must not change while the DB is open. All nodes of a cluster should have the same.
	Extensions []string

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
	if c.MaxWaiting < 0 || c.MaxWait < 0 || c.ReadMemory < 0 {
		return c, errors.New("a bound of reads is negative")
	}
	if c.ReadersGrace < 0 {
		return c, fmt.Errorf("ReadersGrace is %s: must not be negative", c.ReadersGrace)
	}
	c.bounds = c.bounds.withDefaults()
	c.ReadersGrace = cmp.Or(c.ReadersGrace, 500*time.Millisecond)
	c.MaxReaders = min(cmp.Or(c.MaxReaders, 256), maxReaders) // a pool that closes goes through all of them
	c.MaxWaiting = cmp.Or(c.MaxWaiting, 1024)
	c.MaxWait = cmp.Or(c.MaxWait, 10*time.Second)
	c.ReadMemory = cmp.Or(c.ReadMemory, 512<<20)
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
