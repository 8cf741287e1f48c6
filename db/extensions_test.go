package db

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestExtensionRefused opens a database with files that cannot be loaded. What extensions do that can be is shown by
// the black-box tests, which may run a compiler.
func TestExtensionRefused(t *testing.T) {
	text := filepath.Join(t.TempDir(), "text.so")
	if err := os.WriteFile(text, []byte(strings.Repeat("no shared object ", 100)), 0o644); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		text:                  "load extension text.so: " + text + ": invalid ELF header",
		"/nowhere/missing.so": "load extension missing.so: /nowhere/missing.so: cannot open shared object file: No such file or directory",
	} {
		name := testPath(t)
		d, err := Open(name, Config{Extensions: []string{path}})
		if err == nil {
			t.Fatal(d.Close())
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("Open = %v; want %q", err, want)
		}
		if _, err := os.Stat(name); !os.IsNotExist(err) {
			t.Errorf("the database was begun: %v", err)
		}
	}
}

// TestModules tells SQLite's own modules from those of extensions.
func TestModules(t *testing.T) {
	for sql, want := range map[string]bool{
		`CREATE VIRTUAL TABLE t USING fts5(a)`:            true,
		`CREATE VIRTUAL TABLE t USING FTS4(a)`:            true,
		`CREATE VIRTUAL TABLE t USING "rtree"(a, b, c)`:   true,
		`CREATE VIRTUAL TABLE t USING fts5vocab(f, row)`:  true,
		`CREATE VIRTUAL TABLE t USING vec0(a float[3])`:   false,
		`CREATE VIRTUAL TABLE "using fts5" USING csv(a)`:  false,
		`CREATE VIRTUAL TABLE IF NOT EXISTS t USING spam`: false,
		``: false,
	} {
		module, _, _ := virtualTable(sql)
		if got := builtIn(module); got != want {
			t.Errorf("%s: built in = %t", sql, got)
		}
	}
}
