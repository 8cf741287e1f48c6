package cluster

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/hashicorp/raft"

	"rqlited/internal/certs"
)

// Raft decodes what it receives without bounds: a length of 4 GiB for a time is allocated at once,
// an entry that is nil, has an unknown type, or holds no configuration where it should ends the
// process, and the size of a snapshot that is only claimed keeps its main loop waiting. guard
// therefore reads along, and Raft gets to see no byte of a message before what stands in front of
// it was found to be in order.

const (
	maxEntryData     = 2<<30 + 1<<20 // a log entry: the bound of package command and its envelope
	maxMessageData   = 4 << 30       // the data of all entries of a message
	maxMessageRest   = 1 << 20       // everything else in a message
	maxEntries       = 1024          // of a message, which is also Raft's own bound
	maxConfiguration = 256 << 10     // encoded
	maxSnapshot      = 1 << 44       // a snapshot stream
	maxDepth         = 8             // of values within values
	maxKey           = 64

	// raftStall is how long a peer may pause within a message; Raft's dialler gives up after as
	// long. Between messages it may pause for ever.
	raftStall = 10 * time.Second

	guardBuffer = 32 << 10
)

// The types of Raft's messages that guard treats apart from the others.
const (
	raftAppendEntries   = 0
	raftInstallSnapshot = 2
	raftLastType        = 4 // RequestPreVote
)

// guard is a connection that a peer opened for Raft. It is used by one reader at a time.
type guard struct {
	net.Conn
	r   *bufio.Reader
	log *certs.Complaints

	buf  []byte // holds out; reused once all of out was read
	out  []byte // checked, not read yet
	raw  int64  // bytes after out that need no check
	open bool   // a message has begun
	err  error  // sticky

	stack []level
	msg   message
	entry entry
	data  []byte // of the entry, if it is small enough to be a configuration
	rest  int    // bytes that the message may still have outside the data of entries
}

// scope says what a value that holds others is.
type scope uint8

const (
	scopeMessage scope = iota // the fields of a message
	scopeEntries              // its log entries
	scopeEntry                // the fields of one of them
	scopeOther                // a value that Raft does not know and skips
)

// level is a value that has begun and not ended.
type level struct {
	scope scope
	left  uint32 // elements or pairs that follow
	pairs bool
	seen  uint32 // known fields so far; a field that stood twice would merge in Raft's decoder
}

// message is what has to be remembered of a message until it ends.
type message struct {
	kind            byte
	first, entries  int64 // index of the first entry, and their number
	data            int64 // bytes of all entries
	protocol        int64
	previous        int64
	size            int64
	snapshotVersion int64
	configuration   []byte
}

// entry is what has to be remembered of a log entry until it ends.
type entry struct {
	index, typ int64
	large      bool // data is not in guard.data
}

func newGuard(conn net.Conn, log *certs.Complaints) *guard {
	g := &guard{Conn: conn, log: log}
	g.r = bufio.NewReaderSize(guardSource{g}, guardBuffer)
	return g
}

// guardSource is the connection with a deadline while a message has begun.
type guardSource struct{ g *guard }

func (s guardSource) Read(p []byte) (int, error) {
	var deadline time.Time
	if s.g.open {
		deadline = time.Now().Add(raftStall)
	}
	if err := s.g.Conn.SetReadDeadline(deadline); err != nil {
		return 0, err
	}
	return s.g.Conn.Read(p)
}

// Read returns checked bytes. A message that is not in order, or not complete, ends the stream with
// io.EOF, which Raft takes for a peer that hung up, and is logged here: Raft would not say whose it
// was. So does closing the connection, which Raft would otherwise report as an error at every shutdown.
func (g *guard) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if len(g.out) == 0 && g.raw == 0 && g.err == nil {
		g.fill()
	}
	switch {
	case len(g.out) > 0 && g.err == nil:
		n := copy(p, g.out)
		g.out = g.out[n:]
		return n, nil
	case g.raw > 0 && g.err == nil:
		return g.pass(p)
	case refused(g.err), g.cutOff(), g.stalled(), errors.Is(g.err, net.ErrClosed):
		return 0, io.EOF
	}
	return 0, g.err
}

// refused reports whether err says that a message is not in order.
func refused(err error) bool { return errors.Is(err, ErrMalformed) || errors.Is(err, ErrTooLarge) }

// cutOff reports whether the peer hung up within a message. A snapshot that follows one is not
// part of it: Raft has to hear that it is not whole.
func (g *guard) cutOff() bool { return g.raw == 0 && errors.Is(g.err, io.ErrUnexpectedEOF) }

// stalled reports whether the peer has paused for too long within a message.
func (g *guard) stalled() bool { return g.raw == 0 && errors.Is(g.err, os.ErrDeadlineExceeded) }

