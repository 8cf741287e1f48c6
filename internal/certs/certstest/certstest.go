package certstest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"rqlited/internal/certs"
)

// Authority issues certificates.
type Authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewAuthority returns an authority that nobody believes yet.
func NewAuthority(tb testing.TB) *Authority {
	tb.Helper()
	t := template(tb, "test authority")
	t.IsCA, t.BasicConstraintsValid, t.KeyUsage = true, true, x509.KeyUsageCertSign
	key := newKey(tb)
	return &Authority{sign(tb, t, t, key, key), key}
}

// PEM returns what makes others believe the authority.
func (a *Authority) PEM() []byte { return encode("CERTIFICATE", a.cert.Raw) }

// Issue returns a certificate for servers of the hosts, names or IP addresses, and for clients.
func (a *Authority) Issue(tb testing.TB, commonName string, hosts ...string) (cert, key []byte) {
	tb.Helper()
	k := newKey(tb)
	return pair(tb, sign(tb, leaf(tb, commonName, hosts), a.cert, k, a.key), k)
}

// SelfSigned returns a certificate that only those believe who are given it as an authority.
func SelfSigned(tb testing.TB, commonName string, hosts ...string) (cert, key []byte) {
	tb.Helper()
	k := newKey(tb)
	t := leaf(tb, commonName, hosts)
	return pair(tb, sign(tb, t, t, k, k), k)
}

// Write puts a certificate, its key and the authority into new files of dir.
func (a *Authority) Write(tb testing.TB, dir, commonName string, hosts ...string) certs.Files {
	tb.Helper()
	cert, key := a.Issue(tb, commonName, hosts...)
	f := Names(dir)
	Put(tb, f.Cert, cert)
	Put(tb, f.Key, key)
	Put(tb, f.CA, a.PEM())
	return f
}

// Names returns the files of dir that Write writes.
func Names(dir string) certs.Files {
	return certs.Files{
		Cert: filepath.Join(dir, "cert.pem"),
		Key:  filepath.Join(dir, "key.pem"),
		CA:   filepath.Join(dir, "ca.pem"),
	}
}

// Put replaces a file in one step.
func Put(tb testing.TB, name string, b []byte) {
	tb.Helper()
	if err := os.WriteFile(name+".tmp", b, 0o600); err != nil {
		tb.Fatal(err)
	}
	if err := os.Rename(name+".tmp", name); err != nil {
		tb.Fatal(err)
	}
}

func template(tb testing.TB, commonName string) *x509.Certificate {
	tb.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		tb.Fatal(err)
	}
	lifetime := time.Duration(serial.Int64()%1_000_000) * time.Second // which tells two of them apart
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: commonName},
		NotBefore:    time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC), // before the clock of testing/synctest begins
		NotAfter:     time.Date(2199, 1, 1, 0, 0, 0, 0, time.UTC).Add(lifetime),
	}
}

func leaf(tb testing.TB, commonName string, hosts []string) *x509.Certificate {
	t := template(tb, commonName)
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	return t
}

func newKey(tb testing.TB) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

func sign(tb testing.TB, t, parent *x509.Certificate, key, parentKey *ecdsa.PrivateKey) *x509.Certificate {
	tb.Helper()
	der, err := x509.CreateCertificate(rand.Reader, t, parent, &key.PublicKey, parentKey)
	if err != nil {
		tb.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	return cert
}

func pair(tb testing.TB, cert *x509.Certificate, key *ecdsa.PrivateKey) (certPEM, keyPEM []byte) {
	tb.Helper()
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		tb.Fatal(err)
	}
	return encode("CERTIFICATE", cert.Raw), encode("EC PRIVATE KEY", der)
}

func encode(kind string, der []byte) []byte {
	var b bytes.Buffer
	_ = pem.Encode(&b, &pem.Block{Type: kind, Bytes: der}) // a buffer takes all
	return b.Bytes()
}
