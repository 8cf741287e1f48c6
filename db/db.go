package db

import (
	"context"
	"errors"

	"rqlited/command"
)

type DB struct{}

type Capture struct{}

type Stats struct{}

var errSkeleton = errors.New("db: not filled in yet")

func Open(path string, cfg Config) (*DB, error) { return nil, errSkeleton }

func (d *DB) Head() string { return "" }

func (d *DB) Apply(e *command.Entry) (*command.Response, error) { return nil, errSkeleton }

func (d *DB) Query(ctx context.Context, req *command.Request) (*command.Response, error) {
	return nil, errSkeleton
}

func (d *DB) Prepare(req *command.Request) (readOnly bool, err error) { return false, errSkeleton }

func (d *DB) Capture(head string) (*Capture, error) { return nil, errSkeleton }

func (d *DB) Replace(image, head string) error { return errSkeleton }

func (d *DB) WithdrawMarker() error { return errSkeleton }

func (d *DB) WALSize() int64 { return 0 }

func (d *DB) Stats() (Stats, error) { return Stats{}, errSkeleton }

func (d *DB) Close() error { return errSkeleton }

func (c *Capture) PageSize() int   { return 0 }
func (c *Capture) Pages() uint32   { return 0 }
func (c *Capture) Records() uint32 { return 0 }
func (c *Capture) Delta() bool     { return false }

func (c *Capture) Next(buf []byte) (pgno uint32, err error) { return 0, errSkeleton }

func (c *Capture) Published(id string) error { return errSkeleton }
func (c *Capture) Release()                  {}
