package system

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"
)

// pollEvery is how often a condition is looked at.
const pollEvery = 20 * time.Millisecond

// hopelessError ends a poll at once: what was waited for cannot happen any more.
type hopelessError struct{ error }

func (e hopelessError) Unwrap() error { return e.error }

// within polls try until it returns nil, and ends the test if that does not happen in time. It
// returns how long it took.
func within(t *testing.T, limit time.Duration, what string, try func() error) time.Duration {
	t.Helper()
	took, err := poll(limit, pollEvery, try)
	if err != nil {
		t.Fatalf("%s: not after %s (limit %s): %v", what, took.Round(time.Millisecond), limit, err)
	}
	return took
}

// poll calls try every interval until it returns nil or the limit has passed.
func poll(limit, interval time.Duration, try func() error) (time.Duration, error) {
	start := time.Now()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		err := try()
		took := time.Since(start)
		if err == nil {
			return took, nil
		}
		if _, hopeless := errors.AsType[hopelessError](err); hopeless || took > limit {
			return took, err
		}
		<-tick.C
	}
}

// newRand returns a random source and logs how to have the same one again.
func newRand(t *testing.T) *rand.Rand {
	seed := *flagSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("-seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}
