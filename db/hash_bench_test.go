package db

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"
)

// BenchmarkHash hashes a database for the first time, and then after each 4 MiB of change, in the WAL
// or captured, and after none. "begin" is the longest time that a write had to wait for, "KiB" what
// is allocated by the first hash or the longest of the others.
func BenchmarkHash(b *testing.B) {
	for _, mib := range []int{64, 1024} {
		b.Run(fmt.Sprintf("%dMiB", mib), func(b *testing.B) {
			d := openNew(b)
			exec(b, d, "CREATE TABLE t (id INTEGER PRIMARY KEY, v BLOB)")
			const rows = 4096 // of 256 bytes in each MiB
			for i := range mib {
				exec(b, d, fmt.Sprintf("WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<%d) INSERT INTO t SELECT %d*%d+i, randomblob(245) FROM c", rows, i, rows))
			}
			captured(b, d)
			change := func(round int) {
				for i := range 1000 { // each another page
					exec(b, d, fmt.Sprintf("UPDATE t SET v=randomblob(245) WHERE id=%d", (i*7919*16+round*13)%(mib*rows)+1))
				}
			}
			b.Run("first", func(b *testing.B) {
				benchmarkHash(b, d, func(int) { d.hasher = new(hasher) })
			})
			b.Run("changed", func(b *testing.B) {
				benchmarkHash(b, d, func(n int) { captured(b, d); change(n) })
			})
			b.Run("captured", func(b *testing.B) {
				benchmarkHash(b, d, func(n int) { change(n); captured(b, d) })
			})
			b.Run("same", func(b *testing.B) {
				captured(b, d)
				hashNow(b, d)
				benchmarkHash(b, d, func(int) {})
			})
		})
	}
}

func benchmarkHash(b *testing.B, d *DB, before func(n int)) {
	var begin time.Duration
	var memory uint64
	for n := 0; b.Loop(); n++ {
		b.StopTimer()
		before(n)
		var was, is runtime.MemStats
		runtime.ReadMemStats(&was)
		b.StartTimer()
		start := time.Now()
		h, err := d.BeginHash()
		if err != nil {
			b.Fatal(err)
		}
		begin = max(begin, time.Since(start))
		if _, err := h.Sum(context.Background()); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		runtime.ReadMemStats(&is)
		memory = max(memory, is.TotalAlloc-was.TotalAlloc)
		b.StartTimer()
	}
	b.ReportMetric(float64(begin.Microseconds())/1000, "ms/begin")
	b.ReportMetric(float64(memory)/1024, "KiB")
}
