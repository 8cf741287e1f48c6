package db

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"rqlited/internal/vfs/crashfs"
)

// hashBytes hashes a file that nobody has looked at.
func hashBytes(t testing.TB, data []byte) (string, error) {
	t.Helper()
	f, err := crashfs.New().Create("/db")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(data); err != nil {
		t.Fatal(err)
	}
	s, err := computeSums(f)
	if err != nil {
		return "", err
	}
	p, err := openPinned(nil, "", &mainFile{f: f, sums: s}, 0, 0)
	if err != nil {
		return "", err
	}
	h := &Hash{hasher: new(hasher), pin: pin{pages: p}}
	sum, err := h.sum(t.Context())
	if s.damaged() != 0 {
		t.Fatalf("page %d counts as damaged", s.damaged())
	}
	return sum.String(), err
}

// hashSeed is a database of small pages with all kinds of them.
func hashSeed(t testing.TB) []byte {
	t.Helper()
	d := openImage(t, "PRAGMA page_size=512; CREATE TABLE z (x)")
	exec(t, d, hashSetup...)
	exec(t, d, "UPDATE t SET b=zeroblob(3000) WHERE length(b)>10000", "INSERT INTO w SELECT hex(zeroblob(id*20)), id, 0 FROM t WHERE id BETWEEN 1 AND 60", "VACUUM")
	want := hashNow(t, d)
	snapshotNow(t, d, &chain{images: map[string][]byte{}})
	data := mainFileOf(t, d)
	if got, err := hashBytes(t, data); err != nil || got != want {
		t.Fatalf("hash of the file is %s, %v; want %s", got, err, want)
	}
	return data
}

// TestHashMalformed changes bytes of a file: its hash comes to an end, and is no crash. That of a page
// that cannot be read as one is an error that says so.
func TestHashMalformed(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	dice := rand.New(rand.NewPCG(seed, 0))
	data := hashSeed(t)
	refused := 0
	for range 200 {
		bad := append([]byte(nil), data...)
		for range 1 + dice.IntN(3) {
			off := dice.IntN(len(bad)/512) * 512
			if dice.IntN(2) == 0 {
				off += dice.IntN(512)
			} else {
				off += dice.IntN(12)
			}
			bad[off] = byte(dice.Uint32())
		}
		_, err := hashBytes(t, bad)
		if err == nil {
			continue
		}
		refused++
		if !errors.Is(err, errMalformed) && !strings.Contains(err.Error(), "page size") {
			t.Fatal(err)
		}
	}
	t.Logf("%d of 200 refused", refused)
	if refused < 10 {
		t.Errorf("only %d of 200 changes were refused", refused)
	}
}

func FuzzHash(f *testing.F) {
	f.Add(hashSeed(f))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) >= headerSize {
			_, _ = hashBytes(t, data)
		}
	})
}
