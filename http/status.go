package http

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"time"
)

// status serves GET /status.
func (s *Server) status(w http.ResponseWriter, c *call) error {
	all, err := s.statusParts()
	if err != nil {
		return err
	}
	key := c.params.get("key")
	if key == "" {
		if err := writeJSON(w, c, all); err != nil {
			return fmt.Errorf("JSON marshal: %w", err)
		}
		return nil
	}
	part, err := selectKey(all, key)
	if err != nil {
		return fmt.Errorf("JSON subkey: %w", err)
	}
	b, err := json.Marshal(part)
	if err != nil {
		return fmt.Errorf("JSON marshal: %w", err)
	}
	_, _ = w.Write(b) // a client that has gone needs no answer
	return nil
}

// extensions serves GET /extensions: that part of /status alone, which is what people look for there.
func (s *Server) extensions(w http.ResponseWriter, c *call) error {
	if part := s.cfg.Status["extensions"]; part != nil {
		return writeJSON(w, c, part())
	}
	return writeJSON(w, c, struct{}{})
}

// statusParts returns the parts of /status by name: those of the Server and those of Config.
func (s *Server) statusParts() (map[string]any, error) {
	osPart, err := osStatus()
	if err != nil {
		return nil, fmt.Errorf("os stats: %w", err)
	}
	all := map[string]any{
		"build":   s.buildStatus(),
		"http":    s.httpStatus(),
		"node":    s.nodeStatus(),
		"os":      osPart,
		"runtime": runtimeStatus(),
		"store":   map[string]bool{"open": false}, // until there is one to ask
	}
	if network, err := networkStatus(); err == nil { // nothing depends on it
		all["network"] = network
	}
	if at := s.lastBackup.Load(); at != nil {
		all["last_backup_time"] = at
	}
	for name, part := range s.cfg.Status {
		v := part()
		if err, failed := v.(error); failed {
			return nil, fmt.Errorf("%s stats: %w", name, err)
		}
		if v != nil {
			all[name] = v
		}
	}
	return all, nil
}

func (s *Server) buildStatus() map[string]string {
	return map[string]string{
		"build_time":         s.cfg.Build.Time,
		"commit":             s.cfg.Build.Commit,
		"compiler_command":   s.cfg.Build.Compiler,
		"compiler_toolchain": runtime.Compiler,
		"version":            s.cfg.Version,
	}
}

func (s *Server) httpStatus() map[string]any {
	m := map[string]any{
		"auth":      "disabled",
		"bind_addr": s.cfg.BindAddr,
		"queue":     map[string]any{"_default": s.queue.status()},
		"tls":       s.tlsStatus(),
	}
	peers := map[string]any{"local_node_addr": s.cfg.RaftAddr, "timeout": defaultTimeout.String()}
	if s.cfg.Pools != nil {
		if pools := s.cfg.Pools(); pools != nil {
			peers["conn_pool_stats"] = pools
		}
	}
	m["cluster"] = peers
	if s.cfg.Auth != nil {
		m["auth"] = "enabled"
	}
	if s.cfg.AllowOrigin != "" {
		m["allow_origin"] = s.cfg.AllowOrigin
	}
	return m
}

func (s *Server) tlsStatus() map[string]any {
	t := s.cfg.TLS
	if t.CertFile == "" {
		return map[string]any{"enabled": "false"}
	}
	return map[string]any{
		"enabled":     "true",
		"cert_file":   t.CertFile,
		"key_file":    t.KeyFile,
		"ca_file":     t.CAFile,
		"client_auth": t.ClientAuth,
		"next_protos": []string{"h2", "http/1.1"},
	}
}

func (s *Server) nodeStatus() map[string]any {
	now := time.Now()
	return map[string]any{
		"current_time": now,
		"start_time":   s.started,
		"uptime":       now.Sub(s.started).String(),
	}
}

func osStatus() (map[string]any, error) {
	executable, err := os.Executable()
	hostname, err2 := os.Hostname()
	if err := errors.Join(err, err2); err != nil {
		return nil, err
	}
	return map[string]any{
		"executable": executable,
		"hostname":   hostname,
		"page_size":  os.Getpagesize(),
		"pid":        os.Getpid(),
		"ppid":       os.Getppid(),
	}, nil
}

func runtimeStatus() map[string]any {
	_, kubernetes := os.LookupEnv("KUBERNETES_SERVICE_HOST")
	return map[string]any{
		"GOARCH":          runtime.GOARCH,
		"GOMAXPROCS":      runtime.GOMAXPROCS(0),
		"GOOS":            runtime.GOOS,
		"kubernetes_hint": kubernetes,
		"num_cpu":         runtime.NumCPU(),
		"num_goroutine":   runtime.NumGoroutine(),
		"version":         runtime.Version(),
	}
}

type interfaceStatus struct {
	Flags           string          `json:"flags"`
	HardwareAddress string          `json:"hardware_address"`
	Addresses       []addressStatus `json:"addresses,omitempty"`
}

type addressStatus struct {
	Address string `json:"address"`
}

func networkStatus() (map[string]any, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	byName := make(map[string]interfaceStatus, len(interfaces))
	for _, i := range interfaces {
		addrs, err := i.Addrs()
		if err != nil {
			return nil, err
		}
		is := interfaceStatus{Flags: i.Flags.String(), HardwareAddress: i.HardwareAddr.String()}
		for _, a := range addrs {
			is.Addresses = append(is.Addresses, addressStatus{a.String()})
		}
		byName[i.Name] = is
	}
	return map[string]any{"interfaces": byName}, nil
}

// selectKey returns the part of v that the dotted path names. A name that is not there yields an
// empty object; what is not an object is returned as it is, whatever follows in the path.
func selectKey(v any, path string) (any, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	var part any
	if err := json.Unmarshal(b, &part); err != nil {
		return nil, err
	}
	for name := range strings.SplitSeq(path, ".") {
		object, ok := part.(map[string]any)
		if !ok {
			break
		}
		if part, ok = object[name]; !ok {
			return struct{}{}, nil
		}
	}
	return part, nil
}
