// Package http is the HTTP API of a node: it turns requests of clients into command.Requests and
// their results into the JSON that clients of rqlite expect, byte for byte.
//
// A request passes through ServeHTTP (headers, OPTIONS, query parameters), the route table
// (routes.go: path, permission, method) and one handler. Handlers translate and return an error;
// errors.go is the one place that turns errors into statuses. JSON of clients is read by a parser
// of our own (scan.go, decode.go) that allocates nothing before the bounds of Config allow it, and
// results are written by an encoder of our own (encode.go) that streams.
//
// The package knows no Raft and no SQL, and does not know how nodes talk to each other: it asks a
// Database, a Node and the Peers, whose implementations meet in cmd/rqlited. The API works before
// they do: until the store is open they answer store.ErrNotOpen.
//
// What is served, and where it deliberately differs from rqlite, is in docs/design/http-api.md.
package http
