//go:build unix

package budget

import (
	"net"
	"syscall"
)

// Scarce reports whether the descriptor of conn, which has just been opened, is one of the last that the process
// may have. The kernel gives the lowest that is free, so all others are in use. The last, an eighth of all and
// 32 to 64, are for files: a node that can't open one may have to stop.
func Scarce(conn net.Conn) bool {
	scarce := false
	control(conn, func(fd uintptr) { scarce = last(fd) })
	return scarce
}

// Exhausted reports whether what is opened next would be one of the last descriptors. It tries with another one
// of ln's.
func Exhausted(ln net.Listener) bool {
	exhausted := false
	control(ln, func(fd uintptr) {
		next, err := syscall.Dup(int(fd))
		if err != nil {
			exhausted = true
			return
		}
		exhausted = last(uintptr(next))
		_ = syscall.Close(next) // there is nothing that could be lost
	})
	return exhausted
}

// control calls f with the descriptor of v, if it has one.
func control(v any, f func(fd uintptr)) {
	if c, ok := v.(syscall.Conn); ok {
		if raw, err := c.SyscallConn(); err == nil {
			_ = raw.Control(f) // fails if it is closed; then f is not called
		}
	}
}

func last(fd uintptr) bool {
	var r syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r) != nil {
		return false
	}
	files := uint64(r.Cur)
	return uint64(fd) >= files-min(files, max(32, min(64, files/8)))
}
