package main

import (
	"flag"
	"io"
	"log/slog"
	"net"
	"strings"
	"time"

	"rqlited/cluster"
	httpd "rqlited/http"
	"rqlited/store"
)

// settings is what the command line, the environment and the configuration file ask for. What other
// packages configure is in their own types; what is known only once the ports are open is filled in
// then.
type settings struct {
	dir         string // data directory
	configFile  string
	showVersion bool
	notes       []note // for the log

	http httpSettings
	raft raftSettings
	auth string // credentials file; empty: everyone may do everything

	membership
	store       store.Config
	snapWALSize uint64 // bytes; 0 is off

	profiles profilePaths
	log      logSettings
	former   formerSettings
}

// membership is how the node becomes a member of a cluster, and what it does about it when it stops.
type membership struct {
	form           cluster.FormConfig
	joinAs         string
	readOnly       bool // join without a vote
	connectTimeout time.Duration

	stepdown bool // hand over leadership when stopping
	leave    bool // leave the cluster when stopping
}

// formerSettings are those of flags without effect, which only older releases of rqlite have.
type formerSettings struct {
	onDiskPath   string
	httpNoVerify bool
}

// addresses are where a port is opened, and where others find it.
type addresses struct {
	bind      string
	advertise string // empty means bind
}

func (a addresses) public() string {
	if a.advertise != "" {
		return a.advertise
	}
	return a.bind
}

// flag returns which of two flags the public address is from.
func (a addresses) flag(bind, advertise string) string {
	if a.advertise != "" {
		return advertise
	}
	return bind
}

// anyPort reports whether the kernel chooses the port, so that it is not known yet.
func (a addresses) anyPort() bool {
	_, port, err := net.SplitHostPort(a.bind)
	return err == nil && port == "0" && a.advertise == ""
}

// raftSettings is what concerns the port between nodes.
type raftSettings struct {
	addresses
	tls tlsSettings
}

type httpSettings struct {
	addresses
	allowOrigin string
	tls         tlsSettings
	queue       httpd.QueueConfig
}

// newFlagSet makes all flags known to a new set; parsing it fills s.
func (s *settings) newFlagSet(w io.Writer) *flag.FlagSet {
	fs := flag.NewFlagSet("rqlited", flag.ContinueOnError)
	fs.SetOutput(w)
	fs.Usage = func() {}
	for _, g := range groups {
		g.flags(s, fs)
	}
	return fs
}

// group is a part of the flags, as -h and docs/flags.md show them.
type group struct {
	title string
	flags func(*settings, *flag.FlagSet)
}

// groups are all flags.
var groups = []group{
	{"General", (*settings).generalFlags},
	{"HTTP and addresses", (*settings).addressFlags},
	{"Clustering", (*settings).clusterFlags},
	{"Raft and snapshots", (*settings).raftFlags},
	{"Write queue", (*settings).queueFlags},
	{"Backup, change data capture, metrics", (*settings).featureFlags},
	{"TLS", (*settings).tlsFlags},
	{"Older flags of rqlite, accepted with a warning", (*settings).formerFlags},
}

// formerNames are flags that have another name today.
var formerNames = map[string]string{"raft-timeout": "raft-heartbeat-timeout"}

func (s *settings) generalFlags(fs *flag.FlagSet) {
	fs.BoolVar(&s.showVersion, "version", false, "print the version and exit")
	fs.StringVar(&s.configFile, "config", "", "`file` with settings, lines as raft-snap = 1000; flags and environment win")
	fs.StringVar(&s.dir, "data-dir", "", "data `directory`, if it is not the last argument")
	fs.StringVar(&s.store.NodeID, "node-id", "", "unique and lasting `name` of this node (default: the advertised Raft address)")
	fs.BoolVar(&s.store.ForeignKeys, "fk", false, "enforce foreign keys; a property of the cluster, which nodes that differ can't join")
	fs.IntVar(&s.store.MaxReaders, "db-max-ro-conns", 256, "most connections for reading; 0 is no limit")
	fs.DurationVar(&s.store.Upkeep.Vacuum, "auto-vacuum-int", 0, "least time between automatic VACUUMs, which the leader has all nodes do (default: never)")
	fs.DurationVar(&s.store.Upkeep.Optimize, "auto-optimize-int", 24*time.Hour, "least time between automatic ANALYZEs of what PRAGMA optimize finds worth while; 0 is never")
	fs.Var((*list)(&s.store.Extensions), "extensions-path", "comma-separated `paths` of SQLite extensions: shared objects, directories, zip or tar.gz files; all nodes must have the same")

	fs.StringVar(&s.profiles.cpu, "cpu-profile", "", "write a CPU profile to `file`")
	fs.StringVar(&s.profiles.mem, "mem-profile", "", "write a memory profile to `file` when stopping")
	fs.StringVar(&s.profiles.trace, "trace-profile", "", "write an execution trace to `file`")

	fs.TextVar(&s.log.level, "log-level", slog.LevelInfo, "least `level` that is logged: DEBUG, INFO, WARN or ERROR")
	fs.TextVar(&s.log.format, "log-format", logText, "`format` of the log: text or json")
}

func (s *settings) addressFlags(fs *flag.FlagSet) {
	fs.StringVar(&s.http.bind, "http-addr", "localhost:4001", "`address` of the HTTP API")
	fs.StringVar(&s.http.advertise, "http-adv-addr", "", "`address` of the HTTP API that others are told (default: -http-addr)")
	fs.StringVar(&s.http.allowOrigin, "http-allow-origin", "", "`value` of the header Access-Control-Allow-Origin")
	fs.StringVar(&s.auth, "auth", "", "credentials `file`: who may do what; read again when it changes (default: everyone may do everything)")

	fs.StringVar(&s.raft.bind, "raft-addr", "localhost:4002", "`address` for other nodes")
	fs.StringVar(&s.raft.advertise, "raft-adv-addr", "", "`address` that other nodes are told (default: -raft-addr)")
	fs.DurationVar(&s.connectTimeout, "cluster-connect-timeout", 30*time.Second, "bound on connecting to another node")
}

