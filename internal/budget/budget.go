package budget

import (
	"fmt"
	"sync"
)

// Free is how many bytes of a claim are not counted.
const Free = 16 << 10

// FullError reports that there is no room for a claim: the others have it.
type FullError struct{ Limit int64 }

func (e *FullError) Error() string {
	return fmt.Sprintf("requests that are under way take all of the %d bytes that there are for them", e.Limit)
}

// Budget is a number of bytes that claims share. It is safe for concurrent use.
type Budget struct {
	limit int64 // immutable

	mu   sync.Mutex
	used int64 // guarded by mu
}

// New returns a Budget of limit bytes.
func New(limit int64) *Budget { return &Budget{limit: limit} }

// Used returns the number of bytes claimed.
func (b *Budget) Used() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}

// Claim returns a claim of nothing.
func (b *Budget) Claim() *Claim { return &Claim{of: b} }

// Claim is what one request has of a Budget. It belongs to one goroutine.
type Claim struct {
	of  *Budget
	has int64 // without what is free
}

// Fits returns a *FullError if the claim could not be raised to n bytes just now.
func (c *Claim) Fits(n int64) error {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	return c.check(n - Free)
}

// Raise makes it a claim of n bytes, unless it is one of more already. It returns a *FullError, and
// changes nothing, if there is no room for that.
func (c *Claim) Raise(n int64) error {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	if err := c.check(n - Free); err != nil {
		return err
	}
	if more := n - Free - c.has; more > 0 {
		c.of.used += more
		c.has += more
	}
	return nil
}

// check needs the budget's mu.
func (c *Claim) check(want int64) error {
	others := c.of.used - c.has
	if want > c.has && others > 0 && others+want > c.of.limit {
		return &FullError{c.of.limit}
	}
	return nil
}

// Release ends the claim; it may be raised again.
func (c *Claim) Release() {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	c.of.used -= c.has
	c.has = 0
}
