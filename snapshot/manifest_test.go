package snapshot

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"reflect"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
)

// testManifest returns a valid manifest with a base and a delta.
func testManifest() *manifest {
	l := link{
		File: "000003.base", PageSize: 4096, Pages: 10, Records: 10, Stream: digest{1},
		ID: "2-7-1", Index: 7, Term: 2, Snapshot: digest{9}, ConfigurationIndex: 4,
		Configuration: serversOf(testConfiguration),
	}
	l.Size = l.header().streamSize()
	d := link{
		File: "000004.delta", PageSize: 4096, Pages: 12, Records: 3, Stream: digest{2},
		ID: "2-9-4", Index: 9, Term: 2, Snapshot: chainDigest(digest{9}, true, digest{2}), ConfigurationIndex: 4,
		Configuration: serversOf(raft.Configuration{}),
	}
	d.Size = d.header().streamSize()
	return &manifest{Next: 5, Chain: []link{l, d}}
}

// resealManifest makes the checksum match.
func resealManifest(data []byte) []byte {
	_, body, _ := bytes.Cut(data, []byte("\n"))
	sum := sha256.Sum256(body)
	return append([]byte(manifestTitle+hex.EncodeToString(sum[:])+"\n"), body...)
}

func TestManifest(t *testing.T) {
	m := testManifest()
	data, err := m.encode()
	must(t, err)
	golden(t, "manifest.txt", strings.Split(strings.TrimSuffix(string(data), "\n"), "\n"))
	got, err := decodeManifest(data)
	if err != nil || !reflect.DeepEqual(got, m) {
		t.Errorf("decodeManifest = %+v, %v; want %+v", got, err, m)
	}
}

// TestInvalidManifest checks that what could not have been published is neither written nor read.
func TestInvalidManifest(t *testing.T) {
	tests := []struct {
		name   string
		change func(m *manifest)
		says   string
	}{
		{"delta first", func(m *manifest) { m.Chain = m.Chain[1:] }, "number 1 of a chain"},
		{"base on top", func(m *manifest) {
			m.Chain[1].File, m.Chain[1].Records = "000004.base", 12
			m.Chain[1].Size = m.Chain[1].header().streamSize()
		}, "number 2 of a chain"},
		{"file of another directory", func(m *manifest) { m.Chain[0].File = "../000003.base" }, "no such name"},
		{"file named otherwise", func(m *manifest) { m.Chain[0].File = "3.base" }, "no such name"},
		{"number not reached", func(m *manifest) { m.Next = 4 }, "no such name below number 4"},
		{"id of another index", func(m *manifest) { m.Chain[0].Index = 8 }, "is not one of term 2, index 8"},
		{"id with more", func(m *manifest) { m.Chain[0].ID += "x" }, "is not one of"},
		{"id twice", func(m *manifest) { m.Chain[1].ID, m.Chain[1].Index = "2-7-1", 7 }, "twice"},
		{"size", func(m *manifest) { m.Chain[1].Size++ }, "is not that of 3 records"},
		{"page size", func(m *manifest) { m.Chain[0].PageSize = 4095; m.Chain[0].Size = m.Chain[0].header().streamSize() }, "page size is 4095"},
		{"mixed page sizes", func(m *manifest) {
			m.Chain[1].PageSize = 8192
			m.Chain[1].Size = m.Chain[1].header().streamSize()
		}, "8192 upon 4096"},
		{"other parent", func(m *manifest) { m.Chain[0].Snapshot = digest{8} }, "does not belong upon"},
		{"other delta", func(m *manifest) { m.Chain[1].Stream = digest{8} }, "does not belong upon"},
		{"unknown suffrage", func(m *manifest) { m.Chain[0].Configuration[0].Suffrage = "King" }, "suffrage"},
		{"id that is no text", func(m *manifest) { m.Chain[0].Configuration[0].ID = "\xff" }, "cannot be written"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := testManifest()
			tt.change(m)
			if _, err := m.encode(); err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("encode = %v; want an error saying %q", err, tt.says)
			}
		})
	}
}

// TestForeignManifest changes the text of a manifest and makes the checksum match again.
func TestForeignManifest(t *testing.T) {
	tests := []struct{ name, from, to string }{
		{"unknown field", `"next"`, `"later": 1, "next"`},
		{"other spelling", `"next"`, `"Next"`},
		{"other white space", "\t\"next\"", " \"next\""},
		{"more after the end", "}\n", "}\n{}\n"},
		{"short digest", `"01`, `"`},
		{"number of another kind", `"next": 5`, `"next": 5.0`},
		{"no JSON", "{", "["},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			data, err := testManifest().encode()
			must(t, err)
			text := strings.Replace(string(data), tt.from, tt.to, 1)
			if tt.from == "}\n" {
				text = string(data) + "{}\n"
			}
			if text == string(data) {
				t.Fatal("nothing was changed")
			}
			if m, err := decodeManifest(resealManifest([]byte(text))); err == nil {
				t.Errorf("decodeManifest = %+v; want an error", m)
			}
		})
	}
}

func TestFileName(t *testing.T) {
	tests := []struct {
		name   string
		number uint64
		ok     bool
	}{
		{"000001.base", 1, true},
		{"000012.delta", 12, true},
		{"1234567.base", 1234567, true},
		{"0000001.base", 0, false},
		{"1.base", 0, false},
		{"+00001.base", 0, false},
		{"000001.BASE", 0, false},
		{"000001.base.tmp", 0, false},
		{"000001", 0, false},
		{"MANIFEST", 0, false},
		{"99999999999999999999.base", 0, false},
	}
	for _, tt := range tests {
		number, ok := fileNumber(tt.name)
		if ok != tt.ok || ok && (number != tt.number || fileName(number, strings.HasSuffix(tt.name, deltaExt)) != tt.name) {
			t.Errorf("fileNumber(%q) = %d, %v; want %d, %v", tt.name, number, ok, tt.number, tt.ok)
		}
	}
}
