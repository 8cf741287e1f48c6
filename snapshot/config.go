package snapshot

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"rqlited/internal/vfs"
)

// Config configures a Store. Open copies it, so settings cannot change under a running Store.
type Config struct {
	FS     vfs.FS       // nil means vfs.OS
	Logger *slog.Logger // nil discards

	// Damaged is called when a running store finds a published file damaged: at most once for each
	// file, never under a lock, and by the goroutine that has read the file, which may be the
	// store's own, so it must not wait for Close. Nil means that nobody wants to know.
	Damaged func(error)

	// Grace is how long a snapshot stays openable after it was superseded. Raft lists first and
	// opens later. Zero means 60 s.
	Grace time.Duration

	// CompactDeltas is the number of deltas that are merged into one at least. Zero means 32; a
	// negative value leaves all compaction to callers of Compact.
	CompactDeltas int

	// CompactBytes is the size of all deltas together below which no base is rewritten, however
	// small it is. Zero means 4 MiB.
	CompactBytes int64
}

const (
	// maxDeltas bounds the files and the memory of one reader.
	maxDeltas = 240

	// crowdedDeltas is the length of a chain from which on merging is urgent: the deltas that are
	// published while it is under way need room.
	crowdedDeltas = 208
)

// withDefaults returns a complete and valid copy of c, or every reason why there is none.
func (c Config) withDefaults() (Config, error) {
	var errs []error
	if c.Grace < 0 {
		errs = append(errs, fmt.Errorf("negative Grace: %s", c.Grace))
	}
	if c.CompactDeltas > crowdedDeltas {
		errs = append(errs, fmt.Errorf("CompactDeltas over %d: %d", crowdedDeltas, c.CompactDeltas))
	}
	if c.CompactBytes < 0 {
		errs = append(errs, fmt.Errorf("negative CompactBytes: %d", c.CompactBytes))
	}
	if c.FS == nil {
		c.FS = vfs.OS
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Grace = cmp.Or(c.Grace, 60*time.Second)
	c.CompactDeltas = cmp.Or(c.CompactDeltas, 32)
	c.CompactBytes = cmp.Or(c.CompactBytes, 4<<20)
	return c, errors.Join(errs...)
}
