package cluster

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"rqlited/command"
	"rqlited/store"
)

// noise returns n bytes that don't compress.
func noise(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

// TestBackupForwarded has a leader make a backup, which arrives as it is, and on the connection of which further calls
// are made.
func TestBackupForwarded(t *testing.T) {
	data := noise(300_001)
	var asked []command.BackupRequest
	leader := &fakeNode{backup: func(_ context.Context, req *command.BackupRequest, w io.Writer) error {
		asked = append(asked, *req)
		_, err := io.Copy(w, iotest.HalfReader(bytes.NewReader(data)))
		return err
	}}
	addr, s := startService(t, leader, ServiceConfig{URL: "http://leader"})
	local := &fakeNode{backup: func(context.Context, *command.BackupRequest, io.Writer) error { return store.ErrNotLeader }}
	local.setLeader("leader", addr)
	r := newTestRouter(t, local)
	req := &command.BackupRequest{Format: command.BackupSQL, Leader: true, Tables: []string{"a", "b"}}
	for range 3 {
		var got bytes.Buffer
		if err := r.Backup(withTimeout(t), req, command.Forward{}, &got); err != nil || !bytes.Equal(got.Bytes(), data) {
			t.Fatalf("Backup() = %v, %d bytes; want %d", err, got.Len(), len(data))
		}
		if m, err := r.Meta(withTimeout(t), addr, 0); m.URL != "http://leader" || err != nil {
			t.Fatalf("Meta() behind a backup = %+v, %v", m, err)
		}
	}
	for _, got := range asked {
		if got.Format != req.Format || !got.Leader || len(got.Tables) != 2 {
			t.Errorf("the leader was asked for %+v; want %+v", got, req)
		}
	}
	if n := r.client.Pools()[addr].Open; n != 1 {
		t.Errorf("%d connections; want 1", n)
	}
	if n, m := s.Counters()["num_backup_req"], r.Counters()["remote_backups"]; n != 3 || m != 3 {
		t.Errorf("num_backup_req = %d, remote_backups = %d; want 3", n, m)
	}
}

// TestBackupRedirect does not forward what is to be redirected.
func TestBackupRedirect(t *testing.T) {
	local := &fakeNode{
		backup: func(context.Context, *command.BackupRequest, io.Writer) error { return store.ErrNotLeader },
		load:   func(context.Context, io.Reader) error { return store.ErrNotLeader },
	}
	local.setLeader("leader", "127.0.0.1:1")
	r := newTestRouter(t, local)
	if err := r.Backup(withTimeout(t), &command.BackupRequest{}, command.Forward{Never: true}, io.Discard); !errors.Is(err, store.ErrNotLeader) {
		t.Errorf("Backup() = %v; want %v", err, store.ErrNotLeader)
	}
	if _, err := r.Load(withTimeout(t), nil, -1, command.Forward{Never: true}); !errors.Is(err, store.ErrNotLeader) {
		t.Errorf("Load() = %v; want %v", err, store.ErrNotLeader)
	}
}

// TestBackupFails ends backups at several places. What was not sent as an error must not look whole.
func TestBackupFails(t *testing.T) {
	const part = 200_000
	tests := []struct {
		name   string
		before int // bytes before the error
		err    error
		want   error // nil: any
	}{
		{"not the leader", 0, store.ErrNotLeader, store.ErrNotLeader},
		{"no room", 0, store.ErrNoSpace, store.ErrNoSpace},
		{"cut", part, store.ErrNoSpace, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			node := &fakeNode{backup: func(_ context.Context, _ *command.BackupRequest, w io.Writer) error {
				if _, err := w.Write(noise(tt.before)[:tt.before]); tt.before > 0 && err != nil {
					return err
				}
				return tt.err
			}}
			if tt.before == 0 {
				node.backup = func(context.Context, *command.BackupRequest, io.Writer) error { return tt.err }
			}
			addr, _ := startService(t, node, ServiceConfig{})
			c := newTestClient(t, ClientConfig{})
			var got bytes.Buffer
			err := c.Backup(withTimeout(t), addr, &command.BackupRequest{}, Credentials{}, 0, &got)
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("Backup() = %v; want %v", err, tt.want)
			}
			if open, want := c.Pools()[addr].Open, 1; tt.before == 0 && open != want || tt.before > 0 && open != 0 {
				t.Errorf("%d connections are kept", open)
			}
			if _, failed := errors.AsType[*CallError](err); failed != (tt.before > 0) {
				t.Errorf("Backup() = %T", err)
			}
			if _, err := c.Meta(withTimeout(t), addr, 0); err != nil {
				t.Errorf("Meta() after that = %v", err)
			}
		})
	}
}

