package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"rqlited/command"
	"rqlited/store"
)

const (
	bootstrapPause   = time.Second      // between rounds, at least; at most twice that
	firstPause       = time.Millisecond // before the first round, likewise
	probeTimeout     = 2 * time.Second  // of asking whether an address speaks HTTP
	leaveTimeout     = 10 * time.Second // of leaving the cluster
	leaveAttempts    = 5                //
	leavePause       = 250 * time.Millisecond
	leaderPoll       = 100 * time.Millisecond
	waitForSuccessor = 5 * time.Second // of a leader that leaves
)

// FormConfig says how a node becomes a member of a cluster. Form copies it.
type FormConfig struct {
	ID, Addr string // of this node; Addr is the advertised Raft address
	Voter    bool

	// ForeignKeys is whether this node enforces them. A cluster with the other setting refuses it.
	ForeignKeys command.Setting

	// Extensions describes its SQLite extensions, in the words of store.Server. A cluster with others refuses it.
	Extensions string

	Join         []string      // Raft addresses of members
	JoinAttempts int           // passes over Join; zero means 5
	JoinInterval time.Duration // between passes; zero means 3 s
	JoinAs       Credentials

	BootstrapExpect  int           // nodes that form a new cluster; zero means that it exists
	BootstrapTimeout time.Duration // zero means 120 s

	Client FormClient   // a *Client
	Logger *slog.Logger // nil discards

	probe func(ctx context.Context, addr string) bool // whether addr speaks HTTP; nil asks it
}

// FormClient is the part of Client that forming and leaving a cluster needs.
type FormClient interface {
	Join(ctx context.Context, addr string, self store.Server, user Credentials) (string, error)
	Notify(ctx context.Context, addr string, self store.Server, user Credentials) error
	Remove(ctx context.Context, addr, id string, user Credentials, timeout time.Duration) error
}

// FormNode is the part of the store that Form needs.
type FormNode interface {
	Servers() ([]store.Server, error)
	Leader() (store.Server, bool)
	Bootstrap(ctx context.Context, servers []store.Server) error
}

func (c FormConfig) withDefaults() (FormConfig, error) {
	var errs []error
	if c.ID == "" || c.Addr == "" {
		errs = append(errs, fmt.Errorf("ID is %q and Addr is %q: must not be empty", c.ID, c.Addr))
	}
	if c.Client == nil && len(c.Join) > 0 {
		errs = append(errs, errors.New("Client is nil"))
	}
	c.JoinAttempts = cmp.Or(c.JoinAttempts, 5)
	c.JoinInterval = cmp.Or(c.JoinInterval, 3*time.Second)
	c.BootstrapTimeout = cmp.Or(c.BootstrapTimeout, 120*time.Second)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.probe == nil {
		c.probe = speaksHTTP
	}
	return c, errors.Join(errs...)
}

// The texts are rqlite's, which scripts look for.
var (
	errAlone       = errors.New("node is the only node in a single-node cluster, joining other clusters not supported")
	errReadOnly    = errors.New("cannot create a new non-voting node without joining it to an existing cluster")
	errJoin        = errors.New("failed to join cluster")
	errJoinStopped = errors.New("join operation canceled")
	errBootTimeout = errors.New("boot timeout")
	errBootStopped = errors.New("boot canceled")
)

// former is a node that is becoming a member.
type former struct {
	cfg  FormConfig
	log  *slog.Logger
	node FormNode
	self store.Server

	// disagree has the words of those that enforce foreign keys otherwise, or have other extensions, by address, until
	// they agree: one that has stopped for that reason is the one that is missing.
	disagree map[string]error
}

