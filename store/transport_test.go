package store

import (
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"rqlited/snapshot"
)

// TestPreVoteOfRestartedPeer asks a peer whose connections of before are gone.
func TestPreVoteOfRestartedPeer(t *testing.T) {
	peer := listen(t, "127.0.0.1:0")
	served := raft.NewNetworkTransport(newLayer(tcpLayer{&closesFirst{Listener: peer, left: transportPool}}, "h:2"), 1, time.Second, io.Discard)
	defer served.Close()
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		for {
			select {
			case rpc := <-served.Consumer():
				rpc.Respond(&raft.RequestPreVoteResponse{Granted: false, Term: 7}, nil)
			case <-stop:
				return
			}
		}
	}()
	logs := newLog(t, filepath.Join(t.TempDir(), logFile))
	trans := newTransport(newLayer(tcpLayer{listen(t, "127.0.0.1:0")}, "h:1"), logs, hclog.NewNullLogger())
	defer trans.Close()
	var resp raft.RequestPreVoteResponse
	err := trans.RequestPreVote("n2", raft.ServerAddress(peer.Addr().String()), &raft.RequestPreVoteRequest{}, &resp)
	if err != nil || resp.Granted || resp.Term != 7 {
		t.Errorf("RequestPreVote = %+v, %v; want the refusal of term 7", resp, err)
	}
}

// closesFirst closes the first connections that come in, after it has read from them.
type closesFirst struct {
	net.Listener
	left int // used by the goroutine that accepts
}

func (l *closesFirst) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil || l.left == 0 {
			return c, err
		}
		l.left--
		c.Read(make([]byte, 1024))
		c.Close()
	}
}

// TestPreVoteOfOldPeer asks a server that closes the connection on a call it does not know.
func TestPreVoteOfOldPeer(t *testing.T) {
	peer := listen(t, "127.0.0.1:0")
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := peer.Accept()
			if err != nil {
				return
			}
			c.Read(make([]byte, 1024))
			c.Close()
		}
	}()
	logs := newLog(t, filepath.Join(t.TempDir(), logFile))
	trans := newTransport(newLayer(tcpLayer{listen(t, "127.0.0.1:0")}, "h:1"), logs, hclog.NewNullLogger())
	addr := raft.ServerAddress(peer.Addr().String())
	err := trans.RequestPreVote("n2", addr, &raft.RequestPreVoteRequest{}, &raft.RequestPreVoteResponse{})
	if err == nil || !strings.Contains(err.Error(), "unexpected command") {
		t.Errorf("RequestPreVote = %v; want what Raft takes for a grant", err)
	}

	// A node whose log is void must not stand in an election at all.
	if err := errors.Join(logs.StoreLogs(entries(2, 1, 9)),
		logs.install("id", 7, 3, snapshot.Head{}, func() error { return nil })); err != nil {
		t.Fatal(err)
	}
	if err := trans.RequestPreVote("n2", addr, nil, nil); !errors.Is(err, errVoteWithheld) {
		t.Errorf("RequestPreVote with a void log = %v; want errVoteWithheld", err)
	}
	if err := trans.RequestVote("n2", addr, nil, nil); !errors.Is(err, errVoteWithheld) {
		t.Errorf("RequestVote with a void log = %v; want errVoteWithheld", err)
	}
	peer.Close()
	<-done
	if err := trans.Close(); err != nil {
		t.Error(err)
	}
}

// slowLayer dials until it is told to stop.
type slowLayer struct {
	net.Listener
	stop chan struct{}
}

func (l slowLayer) Dial(raft.ServerAddress, time.Duration) (net.Conn, error) {
	<-l.stop
	return nil, errors.New("stopped")
}

// TestLayerCut makes sure that no peer, reachable or not, holds up the end.
func TestLayerCut(t *testing.T) {
	stop := make(chan struct{})
	l := newLayer(slowLayer{listen(t, "127.0.0.1:0"), stop}, "h:1")
	if got := l.Addr().String(); got != "h:1" {
		t.Errorf("Addr = %q; want the advertised address", got)
	}
	dialled, accepted := make(chan error), make(chan error)
	go func() {
		_, err := l.Dial("h:2", time.Hour)
		dialled <- err
	}()
	client, err := net.Dial("tcp", l.StreamLayer.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		_, err := l.Accept()
		accepted <- err
	}()
	l.cut()
	if err := <-dialled; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Dial = %v; want ErrClosed", err)
	}
	if _, err := server.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read = %v; want ErrClosed", err)
	}
	close(stop)
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := <-accepted; err == nil {
		t.Error("Accept succeeded after the cut")
	}
}

// stuckPipeline answers one call with a refusal, and holds the next until it is closed.
type stuckPipeline struct {
	answers chan raft.AppendFuture
	closed  chan struct{}
}

type refusal struct{ raft.AppendFuture }

func (refusal) Error() error                          { return nil }
func (refusal) Request() *raft.AppendEntriesRequest   { return &raft.AppendEntriesRequest{} }
func (refusal) Response() *raft.AppendEntriesResponse { return &raft.AppendEntriesResponse{} }

func (p *stuckPipeline) Consumer() <-chan raft.AppendFuture { return p.answers }
func (p *stuckPipeline) Close() error                       { close(p.closed); return nil }

func (p *stuckPipeline) AppendEntries(*raft.AppendEntriesRequest, *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	p.answers <- refusal{}
	<-p.closed
	return nil, raft.ErrPipelineShutdown
}

// TestPipelineRefused makes sure that a call does not wait for an answer nobody will take.
func TestPipelineRefused(t *testing.T) {
	p := newPipeline(&stuckPipeline{make(chan raft.AppendFuture), make(chan struct{})})
	done := make(chan error)
	go func() {
		_, err := p.AppendEntries(nil, nil)
		done <- err
	}()
	if f := <-p.Consumer(); f.Response().Success {
		t.Error("the refusal was not passed on")
	}
	if err := <-done; !errors.Is(err, raft.ErrPipelineShutdown) {
		t.Errorf("AppendEntries = %v; want ErrPipelineShutdown", err)
	}
}
