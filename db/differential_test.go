package db

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rqlite/go-sqlite3"

	"rqlited/command"
)

// TestDifferentialPrograms applies random programs to a database, and runs the same statements on plain
// SQLite through database/sql's driver, with the time and the random numbers of the entries. Results and content
// must agree.
//
// What differs on purpose is written down in the model of an entry, type reference:
//   - An entry begins and ends with a connection of its own: so begin changes(), total_changes() and
//     last_insert_rowid() at 0, and settings and temporary objects end with the entry.
//   - PRAGMA optimize is not run, and reports that. (Other refused statements are not among the entries, see entryWriter.)
//   - A transaction left open is rolled back, and its statements report that.
//   - A transaction of the request is rolled back at the first error, and not if a statement of a Unified request
//     can't be prepared.
//   - An entry begins with the settings of all virtual tables read.
//   - A statement that gives a row the largest rowid is taken back with its transaction, and reports that.
//   - A write that asks what belongs to a node is not run, and reports that.
//   - The last statement of a text that is run for rows is run even if a comment follows its semicolon, if it writes.
//     (The driver runs what comes last.)
//   - Counters in results carry over from earlier entries as long as an entry has none of its own.
func TestDifferentialPrograms(t *testing.T) {
	t.Parallel()
	programSeeds(t, []uint64{3, 1795458596756998846, 1795458944135911537}, func(t *testing.T, seed uint64) {
		for _, every := range []int{10, 1} {
			fault := differential(t, seed, 150, every)
			if fault == "" {
				return
			}
			t.Errorf("content compared after every %d entries: %s", every, fault)
		}
	})
}

// differential returns where a database differs first from plain SQLite.
func differential(t *testing.T, seed uint64, entries, every int) string {
	foreignKeys := seed%2 == 0
	d := open(t, testPath(t), Config{ForeignKeys: foreignKeys})
	w := newEntryWriter(seed, d, foreignKeys)
	p := newReference(t)
	for n := range entries {
		pe := w.next(t)
		e := pe.entry(t)
		want, clock, err := p.apply(e)
		if errors.Is(err, errManyStatements) {
			t.Logf("the program ends with entry %d: %v", n, err)
			return ""
		}
		if _, err := d.Prepare(e.Request); err != nil { // says which statements have a RETURNING clause
			t.Fatal(err)
		}
		resp := apply(t, d, e)
		if at := e.Time.UTC().Format("2006-01-02 15:04:05.000"); clock != at {
			return fmt.Sprintf("entry %d of %s was applied at %s", n, at, clock)
		}
		if diff := differentResults(n, resultsText(resp), want, pe.batch); diff != "" {
			return diff
		}
		if n%every == every-1 || n == entries-1 {
			if diff := difference(state(t, ask(t, d)), state(t, p.ask)); diff != "" {
				return fmt.Sprintf("after entry %d the content differs:\n%s\nof %s", n, diff, describe(pe.batch))
			}
		}
	}
	if got, want := checks(t, askAnew(t, d)), checks(t, p.ask); got != want {
		return fmt.Sprintf("the checks say %s, want %s", got, want)
	}
	return ""
}

// resultsText writes a response with all that two ways of running it can agree on. Blobs and texts are
// not told apart, since declared types decide which of them is shown; points in time of a column declared so are
// not compared, as the driver's multiplication to nanoseconds overflows.
func resultsText(resp *command.Response) string {
	var out strings.Builder
	for _, r := range resp.Results {
		if r.Write != nil {
			fmt.Fprintf(&out, "id %d, %d changes; ", r.Write.LastInsertID, r.Write.RowsAffected)
		}
		if r.Rows != nil {
			fmt.Fprintf(&out, "%q ", r.Rows.Columns)
			for _, row := range r.Rows.Values {
				for i, v := range row {
					if b, ok := v.([]byte); ok {
						v = string(b)
					}
					if kindOf(r.Rows.Types[i]) == date && v != nil {
						v = "a point in time, or a number"
					}
					fmt.Fprintf(&out, "%#v ", v)
				}
				out.WriteByte('|')
			}
		}
		msg := r.Error
		if strings.HasPrefix(msg, "unrecognized token") { // it goes to the end of the text, which the driver cuts
			msg = strings.TrimRight(msg, "\" ")
		}
		fmt.Fprintf(&out, "error %q\n", msg)
	}
	fmt.Fprintf(&out, "error %q\n", resp.Error)
	return out.String()
}

