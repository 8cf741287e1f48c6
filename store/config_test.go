package store

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

func TestConfigDefaults(t *testing.T) {
	c, err := Config{Dir: "d", NodeID: "n", Addr: "h:1", Layer: tcpLayer{}}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	want := RaftConfig{
		HeartbeatTimeout: time.Second, ElectionTimeout: time.Second, LeaderLeaseTimeout: 500 * time.Millisecond,
		CommitTimeout: 50 * time.Millisecond, ApplyTimeout: 10 * time.Second, LogLevel: "WARN",
	}
	if c.Raft != want {
		t.Errorf("Raft = %+v; want %+v", c.Raft, want)
	}
	if want := (SnapshotConfig{8192, 10 * time.Second, 4 << 20}); c.Snapshot != want || c.Snapshot.trailing() != 10240 {
		t.Errorf("Snapshot = %+v, trailing %d; want %+v, 10240", c.Snapshot, c.Snapshot.trailing(), want)
	}
}

// TestConfigFaults makes sure that all faults are reported at once.
func TestConfigFaults(t *testing.T) {
	_, err := Config{
		Addr: "nowhere", BootstrapExpect: -1, ReadConfig: ReadConfig{MaxReaders: -1},
		Raft:     RaftConfig{LogLevel: "LOUD", ApplyTimeout: -1, CompressSnaps: true},
		Reap:     ReapConfig{Voter: -1},
		Snapshot: SnapshotConfig{Interval: -1},
	}.withDefaults()
	if err == nil {
		t.Fatal("no error")
	}
	for _, part := range []string{"data directory", "NodeID", "address", "no stream layer", "cannot compress", "number of nodes", "Reap", "readers",
		"LOUD", "apply timeout", "snapshot interval"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q lacks %q", err, part)
		}
	}
}

func TestRaftLogger(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	closing := make(chan struct{})
	l := newRaftLogger(log, slog.LevelInfo, closing, nil)
	l.Debug("hidden")
	l.Info("shown", "servers", hclog.Fmt("%+v", []raft.Server{{ID: "n1", Address: "h:1"}}), "state", raft.Leader)
	l.With("peer", "n2").Warn("warned")
	l.Error("failed to take snapshot", "error", raft.ErrNothingNewToSnapshot, "hidden", true)
	l.Error("failed to take snapshot", "error", errors.New("disk is slow"))
	l.Error("failed to take snapshot", "error", fmt.Errorf("failed to start snapshot: %v", errHashing), "hidden", true)
	close(closing)
	l.Error("hidden: connection closed")
	failed := make(chan struct{})
	close(failed)
	newRaftLogger(log, slog.LevelInfo, nil, failed).Error("failed to take snapshot", "error", "hidden: append failed")
	got := out.String()
	for _, part := range []string{"level=INFO msg=shown", "ID:n1", "state=Leader", "level=WARN msg=warned", "peer=n2", "part=raft",
		`level=WARN msg="failed to take snapshot" part=raft error="disk is slow"`} {
		if !strings.Contains(got, part) {
			t.Errorf("log lacks %q:\n%s", part, got)
		}
	}
	if strings.Contains(got, "hidden") {
		t.Errorf("log has what is below its level:\n%s", got)
	}
}
