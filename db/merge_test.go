package db

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"syscall"
	"testing"
	"time"

	"rqlited/command"
)

// program is a random life of a database: writes, readers in the way, captures that are published,
// dropped or refused, and restarts. Whatever it has done before, what a capture makes of the
// head equals what SQLite's own checkpoint makes of the files.
type program struct {
	t    *testing.T
	d    *DB
	dice *rand.Rand
	s    chain
	held []*pooled // readers in a transaction

	published                            bool // nothing has been captured since
	deltas, images, refused, kept, fresh int
}

func TestCaptureEqualsCheckpoint(t *testing.T) {
	for pageSize := walMinPage; pageSize <= walMaxPage; pageSize *= 2 {
		for autoVacuum := range 3 { // none, full, incremental
			t.Run(fmt.Sprintf("%d bytes, auto_vacuum %d", pageSize, autoVacuum), func(t *testing.T) {
				t.Parallel()
				seed := uint64(time.Now().UnixNano())
				t.Log("seed", seed)
				p := &program{t: t, dice: rand.New(rand.NewPCG(seed, 0)), d: open(t, testPath(t), Config{ReadersGrace: time.Millisecond})}
				image := imageFile(t, p.d, fmt.Sprintf("PRAGMA page_size=%d; PRAGMA auto_vacuum=%d; CREATE TABLE t (id INTEGER PRIMARY KEY, a, b); CREATE INDEX i ON t(a)", pageSize, autoVacuum))
				if err := p.d.Replace(image, ""); err != nil {
					t.Fatal(err)
				}
				for range 25 {
					p.step()
				}
				p.releaseReaders()
				if got := value(t, p.d, "PRAGMA auto_vacuum"); got != int64(autoVacuum) {
					t.Errorf("auto_vacuum is %v", got)
				}
				if got := value(t, p.d, "PRAGMA integrity_check"); got != "ok" {
					t.Errorf("integrity_check: %v", got)
				}
				t.Logf("%d deltas, %d images, %d refused, %d restarts with the files and %d without", p.deltas, p.images, p.refused, p.kept, p.fresh)
			})
		}
	}
}

func (p *program) step() {
	t := p.t
	randomWrites(t, p.d, p.dice)
	switch p.dice.IntN(6) {
	case 0, 1:
		p.held = append(p.held, holdReader(t, p.d))
		randomWrites(t, p.d, p.dice)
	case 2, 3:
		p.releaseReaders()
	case 4:
		p.restart()
		randomWrites(t, p.d, p.dice)
	}
	want := checkpointed(t, p.d)
	c, got, err := p.s.take(t, p.d)
	if errors.Is(err, ErrBusy) {
		p.refused++
		p.published = false
		return
	}
	if errors.Is(err, ErrNothingNew) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("capture (delta %t, %d of %d pages) differs from SQLite's checkpoint", c.Delta(), c.Records(), c.Pages())
	}
	if c.Delta() {
		p.deltas++
	} else {
		p.images++
	}
	if p.published = p.dice.IntN(4) != 0; !p.published {
		c.Release()
		return
	}
	p.s.publish(t, c, got)
}

func (p *program) releaseReaders() {
	for _, c := range p.held {
		if err := p.d.readers.put(c); err != nil {
			p.t.Fatal(err)
		}
	}
	p.held = nil
}

// restart closes the database, which loses what was written since the head, and opens it again.
func (p *program) restart() {
	t := p.t
	if p.s.head == "" {
		return
	}
	p.releaseReaders()
	if err := p.d.Close(); err != nil {
		t.Fatal(err)
	}
	p.d = open(t, p.d.path, Config{Head: p.s.head, ReadersGrace: time.Millisecond})
	if kept := p.d.Head() == p.s.head; kept != p.published {
		t.Fatalf("kept %t, want %t", kept, p.published)
	}
	if !p.published {
		p.fresh++
		if err := p.d.Replace(imageOf(t, p.d, p.s.images[p.s.head]), p.s.head); err != nil {
			t.Fatal(err)
		}
	} else {
		p.kept++
	}
	p.published = true // the main file equals the head
	if got := checkpointed(t, p.d); !bytes.Equal(got, p.s.images[p.s.head]) {
		t.Fatal("a restart does not lead back to the head")
	}
}

