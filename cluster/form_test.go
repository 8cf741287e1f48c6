package cluster

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rqlited/command"
	"rqlited/store"
)

// formNode is a node that has members and perhaps a leader, and remembers its bootstrap.
type formNode struct {
	mu           sync.Mutex
	members      []store.Server
	leader       store.Server
	bootstrapped []store.Server
}

func (n *formNode) Servers() ([]store.Server, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.members), nil
}

func (n *formNode) Leader() (store.Server, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.leader, n.leader != store.Server{}
}

func (n *formNode) Bootstrap(_ context.Context, servers []store.Server) error {
	n.bootstrapped = servers
	return nil
}

// change changes the node while somebody else looks at it.
func (n *formNode) change(f func(n *formNode)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f(n)
}

// formClient records calls, with the time since it was made, and answers them by address.
type formClient struct {
	begun time.Time
	calls []string
	join  map[string]error // by address; an address that is missing cannot be reached
	keys  map[string]command.Setting
}

// Refusals of a cluster whose foreign keys are on, or off, as they arrive.
var (
	errKeysOn = store.FromText("foreign keys are on in this cluster and off on the node that asks (-fk): all nodes must agree")
	errUnlike = store.FromText("foreign keys are on on the node asked and off on the node that asks (-fk), and there is no cluster yet: all nodes must agree")

	errKeysOff = store.FromText("foreign keys are off in this cluster and on on the node that asks (-fk): all nodes must agree")
)

var errUnreachable = errors.New("connection refused")

func (c *formClient) record(act, addr string) {
	c.calls = append(c.calls, act+" "+addr+" "+time.Since(c.begun).Truncate(time.Second).String())
}

func (c *formClient) Join(_ context.Context, addr string, _ store.Server, _ Credentials) (string, error) {
	c.record("join", addr)
	err, ok := c.join[addr]
	if final(err) {
		return "", err
	}
	if !ok || err != nil {
		return "", errors.Join(err, errUnreachable)
	}
	return addr, nil
}

func (c *formClient) Notify(_ context.Context, addr string, self store.Server, _ Credentials) error {
	c.record("notify", addr)
	if _, ok := c.join[addr]; !ok {
		return errUnreachable
	}
	if c.keys[addr] != command.Unset && self.ForeignKeys != c.keys[addr] {
		return errUnlike
	}
	return nil
}

func (c *formClient) Remove(_ context.Context, addr, id string, _ Credentials, _ time.Duration) error {
	c.record("remove "+id+" at", addr)
	return c.join[addr]
}

var (
	self  = store.Server{ID: "n1", Addr: "a:1", Voter: true}
	other = store.Server{ID: "n2", Addr: "b:1", Voter: true}
)

func formConfig(c *formClient, edit func(*FormConfig)) FormConfig {
	c.begun = time.Now()
	cfg := FormConfig{ID: self.ID, Addr: self.Addr, Voter: true, Client: c,
		probe: func(context.Context, string) bool { return false }}
	edit(&cfg)
	return cfg
}

func join(addrs ...string) func(*FormConfig) {
	return func(c *FormConfig) { c.Join = addrs }
}

