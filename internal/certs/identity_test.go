package certs_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rqlited/internal/certs"
	"rqlited/internal/certs/certstest"
)

// connect returns both ends of a connection. A pipe would not do: both sides write before they read.
func connect(t *testing.T) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if client, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return client, server
}

// shake has a client and a server shake hands and say a byte to each other. The errors are those of either side.
func shake(ours, theirs net.Conn, server, client *tls.Config) (seen tls.ConnectionState, serverErr, clientErr error) {
	defer ours.Close()
	done := make(chan error, 1)
	go func() {
		defer theirs.Close()
		defer io.Copy(io.Discard, theirs) // closing with bytes unread would take the alert from the client
		defer theirs.(*net.TCPConn).CloseWrite()
		conn := tls.Server(theirs, server)
		_, err := io.ReadFull(conn, make([]byte, 1)) // shakes hands first
		if err == nil {
			_, err = conn.Write([]byte{1})
		}
		done <- err
	}()
	conn := tls.Client(ours, client)
	_, clientErr = conn.Write([]byte{1})
	if clientErr == nil {
		_, clientErr = io.ReadFull(conn, make([]byte, 1))
	}
	seen = conn.ConnectionState()
	ours.Close()
	return seen, <-done, clientErr
}

func shakeOn(t *testing.T, server, client *tls.Config) (seen tls.ConnectionState, serverErr, clientErr error) {
	t.Helper()
	ours, theirs := connect(t)
	return shake(ours, theirs, server, client)
}

func open(t *testing.T, files certs.Files, log *slog.Logger) *certs.Identity {
	t.Helper()
	id, err := certs.Open(files, log)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func serverOf(t *testing.T, id *certs.Identity, c certs.Clients) *tls.Config {
	t.Helper()
	cfg, err := id.Server(c)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// TestVerification is the table of who is let in, and who lets itself in.
func TestVerification(t *testing.T) {
	ours, other := certstest.NewAuthority(t), certstest.NewAuthority(t)
	server := open(t, ours.Write(t, t.TempDir(), "server", "host.test", "127.0.0.1"), nil)
	client := open(t, ours.Write(t, t.TempDir(), "client"), nil)
	files := other.Write(t, t.TempDir(), "client")
	certstest.Put(t, files.CA, ours.PEM())
	stranger := open(t, files, nil) // believes ours, and is not believed
	doubter := open(t, other.Write(t, t.TempDir(), "client"), nil)
	system := files
	system.CA = ""
	public := open(t, system, nil)

	anyone, verified := certs.Clients{}, certs.Clients{Verify: true}
	tests := []struct {
		name      string
		clients   certs.Clients
		client    *tls.Config
		serverErr string // "" is success on both sides
		clientErr string
	}{
		{"host", anyone, client.Client("host.test", certs.Servers{}), "", ""},
		{"IP address", anyone, client.Client("127.0.0.1", certs.Servers{}), "", ""},
		{"other host", anyone, client.Client("other.test", certs.Servers{}),
			"remote error: tls: bad certificate", "tls: failed to verify certificate: x509: certificate is valid for host.test, not other.test"},
		{"other IP address", anyone, client.Client("127.0.0.2", certs.Servers{}),
			"remote error: tls: bad certificate", "x509: certificate is valid for 127.0.0.1, not 127.0.0.2"},
		{"required name", anyone, client.Client("127.0.0.2", certs.Servers{Name: "host.test"}), "", ""},
		{"other required name", anyone, client.Client("host.test", certs.Servers{Name: "other.test"}),
			"remote error: tls: bad certificate", "valid for host.test, not other.test"},
		{"unknown authority", anyone, doubter.Client("host.test", certs.Servers{}),
			"remote error: tls: bad certificate", "tls: failed to verify certificate: x509: certificate signed by unknown authority"},
		{"authorities of the system", anyone, public.Client("host.test", certs.Servers{}),
			"remote error: tls: bad certificate", "tls: failed to verify certificate: x509: certificate signed by unknown authority"},
		{"unknown authority, not verified", anyone, doubter.Client("other.test", certs.Servers{NoVerify: true}), "", ""},

		{"client", verified, client.Client("host.test", certs.Servers{}), "", ""},
		{"unknown client", verified, stranger.Client("host.test", certs.Servers{}),
			"tls: failed to verify certificate: x509: certificate signed by unknown authority", "remote error: tls: "},
		{"unknown client, not verified", anyone, stranger.Client("host.test", certs.Servers{}), "", ""},
		{"client without certificate", verified, &tls.Config{InsecureSkipVerify: true},
			"tls: client didn't provide a certificate", "remote error: tls: certificate required"},
		{"name", certs.Clients{Verify: true, CommonName: "client"}, client.Client("host.test", certs.Servers{}), "", ""},
		{"other name", certs.Clients{Verify: true, CommonName: "Client"}, client.Client("host.test", certs.Servers{}),
			`client did not provide any valid certificate that matches CN "Client"`, "remote error: tls: bad certificate"},
		{"name from another authority", certs.Clients{Verify: true, CommonName: "client"}, stranger.Client("host.test", certs.Servers{}),
			"x509: certificate signed by unknown authority", "remote error: tls: "},
		{"TLS 1.1", anyone, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11},
			"client offered only unsupported versions", "remote error: tls: protocol version not supported"},
		{"TLS 1.2", verified, upTo12(client.Client("host.test", certs.Servers{})), "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			seen, serverErr, clientErr := shakeOn(t, serverOf(t, server, tt.clients), tt.client)
			if !says(serverErr, tt.serverErr) || !says(clientErr, tt.clientErr) {
				t.Errorf("server says %v, client says %v; want %q and %q", serverErr, clientErr, tt.serverErr, tt.clientErr)
			}
			if clientErr == nil && (seen.Version < tls.VersionTLS12 || len(tt.client.NextProtos) > 0 && seen.NegotiatedProtocol != "h2") {
				t.Errorf("version %x, protocol %q; want at least %x, h2", seen.Version, seen.NegotiatedProtocol, tls.VersionTLS12)
			}
		})
	}
	if _, err := server.Server(certs.Clients{CommonName: "client"}); err == nil {
		t.Error("a name that nobody verifies was accepted")
	}
}

