package cluster

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/hashicorp/raft"
)

// TestFault1474: more came of a snapshot than had been announced, and the rest of it was read as the next
// call, of unknown type 218. docs/design/known-faults.md has the other tests of that kind. Here
// Raft sees exactly what was announced; what follows is a call, or the end of the connection.
func TestFault1474(t *testing.T) {
	request := installation
	request.Size = 5
	heartbeat := rpc(t, raftAppendEntries, raft.AppendEntriesRequest{RPCHeader: header, Term: 3})
	tests := []struct {
		name         string
		sent, passes []byte
		err          error
	}{
		{"as announced", rpc(t, raftInstallSnapshot, request, []byte("12345")...), rpc(t, raftInstallSnapshot, request, []byte("12345")...), io.EOF},
		{"longer", rpc(t, raftInstallSnapshot, request, append([]byte("12345"), rpc(t, 218, raft.RequestVoteRequest{RPCHeader: header})...)...),
			rpc(t, raftInstallSnapshot, request, []byte("12345")...), ErrMalformed},
		{"shorter", rpc(t, raftInstallSnapshot, request, []byte("1234")...), rpc(t, raftInstallSnapshot, request, []byte("1234")...), io.ErrUnexpectedEOF},
		{"shorter, then a call", append(rpc(t, raftInstallSnapshot, request, []byte("1234")...), heartbeat...), nil, ErrMalformed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, g := guarded(tt.sent)
			if !errors.Is(g.err, tt.err) {
				t.Errorf("the connection ends with %v; want %v", g.err, tt.err)
			}
			if tt.passes != nil && !bytes.Equal(got, tt.passes) {
				t.Errorf("%q passed; want %q", got, tt.passes)
			}
			if announced := len(rpc(t, raftInstallSnapshot, request)) + 5; len(got) > announced {
				t.Errorf("%d bytes passed; announced were %d", len(got), announced)
			}
		})
	}
}
