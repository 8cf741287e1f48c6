// Package certs makes the TLS settings of a port, and of connections to others, from files that may change.
//
// An Identity is a certificate, its key, and the authorities that the certificates of others are verified by. The
// files are looked at again when connections are opened, at most once a second, and new connections use what is in
// them then: nothing has to be restarted, and there is no goroutine. Files that do not fit together, which is what a
// replacement in two steps looks like in the middle, leave the Identity as it is.
//
// Complaints logs what strangers cause, such as handshakes that fail, without letting them fill the disk.
//
// The package knows no protocol above TLS, and nothing of nodes.
package certs