// TestForm goes through the decision table.
func TestForm(t *testing.T) {
	moved := self
	moved.Addr = "old:1"
	tests := []struct {
		name      string
		edit      func(*FormConfig)
		members   []store.Server
		joins     map[string]error
		want      string // the error; empty is none
		calls     []string
		bootstrap []store.Server
	}{
		{name: "new", edit: join(), bootstrap: []store.Server{self}},
		{name: "new, expecting others without being told where", edit: func(c *FormConfig) { c.BootstrapExpect = 3 },
			bootstrap: []store.Server{self}},
		{name: "new, without a vote", edit: func(c *FormConfig) { c.Voter = false },
			want: "cannot create a new non-voting node without joining it to an existing cluster"},
		{name: "started again", edit: join(), members: []store.Server{self, other}},
		{name: "join", edit: join("b:1"), joins: map[string]error{"b:1": nil}, calls: []string{"join b:1 0s"}},
		{name: "join the second", edit: join("c:1", "b:1"), joins: map[string]error{"b:1": nil},
			calls: []string{"join c:1 0s", "join b:1 0s"}},
		{name: "join nobody", edit: func(c *FormConfig) { c.Join, c.JoinAttempts = []string{"b:1"}, 2 },
			want: "failed to join cluster: failed to join cluster", calls: []string{"join b:1 0s", "join b:1 3s"}},
		{name: "join from a cluster of one", edit: join("b:1"), members: []store.Server{self},
			want: "node is the only node in a single-node cluster, joining other clusters not supported"},
		{name: "rejoin", edit: join("b:1"), members: []store.Server{self, other}, joins: map[string]error{"b:1": nil},
			calls: []string{"join b:1 0s"}},
		{name: "rejoin without a leader", edit: func(c *FormConfig) { c.Join, c.JoinAttempts = []string{"b:1"}, 2 },
			members: []store.Server{self, other}, joins: map[string]error{"b:1": store.ErrNotLeader},
			calls: []string{"join b:1 0s", "join b:1 3s"}},
		{name: "rejoin at another address", edit: func(c *FormConfig) { c.Join, c.JoinAttempts = []string{"b:1"}, 1 },
			members: []store.Server{moved, other}, calls: []string{"join b:1 0s"},
			want: "failed to join cluster: failed to join cluster"},
		{name: "no identity", edit: func(c *FormConfig) { c.ID = "" }, want: `ID is "" and Addr is "a:1": must not be empty`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, c := &formNode{members: tt.members}, &formClient{join: tt.joins}
				err := Form(t.Context(), formConfig(c, tt.edit), n)
				if got := textOf(err); got != tt.want {
					t.Errorf("Form() = %q; want %q", got, tt.want)
				}
				if !slices.Equal(c.calls, tt.calls) {
					t.Errorf("calls %q; want %q", c.calls, tt.calls)
				}
				if !slices.Equal(n.bootstrapped, tt.bootstrap) {
					t.Errorf("bootstrapped %v; want %v", n.bootstrapped, tt.bootstrap)
				}
			})
		})
	}
}

// TestFormRecognizes starts nodes with what is stored. One that the stored members do not know says
// so: it would wait for a leader without a word.
func TestFormRecognizes(t *testing.T) {
	moved := store.Server{ID: self.ID, Addr: "old:1", Voter: true}
	tests := []struct {
		name    string
		members []store.Server
		want    string
	}{
		{"member", []store.Server{other, self}, ""},
		{"removed, or another id", []store.Server{other}, "this node is not a member of the cluster"},
		{"moved", []store.Server{moved, other}, "this node is known to its cluster at another address"},
		{"moved, alone", []store.Server{moved}, "raft/peers.json"}, // joining is refused
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var said bytes.Buffer
			cfg := formConfig(&formClient{}, join())
			cfg.Logger = slog.New(slog.NewTextHandler(&said, nil))
			if err := Form(t.Context(), cfg, &formNode{members: tt.members}); err != nil {
				t.Fatalf("Form() = %v; want a start with the stored members", err)
			}
			if tt.want == "" && said.Len() > 0 || !strings.Contains(said.String(), tt.want) {
				t.Errorf("Form() logs %q; want %q", said.String(), tt.want)
			}
		})
	}
}

func textOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// TestFormBootstrap has three nodes find each other.
func TestFormBootstrap(t *testing.T) {
	three := func(c *FormConfig) {
		c.Join, c.BootstrapExpect = []string{"a:1", "b:1", "c:1"}, 3
	}
	notLeader := map[string]error{"a:1": store.ErrNotLeader, "b:1": store.ErrNotLeader, "c:1": store.ErrNotLeader}

	t.Run("enough nodes", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n, c := &formNode{}, &formClient{join: notLeader}
			time.AfterFunc(500*time.Millisecond, func() { n.change(func(n *formNode) { n.leader = other }) })
			if err := Form(t.Context(), formConfig(c, three), n); err != nil {
				t.Fatal(err)
			}
			want := []string{"join a:1 0s", "join b:1 0s", "join c:1 0s", "notify a:1 0s", "notify b:1 0s", "notify c:1 0s"}
			if !slices.Equal(c.calls, want) {
				t.Errorf("calls %q; want %q", c.calls, want)
			}
			if took := time.Since(c.begun); took < time.Second || took > 2*time.Second+2*time.Millisecond {
				t.Errorf("Form() took %s; want a round of one to two seconds", took)
			}
		})
	})
	t.Run("cluster exists", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n, c := &formNode{}, &formClient{join: map[string]error{"c:1": nil}}
			if err := Form(t.Context(), formConfig(c, three), n); err != nil {
				t.Fatal(err)
			}
			if want := []string{"join a:1 0s", "join b:1 0s", "join c:1 0s"}; !slices.Equal(c.calls, want) {
				t.Errorf("calls %q; want %q", c.calls, want)
			}
		})
	})
	t.Run("a node is missing", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n, c := &formNode{}, &formClient{join: map[string]error{"a:1": store.ErrNotLeader}}
			err := Form(t.Context(), formConfig(c, three), n)
			if textOf(err) != "boot timeout" || time.Since(c.begun) != 120*time.Second {
				t.Errorf("Form() = %v after %s; want boot timeout after 2m", err, time.Since(c.begun))
			}
			if !slices.ContainsFunc(c.calls, func(s string) bool { return strings.HasPrefix(s, "notify c:1") }) {
				t.Error("the third was not notified because the second had failed")
			}
		})
	})
	t.Run("member", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n, c := &formNode{members: []store.Server{self, other}}, &formClient{join: notLeader}
			if err := Form(t.Context(), formConfig(c, three), n); err != nil {
				t.Errorf("Form() = %v; want a member to start", err)
			}
			if slices.ContainsFunc(c.calls, func(s string) bool { return strings.HasPrefix(s, "notify") }) {
				t.Error("a member notified others, as if the cluster did not exist")
			}
		})
	})
	t.Run("without a vote", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n, c := &formNode{}, &formClient{join: notLeader}
			cfg := formConfig(c, three)
			cfg.Voter, cfg.BootstrapTimeout = false, 10*time.Second
			if err := Form(t.Context(), cfg, n); textOf(err) != "boot timeout" {
				t.Errorf("Form() = %v; want boot timeout", err)
			}
			if slices.ContainsFunc(c.calls, func(s string) bool { return strings.HasPrefix(s, "notify") }) {
				t.Error("a node without a vote notified others")
			}
		})
	})
}

// TestFormForeignKeys expects a node whose foreign keys are set otherwise than others' to stop at the
// first word of that, and in these words, unless it is a member.
func TestFormForeignKeys(t *testing.T) {
	refused, words := errKeysOn, errKeysOn.Error()
	notLeader := map[string]error{"b:1": store.ErrNotLeader, "c:1": store.ErrNotLeader}
	tests := []struct {
		name    string
		expect  int
		members []store.Server
		joins   map[string]error
		keys    map[string]command.Setting // of the nodes notified
		want    string
		calls   []string
	}{
		{name: "join", joins: map[string]error{"b:1": refused, "c:1": refused},
			want: "failed to join cluster: " + words, calls: []string{"join b:1 0s"}},
		{name: "join by way of a node that is down", joins: map[string]error{"c:1": refused},
			want: "failed to join cluster: " + words, calls: []string{"join b:1 0s", "join c:1 0s"}},
		{name: "rejoin", members: []store.Server{self, other}, joins: map[string]error{"b:1": refused}, calls: []string{"join b:1 0s"}},
		{name: "join with other extensions", joins: map[string]error{"b:1": errExtensions},
			want: "failed to join cluster: " + errExtensions.Error(), calls: []string{"join b:1 0s"}},
		{name: "rejoin with other extensions", members: []store.Server{self, other}, joins: map[string]error{"b:1": errExtensions}, calls: []string{"join b:1 0s"}},
		{name: "cluster exists", expect: 3, joins: map[string]error{"b:1": refused}, want: words, calls: []string{"join b:1 0s"}},
		{name: "member of a cluster that was bootstrapped", expect: 3, members: []store.Server{self, other},
			joins: map[string]error{"b:1": refused}, calls: []string{"join b:1 0s"}},
		{name: "bootstrap, refused by the two others", expect: 3, joins: notLeader,
			keys:  map[string]command.Setting{"b:1": command.On, "c:1": command.On},
			want:  "refused by b:1: " + errUnlike.Error() + "; refused by c:1: " + errUnlike.Error(),
			calls: []string{"join b:1 0s", "join c:1 0s", "notify b:1 0s", "notify c:1 0s"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &formClient{join: tt.joins, keys: tt.keys}
				cfg := formConfig(c, func(cfg *FormConfig) {
					cfg.Join, cfg.BootstrapExpect, cfg.ForeignKeys = []string{"b:1", "c:1"}, tt.expect, command.Off
				})
				err := Form(t.Context(), cfg, &formNode{members: tt.members})
				if textOf(err) != tt.want || !slices.Equal(c.calls, tt.calls) {
					t.Errorf("Form() = %q after %q; want %q after %q", textOf(err), c.calls, tt.want, tt.calls)
				}
			})
		})
	}
}

