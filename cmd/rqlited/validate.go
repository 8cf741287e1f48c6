package main

import (
	"cmp"
	"flag"
	"fmt"
	"math"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// fault is a reason why the settings cannot be used, and the flags that it is about.
type fault struct {
	flags []string
	text  string
}

// refuse returns a fault about flags, which are separated by spaces.
func refuse(flags, text string, args ...any) fault {
	return fault{strings.Fields(flags), fmt.Sprintf(text, args...)}
}

// faults returns every reason why the settings cannot be used, in rqlite's words and order where
// rqlite checks the same.
func (s *settings) faults(fs *flag.FlagSet) []fault {
	faults := s.reapFaults(fs)
	if strings.TrimSpace(s.dir) == "" {
		faults = append(faults, refuse("data-dir", "data directory path is required"))
	}
	return slices.Concat(faults, s.extensionFaults(), s.tlsFaults(fs), s.addressFaults(), s.joinFaults(), s.featureFaults(fs),
		s.rangeFaults(), laterFaults(fs))
}

// extensionFaults refuses paths where nothing is.
func (s *settings) extensionFaults() []fault {
	var faults []fault
	for _, path := range s.store.Extensions {
		if _, err := os.Stat(path); err != nil {
			faults = append(faults, refuse("extensions-path", "extension path does not exist: %s", path))
		}
	}
	return faults
}

// reapFaults refuses a time that is given and would turn reaping off.
func (s *settings) reapFaults(fs *flag.FlagSet) []fault {
	var faults []fault
	fs.Visit(func(f *flag.Flag) {
		if f.Name == "raft-reap-node-timeout" && s.store.Reap.Voter <= 0 ||
			f.Name == "raft-reap-read-only-node-timeout" && s.store.Reap.ReadOnly <= 0 {
			faults = append(faults, refuse(f.Name, "-%s must be greater than 0", f.Name))
		}
	})
	return faults
}

// addressFaults checks the four addresses. An advertised address is checked for itself only where
// it is not the bind address, so that one mistake is reported once.
func (s *settings) addressFaults() []fault {
	var faults []fault
	add := func(flags, text string, args ...any) { faults = append(faults, refuse(flags, text, args...)) }
	if s.raft.bind == s.http.bind {
		add("http-addr raft-addr", "HTTP and Raft addresses must differ")
	}
	public := s.http.flag("http-addr", "http-adv-addr")
	switch {
	case hasScheme(s.http.bind) || hasScheme(s.http.advertise):
		add("http-addr http-adv-addr", "HTTP options should not include protocol (http:// or https://)")
	case !isHostPort(s.http.bind):
		add("http-addr", "HTTP bind address not valid")
	case !isHostPort(s.http.public()):
		add(public, "HTTP advertised HTTP address not valid")
	case isUnspecified(s.http.public()):
		add(public, "advertised HTTP address is not routable (%s), specify it via -http-addr or -http-adv-addr", hostOf(s.http.public()))
	}
	public = s.raft.flag("raft-addr", "raft-adv-addr")
	switch {
	case !isHostPort(s.raft.bind):
		add("raft-addr", "raft bind address not valid")
	case !hasNumericPort(s.raft.bind):
		add("raft-addr", "raft bind port not valid")
	case !isHostPort(s.raft.public()):
		add(public, "raft advertised address not valid")
	case isUnspecified(s.raft.public()):
		add(public, "advertised Raft address is not routable (%s), specify it via -raft-addr or -raft-adv-addr", hostOf(s.raft.public()))
	case !hasNumericPort(s.raft.public()):
		add(public, "raft advertised port is not valid")
	}
	if s.raft.bind != s.http.bind && s.raft.public() == s.http.public() {
		add("http-addr http-adv-addr raft-addr raft-adv-addr", "advertised HTTP and Raft addresses must differ")
	}
	return faults
}

func (s *settings) joinFaults() []fault {
	var faults []fault
	if s.form.BootstrapExpect > 0 && s.readOnly {
		faults = append(faults, refuse("bootstrap-expect raft-non-voter", "bootstrapping only applicable to voting nodes"))
	}
	for _, addr := range s.form.Join {
		if !isHostPort(addr) {
			faults = append(faults, refuse("join", "%s is an invalid join address", addr))
		}
	}
	self := slices.Contains(s.form.Join, s.raft.bind) || slices.Contains(s.form.Join, s.raft.public())
	if self && s.form.BootstrapExpect == 0 {
		faults = append(faults, refuse("join", "node cannot join with itself unless bootstrapping"))
	}
	return faults
}

// rangeFaults checks numbers that the other packages would take for "use the default", or refuse
// under a name that is not the flag's.
func (s *settings) rangeFaults() []fault {
	var faults []fault
	raft := s.store.Raft
	for _, f := range []struct {
		name         string
		value, least time.Duration // Raft asks for the least
	}{
		{"bootstrap-expect-timeout", s.form.BootstrapTimeout, 0},
		{"cluster-connect-timeout", s.connectTimeout, 0},
		{"join-interval", s.form.JoinInterval, 0},
		{"raft-apply-timeout", raft.ApplyTimeout, 0},
		{"raft-commit-timeout", raft.CommitTimeout, time.Millisecond},
		{"raft-election-timeout", raft.ElectionTimeout, 5 * time.Millisecond},
		{"raft-heartbeat-timeout", raft.HeartbeatTimeout, 5 * time.Millisecond},
		{"raft-snap-int", s.store.Snapshot.Interval, 5 * time.Millisecond},
	} {
		switch {
		case f.value <= 0:
			faults = append(faults, refuse(f.name, "-%s must be greater than 0", f.name))
		case f.value < f.least:
			faults = append(faults, refuse(f.name, "-%s must be at least %s", f.name, f.least))
		}
	}
	if raft.ElectionTimeout > 0 && raft.ElectionTimeout < raft.HeartbeatTimeout {
		faults = append(faults, refuse("raft-election-timeout raft-heartbeat-timeout",
			"-raft-election-timeout (%s) must not be less than -raft-heartbeat-timeout (%s)", raft.ElectionTimeout, raft.HeartbeatTimeout))
	}
	switch lease := raft.LeaderLeaseTimeout; {
	case lease < 0:
		faults = append(faults, refuse("raft-leader-lease-timeout", "-raft-leader-lease-timeout must not be negative"))
	case lease > 0 && lease < 5*time.Millisecond:
		faults = append(faults, refuse("raft-leader-lease-timeout", "-raft-leader-lease-timeout must be 0 or at least 5ms"))
	case raft.HeartbeatTimeout > 0 && lease > raft.HeartbeatTimeout:
		faults = append(faults, refuse("raft-leader-lease-timeout raft-heartbeat-timeout",
			"-raft-leader-lease-timeout (%s) must not be more than -raft-heartbeat-timeout (%s)", lease, raft.HeartbeatTimeout))
	}
	if s.http.queue.Capacity < 1 {
		faults = append(faults, refuse("write-queue-capacity", "-write-queue-capacity must be at least 1"))
	}
	if s.http.queue.BatchSize < 1 {
		faults = append(faults, refuse("write-queue-batch-size", "-write-queue-batch-size must be at least 1"))
	}
	if s.http.queue.Timeout < 0 {
		faults = append(faults, refuse("write-queue-timeout", "-write-queue-timeout must not be negative"))
	}
	if v := s.store.HashCheckInterval; v != 0 && v < time.Second {
		faults = append(faults, refuse("hash-check-interval", "-hash-check-interval must be 0 or at least 1s"))
	}
	if s.store.Upkeep.Vacuum < 0 {
		faults = append(faults, refuse("auto-vacuum-int", "-auto-vacuum-int must not be negative"))
	}
	if s.store.Upkeep.Optimize < 0 {
		faults = append(faults, refuse("auto-optimize-int", "-auto-optimize-int must not be negative"))
	}
	if s.form.JoinAttempts <= 0 {
		faults = append(faults, refuse("join-attempts", "-join-attempts must be greater than 0"))
	}
	if s.form.BootstrapExpect < 0 {
		faults = append(faults, refuse("bootstrap-expect", "-bootstrap-expect must not be negative"))
	}
	if s.store.MaxReaders < 0 {
		faults = append(faults, refuse("db-max-ro-conns", "-db-max-ro-conns must not be negative"))
	}
	if s.snapWALSize > math.MaxInt64 {
		faults = append(faults, refuse("raft-snap-wal-size", "-raft-snap-wal-size is too large"))
	}
	return faults
}

// settle translates values whose meaning differs between the command line and the configs.
func (s *settings) settle() {
	s.form.Voter = !s.readOnly
	s.store.Dir = s.dir
	s.store.BootstrapExpect = s.form.BootstrapExpect
	s.store.Snapshot.WALSize = int64(s.snapWALSize)
	if s.snapWALSize == 0 {
		s.store.Snapshot.WALSize = -1
	}
	if s.http.queue.Timeout == 0 {
		s.http.queue.Timeout = -1
	}
	s.store.MaxReaders = cmp.Or(s.store.MaxReaders, math.MaxInt)
	s.store.Raft.LogLevel = strings.ToUpper(s.store.Raft.LogLevel)
	if !slices.Contains([]string{"TRACE", "DEBUG", "INFO", "WARN", "ERROR", "OFF"}, s.store.Raft.LogLevel) {
		s.store.Raft.LogLevel = "WARN" // rqlite takes any word
	}
}

func hasScheme(addr string) bool { return strings.HasPrefix(strings.ToLower(addr), "http") }

func isHostPort(addr string) bool {
	_, _, err := net.SplitHostPort(addr)
	return err == nil
}

func hasNumericPort(addr string) bool {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	_, err = strconv.ParseUint(port, 10, 16)
	return err == nil
}

// hostOf returns the host of an address that isHostPort.
func hostOf(addr string) string {
	host, _, _ := net.SplitHostPort(addr)
	return host
}

func isUnspecified(addr string) bool {
	ip := net.ParseIP(hostOf(addr))
	return ip != nil && ip.IsUnspecified()
}
