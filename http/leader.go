package http

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"

	"rqlited/store"
)

// leader serves GET and POST /leader.
func (s *Server) leader(w http.ResponseWriter, c *call) error {
	if c.Method == http.MethodPost {
		return s.stepdown(w, c)
	}
	sv, ok := s.node.Leader()
	if !ok {
		return store.ErrNoLeader
	}
	// Leader may not know whether the node votes: the list of servers does.
	servers, err := s.node.Servers()
	if err != nil {
		return err
	}
	for _, known := range servers {
		if known.Addr == sv.Addr {
			sv = known
		}
	}
	return writeJSON(w, c, s.ask(c, sv, sv.Addr))
}

// stepdown serves POST /leader: the leader, be it this node or another, hands leadership over.
// Without the wait parameter only this node is asked, and a node that does not lead does nothing.
func (s *Server) stepdown(w http.ResponseWriter, c *call) error {
	target, err := s.stepdownTarget(w, c)
	if err != nil {
		return err
	}
	wait := c.params.has("wait")
	f := c.params.forward(c.caller)
	redirect := f.Never
	f.Never = f.Never || !wait
	servedBy, err := s.peers.Stepdown(c.Context(), target, wait, f)
	switch {
	case err == nil:
		w.Header().Set("X-Rqlite-Served-By", s.servedBy(servedBy))
		return nil
	case leaderUnknown(err) && !wait:
		return nil
	case leaderUnknown(err) && redirect:
		return s.redirect(w, c)
	case leaderUnknown(err):
		return err
	case errors.Is(err, store.ErrUnauthorized):
		return remoteError(err, "stepdown")
	case errors.Is(err, store.ErrNotOpen):
		return &statusError{http.StatusServiceUnavailable, "stepdown: " + store.Text(err)}
	}
	return &statusError{http.StatusInternalServerError, "stepdown: " + store.Text(err)}
}

// stepdownTarget returns the id of the node that shall lead; empty is any. The body is read only
// if its type says that it is JSON and nothing else.
func (s *Server) stepdownTarget(w http.ResponseWriter, c *call) (string, error) {
	if c.Header.Get("Content-Type") != "application/json" || c.ContentLength <= 0 {
		return "", nil
	}
	body, err := s.readBody(w, c)
	if err != nil {
		return "", err
	}
	var target struct {
		ID string `json:"id"` // null leaves it empty
	}
	if err := json.NewDecoder(bytes.NewReader(body)).Decode(&target); err != nil {
		return "", badRequest("invalid JSON: %s", err)
	}
	return target.ID, nil
}

// remove serves DELETE /remove.
func (s *Server) remove(w http.ResponseWriter, c *call) error {
	body, err := s.readBody(w, c)
	if err != nil {
		return err
	}
	var members map[string]string
	if err := json.Unmarshal(body, &members); err != nil {
		return &statusError{code: http.StatusBadRequest}
	}
	id, ok := members["id"]
	if !ok || len(members) != 1 {
		return &statusError{code: http.StatusBadRequest}
	}
	servedBy, err := s.peers.Remove(c.Context(), id, c.params.forward(c.caller))
	if err != nil {
		if leaderUnknown(err) && c.params.has("redirect") {
			return s.redirect(w, c)
		}
		return remoteError(err, "remove node")
	}
	w.Header().Set("X-Rqlite-Served-By", s.servedBy(servedBy))
	return nil
}

// snapshot serves POST /snapshot: this node takes a snapshot, whether it leads or not.
func (s *Server) snapshot(w http.ResponseWriter, c *call) error {
	err := s.node.Snapshot(c.Context(), c.params.trailing)
	if errors.Is(err, store.ErrNothingNew) {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	return err
}