// TestBackupClientGone has the one who wanted the backup leave before its first byte. The leader notices.
func TestBackupClientGone(t *testing.T) {
	started, ended := make(chan struct{}), make(chan struct{})
	node := &fakeNode{backup: func(ctx context.Context, _ *command.BackupRequest, _ io.Writer) error {
		close(started)
		<-ctx.Done()
		close(ended)
		return ctx.Err()
	}}
	addr, _ := startService(t, node, ServiceConfig{})
	c := newTestClient(t, ClientConfig{})
	ctx, leave := context.WithCancelCause(withTimeout(t))
	gone := errors.New("gone")
	go func() {
		<-started
		leave(gone)
	}()
	if err := c.Backup(ctx, addr, &command.BackupRequest{}, Credentials{}, 0, io.Discard); !errors.Is(err, gone) {
		t.Errorf("Backup() = %v; want %v", err, gone)
	}
	select {
	case <-ended:
	case <-time.After(patience):
		t.Error("the backup goes on")
	}
}

// TestBackupBeats has a leader that takes several times longer than the caller would wait for a dead one, before the
// backup and in the middle of it.
func TestBackupBeats(t *testing.T) {
	const timeout = 300 * time.Millisecond
	pause := func() { <-time.After(2 * timeout) }
	node := &fakeNode{backup: func(_ context.Context, _ *command.BackupRequest, w io.Writer) error {
		pause()
		io.WriteString(w, "first ")
		pause()
		_, err := io.WriteString(w, "second")
		return err
	}}
	addr, _ := startService(t, node, ServiceConfig{})
	c := newTestClient(t, ClientConfig{})
	var got bytes.Buffer
	if err := c.Backup(withTimeout(t), addr, &command.BackupRequest{}, Credentials{}, timeout, &got); err != nil || got.String() != "first second" {
		t.Errorf("Backup() = %v, %q", err, got.String())
	}
	silent := startPeer(t, freeze)
	err := c.Backup(withTimeout(t), silent.addr, &command.BackupRequest{}, Credentials{}, timeout, &got)
	if _, failed := errors.AsType[*CallError](err); !failed || errors.Is(err, store.ErrUnknown) {
		t.Errorf("Backup() from a node that is silent = %v", err)
	}
}

// TestBackupOfRqlite reads a backup as rqlite sends it, whose go-ahead and gzip stream may arrive in any pieces, and one whose
// checksum is wrong.
func TestBackupOfRqlite(t *testing.T) {
	data := noise(70_000)
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	w.Write(data)
	w.Close()
	bad := bytes.Clone(z.Bytes())
	bad[len(bad)-8] ^= 1
	for _, tt := range []struct {
		stream []byte
		ok     bool
	}{{z.Bytes(), true}, {bad, false}, {z.Bytes()[:z.Len()-1], false}} {
		p := startPeer(t, func(p *peer, conn net.Conn, _ int) {
			p.read(conn)
			conn.Write(emptyAnswer)
			io.Copy(conn, iotest.HalfReader(bytes.NewReader(tt.stream)))
		})
		c := newTestClient(t, ClientConfig{})
		var got bytes.Buffer
		err := c.Backup(withTimeout(t), p.addr, &command.BackupRequest{}, Credentials{}, 0, &got)
		if (err == nil) != tt.ok || tt.ok && !bytes.Equal(got.Bytes(), data) {
			t.Errorf("Backup() = %v, %d bytes", err, got.Len())
		}
	}
}

// received keeps what a Load reads.
func received(got *[]byte, err error) func(context.Context, io.Reader) error {
	return func(_ context.Context, r io.Reader) error {
		b, readErr := io.ReadAll(r)
		*got = b
		return errors.Join(readErr, err)
	}
}

