package http

import (
	"net/url"
	"strconv"
	"time"

	"rqlited/command"
)

// params are the query parameters of a request, those of every endpoint, parsed and valid.
type params struct {
	values url.Values

	timeout             time.Duration // between nodes; never zero
	freshness           time.Duration
	dbTimeout           time.Duration // zero means no bound
	linearizableTimeout time.Duration // zero means the store's shortest
	retries             int
	trailing            uint64 // log entries
}

const (
	defaultTimeout             = 30 * time.Second
	defaultLinearizableTimeout = 10 * time.Second
)

// has reports whether the parameter is there. Boolean parameters are on by presence; their value
// does not count.
func (p *params) has(name string) bool {
	_, ok := p.values[name]
	return ok
}

// get returns the first value of the parameter.
func (p *params) get(name string) string { return p.values.Get(name) }

// parseParams parses and validates the parameters that any endpoint knows, whether or not the
// endpoint asked for does.
func parseParams(rawQuery string) (*params, error) {
	values, err := url.ParseQuery(rawQuery)
	if err != nil {
		return nil, badRequest("%s", err)
	}
	p := &params{values: values, linearizableTimeout: defaultLinearizableTimeout}
	durations := []struct {
		name string
		dst  *time.Duration
	}{
		{"timeout", &p.timeout},
		{"freshness", &p.freshness},
		{"db_timeout", &p.dbTimeout},
		{"linearizable_timeout", &p.linearizableTimeout},
	}
	for _, d := range durations {
		if !p.has(d.name) {
			continue
		}
		if *d.dst, err = time.ParseDuration(p.get(d.name)); err != nil {
			return nil, badRequest("%s is not a valid duration", d.name)
		}
	}
	if err := p.parseInts(); err != nil {
		return nil, err
	}
	if p.has("freshness_strict") && !p.has("freshness") {
		return nil, badRequest("freshness_strict requires freshness")
	}
	if p.has("q") && p.get("q") == "" {
		return nil, badRequest("query parameter not set")
	}
	if p.timeout <= 0 {
		p.timeout = defaultTimeout
	}
	p.freshness = max(p.freshness, 0)
	p.dbTimeout = max(p.dbTimeout, 0)
	p.linearizableTimeout = max(p.linearizableTimeout, 0)
	return p, nil
}

func (p *params) parseInts() error {
	if p.has("retries") {
		n, err := strconv.Atoi(p.get("retries"))
		if err != nil {
			return badRequest("retries is not a valid integer")
		}
		p.retries = max(n, 0)
	}
	if p.has("trailing_logs") {
		n, err := strconv.ParseInt(p.get("trailing_logs"), 10, 64)
		if err != nil {
			return badRequest("trailing_logs is not a valid integer")
		}
		p.trailing = uint64(n) // a negative number is huge: it keeps the whole log
	}
	return nil
}

// forward returns how a request with these parameters reaches the leader.
func (p *params) forward(c caller) command.Forward {
	return command.Forward{
		Timeout:  p.timeout,
		Retries:  p.retries,
		Username: c.username,
		Password: c.password,
		Never:    p.has("redirect"),
	}
}

// request returns a request of kind k as the parameters describe it, without its statements.
func (p *params) request(k command.Kind, c caller) *command.Request {
	req := &command.Request{
		Kind:        k,
		Transaction: p.has("transaction"),
		Timings:     p.has("timings"),
		DBTimeout:   p.dbTimeout,
		Forward:     p.forward(c),
	}
	if k == command.Execute {
		return req // the other parameters concern reads
	}
	req.QualifyColumns = p.has("qualify_columns")
	req.Level = command.ParseLevel(p.get("level"))
	req.Freshness = p.freshness
	req.FreshnessStrict = p.has("freshness_strict")
	if k == command.Query {
		req.LinearizableTimeout = p.linearizableTimeout
	}
	return req
}
