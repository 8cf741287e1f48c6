package cluster

import (
	"compress/flate"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/hashicorp/raft"
)

// deflated is a connection for Raft on which the dialler compresses what it sends. Answers come as they are.
// It is used by one writer at a time.
type deflated struct {
	net.Conn
	z *flate.Writer
}

func newDeflated(conn net.Conn) *deflated {
	z, err := flate.NewWriter(conn, flate.BestSpeed) // a network is rarely slower than more than that
	if err != nil {
		panic("cluster: flate knows no BestSpeed")
	}
	return &deflated{conn, z}
}

// Write sends all of p: Raft has a buffer of its own above this, and waits for answers after each flush of that.
func (c *deflated) Write(p []byte) (int, error) {
	n, err := c.z.Write(p)
	if err == nil {
		err = c.z.Flush()
	}
	return n, err
}

// NetConn returns the connection below, as tls.Conn does.
func (c *deflated) NetConn() net.Conn { return c.Conn }

// inflated is the other side of a deflated one. What it decompresses is as much as is read from it, and never kept.
type inflated struct {
	net.Conn
	z io.Reader
}

func newInflated(conn net.Conn) *inflated { return &inflated{conn, flate.NewReader(conn)} }

// Read returns io.EOF where the connection ends: whether that is within a message is for the reader to know.
func (c *inflated) Read(p []byte) (int, error) {
	n, err := c.z.Read(p)
	if _, corrupt := errors.AsType[flate.CorruptInputError](err); corrupt {
		err = fmt.Errorf("compressed stream: %w: %w", err, ErrMalformed)
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return n, err
}

// NetConn returns the connection below, as tls.Conn does.
func (c *inflated) NetConn() net.Conn { return c.Conn }

// DialCompressed connects to a peer for Raft as Dial does. What is sent to the peer is compressed.
func (l *layer) DialCompressed(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	return l.dial(timeout, func(ctx context.Context) (net.Conn, error) {
		conn, err := dial(ctx, string(addr), byteCompressed, l.tls)
		if err != nil {
			return nil, err
		}
		return newDeflated(conn), nil
	})
}
