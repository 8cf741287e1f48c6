package store

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"

	"rqlited/snapshot"
)

// raftConfigStats is Raft's configuration as /status shows it, in the order of the fields.
type raftConfigStats struct {
	LocalID                  string
	HeartbeatTimeout         time.Duration
	ElectionTimeout          time.Duration
	LeaderLeaseTimeout       time.Duration
	CommitTimeout            time.Duration
	SnapshotInterval         time.Duration
	SnapshotThreshold        uint64
	MaxAppendEntries         int
	ShutdownOnRemove         bool
	LogLevel                 string
	NoSnapshotRestoreOnStart bool
}

type nodeStats struct {
	ID       string `json:"id"`
	Addr     string `json:"addr"`
	Suffrage string `json:"suffrage"`
}

// Stats returns the "store" object of /status, made for encoding/json. The form is that of rqlite,
// its oddities included: "open" is an empty object.
func (s *Store) Stats() (any, error) {
	select {
	case <-s.closing:
		return map[string]any{"open": false}, nil
	default:
	}
	raftStats, err := s.raftStats()
	if err != nil {
		return nil, err
	}
	dirSize, err := sizeOf(s.cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("size of %s: %w", s.cfg.Dir, err)
	}
	var sqlite any // null if SQLite cannot tell
	if st, err := s.db.Stats(); err == nil {
		sqlite = st
	}
	leader, _ := s.Leader()
	now := s.fsm.progress.now.Load()
	st := map[string]any{
		"addr":                    s.cfg.Addr,
		"apply_timeout":           s.cfg.Raft.ApplyTimeout.String(),
		"cdc":                     map[string]any{"enabled": false, "registered": false},
		"commit_timeout":          s.cfg.Raft.CommitTimeout.String(),
		"db_applied_index":        s.fsm.changed.Load(),
		"db_conf":                 s.databaseStats(),
		"dir":                     s.cfg.Dir,
		"dir_size":                dirSize,
		"dir_size_friendly":       friendly(dirSize),
		"election_timeout":        s.cfg.Raft.ElectionTimeout.String(),
		"fsm_index":               now.index,
		"fsm_term":                now.term,
		"fsm_update_time":         now.at,
		"hash":                    s.hashStats(),
		"heartbeat_timeout":       s.cfg.Raft.HeartbeatTimeout.String(),
		"leader":                  map[string]any{"addr": leader.Addr, "node_id": leader.ID},
		"leader_appended_at_time": now.appendedAt,
		"no_freelist_sync":        true,
		"node_id":                 s.cfg.NodeID,
		"nodes":                   s.nodeStats(),
		"observer":                map[string]any{"dropped": s.observer.GetNumDropped(), "observed": s.observer.GetNumObserved()},
		"open":                    struct{}{},
		"raft":                    raftStats,
		"ready":                   s.Ready() == nil,
		"reap_read_only_timeout":  s.cfg.Reap.ReadOnly.String(),
		"reap_timeout":            s.cfg.Reap.Voter.String(),
		"request_marshaler": map[string]any{
			"compression_batch": 512, "compression_size": 4096, "force_compression": false,
		},
		"snapshot_cas":       map[string]any{"owner": nil}, // nobody ever waits for the snapshot store
		"snapshot_interval":  s.cfg.Snapshot.Interval.String(),
		"snapshot_store":     s.snapshotStats(),
		"snapshot_threshold": s.cfg.Snapshot.Threshold,
		"sqlite3":            sqlite,
		"strong_read_term":   s.lead.term.Load(),
		"trailing_logs":      s.cfg.Snapshot.trailing(),
	}
	if s.cfg.Upkeep.Vacuum > 0 {
		st["auto_vacuum"] = s.fsm.upkeep.vacuumStats()
	}
	return st, nil
}

// databaseStats are the settings of SQLite.
func (s *Store) databaseStats() map[string]any {
	m := map[string]any{"fk_constraints": s.cfg.ForeignKeys, "fk_cluster": s.fsm.keys.inLog().String()}
	if len(s.extensions) > 0 {
		m["extensions"] = s.extensions.Paths(s.cfg.extensionsDir())
	}
	if d := s.fsm.extensions.differing(); d != "" {
		m["extensions_differ"] = "this node " + d
	}
	return m
}

