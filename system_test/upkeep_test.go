package system

import (
	"fmt"
	"testing"
	"time"
)

// autoVacuum is what /status says with -auto-vacuum-int.
type autoVacuum struct {
	Last *time.Time `json:"last_vacuum"`
	Next *time.Time `json:"next_vacuum_after"`
}

func (n *node) autoVacuum() (a autoVacuum, err error) {
	var s struct {
		Store struct {
			Auto autoVacuum `json:"auto_vacuum"`
		} `json:"store"`
	}
	err = n.get("/status", &s)
	return s.Store.Auto, err
}

// sameVacuum waits until all nodes have noted the same VACUUM, later than after and than what was written before, and returns when it was.
func (c cluster) sameVacuum(after time.Time) (last time.Time) {
	c[0].t.Helper()
	within(c[0].t, formLimit, "all nodes have noted a VACUUM", func() error {
		last = time.Time{}
		for _, n := range c {
			a, err := n.autoVacuum()
			if err != nil {
				return err
			}
			if a.Last == nil || !a.Last.After(after) {
				return fmt.Errorf("%s has %v", n.id, a.Last)
			}
			if !last.IsZero() && !a.Last.Equal(last) {
				return fmt.Errorf("%s has %s, another %s", n.id, a.Last, last)
			}
			last = *a.Last
		}
		return nil
	})
	return last
}

// TestUpkeep has a cluster that is written to vacuum and analyze its database each second, while its leader
// is killed, and expects equal nodes. Then it is started again with a longer interval, which counts from the last time before.
func TestUpkeep(t *testing.T) {
	if !hashing {
		t.Skip("NOT TESTED: the binary does its upkeep on each node by itself")
	}
	t.Parallel()
	c := startCluster(t, 3, "-auto-vacuum-int", "1s", "-auto-optimize-int", "1s", "-raft-snap", "20", "-raft-snap-int", "500ms")
	c[0].execute("CREATE TABLE loose (v)", "CREATE TABLE firm (id INTEGER PRIMARY KEY, v)", "CREATE INDEX firm_v ON firm (v)")
	var last time.Time
	for round := range 4 {
		for i := range 10 {
			c[i%3].repeat(fmt.Sprintf("DELETE FROM loose WHERE v = '%d/%d'", round, i), fmt.Sprintf("INSERT INTO loose VALUES ('%d/%d')", round, i),
				fmt.Sprintf("REPLACE INTO firm VALUES (%d, hex(randomblob(20)))", round*10+i))
		}
		c[0].repeat("DELETE FROM loose WHERE rowid % 3 = 0")
		before := last
		last = c.sameVacuum(before)
		if !before.IsZero() && last.Sub(before) < time.Second {
			t.Errorf("VACUUM at %s and at %s", before, last)
		}
		c.equal()
		leader := c.leader()
		leader.kill()
		c.without(leader).leader()
		leader.start()
		c.waitReady()
	}
	if got := c[0].query("none", "SELECT max(rowid) = count(*) FROM loose"); got[0] != "1" {
		// It was vacuumed after its last rows had gone, or will be.
		last = c.sameVacuum(last)
	}
	within(t, formLimit, "statistics on all nodes", func() error {
		for _, n := range c {
			rows, err := n.tryQuery("none", "SELECT count(*) FROM sqlite_stat1 WHERE idx = 'firm_v'")
			if err != nil || rows[0] != "1" {
				return fmt.Errorf("%s has %v: %w", n.id, rows, err)
			}
		}
		return nil
	})
	if c.counter("store", "num_auto_vacuums") == 0 || c.counter("store", "num_auto_vacuums_failed") != 0 || c.counter("store", "num_auto_optimizes_failed") != 0 {
		t.Error("counters are wrong")
	}
	c.equal()
	last = c.sameVacuum(last.Add(-time.Nanosecond))
	for _, n := range c {
		n.stop()
	}
	for _, n := range c {
		n.flags = append(n.flags, "-auto-vacuum-int", "1h", "-auto-optimize-int", "1h")
	}
	c.start()
	c.waitReady()
	for _, n := range c {
		a, err := n.autoVacuum()
		if err != nil || a.Last == nil || a.Last.Before(last) || a.Next.Before(a.Last.Add(time.Hour)) {
			t.Errorf("%s: %+v, %v after the restart; want %s, and an hour later at least", n.id, a, err, last)
		}
	}
	c[0].execute("CREATE TABLE later (v)")
	<-time.After(3 * time.Second)
	if v, o := c.counter("store", "num_auto_vacuums"), c.counter("store", "num_auto_optimizes"); v != 0 || o != 0 {
		t.Errorf("%d times VACUUM and %d times ANALYZE after the restart; want none", v, o)
	}
	c.equal()
}
