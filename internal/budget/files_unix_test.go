//go:build unix

package budget

import (
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// TestScarce opens descriptors until there are few left. It lowers the limit of the test process meanwhile.
func TestScarce(t *testing.T) {
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	few := before
	few.Cur = 128
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
			t.Error(err)
		}
	}()
	dial := func() net.Conn {
		conn, err := net.Dial("udp", "127.0.0.1:9") // nothing is sent
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if Scarce(dial()) || Exhausted(ln) {
		t.Error("the first connection is scarce")
	}
	var files []*os.File
	for {
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files = append(files, f)
		if f.Fd() == 94 {
			break
		}
	}
	if Scarce(dial()) {
		t.Error("descriptor 95 of 128 is scarce")
	}
	if !Exhausted(ln) {
		t.Error("95 of 128 descriptors are in use, but they are not exhausted")
	}
	if !Scarce(dial()) {
		t.Error("descriptor 96 of 128 is not scarce")
	}
	for {
		f, err := os.Open(os.DevNull)
		if err != nil {
			break
		}
		defer f.Close()
		files = append(files, f)
	}
	if !Exhausted(ln) {
		t.Error("all descriptors are in use, but they are not exhausted")
	}
	Recover(ln, func() bool {
		files[0].Close()
		files = files[1:]
		return true
	}, func(time.Duration) {})
	if Exhausted(ln) {
		t.Errorf("%d descriptors have been closed, and they are still exhausted", len(files))
	}
	client, server := net.Pipe()
	defer client.Close()
	defer server.Close()
	if Scarce(client) {
		t.Error("what has no descriptor is scarce")
	}
}
