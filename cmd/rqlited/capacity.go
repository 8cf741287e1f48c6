package main

import (
	"math"
	"os"
	"runtime/debug"
	"strconv"
	"strings"

	"rqlited/cluster"
	httpd "rqlited/http"
)

// capacity is what this process has of its machine. The bounds on what clients and nodes may take of it
// follow from that: shares that together leave enough for the database and for Raft.
type capacity struct {
	memory int64 // bytes
	files  int   // descriptors
}

// Of the descriptors, readerFiles are for each connection that reads: the database, its WAL and a
// temporary file. ownFiles are for the node itself.
const (
	readerFiles = 3
	ownFiles    = 64
)

// measure asks the system. What it does not tell is taken to be what a small machine has.
func measure() capacity {
	c := capacity{memory: debug.SetMemoryLimit(-1), files: maxFiles()}
	if c.memory == math.MaxInt64 { // GOMEMLIMIT is not set
		c.memory = 1 << 30
		if n := machineMemory(); n > 0 {
			c.memory = n
		}
	}
	return c
}

// machineMemory returns the memory of the machine, or of the control group that the process is alone in;
// 0 if neither is known.
func machineMemory() int64 {
	total := int64(0)
	text, _ := os.ReadFile("/proc/meminfo") // what can't be read is empty
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "MemTotal:"); ok {
			kib, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			total = kib << 10
		}
	}
	for _, name := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		text, _ := os.ReadFile(name)
		if n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && n > 0 && (total == 0 || n < total) {
			total = n
		}
	}
	return total
}

// clients bounds what clients may take, if so many connections may read. A connection takes some 20 KiB, or 48 with a small request on it.
func (c capacity) clients(readers int) httpd.Limits {
	return httpd.Limits{
		Takers: max(1, c.readers(readers)/2),
		Conns:  int(max(16, min(16384, c.memory/8/(48<<10), int64(c.files-c.reserved())))),
		Bodies: max(64<<20, min(1<<30, c.memory/8)),
	}
}

// reserved is how many descriptors are not for clients: what the node needs if all others take what they may,
// as long as that is no more than three quarters of all.
func (c capacity) reserved() int {
	p := c.peers()
	all := ownFiles + readerFiles*c.readers(256) + p.MaxNew + p.MaxCalls + p.MaxRaft + 512 // for calls of this node
	return min(all, c.files/4*3)
}

// peers bounds the connections of other nodes.
func (c capacity) peers() cluster.Config {
	return cluster.Config{
		MaxNew:   max(16, min(512, c.files/24)),
		MaxCalls: max(16, min(512, c.files/16)),
		MaxRaft:  max(16, min(256, c.files/24)),
	}
}

// calls returns how many bytes the calls of other nodes may take.
func (c capacity) calls() int64 { return max(128<<20, min(2<<30, c.memory/8)) }

// readers returns how many connections may read, of those that were asked for.
func (c capacity) readers(asked int) int { return min(asked, max(4, c.files/8)) }

// readMemory returns how many bytes all reads together may take in SQLite. On its way to the client a row is
// copied some three times.
func (c capacity) readMemory() int64 { return max(64<<20, min(1<<30, c.memory/16)) }

// queued returns how many bytes queued writes may take.
func (c capacity) queued() int64 { return max(32<<20, min(256<<20, c.memory/16)) }
