package auth

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// maxFile bounds the credentials file in bytes.
const maxFile = 16 << 20

// errNoList is what operators know from rqlite for a file that is no list.
var errNoList = errors.New("not at beginning of value")

// entry is what the file says of a user.
type entry struct {
	name     string
	password *string // nil if there is none, and so no login
	perms    []string
}

// readFile returns the content of the file and what was known of it when reading began, so that
// whatever is written to it later makes a difference.
func readFile(path string) ([]byte, os.FileInfo, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, nil, err
	}
	if len(data) > maxFile {
		return nil, nil, fmt.Errorf("%s: larger than %d bytes", path, maxFile)
	}
	return data, info, nil
}

// parse decodes the content of a file. Errors are those of encoding/json with the line on which
// the entry begins that they are about.
func parse(data []byte) ([]entry, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	entries, start, err := decode(dec)
	if err == nil {
		return entries, nil
	}
	if errors.Is(err, io.EOF) && len(bytes.TrimSpace(data)) > 0 {
		err = io.ErrUnexpectedEOF
	}
	return nil, fmt.Errorf("line %d: %w", lineOf(data, start), err)
}

// decode returns the entries, or an error and the offset of what it is about.
func decode(dec *json.Decoder) (entries []entry, start int64, err error) {
	// Credential is a name that the decoder's messages repeat.
	type Credential struct {
		Username string   `json:"username"`
		Password *string  `json:"password"`
		Perms    []string `json:"perms"`
	}
	opening, err := dec.Token()
	if err != nil {
		return nil, 0, err
	}
	if opening != json.Delim('[') {
		return nil, 0, errNoList
	}
	for dec.More() {
		start = dec.InputOffset()
		var c Credential // a new one: what is missing must not come from the entry before
		if err := dec.Decode(&c); err != nil {
			return nil, start, err
		}
		if cost, hashed := hashCost(c.Password); hashed && cost > maxCost {
			return nil, start, fmt.Errorf("bcrypt cost %d is above %d", cost, maxCost)
		}
		entries = append(entries, entry{c.Username, c.Password, c.Perms})
	}
	start = dec.InputOffset()
	if _, err := dec.Token(); err != nil {
		return nil, start, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, dec.InputOffset(), errors.New("more than one list")
	}
	return entries, 0, nil
}

// lineOf returns the line on which the first value at or behind offset begins.
func lineOf(data []byte, offset int64) int {
	at := int(offset)
	for at < len(data) && bytes.IndexByte([]byte(" \t\r\n,"), data[at]) >= 0 {
		at++
	}
	return 1 + bytes.Count(data[:at], []byte{'\n'})
}
