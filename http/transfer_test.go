package http

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"rqlited/command"
	"rqlited/store"
)

func TestBackup(t *testing.T) {
	binary, sql := "application/octet-stream", "application/sql"
	tests := []struct {
		query string
		want  command.BackupRequest
		ctype string
	}{
		{"", command.BackupRequest{Format: command.BackupBinary, Leader: true}, binary},
		{"?fmt=binary&noleader", command.BackupRequest{Format: command.BackupBinary}, binary},
		{"?fmt=unknown&vacuum", command.BackupRequest{Format: command.BackupBinary, Leader: true, Vacuum: true}, binary},
		{"?fmt=DELETE&tables=a", command.BackupRequest{Format: command.BackupDelete, Leader: true}, binary},
		{"?fmt=Sql", command.BackupRequest{Format: command.BackupSQL, Leader: true}, sql},
		{"?fmt=sql&tables=,", command.BackupRequest{Format: command.BackupSQL, Leader: true}, sql},
		{"?fmt=sql&tables=a,+b,,c+d+", command.BackupRequest{Format: command.BackupSQL, Leader: true, Tables: []string{"a", "b", "c d"}}, sql},
		{"?fmt=sql&compress", command.BackupRequest{Format: command.BackupSQL, Leader: true, Compress: true}, sql},
	}
	for _, tt := range tests {
		f := newFixture()
		f.db.backup = "the database"
		r := f.do(t, "GET", "/db/backup"+tt.query, "", "Authorization: "+basic("bob", "pw"))
		got := f.db.backups[0]
		if got.Format != tt.want.Format || got.Leader != tt.want.Leader || got.Vacuum != tt.want.Vacuum || got.Compress != tt.want.Compress || !slices.Equal(got.Tables, tt.want.Tables) {
			t.Errorf("%s asks for %+v; want %+v", tt.query, got, tt.want)
		}
		if f.db.fwd.Username != "bob" || f.db.fwd.Password != "pw" {
			t.Errorf("%s comes from %q, %q; want bob", tt.query, f.db.fwd.Username, f.db.fwd.Password)
		}
		h := r.Header
		if h.Get("Content-Type") != tt.ctype || h.Get("Content-Encoding") != "" || h.Get("X-Rqlite-Served-By") != "" {
			t.Errorf("%s: headers %v", tt.query, h)
		}
		if tt.want.Compress {
			z, err := gzip.NewReader(r.Body)
			if err != nil {
				t.Fatal(err)
			}
			r.Body = io.NopCloser(z)
		}
		check(t, r, 200, f.db.backup)
	}
}

func TestBackupErrors(t *testing.T) {
	tests := []struct {
		query string
		err   error
		code  int
		text  string
	}{
		{"?fmt=sql&vacuum", nil, 500, "invalid backup format\n"},
		{"?fmt=delete&vacuum", nil, 500, "invalid backup format\n"},
		{"", store.ErrNotOpen, 500, "store not open\n"},
		{"", store.ErrNoLeader, 503, "leader not found\n"},
		{"?redirect", store.ErrNoLeader, 301, ""},
		{"?redirect", store.ErrNotLeader, 301, ""},
		{"", &store.RequestError{Msg: "no such table: t"}, 500, "no such table: t\n"},
		{"?compress", store.ErrUnauthorized, 401, "remote backup not authorized\n"},
		{"", &store.OverloadError{Msg: "4 backups are under way"}, 503, "node is busy: 4 backups are under way\n"},
		{"", fmt.Errorf("%w: 7 bytes are needed", store.ErrNoSpace), 507, "store: not enough free space: 7 bytes are needed\n"},
	}
	for _, tt := range tests {
		f := newFixture()
		f.db.err, f.peers.api = tt.err, "http://leader:4001"
		r := f.do(t, "GET", "/db/backup"+tt.query, "")
		if got := r.Header.Get("Location"); tt.code == 301 && got != "http://leader:4001/db/backup"+tt.query {
			t.Errorf("%s is sent to %s", tt.query, got)
		}
		check(t, r, tt.code, tt.text)
	}
	f := newFixture()
	f.db.err = store.ErrNoLeader
	check(t, f.do(t, "GET", "/db/backup?redirect", ""), 500, "leader not found\n")
}

