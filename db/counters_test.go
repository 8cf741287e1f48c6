package db

import (
	"testing"

	"rqlited/command"
)

// TestMetrics follows the size of the database through writes, a capture and a restore.
func TestMetrics(t *testing.T) {
	d := openNew(t)
	expect := func(when string) {
		t.Helper()
		m := d.Metrics()
		if pages, size := value(t, d, "PRAGMA page_count"), value(t, d, "PRAGMA page_size"); m.Pages != pages || m.PageSize != size {
			t.Errorf("%s: %d pages of %d bytes; want %v of %v", when, m.Pages, m.PageSize, pages, size)
		}
	}
	expect("empty")
	exec(t, d, "CREATE TABLE foo(v)", "INSERT INTO foo VALUES(zeroblob(100000))")
	expect("changes in the WAL")
	if m := d.Metrics(); m.WALSize == 0 || m.Readers.Idle != 1 || m.Readers.MaxOpen == 0 {
		t.Errorf("metrics %+v", m)
	}
	c, err := d.Capture("")
	if err != nil {
		t.Fatal(err)
	}
	c.Release()
	expect("captured")
	if m := d.Metrics(); m.WALSize != 0 || m.FileSize != m.Pages*m.PageSize {
		t.Errorf("after a capture: %+v", m)
	}
	exec(t, d, "DROP TABLE foo")
	expect("changed again")
	if got := d.Counters(); got["checkpoints"] != 1 || got["checkpoint_total"] != 1 {
		t.Errorf("checkpoints = %d of %d; want 1 of 1", got["checkpoints"], got["checkpoint_total"])
	}
}

// TestMetricsNeverWait asks for everything while the database is held by somebody else: it would hang.
func TestMetricsNeverWait(t *testing.T) {
	d := openNew(t)
	exec(t, d, "CREATE TABLE foo(v)")
	d.mu.Lock()
	defer d.mu.Unlock()
	d.readers.hold(0)
	defer d.readers.letGo()
	d.judges.hold(0)
	defer d.judges.letGo()
	d.readers.opening.Lock()
	defer d.readers.opening.Unlock()
	if m := d.Metrics(); m.Pages == 0 || d.Counters()["executions"] != 1 {
		t.Errorf("metrics %+v", m)
	}
}

// TestCounters checks which statement counts as what.
func TestCounters(t *testing.T) {
	d := openNew(t)
	request(t, d, command.Request{Kind: command.Execute, Statements: statements("CREATE TABLE foo(v)", "nonsense", "INSERT INTO foo VALUES(1)")})
	request(t, d, command.Request{Kind: command.Execute, Transaction: true, Statements: statements("INSERT INTO foo VALUES(2)")})
	request(t, d, command.Request{Kind: command.Unified, Transaction: true, Statements: statements("SELECT 1", "INSERT INTO foo VALUES(3)")})
	if _, err := d.Query(t.Context(), &command.Request{Kind: command.Query, Statements: statements("SELECT 1", "SELECT nothing")}); err != nil {
		t.Fatal(err)
	}
	got := d.Counters()
	for name, want := range map[string]int64{
		"executions": 5, "execution_errors": 1, "execute_transactions": 1,
		"requests": 1, "request_transactions": 1, "queries": 3, "query_errors": 1, "query_transactions": 0,
	} {
		if got[name] != want {
			t.Errorf("%s = %d; want %d", name, got[name], want)
		}
	}
}
