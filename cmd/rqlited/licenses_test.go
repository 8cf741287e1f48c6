package main

import (
	"os"
	"runtime/debug"
	"strings"
	"testing"
)

// TestLicenses looks for every module that is linked in among the licences that /licenses shows.
func TestLicenses(t *testing.T) {
	const path = "../../http/licenses.txt"
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	own, err := os.ReadFile("../../LICENSE")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), string(own)) {
		t.Errorf("%s has not our own licence", path)
	}
	build, ok := debug.ReadBuildInfo()
	if !ok || len(build.Deps) == 0 {
		t.Fatal("the test does not know what it is made of")
	}
	want := []string{"rqlited", "Go and its standard library", "SQLite"}
	for _, m := range build.Deps {
		want = append(want, m.Path+" "+m.Version)
	}
	lines := make(map[string]bool)
	for line := range strings.Lines(string(b)) {
		lines[strings.TrimSuffix(line, "\n")] = true
	}
	for _, name := range want {
		if !lines[name] {
			t.Errorf("%s has no licence of %q: run make licenses", path, name)
		}
	}
}
