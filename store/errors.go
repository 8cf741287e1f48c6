package store

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"rqlited/command"
)

var (
	// ErrNotLeader means that only the leader can answer; no part of the request was applied.
	ErrNotLeader = errors.New("store: not leader")

	// ErrNoLeader means that the cluster has no leader that this node knows of; no part of the
	// request was applied.
	ErrNoLeader = errors.New("store: leader not found")

	// ErrNotOpen means that the store is not open yet, or not any more.
	ErrNotOpen = errors.New("store: not open")

	// ErrNotReady means that the store is open but may not serve requests yet.
	ErrNotReady = errors.New("store: not ready")

	// ErrUnknown means that the request reached the log and its fate is not known: it may be
	// applied later, or never. A client may retry only what is safe to apply twice.
	ErrUnknown = errors.New("store: outcome unknown")

	// ErrLeadershipLost is the ErrUnknown of a leader that was deposed while it waited.
	ErrLeadershipLost = fmt.Errorf("%w: leadership lost while committing log", ErrUnknown)

	// ErrWaitTimeout is the ErrUnknown of a client whose bound on the wait ended.
	ErrWaitTimeout = fmt.Errorf("%w: timed out waiting for the write, which may still be applied", ErrUnknown)

	// ErrStaleRead means that the data of this node is older than the read allows, or that the
	// term changed while the read was being answered.
	ErrStaleRead = errors.New("store: stale read")

	// ErrNothingNew means that there was nothing to put into a snapshot.
	ErrNothingNew = errors.New("store: nothing new to snapshot")

	// ErrUnauthorized means that the node asked did not accept the credentials.
	ErrUnauthorized = errors.New("store: unauthorized")

	// ErrBusy means that something else, such as a long read, is in the way; it may be tried again.
	ErrBusy = errors.New("store: busy")

	// ErrLogBusy is the ErrBusy of a leader whose log takes nothing more for now; nothing was applied.
	ErrLogBusy = fmt.Errorf("%w: timed out enqueuing operation", ErrBusy)

	// ErrOverloaded means that the node takes nothing more on for now; nothing was done.
	ErrOverloaded = errors.New("store: overloaded")

	// ErrInvalidData means that what should be a SQLite file is none that can be loaded; nothing was changed.
	ErrInvalidData = errors.New("store: invalid SQLite data")

	// ErrNoSpace means that the disk has no room for what was asked for; nothing was changed.
	ErrNoSpace = errors.New("store: not enough free space")

	// ErrNotSingle means that only a node that is a cluster on its own can do it; nothing was changed.
	ErrNotSingle = errors.New("store: not single-node")

	// ErrNoHash means that this node does not have the hash of the state at that index, and will not.
	ErrNoHash = errors.New("store: no hash")

	// ErrHashVersion means that a node computes hashes that can't be compared with those of this one.
	ErrHashVersion = errors.New("store: computes another version of the hash")

	// ErrNodeNotFound means that the cluster has no node of that id.
	ErrNodeNotFound = errors.New("store: node not found in cluster")

	// ErrSelfStepdown means that leadership cannot be handed to the node that has it.
	ErrSelfStepdown = errors.New("store: cannot step down to the current leader")

	// ErrNoPeer means that there is no other voter to take leadership over.
	ErrNoPeer = errors.New("store: cannot find peer")

	// ErrLocked means that another process uses the data directory; nothing was touched.
	ErrLocked = errors.New("store: data directory is in use by another process")

	// ErrGap means that the log does not begin where the newest snapshot ends, so that entries
	// are missing; nothing was changed.
	ErrGap = errors.New("store: log entries are missing after the snapshot")

	// ErrLogDamaged means that the log is not as it was written; nothing was changed.
	ErrLogDamaged = errors.New("store: log is damaged")

	// ErrForeign means that the data directory is that of another node; nothing was changed.
	ErrForeign = errors.New("store: data directory belongs to another node")

	// ErrForeignKeys means that a node was refused because it enforces foreign keys and the cluster, or a
	// node that is to form one with it, does not, or the other way round; nothing was changed.
	ErrForeignKeys = errors.New("store: foreign keys differ")

	// ErrExtensions means that a node was refused because it has not the same SQLite extensions as the cluster, or as a
	// node that is to form one with it; nothing was changed.
	ErrExtensions = errors.New("store: extensions differ")

	// ErrAddrInUse means that a node of another id has the address already.
	ErrAddrInUse = errors.New("store: address belongs to another node")
)

