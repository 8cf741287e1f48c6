package cluster

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"math"
	"net"
	"os"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-msgpack/v2/codec"
	"github.com/hashicorp/raft"

	"rqlited/internal/certs"
)

// pack encodes v as Raft does.
func pack(t testing.TB, v any) []byte {
	t.Helper()
	var buf bytes.Buffer
	h := &codec.MsgpackHandle{}
	h.TimeNotBuiltin = true
	if err := codec.NewEncoder(&buf, h).Encode(v); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// rpc returns the message of Raft of the given type, followed by rest.
func rpc(t testing.TB, kind byte, v any, rest ...byte) []byte {
	t.Helper()
	return append(append([]byte{kind}, pack(t, v)...), rest...)
}

// edited encodes v, lets edit change its fields, and returns the message.
func edited(t testing.TB, kind byte, v any, edit func(fields map[string]any)) []byte {
	t.Helper()
	fields := map[string]any{}
	h := &codec.MsgpackHandle{}
	h.MapType = reflect.TypeFor[map[string]any]()
	if err := codec.NewDecoderBytes(pack(t, v), h).Decode(&fields); err != nil {
		t.Fatal(err)
	}
	edit(fields)
	return rpc(t, kind, fields)
}

var (
	header        = raft.RPCHeader{ProtocolVersion: 3, ID: []byte("n1"), Addr: []byte("127.0.0.1:4002")}
	configuration = raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{
		{Suffrage: raft.Voter, ID: "n1", Address: "127.0.0.1:4002"},
		{Suffrage: raft.Nonvoter, ID: "n2", Address: "127.0.0.1:4012"},
	}})
	installation = raft.InstallSnapshotRequest{
		RPCHeader: header, SnapshotVersion: 1, Term: 3, Leader: []byte("n1"), LastLogIndex: 9, LastLogTerm: 2,
		Configuration: configuration, ConfigurationIndex: 1, Size: 5,
	}
)

// appendRequest returns a message with entries of the given data, the first a configuration.
func appendRequest(data ...[]byte) raft.AppendEntriesRequest {
	req := raft.AppendEntriesRequest{RPCHeader: header, Term: 3, PrevLogEntry: 6, PrevLogTerm: 2, LeaderCommitIndex: 6}
	req.Entries = append(req.Entries, &raft.Log{Index: 7, Term: 3, Type: raft.LogConfiguration, Data: configuration, AppendedAt: time.Unix(1, 2)})
	for i, d := range data {
		req.Entries = append(req.Entries, &raft.Log{Index: uint64(8 + i), Term: 3, Data: d, Extensions: []byte("x"), AppendedAt: time.Now()})
	}
	return req
}

// guarded returns what comes out of a guard into which stream went, and the guard.
func guarded(stream []byte) ([]byte, *guard) {
	g := newGuard(&memoryConn{Reader: bytes.NewReader(stream)}, certs.NewComplaints(slog.New(slog.DiscardHandler)))
	out, _ := io.ReadAll(g)
	return out, g
}

// memoryConn is a connection whose peer has said everything and hung up.
type memoryConn struct {
	net.Conn
	io.Reader
}

func (c *memoryConn) Read(p []byte) (int, error)      { return c.Reader.Read(p) }
func (c *memoryConn) SetReadDeadline(time.Time) error { return nil }
func (c *memoryConn) RemoteAddr() net.Addr            { return address("peer") }

// TestGuardPasses sends what Raft sends: it comes out byte for byte.
func TestGuardPasses(t *testing.T) {
	large := bytes.Repeat([]byte("large"), 200<<10)
	heartbeat := raft.AppendEntriesRequest{RPCHeader: header, Term: 3}
	older := edited(t, raftAppendEntries, heartbeat, func(f map[string]any) { f["Leader"] = []byte("127.0.0.1:4002") })
	future := edited(t, raftAppendEntries, heartbeat, func(f map[string]any) {
		f["Unknown"] = map[string]any{"list": []any{1, "two", 3.5, nil, true}, "map": map[string]any{}}
	})
	tests := map[string][]byte{
		"nothing":        {},
		"heartbeat":      rpc(t, raftAppendEntries, heartbeat),
		"entries":        rpc(t, raftAppendEntries, appendRequest([]byte("a"), nil, []byte{})),
		"large entries":  rpc(t, raftAppendEntries, appendRequest(large, []byte("b"), large)),
		"vote":           rpc(t, 1, raft.RequestVoteRequest{RPCHeader: header, Term: 4, LeadershipTransfer: true}),
		"snapshot":       rpc(t, raftInstallSnapshot, installation, []byte("bytes")...),
		"timeout now":    rpc(t, 3, raft.TimeoutNowRequest{RPCHeader: header}),
		"pre-vote":       rpc(t, 4, raft.RequestPreVoteRequest{RPCHeader: header, Term: 4}),
		"unknown fields": future,
		"old fields":     older,
	}
	var all []byte
	for _, stream := range tests {
		all = append(all, stream...)
	}
	tests["one after the other"] = all
	for name, stream := range tests {
		t.Run(name, func(t *testing.T) {
			if got, g := guarded(stream); !bytes.Equal(got, stream) || g.err != io.EOF {
				t.Errorf("%d of %d bytes passed: %v", len(got), len(stream), g.err)
			}
		})
	}
}

