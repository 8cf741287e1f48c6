//go:build !unix

package budget

import "net"

// Scarce reports whether there are few descriptors left, which is not known here.
func Scarce(net.Conn) bool { return false }

// Exhausted reports whether what is opened next would be one of the last descriptors, which is not known here.
func Exhausted(net.Listener) bool { return false }
