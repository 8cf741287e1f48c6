package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"rqlited/auth"
	"rqlited/cluster"
	"rqlited/command"
	httpd "rqlited/http"
	"rqlited/store"
)

// What the parts promise each other is checked here, the one place that sees both sides.
var (
	_ httpd.Database    = (*cluster.Router)(nil)
	_ httpd.Node        = (*lateStore)(nil)
	_ httpd.Node        = (*store.Store)(nil)
	_ httpd.Peers       = peers{}
	_ cluster.Node      = (*lateStore)(nil)
	_ cluster.Node      = (*store.Store)(nil)
	_ cluster.Local     = (*lateStore)(nil)
	_ cluster.Local     = (*store.Store)(nil)
	_ cluster.FormNode  = (*store.Store)(nil)
	_ cluster.LeaveNode = (*store.Store)(nil)
	_ store.HashPeers   = (*cluster.Client)(nil)

	_ httpd.Authorizer   = (*auth.Store)(nil)
	_ cluster.Authorizer = (*auth.Store)(nil)
)

// Deadlines of a stop, one for each step that waits for somebody else. What is not done by then is
// cut off: the next start copes with it as with a crash. Together they stay below the 10 s that
// supervisors commonly grant.
const (
	flushTime    = 2 * time.Second
	stepdownTime = 3 * time.Second
	drainTime    = 4 * time.Second
	closeTime    = 10 * time.Second // only a long statement takes it all
)

// node is the parts of one running rqlited, in the order in which they start. Stopping is the
// reverse. Only the goroutine in run touches the fields after the start.
type node struct {
	cfg  settings
	log  *slog.Logger
	room capacity

	users   *auth.Store // nil without a credentials file
	tls     openedTLS
	mux     *cluster.Mux
	client  *cluster.Client
	service *cluster.Service
	api     *httpd.Server
	late    *lateStore
	store   *store.Store // nil until it is open
}

func newNode(cfg settings, log *slog.Logger) *node {
	return &node{cfg: cfg, log: log, room: measure(), late: &lateStore{}}
}

// run starts the node and stops it again when ctx ends or a part of it fails. It returns nil if
// the node was asked to stop and did.
func (n *node) run(ctx context.Context) error {
	if err := n.readUsers(); err != nil {
		return err
	}
	web, err := n.listen()
	if err != nil {
		return err
	}
	g, parts := errgroup.WithContext(ctx) // parts ends with ctx, or when a part fails
	n.answer(g, web)
	err = n.open(parts, g)
	if err == nil {
		<-parts.Done()
	}
	asked := ctx.Err() != nil
	switch {
	case asked && n.store == nil && errors.Is(err, context.Canceled):
		err = nil // asked to stop before there was anything to stop
	case !asked && parts.Err() != nil:
		err = context.Cause(parts) // what failed, not what was told to end because of it
	}
	if stopErr := n.stop(context.WithoutCancel(ctx), err == nil); stopErr != nil {
		return errors.Join(err, stopErr) // what has not stopped ends with the process
	}
	if late := g.Wait(); err == nil {
		err = late
	}
	return err
}

// readUsers reads the credentials file, if there is to be one.
func (n *node) readUsers() error {
	if n.cfg.auth == "" {
		return nil
	}
	users, err := auth.Open(n.cfg.auth, auth.Config{Logger: n.log})
	if err != nil {
		return fmt.Errorf("failed to get credential store: %w", err) // rqlite's words
	}
	n.users = users
	return nil
}

// listen opens both ports and settles what others are told about them.
func (n *node) listen() (web net.Listener, err error) {
	n.cfg.warnIdle(n.log)
	if n.tls, err = n.cfg.openTLS(n.log); err != nil {
		return nil, err
	}
	cfg := n.room.peers()
	cfg.Addr, cfg.TLS, cfg.Logger = n.cfg.raft.bind, n.tls.node, n.log
	if !n.cfg.raft.anyPort() {
		cfg.Advertise = n.cfg.raft.public()
	}
	if n.mux, err = cluster.Listen(cfg); err != nil {
		return nil, err
	}
	if web, err = net.Listen("tcp", n.cfg.http.bind); err != nil {
		return nil, errors.Join(fmt.Errorf("listen for HTTP: %w", err), n.mux.Close())
	}
	n.cfg.raft.advertise = n.mux.Addr()
	if n.cfg.http.anyPort() {
		n.cfg.http.advertise = web.Addr().String()
	}
	n.cfg.store.NodeID = cmp.Or(n.cfg.store.NodeID, n.cfg.raft.public())
	return web, nil
}

