package main

import (
	"flag"
	"fmt"
	"io"
)

const usage = "Usage: rqlited [flags] <data directory>\n"

const helpHead = usage + `
Each flag but -version can also be given as an environment variable, and in a file that -config or
RQLITED_CONFIG names:

  -http-addr localhost:4001             on the command line
  RQLITED_HTTP_ADDR=localhost:4001      in the environment; one that is empty counts as not set
  http-addr = localhost:4001            in the file, with comments from # on

The command line wins over the environment, and the environment over the file. Durations are written
as 500ms, 10s, 1h30m; flags without a value are off, and on if given as -fk or -fk=true.
`

// writeHelp explains all flags.
func writeHelp(w io.Writer) {
	fmt.Fprint(w, helpHead)
	for _, g := range groups {
		fmt.Fprintf(w, "\n%s\n\n", g.title)
		g.flagSet(w).PrintDefaults()
	}
}

// flagSet returns the flags of a group alone.
func (g group) flagSet(w io.Writer) *flag.FlagSet {
	var s settings
	fs := flag.NewFlagSet(g.title, flag.ContinueOnError)
	fs.SetOutput(w)
	g.flags(&s, fs)
	return fs
}
