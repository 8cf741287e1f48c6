package snapshot

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/hashicorp/raft"
)

const (
	manifestName = "MANIFEST"
	manifestTmp  = manifestName + ".tmp" // what vfs.WriteFileAtomic may leave behind
)

// manifest says which snapshots exist. It is immutable once built: a change makes a new one.
type manifest struct {
	Next  uint64 // every number used so far is lower
	Chain []link // oldest first: a base, then the deltas upon it; empty: no snapshot
}

// link is a file of the chain, and the snapshot that the chain up to it amounts to. Immutable.
type link struct {
	File     string
	PageSize int
	Pages    uint32
	Records  uint32
	Stream   digest // of the bytes of the file up to its trailer

	// Merges is how often bytes of a delta have been merged at most; zero for a delta as it was
	// captured, and for a base. Parent is set for merged deltas alone: what they lie upon.
	Merges int
	Parent digest

	ID            string
	Index         uint64
	Term          uint64
	Snapshot      digest // see chainDigest; kept when files are compacted
	Configuration configuration
}

// configuration is the membership of the cluster as of a snapshot.
type configuration struct {
	Index   uint64   `json:"index"`
	Servers []server `json:"servers"`
}

// server is a member of the cluster.
type server struct {
	ID       string `json:"id"`
	Address  string `json:"address"`
	Suffrage string `json:"suffrage"`
}

func (c configuration) equal(d configuration) bool {
	return c.Index == d.Index && slices.Equal(c.Servers, d.Servers)
}

func (l *link) delta() bool { return strings.HasSuffix(l.File, deltaExt) }

// header returns the header that the file must have.
func (l *link) header() Header {
	return Header{PageSize: l.PageSize, Pages: l.Pages, Records: l.Records, Delta: l.delta()}
}

// size returns the length that the file must have in bytes.
func (l *link) size() int64 { return l.header().streamSize() }

// imageSize returns the length in bytes of the image that the snapshot amounts to.
func (l *link) imageSize() int64 { return l.header().image().streamSize() }

// meta returns what Raft wants to know about the snapshot.
func (l *link) meta() *raft.SnapshotMeta {
	m := &raft.SnapshotMeta{
		Version:            raft.SnapshotVersionMax,
		ID:                 l.ID,
		Index:              l.Index,
		Term:               l.Term,
		ConfigurationIndex: l.Configuration.Index,
		Size:               l.imageSize(),
	}
	for _, v := range l.Configuration.Servers {
		m.Configuration.Servers = append(m.Configuration.Servers, raft.Server{
			ID:       raft.ServerID(v.ID),
			Address:  raft.ServerAddress(v.Address),
			Suffrage: suffrage(v.Suffrage),
		})
	}
	return m
}

func configurationOf(c raft.Configuration, index uint64) configuration {
	servers := make([]server, len(c.Servers))
	for i, v := range c.Servers {
		servers[i] = server{ID: string(v.ID), Address: string(v.Address), Suffrage: v.Suffrage.String()}
	}
	return configuration{Index: index, Servers: servers}
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

// parseID is the inverse of snapshotID, and knows no other spelling.
func parseID(id string) (term, index, number uint64, err error) {
	var parts [3]uint64
	rest := id
	for i := range parts {
		var digits string
		digits, rest, _ = strings.Cut(rest, "-")
		if parts[i], err = strconv.ParseUint(digits, 10, 64); err != nil {
			return 0, 0, 0, fmt.Errorf("id %q: %w", id, err)
		}
	}
	if snapshotID(parts[0], parts[1], parts[2]) != id {
		return 0, 0, 0, fmt.Errorf("id %q is not written as ids are", id)
	}
	return parts[0], parts[1], parts[2], nil
}

// validate checks all that must hold between the fields.
func (m *manifest) validate() error {
	taken := map[string]bool{} // files and ids, which cannot be mistaken for each other
	for i := range m.Chain {
		l := &m.Chain[i]
		if err := l.validate(m.Next); err != nil {
			return fmt.Errorf("file %q: %w", l.File, err)
		}
		if taken[l.File] || taken[l.ID] {
			return fmt.Errorf("file %q: it or its id %q is named twice", l.File, l.ID)
		}
		taken[l.File], taken[l.ID] = true, true
		if l.delta() != (i > 0) {
			return fmt.Errorf("file %q cannot be number %d of a chain", l.File, i+1)
		}
		if i == 0 {
			continue
		}
		if err := l.fits(&m.Chain[i-1]); err != nil {
			return err
		}
	}
	return nil
}

// fits checks that the delta l belongs upon parent. What was captured proves it by its chain
// digest; what was merged says it.
func (l *link) fits(parent *link) error {
	switch {
	case l.PageSize != parent.PageSize:
		return fmt.Errorf("file %q: page size %d upon %d", l.File, l.PageSize, parent.PageSize)
	case l.Merges == 0 && l.Snapshot == chainDigest(parent.Snapshot, true, l.Stream):
		return nil
	case l.Merges > 0 && l.Parent == parent.Snapshot:
		return nil
	}
	return fmt.Errorf("file %q does not belong upon %q", l.File, parent.File)
}

func (l *link) validate(next uint64) error {
	number, ok := fileNumber(l.File)
	term, index, born, err := parseID(l.ID)
	switch {
	case !ok || number >= next:
		return fmt.Errorf("no such name below number %d", next)
	case err != nil:
		return err
	case term != l.Term || index != l.Index || born >= next:
		return fmt.Errorf("id %q is not one of term %d, index %d", l.ID, l.Term, l.Index)
	case l.Snapshot == digest{}:
		return errors.New("no chain digest")
	case l.Merges < 0 || (l.Merges > 0) != (l.Parent != digest{}) || l.Merges > 0 && !l.delta():
		return fmt.Errorf("merged %d times upon %q", l.Merges, l.Parent)
	}
	for _, v := range l.Configuration.Servers {
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
