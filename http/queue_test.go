package http

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rqlited/command"
	"rqlited/store"
)

// queueDB notes what a queue asks of it, and when. Its answers are the errors of fail, in turn; then
// it carries out everything.
type queueDB struct {
	Database // of which it asks nothing else

	mu    sync.Mutex
	start time.Time
	fail  []error
	takes time.Duration
	asked []sent
}

// sent is one request to the database.
type sent struct {
	at   time.Duration // since the beginning
	user string
	sql  string // of its statements, in order
	err  error
}

func (d *queueDB) Do(ctx context.Context, req *command.Request) (*command.Response, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := sent{at: time.Since(d.start), user: req.Forward.Username}
	for _, st := range req.Statements {
		s.sql += st.SQL
	}
	if len(d.fail) > 0 {
		s.err, d.fail = d.fail[0], d.fail[1:]
	}
	if strings.Contains(s.sql, "!") {
		s.err = &store.RequestError{Msg: "disallowed pragma"}
	}
	d.asked = append(d.asked, s)
	select {
	case <-time.After(d.takes):
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", store.ErrUnknown, ctx.Err())
	}
	if s.err != nil {
		return nil, s.err
	}
	return &command.Response{Results: make([]command.Result, len(req.Statements)), Index: 7}, nil
}

// batches returns what was asked, as "time user:sql".
func (d *queueDB) batches() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []string
	for _, s := range d.asked {
		all = append(all, fmt.Sprintf("%s %s:%s", s.at, s.user, s.sql))
	}
	return all
}

// testQueue is a queue with its database, on the clock of a bubble.
type testQueue struct {
	*queue
	t        *testing.T
	db       *queueDB
	fake     fakeNode
	counters counters
	log      strings.Builder
}

func inQueue(t *testing.T, cfg QueueConfig, test func(q *testQueue)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		q := &testQueue{t: t, db: &queueDB{start: time.Now()}}
		q.queue = newQueue(cfg.withDefaults(), q.db, &q.fake, slog.New(slog.NewTextHandler(&q.log, nil)), &q.counters, 100)
		test(q)
		q.stop(t.Context())
		if q.held != 0 || q.bytes != 0 || len(q.pending) != 0 {
			t.Errorf("queue holds %d requests, %d pending, %d bytes after its end", q.held, len(q.pending), q.bytes)
		}
	})
}

// put queues sql of a user and returns it; the test ends if there is no room.
func (q *testQueue) put(user, sql string) *queuedWrite {
	q.t.Helper()
	w := newQueuedWrite([]command.Statement{{SQL: sql}}, caller{username: user})
	if err := q.add(q.t.Context(), w); err != nil {
		q.t.Fatalf("add %q: %v", sql, err)
	}
	return w
}

// after lets time pass.
func after(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func (q *testQueue) want(batches ...string) {
	q.t.Helper()
	if got := q.db.batches(); !slices.Equal(got, batches) {
		q.t.Errorf("database was asked\n%q\nwant\n%q", got, batches)
	}
}

// TestQueueBatches shows when requests are sent, and which together. The users of requests that
// arrive at once are a, or those before a colon; a number is a pause in milliseconds.
func TestQueueBatches(t *testing.T) {
	large := strings.Repeat("x", maxBatch/2)
	tests := []struct {
		name string
		cfg  QueueConfig
		in   []string
		want []string
	}{
		{"by time", QueueConfig{}, []string{"1", "2", "after", "3"}, []string{"50ms a:12", "1.05s a:3"}},
		{"by number", QueueConfig{BatchSize: 2}, []string{"1", "2", "3", "4", "5"}, []string{"0s a:12", "0s a:34", "50ms a:5"}},
		{"without a time", QueueConfig{BatchSize: 2, Timeout: -1}, []string{"1", "after", "2", "3"}, []string{"1s a:12"}},
		{"capacity is less", QueueConfig{BatchSize: 9, Capacity: 2, Timeout: -1}, []string{"1", "after", "2"}, []string{"1s a:12"}},
		{"one at a time", QueueConfig{BatchSize: 1}, []string{"1", "2"}, []string{"0s a:1", "0s a:2"}},
		{"users", QueueConfig{}, []string{"1", "2", "b:3", "4"}, []string{"50ms a:12", "50ms b:3", "50ms a:4"}},
		{"users in a full batch", QueueConfig{BatchSize: 2, Timeout: -1}, []string{"b:1", "2"}, []string{"0s b:1", "0s a:2"}},
		{"transaction control", QueueConfig{}, []string{"1", "2;begin", "3"}, []string{"50ms a:1", "50ms a:2;begin", "50ms a:3"}},
		{"large", QueueConfig{}, []string{large, large, "1"}, []string{"50ms a:" + large, "50ms a:" + large + "1"}},
		{"no room", QueueConfig{Bytes: maxBatch, Timeout: -1}, []string{large, large}, []string{"0s a:" + large}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inQueue(t, tt.cfg, func(q *testQueue) {
				for _, in := range tt.in {
					if in == "after" {
						after(time.Second)
						continue
					}
					user, sql, ok := strings.Cut(in, ":")
					if !ok {
						user, sql = "a", in
					}
					q.put(user, sql)
				}
				after(time.Second)
				q.want(tt.want...)
			})
		})
	}
}

