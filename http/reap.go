package http

import (
	"fmt"
	"net/http"
)

// reap serves POST /reap: this node puts its snapshots together, whether it leads or not. What was a snapshot
// of its own stays one for those who read it; what rqlite calls a WAL is a delta here.
func (s *Server) reap(w http.ResponseWriter, c *call) error {
	deltas, err := s.node.Compact(c.Context())
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "{\"snapshots_reaped\":%d,\"wals_checkpointed\":%[1]d}\n", deltas)
	return nil
}
