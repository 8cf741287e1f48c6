package http

import (
	"math/rand/v2"
	"net/http"
	"time"

	"rqlited/command"
	"rqlited/rewrite"
)

// maxAnalysed bounds, in bytes, the statements of a call of /db/sql: that costs as much as to run them, and is for people.
const maxAnalysed = 1 << 20

// analysis is what /db/sql tells of a statement.
type analysis struct {
	Original  string `json:"original"`
	Rewritten string `json:"rewritten,omitempty"`
	Error     string `json:"error,omitempty"`
}

// analyse serves GET and POST /db/sql: the statements as rqlite would have them in its log. Nothing is run.
func (s *Server) analyse(w http.ResponseWriter, c *call) error {
	start := time.Now()
	if c.Method == http.MethodGet && !c.params.has("q") {
		return badRequest("query not specified")
	}
	stmts, err := s.statements(w, c, command.Unified) // the kind that has no raw form
	if err != nil {
		return err
	}
	total := 0
	for i := range stmts {
		total += len(stmts[i].SQL)
	}
	if total > maxAnalysed {
		return tooLarge("statements to analyse have more than %d bytes", maxAnalysed)
	}
	var from rewrite.Sources
	if !c.params.has("norwrandom") {
		from.Random = rand.Uint64
	}
	if !c.params.has("norwtime") {
		from.Now = start
	}
	answer := struct {
		Results []analysis `json:"results"`
		Time    float64    `json:"time,omitempty"` // seconds
	}{Results: make([]analysis, len(stmts))}
	for i := range stmts {
		a := &answer.Results[i]
		a.Original = stmts[i].SQL
		if a.Rewritten, err = rewrite.Text(a.Original, from); err != nil {
			a.Error = err.Error()
		}
	}
	if c.params.has("timings") {
		answer.Time = time.Since(start).Seconds()
	}
	return writeJSON(w, c, answer)
}
