package http

import (
	"context"
	"errors"
	"net/http"
)

// hash serves GET /db/hash: this node's own state, whether it leads or not.
func (s *Server) hash(w http.ResponseWriter, c *call) error {
	ctx, cancel := c.within()
	defer cancel()
	h, err := s.node.Hash(ctx)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return &statusError{http.StatusServiceUnavailable, "not done within " + c.params.timeout.String()}
	case err != nil:
		return &statusError{http.StatusServiceUnavailable, err.Error()} // store.Text would drop the reason
	}
	return writeJSON(w, c, h)
}