// TestGuardRefuses sends messages that would end the process, exhaust its memory or stop Raft.
func TestGuardRefuses(t *testing.T) {
	change := func(key string, value any) []byte {
		return edited(t, raftAppendEntries, appendRequest([]byte("a")), func(f map[string]any) { f[key] = value })
	}
	changeEntry := func(key string, value any) []byte {
		return edited(t, raftAppendEntries, appendRequest([]byte("a")), func(f map[string]any) {
			f["Entries"].([]any)[1].(map[string]any)[key] = value
		})
	}
	install := func(edit func(*raft.InstallSnapshotRequest)) []byte {
		req := installation
		edit(&req)
		return rpc(t, raftInstallSnapshot, req)
	}
	nested := any(1)
	for range 3 * maxDepth {
		nested = []any{nested}
	}
	entry := "Entries"
	appendedAt := append([]byte{0, 0x81, 0xa7}, entry...)
	appendedAt = append(appendedAt, 0x91, 0x81, 0xaa)
	appendedAt = append(appendedAt, "AppendedAt"...)
	twice := append([]byte{0, 0x82, 0xa4}, "Term"...)
	twice = append(append(append(twice, 1, 0xa4), "Term"...), 1)

	tests := map[string]struct {
		stream []byte
		err    error
	}{
		"unknown type":                 {[]byte{5, 0x80}, ErrMalformed},
		"no map":                       {[]byte{0, 0x90}, ErrMalformed},
		"array of fields":              {[]byte{0, 0x91, 1}, ErrMalformed},
		"reserved byte":                {[]byte{0, 0xc1}, ErrMalformed},
		"number as key":                {[]byte{0, 0x81, 1, 1}, ErrMalformed},
		"time of 4 GiB":                {append(appendedAt, 0xc6, 0xff, 0xff, 0xff, 0xff), ErrTooLarge},
		"time as extension of 4 GiB":   {append(appendedAt, 0xc9, 0xff, 0xff, 0xff, 0xff), ErrTooLarge},
		"key of 4 GiB":                 {[]byte{0, 0x81, 0xdb, 0xff, 0xff, 0xff, 0xff}, ErrTooLarge},
		"no protocol version":          {[]byte{3, 0x80}, ErrMalformed},
		"older protocol version":       {change("ProtocolVersion", 2), ErrMalformed},
		"field twice":                  {twice, ErrMalformed},
		"nested":                       {change("Other", nested), ErrMalformed},
		"negative term":                {change("Term", -1), ErrMalformed},
		"term over the range":          {change("Term", uint64(math.MaxUint64)), ErrMalformed},
		"text as term":                 {change("Term", "1"), ErrMalformed},
		"leader of a megabyte":         {change("Leader", make([]byte, 1<<20)), ErrTooLarge},
		"unknown field of 2 megabytes": {change("Other", make([]byte, 2<<20)), ErrTooLarge},
		"unknown extension":            {append([]byte{0, 0x81, 0xa1, 'x'}, 0xd4, 1, 1), ErrMalformed},
		"entries as map":               {change("Entries", map[string]any{}), ErrMalformed},
		"nil entry":                    {change("Entries", []any{nil}), ErrMalformed},
		"too many entries":             {change("Entries", manyEntries(maxEntries+1)), ErrTooLarge},
		"gap before the entries":       {change("PrevLogEntry", 3), ErrMalformed},
		"gap between entries":          {changeEntry("Index", 9), ErrMalformed},
		"unknown entry type":           {changeEntry("Type", 77), ErrMalformed},
		"deprecated entry type":        {changeEntry("Type", int(raft.LogAddPeerDeprecated)), ErrMalformed},
		"entry is no configuration":    {changeEntry("Type", int(raft.LogConfiguration)), ErrMalformed},
		"number as data":               {changeEntry("Data", 1), ErrMalformed},
		"array as data":                {changeEntry("Data", []any{1, 2}), ErrMalformed},
		"snapshot of 4 EiB":            {install(func(r *raft.InstallSnapshotRequest) { r.Size = 1 << 62 }), ErrTooLarge},
		"snapshot of negative size":    {install(func(r *raft.InstallSnapshotRequest) { r.Size = -1 }), ErrMalformed},
		"snapshot of unknown version":  {install(func(r *raft.InstallSnapshotRequest) { r.SnapshotVersion = 0 }), ErrMalformed},
		"snapshot, no configuration":   {install(func(r *raft.InstallSnapshotRequest) { r.Configuration = nil }), ErrMalformed},
		"snapshot, bad configuration":  {install(func(r *raft.InstallSnapshotRequest) { r.Configuration = []byte{0x93} }), ErrMalformed},
		"snapshot, nobody":             {install(func(r *raft.InstallSnapshotRequest) { r.Configuration = []byte{0x80} }), ErrMalformed},
		"cut off":                      {rpc(t, raftAppendEntries, appendRequest())[:30], io.ErrUnexpectedEOF},
		"snapshot cut off":             {install(func(*raft.InstallSnapshotRequest) {}), io.ErrUnexpectedEOF},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if _, g := guarded(tt.stream); !errors.Is(g.err, tt.err) {
				t.Errorf("guard: %v; want %v", g.err, tt.err)
			}
		})
	}
}

