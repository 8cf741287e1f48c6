package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"rqlited/store"
)

// TestWatch expects the first signal to end the context, and further ones to be taken all the same.
func TestWatch(t *testing.T) {
	signals := make(chan os.Signal)
	ctx, stop := watch(slog.New(slog.DiscardHandler), signals)
	defer stop()
	if err := ctx.Err(); err != nil {
		t.Fatalf("before a signal: ctx.Err() = %v", err)
	}
	signals <- syscall.SIGTERM
	<-ctx.Done()
	signals <- syscall.SIGINT // would block if nobody took it
}

// TestProfiles expects each file to hold something once the profiles have ended.
func TestProfiles(t *testing.T) {
	dir := t.TempDir()
	paths := profilePaths{cpu: filepath.Join(dir, "cpu"), mem: filepath.Join(dir, "mem"), trace: filepath.Join(dir, "trace")}
	p, err := paths.start()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{paths.cpu, paths.mem, paths.trace} {
		if info, err := os.Stat(name); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v, %v; want a file that is not empty", name, info, err)
		}
	}
}

// TestProfilesFail expects a profile that cannot be written to be named, and the others to end.
func TestProfilesFail(t *testing.T) {
	dir := t.TempDir()
	missing := filepath.Join(dir, "missing", "trace")
	_, err := profilePaths{cpu: filepath.Join(dir, "cpu"), trace: missing}.start()
	if want := "create trace profile file at " + missing; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("start = %v; want %s", err, want)
	}
	p, err := profilePaths{cpu: filepath.Join(dir, "cpu2")}.start() // fails if one runs already
	if err != nil {
		t.Fatal(err)
	}
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
}

// TestLateStore expects every call to say that the store is not open.
func TestLateStore(t *testing.T) {
	var l lateStore
	ctx := context.Background()
	_, do := l.Do(ctx, nil)
	_, servers := l.Servers()
	_, hash := l.Hash(ctx)
	_, hashAt := l.HashAt(ctx, 1)
	for name, err := range map[string]error{
		"Hash": hash, "HashAt": hashAt,
		"Do": do, "Servers": servers, "Ready": l.Ready(),
		"WaitApplied": l.WaitApplied(ctx, 1), "Snapshot": l.Snapshot(ctx, 0),
		"Notify": l.Notify(ctx, store.Server{}), "Join": l.Join(ctx, store.Server{}),
		"Remove": l.Remove(ctx, ""), "Stepdown": l.Stepdown(ctx, "", true),
	} {
		if err != store.ErrNotOpen {
			t.Errorf("%s = %v; want %v", name, err, store.ErrNotOpen)
		}
	}
	if leader, ok := l.Leader(); ok {
		t.Errorf("Leader = %v", leader)
	}
	if err := l.Failed(); err != nil {
		t.Errorf("Failed = %v; want nil", err)
	}
}
