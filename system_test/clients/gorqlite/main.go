package main

import (
	"bufio"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"reflect"
	"strings"
	"sync/atomic"
	"time"

	"github.com/rqlite/gorqlite"
	_ "github.com/rqlite/gorqlite/stdlib"
)

func main() {
	if err := run(os.Args[1], bufio.NewReader(os.Stdin)); err != nil {
		fmt.Fprintln(os.Stderr, "gorqlite:", err)
		os.Exit(1)
	}
}

func run(addr string, in *bufio.Reader) error {
	tell := &teller{}
	tell.on.Store(true)
	conn, err := gorqlite.OpenWithClient("http://"+addr+"/?level=weak", &http.Client{Transport: tell, Timeout: 20 * time.Second})
	if err != nil {
		return err
	}
	defer conn.Close()
	for _, use := range []func(*gorqlite.Connection) error{discover, write, types, transaction, unified, levels, queued} {
		if err := use(conn); err != nil {
			return err
		}
	}
	tell.on.Store(false)
	if err := standard(addr); err != nil {
		return fmt.Errorf("database/sql: %w", err)
	}
	return failover(conn, in)
}

// teller prints the requests that pass through it.
type teller struct{ on atomic.Bool }

func (t *teller) RoundTrip(r *http.Request) (*http.Response, error) {
	if t.on.Load() {
		var body []byte
		if r.GetBody != nil {
			b, err := r.GetBody()
			if err != nil {
				return nil, err
			}
			if body, err = io.ReadAll(b); err != nil {
				return nil, err
			}
		}
		fmt.Printf("request %s %s %s\n", r.Method, strings.TrimPrefix(r.URL.String(), "http://"), body)
	}
	return http.DefaultTransport.RoundTrip(r)
}

func discover(conn *gorqlite.Connection) error {
	leader, err := conn.Leader()
	if err != nil || leader == "" {
		return fmt.Errorf("Leader() = %q, %w", leader, err)
	}
	peers, err := conn.Peers()
	if err != nil || len(peers) != 3 || peers[0] != leader {
		return fmt.Errorf("Peers() = %v, %w; want three, and %s first", peers, err, leader)
	}
	return nil
}

func write(conn *gorqlite.Connection) error {
	results, err := conn.Write([]string{
		"CREATE TABLE kinds (id INTEGER NOT NULL PRIMARY KEY, i INTEGER, r REAL, t TEXT, yes BOOL, b BLOB, at DATETIME, missing TEXT)",
		"CREATE TABLE acked (id INTEGER NOT NULL PRIMARY KEY)",
	})
	if err != nil || len(results) != 2 {
		return fmt.Errorf("Write() = %v, %w", results, err)
	}
	if _, err := conn.WriteOne("INSERT INTO nowhere VALUES (1)"); err == nil || !strings.Contains(err.Error(), "no such table: nowhere") {
		return fmt.Errorf("writing into no table: %v", err)
	}
	return nil
}

// types writes and reads a value of each type.
func types(conn *gorqlite.Connection) error {
	at := time.Date(2024, 2, 29, 12, 30, 45, 0, time.UTC)
	wr, err := conn.WriteOneParameterized(gorqlite.ParameterizedStatement{
		Query:     "INSERT INTO kinds(i, r, t, yes, b, at, missing) VALUES (?, ?, ?, ?, ?, ?, ?)",
		Arguments: []any{int64(9007199254740991), 2.5, "it's \"ÅSA\" <&>", true, "x'0001ff'", at, nil},
	})
	if err != nil || wr.LastInsertID != 1 || wr.RowsAffected != 1 {
		return fmt.Errorf("WriteOneParameterized() = %+v, %w", wr, err)
	}
	qr, err := conn.QueryOneParameterized(gorqlite.ParameterizedStatement{
		Query: "SELECT i, r, t, yes, b, at, missing FROM kinds WHERE id = ?", Arguments: []any{1},
	})
	if err != nil || qr.NumRows() != 1 || !qr.Next() {
		return fmt.Errorf("QueryOneParameterized() = %+v, %w", qr, err)
	}
	var (
		i       int64
		r       float64
		text    string
		yes     bool
		b       string
		got     time.Time
		nothing gorqlite.NullString
	)
	if err := qr.Scan(&i, &r, &text, &yes, &b, &got, &nothing); err != nil {
		return err
	}
	if i != 9007199254740991 || r != 2.5 || text != "it's \"ÅSA\" <&>" || !yes || b != "AAH/" || !got.Equal(at) || nothing.Valid {
		return fmt.Errorf("row is %v, %v, %q, %v, %q, %v, %v", i, r, text, yes, b, got, nothing)
	}
	if want := []string{"integer", "real", "text", "bool", "blob", "datetime", "text"}; !reflect.DeepEqual(qr.Types(), want) {
		return fmt.Errorf("Types() = %q", qr.Types())
	}
	none, err := conn.QueryOne("SELECT id FROM kinds WHERE id = 99")
	if err != nil || none.NumRows() != 0 || none.Next() {
		return fmt.Errorf("QueryOne() of nothing = %+v, %w", none, err)
	}
	return nil
}

