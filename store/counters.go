package store

import (
	"sync/atomic"
	"time"

	"rqlited/command"
)

// counters count events since the start.
type counters struct {
	snapshotCounters
	damageCounters
	memberCounters
	checkCounters
	transferCounters
	entryCounters
	upkeepCounters

	applies        atomic.Int64
	applyTime      atomic.Int64 // µs
	recoveries     atomic.Int64
	verifies       atomic.Int64
	verifiesFailed atomic.Int64
	verifyTime     atomic.Int64 // ms
}

type snapshotCounters struct {
	taken, failed, images, deltas atomic.Int64
	persistTime                   atomic.Int64 // ms
	persistSize                   atomic.Int64 // bytes of pages in the last one
	restores, restoresFailed      atomic.Int64
	startRestores, startSkipped   atomic.Int64
	userSnapshots, walSnapshots   atomic.Int64
	userSnapshotsFailed           atomic.Int64
	walSnapshotsFailed            atomic.Int64
}

// damageCounters count what was done about damaged chains of snapshots.
type damageCounters struct{ salvages, discards atomic.Int64 }

// snapshot counts a capture that was published, or that failed to be with err.
func (c *snapshotCounters) snapshot(err error, cp *capture) {
	if err != nil {
		c.failed.Add(1)
		return
	}
	c.taken.Add(1)
	h := cp.source.Header()
	c.persistTime.Add(time.Since(cp.begun).Milliseconds())
	c.persistSize.Store(int64(h.Records) * int64(h.PageSize))
	if h.Delta {
		c.deltas.Add(1)
	} else {
		c.images.Add(1)
	}
}

// entryCounters count the entries that this node has proposed as a leader.
type entryCounters struct {
	compressed, uncompressed, misses     atomic.Int64 // entries; misses would not have become smaller
	plainBytes, compressedBytes          atomic.Int64 // plainBytes are those of all, before compression
	uncompressedBytes                    atomic.Int64
	proposals, proposalsFailed, waitTime atomic.Int64 // µs from the hand-over to Raft to the answer
}

// packed counts an entry that was encoded.
func (c *entryCounters) packed(p command.Packing) {
	c.plainBytes.Add(int64(p.Plain))
	if p.Compressed {
		c.compressed.Add(1)
		c.compressedBytes.Add(int64(p.Stored))
		return
	}
	c.uncompressed.Add(1)
	c.uncompressedBytes.Add(int64(p.Stored))
	if p.Tried {
		c.misses.Add(1)
	}
}

// proposed counts an entry that was handed to Raft, and what has come of it.
func (c *entryCounters) proposed(begun time.Time, err error) {
	c.proposals.Add(1)
	c.waitTime.Add(time.Since(begun).Microseconds())
	if err != nil {
		c.proposalsFailed.Add(1)
	}
}

// transferCounters count what has come to its end.
type transferCounters struct{ loads, boots, backups atomic.Int64 }

// upkeepCounters count what was applied here since the start, and what has failed while this node led.
type upkeepCounters struct{ vacuum, optimize taskCounters }

type taskCounters struct {
	done, failed atomic.Int64
	time         atomic.Int64 // ms
}

type memberCounters struct {
	joins, joinsIgnored, removedBeforeJoins atomic.Int64
	leaderChanges, failedHeartbeats         atomic.Int64
	reaps, reapsFailed                      atomic.Int64
}

// Counters returns the "store" map of /debug/vars, as far as there is something to count.
func (s *Store) Counters() map[string]int64 {
	c := s.counters
	return map[string]int64{
		"auto_optimize_duration":       c.optimize.time.Load(),
		"auto_vacuum_duration":         c.vacuum.time.Load(),
		"num_auto_optimizes":           c.optimize.done.Load(),
		"num_auto_optimizes_failed":    c.optimize.failed.Load(),
		"num_auto_vacuums":             c.vacuum.done.Load(),
		"num_auto_vacuums_failed":      c.vacuum.failed.Load(),
		"failed_heartbeat_observed":    c.failedHeartbeats.Load(),
		"fsm_applies":                  c.applies.Load(),
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
		"num_proposals":                c.proposals.Load(),
		"num_proposals_failed":         c.proposalsFailed.Load(),
		"num_compressed_commands":      c.compressed.Load(),
		"num_uncompressed_commands":    c.uncompressed.Load(),
		"num_user_snapshots":           c.userSnapshots.Load(),
		"num_user_snapshots_failed":    c.userSnapshotsFailed.Load(),
		"num_verify_leader":            c.verifies.Load(),
		"num_verify_leader_failed":     c.verifiesFailed.Load(),
		"num_wal_snapshots":            c.walSnapshots.Load(),
		"num_wal_snapshots_failed":     c.walSnapshotsFailed.Load(),
		"proposal_duration_us":         c.waitTime.Load(),
		"snapshot_persist_duration":    c.persistTime.Load(),
		"verify_leader_duration":       c.verifyTime.Load(),
	}
}

// EntryCounters returns the "proto" map of /debug/vars: how the entries were encoded that this node has
// proposed.
func (s *Store) EntryCounters() map[string]int64 {
	c := s.counters
	compressed, uncompressed := c.compressed.Load(), c.uncompressed.Load()
	return map[string]int64{
		"num_compressed_bytes":      c.compressedBytes.Load(),
		"num_compressed_requests":   compressed,
		"num_compression_misses":    c.misses.Load(),
		"num_precompressed_bytes":   c.plainBytes.Load(),
		"num_requests":              compressed + uncompressed,
		"num_uncompressed_bytes":    c.uncompressedBytes.Load(),
		"num_uncompressed_requests": uncompressed,
	}
}

// SnapshotCounters returns the "snapshot" map of /debug/vars, as far as there is something to count. Reaps
// are compactions, which have the same purpose.
func (s *Store) SnapshotCounters() map[string]int64 {
	c, w := s.counters, s.snaps.Stats().Work
	return map[string]int64{
		"compactions_skipped":      w.CompactionsSkipped,
		"full_compactions":         w.Compactions - w.Merges,
		"installs":                 w.Installs,
		"merges":                   w.Merges,
		"num_bytes_changed":        w.BytesChanged,
		"num_bytes_compacted":      w.BytesCompacted,
		"num_bytes_written":        w.BytesWritten,
		"persist_duration_ms":      c.persistTime.Load(),
		"persist_size":             c.persistSize.Load(),
		"reap_execute_duration_ms": w.CompactionTime,
		"reap_total":               w.Compactions,
		"sink_errors":              c.failed.Load(),
		"sink_full_total":          w.Images + w.Installs,
		"sink_incremental_total":   w.Deltas,
	}
}

// DatabaseCounters returns the "db" map of /debug/vars.
func (s *Store) DatabaseCounters() map[string]int64 { return s.db.Counters() }
