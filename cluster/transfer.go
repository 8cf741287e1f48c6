package cluster

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"rqlited/command"
	"rqlited/store"
)

// Whole databases are carried in pieces, so that neither side needs memory for them, and no time bounds
// the whole: as long as the other side shows that it lives, it may go on.
const (
	// beatEvery is how often a node that is at work on a transfer says so, unless the caller wants to hear
	// from it more often.
	beatEvery = 10 * time.Second
	minBeat   = 20 * time.Millisecond

	// fieldBeat, of a BackupRequest and of a LoadStreamRequest, is how often, in nanoseconds.
	fieldBeat = 1000

	// fieldState, of the answers to a callLoadStream, is a loadState.
	fieldState = 1000

	// maxLoadFrame bounds a call with a SQLite file in it, as rqlite makes it: the file is not kept in memory.
	maxLoadFrame = 4 << 30
)

// loadFailed stands in front of why a node of rqlite has not carried out a callLoad.
const loadFailed = "remote node failed to load: "

// loadState says what an answer to a callLoadStream means.
type loadState uint64

const (
	loadOver    loadState = 0 // the outcome; nothing follows
	loadWaits   loadState = 1 // nothing has changed
	loadReceive loadState = 2 // the file may be sent
)

// stalling is a connection whose other side may take any time, but may not stop.
type stalling struct {
	net.Conn
	wait time.Duration
}

func (s stalling) Read(p []byte) (int, error) {
	if err := s.SetReadDeadline(time.Now().Add(s.wait)); err != nil {
		return 0, err
	}
	return s.Conn.Read(p)
}

func (s stalling) Write(p []byte) (int, error) {
	if err := writeFrame(s.Conn, p, s.wait); err != nil {
		return 0, err
	}
	return len(p), nil
}

// transferred is how a transfer has ended: with an answer, after which the connection may be good for
// another call, or without.
type transferred struct {
	answer outcome
	clean  bool // the connection stands between two calls
	sent   bool // of no answer: the node may have acted all the same
}

