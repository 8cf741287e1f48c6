package cluster

import (
	"errors"

	"rqlited/command"
	"rqlited/store"
)

var (
	// ErrMalformed means that bytes from a peer are not what the protocol says; the connection
	// they came from is closed.
	ErrMalformed = command.ErrMalformed

	// ErrTooLarge means that a message is over its bound; nothing of it was kept.
	ErrTooLarge = command.ErrTooLarge

	// ErrClosed means that the Client was closed; nothing was sent.
	ErrClosed = errors.New("cluster: client closed")
)

// UnauthorizedError means that the node asked refused the user. Its text is for the user.
type UnauthorizedError struct {
	Act string // what was refused, as in "remote Execute not authorized"
}

func (e *UnauthorizedError) Error() string { return "remote " + e.Act + " not authorized" }

// Is reports that e is a store.ErrUnauthorized.
func (e *UnauthorizedError) Is(target error) bool { return target == store.ErrUnauthorized }

// CallError means that a call brought no answer. Its text is that of Err, which users know.
type CallError struct {
	Addr string // the node called
	Sent bool   // the network took the whole of a request that may change something, so it may have
	Err  error
}

func (e *CallError) Error() string { return e.Err.Error() }

func (e *CallError) Unwrap() error { return e.Err }

// Is reports that an e that was sent is a store.ErrUnknown.
func (e *CallError) Is(target error) bool { return e.Sent && target == store.ErrUnknown }