// transaction undoes what came before an error.
func transaction(conn *gorqlite.Connection) error {
	if err := conn.SetExecutionWithTransaction(true); err != nil {
		return err
	}
	if _, err := conn.Write([]string{"INSERT INTO acked VALUES (1)", "INSERT INTO acked VALUES (1)"}); err == nil {
		return errors.New("a transaction with an error in it succeeded")
	}
	if _, err := conn.Write([]string{"INSERT INTO acked VALUES (2)", "INSERT INTO acked VALUES (3)"}); err != nil {
		return err
	}
	return expect(conn, "SELECT group_concat(id) FROM acked", "2,3")
}

func unified(conn *gorqlite.Connection) error {
	rr, err := conn.RequestParameterized([]gorqlite.ParameterizedStatement{
		{Query: "INSERT INTO acked VALUES (?)", Arguments: []any{4}},
		{Query: "SELECT count(*) FROM acked"},
	})
	if err != nil || len(rr) != 2 || rr[0].Write == nil || rr[1].Query == nil || rr[0].Write.RowsAffected != 1 {
		return fmt.Errorf("RequestParameterized() = %+v, %w", rr, err)
	}
	return nil
}

func levels(conn *gorqlite.Connection) error {
	for _, name := range []string{"none", "weak", "linearizable", "strong"} {
		level, err := gorqlite.ParseConsistencyLevel(name)
		if err != nil {
			return err
		}
		if err := conn.SetConsistencyLevel(level); err != nil {
			return err
		}
		if err := expect(conn, "SELECT max(id) FROM acked", "4"); err != nil {
			return fmt.Errorf("level %s: %w", name, err)
		}
	}
	return conn.SetConsistencyLevel(gorqlite.ConsistencyLevelWeak)
}

func queued(conn *gorqlite.Connection) error {
	first, err := conn.QueueOne("INSERT INTO acked VALUES (5)")
	if err != nil {
		return err
	}
	second, err := conn.QueueParameterized([]gorqlite.ParameterizedStatement{{Query: "INSERT INTO acked VALUES (?)", Arguments: []any{6}}})
	if err != nil || second <= first {
		return fmt.Errorf("sequence numbers %d, %d, %w", first, second, err)
	}
	return nil
}

// standard uses the driver for database/sql.
func standard(addr string) error {
	db, err := sql.Open("rqlite", "http://"+addr)
	if err != nil {
		return err
	}
	defer db.Close()
	if _, err := db.Exec("INSERT INTO acked VALUES (?)", 7); err != nil {
		return err
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		var n int
		if err := db.QueryRow("SELECT count(*) FROM acked WHERE id > ?", 4).Scan(&n); err != nil {
			return err
		}
		if n == 3 {
			return nil // the queued writes are there, too
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d of the rows 5 to 7 are there", n)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// failover writes rows before, while and after the leader is killed, each with a key of its own.
func failover(conn *gorqlite.Connection, in *bufio.Reader) error {
	var killed atomic.Bool
	lost := make(chan error, 1)
	go func() {
		line, err := in.ReadString('\n')
		if err == nil && line != "killed\n" {
			err = fmt.Errorf("told %q", line)
		}
		killed.Store(err == nil)
		lost <- err
	}()
	before, after := 0, 0
	deadline := time.Now().Add(90 * time.Second)
	for key := 1000; after < 200; key++ {
		select {
		case err := <-lost:
			if err != nil {
				return err
			}
		default:
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("only %d rows after the leader was killed", after)
		}
		since := killed.Load()
		wr, err := conn.WriteOneParameterized(gorqlite.ParameterizedStatement{Query: "INSERT INTO acked VALUES (?)", Arguments: []any{key}})
		if err != nil || wr.RowsAffected != 1 {
			time.Sleep(20 * time.Millisecond)
			continue // it may be there or not
		}
		fmt.Println("acknowledged", key)
		if before++; before == 100 {
			fmt.Println("kill")
		}
		if since {
			after++
		}
	}
	return nil
}

func expect(conn *gorqlite.Connection, query, want string) error {
	qr, err := conn.QueryOne(query)
	if err != nil || !qr.Next() {
		return fmt.Errorf("%s: %w", query, err)
	}
	row, err := qr.Slice()
	if err != nil || fmt.Sprint(row[0]) != want {
		return fmt.Errorf("%s = %v, %w; want %s", query, row, err, want)
	}
	return nil
}
