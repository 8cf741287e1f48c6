package store

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"rqlited/command"
	"rqlited/internal/vfs"
)

// brittleFS fails the operations that match what is set.
type brittleFS struct {
	vfs.FS
	fails atomic.Pointer[regexp.Regexp]
}

func (b *brittleFS) op(op, name string) error {
	if re := b.fails.Load(); re != nil && re.MatchString(op+" "+filepath.ToSlash(name)) {
		return fmt.Errorf("%s %s: %w", op, name, errDisk)
	}
	return nil
}

func (b *brittleFS) Create(name string) (vfs.File, error) {
	if err := b.op("create", name); err != nil {
		return nil, err
	}
	f, err := b.FS.Create(name)
	return &brittleFile{f, b, name}, err
}

func (b *brittleFS) Open(name string) (vfs.File, error) {
	f, err := b.FS.Open(name)
	if err != nil {
		return nil, err
	}
	return &brittleFile{f, b, name}, nil
}

func (b *brittleFS) Remove(name string) error {
	if err := b.op("remove", name); err != nil {
		return err
	}
	return b.FS.Remove(name)
}

type brittleFile struct {
	vfs.File
	fs   *brittleFS
	name string
}

func (f *brittleFile) Sync() error {
	if err := f.fs.op("sync", f.name); err != nil {
		return err
	}
	return f.File.Sync()
}

// TestFailureSays lets each thing fail that ends a node. Its one line says what failed, on which file, and how far
// the database is; nothing else is logged as an error, and the node is known to have failed at once.
func TestFailureSays(t *testing.T) {
	t.Parallel()
	write := func(n *node) {
		_, _ = n.Do(t.Context(), request(command.Execute, command.Weak, "INSERT INTO foo VALUES('b')"))
	}
	restore := func(n *node) {
		head, _ := n.snaps.Head()
		if _, rc, err := n.snaps.Store.Open(head.ID); err == nil {
			_ = errors.Join(n.fsm.Restore(rc), rc.Close())
		}
	}
	snap := func(n *node) { _ = n.Snapshot(t.Context(), 0) }
	tests := []struct {
		name  string
		fails string        // operation on a file
		step  string        // on raft.db
		cause func(n *node) // nil is an election
		want  string        // %s is the data directory
	}{
		{name: "append", step: "append", cause: write, want: `append to raft\.db: disk error`},
		{name: "term", step: "note CurrentTerm", want: `note CurrentTerm in raft\.db: disk error`},
		{name: "vote", step: "note LastVoteTerm", want: `note LastVoteTerm in raft\.db: disk error`},
		{name: "shorten", step: "shorten", cause: func(n *node) { _ = n.Snapshot(t.Context(), 1) }, want: `shorten raft\.db: disk error`},
		{name: "note of the head", step: "set rqlited_head", cause: snap, want: `note in raft\.db: disk error`},
		{name: "capture", fails: `^remove .*db\.clean$`, cause: snap, want: `capture db\.sqlite: remove %s/db\.clean: disk error`},
		{name: "snapshot", fails: `^sync .*snapshots/0`, cause: snap,
			want: `publish snapshot \d+-\d+-\d+ in snapshots: .*sync %s/snapshots/0\S+: disk error`},
		{name: "marker", fails: `^sync .*db\.sqlite$`, cause: snap,
			want: `mark db\.sqlite as equal to the snapshot: publish \d+-\d+-\d+: .*sync %s/db\.sqlite: disk error`},
		{name: "restore", fails: `^create .*restore$`, cause: restore,
			want: `restore snapshot \d+-\d+-\d+ to db\.sqlite\.restore: create %s/db\.sqlite\.restore: disk error`},
		{name: "switch", fails: `^remove .*db\.clean$`, cause: restore,
			want: `switch db\.sqlite to snapshot \d+-\d+-\d+: .*remove %s/db\.clean: disk error`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var said bytes.Buffer
			fsys := &brittleFS{FS: vfs.OS}
			var step atomic.Pointer[string]
			n := newNode(t, "n1")
			n.hurry()
			n.cfg.fs, n.cfg.Logger, n.cfg.Raft.LogLevel = fsys, slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelError})), "WARN"
			n.cfg.logStep = func(name string) error {
				if s := step.Load(); s != nil && *s == name {
					return errDisk
				}
				return nil
			}
			n.writePeers(t, n)
			n.lead(t)
			n.exec(t, "CREATE TABLE foo (v TEXT)")
			n.snapshot(t, 1)
			n.exec(t, "INSERT INTO foo VALUES('a')")
			index := n.fsm.progress.index()
			if tt.cause == nil {
				n.snapshot(t, 1) // or it would be applied anew in time, or not
				n.close(t)
			}
			step.Store(&tt.step)
			if tt.fails != "" {
				fsys.fails.Store(regexp.MustCompile(tt.fails))
			}
			if tt.cause == nil {
				n.open(t)
			} else {
				tt.cause(n)
			}
			select {
			case <-n.failure.ch:
			case <-time.After(waitFor):
				t.Fatal("the node goes on")
			}
			err := n.Failed()
			if n.Wait() != err {
				t.Errorf("Failed = %v, Wait = %v", err, n.Wait())
			}
			want := regexp.MustCompile("^" + strings.ReplaceAll(tt.want, "%s", regexp.QuoteMeta(n.cfg.Dir)) +
				fmt.Sprintf(` \(state is at index %d\)$`, index))
			if !want.MatchString(err.Error()) {
				t.Errorf("the node fails with\n%v; want\n%s", err, want)
			}
			fsys.fails.Store(nil)
			n.close(t)
			if said.Len() > 0 {
				t.Errorf("besides the line of the process there are others:\n%s", &said)
			}
		})
	}
}
