package command

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestBackupRequest(t *testing.T) {
	tests := []struct {
		name  string
		in    BackupRequest
		wire  string
		valid bool
	}{
		{"nothing", BackupRequest{}, "", false},
		{"binary of the leader", BackupRequest{Format: BackupBinary, Leader: true}, "\x08\x02\x10\x01", true},
		{"vacuumed", BackupRequest{Format: BackupBinary, Vacuum: true}, "\x08\x02\x18\x01", true},
		{"DELETE mode", BackupRequest{Format: BackupDelete}, "\x08\x03", true},
		{"DELETE mode, vacuumed", BackupRequest{Format: BackupDelete, Vacuum: true}, "\x08\x03\x18\x01", false},
		{"some tables", BackupRequest{Format: BackupSQL, Compress: true, Tables: []string{"a", ""}}, "\x08\x01\x20\x01\x2a\x01a\x2a\x00", true},
		{"SQL, vacuumed", BackupRequest{Format: BackupSQL, Vacuum: true}, "\x08\x01\x18\x01", false},
		{"a format of later", BackupRequest{Format: 4}, "\x08\x04", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if b := AppendBackupRequest(nil, &tt.in); string(b) != tt.wire {
				t.Errorf("AppendBackupRequest = %q; want %q", b, tt.wire)
			}
			if got, err := DecodeBackupRequest([]byte(tt.wire)); err != nil || !reflect.DeepEqual(*got, tt.in) {
				t.Errorf("DecodeBackupRequest = %+v, %v; want %+v", got, err, tt.in)
			}
			if err := tt.in.Check(); (err == nil) != tt.valid || err != nil && !errors.Is(err, ErrBackupFormat) {
				t.Errorf("Check = %v; want valid: %t", err, tt.valid)
			}
		})
	}
}

func TestBackupRequestMalformed(t *testing.T) {
	if r, err := DecodeBackupRequest([]byte("\x2a\x05a")); !errors.Is(err, ErrMalformed) {
		t.Errorf("DecodeBackupRequest = %+v, %v; want ErrMalformed", r, err)
	}
	if _, err := DecodeBackupRequest([]byte(strings.Repeat("\x2a\x00", maxBackupTables+1))); !errors.Is(err, ErrTooLarge) {
		t.Errorf("DecodeBackupRequest of too many tables = %v; want ErrTooLarge", err)
	}
}

func TestScriptRequest(t *testing.T) {
	r, err := ScriptRequest("BEGIN; COMMIT")
	if err != nil || r.Kind != Execute || !r.RollbackOnError || len(r.Statements) != 1 || r.Statements[0].SQL != "BEGIN; COMMIT" {
		t.Errorf("ScriptRequest = %+v, %v", r, err)
	}
	if r, err := ScriptRequest(""); err != nil || len(r.Statements) != 0 {
		t.Errorf("ScriptRequest of nothing = %+v, %v", r, err)
	}
	if _, err := ScriptRequest(strings.Repeat(" ", MaxScript+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("ScriptRequest of too much = %v; want ErrTooLarge", err)
	}
}
