package http

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"runtime"
	"slices"
)

// vars serves /debug/vars, in the layout of package expvar: a variable a line, and spaces after
// the colons and commas of maps of counters.
func (s *Server) vars(w http.ResponseWriter, c *call) error {
	all := s.variables()
	names := slices.Sorted(maps.Keys(all))
	if key := c.params.get("key"); key != "" {
		names = slices.DeleteFunc(names, func(name string) bool { return name != key })
	}
	var out bytes.Buffer
	out.WriteString("{\n")
	for i, name := range names {
		if i > 0 {
			out.WriteString(",\n")
		}
		text, err := json.Marshal(all[name]())
		if err != nil {
			return fmt.Errorf("encode variable %s: %w", name, err)
		}
		if name != "memstats" {
			if text, err = spaced(text); err != nil {
				return fmt.Errorf("encode variable %s: %w", name, err)
			}
		}
		fmt.Fprintf(&out, "%q: %s", name, text)
	}
	out.WriteString("\n}\n")
	_, _ = w.Write(out.Bytes()) // a client that has gone needs no answer
	return nil
}

// variables returns the functions that tell the variables, by name: those that the process itself
// has and those of Config.
func (s *Server) variables() map[string]func() any {
	all := map[string]func() any{
		"cmdline": func() any { return os.Args },
		"http":    func() any { return s.counters.stats() },
		"queue":   func() any { return s.queue.vars() },
		"memstats": func() any {
			m := new(runtime.MemStats)
			runtime.ReadMemStats(m)
			return m
		},
	}
	maps.Copy(all, s.cfg.Vars)
	return all
}

// spaced returns an object's JSON with its keys sorted and a space after each colon and comma
// between its members. Any other value is returned as it is.
func spaced(text []byte) ([]byte, error) {
	if len(text) == 0 || text[0] != '{' {
		return text, nil
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(text, &members); err != nil {
		return nil, err
	}
	out := []byte{'{'}
	for i, name := range slices.Sorted(maps.Keys(members)) {
		if i > 0 {
			out = append(out, ", "...)
		}
		out = append(appendString(out, name), ": "...)
		out = append(out, members[name]...)
	}
	return append(out, '}'), nil
}
