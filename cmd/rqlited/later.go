package main

import (
	"flag"
	"fmt"
	"time"
)

// laterFlag is a flag of rqlite whose feature is still missing here.
type laterFlag struct {
	name  string
	def   any    // default, of the flag's type
	off   string // another value that does not ask for the feature
	usage string
}

// later are all such flags. The default of -auto-optimize-int is rqlite's, so that it can be given.
var later = []laterFlag{
	{"auth", "", "", "credentials `file`"},
	{"auto-backup", "", "", "`file` that configures automatic backups"},
	{"auto-restore", "", "", "`file` that configures restoring a backup into a new node"},
	{"auto-vacuum-int", time.Duration(0), "", "time between automatic VACUUMs"},
	{"auto-optimize-int", 24 * time.Hour, "0s", "time between automatic PRAGMA optimize"},
	{"cdc-config", "", "", "`file` that configures change data capture"},
	{"compress-snap-transport", false, "", "compress snapshots that are sent to other nodes"},
	{"disco-mode", "", "", "discovery: consul-kv, etcd-kv, dns or dns-srv"},
	{"disco-key", "rqlite", "", "key prefix of discovery"},
	{"disco-config", "", "", "`file` that configures discovery"},
	{"extensions-path", "", "", "comma-separated `paths` of SQLite extensions"},
	{"on-disk-path", "", "", "`file` of the database, outside of the data directory"},

	{"http-cert", "", "", "certificate `file` of the HTTP API"},
	{"http-key", "", "", "key `file` of the HTTP API"},
	{"http-ca-cert", "", "", "certificate `file` that clients are verified by"},
	{"http-no-verify", false, "", "do not verify other nodes' HTTPS certificates"},
	{"http-verify-client", false, "", "require client certificates"},
	{"http-verify-common-name", "", "", "`name` required in client certificates"},
	{"node-cert", "", "", "certificate `file` for other nodes"},
	{"node-key", "", "", "key `file` for other nodes"},
	{"node-ca-cert", "", "", "certificate `file` that other nodes are verified by"},
	{"node-no-verify", false, "", "do not verify other nodes' certificates"},
	{"node-verify-client", false, "", "require certificates of other nodes"},
	{"node-verify-server-name", "", "", "`name` required in other nodes' certificates when dialling"},
	{"node-verify-common-name", "", "", "`name` required in certificates of nodes that connect"},

	{"otlp-endpoint", "", "", "`address` of a metrics collector"},
	{"otlp-interval", 30 * time.Second, "", "time between exports of metrics"},
	{"otlp-insecure", false, "", "export metrics without TLS"},
	{"otlp-no-verify", false, "", "do not verify the collector's certificate"},
	{"otlp-ca-cert", "", "", "certificate `file` that the collector is verified by"},
	{"otlp-cert", "", "", "certificate `file` for the collector"},
	{"otlp-key", "", "", "key `file` for the collector"},

	{"write-queue-capacity", 1024, "", "requests that the write queue holds"},
	{"write-queue-batch-size", 128, "", "requests that the write queue sends together"},
	{"write-queue-timeout", 50 * time.Millisecond, "", "time that a request waits for others in the write queue"},
	{"write-queue-tx", false, "", "send what the write queue collected as one transaction"},
}

// laterFlags makes these flags known to fs, which checks the form of their values.
func laterFlags(fs *flag.FlagSet) {
	for _, f := range later {
		usage := "not supported yet: " + f.usage
		switch def := f.def.(type) {
		case string:
			fs.String(f.name, def, usage)
		case bool:
			fs.Bool(f.name, def, usage)
		case int:
			fs.Int(f.name, def, usage)
		case time.Duration:
			fs.Duration(f.name, def, usage)
		default:
			panic(fmt.Sprintf("flag -%s has a default of type %T", f.name, def))
		}
	}
}

// laterFaults refuses the flags whose value asks for a missing feature.
func laterFaults(fs *flag.FlagSet) []string {
	var faults []string
	for _, f := range later {
		given := fs.Lookup(f.name)
		if v := given.Value.String(); v != given.DefValue && (f.off == "" || v != f.off) {
			faults = append(faults, fmt.Sprintf("-%s is not supported yet", f.name))
		}
	}
	return faults
}
