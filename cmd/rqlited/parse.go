package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
)

// usageError is a command line that cannot be understood; flag has said why already.
type usageError struct{ error }

// faultsError is every reason why the settings cannot be used.
type faultsError []string

func (e faultsError) Error() string {
	lines := make([]string, len(e))
	for i, fault := range e {
		lines[i] = "fatal: " + fault
	}
	return strings.Join(lines, "\n")
}

// parse reads the command line, the environment, whose lines are NAME=value, and the configuration
// file that one of them names. It writes the usage, and what is wrong with a flag, to w. Errors are
// flag.ErrHelp, a usageError, a faultsError, or the one line to print.
func parse(args, env []string, w io.Writer) (settings, error) {
	var line settings // what the command line alone asks for
	flags := line.newFlagSet(w)
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		writeHelp(w)
		return settings{}, err
	} else if err != nil {
		fmt.Fprint(w, usage, "rqlited -h explains all flags\n")
		return settings{}, usageError{err}
	}
	if line.showVersion {
		return line, nil
	}
	if flags.NArg() > 1 {
		return settings{}, fmt.Errorf("arguments after data directory (%s) are not accepted (%v)", flags.Arg(0), flags.Args()[1:])
	}

	var s settings
	fs := s.newFlagSet(io.Discard)
	src := sources{fs: fs, origins: map[string]string{}}
	src.read(line.configFile, env)
	if len(args) == 0 && s.dir == "" && src.empty() {
		return settings{}, errors.New("rqlited: failed to parse command-line flags: missing required argument: DataPath")
	}
	if err := fs.Parse(args); err != nil { // last, so that flags win
		return settings{}, err
	}
	flags.Visit(func(f *flag.Flag) { src.onCommandLine(f.Name) })
	if fs.NArg() == 1 {
		if line.dir != "" {
			src.refuse("the data directory is given twice, as %s and by -data-dir", fs.Arg(0))
		}
		s.dir = fs.Arg(0)
		src.onCommandLine("data-dir")
	}
	if faults := src.explain(s.faults(fs)); len(faults) > 0 {
		return settings{}, faultsError(faults)
	}
	s.notes = src.notes
	s.settle()
	return s, nil
}
