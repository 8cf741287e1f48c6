package db

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// hashNow returns the hash of the present state.
func hashNow(t testing.TB, d *DB) string {
	t.Helper()
	return sumOf(t, beginHash(t, d))
}

func beginHash(t testing.TB, d *DB) *Hash {
	t.Helper()
	h, err := d.BeginHash()
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func sumOf(t testing.TB, h *Hash) string {
	t.Helper()
	s, err := h.Sum(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// hashFromScratch returns the hash of the present state by reading all of it.
func hashFromScratch(t testing.TB, d *DB) string {
	t.Helper()
	known := d.hasher
	d.hasher = new(hasher)
	defer func() { d.hasher = known }()
	return hashNow(t, d)
}

// openImage opens a database that begins as SQL of ours makes it.
func openImage(t testing.TB, sql string) *DB {
	t.Helper()
	d := openNew(t)
	if err := d.Replace(imageFile(t, d, sql), ""); err != nil {
		t.Fatal(err)
	}
	return d
}

// captured moves the WAL into the main file.
func captured(t testing.TB, d *DB) {
	t.Helper()
	c, err := d.Capture("none")
	if err != nil {
		t.Fatal(err)
	}
	c.Release()
}

// TestMurmur compares with the values that are published for the seed 0, and the hash of parts with
// that of the whole.
func TestMurmur(t *testing.T) {
	tests := []struct{ in, want string }{
		{"", "00000000000000000000000000000000"},
		{"hello", "cbd8a7b341bd9b025b1e906a48ae1d19"},
		{"hello, world", "342fac623a5ebc8e4cdcbc079642414d"},
		{"The quick brown fox jumps over the lazy dog", "e34bbc7bbc071b6c7a433ca9c49a9347"},
	}
	for _, tt := range tests {
		for i := range len(tt.in) + 1 {
			for j := i; j <= len(tt.in); j++ {
				var m murmur
				m.write([]byte(tt.in[:i]))
				m.write([]byte(tt.in[i:j]))
				m.write([]byte(tt.in[j:]))
				if got := m.sum().String(); got != tt.want {
					t.Fatalf("hash of %q, cut at %d and %d = %s; want %s", tt.in, i, j, got, tt.want)
				}
			}
		}
	}
}

// hashSetup makes a bit of everything that a hash covers.
var hashSetup = []string{
	"CREATE TABLE t (id INTEGER PRIMARY KEY, a, b)",
	"CREATE TABLE u (a, b)",
	"CREATE TABLE w (k TEXT, n, v, PRIMARY KEY(k, n)) WITHOUT ROWID",
	"CREATE TABLE s (id INTEGER PRIMARY KEY AUTOINCREMENT, a)",
	"CREATE VIRTUAL TABLE f USING fts5(x)",
	"CREATE TABLE p (x)", "CREATE TABLE q (x)", "INSERT INTO p VALUES(1)",
	"CREATE INDEX ti ON t(a)",
	"CREATE VIEW tv AS SELECT a FROM t",
	"CREATE TRIGGER tt AFTER DELETE ON u BEGIN SELECT 1; END",
	"WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<200) INSERT INTO t SELECT i, i*i, 'text ' || i FROM c",
	"INSERT INTO t VALUES(1000, 1.5, zeroblob(100000)), (-5, NULL, 'x'), (1001, 0, 1)",
	"INSERT INTO u SELECT a, b FROM t",
	"INSERT INTO w SELECT printf('%0100d', id), ifnull(a, 'n'), b FROM t",
	"INSERT INTO s(a) SELECT a FROM t WHERE id<10",
	"INSERT INTO f SELECT 'some words ' || id FROM t",
	"ANALYZE",
}

// TestHashChanges makes one change at a time: all hashes differ, and the first comes back with the
// content.
func TestHashChanges(t *testing.T) {
	d := openNew(t)
	exec(t, d, hashSetup...)
	tests := []struct{ change, back string }{
		{"UPDATE t SET a=a+1 WHERE id=77", "UPDATE t SET a=77*77 WHERE id=77"},
		{"UPDATE t SET a='0' WHERE id=1001", "UPDATE t SET a=0 WHERE id=1001"}, // the type
		{"UPDATE t SET a=0.0 WHERE id=1001", "UPDATE t SET a=0 WHERE id=1001"},
		{"UPDATE t SET a=x'' WHERE id=-5", "UPDATE t SET a=NULL WHERE id=-5"},
		{"UPDATE t SET a='' WHERE id=-5", "UPDATE t SET a=NULL WHERE id=-5"},
		{"UPDATE t SET a=b, b=a WHERE id=1001", "UPDATE t SET a=b, b=a WHERE id=1001"},
		{"UPDATE t SET id=-6 WHERE id=-5", "UPDATE t SET id=-5 WHERE id=-6"},
		{"UPDATE t SET b=CAST(zeroblob(99999) || x'01' AS BLOB) WHERE id=1000", "UPDATE t SET b=zeroblob(100000) WHERE id=1000"},
		{"UPDATE t SET b=CAST(zeroblob(50000) || x'01' || zeroblob(49999) AS BLOB) WHERE id=1000", "UPDATE t SET b=zeroblob(100000) WHERE id=1000"},
		{"UPDATE t SET b=zeroblob(99999) WHERE id=1000", "UPDATE t SET b=zeroblob(100000) WHERE id=1000"},
		{"DELETE FROM t WHERE id=3", "INSERT INTO t VALUES(3, 9, 'text 3')"},
		{"UPDATE t SET id=CASE id WHEN 1 THEN -1 ELSE 1 END WHERE id IN (1, -1)", "UPDATE t SET id=1 WHERE id=-1"},
		{"INSERT INTO u(rowid, a) VALUES(12345, 1)", "DELETE FROM u WHERE rowid=12345"},
		{"INSERT INTO u(rowid, a) VALUES(12346, 1)", "DELETE FROM u WHERE rowid=12346"},
		{"DELETE FROM p; INSERT INTO q VALUES(1)", "DELETE FROM q; INSERT INTO p VALUES(1)"}, // another table
		{"UPDATE w SET v='other' WHERE n=2500", "UPDATE w SET v='text 50' WHERE n=2500"},
		{"UPDATE w SET k=k||'x' WHERE n=2500", "UPDATE w SET k=substr(k, 1, 100) WHERE n=2500"},
		{"UPDATE sqlite_sequence SET seq=1000", "UPDATE sqlite_sequence SET seq=10"},
		{"UPDATE sqlite_stat1 SET stat='9 9' WHERE idx='ti'", "ANALYZE"},
		{"PRAGMA user_version=5", "PRAGMA user_version=0"},
		{"PRAGMA application_id=5", "PRAGMA application_id=0"},
		{"CREATE TABLE empty (x)", "DROP TABLE empty"},
		{"CREATE TABLE empty (y)", "DROP TABLE empty"},
		{"CREATE TABLE empty2 (x)", "DROP TABLE empty2"},
		{"CREATE INDEX wi ON w(v)", "DROP INDEX wi"},
		{"DROP TRIGGER tt", "CREATE TRIGGER tt AFTER DELETE ON u BEGIN SELECT 1; END"},
		{"DROP VIEW tv", "CREATE VIEW tv AS SELECT a FROM t"},
	}
	want := hashNow(t, d)
	seen := map[string]string{want: "nothing"}
	for _, tt := range tests {
		captured(t, d) // so that no page is read just because it is in the WAL
		exec(t, d, tt.change)
		got := hashNow(t, d)
		if other, ok := seen[got]; ok {
			t.Errorf("%s: same hash as after %s", tt.change, other)
		}
		seen[got] = tt.change
		if scratch := hashFromScratch(t, d); scratch != got {
			t.Errorf("%s: hash is %s, from scratch %s", tt.change, got, scratch)
		}
		captured(t, d)
		exec(t, d, tt.back)
		captured(t, d)
		if got := hashNow(t, d); got != want {
			t.Errorf("%s, %s: hash is %s, was %s", tt.change, tt.back, got, want)
		}
	}
	if len(want) != 32 || strings.Trim(want, "0123456789abcdef") != "" {
		t.Errorf("hash is %q", want)
	}
}

// TestHashShadow changes what lies behind a full-text index.
func TestHashShadow(t *testing.T) {
	const there, back = "UPDATE f_content SET c0=replace(c0, 'words', 'wards') WHERE id=7", "UPDATE f_content SET c0=replace(c0, 'wards', 'words') WHERE id=7"
	made := func(sql ...string) *DB {
		return openImage(t, strings.Join(append(slices.Clone(hashSetup), sql...), ";"))
	} // no client may do that
	d := made()
	want := hashNow(t, d)
	if hashNow(t, made(there)) == want {
		t.Error("a changed f_content has the same hash")
	}
	if got := hashNow(t, made(there, back)); got != want {
		t.Errorf("hash is %s, was %s", got, want)
	}
	exec(t, d, "INSERT INTO f(f, rank) VALUES('pgsz', 1000)")
	if hashNow(t, d) == want {
		t.Error("a changed f_config has the same hash")
	}
}

// TestHashEncoding hashes the same in three encodings, and an empty database, whose encoding is
// still open.
func TestHashEncoding(t *testing.T) {
	seen := map[string]string{}
	for _, enc := range []string{"UTF-8", "UTF-16le", "UTF-16be"} {
		d := openImage(t, "PRAGMA encoding='"+enc+"'; CREATE TABLE t (a); CREATE TABLE w (k PRIMARY KEY) WITHOUT ROWID")
		before := hashNow(t, d)
		exec(t, d, "INSERT INTO t VALUES('äöü')")
		first := hashNow(t, d)
		exec(t, d, "INSERT INTO w VALUES('äöü')")
		for _, h := range []string{before, first, hashNow(t, d)} {
			if seen[h] != "" {
				t.Errorf("%s: same hash as %s", enc, seen[h])
			}
			seen[h] = enc
		}
	}
	d := openNew(t)
	empty := hashNow(t, d)
	exec(t, d, "CREATE TABLE t (a)", "DROP TABLE t")
	if got := hashNow(t, d); got != empty {
		t.Errorf("hash of a database that is empty again is %s, was %s", got, empty)
	}
}

// TestHashVacuum has records that are shorter than their table is wide. VACUUM copies them as they are.
func TestHashVacuum(t *testing.T) {
	d := openNew(t)
	exec(t, d, hashSetup...)
	exec(t, d, "ALTER TABLE t ADD COLUMN more TEXT DEFAULT 'm'", "ALTER TABLE w ADD COLUMN more DEFAULT 7", "ALTER TABLE s ADD COLUMN g AS (a+1)",
		"INSERT INTO t(a) VALUES(1)", "DELETE FROM t WHERE id BETWEEN 20 AND 120")
	want := hashNow(t, d)
	exec(t, d, "VACUUM")
	if got := hashNow(t, d); got != want {
		t.Errorf("hash is %s after VACUUM, was %s", got, want)
	}
}

// TestHashCache lets an overflow page name an owner that has become an overflow page itself: that one
// still belongs to its node.
func TestHashCache(t *testing.T) {
	var c hashCache
	set := func(pages ...uint32) (s pageSet) {
		for _, pgno := range pages {
			s.add(pgno)
		}
		return s
	}
	c.set(10, overflowPage, sum128{lo: 5})
	c.set(5, overflowPage, sum128{lo: 7})
	c.set(7, leafNode, sum128{lo: 1})
	c.set(hashChunkPages*3, interiorNode, sum128{lo: 2})
	c.forget(set(10, hashChunkPages+1, hashChunkPages*9))
	if k, sum := c.get(7); k != leafNode || sum.lo != 1 {
		t.Errorf("node has kind %d, sum %s", k, sum)
	}
	c.forget(set(5))
	if k, _ := c.get(7); k != unknown {
		t.Errorf("node has kind %d after its overflow page was written", k)
	}
	if k, _ := c.get(hashChunkPages * 3); k != interiorNode {
		t.Errorf("another node has kind %d", k)
	}
}

// TestHashPinned goes on writing and capturing before a pinned state is hashed: one that is partly in
// the WAL, one that is all in the main file, and one of which the WAL has a copy.
func TestHashPinned(t *testing.T) {
	for _, state := range []string{"WAL", "main", "both"} {
		t.Run(state, func(t *testing.T) {
			d := open(t, testPath(t), Config{ReadersGrace: time.Millisecond})
			exec(t, d, hashSetup...)
			s := &chain{images: map[string][]byte{}}
			var reader *pooled
			if state == "both" {
				reader = holdReader(t, d) // so that the WAL is not emptied
			}
			snapshotNow(t, d, s)
			if state == "WAL" {
				exec(t, d, "UPDATE t SET b=zeroblob(5000) WHERE id%3=0")
			}
			want := hashFromScratch(t, d)
			h := beginHash(t, d)
			if inMain := h.pages.wal == nil; inMain != (state != "WAL") {
				t.Errorf("all is in the main file: %t", inMain)
			}
			if reader != nil {
				if err := d.readers.put(reader); err != nil {
					t.Fatal(err)
				}
			}
			for i := range 5 {
				exec(t, d, fmt.Sprintf("UPDATE t SET b=zeroblob(3000+%d) WHERE id%%2=0", i), "DELETE FROM u WHERE rowid%4=1", "DROP TABLE IF EXISTS w", "VACUUM")
				if c, err := d.Capture(""); !errors.Is(err, ErrBusy) {
					c.Release()
					t.Fatalf("Capture() beside a hash = %v; want ErrBusy", err)
				}
			}
			if got := sumOf(t, h); got != want {
				t.Errorf("hash of the pinned state is %s, want %s", got, want)
			}
			snapshotNow(t, d, s)
			if got, want := hashNow(t, d), hashFromScratch(t, d); got != want {
				t.Errorf("next hash is %s, want %s", got, want)
			}
		})
	}
}

// TestHashCaptured lets the capture move what a hash has pinned, and nothing else.
func TestHashCaptured(t *testing.T) {
	d := openNew(t)
	exec(t, d, hashSetup...)
	want := hashFromScratch(t, d)
	h := beginHash(t, d)
	snapshotNow(t, d, &chain{images: map[string][]byte{}})
	if got := sumOf(t, h); got != want {
		t.Errorf("hash is %s, want %s", got, want)
	}
}

func TestHashOnce(t *testing.T) {
	d := openNew(t)
	exec(t, d, hashSetup...)
	h := beginHash(t, d)
	if _, err := d.BeginHash(); !errors.Is(err, ErrBusy) {
		t.Errorf("second BeginHash() = %v; want ErrBusy", err)
	}
	want := sumOf(t, h)
	if _, err := h.Sum(context.Background()); err == nil {
		t.Error("a second Sum succeeded")
	}
	h.Close()
	h = beginHash(t, d)
	h.Close()
	h.Close()
	canceled, cancel := context.WithCancel(context.Background())
	cancel()
	exec(t, d, "UPDATE t SET a=a+1")
	if _, err := beginHash(t, d).Sum(canceled); !errors.Is(err, context.Canceled) {
		t.Errorf("Sum(canceled) = %v", err)
	}
	exec(t, d, "UPDATE t SET a=a-1")
	if got := hashNow(t, d); got != want {
		t.Errorf("hash is %s, was %s", got, want)
	}
}

// TestHashEnds closes the database, and replaces it, beside hashes.
func TestHashEnds(t *testing.T) {
	d := openNew(t)
	exec(t, d, hashSetup...)
	want := hashNow(t, d)
	old := beginHash(t, d)
	if err := d.Replace(imageFile(t, d, "CREATE TABLE t (a); INSERT INTO t VALUES(1)"), ""); err != nil {
		t.Fatal(err)
	}
	other := hashNow(t, d)
	if got := sumOf(t, old); got != want || got == other {
		t.Errorf("hash of the replaced database is %s, want %s", got, want)
	}
	if got := hashFromScratch(t, d); got != other {
		t.Errorf("hash is %s, from scratch %s", other, got)
	}
	left := beginHash(t, d)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := left.Sum(context.Background()); err == nil {
		t.Error("Sum succeeded after Close")
	}
	if _, err := d.BeginHash(); !errors.Is(err, ErrClosed) {
		t.Errorf("BeginHash() = %v; want ErrClosed", err)
	}
}

// TestHashConcurrent hashes on one goroutine what another has pinned, while that one writes, captures
// and, at last, closes the database.
func TestHashConcurrent(t *testing.T) {
	d := open(t, testPath(t), Config{ReadersGrace: time.Millisecond})
	exec(t, d, hashSetup...)
	type result struct {
		sum string
		err error
	}
	results := make(chan result)
	sum := func(h *Hash) {
		s, err := h.Sum(context.Background())
		results <- result{s, err}
	}
	for i := range 20 {
		want := hashFromScratch(t, d)
		go sum(beginHash(t, d))
		exec(t, d, fmt.Sprintf("UPDATE t SET b=zeroblob(%d) WHERE id%%3=%d", 1000+i, i%3), "DELETE FROM u WHERE rowid%7=3")
		c, err := d.Capture("")
		if err == nil {
			c.Release()
		} else if !errors.Is(err, ErrBusy) {
			t.Fatal(err)
		}
		if r := <-results; r.err != nil || r.sum != want {
			t.Fatalf("Sum() = %s, %v; want %s", r.sum, r.err, want)
		}
	}
	want := hashFromScratch(t, d)
	h := beginHash(t, d)
	go sum(h)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if r := <-results; r.sum != want && r.err == nil {
		t.Errorf("Sum() beside Close = %s, %v; want %s or an error", r.sum, r.err, want)
	}
}

// TestHashDamage flips a bit in the middle of a row: a hash says so, and gives no number.
func TestHashDamage(t *testing.T) {
	d := openNew(t)
	exec(t, d, hashSetup...)
	snapshotNow(t, d, &chain{images: map[string][]byte{}})
	want := hashNow(t, d)
	d.hasher = new(hasher)
	data := mainFileOf(t, d)
	off := bytes.Index(data, make([]byte, 50000)) + 10000 // the big blob
	f, err := os.OpenFile(d.path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte{1}, int64(off))
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	got, err := beginHash(t, d).Sum(context.Background())
	if !errors.Is(err, ErrDamaged) {
		t.Fatalf("Sum() = %s, %v; want ErrDamaged (was %s)", got, err, want)
	}
	if _, err := d.BeginHash(); !errors.Is(err, ErrDamaged) {
		t.Errorf("BeginHash() = %v; want ErrDamaged", err)
	}
}
