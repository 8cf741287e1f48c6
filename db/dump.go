package db

// #include "sqlite.h"
import "C"

import (
	"bufio"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// Tables of SQLite's own that a dump has.
const (
	tableSequence = "sqlite_sequence"
	tableStat1    = "sqlite_stat1"
	tablePrefix   = "sqlite_" // of these and others
)

// Kinds of modules of virtual tables, by what brings their content back.
type module uint8

const (
	moduleOther module = iota // has no content of its own
	moduleRows                // its rows, with their rowids
	moduleTree                // its rows, the first column of which is the rowid
	moduleFTS                 // as moduleRows, or an index of another table
)

// contentOf has the modules that are built in and have content.
var contentOf = map[string]module{
	"fts3": moduleFTS, "fts4": moduleFTS, "fts5": moduleFTS, "rtree": moduleTree, "rtree_i32": moduleTree, "geopoly": moduleRows,
}

// views are those that are built in and show what other tables have.
var views = []string{"fts4aux", "fts3tokenize", "fts5vocab", "dbstat"}

// builtIn says whether a module is SQLite's own.
func builtIn(module string) bool {
	return contentOf[module] != moduleOther || slices.Contains(views, module)
}

// dumper writes a database as SQL.
type dumper struct {
	c      *conn
	out    *bufio.Writer
	only   []string        // the tables that are wanted; nil is all
	shadow map[string]bool // tables behind virtual tables, which make them
	later  []string        // statements for the end
}

// dump writes the database in the file name to w as SQL that makes it anew. The form is rqlite's, but for what would not
// restore: see docs/design/live-database.md.
func (d *DB) dump(ctx context.Context, w io.Writer, name string, tables []string) error {
	err := d.withCopy(ctx, name, func(c *conn) error {
		p := dumper{c: c, out: bufio.NewWriterSize(w, copyBuffer), only: tables, shadow: map[string]bool{}}
		if err := p.all(); err != nil {
			return err
		}
		return p.out.Flush()
	})
	if err != nil {
		return fmt.Errorf("dump database: %w", err)
	}
	return nil
}

func (p *dumper) all() error {
	p.lines("PRAGMA foreign_keys=OFF;", "BEGIN TRANSACTION;")
	err := p.each("SELECT name FROM pragma_table_list WHERE schema='main' AND type='shadow'", func(row []string) error {
		p.shadow[row[0]] = true
		return nil
	})
	if err == nil {
		err = p.tables()
	}
	if err == nil {
		err = p.rest()
	}
	p.lines(p.later...)
	p.lines("COMMIT;")
	return err
}

// tables dumps all tables in the order of their names. The numbers of AUTOINCREMENT tables can be set once there
// is such a table.
func (p *dumper) tables() error {
	var list [][2]string
	err := p.each("SELECT name, sql FROM sqlite_schema WHERE type='table' AND sql NOT NULL ORDER BY name", func(row []string) error {
		list = append(list, [2]string{row[0], row[1]})
		return nil
	})
	if err != nil {
		return err
	}
	numbered, late := false, false
	for _, t := range list {
		name, sql := t[0], t[1]
		if !p.wanted(name) {
			continue
		}
		switch {
		case name == tableSequence && !numbered:
			late = true
		case name == tableSequence:
			err = p.sequence()
		default:
			numbered = numbered || autoincrement(sql)
			err = p.table(name, sql)
		}
		if err != nil {
			return err
		}
	}
	if late && numbered {
		return p.sequence()
	}
	return nil
}

func (p *dumper) wanted(name string) bool {
	if p.only == nil {
		return true
	}
	for _, t := range p.only {
		if strings.EqualFold(t, name) {
			return true
		}
	}
	return false
}

func (p *dumper) table(name, sql string) error {
	switch {
	case name == tableStat1:
		p.lines(`ANALYZE "sqlite_master";;`)
	case strings.HasPrefix(name, tablePrefix), p.shadow[name]:
		return nil
	case strings.HasPrefix(sql, "CREATE VIRTUAL TABLE"):
		return p.virtual(name, sql)
	default:
		p.lines(sql + ";")
	}
	columns, err := p.columns(name)
	if err != nil {
		return err
	}
	return p.rows(name, "", columns)
}

func (p *dumper) sequence() error {
	p.lines(`DELETE FROM "sqlite_sequence";;`)
	return p.rows(tableSequence, "", []string{`"name"`, `"seq"`})
}

// virtual dumps a virtual table, whose shadow tables come with it.
func (p *dumper) virtual(name, sql string) error {
	p.lines(sql + ";")
	module, content, external := virtualTable(sql)
	columns, err := p.columns(name)
	if err != nil {
		return err
	}
	switch kind := contentOf[module]; {
	case kind == moduleTree:
		return p.rows(name, "("+strings.Join(columns, ",")+")", columns)
	case !builtIn(module):
		p.lines("-- what this table holds is the matter of an extension: it is not dumped")
		return nil
	case kind == moduleOther:
		return nil
	case kind == moduleFTS && external && content == "":
		p.lines("-- what this table holds is an index of texts that are stored nowhere: it cannot be dumped")
		return nil
	case kind == moduleFTS && external:
		if ok, err := p.restored(content); err != nil || !ok {
			return err // the index would have nothing to be made of
		}
		p.later = append(p.later, fmt.Sprintf("INSERT INTO %s(%s) VALUES('rebuild');", quoteName(name), quoteName(name)))
		return p.settings(name, module)
	}
	if err := p.settings(name, module); err != nil {
		return err
	}
	columns = append([]string{"rowid"}, columns...)
	return p.rows(name, "("+strings.Join(columns, ",")+")", columns)
}

// restored says whether the dump has a table, or a view, of that name.
func (p *dumper) restored(name string) (ok bool, err error) {
	query := "SELECT type FROM sqlite_schema WHERE type IN ('table','view') AND name=" + quoteText(name) + " COLLATE NOCASE"
	err = p.each(query, func(row []string) error {
		ok = row[0] == "view" || p.wanted(name)
		return nil
	})
	return ok, err
}

// settings dumps what a full-text table was told to do, other than by default.
func (p *dumper) settings(name, module string) error {
	if module != "fts5" {
		return nil
	}
	query := fmt.Sprintf("SELECT quote(k), quote(v) FROM %s WHERE k<>'version'", quoteName(name+"_config"))
	return p.each(query, func(row []string) error {
		p.lines(fmt.Sprintf("INSERT INTO %s(%s,rank) VALUES(%s,%s);", quoteName(name), quoteName(name), row[0], row[1]))
		return nil
	})
}

// columns returns the names, in quotes, of the columns that an INSERT gives values to.
func (p *dumper) columns(table string) (names []string, err error) {
	err = p.each("SELECT name FROM pragma_table_info("+quoteText(table)+")", func(row []string) error {
		names = append(names, quoteName(row[0]))
		return nil
	})
	return names, err
}

// rows dumps the rows of a table. Text with a zero byte, which quote would cut, comes as it is.
func (p *dumper) rows(table, into string, columns []string) error {
	var query strings.Builder
	query.WriteString("SELECT ")
	for i, c := range columns {
		if i > 0 {
			query.WriteString(", ")
		}
		fmt.Fprintf(&query, "CASE WHEN typeof(%[1]s)='text' AND instr(%[1]s,char(0)) THEN %[1]s ELSE quote(%[1]s) END", c)
	}
	query.WriteString(" FROM " + quoteName(table))
	if into == "" {
		query.WriteString(" NOT INDEXED") // the order is that of the table
	}
	begin := "INSERT INTO " + quoteName(table) + into + " VALUES("
	return p.each(query.String(), func(row []string) error {
		p.out.WriteString(begin)
		for i, v := range row {
			if i > 0 {
				p.out.WriteByte(',')
			}
			p.out.WriteString(literal(v))
		}
		_, err := p.out.WriteString(");\n") // says what went wrong before, too
		return err
	})
}

// rest dumps indexes, triggers and views, in the order in which they were made.
func (p *dumper) rest() error {
	query := "SELECT tbl_name, sql FROM sqlite_schema WHERE type IN ('index','trigger','view') AND sql NOT NULL ORDER BY rowid"
	return p.each(query, func(row []string) error {
		if !p.shadow[row[0]] {
			p.lines(row[1] + ";")
		}
		return nil
	})
}

func (p *dumper) lines(lines ...string) {
	for _, l := range lines {
		p.out.WriteString(l)
		p.out.WriteByte('\n') // an error stays until Flush
	}
}

// each calls f with each row of a query of our own, all values of which are texts.
func (p *dumper) each(query string, f func(row []string) error) error {
	return p.c.each(query, func(values []any) error {
		row := make([]string, len(values))
		for i, v := range values {
			s, ok := v.(string)
			if !ok {
				return fmt.Errorf("%s: column %d is a %T", query, i+1, v)
			}
			row[i] = s
		}
		return f(row)
	})
}

// each calls f with each row of a query of our own, whose values are as they are stored. It holds one batch in memory.
func (c *conn) each(query string, f func(values []any) error) error {
	c.c.trusted = 1
	defer func() { c.c.trusted = 0 }()
	s, _, err := c.prepare(query)
	if err != nil {
		return err
	}
	defer c.release(s)
	for more := true; more; {
		rc := C.db_rows(c.c, s.s, batchRows, batchBytes)
		if err := c.rowsFailed(s, rc); err != nil {
			return err
		}
		more = rc == C.int(codeRow)
		d := decoder{kinds: make([]kind, s.columns)}
		for _, values := range d.decode(nil, batch{bytesOf(&c.c.buf), int(c.c.rows)}) {
			if err := f(values); err != nil {
				return err
			}
		}
	}
	return nil
}

// literal makes SQL of what quote() has returned, or of a text with a zero byte. Only such an expression survives a
// client that wants UTF-8, and SQLite's reading up to a zero byte.
func literal(v string) string {
	zero := strings.IndexByte(v, 0) >= 0
	if utf8.ValidString(v) && !zero {
		return v
	}
	if !zero {
		v = strings.ReplaceAll(v[1:len(v)-1], "''", "'")
	}
	if !utf8.ValidString(v) {
		return "CAST(X'" + strings.ToUpper(hex.EncodeToString([]byte(v))) + "' AS TEXT)"
	}
	mark := "\\0"
	for strings.Contains(v, mark) {
		mark += "0"
	}
	// A mark begins with a byte that it has nowhere else, so it is found only where one was put.
	return "replace(" + quoteText(strings.ReplaceAll(v, "\x00", mark)) + "," + quoteText(mark) + ",char(0))"
}

func quoteName(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }
func quoteText(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// autoincrement says whether the statement that made a table has the word.
func autoincrement(sql string) bool {
	l := lexer{rest: sql}
	for t := l.next(); t.kind != tokenEnd; t = l.next() {
		if t.is("AUTOINCREMENT") {
			return true
		}
	}
	return false
}

// virtualTable returns the module of a virtual table, in lower case, and whether its option content says where
// the indexed texts are, which may be nowhere.
func virtualTable(sql string) (module, content string, external bool) {
	l := lexer{rest: sql}
	t := l.next()
	for ; t.kind != tokenEnd && !t.is("USING"); t = l.next() {
	}
	module = strings.ToLower(l.next().name())
	for t = l.next(); t.kind != tokenEnd; {
		option := t
		t = l.next()
		if !strings.EqualFold(option.name(), "content") || t.text != "=" {
			continue
		}
		if t = l.next(); t.text != "," && t.text != ")" {
			content = t.name()
		}
		return module, content, true
	}
	return module, "", false
}
