//go:build unix

package budget

import (
	"net"
	"os"
	"syscall"
	"testing"
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
	if Scarce(dial()) {
		t.Error("the first connection is scarce")
	}
	for {
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if f.Fd() == 94 {
			break
		}
	}
	if Scarce(dial()) {
		t.Error("descriptor 95 of 128 is scarce")
	}
	if !Scarce(dial()) {
		t.Error("descriptor 96 of 128 is not scarce")
	}
	client, server := net.Pipe()
	defer client.Close()
	defer server.Close()
	if Scarce(client) {
		t.Error("what has no descriptor is scarce")
	}
}
