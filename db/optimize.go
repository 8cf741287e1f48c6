package db

import (
	"errors"
	"fmt"
	"strings"
)

const (
	// askOptimize has PRAGMA optimize look at all tables (0x10000) for those that ANALYZE is worth while for (0x2), and
	// return the statements instead of running them (0x1). Without 0x10000 it would look at those only that the
	// connection has queried.
	askOptimize = "PRAGMA main.optimize(0x10003)"

	// optimizeRows is how many rows of an index an ANALYZE of PRAGMA optimize reads, and optimizeTrees the number of
	// tables and indexes from which on it reads fewer, but no fewer than optimizeLeast.
	optimizeRows, optimizeTrees, optimizeLeast = 2000, 100, 100
)

// Optimize returns the statements of which an entry does what PRAGMA optimize would do now, or none if that is
// nothing. The PRAGMA itself can't be an entry: what it finds worth while depends on the places of rows in pages, which may
// differ between replicas, and on what a connection has been asked. What ANALYZE writes does not: it counts
// all rows of an index, and looks at the first of them in its order.
//
// The caller is the goroutine of Apply, or keeps it from applying: SQLite takes the lock of writers for a moment. No
// error is final for the database, but ErrDamaged.
func (d *DB) Optimize() ([]string, error) {
	if err := d.failed(); err != nil {
		return nil, err
	}
	d.mu.Lock()
	closed := d.closed
	d.mu.Unlock()
	if closed {
		return nil, ErrClosed
	}
	// A connection of its own: the writer must not get to know anything that no entry has told it.
	c, err := openConn(d.path, openReadWrite, reader, d.nowhere, d.cfg.Extensions)
	if err != nil {
		return nil, fmt.Errorf("ask what to optimize: %w", err)
	}
	stale, err := c.staleTables()
	if err == nil && len(stale) > 0 {
		stale, err = c.analyze(stale)
	}
	err = errors.Join(err, c.close())
	if damaged := d.damage(); damaged != nil {
		return nil, damaged
	}
	if err != nil {
		return nil, fmt.Errorf("ask what to optimize: %w", err)
	}
	return stale, nil
}

// staleTables returns the ANALYZE statements of PRAGMA optimize, but for those without effect. It leaves
// the transaction open, which writes nothing.
func (c *conn) staleTables() ([]string, error) {
	if err := c.exec("BEGIN"); err != nil {
		return nil, err
	}
	rows, err := c.ownQuery(askOptimize)
	if err != nil {
		return nil, err
	}
	known, err := c.text("SELECT count(*) FROM sqlite_schema WHERE name='sqlite_stat1'")
	if err != nil {
		return nil, err
	}
	var stale []string
	for _, row := range rows {
		statement := row[0].(string)
		table, _ := strings.CutPrefix(statement, "ANALYZE ")
		effect, err := c.text("SELECT EXISTS(SELECT 1 FROM " + table + ")")
		if err == nil && effect == "0" && known != "0" {
			effect, err = c.text("SELECT EXISTS(SELECT 1 FROM sqlite_stat1 WHERE tbl=" + quote(unquote(table), "'") + ")")
		}
		if err != nil {
			return nil, err
		}
		if effect != "0" { // else it is empty, and SQLite says nothing about empty tables
			stale = append(stale, statement)
		}
	}
	return stale, nil
}

// unquote returns the name of the table in `"main"."name"`.
func unquote(table string) string {
	name := strings.TrimSuffix(strings.TrimPrefix(table, `"main"."`), `"`)
	return strings.ReplaceAll(name, `""`, `"`)
}

// analyze bounds what statements read, as PRAGMA optimize does, and ends the bound behind them: a member that runs
// rqlite would keep it.
func (c *conn) analyze(statements []string) ([]string, error) {
	rows, err := c.ownQuery(`SELECT count(*) FROM sqlite_schema WHERE rootpage > 0 AND tbl_name NOT LIKE 'sqlite\_%' ESCAPE '\'`)
	if err != nil {
		return nil, err
	}
	limit := int64(optimizeRows)
	if trees := rows[0][0].(int64); trees > optimizeTrees {
		limit = max(optimizeTrees*optimizeRows/trees, optimizeLeast)
	}
	all := append([]string{fmt.Sprintf("PRAGMA analysis_limit=%d", limit)}, statements...)
	return append(all, "PRAGMA analysis_limit=0"), nil
}

// AskSpace returns ErrNoSpace if the disk has no room for so many copies of the database as it is now. Any goroutine may call it.
func (d *DB) AskSpace(copies int64) error {
	info, err := d.fs.Stat(d.path)
	if err != nil {
		return err
	}
	return d.askSpace(copies * (info.Size + d.WALSize()))
}
