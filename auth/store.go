package auth

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/bcrypt"
)

const (
	// lookInterval is how often the file is looked at, at most.
	lookInterval = time.Second

	// settled is how old a file has to be for its time to tell it from later ones: two changes
	// within one tick of the file system's clock leave the same time.
	settled = 2 * time.Second
)

// Config configures a Store. Open copies it.
type Config struct {
	Logger *slog.Logger // nil discards
}

// Store answers for the users of one credentials file. It is safe for concurrent use.
type Store struct {
	path string
	log  *slog.Logger
	key  [32]byte // of digests; immutable, random, never leaves the process

	users atomic.Pointer[users]
	gate  *gate

	// compare is bcrypt's, which takes long.
	compare func(hash, password []byte) error

	mu     sync.Mutex // held by whoever looks at the file, and waited for by nobody
	looked time.Time  // guarded by mu, as is all below
	file   version    // what users is of
	fault  string     // what the file was last found to be unusable for; empty if it is not
}

// version is one state of the file.
type version struct {
	info    os.FileInfo
	content [sha256.Size]byte
	read    time.Time
}

// Open reads the credentials file at path. Its error says what is wrong with it, in rqlite's words
// where there are any.
func Open(path string, cfg Config) (*Store, error) {
	s := &Store{path: path, log: cfg.Logger, gate: newGate(), compare: bcrypt.CompareHashAndPassword}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	rand.Read(s.key[:]) // never fails
	us, v, err := s.load()
	if err != nil {
		return nil, err
	}
	s.looked = v.read
	s.take(us, v)
	return s, nil
}

var (
	// ErrDenied means that a user may not do what was asked for, or is not who he says he is.
	ErrDenied = errors.New("auth: denied")

	// ErrBusy means that too many passwords are being compared with hashes to tell.
	ErrBusy = fmt.Errorf("passwords are checked %d at a time, %d more are waiting, and none waits for more than %s", checksAtOnce(), maxWaiting, maxWait)
)

// Permit returns nil if the user may do what needs the permission, else ErrDenied. Everyone may do what "*"
// may, whatever the credentials; an empty username is nobody. If the password has to be compared with a
// hash and too many others are just being, Permit returns ErrBusy after a while, or at once; it never does
// for a pair that was right before under the present content of the file.
func (s *Store) Permit(username, password, permission string) error {
	us := s.current()
	if us.everyone.grant(permission) {
		return nil
	}
	if username == "" {
		return ErrDenied
	}
	if err := s.authentic(us, username, password); err != nil {
		return err
	}
	if !us.find(username).perms.grant(permission) {
		return ErrDenied
	}
	return nil
}

// Password returns a user's password, for calls to other nodes in that user's name. There is none
// if the user is unknown or the file has only a hash of it.
func (s *Store) Password(username string) (string, bool) {
	u := s.current().find(username)
	if u.plain == nil {
		return "", false
	}
	return *u.plain, true
}

// authentic returns nil if the password is the user's, else ErrDenied or ErrBusy.
func (s *Store) authentic(us *users, username, password string) error {
	d := s.digest(username, password)
	u := us.find(username)
	if u.accepts(d) {
		return nil
	}
	if us.cost == 0 {
		return ErrDenied // without hashes in the file, no attempt takes long
	}
	// Those who come with the same pair at the same time share one check.
	_, err, _ := us.checks.Do(string(d[:]), func() (any, error) {
		if u.accepts(d) {
			return nil, nil // since a moment ago
		}
		if !s.gate.enter() {
			if s.gate.complain() {
				s.log.Warn("passwords not checked, too many at a time", "refused", s.gate.refused.Load())
			}
			return nil, ErrBusy
		}
		defer s.gate.leave()
		if !s.check(us, u, d, password) {
			return nil, ErrDenied
		}
		return nil, nil
	})
	return err
}

