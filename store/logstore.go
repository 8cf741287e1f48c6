package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"rqlited/snapshot"
)

const (
	logCacheEntries = 512             // newest entries kept in memory
	logLockTimeout  = 2 * time.Second // for the lock on raft.db
)

// logStore is Raft's log and stable store: raft.db behind a cache.
//
// It repairs one thing that Raft leaves open. When a follower installs a snapshot that its log
// does not contain, the log has to go: its entries up to the snapshot need not be the committed
// ones, and those behind it follow something that never was. Raft keeps both, would serve the
// first to other followers as a leader, and gets stuck on the second, because its previous-entry
// check then looks for the snapshot's entry in vain and the leader sends the snapshot again, for
// ever. install discards the log instead. Raft goes on believing in the old end of the log until
// the leader overwrites it; up to then the log is void: the snapshot's own entry is answered with
// its term, those behind it with a term that matches nothing, nothing can be appended to them,
// and this node stands in no election.
type logStore struct {
	*raft.LogCache
	bolt *boltLog

	fail        func(error)                // a log that could not be written or read is not used again
	cut         func()                     // ends all contact with other nodes, for good
	raft        *atomic.Pointer[raft.Raft] // nil until Raft runs
	edge        atomic.Pointer[edge]
	lastCommand atomic.Uint64 // newest entry that is a command
	damaged     uint64        // the highest entry that was missing or damaged at the start; 0 is none

	held held

	floor     atomic.Pointer[standing] // what the node has lost; nil if it has not, or has got it back
	returning atomic.Bool              // there was a floor at the start, and what it stands for is not applied yet
	spoken    func(index uint64)       // called when the entry at index ends the silence; may be nil
	members   []Server                 // newest in the log behind the head, at the start; nil if there are none

	installFailures atomic.Int32 // since a snapshot was restored or an entry was appended

	step func(name string) error // for tests: called before each change of raft.db
}

// edge is where the newest snapshot ends. Immutable.
type edge struct {
	index, term uint64    // of the snapshot
	passed      bool      // by the state machine: the snapshot is one of its own state
	top         uint64    // of the log that Raft believes in; 0 unless the log is void
	since       time.Time // when it became void
}

// openLog opens raft.db. It fails with ErrLogDamaged if the file does not hold together or its
// settings, among them term and vote, are not as they were written: nothing then is known about what
// the node has promised. Damage to entries is noted, for check.
func openLog(path string, fail func(error)) (*logStore, error) {
	var in inspection
	missing, err := logMissing(path)
	if err == nil && !missing {
		in, err = inspectFile(path)
	}
	if err != nil {
		return nil, err
	}
	bolt, err := openBolt(path, &in)
	if err != nil {
		return nil, err
	}
	cache, err := raft.NewLogCache(logCacheEntries, bolt)
	if err != nil {
		return nil, errors.Join(err, bolt.Close())
	}
	broken := func(err error) {
		bolt.broken.Store(true)
		fail(err)
	}
	return &logStore{
		LogCache: cache, bolt: bolt, fail: broken, cut: func() {}, raft: &atomic.Pointer[raft.Raft]{},
		damaged: in.damaged,
		step:    func(string) error { return nil },
	}, nil
}

// check makes sure that the log goes on where head ends, and that each entry behind it is as it was
// written, and learns what there is to know at the start. It first finishes what a crash in install
// left behind.
func (l *logStore) check(head snapshot.Head, exists bool) error {
	if err := l.finishDiscard(head.ID); err != nil {
		return err
	}
	if err := l.dropDamaged(head.Index); err != nil {
		return err
	}
	first, last, err := l.bounds()
	if err != nil {
		return err
	}
	end := standing{Index: head.Index, Term: head.Term}
	for i := head.Index + 1; i <= last; i++ {
		var e raft.Log
		err := l.LogCache.GetLog(i, &e)
		if errors.Is(err, raft.ErrLogNotFound) {
			return gapError(head, exists, first, i)
		}
		if err != nil {
			return fmt.Errorf("read %s: entry %d: %w", logFile, i, err)
		}
		end = standing{Index: i, Term: e.Term}
		switch e.Type {
		case raft.LogCommand:
			l.lastCommand.Store(i)
		case raft.LogConfiguration:
			l.members = serversOf(raft.DecodeConfiguration(e.Data))
		}
	}
	if l.lastCommand.Load() == 0 {
		l.lastCommand.Store(head.Index)
	}
	l.edge.Store(&edge{index: head.Index, term: head.Term})
	return l.openFloor(end)
}