// TestQueueSequence numbers requests, and reports the last that was decided.
func TestQueueSequence(t *testing.T) {
	inQueue(t, QueueConfig{}, func(q *testQueue) {
		if got := q.status()["sequence_number"]; got != uint64(0) {
			t.Errorf("sequence number before the first write = %v; want 0", got)
		}
		for want := uint64(100); want < 103; want++ {
			if got := q.put("a", "x").seq; got != want {
				t.Errorf("sequence number = %d; want %d", got, want)
			}
		}
		after(time.Second)
		want := map[string]any{"batch_size": 128, "max_size": 1024, "sequence_number": uint64(102), "timeout": "50ms"}
		if got := q.status(); !reflect.DeepEqual(got, want) {
			t.Errorf("status = %v; want %v", got, want)
		}
	})
}

// TestQueueFull fills a queue whose database takes its time.
func TestQueueFull(t *testing.T) {
	inQueue(t, QueueConfig{Capacity: 2, BatchSize: 1}, func(q *testQueue) {
		q.db.takes = 10 * time.Second
		q.put("a", "1")
		q.put("a", "2")
		ctx, cancel := context.WithTimeout(q.t.Context(), time.Second)
		defer cancel()
		err := q.add(ctx, newQueuedWrite(nil, caller{}))
		code, text := statusOf(err)
		if code != http.StatusServiceUnavailable || !strings.HasPrefix(text, "write queue is full: it holds 2 requests and ") {
			t.Errorf("add to a full queue = %d %q; want 503", code, text)
		}
		start := time.Now()
		q.put("a", "3") // waits for the first
		if waited := time.Since(start); waited != 9*time.Second {
			t.Errorf("waited for room %s; want 9s", waited)
		}
		after(time.Minute)
		q.want("0s a:1", "10s a:2", "20s a:3")
	})
}

// TestQueueTooLarge refuses at once what can never have room.
func TestQueueTooLarge(t *testing.T) {
	inQueue(t, QueueConfig{Bytes: 1000}, func(q *testQueue) {
		err := q.add(q.t.Context(), newQueuedWrite([]command.Statement{{SQL: strings.Repeat("x", 1000)}}, caller{}))
		if code, text := statusOf(err); code != http.StatusRequestEntityTooLarge || !strings.HasSuffix(text, "the write queue holds 1000") {
			t.Errorf("add = %d %q; want 413", code, text)
		}
	})
}

