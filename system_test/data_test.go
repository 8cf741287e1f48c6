package system

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// TestChinook takes a database that people use for real, as an SQL script, through the API
// statement by statement. All nodes have to hold what the same database holds as a SQLite file,
// table by table, now and after everything a cluster may go through.
func TestChinook(t *testing.T) {
	t.Parallel()
	dir := os.Getenv("RQLITED_TEST_DATA")
	if dir == "" {
		t.Skip("RQLITED_TEST_DATA does not name a folder with chinook.sql and chinook.sqlite")
	}
	file, err := openSQLiteFile(filepath.Join(dir, "chinook.sqlite"))
	if err != nil {
		t.Fatal(err)
	}
	want, err := file.content()
	if err != nil {
		t.Fatal(err)
	}
	c := startCluster(t, 3, "-raft-snap", "32", "-raft-snap-int", "1s")
	load(t, c, splitSQL(readFile(t, dir, "chinook.sql")))
	c.holds(want)
	checkIntegrity(c)
	survive(t, c, want)
}

// load sends the statements of a script through all nodes in turn, some a request, every second
// request as one transaction.
func load(t *testing.T, c cluster, script []string) {
	t.Helper()
	for i := 0; len(script) > 0; i++ {
		batch := []any{}
		for size := 0; len(script) > 0 && len(batch) < 16 && size < 1<<17; script = script[1:] {
			batch = append(batch, script[0])
			size += len(script[0])
		}
		path := "/db/execute"
		if i%2 == 1 {
			path += "?transaction"
		}
		if _, err := c[i%len(c)].sql(requestLimit, path, batch...); err != nil {
			t.Fatalf("batch %d of the script: %v", i, err)
		}
	}
}

// checkIntegrity has SQLite look over every node's database.
func checkIntegrity(c cluster) {
	for _, n := range c {
		n.t.Helper()
		if got := n.query("none", "PRAGMA integrity_check"); !slices.Equal(got, []string{"ok"}) {
			n.t.Errorf("%s: integrity_check = %v", n.id, got)
		}
		if got := n.query("none", "PRAGMA foreign_key_check"); len(got) > 0 {
			n.t.Errorf("%s: foreign_key_check = %v", n.id, got)
		}
	}
}

// survive takes the cluster through kills, full restores, a new member and the restart with
// peers.json; the content stays as it is.
func survive(t *testing.T, c cluster, want content, flags ...string) {
	t.Helper()
	victim := c.leader()
	victim.kill()
	victim.forgetDatabase()
	victim.start()
	c.holds(want)

	late := c.join(t, "late", flags...)
	if d := late.content().diff(want); d != "" {
		t.Errorf("a node that joined late: %s", d)
	}
	late.kill()
	a, err := c[0].do(requestLimit, "DELETE", "/remove", "", `{"id":"late"}`)
	if err != nil || a.status != 200 {
		t.Fatalf("remove late = %+v, %v", a, err)
	}

	for _, n := range c {
		n.stop()
	}
	c.writePeers()
	c.start()
	c.holds(want)
	for _, n := range c {
		n.kill()
		n.forgetDatabase()
	}
	c.start()
	c.holds(want)
	checkIntegrity(c)
	c.snapshotsWentWell()
}

// TestOwnDatabase is the same with a database made here, of all that SQLite can store: no data of
// others is needed, and the expected rows are computed, not read back.
func TestOwnDatabase(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3, "-fk", "-raft-snap", "16", "-raft-snap-int", "1s")
	load(t, c, ownSchema)
	want := content{}
	fillPeople(c, want)
	fillValues(c, want)
	got := c.equal()
	for table, rows := range want {
		if d := (content{table: got[table]}).diff(content{table: rows}); d != "" {
			t.Errorf("%s", d)
		}
	}
	for sql, want := range map[string]string{
		"SELECT name FROM loud WHERE id = 3":                                    "PERSON 3 ÅSA",
		"SELECT count(*) FROM search WHERE search MATCH 'person'":               "100",
		"SELECT count(*) FROM person INDEXED BY person_tall WHERE height > 1.5": "45",
		"SELECT label FROM pet WHERE id = 7":                                    "7: cat",
	} {
		for _, n := range c {
			if got := n.query("none", sql); len(got) != 1 || got[0] != want {
				t.Errorf("%s: %s = %q; want %s", n.id, sql, got, want)
			}
		}
	}
	checkIntegrity(c)
	survive(t, c, got, "-fk")
}

