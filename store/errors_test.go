package store

import (
	"errors"
	"fmt"
	"testing"
)

// TestText makes sure that an error keeps its meaning on its way between nodes.
func TestText(t *testing.T) {
	tests := []struct {
		err  error
		text string
		want error // what the other node makes of text
	}{
		{nil, "", nil},
		{ErrNotLeader, "not leader", ErrNotLeader},
		{fmt.Errorf("add node: %w", ErrNotLeader), "not leader", ErrNotLeader},
		{ErrNoLeader, "leader not found", ErrNoLeader},
		{ErrLeadershipLost, "leadership lost while committing log", ErrUnknown},
		{ErrWaitTimeout, "timeout waiting for the write, which may still be applied", ErrUnknown},
		{ErrLogBusy, "timed out enqueuing operation", ErrBusy}, // to take it for a refusal would lose a queued write
		{ErrStaleRead, "stale read", ErrStaleRead},
		{ErrNotOpen, "store not open", ErrNotOpen},
		{fmt.Errorf("%w: restoring", ErrNotReady), "store not ready", ErrNotReady},
		{ErrUnauthorized, "unauthorized", ErrUnauthorized},
		{ErrNodeNotFound, "node not found in cluster", ErrNodeNotFound},
		{ErrSelfStepdown, "cannot step down to the current Leader", ErrSelfStepdown},
	}
	for _, tt := range tests {
		t.Run(tt.text, func(t *testing.T) {
			if got := Text(tt.err); got != tt.text {
				t.Errorf("Text(%v) = %q; want %q", tt.err, got, tt.text)
			}
			if got := FromText(tt.text); !errors.Is(got, tt.want) {
				t.Errorf("FromText(%q) = %v; want %v", tt.text, got, tt.want)
			}
		})
	}
}

func TestTextWithData(t *testing.T) {
	text := Text(&FSMTimeoutError{Index: 340})
	if want := "index 340: timeout waiting for fsm"; text != want {
		t.Errorf("Text = %q; want %q", text, want)
	}
	if e, ok := errors.AsType[*FSMTimeoutError](FromText(text)); !ok || e.Index != 340 {
		t.Errorf("FromText(%q) = %v; want index 340", text, e)
	}
	if e, ok := errors.AsType[*RequestError](FromText("no such table: foo")); !ok || e.Msg != "no such table: foo" {
		t.Errorf("FromText = %v; want a RequestError", e)
	}
}