// dropDamaged shortens the log up to the last damaged entry, if a snapshot that ends at head has all
// that it loses by that.
func (l *logStore) dropDamaged(head uint64) error {
	switch {
	case l.damaged == 0:
		return nil
	case l.damaged > head:
		return damagedf("%s: entry %d is missing or not as it was written", logFile, l.damaged)
	}
	err := l.step("drop damaged")
	if err == nil {
		err = l.LogCache.DeleteRange(0, l.damaged)
	}
	if err != nil {
		return fmt.Errorf("shorten %s: %w", logFile, err)
	}
	l.damaged = 0
	return nil
}

func gapError(head snapshot.Head, exists bool, first, missing uint64) error {
	switch {
	case !exists:
		return fmt.Errorf("%w: there is no snapshot, and the log begins at %d and lacks %d", ErrGap, first, missing)
	case first > head.Index+1:
		return fmt.Errorf("%w: the newest snapshot ends at %d, the log begins at %d", ErrGap, head.Index, first)
	}
	return fmt.Errorf("%w: the newest snapshot ends at %d, the log lacks %d", ErrGap, head.Index, missing)
}

// logMissing reports that raft.db does not exist or has no content.
func logMissing(path string) (bool, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	return err == nil && info.Size() == 0, err
}

// bounds returns the first and the last index in raft.db; 0 if it is empty.
func (l *logStore) bounds() (first, last uint64, err error) {
	if first, err = l.LogCache.FirstIndex(); err == nil {
		last, err = l.LogCache.LastIndex()
	}
	if err != nil {
		return 0, 0, fmt.Errorf("read %s: %w", logFile, err)
	}
	return first, last, nil
}

// GetLog implements raft.LogStore.
func (l *logStore) GetLog(index uint64, log *raft.Log) error {
	e := l.edge.Load()
	if e != nil && e.top > e.index && index > e.index && index <= e.top {
		*log = raft.Log{Index: index, Type: raft.LogNoop} // of term 0: no leader's
		return nil
	}
	err := l.readEntry(index, log)
	if errors.Is(err, raft.ErrLogNotFound) && e != nil && index == e.index && index > 0 && !l.leading() {
		// A leader asks for the entry before those it sends. A leader itself must not see it as
		// an entry, or it would send it.
		*log = raft.Log{Index: e.index, Term: e.term, Type: raft.LogNoop}
		return nil
	}
	if err != nil && !errors.Is(err, raft.ErrLogNotFound) && l.raft.Load() != nil {
		// Raft would panic. The node ends instead: once it has failed it applies nothing, and once it
		// has no contact to others this goes nowhere.
		l.fail(fmt.Errorf("read %s: entry %d: %w", logFile, index, err))
		l.cut()
		*log = raft.Log{Index: index, Type: raft.LogNoop} // of term 0: no leader's
		return nil
	}
	return err
}

// readEntry reads an entry of a file that is mapped into memory: a disk that can't read it makes that
// a fault, and what has changed since the start may make bbolt panic.
func (l *logStore) readEntry(index uint64, log *raft.Log) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = damagedf("%v", p)
		}
	}()
	return l.LogCache.GetLog(index, log)
}

func (l *logStore) leading() bool {
	r := l.raft.Load()
	return r != nil && r.State() == raft.Leader
}

// void reports whether Raft believes in a log that is gone.
func (l *logStore) void() bool {
	e := l.edge.Load()
	return e != nil && e.top > e.index
}

// voidFor returns how long the log has been void.
func (l *logStore) voidFor() time.Duration {
	if e := l.edge.Load(); e != nil && e.top > e.index {
		return time.Since(e.since)
	}
	return 0
}

// StoreLog implements raft.LogStore.
func (l *logStore) StoreLog(log *raft.Log) error { return l.StoreLogs([]*raft.Log{log}) }

// StoreLogs implements raft.LogStore.
func (l *logStore) StoreLogs(logs []*raft.Log) error {
	if l.void() {
		return errVoteWithheld // a candidate's, or one behind entries that are gone
	}
	defer l.bolt.appending.begin()()
	err := l.step("append")
	if err == nil && slices.ContainsFunc(logs, func(e *raft.Log) bool { return len(e.Data) >= largeEntry }) {
		err = l.bolt.StoreLogs(logs) // the cache would hold hundreds of them; what it has at their places was deleted before
	} else if err == nil {
		err = l.LogCache.StoreLogs(logs)
	}
	if err == nil && len(logs) > 0 {
		end := logs[len(logs)-1]
		err = l.reached(standing{Index: end.Index, Term: end.Term})
	}
	if err != nil {
		err = fmt.Errorf("append to %s: %w", logFile, err)
		l.fail(err)
		return err
	}
	l.installFailures.Store(0) // a leader that needed to send its snapshot could not have had this appended
	for _, e := range logs {
		if e.Type == raft.LogCommand {
			l.lastCommand.Store(e.Index)
		}
	}
	return nil
}