// TestQueueRetries has a batch fail in all ways that may pass. Those after it wait.
func TestQueueRetries(t *testing.T) {
	inQueue(t, QueueConfig{BatchSize: 2}, func(q *testQueue) {
		q.db.fail = []error{
			store.ErrNoLeader, store.ErrNotLeader, store.ErrNotOpen, store.ErrNotReady, store.ErrLogBusy, errors.New("connection refused"),
			store.ErrLeadershipLost, store.ErrUnknown, fmt.Errorf("%w: %w", store.ErrUnknown, &store.RequestError{Msg: "late"}),
		}
		var writes []*queuedWrite
		for _, sql := range []string{"1", "2", "3", "4"} {
			writes = append(writes, q.put("a", sql))
		}
		after(time.Minute)
		q.want("0s a:12", "1s a:12", "2s a:12", "3s a:12", "4s a:12", "5s a:12", "6s a:12",
			"7s a:SELECT 1", "8s a:SELECT 1", "9s a:SELECT 1", "9s a:12", "9s a:34")
		for _, w := range writes {
			if <-w.done; w.err != nil {
				t.Errorf("write %d = %v", w.seq, w.err)
			}
		}
		counts := q.counters.stats()
		for name, want := range map[string]int64{
			"failed": 9, "ok": 2, "no_leader": 1, "not_leader": 1, "leadership_lost": 1, "unknown_error": 6, "found": 0, "repeated": 0, "refused": 0,
			"num_stmts_tx": 18,
		} {
			if got := counts["queued_executions_"+name]; got != want {
				t.Errorf("queued_executions_%s = %d; want %d", name, got, want)
			}
		}
		if n := strings.Count(q.log.String(), "queued writes not carried out, trying again"); n != 1 {
			t.Errorf("%d warnings; want one a batch\n%s", n, q.log.String())
		}
	})
}

// TestQueueUnknown has an attempt end without an answer, and the log tell what became of it.
func TestQueueUnknown(t *testing.T) {
	tests := []struct {
		name    string
		fail    []error
		applied bool
		missed  error // why the log cannot tell
		want    []string
		counts  [3]int64 // ok, found, repeated
		err     error
	}{
		{"not carried out", []error{store.ErrUnknown}, false, nil, []string{"50ms a:1", "1.05s a:SELECT 1", "1.05s a:1"}, [3]int64{1, 0, 0}, nil},
		{"carried out", []error{store.ErrLeadershipLost}, true, nil, []string{"50ms a:1", "1.05s a:SELECT 1"}, [3]int64{1, 1, 0}, nil},
		{"carried out, no leader for a while", []error{store.ErrUnknown, store.ErrNoLeader}, true, nil,
			[]string{"50ms a:1", "1.05s a:SELECT 1", "2.05s a:SELECT 1"}, [3]int64{1, 1, 0}, nil},
		{"log cannot tell", []error{store.ErrUnknown}, false, store.ErrUnknown, []string{"50ms a:1", "1.05s a:SELECT 1", "1.05s a:1"}, [3]int64{1, 0, 1}, nil},
		{"user not permitted any more", []error{store.ErrUnknown, store.ErrUnauthorized}, true, nil, []string{"50ms a:1", "1.05s a:SELECT 1"},
			[3]int64{}, store.ErrUnauthorized},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inQueue(t, QueueConfig{}, func(q *testQueue) {
				q.db.fail, q.fake.appliedHere, q.fake.appliedErr = tt.fail, tt.applied, tt.missed
				w := q.put("a", "1")
				after(time.Minute)
				q.want(tt.want...)
				counts := [3]int64{q.counters[queuedOK].Load(), q.counters[queuedFound].Load(), q.counters[queuedRepeated].Load()}
				if counts != tt.counts || !errors.Is(w.err, tt.err) {
					t.Errorf("ok, found, repeated = %v, error %v; want %v, %v", counts, w.err, tt.counts, tt.err)
				}
				if tt.err == nil && q.fake.waitedFor != 7 {
					t.Errorf("waited for log entry %d here; want 7", q.fake.waitedFor)
				}
			})
		})
	}
}

