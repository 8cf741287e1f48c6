//go:build unix

package cluster

import (
	"net"
	"syscall"
)

// alive reports whether the peer has neither closed an idle connection nor said anything on it. A
// request that is sent on a closed connection may or may not have been read, and so could not be
// sent again; looking first keeps a restarted peer from costing each of its callers a write.
func alive(conn net.Conn) bool {
	sc, ok := lowest(conn).(syscall.Conn) // where the end of an encrypted connection shows as well
	if !ok {
		return true
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	quiet := false
	err = raw.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		quiet = err == syscall.EAGAIN || err == syscall.EWOULDBLOCK
		return true // never wait
	})
	return err == nil && quiet
}