// TestLoadForwarded sends files of several sizes to a leader, one behind the other on one connection.
func TestLoadForwarded(t *testing.T) {
	var got []byte
	addr, s := startService(t, &fakeNode{load: received(&got, nil)}, ServiceConfig{})
	local := &fakeNode{load: func(context.Context, io.Reader) error { return store.ErrNotLeader }}
	local.setLeader("leader", addr)
	r := newTestRouter(t, local)
	sizes := []int{0, 1, frameChunk - 1, frameChunk, frameChunk + 1, 5*frameChunk + 7}
	for _, size := range sizes {
		data := noise(size)
		servedBy, err := r.Load(withTimeout(t), iotest.DataErrReader(bytes.NewReader(data)), -1, command.Forward{})
		if err != nil || servedBy != addr || !bytes.Equal(got, data) {
			t.Fatalf("Load() = %s, %v, %d bytes; want %d", servedBy, err, len(got), size)
		}
	}
	if n := r.client.Pools()[addr].Open; n != 1 {
		t.Errorf("%d connections; want 1", n)
	}
	if n, m := s.Counters()["num_load_req"], r.Counters()["remote_loads"]; n != int64(len(sizes)) || m != n {
		t.Errorf("num_load_req = %d, remote_loads = %d; want %d", n, m, len(sizes))
	}
}

// TestLoadRefused holds that nothing is read from the client before the leader is willing, and that what it says
// afterwards arrives, however much of the file it did not want.
func TestLoadRefused(t *testing.T) {
	const large = 64 << 20 // more than the network holds
	tests := []struct {
		name   string
		load   func(context.Context, io.Reader) error
		want   error
		unread bool
	}{
		{"not the leader", func(context.Context, io.Reader) error { return store.ErrNotLeader }, store.ErrNotLeader, true},
		{"in the middle", func(_ context.Context, r io.Reader) error {
			io.CopyN(io.Discard, r, 1<<20)
			return store.ErrNoSpace
		}, store.ErrNoSpace, false},
		{"at the end", func(_ context.Context, r io.Reader) error {
			io.Copy(io.Discard, r)
			return store.ErrInvalidData
		}, store.ErrInvalidData, false},
		{"unknown", func(_ context.Context, r io.Reader) error {
			io.Copy(io.Discard, r)
			return store.ErrLeadershipLost
		}, store.ErrUnknown, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			addr, _ := startService(t, &fakeNode{load: tt.load}, ServiceConfig{})
			c := newTestClient(t, ClientConfig{})
			r := &io.LimitedReader{R: zeros{}, N: large}
			err := c.Load(withTimeout(t), addr, r, -1, Credentials{}, 0)
			if !errors.Is(err, tt.want) || (r.N == large) != tt.unread {
				t.Errorf("Load() = %v with %d bytes left; want %v", err, r.N, tt.want)
			}
			if _, err := c.Meta(withTimeout(t), addr, 0); err != nil {
				t.Errorf("Meta() after that = %v", err)
			}
		})
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// TestLoadCut ends the file before its end, in either form of the call: the leader must not take the part for the whole.
func TestLoadCut(t *testing.T) {
	cut := errors.New("client hung up")
	for _, whole := range []bool{false, true} {
		read := make(chan error, 1)
		node := &fakeNode{load: func(_ context.Context, r io.Reader) error {
			_, err := io.Copy(io.Discard, r)
			read <- err
			return err
		}}
		addr, _ := startService(t, node, ServiceConfig{})
		c := newTestClient(t, ClientConfig{})
		r := io.MultiReader(bytes.NewReader(noise(3*frameChunk)), iotest.ErrReader(cut))
		var err error
		if whole {
			err = c.loadWhole(withTimeout(t), addr, r, 5*frameChunk, Credentials{}, 0)
		} else {
			err = c.Load(withTimeout(t), addr, r, -1, Credentials{}, 0)
		}
		if !errors.Is(err, cut) || errors.Is(err, store.ErrUnknown) {
			t.Errorf("whole %t: Load() = %v; want %v", whole, err, cut)
		}
		if err := <-read; !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("whole %t: the leader read to %v; want %v", whole, err, io.ErrUnexpectedEOF)
		}
	}
}