func upTo12(cfg *tls.Config) *tls.Config {
	cfg.MaxVersion = tls.VersionTLS12
	return cfg
}

func says(err error, text string) bool {
	if text == "" {
		return err == nil
	}
	return err != nil && strings.Contains(err.Error(), text)
}

// TestOpenErrors expects each error to name the file.
func TestOpenErrors(t *testing.T) {
	a := certstest.NewAuthority(t)
	good := a.Write(t, t.TempDir(), "x", "x")
	bad := certstest.Names(t.TempDir())
	certstest.Put(t, bad.Cert, []byte("nonsense"))
	certstest.Put(t, bad.CA, nil)
	_, key := a.Issue(t, "y", "y")
	certstest.Put(t, bad.Key, key)
	large := t.TempDir() + "/large"
	certstest.Put(t, large, bytes.Repeat([]byte{'\n'}, 1<<20+1))
	missing := t.TempDir() + "/missing"
	tests := []struct {
		name  string
		files certs.Files
		want  []string
	}{
		{"in order", good, nil},
		{"all missing", certs.Files{Cert: missing + "1", Key: missing + "2", CA: missing + "3"}, []string{missing + "1", missing + "2", missing + "3"}},
		{"certificate", certs.Files{Cert: bad.Cert, Key: good.Key}, []string{bad.Cert, "PEM"}},
		{"key", certs.Files{Cert: good.Cert, Key: bad.Cert}, []string{bad.Cert, "PEM"}},
		{"key of another", certs.Files{Cert: good.Cert, Key: bad.Key}, []string{bad.Key, "does not match"}},
		{"authorities", certs.Files{Cert: good.Cert, Key: good.Key, CA: bad.CA}, []string{"no certificate in " + bad.CA}},
		{"too large", certs.Files{Cert: large, Key: good.Key}, []string{large + " is larger than 1048576 bytes"}},
		{"directory", certs.Files{Cert: t.TempDir(), Key: good.Key}, []string{"is a directory"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := certs.Open(tt.files, nil)
			if (err == nil) != (tt.want == nil) {
				t.Fatalf("Open() = %v; want %q", err, tt.want)
			}
			for _, text := range tt.want {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("Open() = %v; want %q in it", err, text)
				}
			}
		})
	}
}

