package system

import (
	"strings"
	"testing"
)

// TestForeignKeysMember starts a member with another setting than it had. What holds is what the
// leader's entries say, on all nodes alike, whoever leads.
func TestForeignKeysMember(t *testing.T) {
	t.Parallel()
	const said = `msg="foreign keys are not as on the leader, whose setting counts"`
	c := startCluster(t, 3, "-fk")
	c[0].execute("CREATE TABLE parent (id INTEGER PRIMARY KEY)", "CREATE TABLE child (parent REFERENCES parent ON DELETE CASCADE)")
	odd := c.without(c.leader())[0]
	rest := c.without(odd)
	odd.kill()
	odd.start("-fk=false")
	c.waitReady()
	orphan := func() bool {
		t.Helper()
		a, err := c.leader().sql(requestLimit, "/db/execute", "INSERT INTO child VALUES (1000)")
		if err != nil && (a == nil || !strings.Contains(a.body, "FOREIGN KEY constraint failed")) {
			t.Fatal(err)
		}
		c.equal()
		return err == nil
	}
	families := func(n *node) {
		t.Helper()
		for i := range 5 {
			n.execute([]any{"INSERT OR REPLACE INTO parent VALUES (?)", i}, []any{"INSERT OR IGNORE INTO child VALUES (?)", i})
		}
		n.execute("DELETE FROM parent WHERE id % 2 = 0")
		c.equal()
	}
	if c.leader() == odd {
		c.lead(rest[0])
	}
	families(odd)
	if orphan() {
		t.Error("an orphan was accepted while the leader enforces foreign keys")
	}
	if n := strings.Count(odd.lastRun(), said); n != 1 {
		t.Errorf("%s says %d times that it differs; want once", odd.id, n)
	}
	c.lead(odd)
	families(rest[0])
	if !orphan() {
		t.Error("an orphan was refused while the leader does not enforce foreign keys")
	}
	for _, n := range rest {
		if got := strings.Count(n.lastRun(), said); got != 1 {
			t.Errorf("%s says %d times that the leader differs; want once", n.id, got)
		}
	}
	c.lead(rest[1])
	families(odd)
	want := c.equal()
	for _, n := range c { // the replay goes by what each entry says
		n.kill()
		n.forgetDatabase()
	}
	c.start()
	c.holds(want)
	c.lead(rest[0])
	if orphan() {
		t.Error("an orphan was accepted after all have their first setting again")
	}
}
