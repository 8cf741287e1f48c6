package db

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"rqlited/command"
	"rqlited/internal/vfs"
	"rqlited/internal/vfs/crashfs"
)

func TestCRC(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	dice := rand.New(rand.NewPCG(seed, 0))
	for range 300 {
		p := make([]byte, dice.IntN(5000))
		for i := range p {
			p[i] = byte(dice.Uint32())
		}
		start := dice.Uint32()
		want := crc32.Update(start, crc32.MakeTable(crc32.Castagnoli), p)
		for _, plain := range []bool{false, true} {
			if got := crc32c(start, p, plain); got != want {
				t.Fatalf("crc32c of %d bytes (plain %t) = %08x, want %08x", len(p), plain, got, want)
			}
		}
	}
}

// rich makes a database with all kinds of pages: tables, indexes, overflow, free ones, a map of
// pointers, and tables of modules that keep theirs in others.
var rich = []string{
	"CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, b BLOB)",
	"CREATE INDEX i ON t(a)",
	"CREATE VIRTUAL TABLE f USING fts5(x)",
	"CREATE VIRTUAL TABLE g USING fts4(x)",
	"CREATE VIRTUAL TABLE r USING rtree(id, x0, x1)",
	"WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<100) INSERT INTO t SELECT i, hex(randomblob(9)), zeroblob(i*9) FROM c",
	"INSERT INTO f SELECT a||' word' FROM t",
	"INSERT INTO g SELECT a||' word' FROM t",
	"INSERT INTO r SELECT id, id, id+1 FROM t",
	"CREATE TABLE gone AS SELECT * FROM t",
	"DROP TABLE gone",
}