// answer begins to answer on both ports. Until the store is open, the answer is that it is not.
func (n *node) answer(g *errgroup.Group, web net.Listener) {
	meta := cluster.Meta{URL: n.cfg.http.scheme() + "://" + n.cfg.http.public(), Version: version}
	n.client = cluster.NewClient(cluster.ClientConfig{
		LocalAddr: n.cfg.raft.public(),
		Local: func() cluster.Meta {
			m := meta
			m.CommitIndex = n.late.CommitIndex()
			return m
		},
		TLS:            n.tls.node,
		ConnectTimeout: n.cfg.connectTimeout,
	})
	router := cluster.NewRouter(n.late, n.client, cluster.RouterConfig{
		HTTPAddr: n.cfg.http.public(),
		Logger:   n.log,
	})
	service := cluster.ServiceConfig{URL: meta.URL, Version: meta.Version, Memory: n.room.calls(), Logger: n.log}
	api := n.apiConfig(router)
	if n.users != nil { // a nil *auth.Store would be an Authorizer, too
		service.Auth, api.Auth = n.users, n.users
	}
	n.service = cluster.NewService(n.mux.Calls(), n.late, service)
	n.api = httpd.NewServer(api, router, n.late, peers{router})
	g.Go(func() error { return n.api.Serve(web, n.tls.web) })
	n.log.Info("node starting",
		"version", version, "node", n.cfg.store.NodeID, "dir", n.cfg.dir,
		"http", n.cfg.http.public(), "raft", n.cfg.raft.public(),
		"files", n.room.files, "memory", n.room.memory, "connections", api.Limits.Conns)
}

// open opens the store and makes the node a member of its cluster.
func (n *node) open(ctx context.Context, g *errgroup.Group) error {
	cfg := n.cfg.store
	dir, err := filepath.Abs(cfg.Dir) // so that messages say where it is
	if err != nil {
		return err
	}
	cfg.Dir = dir
	cfg.MaxReaders = n.room.readers(cfg.MaxReaders)
	cfg.ReadMemory = n.room.readMemory()
	cfg.Addr = n.cfg.raft.public()
	cfg.Layer = n.mux.Layer()
	cfg.Peers = n.client
	cfg.Logger = n.log
	st, err := store.Open(ctx, cfg)
	if err != nil {
		return fmt.Errorf("open store: %w", err)
	}
	n.store = st
	n.late.set(st)
	g.Go(st.Wait)
	if err := cluster.Form(ctx, n.formConfig(), st); err != nil {
		return fmt.Errorf("clustering failure: %w", err)
	}
	if ctx.Err() == nil {
		n.log.Info("node started", "node", n.cfg.store.NodeID)
	}
	return nil
}

func (n *node) formConfig() cluster.FormConfig {
	cfg := n.cfg.form
	cfg.ID = n.cfg.store.NodeID
	cfg.Addr = n.cfg.raft.public()
	cfg.ForeignKeys = command.SettingOf(n.cfg.store.ForeignKeys)
	cfg.Extensions = n.store.ExtensionSet()
	cfg.JoinAs = n.joinAs()
	cfg.Client = n.client
	cfg.Logger = n.log
	return cfg
}

// joinAs returns what this node proves to others with who it is: nothing, if there is no such user or
// only a hash of the password.
func (n *node) joinAs() cluster.Credentials {
	if n.cfg.joinAs == "" {
		return cluster.Credentials{}
	}
	if n.users != nil {
		if password, ok := n.users.Password(n.cfg.joinAs); ok {
			return cluster.Credentials{Username: n.cfg.joinAs, Password: password}
		}
	}
	n.log.Warn("no such user with a plain password in the credentials file, asking other nodes anonymously", "join-as", n.cfg.joinAs)
	return cluster.Credentials{}
}

// stop stops what was started, in the order in which parts depend on each other: clients first,
// then peers, then the data. Only a node that works is in a position to take its leave. Queued writes
// come before that: they have been acknowledged, and it is certain now that somebody takes them.
func (n *node) stop(ctx context.Context, works bool) error {
	n.late.stop()
	var errs []error
	if works && n.store != nil {
		if err := within(ctx, flushTime, n.api.FlushQueue); err != nil {
			n.log.Warn("queued writes not carried out yet", "err", err) // they still may be, elsewhere
		}
		errs = append(errs, n.depart(ctx))
	}
	if err := within(ctx, drainTime, n.api.Shutdown); err != nil {
		n.log.Warn("requests were cut off", "err", err)
	}
	// Peers next: their calls must not find a closed store. The store cuts Raft's connections itself,
	// so that no stream to a slow peer keeps Raft from stopping; the port outlives it, as Raft takes
	// the end of the port for a failure.
	errs = append(errs, n.service.Close(), n.client.Close())
	if n.store != nil {
		errs = append(errs, within(ctx, closeTime, n.store.Close))
	}
	return errors.Join(append(errs, n.mux.Close())...)
}

// depart leaves the cluster or hands over leadership, as configured. A leader that leaves hands
// over first.
func (n *node) depart(ctx context.Context) error {
	if n.cfg.leave {
		return cluster.Leave(ctx, n.formConfig(), n.store) // has a deadline of its own
	}
	if !n.cfg.stepdown || !n.store.IsLeader() {
		return nil
	}
	err := within(ctx, stepdownTime, func(ctx context.Context) error {
		return n.store.Stepdown(ctx, "", true)
	})
	if err != nil && !errors.Is(err, store.ErrNoPeer) {
		n.log.Warn("leadership not handed over", "err", err) // the others elect somebody all the same
	}
	return nil
}

// within calls f with a deadline.
func within(ctx context.Context, limit time.Duration, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return f(ctx)
}