// fill checks the next part of a message, and as much more as has arrived already.
func (g *guard) fill() {
	g.out = g.buf[:0]
	defer func() { g.buf = g.out }()
	for {
		g.err = g.step()
		if g.err != nil {
			if g.err == io.EOF && g.open {
				g.err = io.ErrUnexpectedEOF
			}
			switch {
			case refused(g.err):
				g.log.Warn("raft message refused", g.err.Error(), slog.String("peer", g.RemoteAddr().String()))
			case g.stalled():
				g.log.Warn("raft message stalled", g.err.Error(), slog.String("peer", g.RemoteAddr().String()))
			case g.cutOff():
				g.log.Warn("raft message cut off, the peer hung up", g.err.Error(), slog.String("peer", g.RemoteAddr().String()))
			}
			return
		}
		if !g.open || g.raw > 0 || g.r.Buffered() == 0 || len(g.out) >= guardBuffer {
			return
		}
	}
}

// pass reads bytes that need no check.
func (g *guard) pass(p []byte) (int, error) {
	n, err := g.r.Read(p[:min(int64(len(p)), g.raw)])
	g.raw -= int64(n)
	if err == io.EOF && g.raw > 0 {
		err = io.ErrUnexpectedEOF
	}
	g.open = g.raw > 0 || len(g.stack) > 0
	if n > 0 {
		return n, nil
	}
	g.err = err
	return 0, err
}

// step checks the next value.
func (g *guard) step() error {
	if len(g.stack) == 0 {
		if err := g.begin(); err != nil {
			return err
		}
	} else if err := g.element(&g.stack[len(g.stack)-1]); err != nil {
		return err
	}
	for len(g.stack) > 0 && g.stack[len(g.stack)-1].left == 0 {
		ended := g.stack[len(g.stack)-1].scope
		g.stack = g.stack[:len(g.stack)-1]
		if err := g.end(ended); err != nil {
			return err
		}
	}
	g.open = g.raw > 0 || len(g.stack) > 0
	return nil
}

// begin reads the start of a message: its type, and how many fields it has.
func (g *guard) begin() error {
	kind, err := g.r.ReadByte()
	if err != nil {
		return err
	}
	if kind > raftLastType {
		return fmt.Errorf("raft message of type %d: %w", kind, ErrMalformed)
	}
	g.open = true
	g.out = append(g.out, kind)
	g.msg = message{kind: kind}
	g.rest = maxMessageRest
	t, err := g.token()
	if err != nil {
		return err
	}
	return g.push(scopeMessage, t, kindMap)
}

// push enters the value that t begins, which has to be of the kind want.
func (g *guard) push(s scope, t token, want kind) error {
	if t.kind != want {
		return fmt.Errorf("raft message: value of kind %d where %d belongs: %w", t.kind, want, ErrMalformed)
	}
	if len(g.stack) == maxDepth {
		return fmt.Errorf("raft message: values nested too deeply: %w", ErrMalformed)
	}
	g.stack = append(g.stack, level{scope: s, left: t.size, pairs: t.kind == kindMap})
	return nil
}

// element checks the next element of l.
func (g *guard) element(l *level) error {
	l.left--
	var f *field
	if l.pairs {
		key, err := g.key()
		if err != nil {
			return err
		}
		if f = fieldsOf(l.scope)[string(key)]; f != nil {
			if l.seen&f.bit != 0 {
				return fmt.Errorf("raft message: %s stands twice: %w", key, ErrMalformed)
			}
			l.seen |= f.bit
		}
	}
	t, err := g.token()
	switch {
	case err != nil:
		return err
	case l.scope == scopeEntries:
		g.entry, g.data = entry{}, g.data[:0]
		if g.msg.entries++; g.msg.entries > maxEntries {
			return fmt.Errorf("raft message of more than %d entries: %w", maxEntries, ErrTooLarge)
		}
		return g.push(scopeEntry, t, kindMap)
	case f == nil:
		return g.skip(t)
	case t.kind == kindNil:
		return nil // the field keeps its zero value
	}
	return f.check(g, t)
}

// skip checks a value that Raft does not know, and so leaves out.
func (g *guard) skip(t token) error {
	switch t.kind {
	case kindBytes:
		_, err := g.bytes(t, maxMessageRest)
		return err
	case kindArray, kindMap:
		return g.push(scopeOther, t, t.kind)
	case kindExt:
		return fmt.Errorf("raft message: unknown extension: %w", ErrMalformed)
	}
	return nil
}

// end checks what can only be said at the end of a value.
func (g *guard) end(s scope) error {
	switch s {
	case scopeEntry:
		return g.endEntry()
	case scopeMessage:
		return g.endMessage()
	}
	return nil
}

