package system

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// made is a schema whose values SQLite makes up, in all the places that a rewriting of the
// statements that clients send could not reach.
var made = []any{
	`CREATE TABLE made (
		id INTEGER PRIMARY KEY AUTOINCREMENT,
		at TEXT DEFAULT CURRENT_TIMESTAMP, day TEXT DEFAULT CURRENT_DATE, hour TEXT DEFAULT CURRENT_TIME,
		exact REAL DEFAULT (unixepoch('subsec')), julian REAL DEFAULT (julianday('now')),
		local TEXT DEFAULT (datetime('now', 'localtime')), noon TEXT DEFAULT (strftime('%H:%M', '2024-07-01 12:00', 'localtime')),
		r INTEGER DEFAULT (random()), b BLOB DEFAULT (randomblob(8)),
		name TEXT DEFAULT ('user-' || hex(randomblob(4))),
		low INTEGER GENERATED ALWAYS AS (r & 255) STORED, loud TEXT GENERATED ALWAYS AS (upper(name)) VIRTUAL,
		x)`,
	"CREATE UNIQUE INDEX made_name ON made (name, loud)",
	"CREATE INDEX made_low ON made (low) WHERE low > 100",
	"CREATE TABLE trace (what TEXT, at TEXT, r REAL, n INTEGER, PRIMARY KEY (what, at, r)) WITHOUT ROWID",
	`CREATE TRIGGER made_new AFTER INSERT ON made BEGIN
		INSERT INTO trace VALUES ('new', strftime('%Y-%m-%d %H:%M:%f', 'now'), random(), last_insert_rowid());
		UPDATE made SET x = hex(randomblob(3)) || changes() WHERE id = new.id AND x IS NULL;
	END`,
	`CREATE TRIGGER made_gone AFTER DELETE ON made BEGIN
		INSERT INTO trace VALUES ('gone', strftime('%f', 'now'), random() / 3.0, old.id);
	END`,
	"CREATE VIEW now AS SELECT strftime('%f', 'now') AS f, random() AS r, CURRENT_TIMESTAMP AS t, datetime('now', 'localtime') AS l",
	"CREATE TRIGGER now_new INSTEAD OF INSERT ON now BEGIN INSERT INTO made (at, r, x) SELECT f, r, t || l || new.f FROM now; END",
	"CREATE TABLE copy (a, b, c, d)",
}

// makeUp uses them.
var makeUp = []any{
	"INSERT INTO made DEFAULT VALUES",
	"INSERT INTO made (x) VALUES (random()), (datetime('now', '-1 day')), (hex(randomblob(abs(random()) % 20)))",
	"WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < 5) INSERT INTO made (x) SELECT random() || i FROM s",
	"INSERT INTO now (f) VALUES (strftime('%f', 'now', '+1 hour'))",
	"INSERT INTO copy SELECT f, r, (SELECT t FROM now), (SELECT r FROM now) FROM now, (SELECT id FROM made ORDER BY random() LIMIT 3)",
	"INSERT INTO copy SELECT (SELECT (SELECT randomblob(5))), unixepoch('now', 'localtime'), date('now', 'start of month', 'localtime'), timediff('now', '2020-01-01')",
	"INSERT INTO copy VALUES (last_insert_rowid(), changes(), total_changes(), (SELECT seq FROM sqlite_sequence))",
	"INSERT INTO copy SELECT strftime('%s', '2024-03-31 02:30', 'utc'), datetime(1e9, 'unixepoch', 'localtime'), julianday('now', 'utc'), CURRENT_TIME",
	"UPDATE made SET r = random(), at = CURRENT_TIMESTAMP WHERE id IN (SELECT id FROM made ORDER BY random() LIMIT 3)",
	"UPDATE copy SET d = random()",
	"INSERT INTO made (id, name) VALUES (1, 'taken') ON CONFLICT (id) DO UPDATE SET x = random() || CURRENT_TIMESTAMP",
	"DELETE FROM made WHERE id IN (SELECT id FROM made ORDER BY random() LIMIT 1)",
}

