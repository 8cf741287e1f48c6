package system

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var flagLarge = flag.Int("large", 6, "size in MiB of the database that TestTransfer moves; six times that should be free in TMPDIR for each of five nodes")

// transferLimit bounds a request that carries a database.
func transferLimit() time.Duration { return time.Minute + time.Duration(*flagLarge)*time.Second }

// mostTransfer bounds the anonymous memory that a node needs beyond what it has when it is idle, however
// large the database is. The race detector takes a multiple of what is Go's.
func mostTransfer() int64 {
	if *flagRace {
		return 1 << 30
	}
	return 400 << 20
}

// send makes a request whose body and answer may be of any size, which the caller reads.
func (n *node) send(method, path string, body io.Reader, size int64) (*http.Response, error) {
	ctx, cancel := context.WithTimeout(context.Background(), transferLimit())
	n.t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, method, n.scheme+"://"+n.httpAddr+path, body)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.ContentLength = size
	}
	return n.client.Do(req)
}

// upload posts the file name and returns the answer. Its length is told or not.
func (n *node) upload(path, name string, tell bool) *answer {
	n.t.Helper()
	f, err := os.Open(name)
	if err != nil {
		n.t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		n.t.Fatal(err)
	}
	size := int64(-1)
	if tell {
		size = info.Size()
	}
	r, err := n.send(http.MethodPost, path, f, size)
	if err != nil {
		n.t.Fatalf("%s: POST %s: %v", n.id, path, err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	return &answer{status: r.StatusCode, header: r.Header, body: string(text)}
}

// mustUpload posts a file that has to be taken.
func (n *node) mustUpload(path, name string, tell bool) *answer {
	n.t.Helper()
	start := time.Now()
	a := n.upload(path, name, tell)
	if a.status != http.StatusOK || path == "/db/load" && a.body != `{"results":[]}` {
		n.t.Fatalf("%s: POST %s: %d %s", n.id, path, a.status, a.body)
	}
	n.t.Logf("%s: POST %s took %s", n.id, path, time.Since(start).Round(10*time.Millisecond))
	return a
}

// download writes /db/backup with these parameters to w.
func (n *node) download(query string, w io.Writer) {
	n.t.Helper()
	start := time.Now()
	r, err := n.send(http.MethodGet, "/db/backup"+query, nil, 0)
	if err != nil {
		n.t.Fatalf("%s: /db/backup%s: %v", n.id, query, err)
	}
	defer r.Body.Close()
	body := io.Reader(r.Body)
	if strings.Contains(query, "compress") && r.StatusCode == http.StatusOK {
		if body, err = gzip.NewReader(r.Body); err != nil {
			n.t.Fatalf("%s: /db/backup%s: %v", n.id, query, err)
		}
	}
	size, err := io.Copy(w, body)
	if err != nil || r.StatusCode != http.StatusOK {
		n.t.Fatalf("%s: /db/backup%s: %s, %v after %d bytes", n.id, query, r.Status, err, size)
	}
	n.t.Logf("%s: /db/backup%s, %d MiB, took %s", n.id, query, size>>20, time.Since(start).Round(10*time.Millisecond))
}

// save downloads into a file.
func (n *node) save(query string) (name string) {
	n.t.Helper()
	name = filepath.Join(filepath.Dir(n.dir), "backup")
	f, err := os.Create(name)
	if err != nil {
		n.t.Fatal(err)
	}
	n.download(query, f)
	if err := f.Close(); err != nil {
		n.t.Fatal(err)
	}
	return name
}

// dump returns a hash of all that is in the node's own database, as SQL.
func (n *node) dump() string {
	n.t.Helper()
	h := sha256.New()
	n.download("?fmt=sql&noleader", h)
	return hex.EncodeToString(h.Sum(nil))
}

// sameDump waits until the node has the log up to its end, and compares its database with what it should be.
func (n *node) sameDump(want, after string) {
	n.t.Helper()
	n.waitReady(transferLimit())
	if got := n.dump(); got != want {
		n.t.Errorf("%s: after %s the database is another", n.id, after)
	}
}

// tidy waits until the node has removed what transfers leave in its directory for a while.
func (n *node) tidy() {
	n.t.Helper()
	within(n.t, requestLimit, n.id+" has removed the files of transfers", func() error {
		for _, pattern := range []string{"db.sqlite.tmp-*", "db.sqlite.load*", "db.sqlite.restore"} {
			names, err := filepath.Glob(filepath.Join(n.dir, pattern))
			if err != nil || len(names) > 0 {
				return fmt.Errorf("%s, %w", names, errors.Join(err, errors.New("not yet")))
			}
		}
		return nil
	})
}

// fill makes a database of so many MiB, of text, numbers and bytes that don't compress.
func (n *node) fill(mib int) {
	n.t.Helper()
	n.execute("CREATE TABLE foo (id INTEGER PRIMARY KEY, name TEXT, v)", "CREATE INDEX names ON foo(name)")
	for done := 0; done < mib; done += 4 {
		n.execute(fmt.Sprintf("INSERT INTO foo(name, v) SELECT 'name ' || x, randomblob(1000) FROM (%s)", "SELECT x FROM "+count(min(4, mib-done)*950)))
	}
}

// memoryOf watches the anonymous memory of the nodes while f runs, and returns by how much the most of it was above
// what it was before.
func memoryOf(c cluster, f func()) (above int64) {
	now := func() (most []int64) {
		for _, n := range c {
			most = append(most, n.anonymous())
		}
		return most
	}
	before := now()
	end, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(pollEvery)
		defer tick.Stop()
		for {
			for i, m := range now() {
				above = max(above, m-before[i])
			}
			select {
			case <-end:
				return
			case <-tick.C:
			}
		}
	}()
	f()
	close(end)
	<-done
	return above
}

// anonymous returns the anonymous memory of the node's process, in bytes: mapped files are no part of it. It is 0 where
// the system does not tell.
func (n *node) anonymous() int64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.proc.cmd.Process.Pid))
	var kb int64
	for line := range strings.Lines(string(text)) {
		if _, err := fmt.Sscanf(line, "RssAnon: %d kB", &kb); err == nil {
			break
		}
	}
	return kb << 10
}

