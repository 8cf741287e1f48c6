package cluster

import "fmt"

// field is one that Raft decodes. check sees the head of a value that is not nil, reads what
// belongs to it, and remembers what guard needs.
type field struct {
	bit   uint32
	check func(g *guard, t token) error
}

// maxName bounds addresses and ids, maxTime the time of an entry in any of its forms.
const (
	maxName = 4 << 10
	maxTime = 64
)

var (
	messageFields = fields(map[string]func(*guard, token) error{
		"Addr":               text(maxName),
		"Candidate":          text(maxName),
		"Configuration":      (*guard).configurationField,
		"ConfigurationIndex": number(nil),
		"Entries":            (*guard).entriesField,
		"ID":                 text(maxName),
		"LastLogIndex":       number(nil),
		"LastLogTerm":        number(nil),
		"Leader":             text(maxName),
		"LeaderCommitIndex":  number(nil),
		"LeadershipTransfer": truth,
		"Peers":              text(maxConfiguration),
		"PrevLogEntry":       number(func(g *guard) *int64 { return &g.msg.previous }),
		"PrevLogTerm":        number(nil),
		"ProtocolVersion":    number(func(g *guard) *int64 { return &g.msg.protocol }),
		"Size":               number(func(g *guard) *int64 { return &g.msg.size }),
		"SnapshotVersion":    number(func(g *guard) *int64 { return &g.msg.snapshotVersion }),
		"Term":               number(nil),
	})
	entryFields = fields(map[string]func(*guard, token) error{
		"AppendedAt": text(maxTime),
		"Data":       (*guard).dataField,
		"Extensions": text(maxMessageRest),
		"Index":      number(func(g *guard) *int64 { return &g.entry.index }),
		"Term":       number(nil),
		"Type":       number(func(g *guard) *int64 { return &g.entry.typ }),
	})
)

// fields gives each field a bit of its own.
func fields(checks map[string]func(*guard, token) error) map[string]*field {
	m := make(map[string]*field, len(checks))
	for name, check := range checks {
		m[name] = &field{bit: 1 << len(m), check: check}
	}
	return m
}

func fieldsOf(s scope) map[string]*field {
	switch s {
	case scopeMessage:
		return messageFields
	case scopeEntry:
		return entryFields
	}
	return nil
}

// text accepts up to limit bytes, as text or as an extension: a time can be either.
func text(limit int) func(*guard, token) error {
	return func(g *guard, t token) error {
		_, err := g.bytes(t, limit)
		return err
	}
}

// number accepts whole numbers that are not negative. Unless target is nil it keeps the number.
func number(target func(*guard) *int64) func(*guard, token) error {
	return func(g *guard, t token) error {
		if t.kind != kindInt || t.int < 0 {
			return fmt.Errorf("raft message: value where a number belongs: %w", ErrMalformed)
		}
		if target != nil {
			*target(g) = t.int
		}
		return nil
	}
}

func truth(_ *guard, t token) error {
	if t.kind != kindBool && t.kind != kindInt {
		return fmt.Errorf("raft message: value where a truth value belongs: %w", ErrMalformed)
	}
	return nil
}

func (g *guard) configurationField(t token) error {
	b, err := g.bytes(t, maxConfiguration)
	g.msg.configuration = append([]byte(nil), b...)
	return err
}

func (g *guard) entriesField(t token) error {
	if g.msg.kind != raftAppendEntries {
		return g.skip(t)
	}
	return g.push(scopeEntries, t, kindArray)
}

// dataField keeps small data, which may turn out to be a configuration, and lets large data pass.
func (g *guard) dataField(t token) error {
	if t.kind != kindBytes {
		return fmt.Errorf("raft message: data of kind %d: %w", t.kind, ErrMalformed)
	}
	size := int64(t.size)
	g.msg.data += size
	if size > maxEntryData || g.msg.data > maxMessageData {
		return fmt.Errorf("raft message: data of %d bytes: %w", size, ErrTooLarge)
	}
	if size > maxConfiguration {
		g.entry.large, g.raw = true, size
		return nil
	}
	b, err := g.read(int(size))
	g.data = append(g.data[:0], b...)
	return err
}
