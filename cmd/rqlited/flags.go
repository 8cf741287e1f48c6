package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"time"

	"rqlited/cluster"
	httpd "rqlited/http"
	"rqlited/store"
)

// settings is a parsed command line. What other packages configure is in their own types; what is
// known only once the ports are open is filled in then.
type settings struct {
	dir         string // data directory
	showVersion bool

	http httpSettings
	raft raftSettings
	auth string // credentials file; empty: everyone may do everything

	store          store.Config
	form           cluster.FormConfig
	joinAs         string
	readOnly       bool   // join without a vote
	snapWALSize    uint64 // bytes; 0 is off
	connectTimeout time.Duration

	stepdown bool // hand over leadership when stopping
	leave    bool // leave the cluster when stopping

	profiles profilePaths
	log      logSettings
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

// usageError is a command line that cannot be understood; flag has said why already.
type usageError struct{ error }

// faultsError is every reason why the settings cannot be used.
type faultsError []string

func (e faultsError) Error() string {
	lines := make([]string, len(e))
	for i, fault := range e {
		lines[i] = "fatal: " + fault
	}
	return strings.Join(lines, "\n")
}

// parse reads the command line. It writes usage, and what is wrong with a single flag, to w.
// Errors are flag.ErrHelp, a usageError, a faultsError, or the one line to print.
func parse(args []string, w io.Writer) (settings, error) {
	if len(args) == 0 {
		return settings{}, errors.New("rqlited: failed to parse command-line flags: missing required argument: DataPath")
	}
	var s settings
	fs := flag.NewFlagSet("rqlited", flag.ContinueOnError)
	fs.SetOutput(w)
	fs.Usage = func() {
		fmt.Fprint(w, "Usage: rqlited [flags] <data directory>\n\nFlags:\n")
		fs.PrintDefaults()
	}
	s.register(fs)
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return settings{}, err
		}
		return settings{}, usageError{err}
	}
	if s.showVersion {
		return s, nil
	}
	if fs.NArg() > 1 {
		return settings{}, fmt.Errorf("arguments after data directory (%s) are not accepted (%v)", fs.Arg(0), fs.Args()[1:])
	}
	s.dir = fs.Arg(0)
	if faults := s.faults(fs); len(faults) > 0 {
		return settings{}, faultsError(faults)
	}
	s.settle()
	return s, nil
}

// register makes all flags known to fs; parsing it fills s.
func (s *settings) register(fs *flag.FlagSet) {
	s.generalFlags(fs)
	s.clusterFlags(fs)
	s.raftFlags(fs)
	s.tlsFlags(fs)
	laterFlags(fs)
}

func (s *settings) generalFlags(fs *flag.FlagSet) {
	fs.BoolVar(&s.showVersion, "version", false, "print the version and exit")
	fs.StringVar(&s.store.NodeID, "node-id", "", "unique and lasting `name` of this node (default: the advertised Raft address)")
	fs.BoolVar(&s.store.ForeignKeys, "fk", false, "enforce foreign keys; a property of the cluster, which nodes that differ can't join")
	fs.IntVar(&s.store.MaxReaders, "db-max-ro-conns", 256, "most connections for reading; 0 is no limit")

	fs.StringVar(&s.http.bind, "http-addr", "localhost:4001", "`address` of the HTTP API")
	fs.StringVar(&s.http.advertise, "http-adv-addr", "", "`address` of the HTTP API that others are told (default: -http-addr)")
	fs.StringVar(&s.http.allowOrigin, "http-allow-origin", "", "`value` of the header Access-Control-Allow-Origin")

	fs.StringVar(&s.auth, "auth", "", "credentials `file`: who may do what; read again when it changes (default: everyone may do everything)")

	q := &s.http.queue
	fs.IntVar(&q.Capacity, "write-queue-capacity", 1024, "`number` of requests that the write queue holds")
	fs.IntVar(&q.BatchSize, "write-queue-batch-size", 128, "`number` of requests that the write queue sends together")
	fs.DurationVar(&q.Timeout, "write-queue-timeout", 50*time.Millisecond, "time that a request waits for others in the write queue; 0 is until there are enough for a batch")
	fs.BoolVar(&q.Transaction, "write-queue-tx", false, "send what the write queue collected as one transaction")

	fs.StringVar(&s.profiles.cpu, "cpu-profile", "", "write a CPU profile to `file`")
	fs.StringVar(&s.profiles.mem, "mem-profile", "", "write a memory profile to `file` when stopping")
	fs.StringVar(&s.profiles.trace, "trace-profile", "", "write an execution trace to `file`")

	fs.TextVar(&s.log.level, "log-level", slog.LevelInfo, "least `level` that is logged: DEBUG, INFO, WARN or ERROR")
	s.log.format = "text"
	fs.Func("log-format", "`text` or json (default text)", func(v string) error {
		if v != "text" && v != "json" {
			return errors.New("want text or json")
		}
		s.log.format = v
		return nil
	})
}

