package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/hashicorp/raft"

	"rqlited/command"
	"rqlited/db"
	"rqlited/internal/vfs"
	"rqlited/snapshot"
)

// longRun is how many snapshots show what compaction costs in the long run.
const longRun = 64

// engine is a database and its snapshots.
type engine struct {
	dir   string
	db    *db.DB
	store *snapshot.Store
	index uint64 // of the last entry applied
	round int    // of the last change
	size  int    // MiB
}

// cost is what one snapshot took.
type cost struct {
	capture time.Duration // during which nothing can be applied
	whole   time.Duration
	traffic
}

// benchEngine measures a database of size MiB without Raft.
func benchEngine(ctx context.Context, dir string, size int, t *table, progress func(string)) (err error) {
	e := &engine{dir: dir, size: size}
	if e.db, err = db.Open(filepath.Join(dir, "db.sqlite"), db.Config{}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.db.Close()) }()
	if err := e.open(snapshot.Config{CompactDeltas: -1}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.store.Close()) }()
	progress("fill the database")
	if err := e.fill(); err != nil {
		return err
	}
	for _, part := range []struct {
		name    string
		measure func(context.Context, *table) error
	}{
		{"snapshots", e.snapshots},
		{"readers", e.readers},
		{"compaction", e.compaction},
		{"a long run", e.longRun},
	} {
		progress(part.name)
		settle()
		if err := part.measure(ctx, t); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	return nil
}

func (e *engine) open(cfg snapshot.Config) (err error) {
	e.store, err = snapshot.Open(filepath.Join(e.dir, "snapshots"), cfg)
	return err
}

func (e *engine) fill() error {
	for _, sql := range append([]string{createTables}, inserts(e.size)...) {
		if err := e.apply(sql); err != nil {
			return err
		}
	}
	return nil
}

// settle waits until the disk has nothing left to do. The database itself is never synced as a whole,
// and what filled it would be in the way of the syncs that are measured.
func settle() { syscall.Sync() }

func (e *engine) apply(sql string) error {
	e.index++
	resp, err := e.db.Apply(&command.Entry{Kind: command.Execute, Time: time.Now(), Seed: e.index,
		Request: &command.Request{Kind: command.Execute, Statements: []command.Statement{{SQL: sql}}}})
	if err != nil {
		return err
	}
	for _, r := range resp.Results {
		if r.Error != "" {
			return fmt.Errorf("%s: %s", sql, r.Error)
		}
	}
	return nil
}

// capture is a db.Capture as package snapshot wants it.
type capture struct{ *db.Capture }

func (c capture) Header() snapshot.Header {
	return snapshot.Header{PageSize: c.PageSize(), Pages: c.Pages(), Records: c.Records(), Delta: c.Delta()}
}

// snapshot takes a snapshot as a node does.
func (e *engine) snapshot() (cost, error) {
	before, err := trafficOf("self")
	if err != nil {
		return cost{}, err
	}
	head, _ := e.store.Head()
	start := time.Now()
	c, err := e.db.Capture(head.ID)
	if err != nil {
		return cost{}, err
	}
	defer c.Release()
	captured := time.Since(start)
	sink, err := e.store.Create(1, e.index, 1, raft.Configuration{Servers: []raft.Server{{ID: "1", Address: "1"}}}, 1, nil)
	if err != nil {
		return cost{}, err
	}
	sink.(*snapshot.Sink).Local(head.ID)
	if err := errors.Join(snapshot.WriteStream(sink, capture{c}), sink.Close(), c.Published(sink.ID())); err != nil {
		return cost{}, err
	}
	took := time.Since(start)
	after, err := trafficOf("self")
	return cost{captured, took, traffic{after.read - before.read, after.written - before.written}}, err
}

// change changes changeMiB of the database.
func (e *engine) change() error {
	e.round++
	return e.apply(change(e.size, e.round))
}

func (e *engine) snapshots(_ context.Context, t *table) error {
	first, err := e.snapshot()
	if err != nil {
		return err
	}
	t.set("first snapshot, all pages: s", "%.2f", first.whole.Seconds())
	var whole, captured []time.Duration
	var sum traffic
	for range rounds {
		if err := e.change(); err != nil {
			return err
		}
		c, err := e.snapshot()
		if err != nil {
			return err
		}
		whole, captured = append(whole, c.whole), append(captured, c.capture)
		sum.read, sum.written = sum.read+c.read, sum.written+c.written
	}
	t.spread("snapshot of 4 MiB of change: ms, median / worst", whole)
	t.spread("  time in which nothing is applied: ms", captured)
	t.set("  read / written for it: MiB", "%.1f / %.1f", mib(sum.read)/rounds, mib(sum.written)/rounds)
	return nil
}

// readers measures the ways out of a chain of a base and as many deltas as there were rounds.
func (e *engine) readers(ctx context.Context, t *table) error {
	head, _ := e.store.Head()
	var first []time.Duration
	for range rounds {
		start := time.Now()
		_, rc, err := e.store.Open(head.ID)
		if err != nil {
			return err
		}
		_, err = rc.Read(make([]byte, 1))
		first = append(first, time.Since(start))
		if err = errors.Join(err, rc.Close()); err != nil {
			return err
		}
	}
	t.spread("open to the first byte: ms", first)

	start := time.Now()
	_, rc, err := e.store.Open(head.ID)
	if err != nil {
		return err
	}
	n, err := io.Copy(io.Discard, rc)
	if err = errors.Join(err, rc.Close()); err != nil {
		return err
	}
	t.set("stream of the image: MiB/s", "%.0f", mib(n)/time.Since(start).Seconds())
	return e.restore(ctx, head.ID, t)
}

func (e *engine) restore(ctx context.Context, id string, t *table) error {
	start := time.Now()
	_, rc, err := e.store.Open(id)
	if err != nil {
		return err
	}
	defer rc.Close() // only read
	name := filepath.Join(e.dir, "restored")
	image, err := vfs.OS.Create(name)
	if err != nil {
		return err
	}
	_, err = snapshot.Restore(ctx, rc, image)
	if err = errors.Join(err, image.Close()); err != nil {
		return err
	}
	took := time.Since(start)
	t.set("restore, synced: s", "%.2f", took.Seconds())
	t.set("restore, synced: MiB/s", "%.0f", float64(e.size)/took.Seconds())
	return os.Remove(name)
}

func (e *engine) compaction(ctx context.Context, t *table) error {
	before := e.store.Stats().BytesWritten
	start := time.Now()
	if err := e.store.Compact(ctx); err != nil {
		return err
	}
	t.set(fmt.Sprintf("compaction of %d deltas into the base: s", rounds), "%.2f", time.Since(start).Seconds())
	t.set("  bytes written by it: MiB", "%.1f", mib(e.store.Stats().BytesWritten-before))
	return nil
}

// longRun takes many snapshots with compaction as a node has it.
func (e *engine) longRun(ctx context.Context, t *table) error {
	if err := e.store.Close(); err != nil {
		return err
	}
	if err := e.open(snapshot.Config{}); err != nil {
		return err
	}
	var whole []time.Duration
	for range longRun {
		if err := e.change(); err != nil {
			return err
		}
		c, err := e.snapshot()
		if err != nil {
			return err
		}
		whole = append(whole, c.whole)
	}
	t.spread(fmt.Sprintf("snapshot amid compactions, %d in a row: ms", longRun), whole)
	stats := e.store.Stats()
	t.set("  bytes that the store wrote per byte of change", "%.2f", mib(stats.BytesWritten)/(longRun*changeMiB))
	t.set("  size of its files: MiB", "%.0f", mib(stats.Size))
	return nil
}
