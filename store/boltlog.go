package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"sync/atomic"

	"github.com/hashicorp/go-msgpack/v2/codec"
	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

var (
	bucketConf = []byte("conf")
	bucketLogs = []byte("logs")

	// keySeal is the first of all keys.
	keySeal = []byte("!rqlited")

	// errKeyNotFound has the words that Raft knows a value by that was never set.
	errKeyNotFound = errors.New("not found")

	errBroken = errors.New("store: nothing is written to a log that has failed")

	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// boltLog is a raft.LogStore and raft.StableStore in a file that rqlite's log can be read from, and
// whose log rqlite can read: buckets, keys and encoding are those of raft-boltdb. Two things are added,
// both in the transaction that changes what they vouch for, so that they cost no sync. Each entry is
// followed by its checksum, which other readers pass over. And a seal says where the log begins and
// ends, and holds a checksum of all settings, so that nothing can vanish, nor come back.
type boltLog struct {
	conn   *bbolt.DB
	handle *codec.MsgpackHandle
	broken atomic.Bool // something could not be written: nobody knows what is on the disk

	appending appending
}

// seal is the value of keySeal: version, the four numbers, and a checksum of these and of all other
// settings.
type seal struct {
	first, last uint64 // of the log; 0 if it is empty
	term        uint64 // of the last entry
	members     uint64 // the newest entry that is a configuration; 0 if there is none in the log
}

const (
	sealVersion = 1
	sealSize    = 1 + 4*8 + crc32.Size
)

type confValue struct{ key, value []byte }

// openSeal returns the seal among all settings, if it is that of the others.
func openSeal(conf []confValue) (s seal, err error) {
	for _, v := range conf {
		if !bytes.Equal(v.key, keySeal) {
			continue
		}
		b := v.value
		if len(b) != sealSize || b[0] != sealVersion || binary.BigEndian.Uint32(b[sealSize-crc32.Size:]) != sealSum(b, conf) {
			return s, damagedf("the checksum of the settings does not match")
		}
		at := func(i int) uint64 { return binary.BigEndian.Uint64(b[1+8*i:]) }
		return seal{at(0), at(1), at(2), at(3)}, nil
	}
	return s, damagedf("there is no checksum of the settings")
}

// sealSum returns the checksum for the seal in b, of which only the part in front of it counts.
func sealSum(b []byte, conf []confValue) uint32 {
	sum := crc32.Checksum(b[:sealSize-crc32.Size], castagnoli)
	add := func(b []byte) {
		sum = crc32.Update(sum, castagnoli, binary.BigEndian.AppendUint32(nil, uint32(len(b))))
		sum = crc32.Update(sum, castagnoli, b)
	}
	for _, v := range conf {
		if !bytes.Equal(v.key, keySeal) {
			add(v.key)
			add(v.value)
		}
	}
	return sum
}

// put seals the settings that are in conf now.
func (s seal) put(conf *bbolt.Bucket) error {
	b := []byte{sealVersion}
	for _, n := range []uint64{s.first, s.last, s.term, s.members} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	b = append(b, make([]byte, crc32.Size)...)
	binary.BigEndian.PutUint32(b[sealSize-crc32.Size:], sealSum(b, settings(conf)))
	return conf.Put(keySeal, b)
}

func settings(conf *bbolt.Bucket) (out []confValue) {
	c := conf.Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		out = append(out, confValue{k, v})
	}
	return out
}

func logKey(index uint64) []byte { return binary.BigEndian.AppendUint64(nil, index) }

// entrySum is the checksum of the encoded entry at index.
func entrySum(index uint64, data []byte) uint32 {
	return crc32.Update(crc32.Checksum(logKey(index), castagnoli), castagnoli, data)
}

// unsealEntry returns the encoded entry in front of its checksum.
func unsealEntry(index uint64, value []byte) ([]byte, error) {
	n := len(value) - crc32.Size
	if n < 0 || binary.BigEndian.Uint32(value[n:]) != entrySum(index, value[:n]) {
		return nil, damagedf("%s: the checksum of entry %d does not match", logFile, index)
	}
	return value[:n], nil
}

