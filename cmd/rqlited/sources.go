package main

import (
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
)

// envPrefix begins the names of the environment variables that are settings.
const envPrefix = "RQLITED_"

// envName is the environment variable that stands for a flag.
func envName(flag string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// Flags that only the command line can give. A configuration file names no other.
var (
	notInEnv  = []string{"version"}
	notInFile = []string{"version", "config"}
)

// setting is a value for a flag that does not come from the command line.
type setting struct {
	flag   string
	value  string
	origin string // a variable, or a line of the configuration file
}

// note is something to log once there is a log.
type note struct {
	level slog.Level
	msg   string
	attrs []any
}

// sources sets the flags of fs from the environment and the configuration file, and knows which
// value is from where. It never repeats a value of a flag that may be a secret.
type sources struct {
	fs      *flag.FlagSet
	origins map[string]string // by flag, by its name of today; none for the command line
	faults  []string
	notes   []note
}

func (src *sources) refuse(text string, args ...any) {
	src.faults = append(src.faults, fmt.Sprintf(text, args...))
}

func (src *sources) note(level slog.Level, msg string, attrs ...any) {
	src.notes = append(src.notes, note{level, msg, attrs})
}

// empty reports whether there was nothing to read.
func (src *sources) empty() bool { return len(src.origins) == 0 && len(src.faults) == 0 }

// read takes the settings from the file, which is that of the environment if the command line names
// none, and then those of the environment, which win.
func (src *sources) read(file string, env []string) {
	vars := variables(env)
	origin := "-config"
	if file == "" {
		origin = envName("config")
		file = vars[origin]
	}
	delete(vars, envName("config"))
	if file != "" {
		lines, err := readConfig(file)
		if err != nil {
			src.refuse("%s: %v", origin, err)
		}
		src.apply(src.fromFile(lines))
	}
	src.apply(src.fromEnv(vars))
	if names := slices.Sorted(maps.Keys(vars)); file != "" || len(names) > 0 {
		src.note(slog.LevelInfo, "settings beside the command line", "file", file, "variables", names)
	}
}

// variables returns those of env that may be settings, by name. One that is empty counts as not set,
// since shells and supervisors have no better way to leave a variable out.
func variables(env []string) map[string]string {
	vars := map[string]string{}
	for _, line := range env {
		name, value, _ := strings.Cut(line, "=")
		if strings.HasPrefix(name, envPrefix) && value != "" {
			vars[name] = value
		}
	}
	return vars
}

// fromEnv returns the settings among vars, and removes what is none: it may belong to another program,
// such as the addresses of a service named rqlited in Kubernetes, so it is only pointed out.
func (src *sources) fromEnv(vars map[string]string) []setting {
	known := map[string]string{} // flags by variable
	for _, name := range src.names(notInEnv) {
		known[envName(name)] = name
	}
	var found []setting
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		if f, ok := known[name]; ok {
			found = append(found, setting{f, vars[name], name})
			continue
		}
		delete(vars, name)
		attrs := []any{"variable", name}
		if near := nearest(name, slices.Collect(maps.Keys(known)), len(envPrefix)); near != "" {
			attrs = append(attrs, "nearest", near)
		}
		src.note(slog.LevelWarn, "environment variable is not a setting", attrs...)
	}
	return found
}

// fromFile returns the settings among lines. What is none is refused: the file is ours alone.
func (src *sources) fromFile(lines []configLine) []setting {
	known := src.names(notInFile)
	var found []setting
	for _, l := range lines {
		switch {
		case l.fault != "":
			src.refuse("%s: %s", l.origin, l.fault)
		case slices.Contains(known, l.key):
			found = append(found, setting{l.key, l.value, l.origin})
		case slices.Contains(notInFile, l.key):
			src.refuse("%s: %q cannot be set in a file", l.origin, l.key)
		default:
			text := fmt.Sprintf("%q is not a setting", l.key)
			if near := nearest(l.key, known, 0); near != "" {
				text += fmt.Sprintf(", did you mean %q?", near)
			}
			src.refuse("%s: %s", l.origin, text)
		}
	}
	return found
}

// names returns all flags but some.
func (src *sources) names(without []string) []string {
	var names []string
	src.fs.VisitAll(func(f *flag.Flag) {
		if !slices.Contains(without, f.Name) {
			names = append(names, f.Name)
		}
	})
	return names
}

// apply sets flags from one source, which may set each only once, by whichever of its names.
func (src *sources) apply(found []setting) {
	seen := map[string]string{}
	for _, f := range found {
		name := src.today(f.flag, f.origin)
		if other, ok := seen[name]; ok {
			src.refuse("%s: -%s is set by %s already", f.origin, name, other)
			continue
		}
		seen[name] = f.origin
		src.origins[name] = f.origin
		value := src.fs.Lookup(f.flag).Value
		before := value.String()
		if err := src.fs.Set(f.flag, f.value); err != nil {
			src.refuse("%s: invalid value %q for -%s: %v", f.origin, f.value, f.flag, err)
			value.Set(before) // a failed Set may leave anything, of which nothing must follow
		}
	}
}

// onCommandLine notes that the value of a flag is not from elsewhere.
func (src *sources) onCommandLine(name string) { delete(src.origins, src.today(name, "command line")) }

// today returns the name that a flag has today, and says so if it is another one.
func (src *sources) today(name, origin string) string {
	now, ok := formerNames[name]
	if !ok {
		return name
	}
	src.note(slog.LevelWarn, "flag has a new name", "flag", "-"+name, "name", "-"+now, "from", origin)
	return now
}

// explain returns the faults of the sources and those given, with where the values are from.
func (src *sources) explain(faults []fault) []string {
	texts := src.faults
	for _, f := range faults {
		var from []string
		for _, name := range f.flags {
			if origin, ok := src.origins[name]; ok && !slices.Contains(from, origin) {
				from = append(from, origin)
			}
		}
		if len(from) > 0 {
			f.text += " (" + strings.Join(from, ", ") + ")"
		}
		texts = append(texts, f.text)
	}
	return texts
}

// nearest returns the name that a misspelled one may stand for: it differs in a third of the letters
// at most, without those that all have in common. It returns "" if there is none.
func nearest(name string, known []string, common int) string {
	best, limit := "", (len(name)-common)/3
	for _, k := range slices.Sorted(slices.Values(known)) {
		if d := distance(name, k); d <= limit {
			best, limit = k, d-1
		}
	}
	return best
}

// distance is the number of letters to insert, delete or replace to make b of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		corner := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := corner
			if a[i] != b[j] {
				cost++
			}
			corner = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
