package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"rqlited/internal/budget"
	"rqlited/internal/certs"
)

// The first byte of a connection.
const (
	byteRaft       = 1
	byteCalls      = 2
	byteCompressed = 3 // Raft, with what the dialler sends compressed
)

// Config configures a Mux. Listen copies it.
type Config struct {
	Addr      string // address to listen on
	Advertise string // address that peers use; empty means that of the listener

	TLS TLS

	// FirstByte bounds the wait for the first byte of a connection, that for TLS included. Zero means 30 s.
	FirstByte time.Duration

	// Bounds on the connections that peers may have open at a time: those that have not said what they are for,
	// those for calls and those for Raft. Beyond a bound one that can be spared is closed, else the new one.
	// Zero means 512, and for MaxRaft 256, each of which costs Raft 260 kB.
	MaxNew, MaxCalls, MaxRaft int

	Logger *slog.Logger // nil discards
}

// withDefaults returns a complete and valid copy of c, or every reason why there is none.
func (c Config) withDefaults() (Config, error) {
	var errs []error
	if c.Addr == "" {
		errs = append(errs, errors.New("Addr is empty"))
	}
	errs = append(errs, c.TLS.check())
	if c.FirstByte < 0 {
		errs = append(errs, fmt.Errorf("FirstByte is %s: must not be negative", c.FirstByte))
	}
	if c.MaxNew < 0 || c.MaxCalls < 0 || c.MaxRaft < 0 {
		errs = append(errs, errors.New("a bound on connections is negative"))
	}
	c.FirstByte = cmp.Or(c.FirstByte, 30*time.Second)
	c.MaxNew = cmp.Or(c.MaxNew, 512)
	c.MaxCalls = cmp.Or(c.MaxCalls, 512)
	c.MaxRaft = cmp.Or(c.MaxRaft, 256)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, errors.Join(errs...)
}

// Mux is the port that Raft and the calls of peers share. It accepts connections, waits for their
// first byte and hands them to one of its halves.
type Mux struct {
	cfg   Config
	log   *slog.Logger
	lines *certs.Complaints
	ln    net.Listener
	raft  *half
	calls *half
	fresh *half // connections whose first byte has not arrived
	greet *greeter

	stop context.CancelFunc
	done sync.WaitGroup // the acceptor and those who wait for first bytes

	handled, unknown atomic.Int64
}

// Listen opens the port. Connections are accepted from then on, and wait for whoever accepts from
// the half they belong to.
func Listen(cfg Config) (*Mux, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", cfg.Addr)
	if err != nil {
		return nil, err
	}
	cfg.Advertise = cmp.Or(cfg.Advertise, ln.Addr().String())
	m := &Mux{
		cfg:   cfg,
		log:   cfg.Logger,
		lines: certs.NewComplaints(cfg.Logger),
		ln:    ln,
		raft:  newHalf(cfg.Advertise, cfg.MaxRaft),
		calls: newHalf(cfg.Advertise, cfg.MaxCalls),
		fresh: newHalf(cfg.Advertise, cfg.MaxNew),
		greet: newGreeter(cfg.TLS.Listen, cfg.Logger),
	}
	ctx, stop := context.WithCancel(context.Background())
	m.stop = stop
	m.done.Go(func() { m.accept(ctx) })
	return m, nil
}

// Layer returns the half that carries Raft. Its address is the advertised one. Closing it ends
// the connections it accepted and dialled.
func (m *Mux) Layer() raft.StreamLayer { return &layer{half: m.raft, tls: m.cfg.TLS, log: m.lines} }

// Calls returns the half that carries calls. Its address is the advertised one.
func (m *Mux) Calls() net.Listener { return callsListener{m.calls} }

// Addr returns the address that peers use.
func (m *Mux) Addr() string { return m.cfg.Advertise }

// Close ends the acceptor and every connection, and waits for the Mux's goroutines.
func (m *Mux) Close() error {
	m.stop()
	err := m.ln.Close()
	if errors.Is(err, net.ErrClosed) {
		err = nil // closed before
	}
	for _, h := range []*half{m.fresh, m.calls, m.raft} {
		h.end()
	}
	m.done.Wait()
	return err
}