func (s *Store) nodeStats() []nodeStats {
	nodes := []nodeStats{}
	servers, _ := s.Servers() // answered from memory
	for _, sv := range servers {
		suffrage := "nonvoter"
		if sv.Voter {
			suffrage = "voter"
		}
		nodes = append(nodes, nodeStats{sv.ID, sv.Addr, suffrage})
	}
	return nodes
}

// snapshotStats are the statistics of the snapshot store, with those that rqlite has in front.
type snapshotStats struct {
	Dir       string   `json:"dir"`
	DirSize   int64    `json:"dir_size"`
	Snapshots []string `json:"snapshots"`
	snapshot.Stats
}

func (s *Store) snapshotStats() snapshotStats {
	st := s.snaps.Stats()
	return snapshotStats{Dir: st.Dir, DirSize: st.Size, Snapshots: st.Snapshots, Stats: st}
}

// raftStats is what Raft says about itself, with numbers as numbers, and what we know besides.
func (s *Store) raftStats() (map[string]any, error) {
	m := make(map[string]any)
	for k, v := range s.raft.Stats() {
		if n, err := strconv.ParseUint(v, 10, 64); err == nil {
			m[k] = n
		} else {
			m[k] = v
		}
	}
	size := int64(0)
	if info, err := os.Stat(filepath.Join(s.cfg.Dir, logFile)); err == nil {
		size = info.Size()
	}
	m["log_size"], m["log_size_friendly"] = size, friendly(size)
	m["voter"] = s.Voter()
	m["bolt"] = s.boltStats()
	m["transport"] = map[string]any{
		"command_commit_index": s.logs.lastCommand.Load(),
		"compress_snap":        s.cfg.Raft.CompressSnaps,
		"leader_commit_index":  s.raft.CommitIndex(),
	}
	rc := s.raft.ReloadableConfig()
	m["config"] = raftConfigStats{
		LocalID:                  s.cfg.NodeID,
		HeartbeatTimeout:         rc.HeartbeatTimeout,
		ElectionTimeout:          rc.ElectionTimeout,
		LeaderLeaseTimeout:       s.cfg.Raft.LeaderLeaseTimeout,
		CommitTimeout:            s.cfg.Raft.CommitTimeout,
		SnapshotInterval:         rc.SnapshotInterval,
		SnapshotThreshold:        rc.SnapshotThreshold,
		MaxAppendEntries:         raft.DefaultConfig().MaxAppendEntries,
		ShutdownOnRemove:         s.cfg.Raft.ShutdownOnRemove,
		LogLevel:                 s.cfg.Raft.LogLevel,
		NoSnapshotRestoreOnStart: s.counters.startSkipped.Load() > 0,
	}
	return m, nil
}

func (s *Store) boltStats() bbolt.Stats { return s.logs.bolt.Stats() }

// sizeOf returns the bytes that the files below dir have. Files that vanish meanwhile have none.
func sizeOf(dir string) (size int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return ignoreMissing(err)
		}
		info, err := d.Info()
		if err != nil {
			return ignoreMissing(err)
		}
		size += info.Size()
		return nil
	})
	return size, err
}

func ignoreMissing(err error) error {
	if os.IsNotExist(err) {
		return nil
	}
	return err
}

// friendly writes a number of bytes for people: "181 kB".
func friendly(n int64) string {
	if n < 10 {
		return fmt.Sprintf("%d B", n)
	}
	units := []string{"B", "kB", "MB", "GB", "TB", "PB", "EB"}
	v, i := float64(n), 0
	for v >= 999.5 && i < len(units)-1 {
		v /= 1000
		i++
	}
	if v < 10 {
		return fmt.Sprintf("%.1f %s", v, units[i])
	}
	return fmt.Sprintf("%.0f %s", v, units[i])
}