// accepts says whether d is known to be right.
func (u *user) accepts(d digest) bool {
	accepted := u.accepted.Load()
	return subtle.ConstantTimeCompare(accepted[:], d[:]) == 1
}

// check compares the password with u's hash and remembers d if it is right. If it is not, check
// takes as long for every user.
func (s *Store) check(us *users, u *user, d digest, password string) bool {
	if u.hash != nil && s.compare(u.hash, []byte(password)) == nil {
		u.accepted.Store(&d)
		return true
	}
	for _, cost := range us.evening(u) {
		_ = s.compare(decoy(cost), []byte(password)) // nothing suits a decoy
	}
	return false
}

// digest returns what stands for the pair. The length keeps name and password apart.
func (s *Store) digest(username, password string) (d digest) {
	h := hmac.New(sha256.New, s.key[:])
	h.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(username))))
	h.Write([]byte(username))
	h.Write([]byte(password))
	h.Sum(d[:0])
	return d
}

// current returns the users of the file as it was a second ago at most, unless it was unusable.
func (s *Store) current() *users {
	if s.mu.TryLock() { // else somebody is looking, and the others go on with what there is
		defer s.mu.Unlock()
		if now := time.Now(); now.Sub(s.looked) >= lookInterval {
			s.looked = now
			s.look()
		}
	}
	return s.users.Load()
}

// look takes over the file if it has changed and can be used. One that could not is read again
// each time, as the reason may be gone without a trace on the file.
func (s *Store) look() {
	info, err := os.Stat(s.path)
	if err == nil && (!info.Mode().IsRegular() || s.fault == "" && s.file.is(info)) {
		return // a pipe, which a shell may pass as a file, can be read once
	}
	us, v, err := s.load()
	if err != nil {
		fault := err.Error()
		if info != nil {
			fault += fmt.Sprint(info.ModTime(), info.Size())
		}
		if fault != s.fault {
			s.log.Warn("credentials file cannot be used, going on with the one before", "file", s.path, "err", err)
		}
		s.fault = fault
		return
	}
	if v.content == s.file.content {
		s.file = v // and the passwords that were checked stay so
		if s.fault != "" {
			s.log.Info("credentials file is again what it was", "file", s.path)
		}
	} else {
		s.take(us, v)
		s.log.Info("credentials file read again", "file", s.path, "users", len(us.byName))
	}
	s.fault = ""
}

// is reports whether the file that info describes is v for certain.
func (v *version) is(info os.FileInfo) bool {
	return os.SameFile(v.info, info) && v.info.Size() == info.Size() && v.info.ModTime().Equal(info.ModTime()) &&
		v.read.Sub(info.ModTime()) >= settled
}

// load reads the file.
func (s *Store) load() (*users, version, error) {
	read := time.Now()
	data, info, err := readFile(s.path)
	if err != nil {
		return nil, version{}, err
	}
	entries, err := parse(data)
	if err != nil {
		return nil, version{}, fmt.Errorf("%s: %w", s.path, err)
	}
	return newUsers(entries, s.digest), version{info, sha256.Sum256(data), read}, nil
}

// take makes us, which v says, the users from now on, and tells what the operator may not want.
func (s *Store) take(us *users, v version) {
	const shown = 10
	if n := len(us.odd.unknown); n > 0 {
		s.log.Warn("unknown permissions ignored", "file", s.path, "count", n, "first", us.odd.unknown[:min(n, shown)])
	}
	if us.odd.nameless > 0 {
		s.log.Warn("entries without a username ignored", "file", s.path, "count", us.odd.nameless)
	}
	if exposed(v.info) && !exposed(s.file.info) {
		s.log.Warn("credentials file can be read by everyone on this machine", "file", s.path, "mode", v.info.Mode().String())
	}
	s.users.Store(us)
	s.file = v
}

// exposed reports whether every user of the machine may read the file.
func exposed(info os.FileInfo) bool { return info != nil && info.Mode().Perm()&0o004 != 0 }