// TestBackupCut fails in the middle: the client must not take what it has for the whole, compressed or not, over either
// version of HTTP.
func TestBackupCut(t *testing.T) {
	for _, version := range []int{1, 2} {
		f := newFixture()
		f.db.backup, f.db.err = strings.Repeat("x", 3*flushAt), errors.New("disk I/O error")
		api := httptest.NewUnstartedServer(NewServer(f.cfg, &f.db, &f.node, &f.peers))
		api.EnableHTTP2 = version == 2
		api.StartTLS()
		for _, query := range []string{"", "?compress"} {
			r, err := api.Client().Get(api.URL + "/db/backup" + query)
			if err == nil {
				if r.ProtoMajor != version {
					t.Fatalf("HTTP/%d; want %d", r.ProtoMajor, version)
				}
				_, err = io.Copy(io.Discard, r.Body)
				r.Body.Close()
			}
			if err == nil {
				t.Errorf("HTTP/%d, %q: the answer looks whole", version, query)
			}
		}
		api.Close()
	}
}

// TestLastBackup shows the time of the last backup that went well.
func TestLastBackup(t *testing.T) {
	f := newFixture()
	s := NewServer(f.cfg, &f.db, &f.node, &f.peers)
	at := func() string {
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest("GET", "/status?key=last_backup_time", nil))
		return w.Body.String()
	}
	f.db.err = store.ErrNotOpen
	f.send(s, "GET", "/db/backup", "")
	if got := at(); got != "{}" {
		t.Errorf("before the first backup last_backup_time is %s", got)
	}
	f.db.err = nil
	f.send(s, "GET", "/db/backup", "")
	got, err := time.Parse(`"`+time.RFC3339Nano+`"`, at())
	if err != nil || time.Since(got) > time.Minute || time.Since(got) < 0 {
		t.Errorf("last_backup_time is %s, %v", at(), err)
	}
	if n := s.counters.stats()["backups"]; n != 2 {
		t.Errorf("backups = %d; want 2", n)
	}
}

const sqliteFile = "SQLite format 3\x00 and so on"

