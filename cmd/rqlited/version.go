package main

import (
	"fmt"
	"runtime"

	"rqlited/db"
)

// The linker sets these in builds made by the Makefile.
var (
	// version is what clients see in the header X-Rqlite-Version and peers in a node's metadata.
	// A build of no release carries the number of the release it leads to.
	version = "v0.1.0-dev"

	commit = "unknown"
)

// versionLine is the answer to -version.
func versionLine() string {
	return fmt.Sprintf("rqlited %s %s %s %s sqlite%s (commit %s, compiler %s)",
		version, runtime.GOOS, runtime.GOARCH, runtime.Version(), db.SQLiteVersion(), commit, runtime.Compiler)
}