func randomWrites(t testing.TB, d *DB, dice *rand.Rand) {
	t.Helper()
	choices := [][]string{
		{"INSERT INTO t(a, b) VALUES(random(), randomblob(10))"},
		{"INSERT INTO t(a, b) VALUES(random(), randomblob(20000))"},
		{"UPDATE t SET a=random() WHERE id=(SELECT max(id) FROM t)"},
		{"UPDATE t SET b=randomblob(100) WHERE id%7=3"},
		{"DELETE FROM t WHERE id%5=2"},
		{"DELETE FROM t WHERE length(b) > 10000"},
		{"CREATE TABLE IF NOT EXISTS u AS SELECT * FROM t", "DROP TABLE IF EXISTS v"},
		{"CREATE TABLE IF NOT EXISTS v (x)", "DROP TABLE IF EXISTS u"},
		{"VACUUM"},
		{"PRAGMA incremental_vacuum"},
		{"PRAGMA incremental_vacuum(3)"},
		{"BEGIN", "INSERT INTO t(a, b) SELECT random(), randomblob(3000) FROM t LIMIT 20", "DELETE FROM t WHERE length(b)=3000", "COMMIT"},
		{"SAVEPOINT s", "DELETE FROM t", "ROLLBACK TO s", "INSERT INTO t(a) VALUES(1)", "RELEASE s"},
		// A rolled-back transaction that did not fit into the cache leaves frames in the WAL.
		{"PRAGMA cache_size=5", "BEGIN", "INSERT INTO t(a, b) SELECT random(), randomblob(3000) FROM t, t LIMIT 100", "ROLLBACK"},
		{"PRAGMA cache_size=5", "BEGIN", "INSERT INTO t(a, b) SELECT random(), randomblob(3000) FROM t, t LIMIT 30", "DELETE FROM t WHERE id%2=0", "COMMIT"},
		{"PRAGMA cache_size=5", "BEGIN", "SAVEPOINT s", "INSERT INTO t(a, b) SELECT random(), randomblob(3000) FROM t, t LIMIT 50", "ROLLBACK TO s", "DELETE FROM t WHERE id%3=0", "COMMIT"},
	}
	for range 1 + dice.IntN(4) {
		sql := choices[dice.IntN(len(choices))]
		resp := apply(t, d, &command.Entry{Kind: command.Execute, Seed: dice.Uint64(), Request: &command.Request{Statements: statements(sql...)}})
		for i, r := range resp.Results {
			if r.Error != "" {
				t.Fatalf("%s: %s", sql[i], r.Error)
			}
		}
	}
}

// TestBeyondGigabyte lets a file grow over the page at 1 GiB, where SQLite keeps its locks and which it
// never writes, and shrink to next to nothing. The files are full of holes.
func TestBeyondGigabyte(t *testing.T) {
	t.Parallel()
	for _, pageSize := range []int{512, 4096, 65536} {
		t.Run(fmt.Sprint(pageSize), func(t *testing.T) {
			lockPage := uint32(1<<30/pageSize + 1)
			d := open(t, testPath(t), Config{})
			image := imageFile(t, d, fmt.Sprintf("PRAGMA page_size=%d; CREATE TABLE t (id INTEGER PRIMARY KEY, b); CREATE TABLE u (x)", pageSize))
			inflate(t, image, pageSize, lockPage-4)
			merged := testPath(t)
			copySparse(t, image, merged)
			if err := d.Replace(image, "1-1"); err != nil {
				t.Fatal(err)
			}
			head := "1-1"
			steps := [][]string{
				{"INSERT INTO u VALUES(1)"},
				{fmt.Sprintf("WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<9) INSERT INTO t(b) SELECT randomblob(%d) FROM c", pageSize)},
				{"UPDATE u SET x=2", "DELETE FROM t WHERE id%2=0"},
				{"VACUUM"},
				{fmt.Sprintf("INSERT INTO t(b) VALUES(randomblob(%d))", 3*pageSize)},
			}
			for i, sql := range steps {
				exec(t, d, sql...)
				want := checkpointedSparse(t, d)
				c, err := d.Capture(head)
				if err != nil {
					t.Fatal(err)
				}
				if shrunk := i == 3; c.Delta() == shrunk && pageSize > 512 || !shrunk && i < 3 && c.Pages() < lockPage-4 || i > 3 && c.Pages() > 1000 {
					t.Fatalf("%q: delta %t, %d records, %d pages", sql, c.Delta(), c.Records(), c.Pages())
				}
				if i == 1 && (c.Pages() <= lockPage || c.Records() > 100) {
					t.Fatalf("%q: %d records, %d pages; the file was to grow beyond page %d", sql, c.Records(), c.Pages(), lockPage)
				}
				mergeInto(t, c, merged)
				sameSparse(t, merged, want)
				sameSparse(t, d.path, want)
				head = fmt.Sprintf("1-%d", i+2)
				if err := c.Published(head); err != nil {
					t.Fatal(err)
				}
				c.Release()
			}
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			if again := open(t, d.path, Config{Head: head}); again.Head() != head {
				t.Error("the next start has not kept the file")
			}
		})
	}
}

