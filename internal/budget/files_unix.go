//go:build unix

package budget

import (
	"net"
	"syscall"
)

// Scarce reports whether the descriptor of conn, which has just been opened, is one of the last that the process
// may have. These, an eighth of all and 32 to 64, are for files: a node that can't open one may have to stop. So a
// connection that has one is not kept, even if another one is closed instead: that would only free a lower number.
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
	files, scarce := uint64(r.Cur), false
	err = raw.Control(func(fd uintptr) {
		scarce = uint64(fd) >= files-min(files, max(32, min(64, files/8)))
	})
	return err == nil && scarce
}
