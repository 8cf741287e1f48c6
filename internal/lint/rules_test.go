package lint

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// TestRules gives each rule a source that breaks it and one, as near to it as can be, that does not.
func TestRules(t *testing.T) {
	tests := []struct {
		name, path, source string
		want               string // the fault, or "" for none
	}{
		{"own import", "http/a.go", `package http; import "rqlited/store"`, ""},
		{"sideways import", "http/a.go", `package http; import "rqlited/cluster"`, "http/a.go:1: http may not import cluster"},
		{"upward import", "db/a.go", `package db; import "rqlited/store"`, "db/a.go:1: db may not import store"},
		{"upward import in a test", "db/a_test.go", `package db; import "rqlited/store"`, "db/a_test.go:1: db may not import store"},
		{"import of a test", "db/a_test.go", `package db; import "rqlited/internal/sqlgen"`, ""},
		{"import of another's test", "store/a_test.go", `package store; import "rqlited/internal/sqlgen"`, "store/a_test.go:1: store may not import internal/sqlgen"},
		{"import of tests alone", "db/a.go", `package db; import "rqlited/internal/sqlgen"`, "db/a.go:1: db may not import internal/sqlgen"},
		{"own package from its example", "db/a_test.go", `package db_test; import "rqlited/db"`, ""},
		{"part of a layer", "db/a_test.go", `package db; import "rqlited/internal/vfs/crashfs"`, ""},
		{"part of a foreign layer", "http/a.go", `package http; import "rqlited/internal/vfs/crashfs"`, "http/a.go:1: http may not import internal/vfs"},
		{"wiring", "cmd/rqlited/a.go", `package main; import ("rqlited/http"; "flag"; "os/signal")`, ""},
		{"import of the unknown", "http/a.go", `package http; import "rqlited/util"`, "http/a.go:1: rqlited/util is not in the table of layers"},
		{"unknown package", "util/a.go", `package util`, "util/a.go: package util is not in the table of layers"},
		{"similar name", "httpx/a.go", `package httpx`, "httpx/a.go: package httpx is not in the table of layers"},
		{"flag", "http/a.go", `package http; import "flag"`, "http/a.go:1: only cmd/rqlited may import flag"},
		{"flag of a test", "http/a_test.go", `package http; import "flag"`, ""},
		{"signal", "store/a.go", `package store; import "os/signal"`, "store/a.go:1: only cmd/rqlited may import os/signal"},
		{"exec", "cmd/rqlited/a_test.go", `package main; import "os/exec"`, "cmd/rqlited/a_test.go:1: only system_test, internal/bench may import os/exec"},
		{"exec of black-box tests", "system_test/a_test.go", `package systemtest; import "os/exec"`, ""},
		{"parser", "db/a.go", `package db; import "go/parser"`, "db/a.go:1: only internal/lint may import go/parser"},
		{"cgo", "store/a.go", `package store; import "C"`, "store/a.go:1: only db may import C"},
		{"driver", "store/a_test.go", `package store; import _ "github.com/rqlite/go-sqlite3"`, "store/a_test.go:1: only db may import github.com/rqlite/go-sqlite3"},
		{"driver of its owner", "db/a.go", `package db; import _ "github.com/rqlite/go-sqlite3"`, ""},
		{"log store", "cluster/a.go", `package cluster; import _ "github.com/hashicorp/raft-boltdb/v2"`, "cluster/a.go:1: only store may import github.com/hashicorp/raft-boltdb"},
		{"other log store", "cluster/a.go", `package cluster; import _ "github.com/hashicorp/raft-wal"`, "cluster/a.go:1: only store may import github.com/hashicorp/raft-wal"},
		{"bolt", "cluster/a.go", `package cluster; import _ "go.etcd.io/bbolt"`, "cluster/a.go:1: only store may import go.etcd.io/bbolt"},
		{"raft", "http/a.go", `package http; import "github.com/hashicorp/raft"`, "http/a.go:1: only store, snapshot, cluster, internal/bench may import github.com/hashicorp/raft"},
		{"prometheus", "store/a.go", `package store; import "github.com/prometheus/client_golang/prometheus"`, "store/a.go:1: only http may import github.com/prometheus/client_golang"},
		{"prometheus of its owner", "http/a.go", `package http; import "github.com/prometheus/client_golang/prometheus/promhttp"`, ""},
		{"prometheus of a test", "cmd/rqlited/a_test.go", `package main; import "github.com/prometheus/client_golang/prometheus/testutil/promlint"`, ""},
		{"raft where it is known", "cluster/a.go", `package cluster; import "github.com/hashicorp/raft"`, ""},

		{"long file", "db/a.go", "package db\n" + strings.Repeat("\n", 800), "db/a.go: 801 lines, limit is 800"},
		{"longest file", "db/a.go", "package db\n" + strings.Repeat("\n", 799), ""},
		{"long text", "docs/a.md", strings.Repeat("\n", 801), ""},
		{"long function", "db/a.go", "package db\nfunc f() {" + strings.Repeat("\n", 100) + "}", "db/a.go:2: f has 101 lines, limit is 100"},
		{"longest function", "db/a.go", "package db\nfunc f() {" + strings.Repeat("\n", 99) + "}", ""},
		{"wide struct", "db/a.go", "package db\ntype t struct { a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p int }", "db/a.go:2: struct has 16 fields, limit is 15"},
		{"widest struct", "db/a.go", "package db\ntype t struct { a, b, c, d, e, f, g, h, i, j, k, l, m, n, o int }", ""},

		{"sleep", "db/a_test.go", "package db\nimport \"time\"\nfunc f() { time.Sleep(1) }", "db/a_test.go:3: time.Sleep outside of synctest"},
		{"sleep in a bubble", "db/a_test.go", "package db\nimport (\"time\"; \"testing/synctest\")\nfunc f() { time.Sleep(1) }", ""},
		{"sleep in a black-box test", "system_test/a_test.go", "package systemtest\nfunc f() { time.Sleep(1) }", ""},
		{"sleep outside tests", "db/a.go", "package db\nfunc f() { time.Sleep(1) }", ""},
		{"exit", "db/a.go", "package db\nfunc f() { os.Exit(1) }", "db/a.go:2: only package main ends the process, not os.Exit"},
		{"fatal", "db/a.go", "package db\nfunc f() { log.Fatalf(\"\") }", "db/a.go:2: only package main ends the process, not log.Fatalf"},
		{"exit of the command", "cmd/rqlited/a.go", "package main\nfunc f() { os.Exit(1) }", ""},

		{"path", "docs/a.md", "one\nsee /wor" + "k/main", `docs/a.md:2: speaks of "/wor` + `k/"`},
		{"neighbour", "db/a.go", "package db // ../share" + "d/data", `db/a.go:1: speaks of "../share` + `d"`},
		{"author", "docs/a.md", "in this Sessio" + "n", `docs/a.md:1: speaks of "this Sessio` + `n"`},
		{"ordinary words", "docs/a.md", "a shared lock, a work queue, this sessions", ""},
		{"binary", "docs/a.png", "\x00/wor" + "k/", ""},
		{"machine's script", ".ci/run", "/wor" + "k/", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := faultsOf(t, map[string]string{tt.path: tt.source})
			// One-file packages have no doc.go; that rule has a test of its own.
			got = slices.DeleteFunc(got, func(s string) bool { return strings.Contains(s, "/doc.go: ") })
			var want []string
			if tt.want != "" {
				want = []string{tt.want}
			}
			if !slices.Equal(got, want) {
				t.Errorf("faults = %q; want %q", got, want)
			}
		})
	}
}

