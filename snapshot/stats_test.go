package snapshot

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"rqlited/internal/vfs"
)

// TestStatsTime asks when the head was published, before and after a restart. After one it is the time of the
// file, which nothing but monitoring looks at.
func TestStatsTime(t *testing.T) {
	dir := t.TempDir()
	open := func() *Store {
		s, err := Open(dir, Config{FS: vfs.OS})
		must(t, err)
		return s
	}
	s := open()
	if at := s.Stats().Time; !at.IsZero() {
		t.Errorf("without a snapshot its time is %v", at)
	}
	before := time.Now()
	mustPublish(t, s, snap{index: 1, term: 1, content: fill(3, 1)})
	if at := s.Stats().Time; at.Before(before.Add(-time.Millisecond)) || at.After(time.Now()) {
		t.Errorf("published at %v; want after %v", at, before)
	}
	must(t, s.Close())

	files, err := filepath.Glob(filepath.Join(dir, "*.base"))
	if err != nil || len(files) != 1 {
		t.Fatalf("files %v, %v", files, err)
	}
	old := time.Unix(1700000000, 0)
	must(t, os.Chtimes(files[0], old, old))
	s = open()
	if at := s.Stats().Time; !at.Equal(old) {
		t.Errorf("after a restart the head is of %v; want %v", at, old)
	}
	must(t, s.Close())
}