// Form makes the node a member of a cluster: by creating one, by joining one, or by waiting until
// enough nodes are there to create one. It returns once the node is or will be one without further
// help; a leader need not be known yet. A node that is a member already is one whatever happens. Any other
// fails at once, with the words of the node that refused it, if its setting of foreign keys, or its extensions, are not those
// of the cluster. As long as there is none nobody knows which those are: then a node fails that a
// majority of those expected has refused, and the others go on.
func Form(ctx context.Context, cfg FormConfig, n FormNode) error {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return err
	}
	self := store.Server{ID: cfg.ID, Addr: cfg.Addr, Voter: cfg.Voter, ForeignKeys: cfg.ForeignKeys, Extensions: cfg.Extensions}
	f := &former{cfg: cfg, log: cfg.Logger, node: n, self: self, disagree: make(map[string]error)}
	members, err := n.Servers()
	if err != nil {
		return err
	}
	if len(cfg.Join) == 0 {
		return f.alone(ctx, members)
	}
	if cfg.BootstrapExpect == 0 && len(members) == 1 && members[0].ID == cfg.ID {
		return errAlone
	}
	if err := f.probeAll(ctx); err != nil {
		return err
	}
	if cfg.BootstrapExpect > 0 {
		return f.bootstrap(ctx, members)
	}
	return f.join(ctx, members)
}

// alone starts with what is stored, or as a new cluster of one.
func (f *former) alone(ctx context.Context, members []store.Server) error {
	if len(members) > 0 {
		f.recognize(members)
		return nil
	}
	if !f.self.Voter {
		return errReadOnly
	}
	f.log.Info("new cluster", "id", f.self.ID, "addr", f.self.Addr)
	return f.node.Bootstrap(ctx, []store.Server{f.self})
}

// recognize says so if the stored members do not know the node as it is now. It starts all the same:
// it may be known again by what the others do. Otherwise nothing else would say why there is no leader.
func (f *former) recognize(members []store.Server) {
	i := slices.IndexFunc(members, func(s store.Server) bool { return s.ID == f.self.ID })
	switch {
	case i < 0:
		f.log.Warn("this node is not a member of the cluster stored in its data directory",
			"id", f.self.ID, "members", members, "hint", "was it removed, or is -node-id another one than before?")
	case members[i].Addr != f.self.Addr:
		hint := "start with -join to make the new one known"
		if len(members) == 1 { // nobody to join
			hint = "raft/peers.json makes the new one known"
		}
		f.log.Warn("this node is known to its cluster at another address",
			"id", f.self.ID, "addr", f.self.Addr, "known", members[i].Addr, "hint", hint)
	}
}

// isMember reports whether the node is one of members, at the address it has now.
func (f *former) isMember(members []store.Server) bool {
	return slices.ContainsFunc(members, func(s store.Server) bool { return s.ID == f.self.ID && s.Addr == f.self.Addr })
}

// join asks the addresses in turn to take the node in. A member asks as well, so that the cluster
// hears of it, but does not depend on the answer: there may be no leader until it has started.
func (f *former) join(ctx context.Context, members []store.Server) error {
	member := f.isMember(members)
	for attempt := 1; ; attempt++ {
		joined, err := f.joinAny(ctx)
		switch {
		case joined:
			return nil
		case err != nil:
			return f.refused(fmt.Errorf("%w: %w", errJoin, err))
		}
		_, led := f.node.Leader()
		switch {
		case member && ctx.Err() != nil:
			return nil // to stop as one
		case member && (led || attempt >= f.cfg.JoinAttempts):
			f.log.Warn("rejoining was not confirmed, starting as the member this node is", "attempts", attempt)
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("%w: %w", errJoin, errJoinStopped)
		case attempt >= f.cfg.JoinAttempts:
			return fmt.Errorf("%w: %w", errJoin, errJoin)
		}
		_ = sleep(ctx, f.cfg.JoinInterval) // if ctx ends, so does the next attempt, at once
	}
}

// joinAny asks each address once. It reports whether the node was taken in. An error is a refusal
// that no further attempt would change.
func (f *former) joinAny(ctx context.Context) (joined bool, err error) {
	for _, addr := range f.cfg.Join {
		if ctx.Err() != nil {
			return false, nil
		}
		leader, err := f.cfg.Client.Join(ctx, addr, f.self, f.cfg.JoinAs)
		if err == nil {
			f.log.Info("joined cluster", "via", addr, "leader", leader)
			return true, nil
		}
		attrs := []any{"via", addr, "err", store.Text(err)}
		if errors.Is(err, store.ErrUnauthorized) && f.cfg.JoinAs == (Credentials{}) {
			attrs = append(attrs, "hint", "did you forget to set -join-as?")
		}
		if call, ok := errors.AsType[*CallError](err); ok && call.Sent && hungUp(err) {
			attrs = append(attrs, "hint", "did it hang up because only one of the two nodes has a -node-cert?")
		}
		f.log.Warn("join attempt did not succeed", attrs...)
		if final(err) {
			return false, err
		}
	}
	return false, nil
}

