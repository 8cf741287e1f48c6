package db

import (
	"testing"

	"rqlited/command"
)

// TestForeignKeysOfEntry applies entries that say whether foreign keys hold to nodes that are set otherwise.
func TestForeignKeysOfEntry(t *testing.T) {
	const broken = "INSERT INTO c VALUES(99)"
	const violated = "error FOREIGN KEY constraint failed"
	for _, node := range []bool{false, true} {
		d := open(t, testPath(t), Config{ForeignKeys: node})
		run := func(fk command.Setting, sql ...string) string {
			return show(apply(t, d, &command.Entry{Kind: command.Unified, ForeignKeys: fk, Seed: 1, Request: &command.Request{Kind: command.Unified, Statements: statements(sql...)}}).Results...)
		}
		run(command.Off, "CREATE TABLE p(id INTEGER PRIMARY KEY)", "CREATE TABLE c(p REFERENCES p)")
		unset := "1/1"
		if node {
			unset = violated
		}
		steps := []struct {
			fk   command.Setting
			sql  []string
			want string
		}{
			{command.On, []string{broken}, violated},
			{command.Off, []string{broken, "DELETE FROM c"}, "1/1; 1/1"},
			{command.Unset, []string{broken}, unset},
			{command.Off, []string{"DELETE FROM c", "PRAGMA foreign_keys=ON", broken}, ""},
			{command.Off, []string{broken, "DELETE FROM c"}, "1/1; 1/1"}, // ended with the entry
			{command.On, []string{"PRAGMA foreign_keys=OFF", broken, "DELETE FROM c"}, "null; 1/1; 1/1"},
			{command.On, []string{broken}, violated},
			{command.On, []string{"PRAGMA foreign_keys", "SELECT foreign_keys FROM pragma_foreign_keys"}, "[[1]]; [[1]]"},
			{command.Setting(7), []string{"PRAGMA foreign_keys"}, map[bool]string{false: "[[0]]", true: "[[1]]"}[node]}, // of a later release
		}
		for i, s := range steps {
			if got := run(s.fk, s.sql...); s.want != "" && got != s.want {
				t.Errorf("node %v, step %d (%s): %s, want %s", node, i, s.fk, got, s.want)
			}
			if i%2 == 0 {
				if err := d.reopenWriter(); err != nil {
					t.Fatal(err)
				}
			}
		}
		// A file that is loaded is checked by nobody, and what comes after it is.
		image := sqliteFile(t, "CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE c(p REFERENCES p);"+broken)
		apply(t, d, &command.Entry{Kind: command.Load, Data: image, ForeignKeys: command.On})
		if got := run(command.On, broken) + "; " + run(command.Off, broken); got != violated+"; 2/1" {
			t.Errorf("node %v, after a load: %s", node, got)
		}
	}
}
