package cluster

import (
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"

	"rqlited/command"
	"rqlited/store"
)

// callType says what a call asks for. The numbers are rqlite's, as are the field numbers below; those
// from 1000 on are ours.
type callType uint16

const (
	callMeta         callType = 1
	callExecute      callType = 2
	callQuery        callType = 3
	callBackup       callType = 4
	callLoad         callType = 5
	callRemove       callType = 6
	callNotify       callType = 7
	callJoin         callType = 8
	callRequest      callType = 9
	callLoadChunk    callType = 10
	callBackupStream callType = 11
	callStepdown     callType = 12
	callHighwater    callType = 13
	callHash         callType = 1000 // a node of rqlite closes the connection
	callLoadStream   callType = 1001 // only for nodes whose Meta says that they know it
)

// bodies gives, by type of call, the field that holds its message, and the name that callers know
// that message by.
var bodies = map[callType]struct {
	field protowire.Number
	name  string
}{
	callMeta:         {},
	callExecute:      {2, "ExecuteRequest"},
	callQuery:        {3, "QueryRequest"},
	callBackup:       {5, "BackupRequest"},
	callLoad:         {6, "LoadRequest"},
	callRemove:       {7, "RemoveNodeRequest"},
	callNotify:       {8, "NotifyRequest"},
	callJoin:         {9, "JoinRequest"},
	callRequest:      {10, "ExecuteQueryRequest"},
	callLoadChunk:    {11, "LoadChunkRequest"},
	callBackupStream: {5, "BackupRequest"},
	callStepdown:     {12, "StepdownRequest"},
	callHighwater:    {13, "HighwaterMarkUpdateRequest"},
	callHash:         {1000, "HashRequest"},
	callLoadStream:   {1001, "LoadStreamRequest"},
}

const (
	fieldType        = 1
	fieldCredentials = 4
	lastField        = 13   // of rqlite's
	fieldHash        = 1000 // the message of a callHash
	fieldLoadStream  = 1001 // the message of a callLoadStream
	fieldLoad        = 1002 // of a callExecute: it is the script of a load
	fieldForeignKeys = 1002 // of the messages of joining and notifying
	fieldStreams     = 1000 // of Meta
	fieldExtensions  = 1005 // likewise
)

// Credentials are a user's name and password. The zero value is nobody.
type Credentials struct {
	Username, Password string
}

// call is what one node asks of another.
type call struct {
	typ   callType
	creds Credentials
	load  bool   // a callExecute is the script of a load
	body  []byte // message of the type; nil if there is none
	file  *file  // of a callLoad that is not in body; nil if there is none
}

// appendCall appends c as a Command.
func appendCall(b []byte, c *call) []byte {
	b = command.AppendVarint(b, fieldType, uint64(c.typ))
	field := bodies[c.typ].field
	if c.body != nil && field < fieldCredentials {
		b = appendBytes(b, field, c.body)
	}
	if c.creds != (Credentials{}) {
		var m []byte
		m = command.AppendString(m, 1, c.creds.Username)
		m = command.AppendString(m, 2, c.creds.Password)
		b = appendBytes(b, fieldCredentials, m)
	}
	if c.body != nil && field > fieldCredentials {
		b = appendBytes(b, field, c.body)
	}
	return command.AppendBool(b, fieldLoad, c.load)
}

// decodeCall decodes a Command. The body it returns is a part of b. It fails with ErrMalformed,
// also for a type that is not known.
func decodeCall(b []byte) (call, error) {
	var c call
	var field protowire.Number // of the body that stood last: the bodies are alternatives
	err := command.EachField(b, func(f command.Field) error {
		switch {
		case f.Num == fieldType:
			c.typ = callType(min(f.Bits, math.MaxUint16))
			if _, known := bodies[c.typ]; !known {
				return fmt.Errorf("command of type %d: %w", f.Bits, ErrMalformed)
			}
		case f.Num == fieldLoad:
			c.load = f.Bool()
		case f.Num == fieldCredentials:
			return c.creds.decode(f.Bytes)
		case (f.Num <= lastField || f.Num == fieldHash || f.Num == fieldLoadStream) && f.Message():
			c.body, field = f.Bytes, f.Num
		}
		return nil
	})
	if err != nil {
		return call{}, err
	}
	if c.typ == 0 {
		return call{}, fmt.Errorf("command without a type: %w", ErrMalformed)
	}
	if field != bodies[c.typ].field {
		c.body = nil
	}
	return c, nil
}

