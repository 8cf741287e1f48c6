package db

import (
	"testing"
	"time"

	"rqlited/command"
)

// TestLocalTimeIsUTC applies entries in a process whose zone is nine hours ahead.
func TestLocalTimeIsUTC(t *testing.T) {
	t.Setenv("TZ", "JST-9") // of the C library too; needs no file
	d := openNew(t)
	const noon = "'2024-01-01 12:00:00'"
	if got := value(t, d, "SELECT datetime("+noon+", 'localtime')"); got != "2024-01-01 21:00:00" {
		t.Fatalf("the zone of this process is not in force: local time is %v", got)
	}
	exec(t, d, "CREATE TABLE z (n DEFAULT (datetime('now', 'localtime')), l DEFAULT (datetime("+noon+", 'localtime')), u DEFAULT (datetime("+noon+", 'utc')), t)",
		"CREATE VIEW local AS SELECT strftime('%H', "+noon+", 'localtime') AS h",
		"CREATE TRIGGER g AFTER INSERT ON z BEGIN UPDATE z SET t=(SELECT h FROM local) WHERE rowid=new.rowid; END")
	insert := func(at time.Time) {
		apply(t, d, &command.Entry{Kind: command.Execute, Time: at, Seed: 1, Request: &command.Request{Statements: statements("INSERT INTO z DEFAULT VALUES")}})
	}
	for range 2 { // prepared, and from the cache
		insert(time.Date(2024, 2, 29, 12, 30, 15, 0, time.UTC))
		if got, want := show(query(t, d, "SELECT * FROM z").Results...), `[["2024-02-29 12:30:15","2024-01-01 12:00:00","2024-01-01 12:00:00","12"]]`; got != want {
			t.Errorf("an entry with a time stored %s, want %s", got, want)
		}
		exec(t, d, "DELETE FROM z")
		insert(time.Time{})
		if got, want := show(query(t, d, "SELECT l, u, t FROM z").Results...), `[["2024-01-01 21:00:00","2024-01-01 03:00:00","21"]]`; got != want {
			t.Errorf("an entry of rqlite stored %s, want %s", got, want)
		}
		exec(t, d, "DELETE FROM z")
	}
	if got := value(t, d, "SELECT h FROM local"); got != "21" {
		t.Errorf("a read has hour %v, want 21", got)
	}
}
