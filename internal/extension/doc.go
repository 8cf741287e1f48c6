// Package extension gathers the SQLite extensions that a node loads: from shared objects, directories and
// archives into one directory, which is made anew each time. What it hands out is a Set, the names and checksums
// of the files, by which nodes find out whether they have the same.
//
// A directory is filled under another name and renamed when it is complete, so that nobody ever loads half a
// file. Nothing is synced: the next start makes all of it again.
//
// Archives may come from anywhere. They are flat, have regular files only, and what is made of them is bounded;
// no name in them reaches a place outside the directory. What the files do once they are loaded is not known here,
// nor is SQLite.
package extension