// TestLoadBeats has the leader work for longer than the caller would wait for a dead one; one that is dead leaves the outcome
// open.
func TestLoadBeats(t *testing.T) {
	const timeout = 300 * time.Millisecond
	node := &fakeNode{load: func(_ context.Context, r io.Reader) error {
		<-time.After(2 * timeout)
		io.Copy(io.Discard, r)
		<-time.After(2 * timeout)
		return nil
	}}
	addr, _ := startService(t, node, ServiceConfig{})
	c := newTestClient(t, ClientConfig{})
	if err := c.Load(withTimeout(t), addr, strings.NewReader("file"), -1, Credentials{}, timeout); err != nil {
		t.Errorf("Load() = %v", err)
	}
	dead := startPeer(t, func(p *peer, conn net.Conn, _ int) {
		p.read(conn)
		conn.Write(endFrame(Meta{Streams: true}.append(beginFrame(nil))))
		p.read(conn)
		conn.Write(endFrame(loadAnswer{state: loadReceive}.append(beginFrame(nil))))
		freeze(p, conn, 0)
	})
	if err := c.Load(withTimeout(t), dead.addr, strings.NewReader("file"), -1, Credentials{}, timeout); !errors.Is(err, store.ErrUnknown) {
		t.Errorf("Load() by a leader that dies = %v; want %v", err, store.ErrUnknown)
	}
}

// TestLoadClientGone has the one who loads leave when all is sent.
func TestLoadClientGone(t *testing.T) {
	sent, ended := make(chan struct{}), make(chan struct{})
	node := &fakeNode{load: func(ctx context.Context, r io.Reader) error {
		io.Copy(io.Discard, r)
		close(sent)
		<-ctx.Done()
		close(ended)
		return context.Cause(ctx)
	}}
	addr, _ := startService(t, node, ServiceConfig{})
	c := newTestClient(t, ClientConfig{})
	ctx, leave := context.WithCancel(withTimeout(t))
	go func() {
		<-sent
		leave()
	}()
	if err := c.Load(ctx, addr, strings.NewReader("file"), -1, Credentials{}, 300*time.Millisecond); !errors.Is(err, context.Canceled) || !errors.Is(err, store.ErrUnknown) {
		t.Errorf("Load() = %v; want %v, of unknown outcome", err, context.Canceled)
	}
	<-ended
}

// TestLoadAtRqlite forwards to a leader that does not say that it knows streams: it gets the call that it knows, in
// memory of a few pieces.
func TestLoadAtRqlite(t *testing.T) {
	data := noise(3*frameChunk + 5)
	text := ""
	var got []byte
	p := startPeer(t, func(p *peer, conn net.Conn, _ int) {
		p.read(conn)
		conn.Write(endFrame(Meta{Version: "v8.43.0"}.append(beginFrame(nil))))
		b, err := readFrame(conn, nil)
		if err != nil {
			return
		}
		c, err := decodeCall(b)
		if err != nil || c.typ != callLoad || c.creds != (Credentials{"bob", "pw"}) {
			t.Errorf("call = %d as %+v, %v", c.typ, c.creds, err)
		}
		if got, err = decodeLoad(c.body); err != nil {
			t.Error(err)
		}
		conn.Write(endFrame(outcome{err: text}.append(beginFrame(nil))))
	})
	tests := []struct {
		text string
		want error
	}{
		{"", nil},
		{"not leader", store.ErrLeadershipLost}, // the file is used up
		{loadFailed + "store not ready", store.ErrNotReady},
		{"unauthorized", store.ErrUnauthorized},
	}
	for _, tt := range tests {
		text, got = tt.text, nil
		c := newTestClient(t, ClientConfig{})
		err := c.Load(withTimeout(t), p.addr, bytes.NewReader(data), int64(len(data)), Credentials{"bob", "pw"}, 0)
		if !errors.Is(err, tt.want) || !bytes.Equal(got, data) {
			t.Errorf("Load() answered with %q = %v, %d bytes; want %v", tt.text, err, len(got), tt.want)
		}
		c.Close()
	}
	err := newTestClient(t, ClientConfig{}).Load(withTimeout(t), p.addr, bytes.NewReader(data), -1, Credentials{}, 0)
	if _, refused := errors.AsType[*store.RequestError](err); !refused {
		t.Errorf("Load() of unknown length = %v; want a *store.RequestError", err)
	}
}

