package budget

import (
	"errors"
	"testing"
)

func TestClaims(t *testing.T) {
	b := New(100)
	alone, other, small := b.Claim(), b.Claim(), b.Claim()
	steps := []struct {
		name string
		c    *Claim
		to   int64 // negative: release
		full bool
		used int64
	}{
		{"free", small, Free, false, 0},
		{"alone beyond the budget", alone, Free + 150, false, 150},
		{"nothing is left", other, Free + 1, true, 150},
		{"what is free is left", other, Free, false, 150},
		{"alone, more", alone, Free + 160, false, 160},
		{"less changes nothing", alone, Free + 10, false, 160},
		{"released", alone, -1, false, 0},
		{"room again", other, Free + 60, false, 60},
		{"up to the budget", alone, Free + 40, false, 100},
		{"and not beyond", alone, Free + 41, true, 100},
		{"nor the other", other, Free + 61, true, 100},
		{"released", other, -1, false, 40},
		{"twice", other, -1, false, 40},
	}
	for _, s := range steps {
		var err error
		if s.to < 0 {
			s.c.Release()
		} else {
			fits := s.c.Fits(s.to)
			if err = s.c.Raise(s.to); (err == nil) != (fits == nil) {
				t.Errorf("%s: Fits = %v, Raise = %v", s.name, fits, err)
			}
		}
		var full *FullError
		if errors.As(err, &full) != s.full || b.Used() != s.used {
			t.Errorf("%s: %v, %d used; want full %v, %d", s.name, err, b.Used(), s.full, s.used)
		}
	}
}
