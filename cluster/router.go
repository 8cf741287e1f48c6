package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	"rqlited/command"
	"rqlited/store"
)

const (
	// maxTurns is how often a request is tried while this node and the one it takes for the
	// leader disagree; the pauses between add up to a second and a half, an election.
	maxTurns  = 5
	firstTurn = 100 * time.Millisecond // pause, doubled each time
)

// Local is the part of the store that Router asks first.
type Local interface {
	Do(ctx context.Context, req *command.Request) (*command.Response, error)
	Leader() (store.Server, bool)
	Remove(ctx context.Context, id string) error
	Stepdown(ctx context.Context, id string, wait bool) error
	Backup(ctx context.Context, req *command.BackupRequest, w io.Writer) error
	Load(ctx context.Context, r io.Reader) (index uint64, err error)
}

// RouterConfig configures a Router. NewRouter copies it.
type RouterConfig struct {
	HTTPAddr string       // advertised HTTP address of this node, for ServedBy
	Logger   *slog.Logger // nil discards
}

// Router has requests answered by this node, or by the leader if only that can.
type Router struct {
	cfg    RouterConfig
	log    *slog.Logger
	local  Local
	client *Client
	counts routerCounts
}

// NewRouter returns a Router that asks local first, and other nodes through client.
func NewRouter(local Local, client *Client, cfg RouterConfig) *Router {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Router{cfg: cfg, log: cfg.Logger, local: local, client: client}
}

