package store

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/hashicorp/raft"

	"rqlited/internal/vfs"
)

// minHashCheck bounds how often the nodes hash their state for each other.
const minHashCheck = time.Second

// Config configures a Store. Open copies it, so settings cannot change under a running Store.
type Config struct {
	Dir    string // data directory; created if missing
	NodeID string // unique in the cluster, for all time
	Addr   string // Raft address that is told to the other nodes

	// Layer carries Raft's connections. The Store closes it.
	Layer raft.StreamLayer

	// BootstrapExpect is the number of nodes that have to be notified before the cluster is
	// formed. Zero means that notifications are ignored.
	BootstrapExpect int

	AgreedConfig
	ReadConfig

	// HashCheckInterval is how often the leader has all nodes hash their state at the same place
	// in the log, and compares. Zero is never.
	HashCheckInterval time.Duration
	Peers             HashPeers // reaches the nodes for that; may be nil if HashCheckInterval is zero

	Raft     RaftConfig
	Snapshot SnapshotConfig
	Reap     ReapConfig
	Upkeep   UpkeepConfig

	Logger *slog.Logger // nil discards

	testHooks
}

// testHooks is what tests put between the Store and its disk.
type testHooks struct {
	fs      vfs.FS                  // all files but raft.db and what SQLite writes; nil means vfs.OS
	logStep func(name string) error // called before each change of raft.db
}

// AgreedConfig says what has to be the same on all nodes.
type AgreedConfig struct {
	ForeignKeys bool // enforce foreign keys

	// Extensions are paths of SQLite extensions: shared objects, and directories and archives of such. They are copied into
	// the data directory at each start.
	Extensions []string
}

// ReadConfig says what reads may use.
type ReadConfig struct {
	MaxReaders int   // connections for reading; zero means 256
	ReadMemory int64 // bytes that SQLite has allocated for all reads; zero means 512 MiB
}

// RaftConfig holds the settings of Raft itself.
type RaftConfig struct {
	HeartbeatTimeout   time.Duration // zero means 1 s
	ElectionTimeout    time.Duration // zero means 1 s
	LeaderLeaseTimeout time.Duration // zero means 500 ms, or the heartbeat timeout if that is less
	CommitTimeout      time.Duration // zero means 50 ms

	// ApplyTimeout bounds the wait for a place in the Raft queue, not for the commit. What comes before the
	// log has been stuck for a tenth of it may be in the queue, which has 64 places.
	// Zero means 10 s.
	ApplyTimeout time.Duration

	LogLevel         string // of Raft's own messages: DEBUG, INFO, WARN, ERROR or OFF; empty means WARN
	ShutdownOnRemove bool   // stop when this node, being the leader, is removed from the cluster
	CompressSnaps    bool   // compress snapshots that are sent; the Layer has to be a CompressedDialer
	PreVoteDisabled  bool   // for clusters with members that do not know the pre-vote
}

// CompressedDialer is a stream layer that can also open connections on which what is sent to the peer is
// compressed on its way.
type CompressedDialer interface {
	DialCompressed(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error)
}

// SnapshotConfig says when snapshots are taken and how much log is kept.
type SnapshotConfig struct {
	Threshold uint64        // log entries that trigger a snapshot; zero means 8192
	Interval  time.Duration // between looks at the triggers; zero means 10 s

	// WALSize is the size in bytes of the SQLite WAL that triggers a snapshot.
	// Zero means 4 MiB; a negative value turns the trigger off.
	WALSize int64
}

// trailing returns the number of log entries that are kept behind a snapshot, for followers that
// are a little behind.
func (c SnapshotConfig) trailing() uint64 { return c.Threshold + c.Threshold/4 }

// ReapConfig says when the leader removes nodes that it has lost contact with. Zero is never.
type ReapConfig struct {
	Voter    time.Duration
	ReadOnly time.Duration // nodes without a vote
}

