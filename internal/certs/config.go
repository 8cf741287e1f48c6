package certs

import (
	"crypto/tls"
	"errors"
	"fmt"
)

// protocols are offered by ALPN, in the order of preference.
var protocols = []string{"h2", "http/1.1"}

// Clients says what is asked of those who connect. The zero value asks nothing.
type Clients struct {
	// Verify refuses clients whose certificate was not issued, for use by clients, by an authority of the Identity.
	Verify bool

	// CommonName, unless empty, is the one that the subject of their certificate must have. It needs Verify.
	CommonName string
}

// Type returns what c is in the words of crypto/tls.
func (c Clients) Type() tls.ClientAuthType {
	if c.Verify {
		return tls.RequireAndVerifyClientCert
	}
	return tls.NoClientCert
}

// Server returns settings for a port. Each handshake uses the files as they are then.
func (id *Identity) Server(c Clients) (*tls.Config, error) {
	if c.CommonName != "" && !c.Verify {
		return nil, errors.New("certs: CommonName needs Verify")
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: protocols,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return id.server(c), nil
		},
	}, nil
}

// server returns the settings for one handshake.
func (id *Identity) server(c Clients) *tls.Config {
	id.handshakes.Add(1)
	m := id.material()
	cfg := &tls.Config{
		MinVersion:   tls.VersionTLS12,
		NextProtos:   protocols,
		Certificates: []tls.Certificate{m.cert},
		ClientAuth:   c.Type(),
		ClientCAs:    m.cas,
		// A ticket would let a client in that an authority has vouched for which is not believed any more.
		SessionTicketsDisabled: c.Verify,
	}
	if c.CommonName != "" {
		cfg.VerifyConnection = func(s tls.ConnectionState) error { return checkName(s, c.CommonName) }
	}
	return cfg
}

func checkName(s tls.ConnectionState, want string) error {
	if len(s.PeerCertificates) > 0 && s.PeerCertificates[0].Subject.CommonName == want {
		return nil
	}
	return fmt.Errorf("client did not provide any valid certificate that matches CN %q", want) // rqlite's words
}

// Servers says what is asked of those that are dialled.
type Servers struct {
	Name     string // that their certificate must be for; empty: the host that was dialled
	NoVerify bool   // believe any certificate
}

// Client returns settings for one connection to host. If the other side asks who is there, it is shown the
// certificate.
func (id *Identity) Client(host string, s Servers) *tls.Config {
	m := id.material()
	if s.Name != "" {
		host = s.Name
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		NextProtos:         protocols,
		RootCAs:            m.cas,
		ServerName:         host,
		InsecureSkipVerify: s.NoVerify,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &m.cert, nil // also if the other side does not list its authority: it says better why not
		},
	}
}