// reference is a SQLite file and the model of what an entry does to it.
type reference struct {
	t     *testing.T
	path  string
	vfs   string
	clock *conn // sets the time of the VFS
	rng   uint64

	carried command.Write // counters of the last entry
	conn    *sqlite3.SQLiteConn
	resp    *command.Response
	opened  int  // the result of the statement that opened the transaction; -1: none
	counted bool // a statement of the entry has set sqlite3_changes

	largest []string          // tables in which the statement has given a row the largest rowid
	refused map[int]takenBack // statements of the entry, by their number, that do that
}

// takenBack is what becomes of a statement that gives a row the largest rowid.
type takenBack struct {
	msg string
	rng uint64 // the numbers that it has drawn stay drawn
}

func newReference(t *testing.T) *reference {
	path := filepath.Join(t.TempDir(), "plain.sqlite")
	v, err := newShim(path, reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := newSums(0)
	if err != nil {
		t.Fatal(err)
	}
	v.use(s)
	clock, err := openConn(":memory:", openReadWrite|openCreate, writer, v, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := clock.close(); err != nil {
			t.Error(err)
		}
		v.free()
	})
	return &reference{t: t, path: path, vfs: fmt.Sprintf("rqlited-%p", v.v), clock: clock}
}

// ask reads the file.
func (p *reference) ask(sql string) command.Result {
	p.open(false)
	defer p.close()
	rows, err := p.query(sql, nil)
	if err != nil {
		return command.Result{Rows: &command.Rows{}, Error: err.Error()}
	}
	return command.Result{Rows: rows}
}