// beginningOfCall returns the type of the call that begins with b. It fails with ErrMalformed if that is not
// told first, as every node does.
func beginningOfCall(b []byte) (callType, error) {
	num, wire, n := protowire.ConsumeTag(b)
	if n > 0 && num == fieldType && wire == protowire.VarintType {
		if v, m := protowire.ConsumeVarint(b[n:]); m > 0 && v <= math.MaxUint16 {
			if _, known := bodies[callType(v)]; known {
				return callType(v), nil
			}
		}
	}
	return 0, fmt.Errorf("command without a type: %w", ErrMalformed)
}

func (c *Credentials) decode(b []byte) error {
	return command.EachField(b, func(f command.Field) error {
		switch f.Num {
		case 1:
			c.Username = f.Text()
		case 2:
			c.Password = f.Text()
		}
		return nil
	})
}

// member is the message of joining, notifying and removing, which have their fields in common.
type member struct {
	id, addr    string
	voter       bool
	foreignKeys command.Setting
	extensions  string
}

// append returns the message. It is never nil, so that an empty one is sent as well.
func (m member) append(b []byte) []byte {
	b = command.AppendString(b, 1, m.id)
	b = command.AppendString(b, 2, m.addr)
	b = command.AppendBool(b, 3, m.voter)
	b = command.AppendVarint(b, fieldForeignKeys, uint64(m.foreignKeys))
	return command.AppendString(b, fieldExtensions, m.extensions)
}

func (m member) server() store.Server {
	return store.Server{ID: m.id, Addr: m.addr, Voter: m.voter, ForeignKeys: m.foreignKeys, Extensions: m.extensions}
}

func decodeMember(b []byte) (member, error) {
	var m member
	err := command.EachField(b, func(f command.Field) error {
		switch f.Num {
		case 1:
			m.id = f.Text()
		case 2:
			m.addr = f.Text()
		case 3:
			m.voter = f.Bool()
		case fieldForeignKeys:
			// What a later version means by another value is not known here, nor whether we agree.
			if f.Type != protowire.VarintType || f.Bits > uint64(command.On) {
				return fmt.Errorf("foreign keys are %d: %w", f.Bits, ErrMalformed)
			}
			m.foreignKeys = command.Setting(f.Bits)
		case fieldExtensions:
			m.extensions = f.Text()
		}
		return nil
	})
	return m, err
}

// stepdown is the message of giving up leadership.
type stepdown struct {
	id   string // who shall lead; empty is anybody
	wait bool
}

func (s stepdown) append(b []byte) []byte {
	b = command.AppendString(b, 1, s.id)
	return command.AppendBool(b, 2, s.wait)
}

func decodeStepdown(b []byte) (stepdown, error) {
	var s stepdown
	err := command.EachField(b, func(f command.Field) error {
		switch f.Num {
		case 1:
			s.id = f.Text()
		case 2:
			s.wait = f.Bool()
		}
		return nil
	})
	return s, err
}

// Meta is what a node tells about itself.
type Meta struct {
	URL         string // base URL of its HTTP API
	CommitIndex uint64
	Version     string // empty if older than 8.36.3
	Streams     bool   // the node knows callLoadStream
}

func (m Meta) append(b []byte) []byte {
	b = command.AppendString(b, 1, m.URL)
	b = command.AppendVarint(b, 2, m.CommitIndex)
	b = command.AppendString(b, 3, m.Version)
	return command.AppendBool(b, fieldStreams, m.Streams)
}

func decodeMeta(b []byte) (Meta, error) {
	var m Meta
	err := command.EachField(b, func(f command.Field) error {
		switch f.Num {
		case 1:
			m.URL = f.Text()
		case 2:
			m.CommitIndex = f.Bits
		case 3:
			m.Version = f.Text()
		case fieldStreams:
			m.Streams = f.Bool()
		}
		return nil
	})
	return m, err
}

// outcome is the answer to every call that yields no data.
type outcome struct {
	err    string
	leader string // of a refused join: who to ask
}

func (o outcome) append(b []byte) []byte {
	b = command.AppendString(b, 1, o.err)
	return command.AppendString(b, 2, o.leader)
}

func decodeOutcome(b []byte) (outcome, error) {
	var o outcome
	err := command.EachField(b, func(f command.Field) error {
		switch f.Num {
		case 1:
			o.err = f.Text()
		case 2:
			o.leader = f.Text()
		}
		return nil
	})
	return o, err
}

// requestCall returns the call that carries requests of kind k.
func requestCall(k command.Kind) callType {
	switch k {
	case command.Execute:
		return callExecute
	case command.Query:
		return callQuery
	default:
		return callRequest
	}
}

func appendBytes(b []byte, num protowire.Number, body []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, num, protowire.BytesType), body)
}