// final reports whether err, of joining, is a refusal that lasts as long as the nodes run with the flags they have.
func final(err error) bool {
	return errors.Is(err, store.ErrForeignKeys) || errors.Is(err, store.ErrExtensions)
}

// bootstrap goes around until a leader is known: somebody may be leading already, somebody may
// take the node in, or enough nodes have notified one of them, which then forms the cluster.
func (f *former) bootstrap(ctx context.Context, members []store.Server) error {
	ctx, cancel := context.WithTimeoutCause(ctx, f.cfg.BootstrapTimeout, errBootTimeout)
	defer cancel()
	for pause := firstPause; ; pause = bootstrapPause {
		if sleep(ctx, pause+rand.N(pause)) != nil {
			return f.bootstrapEnded(ctx)
		}
		if _, led := f.node.Leader(); led {
			return nil
		}
		joined, err := f.joinAny(ctx)
		if joined {
			return nil
		}
		// A cluster that exists is not formed again: its members only have to find each other.
		if err == nil && f.self.Voter && len(members) == 0 {
			err = f.notifyAll(ctx)
		}
		if err != nil {
			return f.refused(err)
		}
	}
}

// refused says what err, a refusal that lasts, means. Only a node that is not a member has to stop: what a
// member applies is as the log says, and the log is the leader's. That is so of foreign keys. Of extensions it holds as
// long as they do the same, as two versions of one may, which are exchanged node by node; nobody but the operator knows.
func (f *former) refused(err error) error {
	if members, failed := f.node.Servers(); failed == nil && f.isMember(members) {
		if errors.Is(err, store.ErrExtensions) {
			f.log.Error("starting as the member this node is, with extensions that are not those of the leader", "err", store.Text(err))
			return nil
		}
		f.log.Warn("starting as the member this node is, with the foreign keys of the leader")
		return nil
	}
	return err
}

// bootstrapEnded says what it means that no leader was found before ctx ended. The node may have
// become a member since the start: others have counted it.
func (f *former) bootstrapEnded(ctx context.Context) error {
	members, err := f.node.Servers()
	switch {
	case err == nil && f.isMember(members):
		if errors.Is(context.Cause(ctx), errBootTimeout) {
			f.log.Warn("no leader yet, starting as the member this node is", "waited", f.cfg.BootstrapTimeout)
		}
		return nil // to wait for a leader, or to stop as a member
	case errors.Is(context.Cause(ctx), errBootTimeout) && len(f.disagree) > 0:
		return fmt.Errorf("%w: %w", errBootTimeout, f.disagreement())
	case errors.Is(context.Cause(ctx), errBootTimeout):
		return errBootTimeout
	}
	return errBootStopped
}

// disagreement says who has refused the node, in their words.
func (f *former) disagreement() error {
	var errs []string
	for _, addr := range slices.Sorted(maps.Keys(f.disagree)) {
		errs = append(errs, fmt.Sprintf("refused by %s: %s", addr, store.Text(f.disagree[addr])))
	}
	return errors.New(strings.Join(errs, "; "))
}

// notifyAll tells every address of the node, itself included: all have to count it in the end, and two that
// disagree have to hear of it whatever has become of the others. An error means that more than half of the
// nodes expected have refused it in this round.
func (f *former) notifyAll(ctx context.Context) error {
	refused := 0
	for _, addr := range f.cfg.Join {
		err := f.cfg.Client.Notify(ctx, addr, f.self, f.cfg.JoinAs)
		switch {
		case err == nil:
			delete(f.disagree, addr)
		case !final(err):
			f.log.Warn("node not notified", "addr", addr, "err", store.Text(err))
		default:
			refused++
			if f.disagree[addr] == nil {
				f.log.Warn("refused by a node that is to form the cluster with this one, until one of the two is restarted with other flags",
					"addr", addr, "err", store.Text(err))
			}
			f.disagree[addr] = err
		}
	}
	if expected := max(f.cfg.BootstrapExpect, len(f.cfg.Join)); refused <= expected/2 {
		return nil
	}
	return f.disagreement()
}
