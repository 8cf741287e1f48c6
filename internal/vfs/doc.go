// Package vfs is the ground that durable files stand on: the few file operations the packages
// above need, as an interface, so that a test can put a disk under them that loses power.
//
// FS has no operation that makes more durable than its name says. Writing a file, creating,
// renaming or removing a name change only what other processes see; File.Sync makes the bytes of
// one file survive a power cut, and SyncDir makes the names in one directory survive it. Neither
// implies the other, so a new file needs both. Windows cannot sync a directory; there Rename is
// durable when it returns, and what was created becomes durable, name and all, with its own Sync.
//
// OS is the real file system. Package crashfs keeps files in memory and drops, on demand, all
// that no sync has covered.
package vfs