// Do runs req here, or at the leader if this node may not answer it and req allows it, and says in
// ServedBy who did. Errors are those of this or the leader's store, and those of Client.Do. Of them
//   - store.ErrNotLeader: the leader would have to answer, and req.Forward.Never is set;
//   - store.ErrNoLeader: there is none. Nothing was applied, as with ErrNotLeader.
func (r *Router) Do(ctx context.Context, req *command.Request) (*command.Response, error) {
	var resp *command.Response
	servedBy, err := r.turns(ctx, req.Forward.Never, func(ctx context.Context) error {
		err := begin(req, r.cfg.HTTPAddr)
		if err == nil {
			resp, err = r.local.Do(ctx, req)
		}
		return err
	}, func(ctx context.Context, leader string) error {
		done, failed := r.counts.of(req.Kind)
		done.Add(1)
		err := begin(req, leader)
		if err != nil {
			return err
		}
		if resp, err = r.client.Do(ctx, leader, forwarded(req)); err != nil {
			failed.Add(1)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	resp.ServedBy = servedBy
	return resp, nil
}

// errBegun means that a part of an answer has gone to the client, so that there is no further attempt.
var errBegun = errors.New("cluster: a part of the answer has been sent")

// begin begins an attempt to have req answered by the node at addr.
func begin(req *command.Request, addr string) error {
	if req.Sink != nil && !req.Sink.Begin(addr) {
		return errBegun
	}
	return nil
}

// forwarded returns req as the leader has to understand it: Auto has been resolved by its being
// sent there, and releases before 8.25 do not know it.
func forwarded(req *command.Request) *command.Request {
	if req.Level != command.Auto {
		return req
	}
	r := *req
	r.Level = command.Weak
	return &r
}

// Remove removes the server id from the cluster. It returns the address of the node that did it,
// as in ServedBy, and fails as Do does.
func (r *Router) Remove(ctx context.Context, id string, f command.Forward) (servedBy string, err error) {
	return r.turns(ctx, f.Never, func(ctx context.Context) error {
		return r.local.Remove(ctx, id)
	}, func(ctx context.Context, leader string) error {
		r.counts.removes.Add(1)
		return r.client.Remove(ctx, leader, id, Credentials{f.Username, f.Password}, f.Timeout)
	})
}

// Stepdown has the leader give up leadership, to the server id unless it is empty. It returns the
// address of the node that acted, and fails as Do does.
func (r *Router) Stepdown(ctx context.Context, id string, wait bool, f command.Forward) (servedBy string, err error) {
	return r.turns(ctx, f.Never, func(ctx context.Context) error {
		return r.local.Stepdown(ctx, id, wait)
	}, func(ctx context.Context, leader string) error {
		r.counts.stepdowns.Add(1)
		return r.client.Stepdown(ctx, leader, id, wait, Credentials{f.Username, f.Password}, f.Timeout)
	})
}

// Backup writes a copy of the database to w, of this node's if it leads or if req does not ask for the leader's, else
// of the leader's. It fails as Do does before the first byte; after that what was written is of no use.
func (r *Router) Backup(ctx context.Context, req *command.BackupRequest, f command.Forward, w io.Writer) error {
	_, err := r.turns(ctx, f.Never, func(ctx context.Context) error {
		return r.local.Backup(ctx, req, w)
	}, func(ctx context.Context, leader string) error {
		r.counts.backups.Add(1)
		return r.client.Backup(ctx, leader, req, Credentials{f.Username, f.Password}, f.Timeout, w)
	})
	return err
}

// Load has the leader replace the database by the SQLite file in in. It returns the address of the node that did it, as
// in ServedBy. It fails as Do does, and nothing was read from in if nobody leads.
func (r *Router) Load(ctx context.Context, in io.Reader, size int64, f command.Forward) (servedBy string, err error) {
	return r.turns(ctx, f.Never, func(ctx context.Context) error {
		_, err := r.local.Load(ctx, in)
		return err
	}, func(ctx context.Context, leader string) error {
		r.counts.loads.Add(1)
		return r.client.Load(ctx, leader, in, size, Credentials{f.Username, f.Password}, f.Timeout)
	})
}

// turns calls here, and if that finds that this node is not the leader, there with the address of
// the node that is. If that one says that it is not, nothing was done, and both are asked again
// after a while. It returns the address of the node that answered.
func (r *Router) turns(ctx context.Context, never bool, here func(context.Context) error,
	there func(ctx context.Context, leader string) error,
) (servedBy string, err error) {
	pause := firstTurn
	for turn := 1; ; turn++ {
		err := here(ctx)
		if !nothingDone(err) {
			return r.cfg.HTTPAddr, err
		}
		if never {
			return "", store.ErrNotLeader
		}
		leader, known := r.local.Leader()
		switch {
		case !known:
			return "", store.ErrNoLeader
		case leader.Addr != r.client.cfg.LocalAddr: // or this node has become it just now
			if err = there(ctx, leader.Addr); !nothingDone(err) {
				return leader.Addr, err
			}
		}
		if turn == maxTurns {
			return "", fmt.Errorf("%w: %s is not it", store.ErrNoLeader, leader.Addr)
		}
		r.log.Debug("leader not where it was expected, asking again", "leader", leader.Addr, "turn", turn)
		if err := sleep(ctx, pause); err != nil {
			return "", err
		}
		pause *= 2
	}
}

// nothingDone reports whether err says that a node is not the leader, and did nothing for that.
func nothingDone(err error) bool {
	return errors.Is(err, store.ErrNotLeader) && !errors.Is(err, store.ErrUnknown)
}

// LeaderAPI returns the base URL of the leader's HTTP API, to redirect clients to. It fails with
// store.ErrNoLeader if there is no leader, or none that answers.
func (r *Router) LeaderAPI(ctx context.Context) (string, error) {
	leader, known := r.local.Leader()
	if !known {
		return "", store.ErrNoLeader
	}
	m, err := r.client.Meta(ctx, leader.Addr, 0)
	if err != nil {
		return "", fmt.Errorf("%w: ask %s: %w", store.ErrNoLeader, leader.Addr, err)
	}
	if m.URL == "" {
		return "", fmt.Errorf("%w: %s has no URL", store.ErrNoLeader, leader.Addr)
	}
	return m.URL, nil
}

// Meta asks the node at addr about itself, as Client.Meta does.
func (r *Router) Meta(ctx context.Context, addr string, retries int) (Meta, error) {
	return r.client.Meta(ctx, addr, retries)
}

// of returns the counters of requests of kind k.
func (n *routerCounts) of(k command.Kind) (done, failed *atomic.Int64) {
	switch k {
	case command.Execute:
		return &n.executions, &n.executionsFailed
	case command.Query:
		return &n.queries, &n.queriesFailed
	default:
		return &n.requests, &n.requestsFailed
	}
}

// sleep waits for d or for the end of ctx, whose cause it then returns.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(cmp.Or(d, 1))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