// TestTransfer moves a database, of 1 GiB in the long form, in all ways in and out, on one node and by a follower of
// three, and compares the dumps. No node may need memory for it.
func TestTransfer(t *testing.T) {
	if *flagLarge < 100 {
		t.Parallel()
	}
	source := startOne(t)
	source.fill(*flagLarge)
	want := source.dump()
	file := source.save("")
	source.stop()
	source.forgetAll() // it takes room

	t.Run("one", func(t *testing.T) { transferOne(t, file, want) })
	t.Run("three", func(t *testing.T) { transferThree(t, file, want) })
}

// measured calls f, and looks at what memory the nodes need for it.
func (c cluster) measured(what string, f func()) {
	t := c[0].t
	t.Helper()
	above := memoryOf(c, f)
	t.Logf("%s: at most %d MiB above idle", what, above>>20)
	if above > mostTransfer() {
		t.Errorf("%s: a node needs %d MiB more than when it is idle; want at most %d", what, above>>20, mostTransfer()>>20)
	}
}

func transferOne(t *testing.T, file, want string) {
	one := startOne(t)
	alone := cluster{one}
	alone.measured("boot", func() { one.mustUpload("/boot", file, false) })
	one.sameDump(want, "the boot")
	one.execute("DELETE FROM foo WHERE id < 100", "CREATE TABLE more (v)")
	alone.measured("load", func() { one.mustUpload("/db/load", file, true) })
	one.sameDump(want, "the load")
	for _, query := range []string{"", "?vacuum&compress"} {
		var back string
		alone.measured("backup"+query, func() { back = one.save(query) })
		one.execute("DELETE FROM foo WHERE id < 100")
		one.mustUpload("/boot", back, true)
		one.sameDump(want, "a boot with backup"+query)
	}
	one.tidy()
	one.stop()
	one.forgetAll()
}

