package system

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rqlite/gorqlite"

	"rqlited/internal/certs"
	"rqlited/internal/certs/certstest"
)

// memberName is the common name that the nodes of these tests expect of each other.
const memberName = "member"

// secured is a node that speaks TLS on both ports and verifies who connects to either.
type secured struct {
	*node
	files certs.Files // of both ports
}

// secureNode prepares a node of the authority a. Its client shows a certificate of a, and believes a.
func secureNode(t *testing.T, a *certstest.Authority, id, commonName string, flags ...string) secured {
	t.Helper()
	n := newNode(t, id)
	f := a.Write(t, t.TempDir(), commonName, "127.0.0.1", "localhost")
	n.flags = append(append(httpFlags(f), nodeFlags(f)...), flags...)
	n.scheme = "https"
	n.client.Transport = secureTransport(t, a)
	return secured{n, f}
}

func httpFlags(f certs.Files) []string {
	return []string{"-http-cert", f.Cert, "-http-key", f.Key, "-http-ca-cert", f.CA, "-http-verify-client", "-http-verify-common-name", "client"}
}

func nodeFlags(f certs.Files) []string {
	return []string{"-node-cert", f.Cert, "-node-key", f.Key, "-node-ca-cert", f.CA, "-node-verify-client", "-node-verify-common-name", memberName}
}

// secureTransport is that of a client that a knows.
func secureTransport(t *testing.T, a *certstest.Authority) *http.Transport {
	t.Helper()
	pair, err := tls.X509KeyPair(a.Issue(t, "client"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(a.PEM())
	return &http.Transport{
		ForceAttemptHTTP2: true,
		TLSClientConfig:   &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}},
	}
}

// startSecure starts three nodes that only speak to nodes of a.
func startSecure(t *testing.T, a *certstest.Authority) (nodes []secured, c cluster) {
	t.Helper()
	for i := range 3 {
		n := secureNode(t, a, fmt.Sprintf("n%d", i+1), memberName)
		nodes, c = append(nodes, n), append(c, n.node)
	}
	addrs := c[0].raftAddr + "," + c[1].raftAddr + "," + c[2].raftAddr
	for _, n := range c {
		n.flags = append(n.flags, "-bootstrap-expect", "3", "-join", addrs)
	}
	c.start()
	c.waitReady()
	return nodes, c
}

// TestTLSCluster forms a cluster with mutual TLS on both ports, uses it as clients do, restarts it, and replaces
// all certificates while it runs.
func TestTLSCluster(t *testing.T) {
	t.Parallel()
	a := certstest.NewAuthority(t)
	nodes, c := startSecure(t, a)
	leader := c.leader()
	follower := c.without(leader)[0]
	follower.execute("CREATE TABLE foo (id INTEGER NOT NULL PRIMARY KEY, name TEXT)")
	follower.execute("INSERT INTO foo(name) VALUES ('forwarded')")

	const path = "/db/execute?redirect"
	r, err := follower.do(requestLimit, http.MethodPost, path, "application/json", `["INSERT INTO foo(name) VALUES ('redirected')"]`)
	if want := "https://" + leader.httpAddr + path; err != nil || r.status != http.StatusMovedPermanently || r.header.Get("Location") != want {
		t.Fatalf("%s = %+v, %v; want a redirect to %s", path, r, err, want)
	}
	members, err := follower.members()
	if m := members[leader.id]; err != nil || m.APIAddr != "https://"+leader.httpAddr || !m.Reachable {
		t.Errorf("/nodes = %+v, %v; want the leader at https://%s", members, err, leader.httpAddr)
	}
	secureStatus(t, nodes[0])
	secureClient(t, a, follower)

	c.equal()
	for _, n := range c {
		n.stop()
	}
	c.start()
	c.waitReady()

	// One after the other shows a new certificate; connections from before go on, and so the next are forced.
	for i, n := range nodes {
		cert, key := a.Issue(t, memberName, "127.0.0.1", "localhost", fmt.Sprintf("renewed-%d.test", i))
		certstest.Put(t, n.files.Cert, cert)
		certstest.Put(t, n.files.Key, key)
		within(t, 10*time.Second, n.id+" shows its new certificate", func() error {
			n.client.CloseIdleConnections()
			resp, err := n.client.Get("https://" + n.httpAddr + "/readyz")
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			if resp.ProtoMajor != 2 {
				return hopelessError{fmt.Errorf("protocol is %s", resp.Proto)}
			}
			if names := resp.TLS.PeerCertificates[0].DNSNames; len(names) != 2 {
				return fmt.Errorf("certificate is for %q", names)
			}
			return nil
		})
		if !mentions(n.log(), "TLS files read again") {
			t.Errorf("%s does not say that it has read new files", n.id)
		}
	}
	old := c.leader()
	old.kill() // the others have to connect to each other anew
	rest := c.without(old)
	rest.leader().execute("INSERT INTO foo(name) VALUES ('renewed')")
	old.start()
	c.waitReady()
	c.equal()
	if got := c[0].query("strong", "SELECT name FROM foo ORDER BY id"); strings.Join(got, " ") != "forwarded renewed" {
		t.Errorf("rows are %q", got)
	}
}

// secureStatus looks at what a node says of its TLS.
func secureStatus(t *testing.T, n secured) {
	t.Helper()
	var s struct {
		Cluster struct{ HTTPS string }
		HTTP    struct {
			TLS struct {
				CA         string   `json:"ca_file"`
				Cert       string   `json:"cert_file"`
				Key        string   `json:"key_file"`
				ClientAuth string   `json:"client_auth"`
				Enabled    string   `json:"enabled"`
				Protocols  []string `json:"next_protos"`
			}
		}
		Mux struct{ TLS string }
	}
	if err := n.get("/status", &s); err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(s.Cluster.HTTPS, s.Mux.TLS, s.HTTP.TLS)
	want := fmt.Sprint("true", "enabled", struct {
		CA, Cert, Key, ClientAuth, Enabled string
		Protocols                          []string
	}{n.files.CA, n.files.Cert, n.files.Key, "RequireAndVerifyClientCert", "true", []string{"h2", "http/1.1"}})
	if got != want {
		t.Errorf("/status says %s; want %s", got, want)
	}
}

