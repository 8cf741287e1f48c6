package auth

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestOpenErrors(t *testing.T) {
	tests := []struct{ name, content, want string }{
		{"empty", "", "line 1: EOF"},
		{"blank", " \n", "line 2: EOF"},
		{"object", `{"username": "bob"}`, "line 1: not at beginning of value"},
		{"string", `"bob"`, "line 1: not at beginning of value"},
		{"garbage", "garbage", "line 1: invalid character 'g' looking for beginning of value"},
		{"bracket", "[", "line 1: unexpected EOF"},
		{"truncated", "[\n{\"username\": \"bob\"},\n {\"username\": \"al\",\n", "line 3: unexpected EOF"},
		{"open list", "[\n{\"username\": \"bob\"}\n", "line 3: unexpected EOF"},
		{"type", "[\n{},\n{\n\"username\": 5}]", "line 3: json: cannot unmarshal number into Go struct field Credential.username of type string"},
		{"perms", `[{"perms": "all"}]`, "line 1: json: cannot unmarshal string into Go struct field Credential.perms of type []string"},
		{"no entry", `["bob"]`, "line 1: json: cannot unmarshal string into Go value of type auth.Credential"},
		{"trailing comma", "[{},\n]", "line 2: invalid character ']' looking for beginning of value"},
		{"two lists", "[]\n[]", "line 2: more than one list"},
		{"cost", "[\n{\"username\": \"u\", \"password\": \"$2a$17$" + star[7:] + "\"}]", "line 2: bcrypt cost 17 is above 16"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "users.json")
			write(t, path, tt.content)
			_, err := Open(path, Config{})
			if want := path + ": " + tt.want; err == nil || err.Error() != want {
				t.Errorf("Open() = %v; want %s", err, want)
			}
		})
	}
}

func TestOpenMissing(t *testing.T) {
	_, err := Open("nope", Config{})
	if want := "open nope: no such file or directory"; !errors.Is(err, fs.ErrNotExist) || err.Error() != want {
		t.Errorf("Open() = %v; want %s", err, want)
	}
}

func TestOpenTooLarge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users.json")
	write(t, path, "[]")
	if err := os.Truncate(path, maxFile); err != nil {
		t.Fatal(err)
	}
	if data, _, err := readFile(path); len(data) != maxFile || err != nil {
		t.Errorf("readFile() = %d bytes, %v at the bound", len(data), err)
	}
	if err := os.Truncate(path, maxFile+1); err != nil {
		t.Fatal(err)
	}
	_, err := Open(path, Config{})
	if want := path + ": larger than 16777216 bytes"; err == nil || err.Error() != want {
		t.Errorf("Open() = %v; want %s", err, want)
	}
}

// FuzzParse compares the entries with those that encoding/json finds in the whole text.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"[]", `[{"username":"bob","password":"x","perms":["all"]},{"username":"*"}]`, `[null,{"password":null}]`,
		"[{},]", "[{}{}]", "[{}", "{}", "", `[{"username":"` + star + `"}] `,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, err := parse(data)
		if err != nil {
			return
		}
		var want []struct {
			Username string
			Password *string
			Perms    []string
		}
		if err := json.Unmarshal(data, &want); err != nil || len(want) != len(entries) {
			t.Fatalf("parse(%q) = %d entries; encoding/json has %d, %v", data, len(entries), len(want), err)
		}
		for i, e := range entries {
			if w := want[i]; e.name != w.Username || (e.password == nil) != (w.Password == nil) || len(e.perms) != len(w.Perms) {
				t.Errorf("parse(%q): entry %d = %+v; want %+v", data, i, e, w)
			}
		}
	})
}