func (s *settings) clusterFlags(fs *flag.FlagSet) {
	fs.StringVar(&s.raft.bind, "raft-addr", "localhost:4002", "`address` for other nodes")
	fs.StringVar(&s.raft.advertise, "raft-adv-addr", "", "`address` that other nodes are told (default: -raft-addr)")
	fs.DurationVar(&s.connectTimeout, "cluster-connect-timeout", 30*time.Second, "bound on connecting to another node")

	fs.Func("join", "comma-separated Raft `addresses` of nodes to join", func(v string) error {
		s.form.Join = nil
		if v != "" {
			s.form.Join = strings.Split(v, ",")
		}
		return nil
	})
	fs.IntVar(&s.form.JoinAttempts, "join-attempts", 5, "passes over the addresses to join")
	fs.DurationVar(&s.form.JoinInterval, "join-interval", 3*time.Second, "pause between these passes")
	fs.StringVar(&s.joinAs, "join-as", "", "`user` of this node's credentials file to join and leave as; its password must be there in plain text (default: anonymously)")
	fs.IntVar(&s.form.BootstrapExpect, "bootstrap-expect", 0, "`number` of nodes that form a new cluster")
	fs.DurationVar(&s.form.BootstrapTimeout, "bootstrap-expect-timeout", 120*time.Second, "bound on forming it")
	fs.BoolVar(&s.readOnly, "raft-non-voter", false, "join as a read-only node, which has no vote")

	fs.DurationVar(&s.store.HashCheckInterval, "hash-check-interval", 0, "time between comparisons of all nodes' data by their hashes, which the leader makes; 0 is never")

	fs.BoolVar(&s.leave, "raft-cluster-remove-shutdown", false, "leave the cluster when stopping")
	fs.BoolVar(&s.stepdown, "raft-shutdown-stepdown", true, "hand over leadership when stopping")
	fs.BoolVar(&s.store.Raft.ShutdownOnRemove, "raft-remove-shutdown", false, "stop when removed from the cluster")
	fs.DurationVar(&s.store.Reap.Voter, "raft-reap-node-timeout", 0, "remove a voter that was lost this long ago (default: never)")
	fs.DurationVar(&s.store.Reap.ReadOnly, "raft-reap-read-only-node-timeout", 0, "the same for read-only nodes (default: never)")
}

func (s *settings) raftFlags(fs *flag.FlagSet) {
	r := &s.store.Raft
	fs.StringVar(&r.LogLevel, "raft-log-level", "WARN", "least `level` of Raft's messages: TRACE, DEBUG, INFO, WARN, ERROR or OFF; not below -log-level")
	fs.DurationVar(&r.HeartbeatTimeout, "raft-heartbeat-timeout", time.Second, "time without a leader after which a follower stands for election")
	fs.DurationVar(&r.HeartbeatTimeout, "raft-timeout", time.Second, "older name of -raft-heartbeat-timeout")
	fs.DurationVar(&r.ElectionTimeout, "raft-election-timeout", time.Second, "time after which an election is repeated")
	fs.DurationVar(&r.LeaderLeaseTimeout, "raft-leader-lease-timeout", 0, "time without a quorum after which a leader gives up (default 500ms)")
	fs.DurationVar(&r.CommitTimeout, "raft-commit-timeout", 50*time.Millisecond, "time after which followers are told of commits if nothing else is sent")
	fs.DurationVar(&r.ApplyTimeout, "raft-apply-timeout", 10*time.Second, "bound on the wait for a place in the log")

	fs.Uint64Var(&s.store.Snapshot.Threshold, "raft-snap", 8192, "`number` of log entries after which a snapshot is taken")
	fs.Uint64Var(&s.snapWALSize, "raft-snap-wal-size", 4<<20, "size of the SQLite WAL in `bytes` at which a snapshot is taken; 0 is never")
	fs.DurationVar(&s.store.Snapshot.Interval, "raft-snap-int", 10*time.Second, "time between checks whether a snapshot is due")
}
