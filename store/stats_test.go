package store

import (
	"encoding/json"
	"fmt"
	"testing"
)

// TestStats looks at what monitoring takes from /status.
func TestStats(t *testing.T) {
	n := newSingle(t)
	n.exec(t, "CREATE TABLE foo (v TEXT)")
	n.snapshot(t, 0)
	st, err := n.Stats()
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(st)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	at := func(path ...string) any {
		var v any = got
		for _, k := range path {
			m, ok := v.(map[string]any)
			if !ok {
				return fmt.Sprintf("no object above %q", k)
			}
			v = m[k]
		}
		return v
	}
	tests := []struct {
		path []string
		want any
	}{
		{[]string{"leader", "node_id"}, "n1"},
		{[]string{"leader", "addr"}, n.cfg.Addr},
		{[]string{"raft", "state"}, "Leader"},
		{[]string{"raft", "voter"}, true},
		{[]string{"raft", "commit_index"}, float64(n.CommitIndex())},
		{[]string{"raft", "applied_index"}, float64(n.CommitIndex())},
		{[]string{"raft", "last_snapshot_index"}, float64(n.fsm.progress.index())},
		{[]string{"raft", "config", "LocalID"}, "n1"},
		{[]string{"raft", "config", "MaxAppendEntries"}, 64.0},
		{[]string{"fsm_index"}, float64(n.fsm.progress.index())},
		{[]string{"db_applied_index"}, float64(n.fsm.progress.index())},
		{[]string{"ready"}, true},
		{[]string{"snapshot_threshold"}, 8192.0},
		{[]string{"trailing_logs"}, 10240.0},
		{[]string{"apply_timeout"}, "10s"},
	}
	for _, tt := range tests {
		if got := at(tt.path...); got != tt.want {
			t.Errorf("%v = %v; want %v", tt.path, got, tt.want)
		}
	}
	if list, ok := at("snapshot_store", "snapshots").([]any); !ok || len(list) != 1 {
		t.Errorf("snapshots are %v; want one", at("snapshot_store", "snapshots"))
	}
	if open, ok := at("open").(map[string]any); !ok || len(open) != 0 {
		t.Errorf("open is %v; want an empty object", at("open"))
	}
	for _, path := range [][]string{{"raft", "bolt", "TxStats", "Write"}, {"sqlite3", "pragmas"}, {"dir_size_friendly"}} {
		if at(path...) == nil {
			t.Errorf("%v is missing", path)
		}
	}
}

func TestFriendly(t *testing.T) {
	tests := []struct {
		in   int64
		want string
	}{
		{0, "0 B"}, {9, "9 B"}, {999, "999 B"}, {4096, "4.1 kB"}, {24576, "25 kB"}, {65536, "66 kB"},
		{180712, "181 kB"}, {999999, "1.0 MB"}, {5 << 30, "5.4 GB"},
	}
	for _, tt := range tests {
		if got := friendly(tt.in); got != tt.want {
			t.Errorf("friendly(%d) = %q; want %q", tt.in, got, tt.want)
		}
	}
}
