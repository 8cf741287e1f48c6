package store

import (
	"os"
	"path/filepath"
	"testing"
)

// TestGolden pins the order of what an act does to the log, the snapshots and the marker, for that
// order is the reason why a crash can do no harm. UPDATE_GOLDEN=1 writes the files anew.
func TestGolden(t *testing.T) {
	t.Parallel()
	files := map[string]string{
		"delta":        "snapshot.txt",
		"install":      "install.txt",
		"restore":      "restore.txt",
		"boot":         "boot.txt",
		"load":         "load.txt",
		"recovery":     "recovery.txt",
		"salvage":      "salvage.txt",
		"log complete": "salvage_log.txt",
		"leader":       "discard.txt",
	}
	for _, sc := range scenarios(leaderStream(t)) {
		file, ok := files[sc.golden]
		if !ok {
			continue
		}
		delete(files, sc.golden)
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			d := sc.base(t).after(t, all, 0)
			s, err := sc.run(t, d)
			if err != nil {
				t.Fatal(err)
			}
			trace := d.operations()
			s.closeFiles()
			name := filepath.Join("testdata", file)
			if os.Getenv("UPDATE_GOLDEN") != "" {
				if err := os.WriteFile(name, []byte(trace), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if trace != string(want) {
				t.Errorf("operations are\n%s\nwant those in %s:\n%s", trace, name, want)
			}
		})
	}
	if len(files) > 0 {
		t.Errorf("no scenario for %v", files)
	}
}