// accept runs until ctx ends. What keeps it from accepting, such as a lack of descriptors, passes.
func (m *Mux) accept(ctx context.Context) {
	const firstPause, lastPause = 5 * time.Millisecond, time.Second
	pause := firstPause
	for {
		conn, err := m.ln.Accept()
		if err == nil {
			pause = firstPause
			m.take(ctx, conn)
			continue
		}
		if ctx.Err() != nil {
			return
		}
		m.lines.Warn("connection not accepted", err.Error())
		if m.relieve() {
			pause = firstPause
		}
		rest(ctx, pause)
		pause = min(2*pause, lastPause)
	}
}

// take has conn sorted. If it has a scarce descriptor it goes, and another one with it, which makes room for the
// connection that follows.
func (m *Mux) take(ctx context.Context, conn net.Conn) {
	if !budget.Scarce(conn) {
		m.done.Go(func() { m.sort(ctx, conn) })
		return
	}
	m.relieve()
	m.fresh.refused.Add(1)
	conn.Close()
}

// rest waits, but not longer than ctx lasts.
func rest(ctx context.Context, pause time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(pause):
	}
}

// relieve closes a connection that can be spared, for the sake of its descriptor, and reports whether there was
// one.
func (m *Mux) relieve() bool { return m.fresh.relieve() || m.calls.relieve() || m.raft.relieve() }

// sort waits for the first byte of conn and gives it to the half that the byte names. Others are
// closed without a word: they are HTTP clients, TLS clients and port scanners.
func (m *Mux) sort(ctx context.Context, raw net.Conn) {
	held := m.fresh.hold(raw, false)
	if held == nil {
		return
	}
	conn, first, err := m.first(ctx, raw)
	m.fresh.release(held)
	h := m.halfOf(first)
	if err != nil || h == nil {
		if err == nil {
			m.unknown.Add(1)
		}
		raw.Close()
		return
	}
	m.handled.Add(1)
	if first == byteCompressed {
		conn = newInflated(conn)
	}
	h.deliver(conn)
}

// first returns raw, decrypted if need be, and its first byte, all of which has to come in time.
func (m *Mux) first(ctx context.Context, raw net.Conn) (net.Conn, byte, error) {
	if err := raw.SetDeadline(time.Now().Add(m.cfg.FirstByte)); err != nil {
		return nil, 0, err
	}
	conn, first, err := m.greet.greet(ctx, raw)
	if err != nil {
		return nil, 0, err
	}
	return conn, first, conn.SetDeadline(time.Time{})
}

func (m *Mux) halfOf(first byte) *half {
	switch first {
	case byteRaft, byteCompressed:
		return m.raft
	case byteCalls:
		return m.calls
	}
	return nil
}

// MuxStatus is the "mux" object of /status.
type MuxStatus struct {
	Addr     string `json:"addr"`
	Handlers string `json:"handlers"`
	Timeout  string `json:"timeout"`
	TLS      string `json:"tls"`
}

// Status describes the Mux for /status.
func (m *Mux) Status() MuxStatus {
	encrypted := "disabled"
	if m.cfg.TLS.enabled() {
		encrypted = "enabled"
	}
	return MuxStatus{
		Addr:     m.ln.Addr().String(),
		Handlers: string([]byte{byteRaft, byteCalls}),
		Timeout:  m.cfg.FirstByte.String(),
		TLS:      encrypted,
	}
}

// Counters returns the "mux" map of /debug/vars.
func (m *Mux) Counters() map[string]int64 {
	return map[string]int64{
		"num_connections_handled":   m.handled.Load(),
		"num_tls_cert_fetched":      m.greet.begun.Load(),
		"num_unregistered_handlers": m.unknown.Load(),
		"num_connections_rejected":  m.fresh.refused.Load() + m.raft.refused.Load(),
		"num_open_calls":            m.calls.open(), // connections now
		"num_open_raft":             m.raft.open(),  // the same
		"num_connections_evicted":   m.fresh.evicted.Load() + m.raft.evicted.Load() + m.calls.evicted.Load(),
	}
}

// Rejected returns the number of connections for calls that were closed because there were too
// many, which is "num_conn_rejected" in the "cluster" map of /debug/vars.
func (m *Mux) Rejected() int64 { return m.calls.refused.Load() }
