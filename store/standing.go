package store

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/hashicorp/raft"

	"rqlited/snapshot"
)

// Keys in the stable store, beside Raft's own.
var (
	// keyDiscard names the snapshot whose publication makes the whole log worthless. See
	// logStore.install.
	keyDiscard = []byte("rqlited_discard_log")

	// keyHead holds the standing of the newest snapshot, for the day when that cannot be read.
	keyHead = []byte("rqlited_head")

	// keyFloor holds the standing of a node that has lost its state. See logStore.silent.
	keyFloor = []byte("rqlited_floor")

	// ownKeys is how all of these begin.
	ownKeys = []byte("rqlited_")

	// keyNode holds the id of the node that the directory belongs to.
	keyNode = []byte("rqlited_node_id")
)

// standing is how far a log or a snapshot goes, and who the members were then.
type standing struct {
	Snapshot string   `json:"snapshot,omitempty"` // id, if it is that of a snapshot
	Index    uint64   `json:"index"`
	Term     uint64   `json:"term"`
	Members  []Server `json:"members"`
}

// before compares as Raft does in an election.
func (s standing) before(o standing) bool {
	return cmp.Or(cmp.Compare(s.Term, o.Term), cmp.Compare(s.Index, o.Index)) < 0
}

// updated returns the farther of the two, with the members of the newer one, o, if it has any.
func (s standing) updated(o standing) standing {
	members := s.Members
	if len(o.Members) > 0 {
		members = o.Members
	}
	if s.before(o) {
		s = o
	}
	s.Members = members
	return s
}

// hasOthers reports whether a voter but the node itself is among the members.
func (s standing) hasOthers(id string) bool {
	return slices.ContainsFunc(s.Members, func(m Server) bool { return m.Voter && m.ID != id })
}

// standingOf returns the standing of a snapshot.
func standingOf(m *raft.SnapshotMeta) standing {
	return standing{m.ID, m.Index, m.Term, serversOf(m.Configuration)}
}

func serversOf(c raft.Configuration) (out []Server) {
	for _, sv := range c.Servers {
		out = append(out, Server{ID: string(sv.ID), Addr: string(sv.Address), Voter: sv.Suffrage == raft.Voter})
	}
	slices.SortFunc(out, func(a, b Server) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// read returns the standing under key; ok is false if there is none.
func (l *logStore) read(key []byte) (s standing, ok bool, err error) {
	data, err := l.get(key)
	if err != nil || len(data) == 0 {
		return s, false, err
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return s, false, fmt.Errorf("read %s: %s: %w", logFile, key, err)
	}
	return s, true, nil
}

// get returns the value of key; nil if there is none.
func (l *logStore) get(key []byte) ([]byte, error) {
	data, err := l.bolt.Get(key)
	if errors.Is(err, errKeyNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", logFile, err)
	}
	return data, nil
}

// set makes value durable under key; nil deletes it.
func (l *logStore) set(key, value []byte) error {
	err := l.step("set " + string(key))
	if err == nil {
		err = l.bolt.Set(key, value)
	}
	if err != nil {
		return fmt.Errorf("note in %s: %w", logFile, err)
	}
	return nil
}

func (l *logStore) write(key []byte, s standing) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return l.set(key, data)
}

// noteHead remembers the standing of the newest snapshot, unless that is known already.
func (l *logStore) noteHead(m *raft.SnapshotMeta) error {
	s, ok, err := l.read(keyHead)
	if err != nil || ok && s.Snapshot == m.ID {
		return err
	}
	return l.write(keyHead, standingOf(m))
}

// known returns what this node has at some time acknowledged to have, at most, and the newest
// members that are known of. It needs nothing but raft.db.
func (l *logStore) known() (standing, error) {
	var k standing
	for _, key := range [][]byte{keyFloor, keyHead} {
		s, _, err := l.read(key)
		if err != nil {
			return k, err
		}
		k = k.updated(s)
	}
	seal, err := l.bolt.sealed() // whatever has become of the entries
	if err != nil {
		return k, fmt.Errorf("read %s: %w", logFile, err)
	}
	k = k.updated(standing{Index: seal.last, Term: seal.term})
	if seal.members == 0 {
		return k, nil
	}
	var e raft.Log
	if err := l.LogCache.GetLog(seal.members, &e); err != nil {
		return k, fmt.Errorf("the members are not known: read %s: entry %d: %w", logFile, seal.members, err)
	}
	k.Members = serversOf(raft.DecodeConfiguration(e.Data))
	return k, nil
}

// leadsOn reports whether the log, applied to a snapshot, leads to all that is known.
func (l *logStore) leadsOn(head snapshot.Head, known standing) (bool, error) {
	note, err := l.get(keyDiscard)
	if err != nil || len(note) > 0 {
		return false, err // an install may have made the log worthless
	}
	if l.damaged > head.Index {
		return false, nil
	}
	first, last, err := l.bounds()
	if err != nil {
		return false, err
	}
	end := standing{Index: head.Index, Term: head.Term}
	if last > head.Index {
		if first > head.Index+1 {
			return false, nil
		}
		var e raft.Log
		if err := l.LogCache.GetLog(last, &e); err != nil {
			return false, fmt.Errorf("read %s: entry %d: %w", logFile, last, err)
		}
		end = standing{Index: e.Index, Term: e.Term}
	}
	if end.before(known) || end.Index < head.Until {
		return false, nil
	}
	return l.joins(head, first, last)
}

// joins reports whether the terms of the entries at the end of head fit its own.
func (l *logStore) joins(head snapshot.Head, first, last uint64) (bool, error) {
	for i := max(head.Index, first, l.damaged+1); i <= min(head.Index+1, last); i++ {
		var e raft.Log
		if err := l.LogCache.GetLog(i, &e); err != nil {
			return false, fmt.Errorf("read %s: entry %d: %w", logFile, i, err)
		}
		if i == head.Index && e.Term != head.Term || e.Term < head.Term {
			return false, nil
		}
	}
	return true, nil
}

// silent reports whether this node has lost entries that it has acknowledged, and has not got a
// log that is as good as the lost one. Until then it must have no say in an election: a candidate
// that lacks those entries could win by its vote, or it could win itself.
func (l *logStore) silent() bool { return l.floor.Load() != nil }

// withheld reports whether this node must not stand in an election.
func (l *logStore) withheld() bool { return l.void() || l.silent() }

// loseState makes this node a silent one without a log. The floor comes first: a node that has
// neither log nor floor would vote for anybody. Done again, it finds the same floor.
func (l *logStore) loseState(floor standing) error {
	floor.Snapshot = ""
	if err := l.write(keyFloor, floor); err != nil {
		return err
	}
	if err := l.set(keyHead, nil); err != nil { // whose members would pass for newer ones
		return err
	}
	return l.clear()
}

// openFloor reads whether this node is silent. It is given the end of what it has now.
func (l *logStore) openFloor(end standing) error {
	s, ok, err := l.read(keyFloor)
	if err != nil || !ok {
		return err
	}
	l.floor.Store(&s)
	l.returning.Store(true)
	return l.reached(end)
}

// reached ends the silence if end, which is durable, is not below the floor.
func (l *logStore) reached(end standing) error {
	f := l.floor.Load()
	if f == nil || end.before(*f) {
		return nil
	}
	if err := l.set(keyFloor, nil); err != nil {
		return err
	}
	l.floor.Store(nil)
	if l.spoken != nil {
		l.spoken(end.Index)
	}
	return nil
}
