//go:build !unix

package cluster

import "net"

// alive reports true: there is no portable way to look without waiting.
func alive(net.Conn) bool { return true }