// keepable makes a closed database of pages of the given size at snapshot 1-1, which the next start
// will keep.
func keepable(t testing.TB, pageSize int, sql ...string) (path string, image []byte) {
	t.Helper()
	d, err := Open(testPath(t), Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := d.Replace(imageFile(t, d, fmt.Sprintf("PRAGMA page_size=%d; PRAGMA auto_vacuum=2; CREATE TABLE first (x)", pageSize)), ""); err != nil {
		t.Fatal(err)
	}
	exec(t, d, sql...)
	var s chain
	c, image, err := s.take(t, d)
	if err != nil {
		t.Fatal(err)
	}
	s.publish(t, c, image)
	return d.path, image
}

// harm changes a file and nothing that can be seen from the outside.
func harm(t testing.TB, name string, change func(data []byte) []byte) {
	t.Helper()
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(name)
	if err == nil {
		err = os.WriteFile(name, change(data), 0o600)
	}
	if err = errors.Join(err, os.Chtimes(name, time.Time{}, info.ModTime())); err != nil {
		t.Fatal(err)
	}
}

func flip(off, bit int) func([]byte) []byte {
	return func(data []byte) []byte { data[off] ^= 1 << bit; return data }
}

// TestBitFlips flips a bit of each page of a kept file in turn, then uses the database in some
// way. Each either does not meet the page or fails, whatever SQLite and its modules make of it; and
// the start after that restores.
func TestBitFlips(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	dice := rand.New(rand.NewPCG(seed, 0))
	const pageSize = 1024
	path, image := keepable(t, pageSize, rich...)
	schema, table := pagesOf(t, path, "sqlite_schema"), pagesOf(t, path, "t")
	behind := pagesOf(t, path, "[fgr]_*") // of the virtual tables, of which some are read at the start
	apply := func(sql string) func(d *DB) error {
		return func(d *DB) error {
			_, err := d.Apply(&command.Entry{Kind: command.Execute, Request: &command.Request{Statements: statements(sql)}})
			return err
		}
	}
	query := func(sql string) func(d *DB) error {
		return func(d *DB) error {
			_, err := d.Query(context.Background(), &command.Request{Statements: statements(sql)})
			return err
		}
	}
	uses := []func(d *DB) error{
		query("SELECT sum(length(a)), sum(length(b)) FROM t NOT INDEXED"),
		query("PRAGMA mmap_size=100000000; SELECT a, b FROM t"),
		query("PRAGMA integrity_check"),
		query("SELECT * FROM f WHERE f MATCH 'word'"),
		query("SELECT count(*) FROM r WHERE x0>3"),
		apply("INSERT INTO f SELECT a||' more words' FROM t"),
		apply("INSERT INTO g SELECT a||' more words' FROM t"),
		apply("INSERT INTO r SELECT id+1000, id, id+1 FROM t"),
		apply("DELETE FROM t"),
		apply("VACUUM"),
		apply("CREATE TABLE more AS SELECT zeroblob(300000) AS z"),
		func(d *DB) error { _, err := d.Stats(); return err },
		func(d *DB) error {
			c, err := d.Capture("")
			if err != nil {
				return err
			}
			defer c.Release()
			_, err = (&chain{}).merge(c)
			return err
		},
	}
	met, found := 0, make([]int, len(uses))
	for pgno := 1; pgno <= len(image)/pageSize; pgno++ {
		for range 2 {
			use := dice.IntN(len(uses))
			copied := killed(t, path)
			harm(t, copied, flip((pgno-1)*pageSize+dice.IntN(pageSize), dice.IntN(8)))
			var told atomic.Int32
			d := open(t, copied, Config{Head: "1-1", Damaged: func(error) { told.Add(1) }})
			if deleted := d.Head() == ""; deleted != schema[int64(pgno)] && !(deleted && behind[int64(pgno)]) {
				t.Fatalf("page %d, of the schema %t, behind a virtual table %t: deleted %t", pgno, schema[int64(pgno)], behind[int64(pgno)], deleted)
			} else if deleted {
				continue
			}
			err := uses[use](d)
			bad := d.sums.Load().damaged()
			if bad != 0 && bad != uint32(pgno) || errors.Is(err, ErrDamaged) != (bad != 0) || int(told.Load()) != min(int(bad), 1) {
				t.Fatalf("page %d, use %d: %v; damaged is page %d; told %d times", pgno, use, err, bad, told.Load())
			}
			if reads := use == len(uses)-1 || use == 1 && table[int64(pgno)]; reads && bad == 0 {
				t.Fatalf("page %d was read in use %d, and nothing found", pgno, use)
			}
			if bad == 0 {
				continue
			}
			met++
			found[use]++
			if want := fmt.Sprintf("page %d ", pgno); !strings.Contains(err.Error(), want) {
				t.Fatalf("%q does not name the page", err)
			}
			_, err = d.Apply(&command.Entry{Kind: command.Noop})
			if _, errCapture := d.Capture("1-1"); !errors.Is(err, ErrDamaged) || !errors.Is(errCapture, ErrDamaged) {
				t.Fatalf("after that Apply = %v, Capture = %v", err, errCapture)
			}
			if marked(t, d) {
				t.Fatal("the marker was not withdrawn")
			}
			if again := open(t, killed(t, copied), Config{Head: "1-1"}); again.Head() != "" {
				t.Fatal("the next start has kept the files")
			}
		}
	}
	t.Logf("%d pages, damage was met %d times, by use %v", len(image)/pageSize, met, found)
	if met < 20 {
		t.Error("the uses do not read enough")
	}
}

// pagesOf returns the pages of the tables that a pattern names.
func pagesOf(t testing.TB, path, table string) map[int64]bool {
	t.Helper()
	d := open(t, killed(t, path), Config{Head: "1-1"})
	pages := map[int64]bool{}
	for _, row := range query(t, d, "SELECT pageno FROM dbstat WHERE name GLOB '"+table+"'").Results[0].Rows.Values {
		pages[row[0].(int64)] = true
	}
	if len(pages) < 2 {
		t.Fatalf("%s has %d pages, too few", table, len(pages))
	}
	return pages
}

// TestBadSums damages db.sums: nobody may take that for damage of the main file.
func TestBadSums(t *testing.T) {
	path, image := keepable(t, 4096, rich...)
	tests := []struct {
		name   string
		change func([]byte) []byte
		kept   bool
	}{
		{"intact", func(data []byte) []byte { return data }, true},
		{"longer", func(data []byte) []byte { return append(data, 1, 2, 3) }, true}, // the file was larger once
		{"first bit", flip(0, 0), false},
		{"last bit", flip(len(image)/4096*4-1, 7), false},
		{"shorter", func(data []byte) []byte { return data[:len(data)-1] }, false},
		{"empty", func([]byte) []byte { return nil }, false},
		{"two changed places", func(data []byte) []byte {
			a, b := binary.LittleEndian.Uint32(data), binary.LittleEndian.Uint32(data[4:])
			binary.LittleEndian.PutUint32(data, b)
			binary.LittleEndian.PutUint32(data[4:], a)
			return data
		}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			copied := killed(t, path)
			harm(t, sumsPath(copied), tt.change)
			d := open(t, copied, Config{Head: "1-1"})
			if kept := d.Head() == "1-1"; kept != tt.kept {
				t.Errorf("kept %t, want %t", kept, tt.kept)
			}
		})
	}
	t.Run("missing", func(t *testing.T) {
		copied := killed(t, path)
		if err := os.Remove(sumsPath(copied)); err != nil {
			t.Fatal(err)
		}
		if d := open(t, copied, Config{Head: "1-1"}); d.Head() != "" {
			t.Error("kept")
		}
	})
}

