package main

import (
	"flag"
	"fmt"
	"slices"
	"strings"
	"time"
)

// laterFlag is a flag of rqlite whose feature is still missing here.
type laterFlag struct {
	name  string
	def   any    // default, of the flag's type
	off   string // another value that does not ask for the feature
	usage string
}

// later are all such flags.
var later = []laterFlag{
	{"auto-backup", "", "", "`file` that configures automatic backups"},
	{"auto-restore", "", "", "`file` that configures restoring a backup into a new node"},
	{"cdc-config", "", "", "`file` that configures change data capture"},
	{"disco-mode", "", "", "`way` to find other nodes: consul-kv, etcd-kv, dns or dns-srv"},
	{"disco-key", "rqlite", "", "key `prefix` of discovery"},
	{"disco-config", "", "", "`file` that configures discovery"},
	{"otlp-endpoint", "", "", "`address` of a metrics collector"},
	{"otlp-interval", 30 * time.Second, "", "time between exports of metrics"},
	{"otlp-insecure", false, "", "export metrics without TLS"},
	{"otlp-no-verify", false, "", "do not verify the collector's certificate"},
	{"otlp-ca-cert", "", "", "certificate `file` that the collector is verified by"},
	{"otlp-cert", "", "", "certificate `file` for the collector"},
	{"otlp-key", "", "", "key `file` for the collector"},
}

// laterFlags makes those of these flags that are named known to fs, which checks the form of their values.
func laterFlags(fs *flag.FlagSet, names ...string) {
	for _, f := range later {
		if !slices.Contains(names, f.name) {
			continue
		}
		usage := "not supported yet: " + f.usage
		switch def := f.def.(type) {
		case string:
			fs.String(f.name, def, usage)
		case bool:
			fs.Bool(f.name, def, usage)
		case time.Duration:
			fs.Duration(f.name, def, usage)
		default:
			panic(fmt.Sprintf("flag -%s has a default of type %T", f.name, def))
		}
	}
}

// given returns the value of a flag as text.
func given(fs *flag.FlagSet, name string) string { return fs.Lookup(name).Value.String() }

// laterFaults refuses the flags whose value asks for a missing feature.
func laterFaults(fs *flag.FlagSet) []fault {
	var faults []fault
	for _, f := range later {
		if v := given(fs, f.name); v != fs.Lookup(f.name).DefValue && (f.off == "" || v != f.off) {
			faults = append(faults, refuse(f.name, "-%s is not supported yet", f.name))
		}
	}
	return faults
}

// pairFaults expects a certificate to come with its key.
func pairFaults(fs *flag.FlagSet, prefixes ...string) []fault {
	var faults []fault
	for _, p := range prefixes {
		if (given(fs, p+"-cert") == "") != (given(fs, p+"-key") == "") {
			faults = append(faults, refuse(p+"-cert "+p+"-key", "either both -%[1]s-cert and -%[1]s-key must be set, or neither", p))
		}
	}
	return faults
}

// featureFaults checks what the flags of the missing features require of others.
func (s *settings) featureFaults(fs *flag.FlagSet) []fault {
	var faults []fault
	if len(s.form.Join) > 0 {
		if given(fs, "auto-restore") != "" && s.form.BootstrapExpect == 0 {
			faults = append(faults, refuse("join auto-restore", "auto-restoring cannot be used when joining a cluster"))
		}
		if given(fs, "disco-mode") != "" {
			faults = append(faults, refuse("join disco-mode", "disco mode cannot be used when also explicitly joining a cluster"))
		}
	}
	if given(fs, "cdc-config") != "" && s.readOnly {
		faults = append(faults, refuse("cdc-config raft-non-voter", "CDC cannot be enabled on non-voting nodes"))
	}
	return append(append(faults, otlpFaults(fs)...), s.discoFaults(fs)...)
}

func otlpFaults(fs *flag.FlagSet) []fault {
	const verifying = "otlp-no-verify otlp-ca-cert otlp-cert otlp-key"
	faults := pairFaults(fs, "otlp")
	verified := given(fs, "otlp-no-verify") == "true" || given(fs, "otlp-ca-cert") != "" ||
		given(fs, "otlp-cert") != "" || given(fs, "otlp-key") != ""
	insecure := given(fs, "otlp-insecure") == "true"
	endpoint := given(fs, "otlp-endpoint")
	switch {
	case endpoint == "" && (verified || insecure):
		faults = append(faults, refuse("otlp-insecure "+verifying, "OTLP options require -otlp-endpoint"))
	case strings.Contains(endpoint, "://"):
		faults = append(faults, refuse("otlp-endpoint", "-otlp-endpoint must not include a protocol scheme"))
	case endpoint != "" && !isHostPort(endpoint):
		faults = append(faults, refuse("otlp-endpoint", "-otlp-endpoint is not a valid address"))
	}
	if interval := fs.Lookup("otlp-interval").Value.(flag.Getter).Get().(time.Duration); interval <= 0 {
		faults = append(faults, refuse("otlp-interval", "-otlp-interval must be greater than zero"))
	}
	if insecure && verified {
		faults = append(faults, refuse("otlp-insecure "+verifying, "-otlp-insecure cannot be used with other OTLP TLS options"))
	}
	return faults
}

func (s *settings) discoFaults(fs *flag.FlagSet) []fault {
	switch mode := given(fs, "disco-mode"); mode {
	case "":
	case "consul-kv", "etcd-kv":
		if s.form.BootstrapExpect > 0 {
			return []fault{refuse("disco-mode bootstrap-expect", "bootstrapping not applicable when using %s", mode)}
		}
	case "dns", "dns-srv":
		if s.form.BootstrapExpect == 0 && !s.readOnly {
			return []fault{refuse("disco-mode bootstrap-expect", "bootstrap-expect value required when using %s with a voting node", mode)}
		}
	default:
		return []fault{refuse("disco-mode", "disco mode must be one of consul-kv, etcd-kv, dns, or dns-srv")}
	}
	return nil
}