// RequestError reports that a request as a whole was refused, or failed in the words of SQLite.
// Nothing of it remains applied unless Msg says so.
type RequestError struct{ Msg string }

func (e *RequestError) Error() string { return e.Msg }

// OverloadError is an ErrOverloaded that names the bound.
type OverloadError struct{ Msg string }

func (e *OverloadError) Error() string { return overloaded + e.Msg }

// Is reports that e is an ErrOverloaded.
func (e *OverloadError) Is(target error) bool { return target == ErrOverloaded }

// overloaded begins the text of an OverloadError, by which other nodes know it.
const overloaded = "node is busy: "

// FSMTimeoutError reports that a linearizable read ended its wait for the state machine.
type FSMTimeoutError struct{ Index uint64 }

func (e *FSMTimeoutError) Error() string {
	return fmt.Sprintf("index %d: timeout waiting for fsm", e.Index)
}

// foreignKeysError is the ErrForeignKeys of a node that has foreign keys on, or off: the leader of a
// cluster, or one that is to form a cluster.
type foreignKeysError struct {
	own    command.Setting
	formed bool
}

func (e foreignKeysError) Error() string {
	other := command.SettingOf(e.own == command.Off)
	if e.formed {
		return fmt.Sprintf("foreign keys are %s in this cluster and %s on the node that asks (-fk): all nodes must agree", e.own, other)
	}
	return fmt.Sprintf("foreign keys are %s on the node asked and %s on the node that asks (-fk), and there is no cluster yet: all nodes must agree", e.own, other)
}

func (foreignKeysError) Unwrap() error { return ErrForeignKeys }

// texts pairs each error with the words that clients and nodes of rqlite know it by. The first
// error that matches wins, so the narrower one stands first.
var texts = []struct {
	err  error
	text string
}{
	{ErrLeadershipLost, "leadership lost while committing log"},
	{ErrWaitTimeout, "timeout waiting for the write, which may still be applied"},
	{ErrLogBusy, "timed out enqueuing operation"},
	{ErrNotLeader, "not leader"},
	{ErrNoLeader, "leader not found"},
	{ErrNotOpen, "store not open"},
	{ErrNotReady, "store not ready"},
	{ErrStaleRead, "stale read"},
	{ErrUnauthorized, "unauthorized"},
	{ErrNothingNew, "nothing new to snapshot"},
	{ErrNoHash, "no hash of the state at that index"},
	{ErrNodeNotFound, "node not found in cluster"},
	{ErrSelfStepdown, "cannot step down to the current Leader"},
	{ErrNoPeer, "cannot find peer"},
	{ErrInvalidData, "invalid SQLite data"},
	{ErrNoSpace, "not enough free space"},
	{ErrNotSingle, "not single-node"},
}

// Text returns the words that rqlite's clients and nodes expect for err, and err's own text if
// there are none. The text of nil is empty.
func Text(err error) string {
	if err == nil {
		return ""
	}
	for _, t := range texts {
		if errors.Is(err, t.err) {
			return t.text
		}
	}
	return err.Error()
}

// FromText returns the error that a node meant by s: one of this package if the words are known,
// a *RequestError otherwise. It returns nil for the empty string.
func FromText(s string) error {
	if s == "" {
		return nil
	}
	for _, t := range texts {
		if s == t.text {
			return t.err
		}
	}
	for _, own := range []command.Setting{command.Off, command.On} {
		for _, formed := range []bool{false, true} {
			if err := (foreignKeysError{own, formed}); s == err.Error() {
				return err
			}
		}
	}
	if msg, ok := strings.CutPrefix(s, overloaded); ok {
		return &OverloadError{msg}
	}
	if strings.HasPrefix(s, extensionsText) {
		return extensionsError{s}
	}
	if rest, ok := strings.CutPrefix(s, "index "); ok {
		if n, ok := strings.CutSuffix(rest, ": timeout waiting for fsm"); ok {
			if index, err := strconv.ParseUint(n, 10, 64); err == nil {
				return &FSMTimeoutError{Index: index}
			}
		}
	}
	return &RequestError{Msg: s}
}