func (s *settings) clusterFlags(fs *flag.FlagSet) {
	fs.Var((*list)(&s.form.Join), "join", "comma-separated Raft `addresses` of nodes to join")
	fs.IntVar(&s.form.JoinAttempts, "join-attempts", 5, "passes over the addresses to join")
	fs.DurationVar(&s.form.JoinInterval, "join-interval", 3*time.Second, "pause between these passes")
	fs.StringVar(&s.joinAs, "join-as", "", "`user` of this node's credentials file to join and leave as; its password must be there in plain text (default: anonymously)")
	fs.IntVar(&s.form.BootstrapExpect, "bootstrap-expect", 0, "`number` of nodes, this one included, that form a new cluster together (default: this one alone)")
	fs.DurationVar(&s.form.BootstrapTimeout, "bootstrap-expect-timeout", 120*time.Second, "bound on forming it")
	fs.BoolVar(&s.readOnly, "raft-non-voter", false, "join as a read-only node, which has no vote")
	laterFlags(fs, "disco-mode", "disco-key", "disco-config")

	fs.DurationVar(&s.store.HashCheckInterval, "hash-check-interval", 0, "time between comparisons of all nodes' data by their hashes, which the leader makes (default: never)")
}

func (s *settings) raftFlags(fs *flag.FlagSet) {
	r := &s.store.Raft
	fs.StringVar(&r.LogLevel, "raft-log-level", "WARN", "least `level` of Raft's messages: TRACE, DEBUG, INFO, WARN, ERROR or OFF; not below -log-level")
	fs.DurationVar(&r.HeartbeatTimeout, "raft-heartbeat-timeout", time.Second, "time without a leader after which a follower stands for election")
	fs.DurationVar(&r.ElectionTimeout, "raft-election-timeout", time.Second, "time after which an election is repeated")
	fs.DurationVar(&r.LeaderLeaseTimeout, "raft-leader-lease-timeout", 0, "time without a quorum after which a leader gives up (default 500ms)")
	fs.DurationVar(&r.CommitTimeout, "raft-commit-timeout", 50*time.Millisecond, "time after which followers are told of commits if nothing else is sent")
	fs.DurationVar(&r.ApplyTimeout, "raft-apply-timeout", 10*time.Second, "bound on the wait for a place in the log")

	fs.Uint64Var(&s.store.Snapshot.Threshold, "raft-snap", 8192, "`number` of log entries after which a snapshot is taken")
	fs.Uint64Var(&s.snapWALSize, "raft-snap-wal-size", 4<<20, "size of the SQLite WAL in `bytes` at which a snapshot is taken; 0 is never")
	fs.DurationVar(&s.store.Snapshot.Interval, "raft-snap-int", 10*time.Second, "time between checks whether a snapshot is due")
	fs.BoolVar(&r.CompressSnaps, "compress-snap-transport", false, "compress snapshots that are sent to other nodes")

	fs.BoolVar(&r.ShutdownOnRemove, "raft-remove-shutdown", false, "stop when removed from the cluster")
	fs.BoolVar(&s.leave, "raft-cluster-remove-shutdown", false, "leave the cluster when stopping")
	fs.BoolVar(&s.stepdown, "raft-shutdown-stepdown", true, "hand over leadership when stopping")
	fs.DurationVar(&s.store.Reap.Voter, "raft-reap-node-timeout", 0, "remove a voter that was lost this long ago (default: never)")
	fs.DurationVar(&s.store.Reap.ReadOnly, "raft-reap-read-only-node-timeout", 0, "the same for read-only nodes (default: never)")
}

func (s *settings) queueFlags(fs *flag.FlagSet) {
	q := &s.http.queue
	fs.IntVar(&q.Capacity, "write-queue-capacity", 1024, "`number` of requests that the write queue holds")
	fs.IntVar(&q.BatchSize, "write-queue-batch-size", 128, "`number` of requests that the write queue sends together")
	fs.DurationVar(&q.Timeout, "write-queue-timeout", 50*time.Millisecond, "time that a request waits for others in the write queue; 0 is until there are enough for a batch")
	fs.BoolVar(&q.Transaction, "write-queue-tx", false, "send what the write queue collected as one transaction")
}

func (s *settings) featureFlags(fs *flag.FlagSet) {
	laterFlags(fs, "auto-backup", "auto-restore", "cdc-config",
		"otlp-endpoint", "otlp-interval", "otlp-insecure", "otlp-no-verify", "otlp-ca-cert", "otlp-cert", "otlp-key")
}

func (s *settings) formerFlags(fs *flag.FlagSet) {
	fs.DurationVar(&s.store.Raft.HeartbeatTimeout, "raft-timeout", time.Second, "older name of -raft-heartbeat-timeout")
	fs.StringVar(&s.former.onDiskPath, "on-disk-path", "", "`file` of the database; without effect, it is in the data directory")
	fs.BoolVar(&s.former.httpNoVerify, "http-no-verify", false, "without effect: nodes do not call each other over HTTP")
}

// list is a flag of words with commas between them, which are not trimmed.
type list []string

func (l *list) String() string { return strings.Join(*l, ",") }

func (l *list) Set(v string) error {
	*l = nil
	if v != "" {
		*l = strings.Split(v, ",")
	}
	return nil
}
