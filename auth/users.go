package auth

import (
	"crypto/rand"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/singleflight"
)

const (
	everyone = "*"
	all      = "all"

	// maxCost bounds the cost of a hash: one step more doubles the time, and this is seconds.
	maxCost = 16
)

// permissionNames are all that a file can grant.
var permissionNames = []string{
	all, "backup", "execute", "join", "join-read-only", "join-read-replica", "leader-ops", "load",
	"query", "ready", "remove", "snapshot", "status", "ui",
}

// digest stands for a name with its password. It says nothing without the key of its Store.
type digest [32]byte

// users is what one content of the file says. But for what the users remember it is immutable.
type users struct {
	byName   map[string]*user
	everyone permissions
	stranger *user // stands for every name that is not known
	cost     int   // highest of a hash; 0 if there is none

	checks singleflight.Group // of passwords, by digest
	odd    oddities
}

// oddities are what a file says without effect.
type oddities struct {
	unknown  []string // permissions
	nameless int      // entries
}

// user is one entry of the file.
type user struct {
	perms permissions
	plain *string // nil if there is no password, or only its hash

	// accepted is the digest of the right password as far as it is known: with a hash only once
	// it was checked. Until then it is random, so that comparing takes the same time.
	accepted atomic.Pointer[digest]

	hash []byte // nil if the password is not one
	cost int    // of hash
}

// permissions are what a user may do.
type permissions []string

func (p permissions) grant(permission string) bool {
	return slices.Contains(p, permission) || slices.Contains(p, all)
}

// newUsers makes users of entries. Of two with one name the last is taken.
func newUsers(entries []entry, sum func(name, password string) digest) *users {
	us := &users{byName: make(map[string]*user, len(entries)), stranger: newUser(nil)}
	for _, e := range entries {
		if e.name == "" {
			us.odd.nameless++
			continue
		}
		u := newUser(us.known(e.perms))
		us.byName[e.name] = u
		if e.password == nil {
			continue
		}
		if cost, hashed := hashCost(e.password); hashed {
			u.hash, u.cost = []byte(*e.password), cost
			us.cost = max(us.cost, cost)
			continue
		}
		d := sum(e.name, *e.password)
		u.plain = e.password
		u.accepted.Store(&d)
	}
	if u := us.byName[everyone]; u != nil {
		us.everyone = u.perms
	}
	slices.Sort(us.odd.unknown)
	us.odd.unknown = slices.Compact(us.odd.unknown)
	return us
}

// newUser returns a user whom no password suits.
func newUser(p permissions) *user {
	u := &user{perms: p}
	var d digest
	rand.Read(d[:]) // never fails
	u.accepted.Store(&d)
	return u
}

// known returns those of perms that exist, and notes the others.
func (us *users) known(perms []string) permissions {
	var p permissions
	for _, name := range perms {
		switch {
		case !slices.Contains(permissionNames, name):
			us.odd.unknown = append(us.odd.unknown, name)
		case !slices.Contains(p, name):
			p = append(p, name)
		}
	}
	return p
}

// find returns the user of that name, or one who stands for all that there are not.
func (us *users) find(name string) *user {
	if u := us.byName[name]; u != nil {
		return u
	}
	return us.stranger
}

// evening returns the costs of the decoys that bring a failed check of u to the cost of every other,
// which is that of the dearest hash. Each step of cost doubles the work, so that from u's own cost c
// one decoy of each cost from c on does it: 2^c + 2^c + 2^(c+1) + … = 2^us.cost.
func (us *users) evening(u *user) []int {
	if u.hash == nil {
		return []int{us.cost}
	}
	var costs []int
	for c := u.cost; c < us.cost; c++ {
		costs = append(costs, c)
	}
	return costs
}

// decoy returns a hash of that cost that nobody knows a password for.
func decoy(cost int) []byte {
	return fmt.Appendf(nil, "$2a$%02d$%s", cost, strings.Repeat(".", 53))
}

// hashForm is the form of bcrypt's hashes. Whatever differs from it is a password in plain text.
var hashForm = regexp.MustCompile(`^\$2[aby]\$(0[4-9]|[12][0-9]|3[01])\$[./A-Za-z0-9]{53}$`)

// hashCost returns the cost of the hash that password is, if it is one.
func hashCost(password *string) (cost int, hashed bool) {
	if password == nil {
		return 0, false
	}
	m := hashForm.FindStringSubmatch(*password)
	if m == nil {
		return 0, false
	}
	cost, err := strconv.Atoi(m[1])
	return cost, err == nil
}
