package db

import (
	"context"
	"errors"
	"fmt"
	"io"

	"rqlited/internal/vfs"
)

const (
	// askEvery is after how many bytes of an upload the free space is asked for.
	askEvery = 64 << 20

	// leftFree is what an upload leaves free on the disk, in bytes.
	leftFree = 64 << 20
)

// Upload is a SQLite file that a client has sent, in a private file beside the database. It has been
// checked, and does not change. Its methods belong to one goroutine.
type Upload struct {
	d        *DB
	name     string
	f        vfs.File
	size     int64
	pageSize int
	next     uint32 // pages that NextPage has returned
}

// Receive copies r, whose length nobody knows, to the disk, and checks that it is a SQLite file that an entry of the
// log could replace the database by: in WAL mode or not, of any page size, of whole pages, with sound trees.
//
// It fails with ErrNotDatabase if it is not, with ErrNoSpace before the disk is full, with the cause of the end of
// ctx, and with errors of r and of the disk. The caller closes the Upload. Any goroutine may call Receive.
func (d *DB) Receive(ctx context.Context, r io.Reader) (*Upload, error) {
	u := &Upload{d: d, name: d.copyName("upload")}
	err := u.receive(ctx, r)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("receive SQLite file: %w", err), u.Close())
	}
	return u, nil
}

func (u *Upload) receive(ctx context.Context, r io.Reader) (err error) {
	if u.f, err = u.d.fs.Create(u.name); err != nil {
		return err
	}
	in := contextReader{r, ctx}
	buf := make([]byte, copyBuffer)
	for {
		if u.size%askEvery == 0 {
			if err := u.d.askSpace(leftFree); err != nil {
				return err
			}
		}
		n, err := fill(in, buf)
		if _, err := u.f.Write(buf[:n]); err != nil {
			return err
		}
		u.size += int64(n)
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	if u.size == 0 {
		return ErrNotDatabase
	}
	if _, err := u.d.checkImage(u.name, quickCheck); err != nil {
		return err
	}
	u.pageSize, err = pageSizeOf(u.f)
	return err
}

// fill reads until buf is full. Unlike io.ReadFull it keeps the end of r apart from what a connection that was
// cut says of itself, io.ErrUnexpectedEOF: half of a file may be a file.
func fill(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var m int
		m, err = r.Read(buf[n:])
		n += m
	}
	return n, err
}

// AskSpace returns ErrNoSpace if the disk has no room for so many more copies of the file.
func (u *Upload) AskSpace(copies int64) error { return u.d.askSpace(copies * u.size) }

// Size returns the length of the file in bytes.
func (u *Upload) Size() int64 { return u.size }

// ReadAt implements io.ReaderAt.
func (u *Upload) ReadAt(p []byte, off int64) (int, error) { return u.f.ReadAt(p, off) }

// PageSize returns the size of a page in bytes.
func (u *Upload) PageSize() int { return u.pageSize }

// Pages returns the number of pages.
func (u *Upload) Pages() uint32 { return uint32(u.size / int64(u.pageSize)) }

// NextPage copies the next page into buf, which has room for one, and returns its number; io.EOF after the last. The
// header in the first says that the file is in WAL mode, as SQLite would make it when it is opened here: so the pages are
// those of the database that the file becomes.
func (u *Upload) NextPage(buf []byte) (pgno uint32, err error) {
	if u.next == u.Pages() {
		return 0, io.EOF
	}
	buf = buf[:u.pageSize]
	if _, err := u.f.ReadAt(buf, int64(u.next)*int64(u.pageSize)); err != nil {
		return 0, fmt.Errorf("read page %d: %w", u.next+1, err)
	}
	u.next++
	if u.next == 1 {
		buf[headerFormats], buf[headerFormats+1] = walFormat, walFormat
	}
	return u.next, nil
}

// Close removes the file.
func (u *Upload) Close() error {
	if u.f == nil {
		return nil
	}
	err := u.f.Close()
	u.f = nil
	u.d.removeCopy(u.name)
	return err
}

// Loads returns the ids of the chunked loads under way. It is called by the goroutine of Apply.
func (d *DB) Loads() (ids []string) {
	for id := range d.loads.streams {
		ids = append(ids, id)
	}
	return ids
}
