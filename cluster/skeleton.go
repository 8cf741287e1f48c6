package cluster

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"time"

	"github.com/hashicorp/raft"

	"rqlited/command"
	"rqlited/store"
)

var errSkeleton = errors.New("cluster: not written yet")

// Config configures a Mux.
type Config struct {
	Addr      string        // address to listen on
	Advertise string        // address that peers use; empty means that of the listener
	FirstByte time.Duration // wait for the first byte of a connection; zero means 30 s
	MaxConns  int           // connections at a time; zero means 1024
	Logger    *slog.Logger  // nil discards
}

// Mux is the port that a node shares between Raft and the calls of its peers.
type Mux struct{}

// Listen opens the port.
func Listen(cfg Config) (*Mux, error) { return nil, errSkeleton }

// Layer returns the Raft half of the port; store takes it.
func (m *Mux) Layer() raft.StreamLayer { return nil }

// Calls returns the half of the port that carries calls; NewService takes it.
func (m *Mux) Calls() net.Listener { return nil }

// Addr returns the address that peers use.
func (m *Mux) Addr() string { return "" }

// Close ends the acceptor and every connection, and waits for them.
func (m *Mux) Close() error { return errSkeleton }

// Node is the part of the store that a peer may use.
type Node interface {
	Do(ctx context.Context, req *command.Request) (*command.Response, error)
	Leader() (store.Server, bool)
	CommitIndex() uint64
	Notify(ctx context.Context, id, addr string) error
	Join(ctx context.Context, id, addr string, voter bool) error
	Remove(ctx context.Context, id string) error
	Stepdown(ctx context.Context, id string, wait bool) error
}

// Authorizer says whether a user may do something; permissions are those of the credentials
// file. A nil Authorizer permits everything.
type Authorizer interface {
	Permitted(username, password, permission string) bool
}

// ServiceConfig configures a Service.
type ServiceConfig struct {
	URL     string        // base URL of this node's HTTP API, scheme included
	Version string        // release, as peers see it
	Auth    Authorizer    // nil permits everything
	Idle    time.Duration // a connection without a call is closed after this; zero means 10 min
	Logger  *slog.Logger  // nil discards
}

// Service answers the calls of peers.
type Service struct{}

// NewService starts answering the calls that arrive on ln.
func NewService(ln net.Listener, node Node, cfg ServiceConfig) *Service { return nil }

// Close ends the service and waits for the calls under way, whose contexts it cancels.
func (s *Service) Close() error { return errSkeleton }

// Credentials are a user's name and password.
type Credentials struct{ Username, Password string }

// Meta is what a node tells about itself.
type Meta struct {
	URL         string // base URL of its HTTP API
	CommitIndex uint64
	Version     string // empty if older than 8.36.3
}

// ClientConfig configures a Client.
type ClientConfig struct {
	LocalAddr      string        // this node's advertised Raft address; calls of Meta to it need no network
	Local          func() Meta   // answers them
	ConnectTimeout time.Duration // zero means 30 s
	Logger         *slog.Logger  // nil discards
}

// Client calls peers.
type Client struct{}

// NewClient returns a Client, which opens connections as it needs them.
func NewClient(cfg ClientConfig) *Client { return nil }

// Meta asks the node at addr about itself. The deadline is ctx's.
func (c *Client) Meta(ctx context.Context, addr string, retries int) (Meta, error) {
	return Meta{}, errSkeleton
}

// Close closes the idle connections; those in use are closed when their calls end.
func (c *Client) Close() error { return errSkeleton }

// Local is the part of the store that Router asks first.
type Local interface {
	Do(ctx context.Context, req *command.Request) (*command.Response, error)
	Leader() (store.Server, bool)
	Remove(ctx context.Context, id string) error
	Stepdown(ctx context.Context, id string, wait bool) error
}

// RouterConfig configures a Router.
type RouterConfig struct {
	HTTPAddr string       // this node's advertised HTTP address, for Response.ServedBy
	Logger   *slog.Logger // nil discards
}

// Router answers requests here or has the leader answer them.
type Router struct{}

// NewRouter returns a Router.
func NewRouter(local Local, c *Client, cfg RouterConfig) *Router { return nil }

// Do runs req here or, if only the leader can, there.
func (r *Router) Do(ctx context.Context, req *command.Request) (*command.Response, error) {
	return nil, errSkeleton
}

// Remove removes the server id from the cluster, here or at the leader. It returns the address
// of the node that did it, as Response.ServedBy does.
func (r *Router) Remove(ctx context.Context, id string, fwd command.Forward) (servedBy string, err error) {
	return "", errSkeleton
}

// Stepdown makes the leader give up leadership, to server id unless it is empty.
func (r *Router) Stepdown(ctx context.Context, id string, wait bool, fwd command.Forward) (servedBy string, err error) {
	return "", errSkeleton
}

// LeaderAPI returns the base URL of the leader's HTTP API, for redirects.
func (r *Router) LeaderAPI(ctx context.Context) (string, error) { return "", errSkeleton }

// Meta asks the node at addr about itself, once.
func (r *Router) Meta(ctx context.Context, addr string) (Meta, error) { return Meta{}, errSkeleton }

// UnauthorizedError means that the leader refused the user. Its text is for the client.
type UnauthorizedError struct{ Act string }

func (e *UnauthorizedError) Error() string { return "remote " + e.Act + " not authorized" }

// Is reports that an UnauthorizedError is a store.ErrUnauthorized.
func (e *UnauthorizedError) Is(target error) bool { return target == store.ErrUnauthorized }

// FormConfig says how a node becomes a member.
type FormConfig struct {
	ID, Addr string // of this node; Addr is the advertised Raft address
	Voter    bool

	Join         []string      // Raft addresses of members
	JoinAttempts int           // passes over Join; zero means 5
	JoinInterval time.Duration // between passes; zero means 3 s
	JoinAs       Credentials
	Client       *Client // makes the calls

	BootstrapExpect  int           // nodes that form a new cluster; zero means that it exists
	BootstrapTimeout time.Duration // zero means 120 s

	Logger *slog.Logger // nil discards
}

// FormNode is the part of the store that Form uses.
type FormNode interface {
	Servers() ([]store.Server, error)
	HasPeers() bool
	Leader() (store.Server, bool)
	Bootstrap(servers []store.Server) error
}

// Form makes the node a member of a cluster.
func Form(ctx context.Context, cfg FormConfig, n FormNode) error { return errSkeleton }

// Leave removes this node from its cluster, for a shutdown that means to leave.
func Leave(ctx context.Context, cfg FormConfig, n FormNode) error { return errSkeleton }
