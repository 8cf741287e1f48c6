package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// The linker sets these in builds made by the Makefile.
var (
	// version is what clients see in the header X-Rqlite-Version and peers in a node's metadata.
	// A build of no release carries the number of the release it leads to.
	version = "v0.1.0-dev"

	commit = "unknown"
)

// driver is the module that contains SQLite.
const driver = "github.com/rqlite/go-sqlite3"

// versionLine is the answer to -version.
func versionLine() string {
	return fmt.Sprintf("rqlited %s %s %s %s go-sqlite3 %s (commit %s, compiler %s)",
		version, runtime.GOOS, runtime.GOARCH, runtime.Version(), driverVersion(), commit, runtime.Compiler)
}

func driverVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dep := range info.Deps {
			if dep.Path == driver {
				return dep.Version
			}
		}
	}
	return "unknown"
}
