package store

import "fmt"

// raftTerm is where Raft keeps its term.
const raftTerm = "CurrentTerm"

// settingsStore is Raft's stable store, for its term and votes. A disk that does not take them ends the node.
type settingsStore struct {
	*boltLog
	logs *logStore
}

// Set implements raft.StableStore.
func (s settingsStore) Set(key, value []byte) error {
	err := s.logs.step("note " + string(key))
	if err == nil {
		err = s.boltLog.Set(key, value)
	}
	if err != nil {
		err = fmt.Errorf("note %s in %s: %w", key, logFile, err)
		s.logs.fail(err)
		s.logs.cut()
	}
	return err
}

// SetUint64 implements raft.StableStore.
func (s settingsStore) SetUint64(key []byte, value uint64) error {
	err := s.Set(key, logKey(value))
	if string(key) == raftTerm {
		// Raft would panic. The node ends instead: it has no contact to others any more, and writes nothing to
		// its log, neither entries nor votes. So a term that is not noted goes nowhere.
		return nil
	}
	return err
}
