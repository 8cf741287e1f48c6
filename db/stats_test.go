package db

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

func TestStats(t *testing.T) {
	d := openNew(t)
	exec(t, d, setup)
	stats, err := d.Stats()
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(stats)
	if err != nil {
		t.Fatal(err)
	}
	const pragmas = `"pragmas":{"ro":{"busy_timeout":"5000","foreign_keys":"0","journal_mode":"wal","synchronous":"0","wal_autocheckpoint":"1000"},` +
		`"rw":{"busy_timeout":"5000","foreign_keys":"0","journal_mode":"wal","synchronous":"0","wal_autocheckpoint":"0"}}`
	for _, want := range []string{pragmas, `"version":"3.`, `"ENABLE_FTS5"`, `"max_open_connections":256`, `"page_size":4096`, `"db_size":12288,"db_size_friendly":"12 kB","extensions":[]`,
		`"transaction":{"ro":false,"rw":false}`, `"ro_dsn":"file:` + d.path + `?_fk=false`} {
		if !strings.Contains(string(b), want) {
			t.Errorf("%s\nis not in the stats:\n%s", want, b)
		}
	}
	if stats.WALSize == 0 || stats.Size == 0 || stats.LastModified == nil {
		t.Errorf("sizes %d, %d, time %v", stats.WALSize, stats.Size, stats.LastModified)
	}
	// The members are in the order of the alphabet, as clients of rqlite see them.
	var members map[string]json.RawMessage
	if err := json.Unmarshal(b, &members); err != nil {
		t.Fatal(err)
	}
	var sorted []byte
	for _, name := range slices.Sorted(maps.Keys(members)) {
		sorted = fmt.Appendf(sorted, ",%q:%s", name, members[name])
	}
	if got := "," + strings.Trim(string(b), "{}") + "}"; !strings.HasPrefix(string(sorted), got[:len(got)-1]) {
		t.Errorf("members are not sorted: %s", b)
	}
}

func TestFriendly(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 9: "9 B", 999: "999 B", 1000: "1.0 kB", 24576: "25 kB", 9_950_000: "10 MB", 1_500_000_000: "1.5 GB"} {
		if got := friendly(n); got != want {
			t.Errorf("friendly(%d) = %s, want %s", n, got, want)
		}
	}
}
