package snapshot

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/hashicorp/raft"
)

const (
	manifestName = "MANIFEST"
	manifestTmp  = manifestName + ".tmp" // what vfs.WriteFileAtomic may leave behind

	// manifestTitle begins the first line of a manifest; the checksum of all that follows the
	// line ends it. Its number changes when older programs could not read what is written.
	manifestTitle = "rqlited snapshot manifest 1 sha256 "

	maxManifestSize = 16 << 20
)

// manifest says which snapshots exist. It is immutable once built: a change makes a new one.
type manifest struct {
	Next  uint64 `json:"next"`  // every number used so far is lower
	Chain []link `json:"chain"` // oldest first: a base, then the deltas upon it; empty: no snapshot
}

// link is a file of the chain, and the snapshot that the chain up to it amounts to. Immutable.
type link struct {
	File     string `json:"file"`
	Size     int64  `json:"size"` // bytes
	PageSize int    `json:"page_size"`
	Pages    uint32 `json:"pages"`
	Records  uint32 `json:"records"`
	Stream   digest `json:"stream"` // of the bytes of the file up to its trailer

	ID                 string   `json:"id"`
	Index              uint64   `json:"index"`
	Term               uint64   `json:"term"`
	Snapshot           digest   `json:"snapshot"` // see chainDigest; kept when files are compacted
	ConfigurationIndex uint64   `json:"configuration_index"`
	Configuration      []server `json:"configuration"`
}

// server is a member of the cluster.
type server struct {
	ID       string `json:"id"`
	Address  string `json:"address"`
	Suffrage string `json:"suffrage"`
}

func (l *link) delta() bool { return strings.HasSuffix(l.File, deltaExt) }

// header returns the header that the file must have.
func (l *link) header() Header {
	return Header{PageSize: l.PageSize, Pages: l.Pages, Records: l.Records, Delta: l.delta()}
}

// meta returns what Raft wants to know about the snapshot.
func (l *link) meta() *raft.SnapshotMeta {
	m := &raft.SnapshotMeta{
		Version:            raft.SnapshotVersionMax,
		ID:                 l.ID,
		Index:              l.Index,
		Term:               l.Term,
		ConfigurationIndex: l.ConfigurationIndex,
		Size:               l.header().image().streamSize(),
	}
	for _, v := range l.Configuration {
		m.Configuration.Servers = append(m.Configuration.Servers, raft.Server{
			ID:       raft.ServerID(v.ID),
			Address:  raft.ServerAddress(v.Address),
			Suffrage: suffrage(v.Suffrage),
		})
	}
	return m
}

func serversOf(c raft.Configuration) []server {
	servers := make([]server, len(c.Servers))
	for i, v := range c.Servers {
		servers[i] = server{ID: string(v.ID), Address: string(v.Address), Suffrage: v.Suffrage.String()}
	}
	return servers
}

// suffrage is the inverse of ServerSuffrage.String; -1 if there is none.
func suffrage(name string) raft.ServerSuffrage {
	for _, v := range []raft.ServerSuffrage{raft.Voter, raft.Nonvoter, raft.Staging} {
		if v.String() == name {
			return v
		}
	}
	return -1
}

const (
	baseExt  = ".base"
	deltaExt = ".delta"
)

// fileName returns the name of the file with this number.
func fileName(number uint64, delta bool) string {
	if delta {
		return fmt.Sprintf("%06d%s", number, deltaExt)
	}
	return fmt.Sprintf("%06d%s", number, baseExt)
}

// fileNumber is the inverse of fileName. It knows no other spelling of a name, so that nothing a
// human put into the directory is taken for the store's.
func fileNumber(name string) (number uint64, ok bool) {
	digits, ext, _ := strings.Cut(name, ".")
	number, err := strconv.ParseUint(digits, 10, 63)
	return number, err == nil && name == fileName(number, "."+ext == deltaExt)
}

// snapshotID returns the id of the snapshot that the sink with this number writes.
func snapshotID(term, index, number uint64) string {
	return fmt.Sprintf("%d-%d-%d", term, index, number)
}