// TestFormUndecided has a node refused by half of those that are to form a cluster with it. It can't know that
// it is the odd one, so it goes on, and says so once; in the end it says why there is no cluster.
func TestFormUndecided(t *testing.T) {
	tests := []struct {
		name   string
		expect int
		keys   map[string]command.Setting
		gone   time.Duration // when who has refused stops
	}{
		{"one of three", 3, map[string]command.Setting{"b:1": command.On, "c:1": command.Off}, time.Hour},
		{"one of three, which then stops", 3, map[string]command.Setting{"b:1": command.On, "c:1": command.Off}, 10 * time.Second},
		{"one of two", 2, map[string]command.Setting{"b:1": command.On}, time.Hour},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				addrs := append([]string{"a:1"}, slices.Sorted(maps.Keys(tt.keys))...)
				c := &formClient{join: map[string]error{}, keys: tt.keys}
				for _, addr := range addrs {
					c.join[addr] = store.ErrNotLeader
				}
				var said bytes.Buffer
				cfg := formConfig(c, func(cfg *FormConfig) {
					cfg.Join, cfg.BootstrapExpect, cfg.ForeignKeys = addrs, tt.expect, command.Off
					cfg.Logger = slog.New(slog.NewTextHandler(&said, nil))
					cfg.Client = until{c, "b:1", tt.gone}
				})
				err := Form(t.Context(), cfg, &formNode{})
				if want := "boot timeout: refused by b:1: " + errUnlike.Error(); textOf(err) != want || time.Since(c.begun) != 120*time.Second {
					t.Errorf("Form() = %q after %s; want %q after 2m", textOf(err), time.Since(c.begun), want)
				}
				if n := strings.Count(said.String(), "refused by a node that is to form the cluster"); n != 1 {
					t.Errorf("said %d times that it is refused; want once", n)
				}
			})
		})
	}
}

// until is a client that can't reach a node after some time.
type until struct {
	*formClient
	addr string
	time time.Duration
}

func (u until) Notify(ctx context.Context, addr string, self store.Server, user Credentials) error {
	if addr == u.addr && time.Since(u.begun) > u.time {
		return errUnreachable
	}
	return u.formClient.Notify(ctx, addr, self, user)
}

