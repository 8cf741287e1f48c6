package auth

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestReload changes the file and looks at what a user may do a moment later, and when the file is
// looked at again.
func TestReload(t *testing.T) {
	user := func(password, perms string) string {
		return fmt.Sprintf(`[{"username": "u", "password": %q, "perms": [%s]}]`, password, perms)
	}
	s, path, log := openWith(t, user("a", `"query"`))
	synctest.Test(t, func(t *testing.T) {
		s.looked = time.Now()
		later := func() { <-time.After(lookInterval) }
		expect := func(what, password, permission string, want bool) {
			t.Helper()
			if got := permitted(s, "u", password, permission); got != want {
				t.Errorf("%s: Permitted(u, %s, %s) = %v; want %v", what, password, permission, got, want)
			}
		}
		said := func(what, line string, times int) {
			t.Helper()
			if n := strings.Count(log.String(), line); n != times {
				t.Errorf("%s: %q was logged %d times; want %d:\n%s", what, line, n, times, log)
			}
		}
		const again, broken, good = "credentials file read again", "cannot be used", "is again what it was"

		write(t, path, user("b", `"query"`))
		expect("within a second", "a", "query", true)
		later()
		expect("a second later", "a", "query", false)
		expect("a second later", "b", "query", true)
		said("a change", "level=INFO msg=\""+again, 1)

		write(t, path, `[{"username": "u"`)
		for range 3 {
			later()
			expect("broken file", "b", "query", true)
		}
		said("broken file", broken, 1)
		write(t, path, `[{"username": "u", `)
		later()
		expect("differently broken file", "b", "query", true)
		said("differently broken file", broken, 2)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			later()
			expect("no file", "b", "query", true)
		}
		said("no file", broken, 3)
		write(t, path, user("b", `"query"`))
		later()
		expect("the old file", "b", "query", true)
		said("the old file", good, 1)
		said("the old file", again, 1)

		write(t, path+".new", user("c", `"status"`)) // as editors and operators do
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
		later()
		expect("replaced file", "c", "query", false)
		expect("replaced file", "c", "status", true)
		said("replaced file", again, 2)

		later()
		expect("nothing new", "c", "status", true)
		said("nothing new", again, 2)
		said("nothing new", good, 1)
	})
}

// TestReloadSameTime replaces the content of a file by as much of another within one tick of the
// file system's clock, which a look at the file alone does not show.
func TestReloadSameTime(t *testing.T) {
	s, path, _ := openWith(t, `[{"username": "u", "password": "a", "perms": ["query"]}]`)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, `[{"username": "u", "password": "b", "perms": ["query"]}]`)
	if err := os.Chtimes(path, time.Time{}, info.ModTime()); err != nil {
		t.Fatal(err)
	}
	s.looked = time.Time{}
	if permitted(s, "u", "a", "query") || !permitted(s, "u", "b", "query") {
		t.Error("a change within the same tick was not seen")
	}
}

// TestSettledFile checks that a file that has not changed for a while is not read again.
func TestSettledFile(t *testing.T) {
	const before, after = `[{"username": "u", "password": "a", "perms": ["query"]}]`, `[{"username": "u", "password": "b", "perms": ["query"]}]`
	s, path, _ := openWith(t, before)
	old := time.Now().Add(-time.Hour)
	look := func() {
		t.Helper()
		if err := os.Chtimes(path, time.Time{}, old); err != nil {
			t.Fatal(err)
		}
		s.looked = time.Time{}
		permitted(s, "", "", "query")
	}
	look()
	write(t, path, after)
	look() // nothing but the content shows the change
	if !permitted(s, "u", "a", "query") {
		t.Error("a file that looks as before was read again")
	}
}

// TestReloadForgets checks that no password is remembered that the file has not any more.
func TestReloadForgets(t *testing.T) {
	s, path, _ := openWith(t, `[{"username": "u", "password": "`+star+`", "perms": ["query"]}]`)
	if !permitted(s, "u", "U*U", "query") {
		t.Fatal("a right password was refused")
	}
	write(t, path, `[{"username": "u", "password": "`+strings.Replace(star, "E5YP", "E5YQ", 1)+`", "perms": ["query"]}]`)
	s.looked = time.Time{}
	if permitted(s, "u", "U*U", "query") {
		t.Error("a password is accepted whose hash is gone")
	}
}

// TestReloadConcurrent rewrites the file while many ask. Each change is taken over once, whoever
// reads it, and as a whole.
func TestReloadConcurrent(t *testing.T) {
	content := func(i int) string {
		a, b := "query", "execute"
		if i%2 == 1 {
			a, b = b, a
		}
		return fmt.Sprintf(`[{"username": "a", "password": "x", "perms": [%q]}, {"username": "b", "password": "`+star+`", "perms": [%q]}, {"username": "n%d"}]`, a, b, i)
	}
	s, path, log := openWith(t, content(0))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if permitted(s, "a", "wrong", "query") || permitted(s, "c", "x", "query") || permitted(s, "a", "x", "status") {
					t.Error("permitted what no file permits")
				}
				permitted(s, "b", "U*U", "query") // which is remembered and forgotten
				if p, ok := s.Password("a"); !ok || p != "x" {
					t.Errorf("Password(a) = %q, %v; want x", p, ok)
				}
			}
		})
	}
	const changes = 20
	for i := range changes {
		write(t, path+".new", content(i+1))
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
		s.mu.Lock()
		s.looked = time.Time{}
		s.mu.Unlock()
		want, other := "execute", "query"
		if i%2 == 1 {
			want, other = other, want
		}
		for !permitted(s, "a", "x", want) { // until one of the askers has read it
		}
		if permitted(s, "a", "x", other) {
			t.Errorf("after change %d: %s is still permitted", i, other)
		}
	}
	close(stop)
	wg.Wait()
	if n := strings.Count(log.String(), "read again"); n != changes {
		t.Errorf("%d reloads; want %d:\n%s", n, changes, log)
	}
}