// DeleteRange implements raft.LogStore.
func (l *logStore) DeleteRange(first, last uint64) error {
	if e := l.edge.Load(); e != nil && e.top > e.index && first > e.index && last >= e.top {
		l.edge.Store(&edge{index: e.index, term: e.term})
		return nil // they are gone already
	}
	if l.leading() { // which deletes for no other reason than a snapshot of its own
		if last = l.held.limit(last); last < first {
			return nil // Raft tries again after its next snapshot
		}
	}
	err := l.step("shorten")
	if err == nil {
		err = l.LogCache.DeleteRange(first, last)
	}
	if err != nil {
		err = fmt.Errorf("shorten %s: %w", logFile, err)
		l.fail(err)
		return err
	}
	if c := l.lastCommand.Load(); first <= c && c <= last {
		l.lastCommand.Store(max(first, 1) - 1) // an upper bound of what is left
	}
	return nil
}

// published notes that a snapshot of this node's own state was published.
func (l *logStore) published(index, term uint64) {
	if !l.void() {
		l.edge.Store(&edge{index: index, term: term, passed: true})
	}
}

// install publishes the snapshot id, which the leader sent, and discards the log unless the log
// contains the snapshot's last entry. A crash between the two is told by the note that is made
// first: the log is discarded at the next start if the head then is the snapshot named in it.
func (l *logStore) install(id string, index, term uint64, head snapshot.Head, publish func() error) error {
	_, top, err := l.bounds()
	if err != nil {
		return err
	}
	discard := false
	if e := l.edge.Load(); e != nil && e.top > e.index {
		top = e.top // there is no log, but Raft does not know yet
	} else if discard, err = l.lacks(index, term, head, top); err != nil {
		return err
	}
	if discard {
		if err := l.set(keyDiscard, []byte(id)); err != nil {
			return err
		}
	}
	void := discard || l.void()
	if err := publish(); err != nil {
		return err // a note then names a snapshot that never is the head
	}
	if discard {
		if err := l.finishDiscard(id); err != nil {
			l.fail(err)
			return err
		}
	}
	e := &edge{index: index, term: term}
	if void {
		l.lastCommand.Store(index)
		if top > index {
			e.top, e.since = top, time.Now()
		}
	}
	l.edge.Store(e)
	return nil
}

// lacks reports whether a log that ends at last does not contain the last entry of a snapshot,
// neither itself nor in front of it, compacted into head.
func (l *logStore) lacks(index, term uint64, head snapshot.Head, last uint64) (bool, error) {
	if last == 0 || head.ID != "" && head.Index == index && head.Term == term {
		return false, nil
	}
	var e raft.Log
	err := l.LogCache.GetLog(index, &e)
	if errors.Is(err, raft.ErrLogNotFound) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("read %s: entry %d: %w", logFile, index, err)
	}
	return e.Term != term, nil
}

// finishDiscard empties the log if the note says that the snapshot head makes it worthless.
func (l *logStore) finishDiscard(head string) error {
	note, err := l.get(keyDiscard)
	if err != nil || len(note) == 0 {
		return err
	}
	if string(note) == head {
		if err := l.clear(); err != nil {
			return err
		}
	}
	return l.set(keyDiscard, nil)
}

// clear deletes every entry, in one transaction.
func (l *logStore) clear() error {
	first, last, err := l.bounds()
	if err != nil || last == 0 {
		return err
	}
	if err = l.step("clear"); err == nil {
		err = l.LogCache.DeleteRange(first, last)
	}
	if err != nil {
		return fmt.Errorf("clear %s: %w", logFile, err)
	}
	l.damaged = 0
	return nil
}

// commandUpTo returns the index of the last command at or before index, or floor if there is none
// behind that. Other entries pass the state machine by.
func (l *logStore) commandUpTo(index, floor uint64) (uint64, error) {
	for i := index; i > floor; i-- {
		if e := l.edge.Load(); e != nil && e.passed && i <= e.index {
			// The log may be gone, and nothing but commands tells how far the state machine is.
			return floor, nil
		}
		var e raft.Log
		err := l.LogCache.GetLog(i, &e)
		if errors.Is(err, raft.ErrLogNotFound) {
			return i, nil // a snapshot covers it, and is being restored
		}
		if err != nil {
			return 0, fmt.Errorf("read %s: entry %d: %w", logFile, i, err)
		}
		if e.Type == raft.LogCommand {
			return i, nil
		}
	}
	return floor, nil
}
