// Command rqlited serves a SQLite database that Raft keeps identical on several machines.
//
//	rqlited [flags] <data directory>
//
// This package turns settings into the configs of the other packages, wires the parts to each other,
// and maps signals and failures to an exit code:
//
//	0  asked to stop by SIGTERM or SIGINT, or to print the version or the usage
//	1  a fault in the settings, a failure to start, or a part that failed later
//	2  flags that cannot be parsed
//
// SIGHUP ends the process at once, like kill -9; SIGQUIT prints all goroutines first.
//
// Settings come from the command line, the environment and a configuration file, in this order; see
// docs/flags.md. Flags are those of rqlite. One whose feature is still missing is known but refused if it asks
// for the feature: a setting is never silently ignored.
package main
