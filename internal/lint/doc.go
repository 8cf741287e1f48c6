// Package lint holds the rules of docs/ARCHITECTURE.md that a program can check.
//
// A rule looks at the whole source tree and reports the places that break it. The tests run every
// rule over this repository, and every rule over sources made to break it, so that a rule that
// cannot fail is noticed. The table of packages and what they may import is data here, and a test
// compares it with the table in the document: a new edge is a change of both, seen in review.
//
// The package reads sources and runs nothing. What gofmt, go vet and staticcheck find is left to
// them.
package lint