// TestLoadOfRqlite answers the call as nodes of rqlite make it, with files that fit into a message that is kept and
// with larger ones, and goes on with the next call on the connection.
func TestLoadOfRqlite(t *testing.T) {
	var got []byte
	var fail error
	load := func(ctx context.Context, r io.Reader) error {
		if fail != nil {
			return fail // without a look at the file
		}
		return received(&got, nil)(ctx, r)
	}
	addr, s := startService(t, &fakeNode{load: load}, ServiceConfig{Auth: oneUser{"bob", "pw", []string{"load"}}})
	conn := dialRaw(t, addr)
	conn.Write([]byte{byteCalls})
	meta := string(endFrame(s.Meta().append(beginFrame(nil))))
	for _, size := range []int{0, 10, frameChunk - 30, frameChunk - 20, frameChunk, 10 * frameChunk} {
		for _, tt := range []struct {
			user string
			err  error
			want string
		}{{"bob", nil, ""}, {"bob", store.ErrNotLeader, "not leader"}, {"bob", store.ErrNoSpace, loadFailed + "not enough free space"}, {"eve", nil, "unauthorized"}} {
			data := noise(size)
			got, fail = nil, tt.err
			frame := append(appendFileCall(nil, &call{typ: callLoad, creds: Credentials{tt.user, "pw"}}, int64(size)), data...)
			frame = append(frame, endFrame(appendCall(beginFrame(nil), &call{typ: callMeta}))...)
			if length := binary.LittleEndian.Uint64(frame); size > 0 && int(length)+frameHeader+frameHeader+2 != len(frame) {
				t.Fatalf("frame of %d bytes; want %d", len(frame)-frameHeader-2, length)
			}
			go conn.Write(frame)
			o, err := readOutcome(conn)
			if err != nil || o.err != tt.want || tt.want == "" && !bytes.Equal(got, data) {
				t.Fatalf("%d bytes as %s: answer = %+v, %v, %d bytes; want %q", size, tt.user, o, err, len(got), tt.want)
			}
			next := make([]byte, len(meta))
			if _, err := io.ReadFull(conn, next); err != nil || string(next) != meta {
				t.Fatalf("%d bytes as %s: the next call is answered with % x, %v", size, tt.user, next, err)
			}
		}
	}
}

// FuzzFileCall compares what is seen of a call in its first part with what the whole says.
func FuzzFileCall(f *testing.F) {
	f.Add(append(appendFileCall(nil, &call{typ: callLoad, creds: Credentials{"bob", "pw"}}, 20), noise(20)...)[frameHeader:], 40)
	f.Add(append(appendFileCall(nil, &call{typ: callLoad}, 5), noise(5)...)[frameHeader:], 12)
	f.Add(appendCall(nil, &call{typ: callLoad, body: []byte{10, 3, 1, 2, 3, 10, 0}}), 9)
	f.Fuzz(func(t *testing.T, in []byte, seen int) {
		if seen < 0 || seen > len(in) {
			return
		}
		c, ok := fileCall(in[:seen], len(in), bytes.NewReader(in[seen:]))
		if !ok {
			return
		}
		got, err := io.ReadAll(c.file)
		if err != nil {
			t.Fatal(err)
		}
		whole, err := decodeCall(in)
		if err != nil {
			t.Fatalf("decodeCall() = %v of a call that has a file", err)
		}
		data, err := decodeLoad(whole.body)
		if err != nil || !bytes.Equal(got, data) || c.typ != whole.typ || c.creds != whole.creds {
			t.Errorf("fileCall() = %d as %+v, % x; want %d as %+v, % x, %v", c.typ, c.creds, got, whole.typ, whole.creds, data, err)
		}
	})
}