// openBolt opens the log in path, which in describes. What was written by others is sealed.
func openBolt(path string, in *inspection) (*boltLog, error) {
	conn, err := bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout: logLockTimeout,

		// The list of free pages is not stored. After a load of gigabytes it would have megabytes, which each transaction
		// would write anew; it is known from the pages in use, which are few.
		NoFreelistSync: true,
		FreelistType:   bbolt.FreelistMapType,
	})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("%s is in use by another process: %w", path, ErrLocked)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	b := &boltLog{conn: conn, handle: &codec.MsgpackHandle{}}
	if !in.sealed {
		if err := b.adopt(in); err != nil {
			return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), conn.Close())
		}
	}
	return b, nil
}

// adopt seals the file, in one transaction: there is no moment at which it is half ours.
func (b *boltLog) adopt(in *inspection) error {
	return b.conn.Update(func(tx *bbolt.Tx) error {
		conf, err := tx.CreateBucketIfNotExists(bucketConf)
		if err != nil {
			return err
		}
		logs, err := tx.CreateBucketIfNotExists(bucketLogs)
		if err != nil {
			return err
		}
		var s seal
		c := logs.Cursor()
		for k, v := c.First(); k != nil; k, v = c.Next() {
			index := binary.BigEndian.Uint64(k)
			var e raft.Log
			if err := b.decode(index, v, &e); err != nil {
				return err
			}
			if s.last > 0 && index > s.last+1 {
				in.damaged = index - 1 // a hole
			}
			s.append(&e)
		}
		for i := s.first; i <= s.last && s.last > 0; i++ {
			if v := logs.Get(logKey(i)); v != nil {
				data := bytes.Clone(v)
				if err := logs.Put(logKey(i), binary.BigEndian.AppendUint32(data, entrySum(i, data))); err != nil {
					return err
				}
			}
		}
		in.seal = s
		return s.put(conf)
	})
}

func (s *seal) append(e *raft.Log) {
	if s.last == 0 {
		s.first = e.Index
	}
	s.last, s.term = e.Index, e.Term
	if e.Type == raft.LogConfiguration {
		s.members = e.Index
	}
}

func (b *boltLog) decode(index uint64, data []byte, e *raft.Log) error {
	if err := codec.NewDecoder(bytes.NewReader(data), b.handle).Decode(e); err != nil {
		return damagedf("%s: entry %d: %w", logFile, index, err)
	}
	if e.Index != index {
		return damagedf("%s: entry %d calls itself %d", logFile, index, e.Index)
	}
	return nil
}

// update changes log and settings in one transaction, and the seal with them.
func (b *boltLog) update(change func(logs, conf *bbolt.Bucket, s *seal) error) error {
	if b.broken.Load() {
		return errBroken
	}
	return b.conn.Update(func(tx *bbolt.Tx) error {
		logs, conf := tx.Bucket(bucketLogs), tx.Bucket(bucketConf)
		s, err := openSeal(settings(conf)) // or this would vouch for what has changed by itself
		if err != nil {
			return err
		}
		if err := change(logs, conf, &s); err != nil {
			return err
		}
		return s.put(conf)
	})
}

// sealed returns the seal.
func (b *boltLog) sealed() (s seal, err error) {
	err = b.conn.View(func(tx *bbolt.Tx) error {
		s, err = openSeal(settings(tx.Bucket(bucketConf)))
		return err
	})
	return s, err
}

// FirstIndex implements raft.LogStore.
func (b *boltLog) FirstIndex() (uint64, error) {
	s, err := b.sealed()
	return s.first, err
}

// LastIndex implements raft.LogStore.
func (b *boltLog) LastIndex() (uint64, error) {
	s, err := b.sealed()
	return s.last, err
}

// GetLog implements raft.LogStore.
func (b *boltLog) GetLog(index uint64, e *raft.Log) error {
	return b.conn.View(func(tx *bbolt.Tx) error { return b.entry(tx.Bucket(bucketLogs), index, e) })
}

