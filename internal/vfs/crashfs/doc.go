// Package crashfs is a vfs.FS in memory that promises no more than a disk does, and keeps every
// byte of that promise against the program under test.
//
// Each file has a content and a durable content; File.Sync copies the one to the other. Each
// directory has names and durable names; SyncDir copies those. When the power goes, by CrashAfter
// or by Restart, only what is durable is certain:
//
//   - Restart returns the disk with everything else gone.
//   - RestartRandom keeps or loses each unsynced block and each unsynced name by the throw of a
//     die, for file systems write back in whatever order suits them.
//   - Kill returns the disk as it is: only the process has died, and what it had not synced is
//     still to be lost.
//
// A power cut that loses nothing is Kill too: whoever wants to be sure cuts again at the next step.
//
// FailAt makes an operation fail, once or from then on, with the error of a full disk, a broken one
// or a missing right; a write that fails has written half. A Sync that fails has lost its data for
// good, and later ones that succeed do not bring it back, as on Linux. SetFree makes a disk of a
// certain size. NewWindows makes one with the rules of Windows. Freeze makes it a panic to change a
// finished file. Trace tells which changes were made, in order.
package crashfs