func transferThree(t *testing.T, file, want string) {
	c := startCluster(t, 3)
	leader := c.leader()
	follower := c.without(leader)[0]
	follower.execute("CREATE TABLE foo (gone)")
	c.measured("load through a follower", func() {
		a := follower.mustUpload("/db/load", file, false)
		if got := a.header.Get("X-Rqlite-Served-By"); got != leader.raftAddr {
			t.Errorf("served by %q; want the leader, %s", got, leader.raftAddr)
		}
	})
	for _, n := range c {
		n.sameDump(want, "the load")
	}
	c.sameHash()
	c.measured("backup through a follower", func() { file = follower.save("?compress") })
	follower.mustUpload("/db/load", file, true)
	follower.sameDump(want, "a load of the backup")
	for _, n := range c {
		n.tidy()
	}
}

// TestTransferSurvives kills all nodes right after a load, and each of them in the middle of one.
func TestTransferSurvives(t *testing.T) {
	t.Parallel()
	source := startOne(t)
	source.fill(6)
	want, file := source.dump(), source.save("?fmt=delete")
	c := startCluster(t, 3)
	c[0].execute("CREATE TABLE old (v)")
	c.waitReady()
	before := c[0].dump()
	for _, killed := range []string{"leader", "follower"} {
		leader := c.leader()
		n := leader
		if killed == "follower" {
			n = c.without(leader)[0]
		}
		// Half of the file arrives, then the node dies: the load can't come to its end.
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		r, w := io.Pipe()
		end := make(chan error, 1)
		go func() {
			resp, err := c.without(leader)[0].send(http.MethodPost, "/db/load", r, -1)
			if err == nil {
				resp.Body.Close()
				if resp.StatusCode == http.StatusOK {
					err = nil
				} else {
					err = errors.New(resp.Status)
				}
			}
			r.CloseWithError(io.ErrClosedPipe)
			end <- err
		}()
		w.Write(data[:len(data)/2])
		n.kill()
		w.CloseWithError(errors.New("given up"))
		if err := <-end; err == nil {
			t.Errorf("a load whose %s died has gone well", killed)
		}
		n.start()
		c.waitReady()
		for _, n := range c {
			n.sameDump(before, "a load whose "+killed+" died")
			n.tidy()
		}
	}
	c[1].mustUpload("/db/load", file, true)
	for _, n := range c {
		n.kill()
	}
	c.start()
	c.waitReady()
	for _, n := range c {
		n.sameDump(want, "a crash behind the load")
	}
	c.sameHash()
}

