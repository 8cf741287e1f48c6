package cluster

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
	"time"

	"rqlited/command"
	"rqlited/store"
)

// clientSlack is how many times longer than in other calls the caller may be silent: it may be waiting for a client of
// its own, to which it grants about as much.
const clientSlack = 3

// beats calls f time and again until stop is called, which waits for that, or until f fails, of which failed is told.
func beats(every time.Duration, f func() error, failed func(error)) (stop func()) {
	end := make(chan struct{})
	var done sync.WaitGroup
	done.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-end:
				return
			case <-tick.C:
			}
			if err := f(); err != nil {
				failed(fmt.Errorf("caller has gone: %w", err))
				return
			}
		}
	})
	return func() { close(end); done.Wait() }
}

// beatIn returns how often a caller that has sent body wants to hear something.
func beatIn(body []byte) (time.Duration, error) {
	every := beatEvery
	err := command.EachField(body, func(f command.Field) error {
		if f.Num == fieldBeat && f.Bits > 0 {
			every = min(max(time.Duration(min(f.Bits, math.MaxInt64)), minBeat), beatEvery)
		}
		return nil
	})
	return every, err
}

// backupStream answers c with a frame, and if that has no error with the compressed backup. An error that
// comes too late for the frame ends the connection, so that the caller does not take a part for the whole.
func (s *Service) backupStream(ctx context.Context, p *caller, c *call) error {
	req, err := command.DecodeBackupRequest(c.body)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	every, err := beatIn(c.body)
	if err != nil {
		return err
	}
	ctx, end := p.watch(ctx)
	defer end()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := &backupWriter{out: bufio.NewWriterSize(stalling{p, clientSlack * s.cfg.Stall}, frameChunk)}
	stop := beats(every, w.beat, cancel)
	err = s.node.Backup(ctx, req, w)
	stop()
	if err == nil {
		return w.end()
	}
	if w.begun() {
		s.log.Warn("backup for another node cut off", "peer", p.RemoteAddr().String(), "err", err)
		return err
	}
	return writeFrame(p, endFrame(outcome{err: store.Text(err)}.append(beginFrame(nil))), s.cfg.Stall)
}

// backupWriter sends a backup. The frame in front of it goes out with the first byte, or when the caller has to hear
// something.
type backupWriter struct {
	mu     sync.Mutex
	out    *bufio.Writer
	z      *gzip.Writer // nil before the frame is sent; guarded by mu
	active bool         // since the last beat; guarded by mu
}

// begin sends the frame. It needs mu.
func (w *backupWriter) begin() error {
	if w.z != nil {
		return nil
	}
	z, err := gzip.NewWriterLevel(w.out, gzip.BestSpeed)
	if err != nil {
		return err
	}
	w.z = z
	_, err = w.out.Write(endFrame(beginFrame(nil)))
	return err
}

func (w *backupWriter) begun() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.z != nil
}

func (w *backupWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.begin(); err != nil {
		return 0, err
	}
	w.active = true
	return w.z.Write(p)
}

// beat lets the caller know that the backup goes on: an empty block is a part of the compressed data.
func (w *backupWriter) beat() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.active {
		w.active = false
		return nil
	}
	return errors.Join(w.begin(), w.z.Flush(), w.out.Flush())
}

func (w *backupWriter) end() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.begin(); err != nil {
		return err
	}
	return errors.Join(w.z.Close(), w.out.Flush())
}

// loadStream answers c: once the node wants to read the file, it is asked for, and arrives in frames.
func (s *Service) loadStream(ctx context.Context, p *caller, c *call) error {
	every, err := beatIn(c.body)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	in := bufio.NewReaderSize(io.MultiReader(bytes.NewReader(p.early), stalling{p, clientSlack * s.cfg.Stall}), frameChunk)
	p.early = nil
	var mu sync.Mutex // of writing
	say := func(a loadAnswer) error {
		mu.Lock()
		defer mu.Unlock()
		return writeFrame(p, endFrame(a.append(beginFrame(nil))), s.cfg.Stall)
	}
	r := &chunkReader{in: in, begin: func() error { return say(loadAnswer{state: loadReceive}) }}
	stop := beats(every, func() error { return say(loadAnswer{state: loadWaits}) }, cancel)
	_, err = s.node.Load(ctx, r)
	stop()
	if err := say(loadAnswer{outcome: outcome{err: requestText(err)}}); err != nil {
		return err
	}
	switch {
	case !r.begun, r.ended && in.Buffered() == 0:
		return nil
	case !r.ended:
		// The caller stops sending when it has read the answer, which it could not if the connection ended before.
		_ = p.SetReadDeadline(time.Now().Add(s.cfg.Stall))
		_, _ = io.Copy(io.Discard, p)
	}
	return errLoadCut
}

// errLoadCut ends the connection of a load that did not take the whole file.
var errLoadCut = errors.New("cluster: load was not sent to its end")

// chunkReader reads the frames of a file, the last of which is empty. It asks for them first.
type chunkReader struct {
	in    *bufio.Reader
	begin func() error
	begun bool
	ended bool
	left  int // bytes of the frame
}

func (r *chunkReader) Read(p []byte) (int, error) {
	if !r.begun {
		r.begun = true
		if err := r.begin(); err != nil {
			return 0, err
		}
	}
	for r.left == 0 && !r.ended {
		length, err := readLength(r.in, frameChunk)
		if err != nil {
			return 0, noEnd(err)
		}
		r.left, r.ended = length, length == 0
	}
	if r.ended {
		return 0, io.EOF
	}
	n, err := r.in.Read(p[:min(len(p), r.left)])
	r.left -= n
	return n, noEnd(err)
}

// noEnd makes the end of a connection one that came too early: half of a file may be a file.
func noEnd(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// load carries out a callLoad, in which the file is a part of the message, and appends the answer to out.
func (s *Service) load(ctx context.Context, out []byte, c *call, failed error) ([]byte, error) {
	var r io.Reader = c.file
	if c.file == nil && failed == nil {
		data, err := decodeLoad(c.body)
		if err != nil {
			return nil, err
		}
		r = bytes.NewReader(data)
	}
	text := store.Text(failed)
	if failed == nil {
		_, err := s.node.Load(ctx, r)
		if text = requestText(err); text != "" && text != refusedLeader {
			text = loadFailed + text
		}
	}
	if c.file != nil { // the answer is read when all is sent
		if _, err := io.Copy(io.Discard, c.file); err != nil {
			return nil, err
		}
	}
	return outcome{err: text}.append(out), nil
}

// decodeLoad decodes a LoadRequest.
func decodeLoad(b []byte) (data []byte, err error) {
	err = command.EachField(b, func(f command.Field) error {
		if f.Num == 1 && f.Message() {
			data = f.Bytes
		}
		return nil
	})
	return data, err
}