func TestLoad(t *testing.T) {
	wrote := answerOf(command.Result{Write: &command.Write{LastInsertID: 2, RowsAffected: 1}})
	tests := []struct {
		query, body string
		resp        *command.Response
		err         error
		code        int
		text        string
	}{
		{"", sqliteFile, nil, nil, 200, `{"results":[]}`},
		{"?pretty", sqliteFile, nil, nil, 200, "{\n    \"results\": []\n}"},
		{"", "", &command.Response{}, nil, 200, `{"results":[]}`},
		{"?raft_index&associative", "INSERT", wrote, nil, 200, `{"results":[{"last_insert_id":2,"rows_affected":1}]}`},
		{"", "SQLite form", answerOf(command.Result{Error: "near \"SQLite\": syntax error"}), nil, 200, `{"results":[{"error":"near \"SQLite\": syntax error"}]}`},
		{"", "SELECT '\xff'", nil, nil, 200, `{"results":[],"error":"string field contains invalid UTF-8"}`},
		{"", "PRAGMA x", nil, &store.RequestError{Msg: "disallowed pragma"}, 200, `{"results":[],"error":"disallowed pragma"}`},

		{"", "x", nil, store.ErrNotOpen, 200, `{"results":[],"error":"store not open"}`},
		{"", "x", nil, store.ErrNoLeader, 503, "leader not found\n"},
		{"?redirect", "x", nil, store.ErrNotLeader, 301, ""},
		{"", "x", nil, store.ErrUnauthorized, 401, "remote load not authorized\n"},
		{"", "x", nil, store.ErrLeadershipLost, 200, `{"results":[],"error":"leadership lost while committing log"}`},

		{"", sqliteFile, nil, store.ErrNotOpen, 500, "store not open\n"},
		{"", sqliteFile, nil, store.ErrNoLeader, 500, "store not ready\n"},
		{"?redirect", sqliteFile, nil, store.ErrNotLeader, 301, ""},
		{"", sqliteFile, nil, store.ErrUnauthorized, 401, "remote load not authorized\n"},
		{"", sqliteFile, nil, store.ErrLeadershipLost, 500, "leadership lost while committing log\n"},
		{"", sqliteFile, nil, store.ErrNotReady, 500, "store not ready\n"},
		{"", sqliteFile, nil, store.ErrInvalidData, 400, "invalid SQLite data\n"},
		{"", sqliteFile, nil, store.ErrNoSpace, 507, "store: not enough free space\n"},
	}
	for _, tt := range tests {
		f := newFixture()
		f.db.resp, f.db.err, f.db.servedBy, f.peers.api = tt.resp, tt.err, "leader:4002", "http://leader:4001"
		r := f.do(t, "POST", "/db/load"+tt.query, tt.body, "Authorization: "+basic("bob", "pw"))
		binary := tt.body == sqliteFile
		if got := r.Header.Get("X-Rqlite-Served-By"); binary && (got == "leader:4002") != (tt.code == 200) || !binary && got != "" && tt.err != nil {
			t.Errorf("%s %q: served by %q", tt.query, tt.body, got)
		}
		switch {
		case binary && (f.db.loaded != tt.body && !leaderUnknown(tt.err) || f.db.size != int64(len(tt.body)) || f.db.fwd.Password != "pw"):
			t.Errorf("%s: loaded %q of %d bytes as %+v", tt.query, f.db.loaded, f.db.size, f.db.fwd)
		case !binary && len(f.db.asked) == 1 && (f.db.asked[0].Forward.Password != "pw" || !f.db.asked[0].Forward.Load || !f.db.asked[0].RollbackOnError):
			t.Errorf("%s %q: asked %+v", tt.query, tt.body, f.db.asked[0])
		}
		if ctype := r.Header.Get("Content-Type"); tt.code == 200 && ctype != "" && ctype != textType {
			t.Errorf("%s %q: Content-Type %q", tt.query, tt.body, ctype)
		}
		check(t, r, tt.code, tt.text)
	}
	f := newFixture()
	f.node.leaderless, f.db.err = true, store.ErrNotLeader
	check(t, f.do(t, "POST", "/db/load?redirect", sqliteFile), 500, "store not ready\n")
	check(t, f.do(t, "POST", "/db/load?redirect", "x"), 500, "leader not found\n")
}

// TestLoadTimings measures a binary load, of which rqlite says that it took less than no time.
func TestLoadTimings(t *testing.T) {
	f := newFixture()
	body := text(t, f.do(t, "POST", "/db/load?timings", sqliteFile))
	var took float64
	if n, err := fmt.Sscanf(body, `{"results":[],"time":%g}`, &took); n != 1 || err != nil || took < 0 || took > 60 {
		t.Errorf("answer = %s, %v", body, err)
	}
	f.do(t, "POST", "/db/load?timings", "x")
	if !f.db.asked[0].Timings {
		t.Error("statements are not measured")
	}
}

// TestLoadBounds bounds SQL, of which all has to be in memory, and no SQLite file.
func TestLoadBounds(t *testing.T) {
	f := newFixture()
	f.cfg.Limits.Body = 100
	long := strings.Repeat("x", 101)
	check(t, f.do(t, "POST", "/db/load", long), 413, "request body is larger than 100 bytes\n")
	check(t, f.do(t, "POST", "/db/load", sqliteFile+long), 200, `{"results":[]}`)
	if f.db.loaded != sqliteFile+long {
		t.Errorf("loaded %d bytes", len(f.db.loaded))
	}
	r := httptest.NewRequest("POST", "/db/load", io.MultiReader(strings.NewReader(long))) // of unknown length
	w := httptest.NewRecorder()
	NewServer(f.cfg, &f.db, &f.node, &f.peers).ServeHTTP(w, r)
	check(t, w.Result(), 413, "request body is larger than 100 bytes\n")
}