// TestQueueRefused has requests refused. Only those are given up, and who waits for them is told.
func TestQueueRefused(t *testing.T) {
	inQueue(t, QueueConfig{}, func(q *testQueue) {
		good, bad, last := q.put("a", "1"), q.put("a", "2!"), q.put("a", "3")
		after(time.Second)
		q.want("50ms a:12!3", "50ms a:1", "50ms a:2!", "50ms a:3")
		if good.err != nil || last.err != nil || store.Text(bad.err) != "disallowed pragma" {
			t.Errorf("errors = %v, %v, %v; want only the second refused", good.err, bad.err, last.err)
		}

		q.db.fail = []error{store.ErrUnauthorized}
		bob := q.put("bob", "4")
		eve := q.put("eve", "5")
		after(time.Second)
		if !errors.Is(bob.err, store.ErrUnauthorized) || eve.err != nil {
			t.Errorf("errors = %v, %v; want only the first refused", bob.err, eve.err)
		}
		if got := q.counters[queuedRefused].Load(); got != 2 {
			t.Errorf("%d requests refused; want 2", got)
		}
		for _, seq := range []string{"first=101 last=101", "first=103 last=103"} {
			if want := `level=ERROR msg="queued writes refused and given up" requests=1 ` + seq; !strings.Contains(q.log.String(), want) {
				t.Errorf("log lacks %q:\n%s", want, q.log.String())
			}
		}
	})
}

// TestQueueTransactionRefused does not take a transaction apart.
func TestQueueTransactionRefused(t *testing.T) {
	inQueue(t, QueueConfig{Transaction: true}, func(q *testQueue) {
		good := q.put("a", "1")
		q.put("a", "2!")
		after(time.Second)
		q.want("50ms a:12!")
		if store.Text(good.err) != "disallowed pragma" {
			t.Errorf("error = %v; want that of the batch", good.err)
		}
	})
}

// TestQueueMarks has requests without statements: they have their turn, and nobody is asked.
func TestQueueMarks(t *testing.T) {
	inQueue(t, QueueConfig{}, func(q *testQueue) {
		q.db.takes = time.Second
		q.put("a", "1")
		mark := newQueuedWrite(nil, caller{username: "b"})
		if err := q.add(q.t.Context(), mark); err != nil {
			t.Fatal(err)
		}
		<-mark.done
		if got := time.Since(q.db.start); got != 1050*time.Millisecond {
			t.Errorf("mark passed after %s; want 1.05s", got)
		}
		q.want("50ms a:1")
	})
}

// TestQueueFlush closes a queue in which requests wait for others, and for a leader.
func TestQueueFlush(t *testing.T) {
	inQueue(t, QueueConfig{Timeout: -1}, func(q *testQueue) {
		q.db.fail = []error{store.ErrNoLeader, store.ErrNoLeader, store.ErrNoLeader}
		q.put("a", "1")
		q.put("b", "2")
		if err := q.flush(q.t.Context()); err != nil {
			t.Errorf("flush = %v", err)
		}
		q.want("0s a:1", "100ms a:1", "200ms a:1", "300ms a:1", "300ms b:2")
		if err := q.add(q.t.Context(), newQueuedWrite(nil, caller{})); !errors.Is(err, errQueueClosed) {
			t.Errorf("add to a closed queue = %v; want %v", err, errQueueClosed)
		}
	})
}

// TestQueueFlushNothing does not wait for anything.
func TestQueueFlushNothing(t *testing.T) {
	inQueue(t, QueueConfig{}, func(q *testQueue) {
		if err := q.flush(q.t.Context()); err != nil || time.Since(q.db.start) != 0 {
			t.Errorf("flush = %v after %s; want nil at once", err, time.Since(q.db.start))
		}
	})
}

