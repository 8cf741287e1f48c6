package main

import (
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"

	"rqlited/cluster"
	httpd "rqlited/http"
	"rqlited/internal/certs"
)

// tlsSettings are what the flags say about the TLS of a port.
type tlsSettings struct {
	certs.Files
	clients certs.Clients
	servers certs.Servers // of other nodes; the HTTP API dials nobody
}

func (t tlsSettings) enabled() bool { return t.Cert != "" }

func (s *settings) tlsFlags(fs *flag.FlagSet) {
	h, n := &s.http.tls, &s.raft.tls
	fs.StringVar(&h.Cert, "http-cert", "", "certificate `file` of the HTTP API, which is HTTPS then; read again when it changes, as all files of certificates and keys")
	fs.StringVar(&h.Key, "http-key", "", "key `file` of the HTTP API")
	fs.StringVar(&h.CA, "http-ca-cert", "", "certificate `file` of the authorities that clients are verified by (default: those of the system)")
	fs.BoolVar(&h.clients.Verify, "http-verify-client", false, "require and verify client certificates")
	fs.StringVar(&h.clients.CommonName, "http-verify-common-name", "", "common `name` required in client certificates")

	fs.StringVar(&n.Cert, "node-cert", "", "certificate `file` of this node; all that nodes say to each other is encrypted then")
	fs.StringVar(&n.Key, "node-key", "", "key `file` of this node")
	fs.StringVar(&n.CA, "node-ca-cert", "", "certificate `file` of the authorities that other nodes are verified by (default: those of the system)")
	fs.BoolVar(&n.clients.Verify, "node-verify-client", false, "require and verify certificates of nodes that connect")
	fs.StringVar(&n.clients.CommonName, "node-verify-common-name", "", "common `name` required in certificates of nodes that connect")
	fs.BoolVar(&n.servers.NoVerify, "node-no-verify", false, "do not verify the certificates of nodes that are dialled")
	fs.StringVar(&n.servers.Name, "node-verify-server-name", "", "`name` that the certificates of nodes that are dialled must be for (default: the host that is dialled)")
}

// tlsFaults checks what the flags for TLS require of each other, and that their files are there.
func (s *settings) tlsFaults(fs *flag.FlagSet) []fault {
	faults := pairFaults(fs, "http", "node")
	for _, p := range []struct {
		name string
		tls  tlsSettings
	}{{"http", s.http.tls}, {"node", s.raft.tls}} {
		if p.tls.clients.CommonName != "" && !p.tls.clients.Verify {
			faults = append(faults, refuse(p.name+"-verify-common-name", "-%[1]s-verify-common-name requires -%[1]s-verify-client", p.name))
		}
		// What asks for protection must not be without effect.
		if p.tls.clients.Verify && p.tls.Cert == "" && p.tls.Key == "" {
			faults = append(faults, refuse(p.name+"-verify-client", "-%[1]s-verify-client requires -%[1]s-cert and -%[1]s-key", p.name))
		}
	}
	if n := s.raft.tls; n.CA != "" && n.Cert == "" && n.Key == "" {
		faults = append(faults, refuse("node-ca-cert", "-node-ca-cert requires -node-cert and -node-key"))
	}
	for _, name := range []string{"http-cert", "http-key", "http-ca-cert", "node-cert", "node-key", "node-ca-cert"} {
		if file := given(fs, name); file != "" {
			if _, err := os.Stat(file); errors.Is(err, os.ErrNotExist) {
				faults = append(faults, refuse(name, "-%s: %s does not exist", name, file))
			}
		}
	}
	return faults
}

// warnIdle says which flags have no effect.
func (s *settings) warnIdle(log *slog.Logger) {
	h, n := s.http.tls, s.raft.tls
	for _, f := range []struct {
		name string
		idle bool
		why  string
	}{
		{"-http-no-verify", s.former.httpNoVerify, "nodes do not call each other over HTTP"},
		{"-on-disk-path", s.former.onDiskPath != "", "the database is in the data directory, and rebuilt from what is there"},
		{"-http-ca-cert", h.CA != "" && !h.clients.Verify, "there is no -http-verify-client"},
		{"-node-no-verify", n.servers.NoVerify && !n.enabled(), "there is no -node-cert"},
		{"-node-verify-server-name", n.servers.Name != "" && !n.enabled(), "there is no -node-cert"},
	} {
		if f.idle {
			log.Warn("flag without effect", "flag", f.name, "why", f.why)
		}
	}
}

// openedTLS are the settings of both ports, nil for one without TLS, and what they show, by "http" and "node".
type openedTLS struct {
	web   *tls.Config
	node  cluster.TLS
	shown map[string]*certs.Identity
}

// openTLS reads the files of both ports.
func (s *settings) openTLS(log *slog.Logger) (openedTLS, error) {
	log = log.With("component", "tls")
	opened := openedTLS{shown: map[string]*certs.Identity{}}
	var webErr, nodeErr error
	if h := s.http.tls; h.enabled() {
		var id *certs.Identity
		if id, opened.web, webErr = openPort(h, log); webErr != nil {
			webErr = fmt.Errorf("TLS of the HTTP API: %w", webErr)
		}
		opened.shown["http"] = id
	}
	if n := s.raft.tls; n.enabled() {
		var id *certs.Identity
		if id, opened.node.Listen, nodeErr = openPort(n, log); nodeErr != nil {
			nodeErr = fmt.Errorf("TLS between nodes: %w", nodeErr)
		}
		opened.shown["node"] = id
		opened.node.Dial = func(host string) *tls.Config { return id.Client(host, n.servers) }
	}
	return opened, errors.Join(webErr, nodeErr)
}

// openPort returns what a port shows, and its settings.
func openPort(t tlsSettings, log *slog.Logger) (*certs.Identity, *tls.Config, error) {
	id, err := certs.Open(t.Files, log)
	if err != nil {
		return nil, nil, err
	}
	cfg, err := id.Server(t.clients)
	return id, cfg, err
}

// status describes the TLS of the HTTP API.
func (t tlsSettings) status() httpd.TLS {
	if !t.enabled() {
		return httpd.TLS{}
	}
	return httpd.TLS{CertFile: t.Cert, KeyFile: t.Key, CAFile: t.CA, ClientAuth: t.clients.Type().String()}
}

// scheme is that of the URL of the HTTP API.
func (h httpSettings) scheme() string {
	if h.tls.enabled() {
		return "https"
	}
	return "http"
}
