//go:build unix

package main

import "syscall"

// maxFiles returns how many descriptors the process may have. Go has raised that to what is permitted.
func maxFiles() int {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		return 1024
	}
	return int(min(uint64(r.Cur), 1<<20))
}