// TestDefaultsSurviveReplay writes rows whose values SQLite makes up, on nodes with different time
// zones. All have the same ones, and have them again, byte for byte, when the whole log is applied once
// more, later and by other processes, or a snapshot is restored.
func TestDefaultsSurviveReplay(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, "-raft-snap", "1000000", "-raft-snap-wal-size", "0")
	zones := []string{"TZ=UTC", "TZ=XST-9:30XDT,M3.5.0,M10.5.0/3", "TZ=America/New_York"}
	for i, n := range c {
		n.env = []string{zones[i]}
	}
	c.start()
	c.waitReady()
	c.madeUp(t, newRand(t), func(round int) {
		for i, n := range c {
			n.env = []string{zones[(i+round)%3]}
		}
	})
}

// TestDefaultsSurviveClocks is the same with clocks that differ by years.
func TestDefaultsSurviveClocks(t *testing.T) {
	if !long() {
		t.Skip("NOT TESTED in the short form: values made up by nodes with wrong clocks; it builds the standard library anew, which takes minutes")
	}
	t.Parallel()
	binary := swayedBinary(t)
	c := newCluster(t, 3, "-raft-snap", "1000000", "-raft-snap-wal-size", "0")
	now := time.Now()
	sway := func(round int) {
		for i, n := range c {
			n.binary = binary
			n.setClock(now.AddDate(7*((i+round)%3), 0, 0), 1+1000*i)
		}
	}
	sway(0)
	c.start()
	c.waitReady()
	c.madeUp(t, newRand(t), sway)
}

// madeUp has nodes make up values and lose, in several ways, what they have; disturb changes
// their surroundings before each start.
func (c cluster) madeUp(t *testing.T, rng *rand.Rand, disturb func(round int)) {
	t.Helper()
	c[0].execute(made...)
	write := func() content {
		for i := range 8 {
			c[i%3].execute(makeUp...)
			path := "/db/request"
			if i%2 == 0 {
				path += "?transaction"
			}
			if _, err := c[(i+1)%3].sql(requestLimit, path, makeUp[rng.IntN(len(makeUp))], "SELECT * FROM now", makeUp[rng.IntN(len(makeUp))]); err != nil {
				t.Fatal(err)
			}
		}
		return c.equal()
	}
	write()
	c[0].reallyDiffer()
	c.swapTo(rng)
	want := write()

	losses := []struct {
		name string
		lose func(n *node)
	}{
		{"nothing: the log is applied to what is left of the database", func(*node) {}},
		{"the database: the whole log is applied", (*node).forgetDatabase},
		{"the marker, after a snapshot", func(n *node) { n.forgetMarker() }},
		{"the database, after a snapshot", (*node).forgetDatabase},
	}
	for round, loss := range losses {
		if strings.HasSuffix(loss.name, "after a snapshot") {
			for _, n := range c {
				n.snapshot() // there may be nothing new
			}
			want = write()
		}
		for _, n := range c {
			n.kill()
			loss.lose(n)
		}
		disturb(round + 1)
		c.start()
		c.waitReady()
		if d := c.equal().diff(want); d != "" {
			t.Fatalf("all nodes were killed and lost %s: %s", loss.name, d)
		}
	}
	behind := c.without(c.leader())[0]
	behind.kill()
	behind.forgetAll()
	for _, n := range c.without(behind) {
		truncateLog(n)
	}
	disturb(len(losses) + 1)
	behind.start()
	c.holds(want)
	write()
	checkIntegrity(c)
}

// reallyDiffer checks that what was made up is not the same in all rows.
func (n *node) reallyDiffer() {
	n.t.Helper()
	for _, sql := range []string{
		"SELECT count(DISTINCT r) * 10 > count(*) * 9 FROM made", "SELECT count(DISTINCT b) * 10 > count(*) * 9 FROM made",
		"SELECT count(DISTINCT name) * 10 > count(*) * 9 FROM made", "SELECT count(DISTINCT r) * 10 > count(*) * 9 FROM trace",
		"SELECT count(DISTINCT at) > 1 FROM trace", "SELECT count(DISTINCT exact) > 1 FROM made", "SELECT count(DISTINCT a) > 1 FROM copy",
		fmt.Sprintf("SELECT min(abs(exact - %d)) < 1e6 * 3600 FROM made", time.Now().Unix()), // a clock, wrong as it may be
	} {
		if got := n.query("none", sql); got[0] != "1" {
			n.t.Errorf("%s: %s = %v; want 1", n.id, sql, got)
		}
	}
}

// swapTo makes another node the leader.
func (c cluster) swapTo(rng *rand.Rand) {
	c[0].t.Helper()
	rest := c.without(c.leader())
	c.lead(rest[rng.IntN(len(rest))])
}