// TestUnreadable makes each of the files that prove something impossible to read.
func TestUnreadable(t *testing.T) {
	path, _ := keepable(t, 4096, setup)
	for _, name := range []string{"db.sqlite", markerName, sumsName} {
		copied := killed(t, path)
		fsys := &unreadable{FS: vfs.OS, name: filepath.Join(filepath.Dir(copied), name)}
		d := open(t, copied, Config{Head: "1-1", FS: fsys})
		if d.Head() != "" {
			t.Errorf("the files were kept although %s can't be read", name)
		}
	}
}

// unreadable refuses to open a file the first time.
type unreadable struct {
	vfs.FS
	name  string
	asked bool
}

func (u *unreadable) Open(name string) (vfs.File, error) {
	if name == u.name && !u.asked {
		u.asked = true
		return nil, errors.New("input/output error")
	}
	return u.FS.Open(name)
}

// TestSumsFollow compares the sums with those of the file itself after all kinds of writes, and
// db.sums after each publication, in files that grow and shrink.
func TestSumsFollow(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	dice := rand.New(rand.NewPCG(seed, 0))
	for _, pageSize := range []int{512, 4096, 65536} {
		path, image := keepable(t, pageSize, "CREATE TABLE t (id INTEGER PRIMARY KEY, a, b)", "CREATE INDEX i ON t(a)")
		d := open(t, path, Config{Head: "1-1"})
		s := chain{images: map[string][]byte{"1-1": image}, head: "1-1"}
		for round := range 25 {
			randomWrites(t, d, dice)
			if round%10 == 9 {
				exec(t, d, "DELETE FROM t", "VACUUM")
			}
			c, image, err := s.take(t, d)
			if errors.Is(err, ErrNothingNew) {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			if round%3 == 2 {
				c.Release()
				continue
			}
			s.publish(t, c, image)
			if err := whole(d, image, true); err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
			onDisk, err := loadSums(vfs.OS, sumsPath(path), pageSize, c.Pages())
			if err != nil || onDisk.digest() != d.main.sums.digest() {
				t.Fatalf("round %d: %s differs (%v)", round, sumsName, err)
			}
			checkSumsFile(t, path, image, pageSize)
		}
	}
}

// checkSumsFile compares db.sums with its definition.
func checkSumsFile(t testing.TB, path string, image []byte, pageSize int) {
	t.Helper()
	got, err := os.ReadFile(sumsPath(path))
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(image) / pageSize {
		record := append(binary.BigEndian.AppendUint32(nil, uint32(i+1)), image[i*pageSize:(i+1)*pageSize]...)
		if want := crc32.Checksum(record, crc32.MakeTable(crc32.Castagnoli)); binary.LittleEndian.Uint32(got[4*i:]) != want {
			t.Fatalf("%s has another checksum for page %d than %08x", sumsName, i+1, want)
		}
	}
}

// TestSumsFlushIsSmall makes sure that a publication writes what has changed.
func TestSumsFlushIsSmall(t *testing.T) {
	m := &counting{FS: vfs.OS}
	d := open(t, testPath(t), Config{FS: m})
	exec(t, d, "CREATE TABLE t (id INTEGER PRIMARY KEY, b)", "CREATE TABLE u (x)",
		"WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<3000) INSERT INTO t SELECT i, zeroblob(4000) FROM c")
	var s chain
	for range 3 {
		c, image, err := s.take(t, d)
		if err != nil {
			t.Fatal(err)
		}
		m.sums.Store(0)
		s.publish(t, c, image)
		if got, most := m.sums.Load(), int64(4*4*sumsGroup); c.Delta() && (got == 0 || got > most) {
			t.Errorf("a delta of %d pages has written %d bytes of sums, at most %d wanted", c.Records(), got, most)
		}
		exec(t, d, "UPDATE t SET b=zeroblob(3999) WHERE id=1500", "INSERT INTO u VALUES(1)")
	}
}

// counting counts the bytes written at an offset, which only db.sums is.
type counting struct {
	vfs.FS
	sums atomic.Int64
}

type countingFile struct {
	vfs.File
	c *counting
}

func (c *counting) Create(name string) (vfs.File, error) {
	f, err := c.FS.Create(name)
	return countingFile{f, c}, err
}

func (f countingFile) WriteAt(p []byte, off int64) (int, error) {
	f.c.sums.Add(int64(len(p)))
	return f.File.WriteAt(p, off)
}

// TestReadersOfKeptFile reads a kept file by many at once while it is written and captured.
func TestReadersOfKeptFile(t *testing.T) {
	path, image := keepable(t, 1024, rich...)
	d := open(t, path, Config{Head: "1-1"})
	s := chain{images: map[string][]byte{"1-1": image}, head: "1-1"}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				resp, err := d.Query(ctx, &command.Request{Statements: statements("SELECT sum(length(b)) FROM t", "SELECT count(*) FROM f WHERE f MATCH 'word'")})
				if ctx.Err() == nil && (err != nil || resp.Results[0].Error+resp.Results[1].Error != "") {
					t.Errorf("Query = %+v, %v", resp, err)
					return
				}
			}
		})
	}
	for i := range 20 {
		exec(t, d, "UPDATE t SET b=zeroblob(length(b)+1)", "INSERT INTO f VALUES('another word')")
		if i == 10 {
			if err := d.Replace(imageOf(t, d, image), "2-1"); err != nil {
				t.Fatal(err)
			}
			s.images["2-1"], s.head = image, "2-1"
			continue
		}
		c, image, err := s.take(t, d)
		if errors.Is(err, ErrBusy) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		s.publish(t, c, image)
	}
	stop()
	wg.Wait()
}

