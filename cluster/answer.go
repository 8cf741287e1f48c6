package cluster

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"

	"rqlited/auth"
	"rqlited/command"
	"rqlited/store"
)

// errNotSupported is what callers of what this release does not do are told. Chunks of a load
// were never answered otherwise, by any release.
var (
	errNotSupported = errors.New("not supported yet")
	errUnsupported  = errors.New("unsupported")
)

// answer carries out c, the call of p, unless it has to be refused because of failed, and appends the frame that answers
// it to out, or the last of them: those before are sent. An error means that the connection makes no sense.
func (s *Service) answer(ctx context.Context, out []byte, c *call, failed error, p *caller) (_ []byte, err error) {
	out = beginFrame(out[:0])
	switch c.typ {
	case callMeta:
		out = s.Meta().append(out)
	case callExecute, callQuery, callRequest:
		out, err = s.request(ctx, out, c, failed, p)
	case callHash:
		out, err = s.hashAt(ctx, out, c, failed)
	case callLoad:
		out, err = s.load(ctx, out, c, failed)
	default:
		var o outcome
		if failed == nil {
			o, failed, err = s.act(ctx, c)
		}
		o.err = store.Text(failed)
		if c.typ == callBackup {
			out, err = appendGzip(out, o.append(nil))
		} else {
			out = o.append(out)
		}
	}
	if err != nil {
		return nil, err
	}
	if len(out) > maxFrame+frameHeader {
		out = outcome{err: "answer is too large to send"}.append(beginFrame(out[:0]))
	}
	return endFrame(out), nil
}

// refusal says why c is not carried out, before its message is looked into.
func (s *Service) refusal(c *call) error {
	if c.typ != callMeta && c.body == nil && c.file == nil {
		return &store.RequestError{Msg: bodies[c.typ].name + " is nil"}
	}
	err := s.permit(c)
	if errors.Is(err, auth.ErrBusy) {
		return &store.OverloadError{Msg: err.Error()}
	}
	if err != nil {
		return store.ErrUnauthorized
	}
	return nil
}

// permit returns nil if the user of c may make it, or the error of the Authorizer.
func (s *Service) permit(c *call) error {
	if s.cfg.Auth == nil {
		return nil
	}
	all := func(permissions ...string) error {
		for _, p := range permissions {
			if err := s.cfg.Auth.Permit(c.creds.Username, c.creds.Password, p); err != nil {
				return err
			}
		}
		return nil
	}
	switch c.typ {
	case callMeta, callHash, callLoadChunk, callHighwater:
		return nil
	case callExecute:
		if c.load {
			return all("load")
		}
		return all("execute")
	case callQuery:
		return all("query")
	case callRequest:
		return all("query", "execute")
	case callBackup, callBackupStream:
		return all("backup")
	case callLoad, callLoadStream:
		return all("load")
	case callRemove:
		return all("remove")
	case callNotify:
		return all("join")
	case callStepdown:
		return all("leader-ops")
	case callJoin:
		if m, err := decodeMember(c.body); err != nil || m.voter {
			return all("join")
		}
		err := all("join-read-only")
		if errors.Is(err, auth.ErrDenied) {
			err = all("join-read-replica")
		}
		return err
	}
	return auth.ErrDenied
}

// Meta returns what peers are told about this node.
func (s *Service) Meta() Meta {
	return Meta{URL: s.cfg.URL, CommitIndex: s.node.CommitIndex(), Version: s.cfg.Version, Streams: true}
}

// request runs the statements of c and appends the answer to out.
func (s *Service) request(ctx context.Context, out []byte, c *call, refused error, p *caller) ([]byte, error) {
	kind := command.Unified
	switch c.typ {
	case callExecute:
		kind = command.Execute
	case callQuery:
		kind = command.Query
	}
	if refused != nil {
		return command.AppendResponse(out, kind, nil, store.Text(refused)), nil
	}
	req, err := command.DecodeRequest(kind, c.body)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if kind != command.Execute && wantsParts(c.body) {
		return s.inParts(ctx, out, req, p)
	}
	resp, err := s.node.Do(ctx, req)
	if err != nil {
		resp = nil
	}
	return command.AppendResponse(out, kind, resp, requestText(err)), nil
}

// requestText returns the words for an err of a request. A caller must never take for a refusal
// what may have been applied, so an unknown outcome is told in words that callers know as one.
func requestText(err error) string {
	text := store.Text(err)
	if errors.Is(err, store.ErrUnknown) && !errors.Is(store.FromText(text), store.ErrUnknown) {
		return store.Text(store.ErrLeadershipLost)
	}
	return text
}

// act carries out a call that yields no data. It returns the outcome, the error that belongs into
// it, and an error if the call makes no sense.
func (s *Service) act(ctx context.Context, c *call) (o outcome, failed, err error) {
	switch c.typ {
	case callJoin, callNotify, callRemove:
		m, err := decodeMember(c.body)
		if err != nil {
			return o, nil, err
		}
		switch c.typ {
		case callNotify:
			return o, s.node.Notify(ctx, m.server()), nil
		case callRemove:
			return o, s.node.Remove(ctx, m.id), nil
		}
		o, failed = s.join(ctx, m)
		return o, failed, nil
	case callStepdown:
		m, err := decodeStepdown(c.body)
		if err != nil {
			return o, nil, err
		}
		return o, s.node.Stepdown(ctx, m.id, m.wait), nil
	case callLoadChunk:
		return o, errUnsupported, nil
	}
	return o, errNotSupported, nil
}

// join tells a node that asked the wrong one who the leader is.
func (s *Service) join(ctx context.Context, m member) (outcome, error) {
	err := s.taken(m, s.node.Join(ctx, m.server()))
	var o outcome
	if errors.Is(err, store.ErrNotLeader) {
		if leader, ok := s.node.Leader(); ok {
			o.leader = leader.Addr
		}
	}
	return o, err
}

// taken returns err, of letting the node m join. It says so here as well if that is a refusal which only a
// human can change, and who may look at this node first. Nodes that form a cluster say it themselves, since
// each notifies the other.
func (s *Service) taken(m member, err error) error {
	if final(err) || errors.Is(err, store.ErrAddrInUse) {
		s.log.Warn("node refused", "node", m.id, "addr", m.addr, "err", store.Text(err))
	}
	return err
}

// appendGzip appends msg, compressed.
func appendGzip(out, msg []byte) ([]byte, error) {
	buf := bytes.NewBuffer(out)
	w := gzip.NewWriter(buf)
	if _, err := w.Write(msg); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}