// TestFormOdd starts three nodes one of which has other foreign keys. Whoever is told first, only that one
// stops, and once it is started as the others are, they are a cluster.
func TestFormOdd(t *testing.T) {
	addrs := []string{"a:1", "b:1", "c:1"}
	for _, odd := range addrs {
		t.Run(odd, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &party{keys: map[string]command.Setting{}, nodes: map[string]*formNode{}, counted: map[string]map[string]bool{}}
				results := make(map[string]chan error)
				start := func(addr string, s command.Setting) {
					p.start(addr, s)
					cfg := FormConfig{ID: addr, Addr: addr, Voter: true, ForeignKeys: s, Join: addrs, BootstrapExpect: 3, Client: p,
						probe: func(context.Context, string) bool { return false }}
					ended := make(chan error, 1)
					results[addr] = ended
					go func() {
						err := Form(t.Context(), cfg, p.nodes[addr])
						if err != nil {
							p.stop(addr)
						}
						ended <- err
					}()
				}
				for _, addr := range addrs {
					s := command.On
					if addr == odd {
						s = command.Off
					}
					time.Sleep(3 * time.Second)
					start(addr, s)
				}
				time.Sleep(20 * time.Second)
				synctest.Wait()
				for _, addr := range addrs {
					select {
					case err := <-results[addr]:
						if addr != odd || err == nil {
							t.Errorf("%s has ended with %v; want that %s ends alone", addr, err, odd)
						}
					default:
						if addr == odd {
							t.Errorf("%s goes on", odd)
						}
					}
				}
				start(odd, command.On)
				for _, addr := range addrs {
					if err := <-results[addr]; err != nil {
						t.Errorf("Form() of %s = %v when all agree", addr, err)
					}
				}
			})
		})
	}
}

// party are nodes that are to form a cluster of three. It is the FormClient of all of them.
type party struct {
	mu      sync.Mutex
	keys    map[string]command.Setting // of the nodes that run; guarded by mu, as what follows
	nodes   map[string]*formNode
	counted map[string]map[string]bool // by whom, whom
}

func (p *party) start(addr string, s command.Setting) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keys[addr], p.nodes[addr], p.counted[addr] = s, &formNode{}, map[string]bool{}
}

func (p *party) stop(addr string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.keys, addr)
}

func (p *party) Join(context.Context, string, store.Server, Credentials) (string, error) {
	return "", store.ErrNotLeader
}

func (p *party) Notify(_ context.Context, addr string, self store.Server, _ Credentials) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch p.keys[addr] {
	case command.Unset:
		return errUnreachable
	case self.ForeignKeys:
	case command.On:
		return errUnlike
	default:
		return store.FromText("foreign keys are off on the node asked and on on the node that asks (-fk), and there is no cluster yet: all nodes must agree")
	}
	p.counted[addr][self.ID] = true
	if len(p.counted[addr]) == 3 {
		for _, n := range p.nodes {
			n.change(func(n *formNode) { n.leader = other })
		}
	}
	return nil
}

func (p *party) Remove(context.Context, string, string, Credentials, time.Duration) error { return nil }

func TestFormCanceled(t *testing.T) {
	tests := []struct {
		expect int
		want   string
	}{
		{0, "failed to join cluster: join operation canceled"},
		{3, "boot canceled"},
	}
	for _, tt := range tests {
		t.Run(tt.want, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				c := &formClient{}
				cfg := formConfig(c, func(c *FormConfig) { c.Join, c.BootstrapExpect = []string{"b:1"}, tt.expect })
				if err := Form(ctx, cfg, &formNode{}); textOf(err) != tt.want {
					t.Errorf("Form() = %v; want %s", err, tt.want)
				}
			})
		})
	}
}

// TestFormStoppedAsMember stops a node whose cluster was formed a moment ago, by others, and has no
// leader just now. It is a member, so it stops as one.
func TestFormStoppedAsMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		n := &formNode{}
		time.AfterFunc(100*time.Millisecond, func() { n.change(func(n *formNode) { n.members = []store.Server{self} }) })
		cfg := formConfig(&formClient{}, func(c *FormConfig) { c.Join, c.BootstrapExpect = []string{"b:1"}, 3 })
		var said bytes.Buffer
		cfg.Logger = slog.New(slog.NewTextHandler(&said, nil))
		if err := Form(ctx, cfg, n); err != nil {
			t.Errorf("Form() = %v; want nil", err)
		}
		if strings.Contains(said.String(), "starting") {
			t.Errorf("a node that was told to stop says that it starts: %s", said.String())
		}
	})
}