func TestCheckDoc(t *testing.T) {
	tests := []struct {
		name  string
		files map[string]string
		want  []string
	}{
		{"documented", map[string]string{"db/doc.go": "// Package db is.\npackage db", "db/a.go": "package db"}, nil},
		{"command", map[string]string{"cmd/rqlited/doc.go": "// Command rqlited is.\npackage main"}, nil},
		{"example beside it", map[string]string{"db/doc.go": "// Package db is.\npackage db", "db/a_test.go": "package db_test"}, nil},
		{"no doc.go", map[string]string{"db/a.go": "// Package db is.\npackage db"}, []string{`db/doc.go: does not begin with "Package db "`}},
		{"no comment", map[string]string{"db/doc.go": "package db"}, []string{`db/doc.go: does not begin with "Package db "`}},
		{"another's comment", map[string]string{"db/doc.go": "// Package sql is.\npackage db"}, []string{`db/doc.go: does not begin with "Package db "`}},
		{"tests alone", map[string]string{"system_test/a_test.go": "package systemtest"}, []string{`system_test/doc.go: does not begin with "Package systemtest "`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := faultsOf(t, tt.files); !slices.Equal(got, tt.want) {
				t.Errorf("faults = %q; want %q", got, tt.want)
			}
		})
	}
}

// faultsOf returns what all rules have to say about a tree of files.
func faultsOf(t *testing.T, files map[string]string) []string {
	t.Helper()
	fsys := fstest.MapFS{}
	for name, source := range files {
		fsys[name] = &fstest.MapFile{Data: []byte(source)}
	}
	tr, err := load(fsys)
	if err != nil {
		t.Fatal(err)
	}
	var faults []string
	for _, r := range rules {
		for _, f := range r.check(tr) {
			faults = append(faults, fmt.Sprint(f))
		}
	}
	return faults
}