// ownSchema has one of each kind of thing.
var ownSchema = splitSQL(`
CREATE TABLE person (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, height REAL CHECK (height > 0));
CREATE TABLE pet (
	id INTEGER PRIMARY KEY,
	owner INTEGER NOT NULL REFERENCES person(id) ON DELETE CASCADE,
	kind TEXT COLLATE NOCASE DEFAULT 'cat',
	label TEXT GENERATED ALWAYS AS (id || ': ' || kind) STORED);
CREATE TABLE event (what TEXT, old TEXT, new TEXT); -- filled by triggers; no key
CREATE TABLE "odd ""name""; é" ("a b" ANY, "select" TEXT) STRICT;
CREATE TABLE kv (k TEXT, part INTEGER, v BLOB, PRIMARY KEY (k, part)) WITHOUT ROWID;
CREATE TABLE value (i INTEGER, r REAL, t TEXT, b BLOB, n NUMERIC, x);
CREATE VIRTUAL TABLE search USING fts5(body);
CREATE INDEX person_tall ON person(height) WHERE height > 1.5;
CREATE INDEX pet_kind ON pet(lower(kind), owner DESC);
CREATE VIEW loud AS SELECT id, upper(name) AS name FROM person;
CREATE TRIGGER person_new AFTER INSERT ON person BEGIN
	INSERT INTO event VALUES ('new', NULL, new.name);
	INSERT INTO search(rowid, body) VALUES (new.id, new.name);
END;
CREATE TRIGGER pet_gone AFTER DELETE ON pet WHEN old.id % 2 = 0 BEGIN
	INSERT INTO event VALUES ('gone', CASE WHEN old.kind = 'dog' THEN 'a dog' ELSE old.kind END, NULL);
END;
CREATE TRIGGER loud_new INSTEAD OF INSERT ON loud BEGIN
	INSERT INTO person(name, height) VALUES (lower(new.name), 1.25);
END;
`)

// fillPeople fills the tables that have to do with each other, through constraints and triggers.
func fillPeople(c cluster, want content) {
	c[0].t.Helper()
	const people = 100
	var batch []any
	for id := 1; id <= people; id++ {
		name, height := fmt.Sprintf("person %d ÅSA", id), 1.25
		if id%2 == 0 {
			height = 1.75
			batch = append(batch, []any{"INSERT INTO person(name, height) VALUES (?, ?)", name, height})
		} else {
			batch = append(batch, []any{"INSERT INTO loud(name) VALUES (:name)", map[string]any{"name": name}})
			name = strings.Replace(name, "ÅSA", "Åsa", 1) // SQLite's lower() knows ASCII only
		}
		want["person"] = append(want["person"], fmt.Sprintf("%d|%d|%s|%s", id, id, quoteText(name), quote(height)))
		want["event"] = append(want["event"], fmt.Sprintf("%d|'new'|NULL|%s", id, quoteText(name)))
		if id%10 == 0 {
			c[id/10%len(c)].execute(batch...)
			batch = nil
		}
	}
	for id := 1; id <= people; id++ {
		kind := "cat"
		if id%3 == 0 {
			kind = "dog"
		}
		batch = append(batch, []any{"INSERT INTO pet(id, owner, kind) VALUES (?, ?, ?)", id, id, kind})
		want["pet"] = append(want["pet"], fmt.Sprintf("%d|%d|%d|%s|%s", id, id, id, quoteText(kind), quoteText(fmt.Sprintf("%d: %s", id, kind))))
	}
	c[1].execute(batch...)
	want["sqlite_sequence"] = []string{"1|'person'|100"}
	if a, err := c[2].sql(requestLimit, "/db/execute", "INSERT INTO pet(id, owner) VALUES (1000, 1000)"); err == nil {
		c[0].t.Errorf("a pet without owner was accepted: %s", a.body)
	}
	if a, err := c[2].sql(requestLimit, "/db/execute?transaction", "DELETE FROM pet", "INSERT INTO person(name, height) VALUES ('flat', 0)"); err == nil {
		c[0].t.Errorf("a flat person was accepted: %s", a.body)
	}
	c[2].execute("DELETE FROM person WHERE id > 90") // their pets go with them
	for id := 91; id <= people; id++ {
		if id%2 == 0 {
			kind := map[bool]string{true: "'a dog'", false: "'cat'"}[id%3 == 0]
			want["event"] = append(want["event"], fmt.Sprintf("%d|'gone'|%s|NULL", len(want["event"])+1, kind))
		}
	}
	want["person"], want["pet"] = want["person"][:90], want["pet"][:90]
}

