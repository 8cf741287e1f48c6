package cluster

import (
	"context"
	"fmt"
	"math"
	"time"

	"rqlited/command"
	"rqlited/store"
)

// maxHashWait bounds how long a node waits, on behalf of a peer, until it has a hash.
const maxHashWait = 10 * time.Minute

// hashAt is the message of asking for the hash of the state at a mark.
type hashAt struct {
	index uint64
	wait  time.Duration // how long the caller waits for the answer; zero if it does not tell
}

func (h hashAt) append(b []byte) []byte {
	b = command.AppendVarint(b, 1, h.index)
	return command.AppendVarint(b, 2, uint64(max(h.wait, 0)))
}

func decodeHashAt(b []byte) (hashAt, error) {
	var h hashAt
	err := command.EachField(b, func(f command.Field) error {
		switch f.Num {
		case 1:
			h.index = f.Bits
		case 2:
			h.wait = time.Duration(min(f.Bits, math.MaxInt64))
		}
		return nil
	})
	return h, err
}

// hashed answers a hashAt.
type hashed struct {
	err     string
	hash    store.StateHash
	version uint64 // of the definition of the hash; zero beside an error
}

func (h hashed) append(b []byte) []byte {
	b = command.AppendString(b, 1, h.err)
	b = command.AppendVarint(b, 2, h.hash.Index)
	b = command.AppendString(b, 3, h.hash.Hash)
	return command.AppendVarint(b, 4, h.version)
}

func decodeHashed(b []byte) (hashed, error) {
	var h hashed
	err := command.EachField(b, func(f command.Field) error {
		switch f.Num {
		case 1:
			h.err = f.Text()
		case 2:
			h.hash.Index = f.Bits
		case 3:
			h.hash.Hash = f.Text()
		case 4:
			h.version = f.Bits
		}
		return nil
	})
	return h, err
}

// HashAt asks the node at addr for the hash of its state at index. The call ends with ctx, or after
// 30 s if that has no deadline. Errors are those of store that the node reported, store.ErrHashVersion, and
// *CallError if there was no answer, as from a node of rqlite, which does not know the call.
func (c *Client) HashAt(ctx context.Context, addr string, index uint64) (store.StateHash, error) {
	wait := callTimeout
	if deadline, ok := ctx.Deadline(); ok {
		wait = max(time.Until(deadline), 1) // zero would be the default
	}
	body := hashAt{index, wait}.append([]byte{})
	answer, err := c.call(ctx, addr, &call{typ: callHash, body: body}, policy{timeout: wait, repeatable: true})
	if err != nil {
		return store.StateHash{}, err
	}
	h, err := decodeHashed(answer)
	switch {
	case err == nil && h.err != "":
		return store.StateHash{}, remoteError(h.err, acts[callHash])
	case err == nil && h.hash.Index != index:
		err = fmt.Errorf("hash of index %d instead of %d: %w", h.hash.Index, index, ErrMalformed)
	}
	if err != nil {
		return store.StateHash{}, &CallError{Addr: addr, Err: err}
	}
	if h.version != store.HashVersion {
		return store.StateHash{}, fmt.Errorf("%w: %d, and this node %d", store.ErrHashVersion, h.version, store.HashVersion)
	}
	return h.hash, nil
}

// hashAt answers a call for a hash. The caller's end of the connection is not watched while it
// waits; so the time it waits comes with the call.
func (s *Service) hashAt(ctx context.Context, out []byte, c *call, refused error) ([]byte, error) {
	if refused != nil {
		return hashed{err: store.Text(refused)}.append(out), nil
	}
	m, err := decodeHashAt(c.body)
	if err != nil {
		return nil, err
	}
	if m.wait <= 0 || m.wait > maxHashWait {
		m.wait = maxHashWait
	}
	ctx, cancel := context.WithTimeout(ctx, m.wait)
	defer cancel()
	h, err := s.node.HashAt(ctx, m.index)
	if err != nil {
		return hashed{err: store.Text(err)}.append(out), nil
	}
	return hashed{hash: h, version: store.HashVersion}.append(out), nil
}