// inflate makes a database in WAL mode that is as long as so many pages, all but the first of them empty
// and in nobody's use.
func inflate(t *testing.T, name string, pageSize int, pages uint32) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, err = f.WriteAt([]byte{walFormat, walFormat}, 18)
	_, errCount := f.WriteAt(binary.BigEndian.AppendUint32(nil, pages), 28)
	if err = errors.Join(err, errCount, f.Truncate(int64(pages)*int64(pageSize))); err != nil {
		t.Fatal(err)
	}
}

// mergeInto writes a capture over the image of its parent.
func mergeInto(t *testing.T, c *Capture, name string) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if !c.Delta() {
		err = f.Truncate(0)
	}
	if err = errors.Join(err, f.Truncate(int64(c.Pages())*int64(c.PageSize()))); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, c.PageSize())
	for {
		pgno, err := c.Next(buf)
		if err == io.EOF {
			return
		}
		if err == nil {
			_, err = f.WriteAt(buf, int64(pgno-1)*int64(len(buf)))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// Of lseek on Linux.
const seekData, seekHole = 3, 4

// ranges calls visit for the parts of f that are not holes. Where the system can't tell, all is one.
func ranges(f *os.File, visit func(off, n int64) error) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	for off := int64(0); off < info.Size(); {
		data, err := syscall.Seek(int(f.Fd()), off, seekData)
		if errors.Is(err, syscall.ENXIO) {
			return nil // only holes behind
		}
		if err != nil {
			return visit(off, info.Size()-off)
		}
		end, err := syscall.Seek(int(f.Fd()), data, seekHole)
		if err != nil {
			return err
		}
		for off = data; off < end; {
			n := min(end-off, 1<<20)
			if err := visit(off, n); err != nil {
				return err
			}
			off += n
		}
	}
	return nil
}

func copySparse(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	info, err := in.Stat()
	if err == nil {
		err = out.Truncate(info.Size())
	}
	err = errors.Join(err, ranges(in, func(off, n int64) error {
		buf := make([]byte, n)
		if _, err := in.ReadAt(buf, off); err != nil {
			return err
		}
		_, err := out.WriteAt(buf, off)
		return err
	}))
	if err != nil {
		t.Fatal(err)
	}
}

// sameSparse compares the files where at least one of them has something.
func sameSparse(t *testing.T, a, b string) {
	t.Helper()
	x, err := os.Open(a)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	y, err := os.Open(b)
	if err != nil {
		t.Fatal(err)
	}
	defer y.Close()
	xi, errX := x.Stat()
	yi, errY := y.Stat()
	if errX != nil || errY != nil || xi.Size() != yi.Size() {
		t.Fatalf("%s has %d bytes, %s has %d", a, xi.Size(), b, yi.Size())
	}
	compare := func(off, n int64) error {
		p, q := make([]byte, n), make([]byte, n)
		_, errX := x.ReadAt(p, off)
		_, errY := y.ReadAt(q, off)
		if !bytes.Equal(p, q) {
			return fmt.Errorf("%s and %s differ within %d bytes at %d", a, b, n, off)
		}
		return errors.Join(errX, errY)
	}
	if err := errors.Join(ranges(x, compare), ranges(y, compare)); err != nil {
		t.Fatal(err)
	}
}

// checkpointedSparse is checkpointed for a huge file; it returns the name of one.
func checkpointedSparse(t *testing.T, d *DB) string {
	t.Helper()
	copied := testPath(t)
	copySparse(t, d.path, copied)
	copySparse(t, d.path+"-wal", copied+"-wal")
	checkpointFile(t, copied)
	return copied
}
