package db

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rqlited/command"
)

// testDir returns a directory for a database.
func testPath(t testing.TB) string { return filepath.Join(t.TempDir(), "db.sqlite") }

func open(t testing.TB, path string, cfg Config) *DB {
	t.Helper()
	d, err := Open(path, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func openNew(t testing.TB) *DB { return open(t, testPath(t), Config{}) }

// statements makes statements of SQL texts.
func statements(sql ...string) []command.Statement {
	sts := make([]command.Statement, len(sql))
	for i, s := range sql {
		sts[i].SQL = s
	}
	return sts
}

func apply(t testing.TB, d *DB, e *command.Entry) *command.Response {
	t.Helper()
	resp, err := d.Apply(e)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func request(t testing.TB, d *DB, req command.Request) *command.Response {
	t.Helper()
	return apply(t, d, &command.Entry{Kind: req.Kind, Request: &req, Time: time.Unix(1700000000, 0), Seed: 1})
}

// exec applies statements and fails the test if one of them fails.
func exec(t testing.TB, d *DB, sql ...string) *command.Response {
	t.Helper()
	resp := request(t, d, command.Request{Kind: command.Execute, Statements: statements(sql...)})
	for i, r := range resp.Results {
		if r.Error != "" {
			t.Fatalf("%s: %s", sql[i], r.Error)
		}
	}
	return resp
}

func query(t testing.TB, d *DB, sql ...string) *command.Response {
	t.Helper()
	resp, err := d.Query(context.Background(), &command.Request{Kind: command.Query, Statements: statements(sql...)})
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// value returns the one value that a query returns.
func value(t testing.TB, d *DB, sql string) any {
	t.Helper()
	r := query(t, d, sql).Results[0]
	if r.Error != "" || len(r.Rows.Values) != 1 {
		t.Fatalf("%s: %s", sql, show(r))
	}
	return r.Rows.Values[0][0]
}

// show writes results the short way tests compare: writes as "id/rows", rows as JSON, errors as
// they are.
func show(results ...command.Result) string {
	var out strings.Builder
	for i, r := range results {
		if i > 0 {
			out.WriteString("; ")
		}
		switch {
		case r.Error != "" && r.Rows != nil:
			out.WriteString("read error " + r.Error)
		case r.Error != "":
			out.WriteString("error " + r.Error)
		case r.Write != nil:
			out.WriteString(fmt.Sprintf("%d/%d", r.Write.LastInsertID, r.Write.RowsAffected))
		default:
			b, err := json.Marshal(r.Rows.Values)
			if err != nil {
				panic(err)
			}
			out.WriteString(string(b))
		}
	}
	return out.String()
}

// marked says whether there is a marker.
func marked(t testing.TB, d *DB) bool {
	t.Helper()
	_, err := readMarker(d.fs, d.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil
}

// dump returns everything in the database as text.
func dump(t testing.TB, d *DB) string {
	t.Helper()
	var out strings.Builder
	out.WriteString(show(query(t, d, "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name").Results...))
	for _, row := range query(t, d, "SELECT name FROM sqlite_schema WHERE type='table' ORDER BY name").Results[0].Rows.Values {
		name := row[0].(string)
		out.WriteString("\n" + name + show(query(t, d, "SELECT rowid, * FROM \""+name+"\" ORDER BY rowid").Results...))
	}
	return out.String()
}
