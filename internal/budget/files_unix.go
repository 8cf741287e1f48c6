//go:build unix

package budget

import (
	"net"
	"syscall"
)

// Scarce reports whether the descriptor of conn, which has just been opened, is one of the last that the process
// may have. The kernel gives the lowest that is free, so all others are in use. The last, an eighth of all and
// 16 to 64, are for files: a node that can't open one may have to stop.
func Scarce(conn net.Conn) bool {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := c.SyscallConn()
	var r syscall.Rlimit
	if err != nil || syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r) != nil {
		return false
	}
	scarce := false
	err = raw.Control(func(fd uintptr) {
		scarce = uint64(fd) >= uint64(r.Cur)-min(uint64(r.Cur), max(16, min(64, uint64(r.Cur)/8)))
	})
	return err == nil && scarce
}
