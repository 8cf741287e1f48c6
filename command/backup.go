package command

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// ErrBackupFormat means that a backup was asked for in a way that there is none.
var ErrBackupFormat = errors.New("command: invalid backup format")

// BackupFormat is what a backup looks like. The numbers are rqlite's.
type BackupFormat uint8

const (
	BackupSQL    BackupFormat = 1 // SQL statements that make the database anew
	BackupBinary BackupFormat = 2 // the SQLite file as it is, in WAL mode; in DELETE mode if it is vacuumed
	BackupDelete BackupFormat = 3 // the SQLite file, in DELETE mode
)

// maxBackupTables bounds the tables that a message may name.
const maxBackupTables = 100_000

// BackupRequest asks for a copy of the database.
type BackupRequest struct {
	Format   BackupFormat
	Leader   bool     // only the leader may answer
	Vacuum   bool     // with BackupBinary: without free pages
	Compress bool     // the client wants gzip, which is a matter of those who carry the bytes
	Tables   []string // with BackupSQL: of these tables only; nil is all
}

// Check returns ErrBackupFormat if there is no such backup.
func (r *BackupRequest) Check() error {
	if r.Format < BackupSQL || r.Format > BackupDelete || r.Vacuum && r.Format != BackupBinary {
		return ErrBackupFormat
	}
	return nil
}

// AppendBackupRequest appends r as a message between nodes: 1 format, 2 leader, 3 vacuum, 4 compress,
// 5 repeated table.
func AppendBackupRequest(dst []byte, r *BackupRequest) []byte {
	dst = AppendVarint(dst, 1, uint64(r.Format))
	dst = AppendBool(dst, 2, r.Leader)
	dst = AppendBool(dst, 3, r.Vacuum)
	dst = AppendBool(dst, 4, r.Compress)
	for _, t := range r.Tables {
		dst = protowire.AppendString(protowire.AppendTag(dst, 5, protowire.BytesType), t)
	}
	return dst
}

// DecodeBackupRequest decodes what AppendBackupRequest has written. It fails with ErrMalformed, or with
// ErrTooLarge if there are more tables than any database has.
func DecodeBackupRequest(b []byte) (*BackupRequest, error) {
	r := &BackupRequest{}
	err := EachField(b, func(f Field) error {
		switch {
		case f.Num == 1 && f.Type == protowire.VarintType:
			r.Format = BackupFormat(min(f.Bits, 255))
		case f.Num == 2:
			r.Leader = f.Bool()
		case f.Num == 3:
			r.Vacuum = f.Bool()
		case f.Num == 4:
			r.Compress = f.Bool()
		case f.Num == 5 && f.Message():
			if len(r.Tables) == maxBackupTables {
				return ErrTooLarge
			}
			r.Tables = append(r.Tables, f.Text())
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("decode backup request: %w", err)
	}
	return r, nil
}

// MaxScript is the length in bytes of the longest SQL script: all of it is one log entry.
const MaxScript = 128<<20 - 1

// ScriptRequest returns the request that runs an SQL script, such as a backup of BackupSQL, as one
// statement: after an error what its own transaction has done is taken back. It fails with ErrTooLarge if
// the script is longer than MaxScript.
func ScriptRequest(sql string) (*Request, error) {
	if len(sql) > MaxScript {
		return nil, fmt.Errorf("SQL script of %d bytes, of which %d are possible (a SQLite file may be larger): %w",
			len(sql), MaxScript, ErrTooLarge)
	}
	r := &Request{Kind: Execute, RollbackOnError: true}
	if sql != "" {
		r.Statements = []Statement{{SQL: sql}}
	}
	return r, nil
}
