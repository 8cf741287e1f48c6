package http

import (
	"errors"
	"net/http"
	"strings"
	"time"
	"unsafe"

	"rqlited/command"
	"rqlited/store"
)

// enqueue serves POST /db/execute?queue: it acknowledges statements that are carried out later, or,
// with wait, once they are. Whether they can be carried out at all is found out before.
func (s *Server) enqueue(w http.ResponseWriter, c *call) error {
	start := time.Now()
	wait := c.params.has("wait")
	s.counters.add(queuedExecutions, 1)
	if wait {
		s.counters.add(queuedWait, 1)
	}
	if _, known := s.node.Leader(); !known && !c.params.has("noleader") {
		return store.ErrNoLeader
	}
	stmts, err := s.queuedStatements(w, c, wait)
	if err != nil {
		return err
	}
	s.counters.add(queuedStmts, len(stmts))
	form := formOf(c.params, command.Execute)
	if err := s.node.Check(&command.Request{Kind: command.Execute, Statements: stmts}); err != nil {
		if _, refused := errors.AsType[*store.RequestError](err); refused {
			return form.write(w, nil, store.Text(err), time.Since(start))
		}
		return &statusError{http.StatusServiceUnavailable, store.Text(err)}
	}
	ctx, cancel := c.within()
	defer cancel()
	qw := newQueuedWrite(stmts, c.caller)
	if err := s.queue.add(ctx, qw); err != nil {
		return err
	}
	form.sequence = qw.seq
	if !wait {
		return form.write(w, nil, "", time.Since(start))
	}
	select {
	case <-qw.done:
	case <-ctx.Done():
		s.counters.add(queuedWaitTimeout, 1)
		return &statusError{http.StatusRequestTimeout, "queue wait timeout"}
	}
	if err := qw.err; err != nil {
		if errors.Is(err, store.ErrUnauthorized) || errors.Is(err, errQueueClosed) {
			return remoteError(err, "Execute")
		}
		return form.write(w, nil, store.Text(err), time.Since(start))
	}
	return form.write(w, nil, "", time.Since(start))
}

// queuedStatements reads the statements of a queued write. One that waits may have none: it is
// answered when all before it are decided.
func (s *Server) queuedStatements(w http.ResponseWriter, c *call, wait bool) ([]command.Statement, error) {
	body, err := s.readBody(w, c)
	if err != nil {
		return nil, err
	}
	if wait && len(body) == 0 {
		return nil, nil
	}
	stmts, err := decodeStatements(body, s.cfg.Limits.Statements)
	if wait && errors.Is(err, errEmpty) {
		return nil, nil
	}
	return stmts, err
}

func newQueuedWrite(stmts []command.Statement, user caller) *queuedWrite {
	w := &queuedWrite{stmts: stmts, user: user}
	w.bytes = int64(unsafe.Sizeof(*w))
	for i := range stmts {
		w.bytes += memoryOf(&stmts[i])
		w.alone = w.alone || changesOthers(stmts[i].SQL)
	}
	return w
}

// memoryOf returns about how many bytes of memory st takes; as a message it is not longer.
func memoryOf(st *command.Statement) int64 {
	const boxed = 16 // a number behind an interface
	bytes := int(unsafe.Sizeof(*st)) + len(st.SQL)
	for i := range st.Params {
		p := &st.Params[i]
		bytes += int(unsafe.Sizeof(*p)) + len(p.Name)
		switch v := p.Value.(type) {
		case string:
			bytes += boxed + len(v)
		case []byte:
			bytes += 2*boxed + len(v)
		default:
			bytes += boxed
		}
	}
	return int64(bytes)
}

// lonely are words of statements that change how those after them, or before them in a
// transaction, are carried out: by opening or ending a transaction, by settings, by what they hide.
var lonely = map[string]bool{
	"ATTACH": true, "BEGIN": true, "COMMIT": true, "DETACH": true, "END": true, "PRAGMA": true, "RELEASE": true,
	"ROLLBACK": true, "SAVEPOINT": true, "TEMP": true, "TEMPORARY": true, "VACUUM": true,
}

// changesOthers reports whether sql has one of these words. Where it means something else, in a
// string or a name, nothing is lost but that the request is sent on its own.
func changesOthers(sql string) bool {
	for word := range strings.FieldsFuncSeq(sql, notLetter) {
		if len(word) <= len("TEMPORARY") && lonely[strings.ToUpper(word)] {
			return true
		}
	}
	return false
}

func notLetter(r rune) bool { return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') }
