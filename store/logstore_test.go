package store

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"rqlited/snapshot"
)

func newLog(t *testing.T, path string) *logStore {
	t.Helper()
	l, err := openLog(path, func(err error) { t.Errorf("log failed: %v", err) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.bolt.Close() })
	return l
}

// entries returns commands from first to last, of one term.
func entries(term, first, last uint64) (logs []*raft.Log) {
	for i := first; i <= last; i++ {
		logs = append(logs, &raft.Log{Index: i, Term: term, Type: raft.LogCommand, AppendedAt: time.Now()})
	}
	return logs
}

func termAt(t *testing.T, l *logStore, index uint64) (term uint64, ok bool) {
	t.Helper()
	var e raft.Log
	switch err := l.GetLog(index, &e); {
	case errors.Is(err, raft.ErrLogNotFound):
		return 0, false
	case err != nil:
		t.Fatal(err)
	}
	return e.Term, true
}

func TestLogCheckGap(t *testing.T) {
	tests := []struct {
		name        string
		head        snapshot.Head
		first, last uint64 // of the log; 0 is empty
		want        string // in the error; empty is none
	}{
		{"new", snapshot.Head{}, 0, 0, ""},
		{"log only", snapshot.Head{}, 1, 9, ""},
		{"snapshot only", snapshot.Head{ID: "s", Index: 7, Term: 2}, 0, 0, ""},
		{"log overlaps snapshot", snapshot.Head{ID: "s", Index: 7, Term: 2}, 3, 9, ""},
		{"log follows snapshot", snapshot.Head{ID: "s", Index: 7, Term: 2}, 8, 9, ""},
		{"log ends before snapshot", snapshot.Head{ID: "s", Index: 7, Term: 2}, 2, 5, ""},
		{"gap", snapshot.Head{ID: "s", Index: 7, Term: 2}, 12, 14, "snapshot ends at 7, the log begins at 12"},
		{"no snapshot", snapshot.Head{}, 12, 14, "no snapshot, and the log begins at 12"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := newLog(t, filepath.Join(t.TempDir(), logFile))
			if tt.last > 0 {
				if err := l.StoreLogs(entries(2, tt.first, tt.last)); err != nil {
					t.Fatal(err)
				}
			}
			err := l.check(tt.head, tt.head.ID != "")
			if tt.want == "" && err != nil || tt.want != "" && (!errors.Is(err, ErrGap) || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("check = %v; want %q", err, tt.want)
			}
		})
	}
}

// TestLogInstall follows what a follower does with its log when a leader sends a snapshot.
func TestLogInstall(t *testing.T) {
	tests := []struct {
		name        string
		head        snapshot.Head // before the install
		first, last uint64        // log of term 2; 0 is empty
		index, term uint64        // of the install
		kept        bool
		void        bool
	}{
		{"empty log", snapshot.Head{}, 0, 0, 7, 3, true, false},
		{"log contains the entry", snapshot.Head{}, 1, 9, 7, 2, true, false},
		{"head is the same", snapshot.Head{ID: "x", Index: 7, Term: 2}, 8, 9, 7, 2, true, false},
		{"log is far behind", snapshot.Head{}, 1, 5, 7, 3, false, false},
		{"other entry", snapshot.Head{}, 1, 9, 7, 3, false, true},
		{"entry gone, log goes on", snapshot.Head{ID: "x", Index: 8, Term: 2}, 9, 12, 7, 2, false, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), logFile)
			l := newLog(t, path)
			if tt.last > 0 {
				if err := l.StoreLogs(entries(2, tt.first, tt.last)); err != nil {
					t.Fatal(err)
				}
			}
			l.edge.Store(&edge{index: tt.head.Index, term: tt.head.Term})
			published := false
			publish := func() error { published = true; return nil }
			if err := l.install("id", tt.index, tt.term, tt.head, publish); err != nil || !published {
				t.Fatalf("install = %v, published %t", err, published)
			}
			if _, last, err := l.bounds(); err != nil || (last == tt.last) != tt.kept {
				t.Errorf("log ends at %d, %v; kept should be %t", last, err, tt.kept)
			}
			if l.void() != tt.void {
				t.Errorf("void = %t; want %t", l.void(), tt.void)
			}
			if term, ok := termAt(t, l, tt.index); !ok || term != tt.term {
				t.Errorf("term of the snapshot's entry = %d, %t; want %d", term, ok, tt.term)
			}
		})
	}
}

