package cluster

import (
	"context"
	"net"
	"time"
)

// dial connects to a peer, encrypted if t says so, and says what for. It is the one place where
// connections to peers are opened.
func dial(ctx context.Context, addr string, first byte, t TLS) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err == nil && t.enabled() {
		conn, err = t.client(ctx, conn, addr)
	}
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		err = conn.SetWriteDeadline(deadline)
	}
	if err == nil {
		_, err = conn.Write([]byte{first})
	}
	if err == nil {
		err = conn.SetWriteDeadline(time.Time{})
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}
