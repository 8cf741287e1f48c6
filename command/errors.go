package command

import "errors"

var (
	// ErrMalformed means that bytes which should be a message are not; nothing was decoded.
	ErrMalformed = errors.New("command: malformed message")

	// ErrTooLarge means that a message, or what it decompresses to, is over its bound.
	ErrTooLarge = errors.New("command: message too large")
)