// TestLogVoid walks the way on which Raft replaces a log that is gone.
func TestLogVoid(t *testing.T) {
	l := newLog(t, filepath.Join(t.TempDir(), logFile))
	if err := l.StoreLogs(entries(2, 1, 9)); err != nil {
		t.Fatal(err)
	}
	if err := l.install("id", 7, 3, snapshot.Head{}, func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	if term, ok := termAt(t, l, 8); !ok || term != 0 {
		t.Errorf("term of a void entry = %d, %t; want 0", term, ok)
	}
	if err := l.StoreLogs(entries(4, 10, 10)); err == nil {
		t.Error("StoreLogs on a void log succeeded; want an error")
	}
	// The leader may send another snapshot before anything else.
	if err := l.install("id2", 6, 3, snapshot.Head{}, func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	if term, ok := termAt(t, l, 7); !l.void() || !ok || term != 0 {
		t.Errorf("after another install: void %t, term of entry 7 = %d, %t; want true, 0", l.void(), term, ok)
	}
	if err := l.install("id3", 7, 3, snapshot.Head{}, func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	// What a follower does with entry 8 of term 3: it finds another term, cuts and appends.
	if err := l.DeleteRange(8, 9); err != nil {
		t.Fatal(err)
	}
	if err := l.StoreLogs(entries(3, 8, 8)); err != nil {
		t.Fatal(err)
	}
	if term, ok := termAt(t, l, 8); l.void() || !ok || term != 3 {
		t.Errorf("void %t, term of entry 8 = %d, %t; want false, 3", l.void(), term, ok)
	}
}

// TestLogInstallCut cuts the power between the publication of an install and the end of the log,
// and before the publication.
func TestLogInstallCut(t *testing.T) {
	for _, published := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), logFile)
		l := newLog(t, path)
		if err := l.StoreLogs(entries(2, 1, 9)); err != nil {
			t.Fatal(err)
		}
		cut := errors.New("cut")
		if err := l.install("new", 7, 3, snapshot.Head{ID: "old"}, func() error { return cut }); !errors.Is(err, cut) {
			t.Fatalf("install = %v; want the cut", err)
		}
		l.bolt.Close()

		l = newLog(t, path)
		head := snapshot.Head{ID: "old", Index: 3, Term: 2}
		if published {
			head = snapshot.Head{ID: "new", Index: 7, Term: 3}
		}
		if err := l.check(head, true); err != nil {
			t.Fatal(err)
		}
		_, last, err := l.bounds()
		if err != nil || (last == 0) != published {
			t.Errorf("published %t: log ends at %d, %v", published, last, err)
		}
	}
}

// TestLogDamaged makes sure that damage is an error, and that it is not made worse.
func TestLogDamaged(t *testing.T) {
	whole := filepath.Join(t.TempDir(), logFile)
	l := newLog(t, whole)
	if err := l.StoreLogs(entries(2, 1, 200)); err != nil {
		t.Fatal(err)
	}
	l.bolt.Close()
	good, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	rnd := newRand(t)
	noise := bytes.Clone(good)
	for i := 2 * os.Getpagesize(); i < len(noise); i++ {
		noise[i] = byte(rnd.Uint32())
	}
	tests := []struct {
		name string
		data []byte
	}{
		{"text", []byte(strings.Repeat("this is no database\n", 1000))},
		{"short", good[:100]},
		{"truncated", good[:3*os.Getpagesize()]},
		{"zeros", make([]byte, len(good))},
		{"noise behind the meta pages", noise},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), logFile)
			if err := os.WriteFile(path, tt.data, 0o600); err != nil {
				t.Fatal(err)
			}
			l, err := openLog(path, func(error) {})
			if err == nil {
				t.Cleanup(func() { l.bolt.Close() })
				err = l.check(snapshot.Head{}, false)
			}
			if err == nil {
				t.Fatal("no error")
			}
			t.Log(err)
			if got, _ := os.ReadFile(path); !bytes.Equal(got, tt.data) {
				t.Error("the file was changed")
			}
		})
	}
}

func TestCommandUpTo(t *testing.T) {
	l := newLog(t, filepath.Join(t.TempDir(), logFile))
	logs := entries(1, 3, 9)
	logs[5].Type, logs[6].Type = raft.LogBarrier, raft.LogNoop // 8 and 9
	if err := l.StoreLogs(logs); err != nil {
		t.Fatal(err)
	}
	tests := []struct{ index, floor, want uint64 }{
		{9, 3, 7},
		{7, 3, 7},
		{9, 7, 7}, // nothing behind the floor
		{2, 2, 2},
		{2, 1, 2}, // covered by a snapshot that is yet to be restored
	}
	for _, tt := range tests {
		if got, err := l.commandUpTo(tt.index, tt.floor); got != tt.want || err != nil {
			t.Errorf("commandUpTo(%d, %d) = %d, %v; want %d", tt.index, tt.floor, got, err, tt.want)
		}
	}
}
