package http

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"rqlited/store"
)

// statusError is an error whose status is decided where it arises. Without a text the body of the
// answer is empty.
type statusError struct {
	code int
	text string
}

func (e *statusError) Error() string { return e.text }

var (
	errUnauthorized = &statusError{code: http.StatusUnauthorized}
	errMethod       = &statusError{code: http.StatusMethodNotAllowed}

	// errNoRedirect means that a client is to be sent to the leader, and where that is, is unknown.
	errNoRedirect = &statusError{http.StatusInternalServerError, "leader not found"}
)

// badRequest returns the error of a request that cannot be understood.
func badRequest(format string, args ...any) error {
	return &statusError{http.StatusBadRequest, fmt.Sprintf(format, args...)}
}

// tooLarge returns the error of a request that is over a bound.
func tooLarge(format string, args ...any) error {
	return &statusError{http.StatusRequestEntityTooLarge, fmt.Sprintf(format, args...)}
}

// busy returns the error of a request that the node as a whole has no room for.
func busy(format string, args ...any) error {
	return &statusError{http.StatusServiceUnavailable, fmt.Sprintf(format, args...)}
}

// tooMany returns the error of a request whose client has more under way than it should.
func tooMany(format string, args ...any) error {
	return &statusError{http.StatusTooManyRequests, fmt.Sprintf(format, args...)}
}

// statusOf is the one place that decides which status and which text an error becomes.
func statusOf(err error) (code int, text string) {
	if se, ok := errors.AsType[*statusError](err); ok {
		return se.code, se.text
	}
	if leaderUnknown(err) {
		return http.StatusServiceUnavailable, "leader not found"
	}
	if errors.Is(err, store.ErrOverloaded) {
		return http.StatusServiceUnavailable, store.Text(err)
	}
	if errors.Is(err, store.ErrNoSpace) {
		return http.StatusInsufficientStorage, err.Error() // which says how much there would have to be
	}
	return http.StatusInternalServerError, store.Text(err)
}

// leaderUnknown reports whether err says that only the leader can answer and there is none to ask.
func leaderUnknown(err error) bool {
	return errors.Is(err, store.ErrNotLeader) || errors.Is(err, store.ErrNoLeader)
}

// inBand reports whether err, of statements that were run, is answered with status 200 and its
// text in the JSON envelope, as everything is that does not concern reaching the leader, or a node
// that takes nothing on.
func inBand(err error) bool {
	return !leaderUnknown(err) && !errors.Is(err, store.ErrUnauthorized) && !errors.Is(err, store.ErrOverloaded)
}

// remoteError returns err, of an act that the leader may have been asked for, with the text that
// clients expect if the leader did not accept their credentials.
func remoteError(err error, act string) error {
	if errors.Is(err, store.ErrUnauthorized) {
		return &statusError{http.StatusUnauthorized, "remote " + act + " not authorized"}
	}
	return err
}

// fail answers a request that no handler has begun to answer.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	code, text := statusOf(err)
	if code == http.StatusTooManyRequests || code == http.StatusServiceUnavailable && !leaderUnknown(err) {
		w.Header().Set("Retry-After", "1")
	}
	if leaderUnknown(err) {
		s.counters.add(leaderNotFound, 1)
	} else if errors.Is(err, store.ErrOverloaded) {
		s.log.Debug("request refused", "path", r.URL.Path, "err", err)
	} else if _, expected := errors.AsType[*statusError](err); !expected {
		level := slog.LevelError
		if s.node.Failed() != nil {
			level = slog.LevelWarn // one line tells why the node ends; this is a consequence
		}
		s.log.Log(r.Context(), level, "request failed", "method", r.Method, "path", r.URL.Path, "err", err)
	}
	if text == "" {
		w.WriteHeader(code)
		return
	}
	http.Error(w, text, code)
}