// encode returns the bytes of the MANIFEST file. It refuses to write what decodeManifest would
// refuse to read.
func (m *manifest) encode() ([]byte, error) {
	if err := m.validate(); err != nil {
		return nil, fmt.Errorf("snapshot: invalid manifest: %w", err)
	}
	body, err := json.MarshalIndent(m, "", "\t")
	if err != nil {
		return nil, err
	}
	body = append(body, '\n')
	sum := sha256.Sum256(body)
	data := append([]byte(manifestTitle+hex.EncodeToString(sum[:])+"\n"), body...)
	if len(data) > maxManifestSize {
		return nil, fmt.Errorf("snapshot: manifest of %d bytes is too large", len(data))
	}
	return data, nil
}

// decodeManifest is the inverse of encode, and accepts nothing that encode would not write.
func decodeManifest(data []byte) (*manifest, error) {
	if len(data) > maxManifestSize {
		return nil, errors.New("it is longer than any manifest")
	}
	first, body, ok := bytes.Cut(data, []byte("\n"))
	sum, titled := strings.CutPrefix(string(first), manifestTitle)
	if !ok || !titled {
		return nil, errors.New("its first line is not that of a manifest this version can read")
	}
	if got := sha256.Sum256(body); hex.EncodeToString(got[:]) != sum {
		return nil, errors.New("its checksum does not match")
	}
	m := &manifest{}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(m); err != nil {
		return nil, err
	}
	// JSON has many spellings for one thing. Only ours has been tested.
	if again, err := m.encode(); err != nil {
		return nil, err
	} else if !bytes.Equal(again, data) {
		return nil, errors.New("it is not written as this program writes it")
	}
	return m, nil
}

// validate checks all that must hold between the fields.
func (m *manifest) validate() error {
	taken := map[string]bool{} // files and ids, which cannot be mistaken for each other
	for i := range m.Chain {
		l := &m.Chain[i]
		if err := l.validate(m.Next); err != nil {
			return fmt.Errorf("file %q: %w", l.File, err)
		}
		if l.delta() != (i > 0) {
			return fmt.Errorf("file %q cannot be number %d of a chain", l.File, i+1)
		}
		if taken[l.File] || taken[l.ID] {
			return fmt.Errorf("file %q: it or its id %q is named twice", l.File, l.ID)
		}
		taken[l.File], taken[l.ID] = true, true
		if i == 0 {
			continue
		}
		parent := &m.Chain[i-1]
		if l.PageSize != parent.PageSize {
			return fmt.Errorf("file %q: page size %d upon %d", l.File, l.PageSize, parent.PageSize)
		}
		if l.Snapshot != chainDigest(parent.Snapshot, true, l.Stream) {
			return fmt.Errorf("file %q does not belong upon %q", l.File, parent.File)
		}
	}
	return nil
}

func (l *link) validate(next uint64) error {
	number, ok := fileNumber(l.File)
	var term, index, born uint64
	_, err := fmt.Sscanf(l.ID, "%d-%d-%d", &term, &index, &born)
	switch {
	case !ok || number >= next:
		return fmt.Errorf("no such name below number %d", next)
	case err != nil || l.ID != snapshotID(l.Term, l.Index, born) || born >= next:
		return fmt.Errorf("id %q is not one of term %d, index %d", l.ID, l.Term, l.Index)
	case l.Size != l.header().streamSize():
		return fmt.Errorf("size %d is not that of %d records", l.Size, l.Records)
	}
	for _, v := range l.Configuration {
		if suffrage(v.Suffrage) < 0 || !utf8.ValidString(v.ID) || !utf8.ValidString(v.Address) {
			return fmt.Errorf("server %q at %q with suffrage %q cannot be written", v.ID, v.Address, v.Suffrage)
		}
	}
	return l.header().validate()
}

// head returns the last link of the chain, nil if there is none.
func (m *manifest) head() *link {
	if len(m.Chain) == 0 {
		return nil
	}
	return &m.Chain[len(m.Chain)-1]
}

func (d digest) String() string               { return hex.EncodeToString(d[:]) }
func (d digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

func (d *digest) UnmarshalText(text []byte) error {
	if len(text) != hex.EncodedLen(len(d)) {
		return fmt.Errorf("digest of %d characters", len(text))
	}
	_, err := hex.Decode(d[:], text)
	return err
}
