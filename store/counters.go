package store

import (
	"sync/atomic"
	"time"
)

// counters count events since the start.
type counters struct {
	snapshotCounters
	memberCounters
	checkCounters
	transferCounters

	applyTime      atomic.Int64 // µs
	commands       atomic.Int64
	recoveries     atomic.Int64
	verifies       atomic.Int64
	verifiesFailed atomic.Int64
	verifyTime     atomic.Int64 // ms
}

type snapshotCounters struct {
	taken, failed, images, deltas atomic.Int64
	persistTime                   atomic.Int64 // ms
	restores, restoresFailed      atomic.Int64
	startRestores, startSkipped   atomic.Int64
	userSnapshots, walSnapshots   atomic.Int64
	userSnapshotsFailed           atomic.Int64
	walSnapshotsFailed            atomic.Int64
	salvages, discards            atomic.Int64
}

// snapshot counts a capture that was published, or that failed to be with err.
func (c *snapshotCounters) snapshot(err error, cp *capture) {
	if err != nil {
		c.failed.Add(1)
		return
	}
	c.taken.Add(1)
	c.persistTime.Add(time.Since(cp.begun).Milliseconds())
	if cp.source.Header().Delta {
		c.deltas.Add(1)
	} else {
		c.images.Add(1)
	}
}

// transferCounters count what has come to its end.
type transferCounters struct{ loads, boots, backups atomic.Int64 }

type memberCounters struct {
	joins, joinsIgnored, removedBeforeJoins atomic.Int64
	leaderChanges, failedHeartbeats         atomic.Int64
	reaps, reapsFailed                      atomic.Int64
}

// Counters returns the "store" map of /debug/vars. What this program does not do is 0.
func (s *Store) Counters() map[string]int64 {
	c := s.counters
	m := map[string]int64{
		"failed_heartbeat_observed":    c.failedHeartbeats.Load(),
		"fsm_apply_duration_us":        c.applyTime.Load(),
		"leader_changes_dropped":       int64(s.observer.GetNumDropped()),
		"leader_changes_observed":      c.leaderChanges.Load(),
		"nodes_reaped_failed":          c.reapsFailed.Load(),
		"nodes_reaped_ok":              c.reaps.Load(),
		"num_hash_checks":              c.checks.Load(),
		"num_hash_mismatches":          c.mismatches.Load(),
		"num_hash_unanswered":          c.unanswered.Load(),
		"num_ignored_joins":            c.joinsIgnored.Load(),
		"num_joins":                    c.joins.Load(),
		"num_backups":                  c.backups.Load(),
		"num_boots":                    c.boots.Load(),
		"num_loads":                    c.loads.Load(),
		"num_recoveries":               c.recoveries.Load(),
		"num_removed_before_joins":     c.removedBeforeJoins.Load(),
		"num_restores":                 c.restores.Load(),
		"num_restores_failed":          c.restoresFailed.Load(),
		"num_restores_start":           c.startRestores.Load(),
		"num_restores_start_skipped":   c.startSkipped.Load(),
		"num_snapshot_persists":        c.taken.Load(),
		"num_snapshot_persists_failed": c.failed.Load(),
		"num_snapshots":                c.taken.Load(),
		"num_snapshots_damaged":        s.damage.files.Load(),
		"num_snapshots_discarded":      c.discards.Load(),
		"num_snapshots_failed":         c.failed.Load(),
		"num_snapshots_full":           c.images.Load(),
		"num_snapshots_incremental":    c.deltas.Load(),
		"num_snapshots_salvaged":       c.salvages.Load(),
		"num_uncompressed_commands":    c.commands.Load(),
		"num_user_snapshots":           c.userSnapshots.Load(),
		"num_user_snapshots_failed":    c.userSnapshotsFailed.Load(),
		"num_verify_leader":            c.verifies.Load(),
		"num_verify_leader_failed":     c.verifiesFailed.Load(),
		"num_wal_snapshots":            c.walSnapshots.Load(),
		"num_wal_snapshots_failed":     c.walSnapshotsFailed.Load(),
		"snapshot_persist_duration":    c.persistTime.Load(),
		"verify_leader_duration":       c.verifyTime.Load(),
	}
	for _, name := range absentCounters {
		m[name] = 0
	}
	return m
}

// absentCounters are known to monitoring, and count what does not happen here.
var absentCounters = []string{
	"auto_optimize_duration", "auto_vacuum_duration", "num_auto_optimizes", "num_auto_optimizes_failed",
	"num_auto_restores", "num_auto_restores_failed", "num_auto_restores_skipped", "num_auto_vacuums",
	"num_auto_vacuums_failed", "num_compressed_commands", "num_db_stats_errors",
	"num_provider_checks", "num_provider_provides", "num_provider_provides_fail",
	"snapshot_crc32_create_duration", "snapshot_create_duration", "snapshot_sync_duration",
}
