package main

import (
	"context"

	"rqlited/cluster"
	httpd "rqlited/http"
)

// peers lets the HTTP API ask other nodes. The Router has all that it needs but for one answer, for
// which the API has a type of its own.
type peers struct{ *cluster.Router }

func (p peers) Meta(ctx context.Context, addr string, retries int) (httpd.PeerMeta, error) {
	m, err := p.Router.Meta(ctx, addr, retries)
	return httpd.PeerMeta{URL: m.URL, CommitIndex: m.CommitIndex, Version: m.Version}, err
}