// journal counts lines of a log.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(b)
}

func (j *journal) count(level string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Count(j.text.String(), "level="+level)
}

// TestReload replaces the files in steps, while several clients connect, and looks at what both sides show and
// believe after each.
func TestReload(t *testing.T) {
	old, next := certstest.NewAuthority(t), certstest.NewAuthority(t)
	synctest.Test(t, func(t *testing.T) {
		var said journal
		files := old.Write(t, t.TempDir(), "first", "host.test")
		id := open(t, files, slog.New(slog.NewTextHandler(&said, nil)))
		server := serverOf(t, id, certs.Clients{Verify: true})

		// expect connects at once, many times, and again when the next look at the files is due.
		expect := func(when, name string, infos, warns int) {
			t.Helper()
			time.Sleep(time.Second)
			var all sync.WaitGroup
			for range 8 {
				ours, theirs := connect(t)
				all.Go(func() { // one of these looks
					_, _, _ = shake(ours, theirs, server, id.Client("host.test", certs.Servers{}))
				})
			}
			all.Wait()
			seen, serverErr, err := shakeOn(t, server, id.Client("host.test", certs.Servers{}))
			if err = errors.Join(serverErr, err); err != nil {
				t.Fatalf("%s: %v", when, err)
			}
			if got := seen.PeerCertificates[0].Subject.CommonName; got != name {
				t.Errorf("%s: certificate of %q; want %q", when, got, name)
			}
			if i, w := said.count("INFO"), said.count("WARN"); i != infos || w != warns {
				t.Errorf("%s: %d infos and %d warnings so far; want %d and %d", when, i, w, infos, warns)
			}
		}
		expect("at first", "first", 0, 0)

		cert, key := old.Issue(t, "second", "host.test")
		certstest.Put(t, files.Cert, cert)
		expect("between certificate and key", "first", 0, 1)
		expect("still", "first", 0, 1)
		certstest.Put(t, files.Key, key)
		expect("with the key", "second", 1, 1)

		if err := os.Remove(files.Key); err != nil {
			t.Fatal(err)
		}
		expect("without a key", "second", 1, 2)
		certstest.Put(t, files.Key, key)
		expect("with the key again", "second", 2, 2)
		certstest.Put(t, files.CA, []byte("nonsense"))
		expect("without authorities", "second", 2, 3)

		cert, key = next.Issue(t, "third", "host.test")
		certstest.Put(t, files.Cert, cert)
		certstest.Put(t, files.Key, key)
		certstest.Put(t, files.CA, next.PEM())
		expect("with another authority", "third", 3, 3)
		late := open(t, old.Write(t, t.TempDir(), "late"), nil)
		if _, err, _ := shakeOn(t, server, late.Client("host.test", certs.Servers{NoVerify: true})); !says(err, "unknown authority") {
			t.Errorf("a client of the old authority: %v; want a refusal", err)
		}
	})
}

