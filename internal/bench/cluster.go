package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"syscall"
	"time"
)

const (
	idleTime = 3 * time.Second // of writing without snapshots
	restarts = 5               // of each kind
)

// cluster is a node that leads, and what is known of one without data.
type cluster struct {
	binary, dir string
	size        int // MiB
	leader      *node
	round       int   // of the last change
	idle        int64 // most memory of a node without data
}

// benchCluster measures real nodes with a database of size MiB.
func benchCluster(ctx context.Context, binary, dir string, size int, t *table, progress func(string)) (err error) {
	c := &cluster{binary: binary, dir: dir, size: size}
	progress("an idle node")
	if err := c.emptyNode(t); err != nil {
		return fmt.Errorf("idle node: %w", err)
	}
	if c.leader, err = newNode(binary, dir, "1"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.leader.end(syscall.SIGKILL)) }()
	progress("fill the node")
	if err := c.fill(); err != nil {
		return err
	}
	for _, part := range []struct {
		name    string
		measure func(*table) error
	}{
		{"restarts", c.restarts},
		{"writes and snapshots", c.pauses},
		{"a new follower", c.follower},
	} {
		progress(part.name)
		settle()
		if err := errors.Join(ctx.Err(), part.measure(t)); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	return nil
}

// emptyNode measures what a node needs that has nothing to do.
func (c *cluster) emptyNode(t *table) (err error) {
	n, err := newNode(c.binary, c.dir, "0")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.end(syscall.SIGKILL)) }()
	if _, err := n.start(); err != nil {
		return err
	}
	if err := n.execute(createTables); err != nil {
		return err
	}
	var times []time.Duration
	for range restarts {
		ready, err := n.restart(syscall.SIGTERM)
		if err != nil {
			return err
		}
		times = append(times, ready)
	}
	t.spread("ready after a restart without data¹: ms", times)
	if c.idle, err = n.peak(); err == nil {
		t.set("peak memory of an idle node without data: MiB", "%.0f", mib(c.idle))
	}
	return err
}

func (c *cluster) fill() error {
	if _, err := c.leader.start(); err != nil {
		return err
	}
	for _, sql := range append([]string{createTables}, inserts(c.size)...) {
		if err := c.leader.execute(sql); err != nil {
			return err
		}
	}
	return c.leader.snapshot()
}

// change changes changeMiB of the database.
func (c *cluster) change() error {
	c.round++
	return c.leader.execute(change(c.size, c.round))
}

// above fills a cell with the peak memory of n beyond that of a node without data.
func (c *cluster) above(row string, n *node, t *table) error {
	peak, err := n.peak()
	if err == nil {
		t.set(row, "%.0f", mib(peak-c.idle))
	}
	return err
}

// restarts measures the time to ready. A node that was stopped has a new snapshot and nothing in its
// log; one that was killed has changeMiB in its log as well.
func (c *cluster) restarts(t *table) error {
	for _, how := range []struct {
		name string
		sig  syscall.Signal
		then func() error
	}{
		{"a clean stop", syscall.SIGTERM, func() error { return nil }},
		{"kill -9", syscall.SIGKILL, c.change},
	} {
		var times []time.Duration
		for range restarts {
			if err := errors.Join(c.change(), c.leader.snapshot(), how.then()); err != nil {
				return err
			}
			ready, err := c.leader.restart(how.sig)
			if err != nil {
				return err
			}
			times = append(times, ready)
		}
		t.spread("ready after "+how.name+"¹: ms", times)
		io, err := trafficOf(strconv.Itoa(c.leader.cmd.Process.Pid))
		if err != nil {
			return err
		}
		t.set("  read / written until ready after "+how.name+": MiB", "%.1f / %.1f", mib(io.read), mib(io.written))
		if err := c.above("  memory after "+how.name+", above idle: MiB", c.leader, t); err != nil {
			return err
		}
	}
	return nil
}

// pauses measures small writes, first alone and then during snapshots.
func (c *cluster) pauses(t *table) (err error) {
	if err := c.leader.end(syscall.SIGTERM); err != nil {
		return err
	}
	if _, err := c.leader.start(); err != nil {
		return err
	}
	w := startWriter(c.leader)
	defer func() { err = errors.Join(err, w.finish()) }()
	begin := time.Now()
	time.Sleep(idleTime)
	idle := w.between(begin, time.Now())
	var during, longest, whole []time.Duration
	for range rounds {
		if err := c.change(); err != nil {
			return err
		}
		begin := time.Now()
		if err := c.leader.snapshot(); err != nil {
			return err
		}
		end := time.Now()
		whole = append(whole, end.Sub(begin))
		writes := w.between(begin, end)
		if len(writes) == 0 || len(idle) == 0 {
			return errors.New("no writes to measure")
		}
		during, longest = append(during, writes...), append(longest, slices.Max(writes))
	}
	t.set("small write, no snapshot: ms, median / p99 / longest", "%s / %s / %s", millis(median(idle)), millis(quantile(idle, 0.99)), millis(quantile(idle, 1)))
	t.set("small write during snapshots: ms, the same", "%s / %s / %s", millis(median(during)), millis(quantile(during, 0.99)), millis(quantile(during, 1)))
	t.spread("  longest small write of a snapshot: ms, median / worst", longest)
	t.spread("snapshot of a busy node: ms, median / worst", whole)
	return c.above("  memory of snapshots, above idle: MiB", c.leader, t)
}

// follower measures a node that joins and gets everything as a snapshot.
func (c *cluster) follower(t *table) (err error) {
	if err := resetPeak(c.leader.cmd.Process.Pid); err != nil {
		return err
	}
	n, err := newNode(c.binary, c.dir, "2", "-join", c.leader.raft)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.end(syscall.SIGKILL)) }()
	ready, err := n.start()
	if err != nil {
		return err
	}
	rows, err := n.rows()
	if err != nil {
		return err
	}
	if want := c.size * pagesInMiB; rows != want {
		return fmt.Errorf("a follower that is ready has %d rows; want %d", rows, want)
	}
	t.set("new follower, until ready: s", "%.2f", ready.Seconds())
	return errors.Join(
		c.above("  memory of the sender, above idle: MiB", c.leader, t),
		c.above("  memory of the receiver, above idle: MiB", n, t))
}
