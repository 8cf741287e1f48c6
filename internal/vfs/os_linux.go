package vfs

import (
	"errors"
	"math"
	"os"
	"syscall"
)

// ficlone is FICLONE of linux/fs.h, where _IOW sets the bit for writing at position 30. It is
// elsewhere on MIPS, PowerPC and SPARC; there the kernel does not know the number and says ENOTTY.
const ficlone = 0x40049409

func clone(dst, src *os.File) error {
	to, err := dst.SyscallConn()
	if err != nil {
		return err
	}
	from, err := src.SyscallConn()
	if err != nil {
		return err
	}
	var errno syscall.Errno
	var inner error
	err = to.Control(func(dstFD uintptr) {
		inner = from.Control(func(srcFD uintptr) {
			_, _, errno = syscall.Syscall(syscall.SYS_IOCTL, dstFD, ficlone, srcFD)
		})
	})
	if err = errors.Join(err, inner); err != nil {
		return err
	}
	switch errno {
	case 0:
		return nil
	case syscall.EOPNOTSUPP, syscall.ENOTTY, syscall.ENOSYS, syscall.EXDEV, syscall.EINVAL:
		return errors.ErrUnsupported // this disk, kernel or pair of files offers no sharing
	}
	return &os.PathError{Op: "clone", Path: dst.Name(), Err: errno}
}

func free(dir string) (int64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	unit := uint64(s.Frsize)
	if unit == 0 || s.Bavail > math.MaxInt64/unit {
		return 0, errors.ErrUnsupported // some network file systems answer nonsense
	}
	return int64(s.Bavail * unit), nil
}