func (b *boltLog) entry(logs *bbolt.Bucket, index uint64, e *raft.Log) error {
	value := logs.Get(logKey(index))
	if value == nil {
		return raft.ErrLogNotFound
	}
	data, err := unsealEntry(index, value)
	if err != nil {
		return err
	}
	return b.decode(index, data, e)
}

// StoreLog implements raft.LogStore.
func (b *boltLog) StoreLog(e *raft.Log) error { return b.StoreLogs([]*raft.Log{e}) }

// StoreLogs implements raft.LogStore.
func (b *boltLog) StoreLogs(entries []*raft.Log) error {
	return b.update(func(logs, _ *bbolt.Bucket, s *seal) error {
		for _, e := range entries {
			if e.Index <= s.last {
				return fmt.Errorf("entry %d follows entry %d", e.Index, s.last)
			}
			var data []byte
			if err := codec.NewEncoderBytes(&data, b.handle).Encode(e); err != nil {
				return err
			}
			data = binary.BigEndian.AppendUint32(data, entrySum(e.Index, data))
			if err := logs.Put(logKey(e.Index), data); err != nil {
				return err
			}
			s.append(e)
		}
		return nil
	})
}

// DeleteRange implements raft.LogStore.
func (b *boltLog) DeleteRange(first, last uint64) error {
	return b.update(func(logs, _ *bbolt.Bucket, s *seal) error {
		for i := max(first, s.first); i <= min(last, s.last) && s.last > 0; i++ {
			if err := logs.Delete(logKey(i)); err != nil {
				return err
			}
		}
		return b.shortened(logs, s)
	})
}

// shortened sets s to what is left of the log.
func (b *boltLog) shortened(logs *bbolt.Bucket, s *seal) error {
	c := logs.Cursor()
	k, _ := c.First()
	if k == nil {
		*s = seal{}
		return nil
	}
	s.first = binary.BigEndian.Uint64(k)
	k, _ = c.Last()
	if last := binary.BigEndian.Uint64(k); last != s.last {
		var e raft.Log
		if err := b.entry(logs, last, &e); err != nil {
			return err
		}
		s.last, s.term = last, e.Term
	}
	if s.members < s.first {
		s.members = 0
	}
	for i := s.last; s.members > s.last; i-- { // it was among those deleted
		var e raft.Log
		if i < s.first {
			s.members = 0
		} else if err := b.entry(logs, i, &e); err != nil {
			return err
		} else if e.Type == raft.LogConfiguration {
			s.members = i
		}
	}
	return nil
}

// Set implements raft.StableStore.
func (b *boltLog) Set(key, value []byte) error {
	return b.update(func(_, conf *bbolt.Bucket, _ *seal) error { return conf.Put(key, value) })
}

// Get implements raft.StableStore.
func (b *boltLog) Get(key []byte) (value []byte, err error) {
	err = b.conn.View(func(tx *bbolt.Tx) error {
		conf := tx.Bucket(bucketConf)
		if _, err := openSeal(settings(conf)); err != nil {
			return err
		}
		v := conf.Get(key)
		if v == nil {
			return errKeyNotFound
		}
		value = append([]byte{}, v...)
		return nil
	})
	return value, err
}

// SetUint64 implements raft.StableStore.
func (b *boltLog) SetUint64(key []byte, value uint64) error { return b.Set(key, logKey(value)) }

// GetUint64 implements raft.StableStore.
func (b *boltLog) GetUint64(key []byte) (uint64, error) {
	value, err := b.Get(key)
	if err != nil {
		return 0, err
	}
	if len(value) != 8 {
		return 0, damagedf("%s: %s has %d bytes", logFile, key, len(value))
	}
	return binary.BigEndian.Uint64(value), nil
}

// Stats returns what bbolt counts.
func (b *boltLog) Stats() bbolt.Stats { return b.conn.Stats() }

// Close closes the file.
func (b *boltLog) Close() error { return b.conn.Close() }