// TestQueueStop gives up what no leader takes, and says so. Who waits for room is told as well.
func TestQueueStop(t *testing.T) {
	inQueue(t, QueueConfig{BatchSize: 1, Capacity: 3}, func(q *testQueue) {
		q.db.fail = slices.Repeat([]error{store.ErrNoLeader}, 1000)
		writes := []*queuedWrite{q.put("a", "1"), q.put("a", "2"), q.put("a", "3")}
		late := make(chan error, 1)
		go func() { late <- q.add(q.t.Context(), newQueuedWrite(nil, caller{})) }()
		after(500 * time.Millisecond)
		ctx, cancel := context.WithTimeout(q.t.Context(), 4*time.Second)
		defer cancel()
		if err := q.flush(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("flush = %v; want its deadline", err)
		}
		q.stop(ctx)
		if got := time.Since(q.db.start); got != 4500*time.Millisecond {
			t.Errorf("stopped after %s; want 4.5s", got)
		}
		if err := <-late; !errors.Is(err, errQueueClosed) {
			t.Errorf("add = %v; want %v", err, errQueueClosed)
		}
		for _, w := range writes {
			if <-w.done; !errors.Is(w.err, errQueueClosed) {
				t.Errorf("write %d = %v; want %v", w.seq, w.err, errQueueClosed)
			}
		}
		for _, want := range []string{
			`level=ERROR msg="queued writes lost" requests=1 first=100 last=100 err="write queue is closed: node is stopping: store: leader not found"`,
			`level=ERROR msg="queued writes lost" requests=2 first=101 last=102 err="write queue is closed: node is stopping"`,
		} {
			if !strings.Contains(q.log.String(), want) {
				t.Errorf("log lacks %q:\n%s", want, q.log.String())
			}
		}
	})
}

// TestQueueRolledBack tells of a batch that one of its statements has undone.
func TestQueueRolledBack(t *testing.T) {
	var log strings.Builder
	var c counters
	db := &fakeDB{resp: &command.Response{Results: []command.Result{{}, {Error: "no such table: bar"}}}}
	q := newQueue(QueueConfig{Transaction: true}.withDefaults(), db, &fakeNode{}, slog.New(slog.NewTextHandler(&log, nil)), &c, 1)
	w := newQueuedWrite([]command.Statement{{SQL: "x"}, {SQL: "y"}}, caller{})
	if err := q.add(t.Context(), w); err != nil {
		t.Fatal(err)
	}
	q.stop(t.Context())
	if w.err != nil || c[queuedStmtErrors].Load() != 1 || !db.asked[0].Transaction {
		t.Errorf("error %v, %d errors of statements, transaction %t; want nil, 1, true", w.err, c[queuedStmtErrors].Load(), db.asked[0].Transaction)
	}
	if want := `level=WARN msg="queued writes rolled back" requests=1 first=1 last=1 err="no such table: bar"`; !strings.Contains(log.String(), want) {
		t.Errorf("log lacks %q:\n%s", want, log.String())
	}
}

// TestQueueOrder has many clients queue while leaders come and go. Every acknowledged write is
// carried out once, as no outcome is unknown, and in the order of the sequence numbers.
func TestQueueOrder(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	inQueue(t, QueueConfig{Capacity: 16, BatchSize: 5}, func(q *testQueue) {
		rng := rand.New(rand.NewPCG(seed, 0))
		for range 200 {
			var err error
			if rng.IntN(3) == 0 {
				err = store.ErrNoLeader
			}
			q.db.fail = append(q.db.fail, err)
		}
		var mu sync.Mutex
		acked := map[uint64]string{}
		var clients sync.WaitGroup
		for c := range 8 {
			pauses := rand.New(rand.NewPCG(seed, uint64(c)))
			clients.Go(func() {
				for i := range 50 {
					<-time.After(time.Duration(pauses.IntN(40)) * time.Millisecond)
					sql := fmt.Sprintf("%d.%d ", c, i)
					w := newQueuedWrite([]command.Statement{{SQL: sql}}, caller{username: fmt.Sprint(pauses.IntN(20) / 19)})
					if err := q.add(q.t.Context(), w); err != nil {
						t.Errorf("add: %v", err)
						return
					}
					mu.Lock()
					acked[w.seq] = sql
					mu.Unlock()
				}
			})
		}
		clients.Wait()
		if err := q.flush(q.t.Context()); err != nil {
			t.Fatal(err)
		}
		var want, got strings.Builder
		for seq := range uint64(len(acked)) {
			want.WriteString(acked[100+seq])
		}
		for _, s := range q.db.asked {
			if s.err == nil {
				got.WriteString(s.sql)
			}
		}
		if got.String() != want.String() || len(acked) != 400 {
			t.Errorf("%d acknowledged; carried out\n%s\nwant\n%s", len(acked), got.String(), want.String())
		}
	})
}