// TestExpires replaces a certificate that nobody is shown: monitoring learns of the new one all the same.
func TestExpires(t *testing.T) {
	a := certstest.NewAuthority(t)
	synctest.Test(t, func(t *testing.T) {
		files := a.Write(t, t.TempDir(), "x", "host.test")
		id := open(t, files, nil)
		ends := func(pemBytes []byte) time.Time {
			block, _ := pem.Decode(pemBytes)
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				t.Fatal(err)
			}
			return cert.NotAfter
		}
		first, err := os.ReadFile(files.Cert)
		if err != nil {
			t.Fatal(err)
		}
		if got := id.Expires(); !got.Equal(ends(first)) {
			t.Errorf("Expires() = %v; want %v", got, ends(first))
		}
		time.Sleep(time.Second) // until the next look is due
		cert, key := a.Issue(t, "y", "host.test")
		certstest.Put(t, files.Cert, cert)
		certstest.Put(t, files.Key, key)
		if got := id.Expires(); !got.Equal(ends(cert)) || got.Equal(ends(first)) {
			t.Errorf("Expires() = %v; want %v, and the one before was %v", got, ends(cert), ends(first))
		}
		if n := id.Handshakes(); n != 0 {
			t.Errorf("%d handshakes; want none", n)
		}
		_, _, _ = shakeOn(t, serverOf(t, id, certs.Clients{}), id.Client("host.test", certs.Servers{}))
		if n := id.Handshakes(); n != 1 {
			t.Errorf("%d handshakes; want 1", n)
		}
	})
}

// TestLooksAreRare changes files faster than they are looked at.
func TestLooksAreRare(t *testing.T) {
	a := certstest.NewAuthority(t)
	synctest.Test(t, func(t *testing.T) {
		files := a.Write(t, t.TempDir(), "first", "host.test")
		id := open(t, files, nil)
		server := serverOf(t, id, certs.Clients{})
		cert, key := a.Issue(t, "second", "host.test")
		certstest.Put(t, files.Cert, cert)
		certstest.Put(t, files.Key, key)
		for _, want := range []string{"first", "second"} {
			seen, _, err := shakeOn(t, server, id.Client("host.test", certs.Servers{}))
			if err != nil || seen.PeerCertificates[0].Subject.CommonName != want {
				t.Errorf("certificate of %q, %v; want %q", seen.PeerCertificates[0].Subject.CommonName, err, want)
			}
			time.Sleep(time.Second)
		}
	})
}

// TestResumption expects that a session goes on only where nobody has to be verified anew.
func TestResumption(t *testing.T) {
	a := certstest.NewAuthority(t)
	id := open(t, a.Write(t, t.TempDir(), "x", "host.test"), nil)
	for _, verify := range []bool{false, true} {
		server := serverOf(t, id, certs.Clients{Verify: verify})
		client := id.Client("host.test", certs.Servers{})
		client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		for round := range 2 {
			seen, serverErr, err := shakeOn(t, server, client)
			if err = errors.Join(serverErr, err); err != nil {
				t.Fatal(err)
			}
			if want := round == 1 && !verify; seen.DidResume != want {
				t.Errorf("clients verified: %t: connection %d resumed = %t; want %t", verify, round, seen.DidResume, want)
			}
		}
	}
}

// TestComplaints expects few lines, of each reason some, and to be told how many are missing.
func TestComplaints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said journal
		c := certs.NewComplaints(slog.New(slog.NewTextHandler(&said, nil)))
		expect := func(when string, lines int) {
			t.Helper()
			if got := said.count("WARN"); got != lines {
				t.Errorf("%s: %d lines; want %d", when, got, lines)
			}
		}
		for range 25 {
			c.Warn("refused", "same")
		}
		expect("one reason", 3)
		c.Warn("refused", "other")
		expect("another", 4)
		for i := range 100 {
			c.Warn("refused", fmt.Sprint(i))
		}
		expect("many", 30)
		time.Sleep(time.Minute)
		c.Warn("refused", "same")
		expect("a minute later", 31)
		if got := said.text.String(); !strings.HasSuffix(got, "msg=refused err=same omitted=74\n") {
			t.Errorf("log is %q; want omitted=74 at the end", got)
		}
	})
}