// imageOf writes an image beside the database.
func imageOf(t testing.TB, d *DB, image []byte) string {
	t.Helper()
	name := filepath.Join(filepath.Dir(d.path), "image")
	if err := os.WriteFile(name, image, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// FuzzProve gives a start any marker, checksums and main file: it keeps the latter only if all three
// fit together.
func FuzzProve(f *testing.F) {
	main := bytes.Repeat([]byte{7}, 2048)
	copy(main, headerMagic)
	main[16], main[17] = 2, 0
	put := func(fsys *crashfs.FS, name string, data []byte) {
		file, err := fsys.Create(name)
		if err == nil {
			_, err = file.Write(data)
		}
		if err != nil {
			f.Fatal(err)
		}
	}
	fsys := crashfs.New()
	put(fsys, "/db.sqlite", main)
	file, err := fsys.Open("/db.sqlite")
	if err != nil {
		f.Fatal(err)
	}
	s, err := computeSums(file)
	if err != nil {
		f.Fatal(err)
	}
	m := &mainFile{sums: s}
	if err := errors.Join(m.flushSums(fsys, "/db.sums"), writeMarker(fsys, "/db.sqlite", "1-1", s.digest())); err != nil {
		f.Fatal(err)
	}
	read := func(fsys vfs.FS, name string) []byte {
		file, err := fsys.Open(name)
		if err != nil {
			f.Fatal(err)
		}
		size, _ := file.Size()
		data := make([]byte, size)
		if _, err := file.ReadAt(data, 0); err != nil && size > 0 {
			f.Fatal(err)
		}
		return data
	}
	goodMarker, goodSums := read(fsys, "/db.clean"), read(fsys, "/db.sums")
	f.Add(goodMarker, goodSums, main)
	f.Add(goodMarker, goodSums[:8], main)
	f.Add(goodMarker, goodSums, main[:512])
	f.Add(bytes.Replace(goodMarker, []byte(s.digest()), []byte("0000000000000000"), 1), goodSums, main)
	f.Add([]byte(`{"version":2,"snapshot":"1-1","size":-512}`), []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, marker, sums, main []byte) {
		fsys := crashfs.New()
		put(fsys, "/db.sqlite", main)
		put(fsys, "/db.sums", sums)
		put(fsys, "/db.clean", marker)
		s, err := prove(fsys, "/db.sqlite", "1-1")
		if err != nil {
			return
		}
		m, err := readMarker(fsys, "/db.sqlite")
		if err != nil || m.Snapshot != "1-1" || m.Size != int64(len(main)) || m.Sums != s.digest() || int(s.pages())*4 > len(sums) {
			t.Errorf("%q proves a file of %d bytes, with %d bytes of checksums (%v)", marker, len(main), len(sums), err)
		}
	})
}
