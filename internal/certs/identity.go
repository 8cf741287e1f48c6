package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// lookEvery is the least time between two looks at the files.
const lookEvery = time.Second

// maxFile bounds a file, in bytes; the bundle of all public authorities has a quarter of it.
const maxFile = 1 << 20

// Files name what an Identity is read from. All are PEM.
type Files struct {
	Cert string // certificate, followed by those of intermediate authorities if there are any
	Key  string
	CA   string // authorities that others are verified by; empty: those of the system
}

// Identity is what one side of a connection shows and whom it believes. It is safe for concurrent use.
type Identity struct {
	files Files
	log   *slog.Logger

	current    atomic.Pointer[material]
	handshakes atomic.Int64

	mu     sync.Mutex // held by the one who looks; nobody waits for it
	looked time.Time  // guarded by mu
	seen   [3]stamp   // of the files when they were last read, in order or not; guarded by mu
}

// material is what the files held. It is immutable.
type material struct {
	cert tls.Certificate
	cas  *x509.CertPool // nil: those of the system
}

// stamp tells one state of a file from another.
type stamp struct {
	info os.FileInfo // nil if there is none
	err  string      // why there is none
}

func stampOf(name string) stamp {
	if name == "" {
		return stamp{}
	}
	info, err := os.Stat(name)
	if err != nil {
		return stamp{err: err.Error()}
	}
	return stamp{info: info}
}

func (s stamp) equal(t stamp) bool {
	if s.info == nil || t.info == nil {
		return s.info == nil && t.info == nil && s.err == t.err
	}
	return s.info.ModTime().Equal(t.info.ModTime()) && s.info.Size() == t.info.Size() && os.SameFile(s.info, t.info)
}

// Open reads the files. An error names the one that is wrong. Later changes are logged to log; nil discards.
func Open(files Files, log *slog.Logger) (*Identity, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	id := &Identity{files: files, log: log, looked: time.Now(), seen: files.stamps()}
	m, err := files.read()
	if err != nil {
		return nil, err
	}
	id.current.Store(m)
	return id, nil
}

// stamps are taken before the files are read: what is written in between is then found at the next look.
func (f Files) stamps() [3]stamp {
	return [3]stamp{stampOf(f.Cert), stampOf(f.Key), stampOf(f.CA)}
}

func (f Files) read() (*material, error) {
	cert, certErr := readFile(f.Cert)
	key, keyErr := readFile(f.Key)
	cas, caErr := readAuthorities(f.CA)
	if err := errors.Join(certErr, keyErr, caErr); err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("certificate %s with key %s: %w", f.Cert, f.Key, err)
	}
	return &material{pair, cas}, nil
}

func readAuthorities(name string) (*x509.CertPool, error) {
	if name == "" {
		return nil, nil
	}
	b, err := readFile(name)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("no certificate in %s", name)
	}
	return pool, nil
}

func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("%s is larger than %d bytes", name, maxFile)
	}
	return b, err
}

// Expires returns when the certificate ends that connections opened now are shown.
func (id *Identity) Expires() time.Time { return id.material().cert.Leaf.NotAfter }

// Handshakes returns how many connections the settings of Server were used for.
func (id *Identity) Handshakes() int64 { return id.handshakes.Load() }

// material returns what the files hold, or held when they were last in order. It does not wait for a look that is
// under way: a slow disk must not keep everybody from connecting.
func (id *Identity) material() *material {
	if id.mu.TryLock() {
		defer id.mu.Unlock()
		if time.Since(id.looked) >= lookEvery {
			id.look()
			id.looked = time.Now()
		}
	}
	return id.current.Load()
}

// look reads the files again if they have changed. The caller holds mu.
func (id *Identity) look() {
	now, before := id.files.stamps(), id.seen
	if now[0].equal(before[0]) && now[1].equal(before[1]) && now[2].equal(before[2]) {
		return
	}
	id.seen = now // also if they can't be used: one change is one line in the log
	m, err := id.files.read()
	if err != nil {
		id.log.Warn("changed TLS files not used, those from before stay", "err", err)
		return
	}
	id.current.Store(m)
	id.log.Info("TLS files read again", "cert", id.files.Cert, "key", id.files.Key, "ca", id.files.CA,
		"expires", m.cert.Leaf.NotAfter)
}
