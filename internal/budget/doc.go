// Package budget bounds the memory that many requests take together, and keeps some descriptors for files.
//
// A request has a Claim on a Budget and raises it before it allocates. The first bytes of each claim are
// free, so that small requests are taken however many large ones there are; and the claim of a request
// that is alone is never refused, so that a single one may be larger than the budget.
//
// The package counts what it is told; it measures nothing.
package budget