// transfer has f send cl to addr and go on from there. It is tried once. Errors are those of Do.
func (c *Client) transfer(ctx context.Context, addr string, cl *call, timeout time.Duration,
	f func(conn stalling) (transferred, error),
) error {
	timeout = cmp.Or(timeout, callTimeout)
	p, err := c.enter(addr)
	if err != nil {
		return err
	}
	defer c.leave(addr, p)
	dialing, cancel := context.WithTimeout(ctx, timeout)
	conn, renewed, err := c.take(dialing, addr, p, false)
	cancel()
	if renewed {
		c.counts.fresh.Add(1)
	}
	if err != nil {
		return &CallError{Addr: addr, Err: cause(ctx, err)}
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	end, err := f(stalling{conn, timeout})
	if stop() && err == nil && end.clean {
		c.give(p, conn)
	} else {
		c.drop(p, conn)
	}
	switch {
	case err == nil:
		return remoteError(end.answer.err, acts[cl.typ])
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.counts.readTimeouts.Add(1)
	}
	return &CallError{Addr: addr, Sent: end.sent, Err: err}
}

// Backup has the node at addr make the backup that req asks for and writes it to w. No part of it may stay away for
// longer than timeout; zero means 30 s. Errors are those of Do, and those of w; after the first byte what was
// written is of no use.
func (c *Client) Backup(ctx context.Context, addr string, req *command.BackupRequest, user Credentials, timeout time.Duration, w io.Writer) error {
	body := command.AppendVarint(command.AppendBackupRequest([]byte{}, req), fieldBeat, beatOf(timeout))
	cl := &call{typ: callBackupStream, creds: user, body: body}
	return c.transfer(ctx, addr, cl, timeout, func(conn stalling) (end transferred, err error) {
		if _, err := conn.Write(endFrame(appendCall(beginFrame(nil), cl))); err != nil {
			return end, fmt.Errorf("write protobuf bytes: %w", err)
		}
		in := bufio.NewReaderSize(conn, frameChunk)
		if end.answer, err = readOutcome(in); err != nil || end.answer.err != "" {
			end.clean = in.Buffered() == 0
			return end, err
		}
		// The end of the compressed data is that of the backup: it has a checksum, so that nothing is missing.
		z, err := gzip.NewReader(in)
		if err != nil {
			return end, fmt.Errorf("read backup: %w", err)
		}
		z.Multistream(false)
		if _, err := io.CopyBuffer(struct{ io.Writer }{w}, z, make([]byte, frameChunk)); err != nil {
			return end, fmt.Errorf("copy backup: %w", err)
		}
		end.clean = in.Buffered() == 0
		return end, nil
	})
}

func beatOf(timeout time.Duration) uint64 { return uint64(max(cmp.Or(timeout, callTimeout)/3, 1)) }

func readOutcome(r io.Reader) (outcome, error) {
	answer, err := readFrame(r, nil)
	if err != nil {
		return outcome{}, fmt.Errorf("read protobuf length: %w", err)
	}
	return decodeOutcome(answer)
}

// Load has the leader at addr replace the database by the SQLite file in r, of size bytes, or -1 if that is not known. The
// leader may not be silent for longer than timeout; zero means 30 s. Errors are those of Do and those of r; after
// store.ErrNotLeader nothing was read from r.
func (c *Client) Load(ctx context.Context, addr string, r io.Reader, size int64, user Credentials, timeout time.Duration) error {
	asking, cancel := context.WithTimeout(ctx, cmp.Or(timeout, callTimeout))
	m, err := c.Meta(asking, addr, 0)
	cancel()
	if err != nil {
		return err
	}
	if !m.Streams {
		return c.loadWhole(ctx, addr, r, size, user, timeout)
	}
	cl := &call{typ: callLoadStream, creds: user, body: command.AppendVarint([]byte{}, fieldBeat, beatOf(timeout))}
	return c.transfer(ctx, addr, cl, timeout, func(conn stalling) (transferred, error) {
		return sendFile(conn, cl, r)
	})
}

// loadWhole makes the call that nodes of rqlite know, in which the file is one message.
func (c *Client) loadWhole(ctx context.Context, addr string, r io.Reader, size int64, user Credentials, timeout time.Duration) error {
	if size < 0 {
		return &store.RequestError{Msg: "the leader is a node of rqlite, which has to know the length of a SQLite file before it comes"}
	}
	cl := &call{typ: callLoad, creds: user}
	err := c.transfer(ctx, addr, cl, timeout, func(conn stalling) (end transferred, err error) {
		if _, err := conn.Write(appendFileCall(nil, cl, size)); err != nil {
			return end, fmt.Errorf("write protobuf bytes: %w", err)
		}
		n, err := io.CopyBuffer(conn, io.LimitReader(r, size), make([]byte, frameChunk))
		if err == nil && n < size {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return end, fmt.Errorf("send SQLite file: %w", err)
		}
		end.sent = true
		end.answer, err = readOutcome(conn)
		end.clean = err == nil
		if rest, ok := strings.CutPrefix(end.answer.err, loadFailed); ok {
			if _, unknown := errors.AsType[*store.RequestError](store.FromText(rest)); !unknown {
				end.answer.err = rest
			}
		}
		return end, err
	})
	if errors.Is(err, store.ErrNotLeader) {
		return store.ErrLeadershipLost // nobody else can be asked: r is used up
	}
	return err
}

// loadAnswer is what answers a callLoadStream, any number of times.
type loadAnswer struct {
	outcome
	state loadState
}

func (a loadAnswer) append(b []byte) []byte {
	return command.AppendVarint(a.outcome.append(b), fieldState, uint64(a.state))
}

func decodeLoadAnswer(b []byte) (a loadAnswer, err error) {
	if a.outcome, err = decodeOutcome(b); err != nil {
		return a, err
	}
	return a, command.EachField(b, func(f command.Field) error {
		if f.Num == fieldState {
			a.state = loadState(f.Bits)
		}
		return nil
	})
}

// nextLoadAnswer reads answers until one says something.
func nextLoadAnswer(conn io.Reader) (loadAnswer, error) {
	for {
		b, err := readFrame(conn, nil)
		if err != nil {
			return loadAnswer{}, fmt.Errorf("read protobuf length: %w", err)
		}
		if a, err := decodeLoadAnswer(b); err != nil || a.state != loadWaits {
			return a, err
		}
	}
}

// sendFile makes the call cl, sends r as soon as the leader wants it, and waits for the outcome. The leader may tell it
// before it has all.
func sendFile(conn stalling, cl *call, r io.Reader) (end transferred, err error) {
	if _, err := conn.Write(endFrame(appendCall(beginFrame(nil), cl))); err != nil {
		return end, fmt.Errorf("write protobuf bytes: %w", err)
	}
	first, err := nextLoadAnswer(conn)
	if err != nil || first.state == loadOver {
		end.answer, end.clean = first.outcome, true
		return end, err
	}
	last, over := loadAnswer{}, make(chan struct{})
	var lastErr error
	go func() {
		defer close(over)
		last, lastErr = nextLoadAnswer(conn)
	}()
	end.sent, err = copyChunks(conn, r, over)
	switch {
	case errors.Is(err, errChunkNotSent):
		defer time.AfterFunc(lastWord, func() { conn.Close() }).Stop()
	case err != nil:
		conn.Close() // r has failed: the leader has to see that there is no end
	}
	<-over
	switch {
	case lastErr == nil: // an outcome counts, whatever has happened on the way to it
		end.answer, end.clean = last.outcome, end.sent
		return end, nil
	case err != nil:
		return end, err
	}
	return end, lastErr
}

// errChunkNotSent means that the other side did not take a part of a file.
var errChunkNotSent = errors.New("send SQLite file")

// lastWord is how long a leader that takes no more of a file may still say why.
const lastWord = time.Second

// chunkPause is after what time a part of a file is sent on although there would be room for more in the frame.
const chunkPause = time.Second

// copyChunks sends r in frames, the last of which is empty, until over is closed. It reports whether it has begun to
// send the last.
func copyChunks(w io.Writer, r io.Reader, over <-chan struct{}) (whole bool, err error) {
	frame := make([]byte, frameHeader+frameChunk)
	have, flushed := 0, time.Time{}
	send := func() error {
		if _, err := w.Write(endFrame(frame[:frameHeader+have])); err != nil {
			return fmt.Errorf("%w: %w", errChunkNotSent, err)
		}
		have, flushed = 0, time.Now()
		return nil
	}
	for {
		select {
		case <-over:
			return false, nil
		default:
		}
		n, err := r.Read(frame[frameHeader+have:])
		have += n
		if err != nil && err != io.EOF {
			return false, err
		}
		if have > 0 && (err == io.EOF || have == frameChunk || time.Since(flushed) > chunkPause) {
			if err := send(); err != nil {
				return false, err
			}
		}
		if err == io.EOF {
			return true, send()
		}
	}
}

// file is a SQLite file in a call that is still arriving. One that is cut off has no end.
type file struct {
	r    io.Reader
	left int64
}

func (f *file) Read(p []byte) (int, error) {
	if f.left == 0 {
		return 0, io.EOF
	}
	n, err := f.r.Read(p[:min(int64(len(p)), f.left)])
	f.left -= int64(n)
	return n, noEnd(err)
}

// appendFileCall appends the frame of the call cl up to its file of size bytes, which has to follow.
func appendFileCall(b []byte, cl *call, size int64) []byte {
	data := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.BytesType), uint64(size))
	begin := len(b)
	b = appendCall(beginFrame(b), cl)
	b = protowire.AppendTag(b, bodies[callLoad].field, protowire.BytesType)
	b = append(protowire.AppendVarint(b, uint64(int64(len(data))+size)), data...)
	binary.LittleEndian.PutUint64(b[begin:], uint64(int64(len(b)-begin-frameHeader)+size))
	return b
}