// TestTransferErrors sends what cannot be loaded, in each way there is, and finds the database as it was.
func TestTransferErrors(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	leader := c.leader()
	follower := c.without(leader)[0]
	leader.execute("CREATE TABLE foo (id INTEGER PRIMARY KEY, name TEXT)", "CREATE INDEX names ON foo(name)",
		"INSERT INTO foo(name) SELECT 'name ' || x FROM "+count(1000))
	want := leader.dump()
	good, err := os.ReadFile(leader.save("?fmt=delete"))
	if err != nil {
		t.Fatal(err)
	}
	torn := bytes.Clone(good)
	copy(torn[len(torn)/2:], bytes.Repeat([]byte{0xff}, 5000))
	tests := []struct {
		name   string
		method string
		path   string
		body   string
		status int
		text   string
	}{
		{"torn", "POST", "/db/load", string(torn), 400, "invalid SQLite data\n"},
		{"half", "POST", "/db/load", string(good[:len(good)/2+100]), 400, "invalid SQLite data\n"},
		{"header only", "POST", "/db/load", string(good[:100]), 400, "invalid SQLite data\n"},
		{"no SQL", "POST", "/db/load", "SQLite", 200, `{"results":[{"error":"near \"SQLite\": syntax error"}]}`},
		{"compressed", "POST", "/db/load", "\x1f\x8b\x08", 200, `{"results":[],"error":"string field contains invalid UTF-8"}`},
		{"empty", "POST", "/db/load", "", 200, `{"results":[]}`},
		{"all or nothing", "POST", "/db/load", "BEGIN; DELETE FROM foo; INSERT INTO nope VALUES(1); COMMIT;", 200, `{"results":[{"error":"no such table: nope"}]}`},
		{"disallowed", "POST", "/db/load", "PRAGMA journal_mode=DELETE", 200, `{"results":[],"error":"disallowed pragma"}`},
		{"format", "GET", "/db/backup?fmt=sql&vacuum", "", 500, "invalid backup format\n"},
		{"boot of three", "POST", "/boot", string(good), 503, ""},
		{"no table", "GET", "/db/backup?fmt=sql&tables=nope", "", 200, "PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\n"},
	}
	for _, tt := range tests {
		for _, n := range []*node{leader, follower} {
			a, err := n.do(requestLimit, tt.method, tt.path, "", tt.body)
			if err != nil {
				t.Errorf("%s at %s: %v", tt.name, n.id, err)
				continue
			}
			text := tt.text
			if tt.path == "/boot" {
				text = "not leader\n"
				if n == leader {
					text = "not single-node\n"
				}
			}
			if a.status != tt.status || !strings.HasPrefix(a.body, text) {
				t.Errorf("%s at %s: %d %.200q; want %d %q", tt.name, n.id, a.status, a.body, tt.status, text)
			}
		}
	}
	for _, n := range []*node{leader, follower} {
		if a, err := n.do(requestLimit, "POST", "/db/load?redirect&x", "", string(good)); err != nil || n == follower && (a.status != 301 ||
			a.header.Get("Location") != "http://"+leader.httpAddr+"/db/load?redirect&x") || n == leader && a.status != 200 {
			t.Errorf("redirect at %s: %+v, %v", n.id, a, err)
		}
	}
	for _, n := range c {
		n.sameDump(want, "all of that")
		n.tidy()
	}
	c.sameHash()
}

// TestTransferCut leaves in the middle of transfers that go through a follower, and lets a leader freeze and die in them.
func TestTransferCut(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	leader := c.leader()
	follower := c.without(leader)[0]
	leader.fill(40) // more than what the network holds
	want, file := leader.dump(), leader.save("")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []*node{leader, follower} {
		conn, err := net.Dial("tcp", n.httpAddr)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "POST /db/load HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", len(data))
		conn.Write(data[:len(data)-1])
		conn.Close()
		r, err := n.send(http.MethodGet, "/db/backup", nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		io.CopyN(io.Discard, r.Body, 1<<20)
		r.Body.Close()
	}
	for _, n := range c {
		n.tidy() // nobody works for those who have left
	}
	follower.client = &http.Client{Transport: &http.Transport{DialContext: dialNarrow}}
	rest := func(r *http.Response, why string) {
		t.Helper()
		defer r.Body.Close()
		if n, err := io.Copy(io.Discard, r.Body); err == nil {
			t.Errorf("a backup whose leader %s looks whole after %d MiB", why, n>>20+1)
		}
	}
	begun := func(query string) *http.Response {
		t.Helper()
		r, err := follower.send(http.MethodGet, "/db/backup"+query, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		io.CopyN(io.Discard, r.Body, 1<<20)
		return r
	}
	r := begun("?timeout=2s")
	leader.pause()
	rest(r, "is frozen")
	leader.resume()
	c.waitReady()
	leader = c.leader()
	if follower == leader {
		follower = c.without(leader)[0]
		follower.client = &http.Client{Transport: &http.Transport{DialContext: dialNarrow}}
	}
	r = begun("")
	leader.kill()
	rest(r, "has died")
	leader.start()
	c.waitReady()
	for _, n := range c {
		n.sameDump(want, "all that was cut")
	}
	c.sameHash()
}

// dialNarrow opens a connection that holds little of what is not read yet.
func dialNarrow(ctx context.Context, network, addr string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, addr)
	if err == nil {
		err = conn.(*net.TCPConn).SetReadBuffer(64 << 10)
	}
	return conn, err
}