// UpkeepConfig says how much time there is at least between two times that the database is tidied up on all nodes. The
// leader's counts. Zero is never.
type UpkeepConfig struct {
	Vacuum   time.Duration // VACUUM
	Optimize time.Duration // ANALYZE, where PRAGMA optimize finds it worth while
}

// withDefaults returns a complete and valid copy of c, or every reason why there is none.
func (c Config) withDefaults() (Config, error) {
	var errs []error
	if c.Dir == "" {
		errs = append(errs, errors.New("data directory is not given"))
	}
	if c.NodeID == "" {
		errs = append(errs, errors.New("NodeID is empty"))
	}
	if _, _, err := net.SplitHostPort(c.Addr); err != nil {
		errs = append(errs, fmt.Errorf("address %q: %w", c.Addr, err))
	}
	if c.Layer == nil {
		errs = append(errs, errors.New("there is no stream layer"))
	}
	if _, ok := c.Layer.(CompressedDialer); c.Raft.CompressSnaps && !ok {
		errs = append(errs, errors.New("the stream layer cannot compress snapshots"))
	}
	if c.BootstrapExpect < 0 {
		errs = append(errs, fmt.Errorf("expected number of nodes is %d: must not be negative", c.BootstrapExpect))
	}
	if c.Reap.Voter < 0 || c.Reap.ReadOnly < 0 {
		errs = append(errs, errors.New("a time of Reap is negative"))
	}
	if c.Upkeep.Vacuum < 0 || c.Upkeep.Optimize < 0 {
		errs = append(errs, errors.New("a time of Upkeep is negative"))
	}
	if c.HashCheckInterval != 0 && c.HashCheckInterval < minHashCheck {
		errs = append(errs, fmt.Errorf("interval of hash checks is %s: must be 0 or at least %s", c.HashCheckInterval, minHashCheck))
	}
	if c.HashCheckInterval > 0 && c.Peers == nil {
		errs = append(errs, errors.New("hash checks need something that reaches the other nodes"))
	}
	c.MaxReaders = cmp.Or(c.MaxReaders, 256)
	if c.MaxReaders < 0 {
		errs = append(errs, fmt.Errorf("number of readers is %d: must not be negative", c.MaxReaders))
	}
	var err error
	if c.Raft, err = c.Raft.withDefaults(); err != nil {
		errs = append(errs, err)
	}
	c.Snapshot.Threshold = cmp.Or(c.Snapshot.Threshold, 8192)
	c.Snapshot.Interval = cmp.Or(c.Snapshot.Interval, 10*time.Second)
	c.Snapshot.WALSize = cmp.Or(c.Snapshot.WALSize, 4<<20)
	if c.Snapshot.Interval < 5*time.Millisecond {
		errs = append(errs, fmt.Errorf("snapshot interval is %s: must be at least 5ms", c.Snapshot.Interval))
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.fs == nil {
		c.fs = vfs.OS
	}
	if c.logStep == nil {
		c.logStep = func(string) error { return nil }
	}
	return c, errors.Join(errs...)
}

func (c RaftConfig) withDefaults() (RaftConfig, error) {
	c.HeartbeatTimeout = cmp.Or(c.HeartbeatTimeout, time.Second)
	c.ElectionTimeout = cmp.Or(c.ElectionTimeout, time.Second)
	c.LeaderLeaseTimeout = cmp.Or(c.LeaderLeaseTimeout, min(500*time.Millisecond, c.HeartbeatTimeout))
	c.CommitTimeout = cmp.Or(c.CommitTimeout, 50*time.Millisecond)
	c.ApplyTimeout = cmp.Or(c.ApplyTimeout, 10*time.Second)
	c.LogLevel = cmp.Or(c.LogLevel, "WARN")
	var errs []error
	if c.ApplyTimeout < 0 {
		errs = append(errs, fmt.Errorf("apply timeout is %s: must not be negative", c.ApplyTimeout))
	}
	if _, err := parseRaftLevel(c.LogLevel); err != nil {
		errs = append(errs, err)
	}
	// Raft checks the relations between its timeouts itself.
	return c, errors.Join(errs...)
}
