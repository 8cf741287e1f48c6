package http

import (
	"cmp"
	"context"
	"io"
	"log/slog"
	"time"

	"rqlited/command"
	"rqlited/internal/certs"
	"rqlited/store"
)

// Database is the part of the replicated database that the API uses. Its methods forward to the
// leader unless the request forbids that, in which case they return store.ErrNotLeader.
type Database interface {
	Do(ctx context.Context, req *command.Request) (*command.Response, error)

	// Backup writes a backup to w. What it has written is of no use if it fails.
	Backup(ctx context.Context, req *command.BackupRequest, f command.Forward, w io.Writer) error

	// Load replaces the database by the SQLite file in r, of size bytes, or -1 if that is not known. Unless there
	// was a leader it has not read from r.
	Load(ctx context.Context, r io.Reader, size int64, f command.Forward) (servedBy string, err error)
}

// Node is the part of this node's store that the API uses.
type Node interface {
	Servers() ([]store.Server, error)
	Leader() (store.Server, bool)
	Ready() error  // nil, or the reason why not yet
	Failed() error // nil, or the reason why the node is about to end

	// Check returns the *store.RequestError that a request would be refused with before anything
	// of it runs, or nil. While the store is not open it returns store.ErrNotOpen.
	Check(req *command.Request) error

	// Watch notes, until end is called, whether the write of that seed is applied here. The answer is
	// final once a write that was made after all attempts at that one is applied here too. Applied
	// fails if it cannot tell.
	Watch(seed uint64) (applied func() (bool, error), end func())

	WaitApplied(ctx context.Context, index uint64) error
	Snapshot(ctx context.Context, trailing uint64) error // trailing: log entries to keep; 0 is the store's default
	Compact(ctx context.Context) (deltas int, err error) // how many have become part of the base
	Hash(ctx context.Context) (store.StateHash, error)   // of the state as it is now
	Boot(ctx context.Context, r io.Reader) error         // replaces the database by a SQLite file, on a cluster of one
}

// Peers asks other nodes. Every method honours its context. Remove and Stepdown act at the leader,
// unless that is another node and f.Never is set: then they return store.ErrNotLeader. They return
// the address of the node that acted.
type Peers interface {
	Meta(ctx context.Context, addr string, retries int) (PeerMeta, error) // addr is a Raft address, this node's included
	LeaderAPI(ctx context.Context) (string, error)                        // base URL of the leader's HTTP API
	Remove(ctx context.Context, id string, f command.Forward) (servedBy string, err error)
	Stepdown(ctx context.Context, id string, wait bool, f command.Forward) (servedBy string, err error)
}

// PeerMeta is what a node tells about itself.
type PeerMeta struct {
	URL         string // base URL of its HTTP API
	CommitIndex uint64
	Version     string
}

// Authorizer decides what a client may do.
type Authorizer interface {
	// Permit returns nil if the client may do what needs the permission, auth.ErrDenied if it may not, and
	// auth.ErrBusy if that can't be told just now. Username and password are empty for a client without
	// credentials.
	Permit(username, password, permission string) error
}

// Build says what the running program was made of, for /status.
type Build struct {
	Commit, Time, Compiler string
}

// TLS describes the TLS of the listener, for /status. It does not configure it: Serve is given a
// listener that speaks TLS already. Without a CertFile there is none.
type TLS struct {
	CertFile, KeyFile, CAFile string
	ClientAuth                string // as tls.ClientAuthType prints it
}

// Limits bound what clients may ask for and how long they may take.
type Limits struct {
	Body       int64         // bytes of a request body; zero means 64 MiB
	Bodies     int64         // bytes of the bodies of all requests, and of what is made of them; zero means 256 MiB
	Conns      int           // connections, and requests under way; zero means 4096
	Takers     int           // clients that take their answers slowly; zero means 128
	Statements int           // statements of a request; zero means 262144
	Stall      time.Duration // bounds reading a header, and each wait for a client to send or take more; zero means 30 s
	Idle       time.Duration // bounds the wait for the next request of a connection; zero means 2 min
}

// QueueConfig configures the queue of writes that are acknowledged before they are carried out.
type QueueConfig struct {
	Capacity  int           // requests accepted and not carried out; zero means 1024
	Bytes     int64         // of memory that these take; zero means 256 MiB
	BatchSize int           // requests sent together; zero means 128
	Timeout   time.Duration // how long a request waits for others; zero means 50 ms, a negative value until there are enough

	Transaction bool // what is sent together is all or nothing
}

func (c QueueConfig) withDefaults() QueueConfig {
	c.Capacity = cmp.Or(c.Capacity, 1024)
	c.Bytes = cmp.Or(c.Bytes, 256<<20)
	c.BatchSize = cmp.Or(c.BatchSize, 128)
	c.Timeout = cmp.Or(c.Timeout, 50*time.Millisecond)
	return c
}

// Monitoring is what other packages know and the Server tells. The maps must not change.
type Monitoring struct {
	// Status holds parts of /status by name. Each function is called for every request and returns
	// what encoding/json can encode. It may also return nil, if there is nothing yet, or an error. The
	// part replaces the Server's own of that name.
	Status map[string]func() any

	// Vars holds maps of counters for /debug/vars by name. What they count is told by /metrics too. The
	// names of varNames that are missing in them are 0.
	Vars map[string]func() map[string]int64

	// Metrics returns the numbers that are no counters, for /metrics, and whether the store is open.
	// It is called often, and must not wait for anything.
	Metrics func() (store.Metrics, bool)

	// Pools returns the connections to other nodes, by their addresses, for /status; nil if there
	// are none to tell of.
	Pools func() any

	// Certificates are what the ports with TLS show, by "http" and "node".
	Certificates map[string]*certs.Identity
}

// Config configures a Server. NewServer copies it.
type Config struct {
	Version     string // in the header X-Rqlite-Version
	Addr        string // advertised HTTP address, host:port
	BindAddr    string // address listened on
	RaftAddr    string // advertised Raft address
	AllowOrigin string // header Access-Control-Allow-Origin; empty omits it

	TLS   TLS
	Build Build

	Auth Authorizer // nil allows everything

	Monitoring

	Limits Limits
	Queue  QueueConfig

	Logger *slog.Logger // nil discards
}

func (c Config) withDefaults() Config {
	c.Limits.Body = cmp.Or(c.Limits.Body, 64<<20)
	c.Limits.Bodies = cmp.Or(c.Limits.Bodies, 256<<20)
	c.Limits.Conns = cmp.Or(c.Limits.Conns, 4096)
	c.Limits.Takers = cmp.Or(c.Limits.Takers, 128)
	c.Limits.Statements = cmp.Or(c.Limits.Statements, command.MaxStatements)
	c.Limits.Stall = cmp.Or(c.Limits.Stall, 30*time.Second)
	c.Limits.Idle = cmp.Or(c.Limits.Idle, 2*time.Minute)
	c.Queue = c.Queue.withDefaults()
	c.Build.Commit = cmp.Or(c.Build.Commit, "unknown")
	c.Build.Time = cmp.Or(c.Build.Time, "unknown")
	c.Build.Compiler = cmp.Or(c.Build.Compiler, "unknown")
	if c.Metrics == nil {
		c.Metrics = func() (store.Metrics, bool) { return store.Metrics{}, false }
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}
