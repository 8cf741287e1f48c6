package auth

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// star is bcrypt's hash of "U*U", of cost 5, from the test vectors of crypt_blowfish.
const star = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"

// write writes a credentials file that only its owner may read.
func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// openWith opens a Store on a new file and returns its path and the log, too.
func openWith(t *testing.T, content string) (s *Store, path string, log *bytes.Buffer) {
	t.Helper()
	path, log = filepath.Join(t.TempDir(), "users.json"), new(bytes.Buffer)
	write(t, path, content)
	s, err := Open(path, Config{Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	return s, path, log
}

// permitted says whether s permits it.
func permitted(s *Store, username, password, permission string) bool {
	return s.Permit(username, password, permission) == nil
}

func TestPermitted(t *testing.T) {
	const file = `[
		{"username": "bob", "password": "secret1", "perms": ["all"]},
		{"username": "mary", "password": "secret2", "perms": ["query", "status", "status", "fly"]},
		{"username": "hash", "password": "` + star + `", "perms": ["query"]},
		{"username": "twice", "password": "first", "perms": ["execute"]},
		{"username": "twice", "password": "last", "perms": ["query"]},
		{"username": "before", "password": "secret3", "perms": ["execute"]},
		{"username": "noperms", "password": "x"},
		{"username": "nopassword", "perms": ["query"]},
		{"username": "null", "password": null, "perms": ["query"]},
		{"username": "empty", "password": "", "perms": ["query"]},
		{"username": "", "password": "", "perms": ["query"]},
		{"username": "*", "password": "open", "perms": ["ready"]},
		null
	]`
	tests := []struct {
		name, password, permission string
		want                       bool
	}{
		{"bob", "secret1", "execute", true},
		{"bob", "secret1", "join", true},
		{"bob", "secret2", "execute", false},
		{"bob", "secret1x", "execute", false},
		{"bob", "", "execute", false},
		{"Bob", "secret1", "execute", false},
		{"mary", "secret2", "query", true},
		{"mary", "secret2", "status", true},
		{"mary", "secret2", "execute", false},
		{"mary", "secret2", "all", false},
		{"mary", "secret2", "fly", false}, // no such permission
		{"mary", "secret1", "query", false},
		{"hash", "U*U", "query", true},
		{"hash", "U*U", "execute", false},
		{"hash", "U*V", "query", false},
		{"hash", star, "query", false}, // a hash is not a password
		{"twice", "first", "execute", false},
		{"twice", "first", "query", false},
		{"twice", "last", "query", true},
		{"twice", "last", "execute", false},
		{"noperms", "x", "execute", false}, // not those of the entry before
		{"noperms", "x", "ready", true},
		{"nopassword", "x", "query", false},
		{"nopassword", "", "query", false},
		{"nopassword", "open", "query", false},
		{"null", "", "query", false},
		{"empty", "", "query", true},
		{"", "", "query", false},
		{"", "", "ready", true},
		{"", "", "status", false},
		{"bob", "wrong", "ready", true}, // what everyone may needs no password
		{"stranger", "x", "ready", true},
		{"stranger", "x", "query", false},
		{"*", "wrong", "ready", true},
		{"*", "open", "query", false},
	}
	s, _, _ := openWith(t, file)
	for _, tt := range tests {
		if got := permitted(s, tt.name, tt.password, tt.permission); got != tt.want {
			t.Errorf("Permitted(%q, %q, %q) = %v; want %v", tt.name, tt.password, tt.permission, got, tt.want)
		}
	}
}

func TestEveryoneMayAll(t *testing.T) {
	s, _, _ := openWith(t, `[{"username": "*", "perms": ["all"]}]`)
	if !permitted(s, "", "", "remove") || !permitted(s, "stranger", "x", "join") {
		t.Error(`"*" with "all" does not permit everything to everyone`)
	}
}

// TestForms tells hashes from passwords that only look like them.
func TestForms(t *testing.T) {
	for _, form := range []string{"$2a$", "$2b$", "$2y$"} {
		hash := form + star[4:]
		s, _, _ := openWith(t, `[{"username": "u", "password": "`+hash+`", "perms": ["query"]}]`)
		if !permitted(s, "u", "U*U", "query") || permitted(s, "u", hash, "query") {
			t.Errorf("%s is not taken for a hash", hash)
		}
	}
	for _, plain := range []string{
		"$2x$" + star[4:], "$2$" + star[4:], star + "x", star[:59], "$2a$03$" + star[7:], "$2a$32$" + star[7:],
		star[:59] + "!", star + "\n", " " + star, "$1$" + star[4:],
	} {
		quoted := strings.ReplaceAll(plain, "\n", `\n`)
		s, _, _ := openWith(t, `[{"username": "u", "password": "`+quoted+`", "perms": ["query"]}]`)
		if !permitted(s, "u", plain, "query") || permitted(s, "u", "U*U", "query") {
			t.Errorf("%q is not taken for a plain password", plain)
		}
	}
}

func TestPassword(t *testing.T) {
	s, _, _ := openWith(t, `[{"username": "bob", "password": "secret"}, {"username": "hash", "password": "`+star+`"},
		{"username": "none"}, {"username": "empty", "password": ""}]`)
	tests := []struct {
		name, want string
		ok         bool
	}{
		{"bob", "secret", true},
		{"hash", "", false},
		{"none", "", false},
		{"empty", "", true},
		{"stranger", "", false},
		{"", "", false},
	}
	for _, tt := range tests {
		if got, ok := s.Password(tt.name); got != tt.want || ok != tt.ok {
			t.Errorf("Password(%q) = %q, %v; want %q, %v", tt.name, got, ok, tt.want, tt.ok)
		}
	}
}

// TestEvenWork counts the work of failed attempts: it must not depend on whether there is such a
// user, nor on what is known of the user's password.
func TestEvenWork(t *testing.T) {
	hash := func(cost int) string { return strings.Replace(string(decoy(cost)), ".", "H", 1) }
	const plain = `{"username": "plain", "password": "right", "perms": ["query"]}, {"username": "none", "perms": ["query"]}`
	s, path, _ := openWith(t, `[`+plain+`, {"username": "four", "password": "`+hash(4)+`"},
		{"username": "five", "password": "`+hash(5)+`"}, {"username": "seven", "password": "`+hash(7)+`"}]`)
	var work int
	s.compare = func(hash, password []byte) error {
		cost, err := bcrypt.Cost(hash)
		if err != nil {
			t.Errorf("hash %s: %v", hash, err)
		}
		work += 1 << cost
		if bytes.Contains(hash, []byte("H")) && string(password) == "right" {
			return nil
		}
		return bcrypt.ErrMismatchedHashAndPassword
	}
	spent := func(name, password string) int {
		work = 0
		permitted(s, name, password, "query")
		return work
	}
	for _, name := range []string{"stranger", "plain", "none", "four", "five", "seven", "*"} {
		for _, password := range []string{"wrong", "", strings.Repeat("long", 100)} {
			if got := spent(name, password); got != 1<<7 {
				t.Errorf("wrong password of %s: work of %d; want %d", name, got, 1<<7)
			}
		}
	}
	if got := spent("", ""); got != 0 {
		t.Errorf("without credentials: work of %d; want none", got)
	}
	if first, again := spent("five", "right"), spent("five", "right"); first != 1<<5 || again != 0 {
		t.Errorf("right password: work of %d, then %d; want %d, then none", first, again, 1<<5)
	}
	if got := spent("five", "wrong"); got != 1<<7 {
		t.Errorf("wrong password after the right one: work of %d; want %d", got, 1<<7)
	}

	write(t, path, `[`+plain+`]`)
	s.looked = time.Time{}
	for _, name := range []string{"stranger", "plain", "none"} {
		if got := spent(name, "wrong"); got != 0 {
			t.Errorf("wrong password of %s without hashes in the file: work of %d; want none", name, got)
		}
	}
}

// TestSharedCheck has many come with one pair that was not checked before: one check is made.
func TestSharedCheck(t *testing.T) {
	s, _, _ := openWith(t, `[{"username": "u", "password": "`+star+`", "perms": ["query"]}]`)
	synctest.Test(t, func(t *testing.T) {
		begun, finish := make(chan struct{}, 500), make(chan struct{})
		s.compare = func(hash, password []byte) error {
			begun <- struct{}{}
			<-finish
			return bcrypt.CompareHashAndPassword(hash, password)
		}
		var wg sync.WaitGroup
		for range 500 {
			wg.Go(func() {
				if !permitted(s, "u", "U*U", "query") {
					t.Error("a right password was refused")
				}
			})
		}
		synctest.Wait()
		close(finish)
		wg.Wait()
		if n := len(begun); n != 1 {
			t.Errorf("%d checks; want 1", n)
		}
	})
}

// TestGuesses makes more guesses at once than are checked, twice. All of them are refused, most at
// once and some after a while, and none keeps out a user who was there before.
func TestGuesses(t *testing.T) {
	s, _, log := openWith(t, `[{"username": "u", "password": "`+star+`", "perms": ["query"]}]`)
	if !permitted(s, "u", "U*U", "query") {
		t.Fatal("a right password was refused")
	}
	synctest.Test(t, func(t *testing.T) {
		s.gate = newGate()
		for range 2 {
			guess(t, s)
		}
	})
	if n := strings.Count(log.String(), "passwords not checked"); n != 1 {
		t.Errorf("%d log lines; want 1 a minute:\n%s", n, log)
	}
}

// guess makes many guesses at once.
func guess(t *testing.T, s *Store) {
	finish := make(chan struct{})
	var running, most atomic.Int64
	s.compare = func(_, _ []byte) error {
		if n := running.Add(1); n > most.Load() {
			most.Store(n)
		}
		defer running.Add(-1)
		<-finish
		return bcrypt.ErrMismatchedHashAndPassword
	}
	const guesses = 3 * maxWaiting
	answers := make(chan error, guesses)
	var wg sync.WaitGroup
	for i := range guesses {
		wg.Go(func() { answers <- s.Permit("u", strings.Repeat("x", i), "query") })
	}
	synctest.Wait()
	turns := cap(s.gate.running)
	if got, want := len(answers), guesses-turns-maxWaiting; got != want {
		t.Errorf("%d guesses answered at once; want %d", got, want)
	}
	if !permitted(s, "u", "U*U", "query") {
		t.Error("a user who was there before is refused")
	}
	<-time.After(maxWait + time.Millisecond)
	synctest.Wait()
	if got, want := len(answers), guesses-turns; got != want {
		t.Errorf("%d guesses answered after a while; want %d", got, want)
	}
	close(finish)
	wg.Wait()
	close(answers)
	said := map[error]int{}
	for err := range answers {
		said[err]++
	}
	if said[ErrDenied] != turns || said[ErrBusy] != guesses-turns {
		t.Errorf("answers = %v; want %d times %v, else %v", said, turns, ErrDenied, ErrBusy)
	}
	if most.Load() != int64(turns) || turns > maxChecks {
		t.Errorf("%d checks at a time; want %d", most.Load(), turns)
	}
}

func TestOddities(t *testing.T) {
	s, path, log := openWith(t, `[{"username": "bob", "perms": ["query", "qwery", "Execute"]}, {"perms": ["all"]}, {"username": "al", "perms": ["qwery"]}]`)
	for _, want := range []string{
		`level=WARN msg="unknown permissions ignored" file=` + path + ` count=2 first="[Execute qwery]"`,
		`level=WARN msg="entries without a username ignored" file=` + path + ` count=1`,
	} {
		if strings.Count(log.String(), want) != 1 {
			t.Errorf("log lacks %s once:\n%s", want, log)
		}
	}
	if strings.Contains(log.String(), "can be read") {
		t.Errorf("a private file is said to be readable by everyone:\n%s", log)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		write(t, path, `[{"username": "n`+strings.Repeat("x", log.Len())+`"}]`) // another one each time
		s.looked = time.Time{}
		permitted(s, "", "", "query")
	}
	if n := strings.Count(log.String(), `level=WARN msg="credentials file can be read by everyone on this machine"`); n != 1 {
		t.Errorf("a public file is warned of %d times; want once:\n%s", n, log)
	}
	if n := strings.Count(log.String(), `level=INFO msg="credentials file read again"`); n != 2 {
		t.Errorf("%d reloads; want 2:\n%s", n, log)
	}
}

// TestPermissionNames holds the names that files for rqlite use.
func TestPermissionNames(t *testing.T) {
	names := []string{
		"all", "execute", "query", "load", "backup", "status", "ready", "remove", "snapshot", "leader-ops", "ui",
		"join", "join-read-only", "join-read-replica",
	}
	slices.Sort(names)
	if !slices.Equal(permissionNames, names) {
		t.Errorf("permissionNames = %q; want %q", permissionNames, names)
	}
}