// fillValues fills the tables of unusual values and names, as parameters and as literals.
func fillValues(c cluster, want content) {
	c[0].t.Helper()
	long := strings.Repeat("långt ", 40000)
	blob := bytes.Repeat([]byte{0, 1, 0xff, 0xfe}, 30000)
	values := []any{
		nil, int64(0), int64(-1), int64(math.MaxInt64), int64(math.MinInt64), int64(1) << 53, 0.5, 0.1, -2.25e-300, 1.5e300,
		"", "it's; \"quoted\" -- /* [x]", "zażółć 漢字 \U0001f600 \u202e", "a\nb\r\tc", long,
		[]byte{}, []byte{0}, []byte("text"), blob,
	}
	for i, v := range values {
		literal := quote(v)
		if i%2 == 0 {
			c[i%3].execute([]any{"INSERT INTO value(x) VALUES (?)", parameter(v)})
		} else {
			c[i%3].execute("INSERT INTO value(x) VALUES (" + literal + ")")
		}
		want["value"] = append(want["value"], fmt.Sprintf("%d|NULL|NULL|NULL|NULL|NULL|%s", i+1, literal))
		c[i%3].execute([]any{"INSERT INTO kv VALUES (?, ?, ?)", fmt.Sprintf("k%02d", i), -i, parameter(v)})
		want["kv"] = append(want["kv"], fmt.Sprintf("'k%02d'|%d|%s", i, -i, literal))
		c[i%3].execute([]any{`INSERT INTO "odd ""name""; é" VALUES (?, ?)`, parameter(v), "ö"})
		want[`odd "name"; é`] = append(want[`odd "name"; é`], fmt.Sprintf("%d|%s|'ö'", i+1, literal))
	}
	for _, row := range []struct{ sql, want string }{
		{"'12', '1e3', 12, '12', '12', '12'", "12|1000.0|'12'|'12'|12|'12'"}, // affinities
		{"'x', 'x', 1.5, 1.5, 2.0, 2.0", "'x'|'x'|'1.5'|1.5|2|2.0"},
		{"x'00', x'00', x'00', 'b', x'00', ''", "X'00'|X'00'|X'00'|'b'|X'00'|''"},
	} {
		c[0].execute("INSERT INTO value VALUES (" + row.sql + ")")
		want["value"] = append(want["value"], fmt.Sprintf("%d|%s", len(want["value"])+1, row.want))
	}
}

// parameter returns the JSON value that binds v as it is.
func parameter(v any) any {
	switch v := v.(type) {
	case []byte:
		list := []int{} // []byte would become base64
		for _, b := range v {
			list = append(list, int(b))
		}
		return list
	case string:
		if !utf8.ValidString(v) {
			panic("JSON has no text that is not UTF-8")
		}
	}
	return v
}
