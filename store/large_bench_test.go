package store

import (
	"bytes"
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"rqlited/command"
	"rqlited/db"
)

// The file of BenchmarkLargeFile, and where it and the node's files are. They need eight times the room.
var (
	largeMiB = flag.Int("large", 64, "size in MiB of the file of BenchmarkLargeFile")
	largeDir = flag.String("largedir", "", "directory for BenchmarkLargeFile; empty is that of all tests")
)

// BenchmarkLargeFile boots, loads and backs up a file that is larger than the memory that is used for that, and reports
// the time and the peak of anonymous memory, which mapped files are no part of.
func BenchmarkLargeFile(b *testing.B) {
	dir := b.TempDir()
	if *largeDir != "" {
		var err error
		if dir, err = os.MkdirTemp(*largeDir, "large"); err != nil {
			b.Fatal(err)
		}
		defer os.RemoveAll(dir)
	}
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	file := filepath.Join(dir, "file")
	makeLarge(b, file)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	s, err := Open(b.Context(), Config{Dir: filepath.Join(dir, "node"), NodeID: "n1", Addr: ln.Addr().String(), Layer: tcpLayer{ln}})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close(context.Background())
	if err := s.Bootstrap(b.Context(), []Server{{ID: "n1", Addr: ln.Addr().String(), Voter: true}}); err != nil {
		b.Fatal(err)
	}
	for s.Ready() != nil {
		<-time.After(10 * time.Millisecond)
	}
	backup := func(req command.BackupRequest) func() error {
		return func() error { return s.Backup(b.Context(), &req, io.Discard) }
	}
	with := func(f func(io.Reader) error) func() error {
		return func() error {
			r, err := os.Open(file)
			if err != nil {
				return err
			}
			defer r.Close()
			return f(r)
		}
	}
	for _, bb := range []struct {
		name string
		f    func() error
	}{
		{"boot", with(func(r io.Reader) error { return s.Boot(b.Context(), r) })},
		{"load", with(func(r io.Reader) error { _, err := s.Load(b.Context(), r); return err })},
		{"backup", backup(command.BackupRequest{Format: command.BackupBinary})},
		{"vacuum", backup(command.BackupRequest{Format: command.BackupBinary, Vacuum: true})},
		{"sql", backup(command.BackupRequest{Format: command.BackupSQL})},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.SetBytes(int64(*largeMiB) << 20)
			debug.FreeOSMemory()
			stop, peak := make(chan struct{}), make(chan int)
			go watchMemory(stop, peak)
			for b.Loop() {
				if err := bb.f(); err != nil {
					b.Fatal(err)
				}
			}
			close(stop)
			b.ReportMetric(float64(<-peak), "peak-MiB")
		})
	}
}

// makeLarge makes a SQLite file of the size that was asked for.
func makeLarge(b *testing.B, name string) {
	b.Helper()
	d, err := db.Open(filepath.Join(b.TempDir(), "db.sqlite"), db.Config{})
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	row := make([]byte, 4<<20)
	sql := []command.Statement{{SQL: "CREATE TABLE IF NOT EXISTS t (v)"}, {SQL: "INSERT INTO t WITH RECURSIVE c(i) AS (SELECT 0 UNION ALL SELECT i+1 FROM c WHERE i<8191) SELECT substr(?, 1+i*512, 512) FROM c"}}
	for range *largeMiB / 4 {
		rand.Read(row)
		sql[1].Params = []command.Param{{Value: bytes.Clone(row)}}
		if _, err := d.Apply(&command.Entry{Kind: command.Execute, Seed: 1, Request: &command.Request{Kind: command.Execute, Statements: sql}}); err != nil {
			b.Fatal(err)
		}
		if c, err := d.Capture(""); err == nil {
			c.Release()
		}
	}
	state, err := d.BeginBackup()
	if err != nil {
		b.Fatal(err)
	}
	f, err := os.Create(name)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	if err := state.Write(b.Context(), f, &command.BackupRequest{Format: command.BackupDelete}); err != nil {
		b.Fatal(err)
	}
}

// watchMemory reports the peak of the anonymous memory of the process, in MiB.
func watchMemory(stop <-chan struct{}, peak chan<- int) {
	most := 0
	for {
		status, err := os.ReadFile("/proc/self/status")
		if err != nil {
			status = nil // another system: nothing is reported
		}
		for line := range strings.Lines(string(status)) {
			var kb int
			if n, err := fmt.Sscanf(line, "RssAnon: %d kB", &kb); err == nil && n == 1 {
				most = max(most, kb>>10)
			}
		}
		select {
		case <-stop:
			peak <- most
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}