func (g *guard) endMessage() error {
	// No release has ever spoken another version; random bytes that are a message by chance are
	// told by its absence.
	if g.msg.protocol != int64(raft.ProtocolVersionMax) {
		return fmt.Errorf("raft message of protocol version %d: %w", g.msg.protocol, ErrMalformed)
	}
	switch g.msg.kind {
	case raftAppendEntries:
		// Raft asks its log for the entries up to the last one, and ends the process if one of
		// them is not there.
		if g.msg.entries > 0 && g.msg.first != g.msg.previous+1 {
			return fmt.Errorf("raft message: entry %d follows %d: %w", g.msg.first, g.msg.previous, ErrMalformed)
		}
	case raftInstallSnapshot:
		if g.msg.size > maxSnapshot {
			return fmt.Errorf("snapshot of %d bytes: %w", g.msg.size, ErrTooLarge)
		}
		if g.msg.snapshotVersion != int64(raft.SnapshotVersionMax) {
			return fmt.Errorf("snapshot of version %d: %w", g.msg.snapshotVersion, ErrMalformed)
		}
		if err := checkConfiguration(g.msg.configuration); err != nil {
			return err
		}
		g.raw = g.msg.size
	}
	prove(g.Conn)
	return nil
}

func (g *guard) endEntry() error {
	if g.msg.entries == 1 {
		g.msg.first = g.entry.index
	} else if want := g.msg.first + g.msg.entries - 1; g.entry.index != want {
		return fmt.Errorf("raft message: entry %d where %d belongs: %w", g.entry.index, want, ErrMalformed)
	}
	switch raft.LogType(g.entry.typ) {
	case raft.LogCommand, raft.LogNoop, raft.LogBarrier:
		return nil
	case raft.LogConfiguration:
		if g.entry.large {
			return fmt.Errorf("configuration in entry %d: %w", g.entry.index, ErrTooLarge)
		}
		return checkConfiguration(g.data)
	}
	return fmt.Errorf("raft entry of type %d: %w", g.entry.typ, ErrMalformed)
}

// key reads the name of a field.
func (g *guard) key() ([]byte, error) {
	t, err := g.token()
	if err != nil {
		return nil, err
	}
	if t.kind != kindBytes {
		return nil, fmt.Errorf("raft message: key of kind %d: %w", t.kind, ErrMalformed)
	}
	return g.bytes(t, maxKey)
}

// token reads the head of a value.
func (g *guard) token() (token, error) {
	before := len(g.out)
	t, out, err := readToken(g.r, g.out)
	g.out = out
	if err != nil {
		return token{}, err
	}
	return t, g.spend(len(out) - before)
}

// spend counts n bytes of the message.
func (g *guard) spend(n int) error {
	if g.rest -= n; g.rest < 0 {
		return fmt.Errorf("raft message: %w", ErrTooLarge)
	}
	return nil
}

// bytes reads the text that follows t. The result is valid until the next read.
func (g *guard) bytes(t token, limit int) ([]byte, error) {
	if t.kind != kindBytes && t.kind != kindExt {
		return nil, fmt.Errorf("raft message: value of kind %d where text belongs: %w", t.kind, ErrMalformed)
	}
	if int64(t.size) > int64(limit) {
		return nil, fmt.Errorf("raft message: text of %d bytes: %w", t.size, ErrTooLarge)
	}
	if err := g.spend(int(t.size)); err != nil {
		return nil, err
	}
	return g.read(int(t.size))
}

// read moves n bytes, which have to be bounded, to out.
func (g *guard) read(n int) ([]byte, error) {
	before := len(g.out)
	g.out = append(g.out, make([]byte, n)...)
	_, err := io.ReadFull(g.r, g.out[before:])
	return g.out[before:], err
}

// checkConfiguration makes sure that Raft can decode b, which it does without asking, and that it
// names a cluster that can have a leader.
func checkConfiguration(b []byte) (err error) {
	defer func() {
		// The only decoder there is panics if it cannot.
		if r := recover(); r != nil {
			err = fmt.Errorf("raft configuration: %v: %w", r, ErrMalformed)
		}
	}()
	voters := 0
	ids, addrs := map[raft.ServerID]bool{}, map[raft.ServerAddress]bool{}
	for _, s := range raft.DecodeConfiguration(b).Servers {
		if s.ID == "" || s.Address == "" || ids[s.ID] || addrs[s.Address] {
			return fmt.Errorf("raft configuration: server %q at %q: %w", s.ID, s.Address, ErrMalformed)
		}
		ids[s.ID], addrs[s.Address] = true, true
		if s.Suffrage == raft.Voter {
			voters++
		}
	}
	if voters == 0 {
		return fmt.Errorf("raft configuration without a voter: %w", ErrMalformed)
	}
	return nil
}