// fileCall recognises a call of size bytes, of which head has the first and r the others, whose last field is a SQLite
// file that begins within head.
func fileCall(head []byte, size int, r io.Reader) (call, bool) {
	c := call{}
	for rest := head; ; {
		num, typ, n := protowire.ConsumeTag(rest)
		if n < 0 {
			return call{}, false
		}
		rest = rest[n:]
		if num == bodies[callLoad].field && typ == protowire.BytesType {
			data, ok := lastData(rest, size-(len(head)-len(rest)))
			c.file = &file{io.MultiReader(bytes.NewReader(data), r), int64(len(data) + size - len(head))}
			return c, ok && c.typ == callLoad
		}
		if n = protowire.ConsumeFieldValue(num, typ, rest); n < 0 {
			return call{}, false
		}
		switch {
		case num == fieldType && typ == protowire.VarintType:
			v, _ := protowire.ConsumeVarint(rest)
			c.typ = callType(min(v, uint64(callLoadStream)))
		case num == fieldCredentials && typ == protowire.BytesType:
			b, _ := protowire.ConsumeBytes(rest)
			if c.creds.decode(b) != nil {
				return call{}, false
			}
		}
		rest = rest[n:]
	}
}

// lastData returns what b has of the data of a LoadRequest, if that and its data end where the message does, after size
// bytes.
func lastData(b []byte, size int) ([]byte, bool) {
	length, n := protowire.ConsumeVarint(b)
	if n < 0 || length != uint64(size-n) {
		return nil, false
	}
	b, size = b[n:], size-n
	num, typ, n := protowire.ConsumeTag(b)
	if n < 0 || num != 1 || typ != protowire.BytesType {
		return nil, false
	}
	b, size = b[n:], size-n
	length, n = protowire.ConsumeVarint(b)
	if n < 0 || length != uint64(size-n) {
		return nil, false
	}
	return b[n:], true
}
