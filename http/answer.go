package http

import (
	"net/http"
	"time"
)

// answer is the ResponseWriter of every handler. It knows whether the answer has begun, and gives
// up a client that stops taking it: such a client would hold the read that makes the answer for ever.
// The same goes for one that does not send the rest of a body that nobody wants, since net/http
// reads on before it answers. What is bounded is the silence, not the time for the whole answer,
// which may be long.
type answer struct {
	http.ResponseWriter
	conn  *http.ResponseController
	wait  time.Duration
	begun bool
	code  int   // that was sent, or will be
	sent  int64 // bytes of the body
}

func newAnswer(w http.ResponseWriter, wait time.Duration) *answer {
	a := &answer{ResponseWriter: w, conn: http.NewResponseController(w), wait: wait, code: http.StatusOK}
	_ = a.conn.SetWriteDeadline(time.Time{}) // that of the request before, on the same connection, is over
	return a
}

func (a *answer) WriteHeader(code int) {
	if !a.begun {
		a.code = code
	}
	a.begun = true
	a.ResponseWriter.WriteHeader(code)
}

func (a *answer) Write(b []byte) (int, error) {
	a.begun = true
	written := 0
	for {
		part := b[written:min(len(b), written+flushAt)]
		a.bound()
		n, err := a.ResponseWriter.Write(part)
		a.unbound()
		written += n
		a.sent += int64(n)
		if err != nil || written == len(b) {
			return written, err
		}
	}
}

// end bounds what net/http still has to send after the handler.
func (a *answer) end() { a.bound() }

// bound limits how long the client may take to send what net/http still reads, and then, to take
// what it writes. A connection that knows no deadlines has no client that could stall.
func (a *answer) bound() {
	now := time.Now()
	read := now.Add(a.wait)
	write := read
	if a.sent < flushAt {
		write = write.Add(a.wait) // behind that, net/http has read all that it wanted to
	}
	_ = a.conn.SetReadDeadline(read)
	_ = a.conn.SetWriteDeadline(write)
}

// unbound lifts the limits while nothing is sent: net/http would cut an HTTP/2 request off whose deadline passes
// between two parts of its answer, and end the context of any other.
func (a *answer) unbound() {
	_ = a.conn.SetReadDeadline(time.Time{})
	_ = a.conn.SetWriteDeadline(time.Time{})
}

// Unwrap lets http.ResponseController reach the connection.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }
