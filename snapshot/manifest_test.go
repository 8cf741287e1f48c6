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

// testManifest returns a valid manifest with a base, a merged delta and a delta as captured.
func testManifest() *manifest {
	base := link{
		File: "000003.base", PageSize: 4096, Pages: 10, Records: 10, Stream: digest{1},
		ID: "2-7-1", Index: 7, Term: 2, Snapshot: digest{9}, Configuration: configurationOf(testConfiguration, 4),
	}
	merged := link{
		File: "000006.delta", PageSize: 4096, Pages: 12, Records: 3, Stream: digest{2}, Merges: 1, Parent: digest{9},
		ID: "2-9-5", Index: 9, Term: 2, Snapshot: digest{8}, Configuration: configurationOf(testConfiguration, 4),
	}
	delta := link{
		File: "000007.delta", PageSize: 4096, Pages: 12, Records: 1, Stream: digest{3},
		ID: "2-11-7", Index: 11, Term: 2, Snapshot: chainDigest(digest{8}, true, digest{3}),
		Configuration: configurationOf(raft.Configuration{}, 10),
	}
	return &manifest{Next: 8, Chain: []link{base, merged, delta}}
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
	golden(t, "manifest.txt", strings.Split(strings.ReplaceAll(strings.TrimSuffix(string(data), "\n"), "},{", "},\n{"), "\n"))
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
			m.Chain[2].File, m.Chain[2].Records = "000007.base", 12
		}, "number 3 of a chain"},
		{"file of another directory", func(m *manifest) { m.Chain[0].File = "../000003.base" }, "no such name"},
		{"file named otherwise", func(m *manifest) { m.Chain[0].File = "3.base" }, "no such name"},
		{"number not reached", func(m *manifest) { m.Next = 7 }, "no such name below number 7"},
		{"id of another index", func(m *manifest) { m.Chain[0].Index = 8 }, "is not one of term 2, index 8"},
		{"id with more", func(m *manifest) { m.Chain[0].ID += "x" }, "invalid syntax"},
		{"id with more numbers", func(m *manifest) { m.Chain[0].ID += "-1" }, "not written as ids are"},
		{"id with zeros", func(m *manifest) { m.Chain[0].ID = "2-07-1" }, "not written as ids are"},
		{"id of nothing", func(m *manifest) { m.Chain[0].ID = "x" }, "id \"x\""},
		{"id twice", func(m *manifest) { m.Chain[1].ID, m.Chain[1].Index = "2-7-1", 7 }, "twice"},
		{"file twice", func(m *manifest) { m.Chain[1].File = "000007.delta" }, "twice"},
		{"records", func(m *manifest) { m.Chain[1].Records = 13 }, "13 records"},
		{"page size", func(m *manifest) { m.Chain[0].PageSize = 4095 }, "page size is 4095"},
		{"mixed page sizes", func(m *manifest) { m.Chain[1].PageSize = 8192 }, "8192 upon 4096"},
		{"merged upon another parent", func(m *manifest) { m.Chain[0].Snapshot = digest{7} }, "does not belong upon"},
		{"merged into another snapshot", func(m *manifest) { m.Chain[1].Snapshot = digest{7} }, "does not belong upon"},
		{"delta in between lost", func(m *manifest) { m.Chain = []link{m.Chain[0], m.Chain[2]} }, "does not belong upon"},
		{"other delta", func(m *manifest) { m.Chain[2].Stream = digest{7} }, "does not belong upon"},
		{"merged without parent", func(m *manifest) { m.Chain[1].Parent = digest{} }, "merged 1 times"},
		{"parent without merge", func(m *manifest) { m.Chain[2].Parent = digest{8} }, "merged 0 times"},
		{"merged less than never", func(m *manifest) { m.Chain[1].Merges = -1 }, "merged -1 times"},
		{"merged base", func(m *manifest) { m.Chain[0].Merges, m.Chain[0].Parent = 1, digest{1} }, "merged 1 times"},
		{"no digest", func(m *manifest) { m.Chain[0].Snapshot = digest{} }, "no chain digest"},
		{"unknown suffrage", func(m *manifest) { m.Chain[0].Configuration.Servers[0].Suffrage = "King" }, "suffrage"},
		{"id that is no text", func(m *manifest) { m.Chain[0].Configuration.Servers[0].ID = "\xff" }, "cannot be written"},
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
	again := `,"configuration":{"index":4,"servers":[{"id":"1","address":"one:4002","suffrage":"Voter"},` +
		`{"id":"2","address":"two:4002","suffrage":"Nonvoter"}]}`
	tests := []struct{ name, from, to string }{
		{"unknown field", `"next"`, `"later":1,"next"`},
		{"other spelling", `"next"`, `"Next"`},
		{"other white space", `"next":`, `"next": `},
		{"more after the end", "]}\n", "]}\n{}\n"},
		{"short digest", `"01`, `"`},
		{"number of another kind", `"next":8`, `"next":8.0`},
		{"no JSON", "{", "["},
		{"other head", `"head":"`, `"head":"00`},
		{"head of another chain", `"head":"` + testManifest().head().Snapshot.String(), `"head":"` + digest{8}.String()},
		{"configuration said again", `},{"file":"000007`, again + `},{"file":"000007`},
		{"zero said", `"id":"2-11-7"`, `"id":"2-11-7","merges":0`},
		{"digest said again", `"id":"2-11-7"`, `"id":"2-11-7","snapshot":"` + testManifest().head().Snapshot.String() + `"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			data, err := testManifest().encode()
			must(t, err)
			text := strings.Replace(string(data), tt.from, tt.to, 1)
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