// TestTransferUsers lets those in who may, here and at the leader, and nobody else; a refusal does not keep others from being
// forwarded.
func TestTransferUsers(t *testing.T) {
	t.Parallel()
	users := credentials(`{"username": "saver", "password": "s", "perms": ["backup"]}`, `{"username": "loader", "password": "l", "perms": ["load"]}`)
	all := credentials(`{"username": "eve", "password": "e", "perms": ["all"]}`)
	c := newCluster(t, 3)
	for _, n := range c {
		n.flags = append(n.flags, "-auth", n.usersFile(), "-join-as", "joiner")
		n.writeUsers(users)
		n.logIn("root", "secret")
	}
	c.start()
	c.waitReady()
	leader := c.leader()
	follower := c.without(leader)[0]
	leader.execute("CREATE TABLE foo (v)", "INSERT INTO foo VALUES('secret of the database')")
	file, err := os.ReadFile(leader.save(""))
	if err != nil {
		t.Fatal(err)
	}
	var dump bytes.Buffer
	leader.download("?fmt=sql", &dump)
	tests := []struct {
		user, password string
		save, load     bool
	}{{"", "", false, false}, {"saver", "s", true, false}, {"saver", "x", false, false}, {"loader", "l", false, true}, {"reader", "r", false, false}}
	for _, tt := range tests {
		for _, n := range []*node{leader, follower} {
			n.logIn(tt.user, tt.password)
			expect := func(method, path, body string, may bool) {
				t.Helper()
				a, err := n.do(requestLimit, method, path, "", body)
				if err != nil || (a.status == 200) != may || !may && (a.status != 401 || a.body != "") {
					t.Errorf("%s %s at %s as %q: %+v, %v; permitted: %t", method, path, n.id, tt.user, a, err, may)
				}
			}
			expect("GET", "/db/backup", "", tt.save)
			expect("GET", "/db/backup?fmt=sql&compress&noleader", "", tt.save)
			expect("POST", "/db/load", string(file), tt.load)
			expect("POST", "/db/load", "SQLite", tt.load)
		}
	}
	// Whom the leader does not know it refuses, and tells nothing.
	follower.writeUsers(all)
	follower.logIn("eve", "e")
	within(t, requestLimit, "the follower knows eve", func() error {
		a, err := follower.do(requestLimit, "GET", "/status", "", "")
		if err == nil && a.status != 200 {
			err = errors.New("not yet")
		}
		return err
	})
	for range 3 {
		for _, tt := range []struct{ method, path, body, act string }{
			{"GET", "/db/backup", "", "backup"}, {"GET", "/db/backup?compress", "", "backup"}, {"POST", "/db/load", string(file), "load"}, {"POST", "/db/load", dump.String(), "load"},
		} {
			a, err := follower.do(requestLimit, tt.method, tt.path, "", tt.body)
			if err != nil || a.status != 401 || a.body != "remote "+tt.act+" not authorized\n" {
				t.Errorf("%s %s by way of a follower that permits it: %+v, %v", tt.method, tt.path, a, err)
			}
		}
	}
	follower.writeUsers(users)
	follower.logIn("root", "secret")
	within(t, requestLimit, "the follower knows root", func() error {
		_, err := follower.tryQuery("weak", "SELECT * FROM foo")
		return err
	})
	follower.download("", io.Discard)
}