func TestBoot(t *testing.T) {
	tests := []struct {
		err  error
		code int
		text string
	}{
		{nil, 200, ""},
		{io.EOF, 503, "EOF\n"},
		{store.ErrInvalidData, 400, "invalid SQLite data\n"},
		{store.ErrNotLeader, 503, "not leader\n"},
		{store.ErrNotSingle, 503, "not single-node\n"},
		{store.ErrNotOpen, 503, "store not open\n"},
		{store.ErrNoSpace, 507, "store: not enough free space\n"},
		{errors.New("disk I/O error"), 500, "disk I/O error\n"},
	}
	for _, tt := range tests {
		f := newFixture()
		f.node.boot = tt.err
		check(t, f.do(t, "POST", "/boot?redirect", sqliteFile), tt.code, tt.text)
		if f.node.booted != sqliteFile {
			t.Errorf("booted %q", f.node.booted)
		}
	}
	check(t, newFixture().do(t, "POST", "/boot/", sqliteFile), 404, "")
	check(t, newFixture().do(t, "GET", "/boot", ""), 405, "")
}

// TestUploadStalls has clients that stop in the middle of a file. Each is told so, and the database sees no end of it.
func TestUploadStalls(t *testing.T) {
	f := newFixture()
	f.cfg.Limits.Stall = 50 * time.Millisecond
	api := httptest.NewServer(NewServer(f.cfg, &f.db, &f.node, &f.peers))
	defer api.Close()
	for _, path := range []string{"/db/load", "/boot"} {
		for _, sent := range []string{"", "SQL", sqliteFile} {
			conn, err := net.Dial("tcp", api.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n%s", path, sent)
			answer, err := io.ReadAll(conn) // to the end of the connection
			if got := string(answer); err != nil || !strings.HasPrefix(got, "HTTP/1.1 408 ") || !strings.HasSuffix(got, "client stopped sending the request body for 50ms\n") {
				t.Errorf("%s after %q: %q, %v", path, sent, got, err)
			}
			conn.Close()
		}
	}
}

// slowDB takes its time before it reads, in the middle and at the end.
type slowDB struct {
	fakeDB
	wait time.Duration
}

func (d *slowDB) Load(ctx context.Context, r io.Reader, _ int64, _ command.Forward) (string, error) {
	pause := func() { <-time.After(d.wait) }
	pause()
	begin := make([]byte, 10)
	if _, err := io.ReadFull(r, begin); err != nil {
		return "", err
	}
	pause()
	rest, err := io.ReadAll(r)
	d.loaded = string(begin) + string(rest)
	pause()
	return "", errors.Join(err, ctx.Err())
}

// TestUploadWaits lets the database take longer than a client may: who waits for it is not cut off.
func TestUploadWaits(t *testing.T) {
	for _, version := range []int{1, 2} {
		f := newFixture()
		f.cfg.Limits.Stall = 50 * time.Millisecond
		db := &slowDB{wait: 3 * f.cfg.Limits.Stall}
		api := httptest.NewUnstartedServer(NewServer(f.cfg, db, &f.node, &f.peers))
		api.EnableHTTP2 = version == 2
		api.StartTLS()
		file := sqliteFile + strings.Repeat("x", 2*flushAt)
		r, err := api.Client().Post(api.URL+"/db/load", "", bytes.NewReader([]byte(file)))
		if err != nil {
			t.Fatalf("HTTP/%d: %v", version, err)
		}
		check(t, r, http.StatusOK, `{"results":[]}`)
		if db.loaded != file {
			t.Errorf("HTTP/%d: loaded %d bytes; want %d", version, len(db.loaded), len(file))
		}
		r.Body.Close()
		api.Close()
	}
}
