package cluster

import (
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// serviceCounts counts calls by type.
type serviceCounts struct {
	known [callHighwater + 1]atomic.Int64 // rqlite's
	hash  atomic.Int64
}

func (c *serviceCounts) count(t callType) {
	switch t {
	case callHash:
		c.hash.Add(1)
	case callLoadStream:
		c.known[callLoad].Add(1)
	default:
		c.known[t].Add(1)
	}
}

// Counters returns this side's part of the "cluster" map of /debug/vars.
func (s *Service) Counters() map[string]int64 {
	c := &s.counts.known
	asked := c[callMeta].Load()
	return map[string]int64{
		"num_backup_req":         c[callBackup].Load() + c[callBackupStream].Load(),
		"num_execute_req":        c[callExecute].Load(),
		"num_get_node_api_req":   asked,
		"num_get_node_api_resp":  asked,
		"num_hwm_update_dropped": c[callHighwater].Load(),
		"num_hash_req":           s.counts.hash.Load(),
		"num_join_req":           c[callJoin].Load(),
		"num_load_req":           c[callLoad].Load(),
		"num_notify_req":         c[callNotify].Load(),
		"num_query_req":          c[callQuery].Load(),
		"num_remove_node_req":    c[callRemove].Load(),
		"num_request_req":        c[callRequest].Load(),
		"num_stepdown_req":       c[callStepdown].Load(),
	}
}

// ServiceStatus is the "cluster" object of /status.
type ServiceStatus struct {
	Addr    string `json:"addr"`
	APIAddr string `json:"api_addr"`
	HTTPS   string `json:"https"` // "true" or "false"
}

// Status describes the Service for /status.
func (s *Service) Status() ServiceStatus {
	scheme, host, _ := strings.Cut(s.cfg.URL, "://")
	return ServiceStatus{
		Addr:    s.ln.Addr().String(),
		APIAddr: host,
		HTTPS:   strconv.FormatBool(scheme == "https"),
	}
}

// clientCounts counts what a Client did.
type clientCounts struct {
	executeRetries, queryRetries, requestRetries, metaRetries atomic.Int64
	retries, fresh                                            atomic.Int64
	readTimeouts, writeTimeouts                               atomic.Int64
	metaLocal                                                 atomic.Int64
	calls, failed, callTime                                   atomic.Int64 // callTime in µs
}

// called counts a call that has ended.
func (c *clientCounts) called(begun time.Time, err error) {
	c.calls.Add(1)
	c.callTime.Add(time.Since(begun).Microseconds())
	if err != nil {
		c.failed.Add(1)
	}
}

// retry counts a call that is tried again.
func (c *clientCounts) retry(t callType) {
	c.retries.Add(1)
	switch t {
	case callExecute:
		c.executeRetries.Add(1)
	case callQuery:
		c.queryRetries.Add(1)
	case callRequest:
		c.requestRetries.Add(1)
	case callMeta:
		c.metaRetries.Add(1)
	}
}

// Counters returns this side's part of the "cluster" map of /debug/vars.
func (c *Client) Counters() map[string]int64 {
	n := &c.counts
	open, idle := 0, 0
	for _, p := range c.Pools() {
		open += p.Open
		idle += p.Idle
	}
	return map[string]int64{
		"client_call_duration_us":      n.callTime.Load(),
		"client_conns_idle":            int64(idle), // now
		"client_conns_open":            int64(open), // now, those idle included
		"num_client_calls":             n.calls.Load(),
		"num_client_calls_failed":      n.failed.Load(), // without an answer
		"num_client_execute_retries":   n.executeRetries.Load(),
		"num_client_force_new_conn":    n.fresh.Load(),
		"num_client_query_retries":     n.queryRetries.Load(),
		"num_client_read_timeouts":     n.readTimeouts.Load(),
		"num_client_request_retries":   n.requestRetries.Load(),
		"num_client_retries":           n.retries.Load(),
		"num_client_write_timeouts":    n.writeTimeouts.Load(),
		"num_get_node_api_req_local":   n.metaLocal.Load(),
		"num_get_node_api_req_retries": n.metaRetries.Load(),
	}
}

// PoolStatus describes the connections to one node.
type PoolStatus struct {
	Idle    int `json:"idle"`
	MaxOpen int `json:"max_open_connections"`
	Open    int `json:"open_connections"`
}

// routerCounts counts what a Router had the leader do.
type routerCounts struct {
	executions, executionsFailed atomic.Int64
	queries, queriesFailed       atomic.Int64
	requests, requestsFailed     atomic.Int64
	removes, stepdowns           atomic.Int64
	backups, loads               atomic.Int64
}

// Counters returns the "proxy" map of /debug/vars.
func (r *Router) Counters() map[string]int64 {
	n := &r.counts
	return map[string]int64{
		"remote_backups":           n.backups.Load(),
		"remote_executions":        n.executions.Load(),
		"remote_executions_failed": n.executionsFailed.Load(),
		"remote_loads":             n.loads.Load(),
		"remote_queries":           n.queries.Load(),
		"remote_queries_failed":    n.queriesFailed.Load(),
		"remote_remove_node":       n.removes.Load(),
		"remote_requests":          n.requests.Load(),
		"remote_requests_failed":   n.requestsFailed.Load(),
		"remote_stepdowns":         n.stepdowns.Load(),
	}
}