// secureClient uses rqlite's Go client, and some that the node must not answer.
func secureClient(t *testing.T, a *certstest.Authority, n *node) {
	t.Helper()
	conn, err := gorqlite.OpenWithClient("https://"+n.httpAddr+"/?timeout=5", &http.Client{Transport: secureTransport(t, a), Timeout: requestLimit})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if qr, err := conn.QueryOne("SELECT count(*) FROM foo"); err != nil || qr.NumRows() != 1 {
		t.Errorf("gorqlite: %d rows, %v; want 1", qr.NumRows(), err)
	}

	stranger := secureTransport(t, certstest.NewAuthority(t))
	stranger.TLSClientConfig.InsecureSkipVerify = true
	unnamed := secureTransport(t, a)
	unnamed.TLSClientConfig.Certificates = nil
	old := secureTransport(t, a)
	old.TLSClientConfig.MaxVersion = tls.VersionTLS11
	for name, transport := range map[string]*http.Transport{"stranger": stranger, "no certificate": unnamed, "TLS 1.1": old} {
		defer transport.CloseIdleConnections()
		if resp, err := (&http.Client{Transport: transport}).Get("https://" + n.httpAddr + "/status"); err == nil {
			resp.Body.Close()
			t.Errorf("%s: answered with %s", name, resp.Status)
		}
	}
	resp, err := http.Get("http://" + n.httpAddr + "/status")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("plain HTTP is answered with %s; want 400", resp.Status)
	}
	if !mentions(n.log(), "tls handshake failed") {
		t.Error("the log does not mention those who were refused")
	}
}

// TestTLSJoin has nodes ask to join that must not, and expects both sides to say why. The cluster stays as it is.
func TestTLSJoin(t *testing.T) {
	t.Parallel()
	a := certstest.NewAuthority(t)
	first := secureNode(t, a, "n1", memberName)
	first.start()
	first.waitReady(formLimit)
	plain := startOne(t)

	selfSigned := certstest.Names(t.TempDir())
	cert, key := certstest.SelfSigned(t, memberName, "127.0.0.1", "localhost")
	certstest.Put(t, selfSigned.Cert, cert)
	certstest.Put(t, selfSigned.Key, key)
	certstest.Put(t, selfSigned.CA, a.PEM())
	believesNobody := a.Write(t, t.TempDir(), memberName, "127.0.0.1")
	certstest.Put(t, believesNobody.CA, certstest.NewAuthority(t).PEM())
	outsider := a.Write(t, t.TempDir(), "outsider", "127.0.0.1")
	member := a.Write(t, t.TempDir(), memberName, "127.0.0.1")

	tests := []struct {
		name   string
		to     *node
		flags  []string
		joiner string // what the node that asks says
		asked  string // what the other one says
	}{
		{"self-signed", first.node, nodeFlags(selfSigned), "remote error: tls: ", "certificate signed by unknown authority"},
		{"unverifiable server", first.node, nodeFlags(believesNobody), "certificate signed by unknown authority", "remote error: tls: bad certificate"},
		{"other name", first.node, nodeFlags(outsider), "remote error: tls: bad certificate", `matches CN \"` + memberName},
		{"other server name", first.node, append(nodeFlags(member), "-node-verify-server-name", "other.test"), "not other.test", ""}, // said often enough
		{"plain", first.node, nil, "because only one of the two nodes has a -node-cert", "the peer does not speak TLS"},
		{"TLS to plain", plain, nodeFlags(member), "as one does that has no -node-cert", "the peer speaks TLS"},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := newNode(t, fmt.Sprintf("j%d", i), append(tt.flags, "-join", tt.to.raftAddr, "-join-interval", "100ms", "-join-attempts", "3")...)
			n.start()
			if code := n.wait(20 * time.Second); code != 1 {
				t.Errorf("exit code = %d; want 1", code)
			}
			if !mentions(n.log(), tt.joiner) {
				t.Errorf("the node does not say %q:\n%s", tt.joiner, n.log())
			}
			within(t, 5*time.Second, "the node that was asked says why", func() error {
				if !mentions(tt.to.log(), tt.asked) {
					return errors.New("no line has " + tt.asked)
				}
				return nil
			})
		})
	}
	if members, err := first.members(); err != nil || len(members) != 1 {
		t.Errorf("members are %v, %v; want one", members, err)
	}
	good := cluster{first.node}.join(t, "n2", nodeFlags(member)...)
	cluster{first.node, good}.equal()
	if text := first.log(); strings.Count(text, "connection of a peer refused") > 20 {
		t.Errorf("the log is flooded:\n%s", text)
	}
}

// TestTLSFiles expects a node to say which file is missing, before it does anything.
func TestTLSFiles(t *testing.T) {
	t.Parallel()
	missing := t.TempDir() + "/missing.pem"
	n := newNode(t, "n1", "-node-cert", missing, "-node-key", missing)
	n.start()
	if code := n.wait(20 * time.Second); code != 1 {
		t.Errorf("exit code = %d; want 1", code)
	}
	if want := "fatal: -node-cert: " + missing + " does not exist\nfatal: -node-key: "; !strings.Contains(n.log(), want) {
		t.Errorf("log is %q; want %q in it", n.log(), want)
	}
	if _, err := os.Stat(n.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the data directory was made: %v", err)
	}
}
