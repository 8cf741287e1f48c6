package db

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"
)

// Stats describes the database for people and monitoring. The members and their names are rqlite's.
type Stats struct {
	CompileOptions  []string                     `json:"compile_options"`
	ConnPools       ConnPools                    `json:"conn_pool_stats"`
	DBSize          int64                        `json:"db_size"` // bytes
	DBSizeFriendly  string                       `json:"db_size_friendly"`
	Extensions      []string                     `json:"extensions"` // paths
	LastModified    *time.Time                   `json:"last_modified,omitempty"`
	Memory          map[string]int64             `json:"mem_stats"`
	Path            string                       `json:"path"`
	Pragmas         map[string]map[string]string `json:"pragmas"`
	ReadDSN         string                       `json:"ro_dsn"`
	WriteDSN        string                       `json:"rw_dsn"`
	Size            int64                        `json:"size"` // of the main file in bytes
	OpenTransaction map[string]bool              `json:"transaction"`
	Version         string                       `json:"version"`
	WALSize         int64                        `json:"wal_size"` // bytes
}

// ConnPools describes the connections.
type ConnPools struct {
	Read  PoolStats `json:"ro"`
	Write PoolStats `json:"rw"`
}

// PoolStats describes a pool of connections. The members that are always 0 exist in rqlite.
type PoolStats struct {
	MaxOpen           int           `json:"max_open_connections"`
	Open              int           `json:"open_connections"`
	InUse             int           `json:"in_use"`
	Idle              int           `json:"idle"`
	WaitCount         int64         `json:"wait_count"`
	WaitDuration      time.Duration `json:"wait_duration"`
	MaxIdleClosed     int64         `json:"max_idle_closed"`
	MaxIdleTimeClosed int64         `json:"max_idle_time_closed"`
	MaxLifetimeClosed int64         `json:"max_lifetime_closed"`
}

// Stats returns what /status says about the database. It is safe for concurrent use.
func (d *DB) Stats() (Stats, error) {
	s := Stats{
		CompileOptions: compileOptions(),
		ConnPools:      ConnPools{Read: d.readers.stats(), Write: PoolStats{MaxOpen: 1, Open: 1, Idle: 1}},
		Extensions:     append([]string{}, d.cfg.Extensions...),
		Path:           d.path,
		ReadDSN:        fmt.Sprintf("file:%s?_fk=%t&_journal=WAL&_query_only=true&_sync=0&mode=ro", d.path, d.cfg.ForeignKeys),
		WriteDSN:       fmt.Sprintf("file:%s?_fk=%t&_journal=WAL&_sync=0", d.path, d.cfg.ForeignKeys),
		// No transaction outlives the entry or the query that began it.
		OpenTransaction: map[string]bool{"ro": false, "rw": false},
		Version:         SQLiteVersion(),
		WALSize:         d.WALSize(),
	}
	info, err := d.fs.Stat(d.path)
	if err != nil {
		return s, fmt.Errorf("describe database: %w", err)
	}
	modified := info.ModTime.UTC()
	s.Size, s.LastModified = info.Size, &modified
	if wal, err := d.fs.Stat(d.path + "-wal"); err == nil && wal.ModTime.After(modified) {
		modified = wal.ModTime.UTC()
	}
	// The judges are set up like the readers, and never busy for long.
	c, err := d.judges.get(context.Background())
	if err != nil {
		return s, fmt.Errorf("describe database: %w", err)
	}
	err = s.ask(c.conn, d.rwPragmas)
	if err = errors.Join(err, d.giveBack(d.judges, c)); err != nil {
		return s, fmt.Errorf("describe database: %w", err)
	}
	return s, nil
}

// ask fills in what SQLite knows.
func (s *Stats) ask(c *conn, rw map[string]string) error {
	ro, err := c.pragmas()
	if err != nil {
		return err
	}
	s.Pragmas = map[string]map[string]string{"ro": ro, "rw": rw}
	s.Memory = make(map[string]int64)
	for _, name := range []string{"cache_size", "freelist_count", "hard_heap_limit", "max_page_count", "page_count", "page_size", "soft_heap_limit"} {
		text, err := c.text("PRAGMA " + name)
		if err != nil {
			return err
		}
		if s.Memory[name], err = strconv.ParseInt(text, 10, 64); err != nil {
			return fmt.Errorf("pragma %s: %w", name, err)
		}
	}
	s.DBSize = s.Memory["page_count"] * s.Memory["page_size"]
	s.DBSizeFriendly = friendly(s.DBSize)
	return nil
}

// pragmas returns the settings of the connection that users ask about.
func (c *conn) pragmas() (map[string]string, error) {
	values := make(map[string]string)
	for _, name := range []string{"busy_timeout", "foreign_keys", "journal_mode", "synchronous", "wal_autocheckpoint"} {
		var err error
		if values[name], err = c.text("PRAGMA " + name); err != nil {
			return nil, err
		}
	}
	return values, nil
}

func (p *pool) stats() PoolStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	limit := cap(p.slots)
	if limit == maxReaders {
		limit = 0 // none, in the words of database/sql
	}
	return PoolStats{
		MaxOpen:      limit,
		Open:         len(p.busy) + len(p.idle),
		InUse:        len(p.busy),
		Idle:         len(p.idle),
		WaitCount:    p.waits,
		WaitDuration: p.waited,
	}
}

// friendly writes a number of bytes for people: 24576 is "25 kB".
func friendly(n int64) string {
	if n < 10 {
		return fmt.Sprintf("%d B", n)
	}
	units := []string{"B", "kB", "MB", "GB", "TB", "PB", "EB"}
	v, u := float64(n), 0
	for v >= 1000 && u < len(units)-1 {
		v, u = v/1000, u+1
	}
	v = math.Floor(v*10+0.5) / 10
	if v < 10 {
		return fmt.Sprintf("%.1f %s", v, units[u])
	}
	return fmt.Sprintf("%.0f %s", v, units[u])
}