// TestGuardCutOff has a peer hang up: within a message the log says who it was, and Raft, which does
// not know, has nothing to report. That a snapshot is not whole is told to Raft, which gives it up.
func TestGuardCutOff(t *testing.T) {
	request := rpc(t, raftAppendEntries, appendRequest())
	snapshot := rpc(t, raftInstallSnapshot, installation, []byte("byt")...)
	tests := []struct {
		name   string
		stream []byte
		says   bool
		err    error // in place of io.EOF
	}{
		{"between messages", request, false, nil},
		{"within a message", request[:30], true, nil},
		{"after the type", request[:1], true, nil},
		{"within a snapshot", snapshot, false, io.ErrUnexpectedEOF},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var said bytes.Buffer
			g := newGuard(&memoryConn{Reader: bytes.NewReader(tt.stream)}, certs.NewComplaints(slog.New(slog.NewTextHandler(&said, nil))))
			if _, err := io.ReadAll(g); err != tt.err {
				t.Errorf("reading ends with %v; want %v", err, tt.err)
			}
			if got := bytes.Contains(said.Bytes(), []byte("peer=peer")); got != tt.says {
				t.Errorf("log names the peer: %t; want %t: %s", got, tt.says, said.Bytes())
			}
		})
	}
}

func manyEntries(n int) []any {
	entries := make([]any, n)
	for i := range entries {
		entries[i] = map[string]any{"Index": 7 + i}
	}
	return entries
}

// TestGuardMerge makes two halves of a message that are in order apart and not together: a
// decoder that updates what stands there already would put a type to data it was not checked with.
func TestGuardMerge(t *testing.T) {
	// With the protocol version at the end, which is not reached.
	stream := append([]byte{0, 0x83}, 0xa7)
	stream = append(stream, "Entries"...)
	stream = append(stream, 0x91)
	stream = append(stream, pack(t, map[string]any{"Index": 1, "Type": int(raft.LogConfiguration), "Data": configuration})...)
	stream = append(stream, 0xa7)
	stream = append(stream, "Entries"...)
	stream = append(stream, 0x91)
	stream = append(stream, pack(t, map[string]any{"Data": []byte("no configuration")})...)
	if _, g := guarded(stream); !errors.Is(g.err, ErrMalformed) {
		t.Errorf("guard: %v; want %v", g.err, ErrMalformed)
	}
}

// TestGuardStall has a peer pause between messages, which it may, and within one.
func TestGuardStall(t *testing.T) {
	msg := rpc(t, raftAppendEntries, appendRequest([]byte("a")))
	snapshot := rpc(t, raftInstallSnapshot, installation)
	tests := []struct {
		name         string
		first, later []byte // sent an hour apart
		want         int    // bytes that pass
		err          error
	}{
		{"between messages", msg, msg, 2 * len(msg), nil},
		{"within a message", msg[:1], msg[1:], 0, io.EOF},
		{"before a snapshot", snapshot, []byte("bytes"), len(snapshot), os.ErrDeadlineExceeded},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := net.Pipe()
				done := make(chan struct{})
				go func() {
					defer close(done)
					defer theirs.Close()
					if _, err := theirs.Write(tt.first); err != nil {
						return
					}
					time.Sleep(time.Hour)
					theirs.Write(tt.later)
				}()
				g := newGuard(ours, certs.NewComplaints(slog.New(slog.DiscardHandler)))
				n, err := io.ReadFull(g, make([]byte, len(tt.first)+len(tt.later)))
				ours.Close()
				<-done
				if n != tt.want || !errors.Is(err, tt.err) {
					t.Errorf("%d bytes passed, %v; want %d, %v", n, err, tt.want, tt.err)
				}
			})
		})
	}
}

func BenchmarkGuard(b *testing.B) {
	entries := make([][]byte, 63)
	for i := range entries {
		entries[i] = bytes.Repeat([]byte("x"), 200)
	}
	stream := rpc(b, raftAppendEntries, appendRequest(entries...))
	b.SetBytes(int64(len(stream)))
	for b.Loop() {
		if got, g := guarded(stream); len(got) != len(stream) {
			b.Fatal(g.err)
		}
	}
}
