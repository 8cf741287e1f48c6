package snapshot

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
)

const (
	// manifestTitle begins the first line of a manifest; the checksum of all that follows the
	// line ends it. Its number changes when older programs could not read what is written.
	manifestTitle = "rqlited snapshot manifest 1 sha256 "

	maxManifestSize = 16 << 20
)

// manifestFile is a manifest as it is written. It says nothing twice, because it is written with
// every snapshot: what follows from the link before, or from another field, is left out.
type manifestFile struct {
	Next     uint64     `json:"next"`
	PageSize int        `json:"page_size,omitzero"`
	Head     digest     `json:"head,omitzero"` // chain digest of the last link, to prove that none is missing
	Chain    []linkFile `json:"chain"`
}

type linkFile struct {
	File     string `json:"file"`
	Pages    uint32 `json:"pages"`
	Records  uint32 `json:"records"`
	Stream   digest `json:"stream"`
	ID       string `json:"id"`
	Merges   int    `json:"merges,omitzero"`
	Parent   digest `json:"parent,omitzero"`
	Snapshot digest `json:"snapshot,omitzero"` // left out of a delta as it was captured

	Configuration *configuration `json:"configuration,omitzero"` // left out if it is that of the link before
}

// encode returns the bytes of the MANIFEST file. It refuses to write what decodeManifest would
// refuse to read.
func (m *manifest) encode() ([]byte, error) {
	if err := m.validate(); err != nil {
		return nil, fmt.Errorf("snapshot: invalid manifest: %w", err)
	}
	f := manifestFile{Next: m.Next, Chain: []linkFile{}}
	for i := range m.Chain {
		l := &m.Chain[i]
		e := linkFile{File: l.File, Pages: l.Pages, Records: l.Records, Stream: l.Stream, ID: l.ID, Merges: l.Merges, Parent: l.Parent}
		if !l.delta() || l.Merges > 0 {
			e.Snapshot = l.Snapshot
		}
		if i == 0 || !l.Configuration.equal(m.Chain[i-1].Configuration) {
			e.Configuration = &l.Configuration
		}
		f.PageSize, f.Head = l.PageSize, l.Snapshot
		f.Chain = append(f.Chain, e)
	}
	body, err := json.Marshal(f)
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
	sum, titled := bytes.CutPrefix(first, []byte(manifestTitle))
	if !ok || !titled {
		return nil, errors.New("its first line is not that of a manifest this version can read")
	}
	if got := sha256.Sum256(body); hex.EncodeToString(got[:]) != string(sum) {
		return nil, errors.New("its checksum does not match")
	}
	var f manifestFile
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		return nil, err
	}
	m, err := f.manifest()
	if err != nil {
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

// manifest fills in what the file leaves out.
func (f *manifestFile) manifest() (*manifest, error) {
	m := &manifest{Next: f.Next, Chain: make([]link, len(f.Chain))}
	var before link
	for i, e := range f.Chain {
		l := link{
			File: e.File, PageSize: f.PageSize, Pages: e.Pages, Records: e.Records, Stream: e.Stream,
			Merges: e.Merges, Parent: e.Parent,
			ID: e.ID, Snapshot: e.Snapshot, Configuration: before.Configuration,
		}
		var err error
		if l.Term, l.Index, _, err = parseID(e.ID); err != nil {
			return nil, err
		}
		if e.Configuration != nil {
			l.Configuration = *e.Configuration
		}
		if l.delta() && l.Merges == 0 {
			l.Snapshot = chainDigest(before.Snapshot, true, l.Stream)
		}
		m.Chain[i], before = l, l
	}
	if before.Snapshot != f.Head {
		return nil, errors.New("its chain does not lead to its head")
	}
	return m, nil
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
