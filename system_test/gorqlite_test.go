package system

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/rqlite/gorqlite"
)

// TestGorqlite uses the cluster through rqlite's own Go client, which learns from one address who
// the others are and goes on with them when the leader is gone.
func TestGorqlite(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	leader := c.leader()
	follower := c.without(leader)[0]
	conn, err := gorqlite.Open("http://" + follower.httpAddr + "/?level=strong&timeout=5")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got, err := conn.Leader(); err != nil || got != leader.httpAddr {
		t.Errorf("Leader() = %q, %v; want %q", got, err, leader.httpAddr)
	}
	var want []string
	for _, n := range c {
		want = append(want, n.httpAddr)
	}
	slices.Sort(want)
	peers, err := conn.Peers()
	slices.Sort(peers)
	if err != nil || !slices.Equal(peers, want) {
		t.Errorf("Peers() = %v, %v; want %v", peers, err, want)
	}

	gorqliteTypes(t, conn)

	leader.kill()
	written := 0
	within(t, formLimit, "gorqlite writes after the leader's end", func() error {
		written++ // a failed attempt may have been applied
		wr, err := conn.WriteOneParameterized(gorqlite.ParameterizedStatement{
			Query: "INSERT INTO later(attempt) VALUES (?)", Arguments: []any{written},
		})
		if err == nil && wr.RowsAffected != 1 { // the client does not look at an error of the whole request
			err = fmt.Errorf("answered with %d rows", wr.RowsAffected)
		}
		return err
	})
	qr, err := conn.QueryOne(fmt.Sprintf("SELECT count(*) FROM later WHERE attempt = %d", written)) // by the same way
	if err != nil || !qr.Next() {
		t.Fatalf("query after the leader's end: %v", err)
	}
	var count int64
	if err := qr.Scan(&count); err != nil || count != 1 {
		t.Errorf("the acknowledged row is there %d times, %v; want once", count, err)
	}
	leader.start()
	c.equal()
}

// gorqliteTypes writes and reads one row of each type the client knows.
func gorqliteTypes(t *testing.T, conn *gorqlite.Connection) {
	t.Helper()
	results, err := conn.Write([]string{
		"CREATE TABLE kinds (id INTEGER NOT NULL PRIMARY KEY, name TEXT, size REAL, at DATETIME, data BLOB, missing TEXT)",
		"CREATE TABLE later (attempt INTEGER)",
	})
	if err != nil {
		t.Fatalf("create: %v %+v", err, results)
	}
	at := time.Date(2024, 2, 29, 12, 30, 45, 0, time.UTC)
	wr, err := conn.WriteOneParameterized(gorqlite.ParameterizedStatement{
		Query:     "INSERT INTO kinds(name, size, at, data) VALUES (?, ?, ?, x'0001ff')",
		Arguments: []any{"it's ÅSA", 2.5, at.Format(time.RFC3339)},
	})
	if err != nil || wr.LastInsertID != 1 || wr.RowsAffected != 1 {
		t.Fatalf("insert = %+v, %v; want id 1, 1 row", wr, err)
	}
	qr, err := conn.QueryOneParameterized(gorqlite.ParameterizedStatement{
		Query: "SELECT id, name, size, at, missing FROM kinds WHERE name = ?", Arguments: []any{"it's ÅSA"},
	})
	if err != nil || !qr.Next() {
		t.Fatalf("query: %v, %d rows", err, qr.NumRows())
	}
	var (
		id      int64
		name    string
		size    float64
		got     time.Time
		missing gorqlite.NullString
	)
	if err := qr.Scan(&id, &name, &size, &got, &missing); err != nil {
		t.Fatal(err)
	}
	if id != 1 || name != "it's ÅSA" || size != 2.5 || !got.Equal(at) || missing.Valid {
		t.Errorf("row = %d, %q, %g, %s, %+v", id, name, size, got, missing)
	}
	if types := qr.Types(); !slices.Equal(types, []string{"integer", "text", "real", "datetime", "text"}) {
		t.Errorf("types = %v", types)
	}
	if _, err := conn.WriteOne("INSERT INTO nowhere VALUES (1)"); err == nil {
		t.Error("a write into no table succeeded")
	}
	rr, err := conn.Request([]string{"INSERT INTO later(attempt) VALUES (-2)", "SELECT count(*) FROM later"})
	if err != nil || len(rr) != 2 || rr[0].Write == nil || rr[1].Query == nil {
		t.Errorf("request = %+v, %v; want a write and a query", rr, err)
	}
}
