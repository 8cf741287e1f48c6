// Package auth answers whether a user may do what needs a permission, by a credentials file.
//
// The file is a JSON list of users with their passwords and permissions:
//
//	[{"username": "bob", "password": "secret1", "perms": ["all"]},
//	 {"username": "*", "perms": ["status", "ready"]}]
//
// The user "*" stands for everyone, with or without credentials. A password is plain text or,
// if it has the form of one, a bcrypt hash. A Store looks at its file when it is asked, at most
// once a second, and takes over what has changed; a file that cannot be used changes nothing.
//
// Nobody learns from the time of an answer which users there are: an attempt that fails costs the
// same work, whether the user is unknown, has a plain password or has a hash of any cost. Checking
// a hash is slow on purpose, so a pair that was right is remembered, by a digest under a key that
// ends with the process, and only so many checks run at a time.
//
// The package knows names of permissions, but not what they permit: its callers do.
package auth
