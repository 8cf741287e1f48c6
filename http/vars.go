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
	all, err := s.variables(c.params.get("key"))
	if err != nil {
		return err
	}
	var out bytes.Buffer
	out.WriteString("{\n")
	for i, name := range slices.Sorted(maps.Keys(all)) {
		if i > 0 {
			out.WriteString(",\n")
		}
		fmt.Fprintf(&out, "%q: %s", name, all[name])
	}
	out.WriteString("\n}\n")
	_, _ = w.Write(out.Bytes()) // a client that has gone needs no answer
	return nil
}

// variables returns the JSON of the variable of that name, or of all if name is empty, by name.
func (s *Server) variables(name string) (map[string][]byte, error) {
	all := map[string][]byte{}
	for _, known := range s.counterMaps() {
		if name == "" || name == known {
			all[known] = spaced(s.counted(known))
		}
	}
	for known, value := range map[string]func() any{
		"cmdline":  func() any { return os.Args },
		"memstats": func() any { m := new(runtime.MemStats); runtime.ReadMemStats(m); return m },
	} {
		if name != "" && name != known {
			continue
		}
		text, err := json.Marshal(value())
		if err != nil {
			return nil, fmt.Errorf("encode variable %s: %w", known, err)
		}
		all[known] = text
	}
	return all, nil
}

// counterMaps returns the names of all maps of counters.
func (s *Server) counterMaps() []string {
	names := map[string]bool{"limits": true}
	for name := range varNames {
		names[name] = true
	}
	for name := range s.cfg.Vars {
		names[name] = true
	}
	return slices.Collect(maps.Keys(names))
}

// counted returns the map of counters of that name: what is counted, and 0 for the other names in varNames.
func (s *Server) counted(name string) map[string]int64 {
	m := make(map[string]int64)
	for _, counter := range varNames[name] {
		m[counter] = 0
	}
	switch name {
	case "http":
		maps.Copy(m, s.counters.stats())
		if id := s.cfg.Certificates["http"]; id != nil {
			m["tls_cert_fetched"] = id.Handshakes()
		}
	case "limits":
		maps.Copy(m, s.limitVars())
	case "queue":
		maps.Copy(m, s.queue.vars())
	}
	if count := s.cfg.Vars[name]; count != nil {
		maps.Copy(m, count())
	}
	return m
}

// spaced returns the JSON of a map of counters, with its names sorted and a space after each colon and comma.
func spaced(m map[string]int64) []byte {
	out := []byte{'{'}
	for i, name := range slices.Sorted(maps.Keys(m)) {
		if i > 0 {
			out = append(out, ", "...)
		}
		out = fmt.Appendf(appendString(out, name), ": %d", m[name])
	}
	return append(out, '}')
}
