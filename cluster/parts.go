package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"rqlited/command"
)

// Rows that a read returns may be sent in several frames, so that neither node has to hold all of them.
// A caller that can take them says so in its request (fieldParts), and each frame of the answer but the last
// says what follows (fieldFollowing). A node that does not know the fields answers in one frame.

const (
	fieldParts     = 1004 // of a request: the answer may come in parts
	fieldFollowing = 1004 // of a part of an answer

	followsNothing = 0 // the answer is complete
	followsResult  = 1 // another part, which begins with another result
	followsRows    = 2 // another part, which goes on with the last result of this one

	// partRows bounds the rows of one part that are taken from a result which is there as a whole.
	partRows = 1024
)

// wantsParts says whether the request in body may be answered in parts.
func wantsParts(body []byte) bool {
	var wants bool
	err := command.EachField(body, func(f command.Field) error {
		if f.Num == fieldParts {
			wants = f.Bool()
		}
		return nil
	})
	return wants && err == nil
}

// following returns what a part says of the next one.
func following(part []byte) (uint64, error) {
	var next uint64
	err := command.EachField(part, func(f command.Field) error {
		if f.Num == fieldFollowing {
			next = f.Bits
		}
		return nil
	})
	if err == nil && next > followsRows {
		err = fmt.Errorf("part of an answer followed by %d: %w", next, ErrMalformed)
	}
	return next, err
}

// partReader takes an answer in parts.
type partReader struct {
	kind command.Kind
	sink command.Sink
	addr string // of the node that answers
	open bool   // the next part has to go on with a result
}

// again begins another attempt, if that is possible.
func (p *partReader) again() bool {
	p.open = false
	return p.sink.Begin(p.addr)
}

// take hands on the results in part, unless it is the last. That is left to the caller, and may be a whole
// answer.
func (p *partReader) take(part []byte) (more bool, err error) {
	next, err := following(part)
	if err != nil || next == followsNothing {
		return false, err
	}
	resp, text, err := command.DecodeResponse(p.kind, part)
	if err != nil {
		return false, err
	}
	if text != "" {
		return false, fmt.Errorf("error %q amid an answer: %w", text, ErrMalformed)
	}
	for i := range resp.Results {
		p.open = next == followsRows && i == len(resp.Results)-1
		if err := p.sink.Take(&resp.Results[i], p.open); err != nil {
			return false, err
		}
	}
	return true, nil
}

// complete returns an error if there ought to be more behind the last part.
func (p *partReader) complete(last *command.Response) error {
	if p != nil && p.open && len(last.Results) == 0 {
		return fmt.Errorf("answer ends amid a result: %w", ErrMalformed)
	}
	return nil
}

// partWriter sends results in parts. It is a command.Sink.
type partWriter struct {
	kind   command.Kind
	caller *caller
	buf    []byte // the frame that has been begun
	err    error  // of the connection, which then makes no sense
}

// Begin implements command.Sink; there is one attempt only.
func (p *partWriter) Begin(string) bool { return true }

// Take implements command.Sink.
func (p *partWriter) Take(r *command.Result, more bool) error {
	rest := *r
	for rest.Rows != nil && len(rest.Rows.Values) > partRows {
		rows := *rest.Rows
		part := command.Result{Rows: &command.Rows{Columns: rows.Columns, Types: rows.Types, Values: rows.Values[:partRows]}}
		if err := p.add(&part, true); err != nil {
			return err
		}
		rest.Rows = &command.Rows{Values: rows.Values[partRows:]}
	}
	return p.add(&rest, more)
}

func (p *partWriter) add(r *command.Result, more bool) error {
	p.buf = command.AppendResponse(p.buf, p.kind, &command.Response{Results: []command.Result{*r}}, "")
	switch {
	case more:
		return p.send(followsRows)
	case len(p.buf) >= frameChunk:
		return p.send(followsResult)
	}
	return nil
}

func (p *partWriter) send(next uint64) error {
	frame := endFrame(command.AppendVarint(p.buf, fieldFollowing, next))
	if len(frame) > maxFrame+frameHeader {
		return fmt.Errorf("part of an answer of %d bytes: %w", len(frame), ErrTooLarge)
	}
	p.err = writeFrame(p.caller, frame, p.caller.stall)
	p.buf = beginFrame(reusable(frame))
	return p.err
}

// inParts runs req and sends its results as they come. It returns the last part, which follows out: that is
// the whole answer if there is not much of it.
func (s *Service) inParts(ctx context.Context, out []byte, req *command.Request, p *caller) ([]byte, error) {
	w := &partWriter{kind: req.Kind, caller: p, buf: out}
	req.Sink = w
	resp, err := s.node.Do(ctx, req)
	if err == nil {
		for i := 0; i < len(resp.Results) && err == nil; i++ {
			err = w.Take(&resp.Results[i], false)
		}
	}
	if w.err != nil {
		return nil, w.err
	}
	if err != nil {
		return command.AppendResponse(beginFrame(w.buf[:0]), req.Kind, nil, requestText(err)), nil
	}
	return command.AppendResponse(w.buf, req.Kind, &command.Response{Index: resp.Index, Writes: resp.Writes}, ""), nil
}

// caller is a connection on which another node calls.
type caller struct {
	net.Conn
	stall time.Duration // how long the peer may pause within an answer
	early []byte        // of the next call; it came before this one was answered

	in, out []byte // for the next call and its answer
}

// watchAfter is how long a call is carried out before anybody looks whether its caller is still there. Most are
// answered by then.
const watchAfter = 5 * time.Millisecond

// watch returns a context that also ends when the peer leaves, as it does when its client has left. The
// connection may not be read until end has been called.
func (p *caller) watch(ctx context.Context) (watched context.Context, end func()) {
	ctx, cancel := context.WithCancel(ctx)
	var mu sync.Mutex
	ended := false // guarded by mu, as is the deadline: end must have the last word
	done := make(chan struct{})
	timer := time.AfterFunc(watchAfter, func() {
		defer close(done)
		mu.Lock()
		if !ended {
			p.SetReadDeadline(time.Time{})
		}
		mu.Unlock()
		var b [1]byte
		n, err := p.Read(b[:])
		p.early = append(p.early, b[:n]...)
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			cancel()
		}
	})
	return ctx, func() {
		defer cancel()
		if timer.Stop() {
			return
		}
		mu.Lock()
		ended = true
		p.SetReadDeadline(time.Unix(0, 1))
		mu.Unlock()
		<-done
	}
}