// TestFormProbe asks real listeners whether they speak HTTP.
func TestFormProbe(t *testing.T) {
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	encrypted := httptest.NewUnstartedServer(http.NotFoundHandler())
	encrypted.Config.ErrorLog = log.New(io.Discard, "", 0) // is asked without encryption first
	encrypted.StartTLS()
	defer encrypted.Close()
	raftPort, _ := startService(t, &fakeNode{commit: 1}, ServiceConfig{})
	tests := []struct {
		name, addr string
		want       bool
	}{
		{"http", plain.Listener.Addr().String(), true},
		{"https", encrypted.Listener.Addr().String(), true},
		{"raft", raftPort, false},
		{"no address", "http://nonsense", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := &formClient{join: map[string]error{tt.addr: nil}}
			cfg := formConfig(c, join(tt.addr))
			cfg.probe = nil
			err := Form(withTimeout(t), cfg, &formNode{})
			want := ""
			if tt.want {
				want = "join address " + tt.addr + " appears to be serving HTTP when it should be Raft"
			}
			if textOf(err) != want {
				t.Errorf("Form() = %q; want %q", textOf(err), want)
			}
		})
	}
	frame := endFrame(appendCall(beginFrame(nil), &call{typ: callMeta}))
	if got := say(t, raftPort, frame); len(got) == frameHeader {
		t.Error("the port that was probed does not answer calls any more")
	}
}

// leaveNode is a formNode that can leave.
type leaveNode struct {
	formNode
	acts []string
	step error // outcome of stepping down; nil makes other the leader
}

func (n *leaveNode) Remove(_ context.Context, id string) error {
	n.acts = append(n.acts, "remove "+id)
	n.members = []store.Server{other}
	return nil
}

func (n *leaveNode) Stepdown(context.Context, string, bool) error {
	n.acts = append(n.acts, "stepdown")
	if n.step == nil {
		n.leader = other
	}
	return n.step
}

func TestLeave(t *testing.T) {
	tests := []struct {
		name    string
		members []store.Server
		leader  store.Server
		step    error
		remote  error
		want    string
		acts    []string // of the node
		calls   []string // to others
	}{
		{name: "follower", members: []store.Server{self, other}, leader: other, calls: []string{"remove n1 at b:1 0s"}},
		{name: "leader", members: []store.Server{self, other}, leader: self, acts: []string{"stepdown"},
			calls: []string{"remove n1 at b:1 0s"}},
		{name: "leader that cannot step down", members: []store.Server{self, other}, leader: self, step: store.ErrNoPeer,
			acts: []string{"stepdown", "remove n1"}},
		{name: "alone", members: []store.Server{self}, leader: self},
		{name: "no member", members: []store.Server{other}},
		{name: "no leader", members: []store.Server{self, other}, want: "leave cluster: leaving the cluster took too long"},
		{name: "refused", members: []store.Server{self, other}, leader: other, remote: store.ErrUnauthorized,
			want: "leave cluster: store: unauthorized", calls: []string{
				"remove n1 at b:1 0s", "remove n1 at b:1 0s", "remove n1 at b:1 0s", "remove n1 at b:1 0s", "remove n1 at b:1 1s",
			}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := &leaveNode{formNode: formNode{members: tt.members, leader: tt.leader}, step: tt.step}
				c := &formClient{join: map[string]error{other.Addr: tt.remote}}
				err := Leave(t.Context(), formConfig(c, join()), n)
				if textOf(err) != tt.want {
					t.Errorf("Leave() = %v; want %s", err, tt.want)
				}
				if !slices.Equal(n.acts, tt.acts) || !slices.Equal(c.calls, tt.calls) {
					t.Errorf("acts %q, calls %q; want %q and %q", n.acts, c.calls, tt.acts, tt.calls)
				}
				if took := time.Since(c.begun); took > leaveTimeout {
					t.Errorf("Leave() took %s", took)
				}
			})
		})
	}
}
