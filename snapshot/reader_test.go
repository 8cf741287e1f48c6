package snapshot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"rqlited/internal/vfs/crashfs"
)

// TestReaderStability: a reader that has read some bytes gets the rest of the same snapshot,
// whatever happens to the store meanwhile: each thing alone, and one after the other.
func TestReaderStability(t *testing.T) {
	restart := func(w *world) error { return errors.Join(stepStop(w), stepStart(w)) }
	later := func(w *world) error {
		time.Sleep(time.Hour)
		synctest.Wait()
		return nil
	}
	events := []scenario{
		{"nothing", nil, nil},
		{"delta", nil, []step{stepDelta}},
		{"image", nil, []step{stepImage, later}},
		{"install lower", nil, []step{stepInstall(-2), later}},
		{"install equal", nil, []step{stepInstall(0), later}},
		{"install higher", nil, []step{stepInstall(2), later}},
		{"compact", nil, []step{stepCompact, later}},
		{"merge", nil, []step{stepMerge, later}},
		{"merge below", nil, []step{stepDelta, stepMerge, stepDelta, stepMerge, later}},
		{"cancel", nil, []step{stepCancel}},
		{"other readers", nil, []step{stepRead}},
		{"grace is over", nil, []step{stepInstall(0), stepGrace, stepRead}},
		{"store closed", nil, []step{stepStop}},
		{"directory opened again", nil, []step{stepInstall(0), restart, later}},
		{"directory opened by another process", nil, []step{stepKill, later}},
		{"all of it", nil, []step{stepDelta, stepMerge, stepInstall(0), stepDelta, stepGrace, stepCompact, stepCancel,
			stepImage, later, restart, stepDelta, stepKill, stepRead, later, stepStop}},
	}
	for _, disk := range disks {
		for _, ev := range events {
			t.Run(disk.name+"/"+ev.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := prepared(t, disk.make(), delta3)
					want := streamOf(t, w.head.content.image())
					var readers []io.ReadCloser
					positions := []int{0, 1, len(want) / 2, len(want) - 1}
					for _, n := range positions {
						_, rc, err := w.s.Open(w.head.id)
						must(t, err)
						must(t, discardBytes(rc, want[:n]))
						readers = append(readers, rc)
					}
					for _, step := range ev.act {
						must(t, step(w))
						synctest.Wait()
					}
					for i, rc := range readers {
						if err := discardBytes(rc, want[positions[i]:]); err != nil {
							t.Errorf("after %d bytes: %v", positions[i], err)
						}
						if n, err := rc.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
							t.Errorf("Read behind the end = %d, %v; want %v", n, err, io.EOF)
						}
						must(t, rc.Close())
					}
					if w.s != nil { // and then nothing is left of them
						must(t, later(w))
						must(t, checkTidy(w.fs, w.s))
					}
				})
			})
		}
	}
}

// discardBytes reads what must be want.
func discardBytes(r io.Reader, want []byte) error {
	got := make([]byte, len(want))
	if _, err := io.ReadFull(r, got); err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return errors.New("the bytes are not those of the snapshot")
	}
	return nil
}

// TestStalledReader: for ten minutes a reader reads nothing. It costs disk space; nobody waits for
// it. In the bubble time passes only while somebody waits.
func TestStalledReader(t *testing.T) {
	for _, disk := range []func() *crashfs.FS{crashfs.New, crashfs.NewWindows} {
		synctest.Test(t, func(t *testing.T) {
			w := prepared(t, disk(), delta3)
			want := streamOf(t, w.head.content.image())
			_, rc, err := w.s.Open(w.head.id)
			must(t, err)
			must(t, discardBytes(rc, want[:700]))
			files := w.s.catalog.man.Chain

			for range 10 {
				time.Sleep(time.Minute)
				begin := time.Now()
				for _, act := range []step{stepDelta, stepDelta, stepMerge, stepCompact, stepInstall(1), stepRead, stepImage} {
					must(t, act(w))
					synctest.Wait()
				}
				if took := time.Since(begin); took > 0 {
					t.Errorf("with a stalled reader it took %s", took)
				}
			}
			if st := w.s.Stats(); st.Readers != 1 {
				t.Errorf("Stats().Readers = %d; want 1", st.Readers)
			}
			for _, l := range files {
				if _, err := w.fs.Stat("snapshots/" + l.File); err != nil {
					t.Errorf("a file of the reader: %v", err)
				}
			}
			begin := time.Now()
			s := w.s
			must(t, stepStop(w))
			if took := time.Since(begin); took > 0 {
				t.Errorf("with a stalled reader Close took %s", took)
			}
			must(t, discardBytes(rc, want[700:]))
			must(t, rc.Close())
			if got := s.Stats().Readers; got != 0 {
				t.Errorf("Stats().Readers = %d; want 0", got)
			}
		})
	}
}

// TestJustClosedIsOpenable opens each snapshot in another goroutine as soon as its sink is closed,
// and again and again until the next but one is published, while the store compacts and merges.
func TestJustClosedIsOpenable(t *testing.T) {
	s, err := Open("snapshots", Config{FS: newDisk(), CompactDeltas: 2, CompactBytes: 1})
	must(t, err)
	defer s.Close()
	c := fill(5, 0)
	head := image(c)(t, s)
	type opened struct{ done, failed chan error }
	var before opened
	for i := uint64(1); i <= 120 && !t.Failed(); i++ {
		next := c.change(4+int(i%5), i)
		if i%11 == 0 {
			head = mustPublish(t, s, snap{index: i, term: 1, content: next, install: true})
		} else {
			head = mustPublish(t, s, snap{index: i, term: 1, content: next, parent: &c, head: head})
		}
		c = next
		now := opened{make(chan error), make(chan error, 1)}
		go func(p published) {
			for {
				if err := checkContent(s, p); err != nil {
					now.failed <- fmt.Errorf("%s: %w", p.id, err)
					return
				}
				select {
				case <-now.done:
					now.failed <- nil
					return
				default:
				}
			}
		}(published{head, next})
		if before.done != nil {
			close(before.done)
			if err := <-before.failed; err != nil {
				t.Error(err)
			}
		}
		before = now
	}
	close(before.done)
	must(t, <-before.failed)
	must(t, s.Compact(context.Background()))
	if st := s.Stats(); st.Merges == 0 || st.Compactions == st.Merges {
		t.Errorf("Stats() = %+v; want merges and rewritten bases", st)
	}
}
