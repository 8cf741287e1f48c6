package http

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
)

// TestRequestFailed expects an error in the log for a request that fails, but not when the node has failed:
// then that is the error, and is said elsewhere, once.
func TestRequestFailed(t *testing.T) {
	tests := []struct {
		node error
		want string
	}{
		{nil, `level=ERROR msg="request failed" method=POST path=/snapshot err="disk error"`},
		{errors.New("append to raft.db: disk error"), `level=WARN msg="request failed" method=POST path=/snapshot err="disk error"`},
	}
	for _, tt := range tests {
		f := newFixture()
		var log bytes.Buffer
		f.cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
		f.node.failed, f.node.snapshotErr = tt.node, errors.New("disk error")
		f.do(t, "POST", "/snapshot", "")
		if !strings.Contains(log.String(), tt.want) {
			t.Errorf("log is %q; want %s", &log, tt.want)
		}
	}
}
