package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLockDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "data")
	first, err := lockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("data directory %s is in use by process %d", dir, os.Getpid())
	if second, err := lockDir(dir); err == nil || err.Error() != want {
		t.Errorf("second lockDir = %v, %v; want %s", second, err, want)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	third, err := lockDir(dir)
	if err != nil {
		t.Fatalf("lockDir after the lock was given up: %v", err)
	}
	third.Close()
}

// TestLockDirKeeps expects files that were in the directory before to stay.
func TestLockDirKeeps(t *testing.T) {
	dir := t.TempDir()
	foreign := filepath.Join(dir, "rqlited.log")
	if err := os.WriteFile(foreign, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if got, err := os.ReadFile(foreign); err != nil || string(got) != "x" {
		t.Errorf("%s = %q, %v; want it as it was", foreign, got, err)
	}
}

func TestLockDirOnFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := lockDir(name); err == nil || !strings.Contains(err.Error(), "create data directory: mkdir "+name) {
		t.Errorf("lockDir(a file) = %v", err)
	}
}