func (p *reference) open(foreignKeys bool) {
	c, err := (&sqlite3.SQLiteDriver{}).Open("file:" + p.path + "?vfs=" + p.vfs)
	if err != nil {
		p.t.Fatal(err)
	}
	p.conn = c.(*sqlite3.SQLiteConn)
	p.conn.RegisterUpdateHook(func(op int, _, table string, rowid int64) {
		if rowid == math.MaxInt64 && op != sqlite3.SQLITE_DELETE {
			p.largest = append(p.largest, table)
		}
	})
	err = errors.Join(p.conn.RegisterFunc("random", p.random, false), p.conn.RegisterFunc("randomblob", p.randomBlob, false))
	if err != nil {
		p.t.Fatal(err)
	}
	p.must("PRAGMA synchronous=OFF; PRAGMA journal_mode=MEMORY")
	if foreignKeys {
		p.must("PRAGMA foreign_keys=ON")
	}
	rows, err := p.query(virtualTables, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	for _, row := range rows.Values {
		_, _ = p.query(fmt.Sprintf(oneRow, quote(fmt.Sprintf("%s", row[0]), `"`)), nil) // one that does not work says so to whoever uses it
	}
}

func (p *reference) close() {
	if err := p.conn.Close(); err != nil {
		p.t.Fatal(err)
	}
}

func (p *reference) must(sql string) {
	if _, err := p.conn.Exec(sql, nil); err != nil {
		p.t.Fatalf("%s: %v", sql, err)
	}
}

// draw is splitmix64.
func (p *reference) draw() uint64 {
	p.rng += 0x9e3779b97f4a7c15
	z := p.rng
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

func (p *reference) random() int64 {
	r := int64(p.draw())
	if r < 0 {
		r = -(r & math.MaxInt64)
	}
	return r
}

func (p *reference) randomBlob(v any) ([]byte, error) {
	n, _ := v.(int64)
	n = max(n, 1)
	if n > 1_000_000_000 {
		return nil, errors.New("string or blob too big")
	}
	b := make([]byte, 0, n+8)
	for int64(len(b)) < n {
		r := p.draw()
		for range 8 {
			b, r = append(b, byte(r)), r>>8
		}
	}
	return b[:n], nil
}

// errManyStatements means that one of several statements in a text has given a row the largest rowid, of which
// the model can't tell what the others have done.
var errManyStatements = errors.New("largest rowid in a text of several statements")

// apply runs an entry, and returns its results and what time it was. If a statement turns out to give a row
// the largest rowid, the entry is run again from its start without that statement.
func (p *reference) apply(e *command.Entry) (results, clock string, err error) {
	before, err := os.ReadFile(p.path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		p.t.Fatal(err)
	}
	carried := p.carried
	for p.refused = map[int]takenBack{}; ; {
		known := len(p.refused)
		results, clock, err = p.applyOnce(e)
		if err != nil || len(p.refused) == known {
			return results, clock, err
		}
		p.carried = carried
		if err := os.WriteFile(p.path, before, 0o600); err != nil {
			p.t.Fatal(err)
		}
	}
}

func (p *reference) applyOnce(e *command.Entry) (results, clock string, err error) {
	p.clock.beginEntry(e.Time.UnixMilli()+julianEpoch, e.Seed)
	defer p.clock.endEntry()
	p.rng = e.Seed
	p.open(e.ForeignKeys == command.On)
	defer p.close()
	p.resp, p.opened, p.counted = &command.Response{Results: []command.Result{}}, -1, false
	if e.Request.Transaction {
		p.must("BEGIN")
	}
	if err := p.statements(e.Request); err != nil {
		return "", "", err
	}
	p.carried = p.counters(&sqlite3.SQLiteResult{})
	rows, err := p.query("SELECT strftime('%Y-%m-%d %H:%M:%f', 'now')", nil)
	if err != nil {
		p.t.Fatal(err)
	}
	return resultsText(p.resp), rows.Values[0][0].(string), nil
}

// statements runs all statements, up to one that is found to give a row the largest rowid.
func (p *reference) statements(req *command.Request) error {
	for n, st := range req.Statements {
		if st.SQL == "" {
			continue
		}
		idle := p.conn.AutoCommit()
		var res command.Result
		var stops bool
		counted := p.counted
		if back, ok := p.refused[n]; ok {
			res, stops = p.takeBack(st, back), true
		} else {
			p.largest = nil
			res, stops = p.statement(req.Kind, st)
			if strings.HasPrefix(res.Error, "not enough args") {
				p.counted = counted // it was not run
			}
			if table := p.overfull(); table != "" {
				if scanSQL(st.SQL).statements > 1 {
					return errManyStatements
				}
				p.refused[n] = takenBack{fmt.Sprintf(msgRowid, table), p.rng}
				return nil
			}
		}
		p.resp.Results = append(p.resp.Results, res)
		if p.conn.AutoCommit() != idle {
			if p.opened = -1; idle {
				p.opened = len(p.resp.Results) - 1
			}
		}
		if stops && req.Transaction {
			if !p.conn.AutoCommit() {
				p.must("ROLLBACK")
			}
			return nil
		}
	}
	if req.Transaction {
		if _, err := p.conn.Exec("COMMIT", nil); err != nil {
			p.resp.Results, p.resp.Error = nil, err.Error()
		}
	} else if !p.conn.AutoCommit() {
		p.undo(msgOpen)
	}
	if !p.conn.AutoCommit() {
		p.must("ROLLBACK")
	}
	return nil
}

// undo says of the results since a transaction was opened that nothing of them is left.
func (p *reference) undo(msg string) {
	for i := p.opened; i < len(p.resp.Results); i++ {
		if r := &p.resp.Results[i]; r.Error == "" {
			r.Write, r.Error = nil, msg
			if r.Rows != nil {
				r.Rows = &command.Rows{}
			}
		}
	}
}

// overfull names the first table without AUTOINCREMENT in which the last statement has given a row the largest rowid.
func (p *reference) overfull() string {
	for _, table := range p.largest {
		rows, err := p.query("SELECT sql FROM (SELECT name, sql FROM temp.sqlite_schema UNION ALL SELECT name, sql FROM main.sqlite_schema) WHERE name="+quote(table, "'"), nil)
		if err != nil {
			p.t.Fatal(err)
		}
		if len(rows.Values) == 0 || rows.Values[0][0] == nil || !hasKeyword(fmt.Sprintf("%s", rows.Values[0][0]), "AUTOINCREMENT") {
			return table
		}
	}
	return ""
}

// zeroChanges does to changes() what a failing statement does.
func (p *reference) zeroChanges() {
	p.must("PRAGMA writable_schema=ON; DELETE FROM sqlite_schema WHERE 0; PRAGMA writable_schema=OFF")
	p.counted = true
}

// takeBack stands for a statement that gives a row the largest rowid: its transaction is rolled back.
func (p *reference) takeBack(st command.Statement, back takenBack) command.Result {
	p.rng = back.rng
	if !p.conn.AutoCommit() {
		if p.opened >= 0 {
			p.undo(msgTakenBack)
		}
		p.must("ROLLBACK")
	}
	p.zeroChanges()
	res := command.Result{Error: back.msg}
	if st.Returning {
		res.Rows = &command.Rows{}
	}
	return res
}

// statement runs one statement; stops says whether its error ends a transaction of the request.
func (p *reference) statement(k command.Kind, st command.Statement) (res command.Result, stops bool) {
	if st.SQL == "PRAGMA optimize" {
		return command.Result{Error: msgOptimize}, k != command.Unified // where it can't even be prepared
	}
	read := st.Returning
	if source := ofNode(st.SQL); source != "" && p.writes(st.SQL) {
		res.Error = source + msgLocal
		if st.Returning {
			res.Rows = &command.Rows{}
		}
		called := strings.HasSuffix(source, ")") // else it can't even be prepared
		if called {
			p.zeroChanges()
		}
		return res, k != command.Unified || called
	}
	if k == command.Unified {
		s, err := p.conn.Prepare(st.SQL)
		if err != nil {
			return command.Result{Error: err.Error()}, false
		}
		read = read || s.(*sqlite3.SQLiteStmt).Readonly() && !blank(st.SQL) || st.Explain
		if err := s.Close(); err != nil {
			p.t.Fatal(err)
		}
	}
	var args []driver.NamedValue
	for i, v := range st.Params {
		args = append(args, driver.NamedValue{Ordinal: i + 1, Name: v.Name, Value: v.Value})
	}
	if read {
		p.counted = p.counted || counts(st.SQL) && p.prepares(st.SQL)
		sql := st.SQL
		for i := range sql {
			if sql[i] == ';' && blank(sql[i:]) && (st.Returning || p.writes(last(sql))) {
				sql = sql[:i+1]
				break
			}
		}
		rows, err := p.query(sql, args)
		if err != nil {
			return command.Result{Rows: &command.Rows{}, Error: err.Error()}, true
		}
		return command.Result{Rows: rows}, false
	}
	var r driver.Result
	for _, sql := range split(st) {
		p.counted = p.counted || counts(sql) && p.prepares(sql)
		var err error
		if r, err = p.conn.ExecContext(context.Background(), sql, args); err != nil {
			return command.Result{Error: err.Error()}, true
		}
	}
	if blank(st.SQL) {
		return command.Result{Write: &command.Write{}}, false
	}
	w := p.counters(r)
	return command.Result{Write: &w}, false
}

// ofNode names what sql asks of the node, of that which programs ask.
func ofNode(sql string) string {
	if strings.Contains(sql, "sqlite_version()") {
		return "sqlite_version()"
	}
	l := lexer{rest: sql}
	for t := l.next(); t.kind != tokenEnd; t = l.next() {
		name := strings.ToLower(t.text)
		if name == "dbstat" || strings.HasPrefix(name, "pragma_") && !slices.Contains(contentPragmas, name) {
			return name
		}
	}
	return ""
}

// contentPragmas are the tables of PRAGMAs that programs ask in writes and that tell of the content alone.
var contentPragmas = []string{"pragma_table_list", "pragma_table_info", "pragma_foreign_key_check", "pragma_table_xinfo", "pragma_index_list"}

func (p *reference) writes(sql string) bool {
	s, err := p.conn.Prepare(sql)
	if err != nil {
		return false
	}
	readOnly := s.(*sqlite3.SQLiteStmt).Readonly()
	return s.Close() == nil && !readOnly
}

// split returns the statements of a text one by one, as far as it knows how.
func split(st command.Statement) []string {
	var parts []string
	l := lexer{rest: st.SQL}
	for begin := st.SQL; ; {
		t := l.next()
		if len(st.Params) > 0 || t.is("TRIGGER") {
			return []string{st.SQL}
		}
		if t.kind != tokenEnd && t.kind != tokenSemicolon {
			continue
		}
		if part := begin[:len(begin)-len(l.rest)]; !blank(part) || len(parts) == 0 && t.kind == tokenEnd {
			parts = append(parts, part)
		}
		if begin = l.rest; t.kind == tokenEnd {
			return parts
		}
	}
}

// last returns the last statement of a text, as far as it is told apart from those before.
func last(sql string) string {
	if i := strings.LastIndex(sql, "CREATE TRIGGER"); i >= 0 {
		return sql[i:]
	}
	parts := split(command.Statement{SQL: sql})
	return parts[len(parts)-1]
}

// counts says whether a statement in sql is one that SQLite counts changes of.
func counts(sql string) bool {
	l := lexer{rest: sql}
	first, counts, with := true, false, false // with: it begins with WITH, and may turn out to write
	for t := l.next(); t.kind != tokenEnd; t = l.next() {
		if t.is("TRIGGER") {
			return false // what stands in it is not run now
		}
		counts = counts || first && t.is("REPLACE") || (first || with) && (t.is("INSERT") || t.is("UPDATE") || t.is("DELETE"))
		with = with && t.kind != tokenSemicolon || first && t.is("WITH")
		first = t.kind == tokenSemicolon
	}
	return counts
}

func (p *reference) prepares(sql string) bool {
	s, err := p.conn.Prepare(sql)
	return err == nil && s.Close() == nil
}

// counters returns the counters of a result, or those of earlier entries if there are none yet.
func (p *reference) counters(r driver.Result) command.Write {
	rows, err := p.query("SELECT last_insert_rowid(), changes(), total_changes()", nil)
	if err != nil {
		p.t.Fatal(err)
	}
	now := rows.Values[0]
	w := command.Write{LastInsertID: now[0].(int64), RowsAffected: now[1].(int64)}
	if id, err := r.LastInsertId(); err == nil && id != 0 && id != w.LastInsertID {
		p.t.Fatalf("last_insert_rowid is %d, and %d in the result", w.LastInsertID, id)
	}
	if w.LastInsertID == 0 {
		w.LastInsertID = p.carried.LastInsertID
	}
	if now[2] == int64(0) && !p.counted {
		w.RowsAffected = p.carried.RowsAffected
	}
	return w
}

func (p *reference) query(sql string, args []driver.NamedValue) (*command.Rows, error) {
	rows, err := p.conn.QueryContext(context.Background(), sql, args)
	if err != nil {
		return nil, err
	}
	out := &command.Rows{Columns: rows.Columns(), Types: rows.(*sqlite3.SQLiteRows).DeclTypes()}
	for i := range out.Types {
		out.Types[i] = strings.ToLower(out.Types[i])
	}
	for {
		row := make([]driver.Value, len(out.Columns))
		if err = rows.Next(row); err != nil {
			break
		}
		values := make([]any, len(row))
		for i, v := range row {
			if at, ok := v.(time.Time); ok {
				v = at.Format(time.RFC3339Nano)
			}
			values[i] = v
		}
		out.Values = append(out.Values, values)
	}
	if err == io.EOF {
		err = nil
	}
	if err = errors.Join(err, rows.Close()); err != nil {
		return nil, err
	}
	return out, nil
}
