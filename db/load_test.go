package db

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rqlited/command"
)

// sqliteFile returns the bytes of a SQLite file made by sql.
func sqliteFile(t testing.TB, sql string) []byte {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	c, err := openConn(name, openReadWrite|openCreate, reader, shim{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.exec(sql), c.close()); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func loadFiles(t *testing.T, d *DB) []string {
	t.Helper()
	names, err := filepath.Glob(d.path + loadSuffix + "*")
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestLoad(t *testing.T) {
	const filled = "CREATE TABLE l (x); INSERT INTO l VALUES(42)"
	good := sqliteFile(t, filled)
	damaged := bytes.Clone(good)
	copy(damaged[4096:], bytes.Repeat([]byte{0xff}, 4096))
	tests := []struct {
		name string
		data []byte
		want string
	}{
		{"in DELETE mode", good, ""},
		{"in WAL mode", append(append(bytes.Clone(good[:18]), 2, 2), good[20:]...), ""},
		{"other page size", sqliteFile(t, "PRAGMA page_size=512; "+filled), ""},
		{"UTF-16", sqliteFile(t, "PRAGMA encoding='UTF-16'; "+filled), ""},
		{"a page too long", append(bytes.Clone(good), make([]byte, 4096)...), ""},
		{"part of a page too long", append(bytes.Clone(good), 1, 2, 3), msgNotADBFile},
		{"empty", nil, msgNotADBFile},
		{"text", []byte("CREATE TABLE l(x); -- and more than a header has, so that it could be one, if it were one at all ....."), msgNotADBFile},
		{"header alone", good[:100], msgNotADBFile},
		{"shortened", good[:4096], msgNotADBFile},
		{"damaged", damaged, msgNotADBFile},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := openNew(t)
			exec(t, d, setup)
			var s chain
			c, image, err := s.take(t, d)
			if err != nil {
				t.Fatal(err)
			}
			s.publish(t, c, image)
			resp := apply(t, d, &command.Entry{Kind: command.Load, Data: tt.data})
			if tt.want != "" {
				if got := show(resp.Results...); got != "error "+tt.want {
					t.Fatalf("result is %s, want %s", got, tt.want)
				}
				exec(t, d, "INSERT INTO t(n) VALUES('still here')")
			} else {
				if len(resp.Results) != 0 {
					t.Fatalf("results: %s", show(resp.Results...))
				}
				if got := value(t, d, "SELECT x FROM l"); got != int64(42) {
					t.Errorf("x is %v", got)
				}
				want := checkpointed(t, d)
				c, image, err := s.take(t, d)
				if err != nil || c.Delta() || !bytes.Equal(image, want) {
					t.Fatalf("after a load the capture is not the whole database: %v", err)
				}
				s.publish(t, c, image)
				exec(t, d, "INSERT INTO l VALUES(43)")
			}
			if left := loadFiles(t, d); len(left) > 0 {
				t.Errorf("%q were left", left)
			}
		})
	}
}

func TestLoadChunks(t *testing.T) {
	data := sqliteFile(t, "CREATE TABLE l (x); INSERT INTO l VALUES(42)")
	chunk := func(stream string, seq int64, from, to int, last bool) command.Chunk {
		return command.Chunk{Stream: stream, Sequence: seq, Data: data[min(from, len(data)):min(to, len(data))], Last: last}
	}
	const all = 1 << 30
	tests := []struct {
		name   string
		chunks []command.Chunk
		want   []string // errors
		loaded bool
	}{
		{"one", []command.Chunk{chunk("a", 1, 0, all, true)}, []string{""}, true},
		{"three", []command.Chunk{chunk("a", 1, 0, 100, false), chunk("a", 2, 100, 5000, false), chunk("a", 3, 5000, all, true)}, []string{"", "", ""}, true},
		{"two streams", []command.Chunk{chunk("a", 1, 0, 100, false), chunk("b", 1, 0, 50, false), chunk("a", 2, 100, all, true), chunk("b", 2, 60, all, true)}, []string{"", "", "", msgNotADBFile}, true},
		{"head is missing", []command.Chunk{chunk("a", 2, 100, all, true)}, []string{msgSequence}, false},
		{"one is missing", []command.Chunk{chunk("a", 1, 0, 100, false), chunk("a", 3, 100, all, true), chunk("a", 2, 100, all, true)}, []string{"", msgSequence, msgSequence}, false},
		{"aborted", []command.Chunk{chunk("a", 1, 0, 100, false), {Stream: "a", Abort: true}, chunk("a", 2, 100, all, true)}, []string{"", "", msgSequence}, false},
		{"again", []command.Chunk{chunk("a", 1, 0, 100, false), {Stream: "a", Abort: true}, chunk("a", 1, 0, all, true)}, []string{"", "", ""}, true},
		{"unknown aborted", []command.Chunk{{Stream: "x", Abort: true}}, []string{""}, false},
		{"no database", []command.Chunk{chunk("a", 1, 3, 2000, true)}, []string{msgNotADBFile}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := openNew(t)
			exec(t, d, setup)
			for i := range tt.chunks {
				resp := apply(t, d, &command.Entry{Kind: command.LoadChunk, Chunk: &tt.chunks[i]})
				got := ""
				if len(resp.Results) > 0 {
					got = resp.Results[0].Error
				}
				if got != tt.want[i] {
					t.Errorf("chunk %d: %q, want %q", i, got, tt.want[i])
				}
			}
			if n := value(t, d, "SELECT count(*) FROM sqlite_schema WHERE name='l'"); (n == int64(1)) != tt.loaded {
				t.Errorf("%v tables were loaded", n)
			}
			if left := loadFiles(t, d); len(left) > 0 {
				t.Errorf("%q were left", left)
			}
		})
	}
}

