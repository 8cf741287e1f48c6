package http

import (
	_ "embed"
	"net/http"
)

// licenses are those of all that is linked into rqlited. "make licenses" writes them anew when a module is
// added or has another version.
//
//go:embed licenses.txt
var licenses []byte

// license serves GET /licenses.
func (s *Server) license(w http.ResponseWriter, _ *call) error {
	_, _ = w.Write(licenses) // a client that has gone needs no answer
	return nil
}
