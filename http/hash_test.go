package http

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"rqlited/store"
)

func TestHash(t *testing.T) {
	const busy = 20 * time.Second // that a hash takes
	slow := func(ctx context.Context) (store.StateHash, error) {
		select {
		case <-time.After(busy):
			return store.StateHash{Index: 1, Hash: "ff"}, nil
		case <-ctx.Done():
			return store.StateHash{}, ctx.Err()
		}
	}
	fails := func(err error) func(context.Context) (store.StateHash, error) {
		return func(context.Context) (store.StateHash, error) { return store.StateHash{}, err }
	}
	tests := []struct {
		name, path string
		hash       func(context.Context) (store.StateHash, error)
		code       int
		want       string
	}{
		{"hash", "/db/hash", nil, 200, `{"index":12,"hash":"000102030405060708090a0b0c0d0e0f"}`},
		{"pretty", "/db/hash?pretty", nil, 200, "{\n    \"index\": 12,\n    \"hash\": \"000102030405060708090a0b0c0d0e0f\"\n}"},
		{"slow", "/db/hash", slow, 200, `{"index":1,"hash":"ff"}`},
		{"too slow", "/db/hash?timeout=5s", slow, 503, "not done within 5s\n"},
		{"not open", "/db/hash", fails(store.ErrNotOpen), 503, "store: not open\n"},
		{"restoring", "/db/hash", fails(fmt.Errorf("%w: a snapshot is being restored", store.ErrNotReady)), 503,
			"store: not ready: a snapshot is being restored\n"},
		{"damaged", "/db/hash", fails(errors.New("page 7 is damaged")), 503, "page 7 is damaged\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture()
				if tt.hash != nil {
					f.node.hash = tt.hash
				}
				r := f.do(t, "GET", tt.path, "")
				if got := r.Header.Get("Content-Type"); r.StatusCode == http.StatusOK && got != jsonType {
					t.Errorf("Content-Type = %q; want %q", got, jsonType)
				}
				check(t, r, tt.code, tt.want)
			})
		})
	}
}
