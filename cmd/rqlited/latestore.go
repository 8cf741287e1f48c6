package main

import (
	"context"
	"io"
	"sync/atomic"

	"rqlited/command"
	"rqlited/store"
)

// lateStore stands for a store that is not open yet: the ports are, and what arrives there is
// answered with store.ErrNotOpen. When the node stops, it stops being ready first.
type lateStore struct {
	store    atomic.Pointer[store.Store]
	stopping atomic.Bool
}

// set makes st the store; from now on it answers.
func (l *lateStore) set(st *store.Store) { l.store.Store(st) }

// stop makes the node unready. Requests are still answered.
func (l *lateStore) stop() { l.stopping.Store(true) }

// Failed returns why the node is about to end, or nil.
func (l *lateStore) Failed() error {
	if st := l.store.Load(); st != nil {
		return st.Failed()
	}
	return nil
}

func (l *lateStore) Do(ctx context.Context, req *command.Request) (*command.Response, error) {
	if st := l.store.Load(); st != nil {
		return st.Do(ctx, req)
	}
	return nil, store.ErrNotOpen
}

// Watch watches nothing while the store is not open: nothing can be written then.
func (l *lateStore) Watch(seed uint64) (applied func() (bool, error), end func()) {
	if st := l.store.Load(); st != nil {
		return st.Watch(seed)
	}
	return func() (bool, error) { return false, store.ErrUnknown }, func() {}
}

// Check does not let the node's state count: what is refused is refused for ever.
func (l *lateStore) Check(req *command.Request) error {
	if st := l.store.Load(); st != nil {
		return st.Check(req)
	}
	return store.ErrNotOpen
}

func (l *lateStore) Ready() error {
	st := l.store.Load()
	switch {
	case st == nil:
		return store.ErrNotOpen
	case l.stopping.Load():
		return store.ErrNotReady
	}
	return st.Ready()
}

func (l *lateStore) Servers() ([]store.Server, error) {
	if st := l.store.Load(); st != nil {
		return st.Servers()
	}
	return nil, store.ErrNotOpen
}

func (l *lateStore) Leader() (store.Server, bool) {
	if st := l.store.Load(); st != nil {
		return st.Leader()
	}
	return store.Server{}, false
}

func (l *lateStore) CommitIndex() uint64 {
	if st := l.store.Load(); st != nil {
		return st.CommitIndex()
	}
	return 0
}

func (l *lateStore) WaitApplied(ctx context.Context, index uint64) error {
	if st := l.store.Load(); st != nil {
		return st.WaitApplied(ctx, index)
	}
	return store.ErrNotOpen
}

func (l *lateStore) Snapshot(ctx context.Context, trailing uint64) error {
	if st := l.store.Load(); st != nil {
		return st.Snapshot(ctx, trailing)
	}
	return store.ErrNotOpen
}

func (l *lateStore) Compact(ctx context.Context) (int, error) {
	if st := l.store.Load(); st != nil {
		return st.Compact(ctx)
	}
	return 0, store.ErrNotOpen
}

func (l *lateStore) Hash(ctx context.Context) (store.StateHash, error) {
	if st := l.store.Load(); st != nil {
		return st.Hash(ctx)
	}
	return store.StateHash{}, store.ErrNotOpen
}

func (l *lateStore) HashAt(ctx context.Context, index uint64) (store.StateHash, error) {
	if st := l.store.Load(); st != nil {
		return st.HashAt(ctx, index)
	}
	return store.StateHash{}, store.ErrNotOpen
}

func (l *lateStore) Notify(ctx context.Context, sv store.Server) error {
	if st := l.store.Load(); st != nil {
		return st.Notify(ctx, sv)
	}
	return store.ErrNotOpen
}

func (l *lateStore) Join(ctx context.Context, sv store.Server) error {
	if st := l.store.Load(); st != nil {
		return st.Join(ctx, sv)
	}
	return store.ErrNotOpen
}

func (l *lateStore) Remove(ctx context.Context, id string) error {
	if st := l.store.Load(); st != nil {
		return st.Remove(ctx, id)
	}
	return store.ErrNotOpen
}

func (l *lateStore) Stepdown(ctx context.Context, id string, wait bool) error {
	if st := l.store.Load(); st != nil {
		return st.Stepdown(ctx, id, wait)
	}
	return store.ErrNotOpen
}

func (l *lateStore) Backup(ctx context.Context, req *command.BackupRequest, w io.Writer) error {
	if st := l.store.Load(); st != nil {
		return st.Backup(ctx, req, w)
	}
	return store.ErrNotOpen
}

func (l *lateStore) Load(ctx context.Context, r io.Reader) (index uint64, err error) {
	if st := l.store.Load(); st != nil {
		return st.Load(ctx, r)
	}
	return 0, store.ErrNotOpen
}

func (l *lateStore) Boot(ctx context.Context, r io.Reader) error {
	if st := l.store.Load(); st != nil {
		return st.Boot(ctx, r)
	}
	return store.ErrNotOpen
}

// status returns the "store" object of /status.
func (l *lateStore) status() any {
	st := l.store.Load()
	if st == nil {
		return map[string]bool{"open": false}
	}
	status, err := st.Stats()
	if err != nil {
		return err
	}
	return status
}

// extensions returns the "extensions" object of /status.
func (l *lateStore) extensions() any {
	dir, names := "", []string{}
	if st := l.store.Load(); st != nil {
		dir, names = st.Extensions()
	}
	return map[string]any{"dir": dir, "names": names}
}

// counters returns a function that returns what of counts, and nothing while there is no store.
func (l *lateStore) counters(of func(*store.Store) map[string]int64) func() map[string]int64 {
	return func() map[string]int64 {
		if st := l.store.Load(); st != nil {
			return of(st)
		}
		return nil
	}
}

// metrics returns the numbers for /metrics, and whether there are any.
func (l *lateStore) metrics() (m store.Metrics, open bool) {
	st := l.store.Load()
	if st == nil {
		return m, false
	}
	return st.Metrics(), true
}
