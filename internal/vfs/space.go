package vfs

import "errors"

// Free returns how many bytes a writer without privileges may still use on the disk that holds dir.
// It is errors.ErrUnsupported if the file system cannot say. Others use the disk too, so the answer
// is good for a refusal before much work has been done, and no promise that a write will succeed.
func Free(fsys FS, dir string) (int64, error) {
	if f, ok := fsys.(interface {
		Free(dir string) (int64, error)
	}); ok {
		return f.Free(dir)
	}
	return 0, errors.ErrUnsupported
}

// Clone gives dst, which must be empty, the content of src without copying it: both share the blocks
// until one of them is written to. The content of dst is no more durable than if it had been written.
//
// The error is errors.ErrUnsupported where sharing is not offered, which depends on the disk and on
// both files lying on it; nothing has been written then, and the caller copies. After any other
// error the content of dst is open.
func Clone(dst, src File) error {
	if c, ok := dst.(interface{ CloneFrom(src File) error }); ok {
		return c.CloneFrom(src)
	}
	return errors.ErrUnsupported
}