// TestNoCaptureAmidChunks keeps the log from being shortened between the chunks of a load.
func TestNoCaptureAmidChunks(t *testing.T) {
	d := openNew(t)
	exec(t, d, setup)
	for i := range maxLoads + 1 {
		resp := apply(t, d, &command.Entry{Kind: command.LoadChunk, Chunk: &command.Chunk{Stream: fmt.Sprint(i), Sequence: 1}})
		if got := show(resp.Results...); strings.Contains(got, msgManyLoads) != (i == maxLoads) {
			t.Errorf("stream %d: %s", i, got)
		}
	}
	if _, err := d.Capture(""); !errors.Is(err, ErrBusy) {
		t.Errorf("Capture amid a load = %v, want ErrBusy", err)
	}
	d.entries += abandonedAfter
	apply(t, d, &command.Entry{Kind: command.Noop})
	c, err := d.Capture("")
	if err != nil {
		t.Fatalf("Capture after the loads were abandoned = %v", err)
	}
	c.Release()
	if left := loadFiles(t, d); len(left) > 0 {
		t.Errorf("%q were left", left)
	}
}

// TestLoadedHeaders loads files with each byte of the header changed, and uses what was not refused. Whatever a
// file is, all replicas have the same, so nothing about it is an error of the machine.
func TestLoadedHeaders(t *testing.T) {
	image := sqliteFile(t, "PRAGMA auto_vacuum=2; CREATE TABLE t(id INTEGER PRIMARY KEY, x); CREATE INDEX i ON t(x); INSERT INTO t(x) VALUES(1),(2)")
	d := openNew(t)
	for at := range headerSize {
		for _, b := range []byte{0, 3, 0xff, image[at] + 1} {
			changed := bytes.Clone(image)
			changed[at] = b
			apply(t, d, &command.Entry{Kind: command.Load, Data: changed})
			req := command.Request{Kind: command.Execute, Statements: statements("INSERT INTO t(x) VALUES(3)", "CREATE TABLE u(x)", "DELETE FROM t WHERE x=1", "PRAGMA incremental_vacuum", "VACUUM")}
			if _, err := d.Apply(&command.Entry{Kind: command.Execute, Request: &req, Seed: 1}); err != nil {
				t.Fatalf("byte %d is %#x: %v", at, b, err)
			}
		}
	}
}
