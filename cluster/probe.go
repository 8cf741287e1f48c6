package cluster

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"sync"
)

// probeAll makes sure that no address to join is one of an HTTP API, which is easily confused.
func (f *former) probeAll(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	speaks := make([]bool, len(f.cfg.Join))
	var asked sync.WaitGroup
	for i, addr := range f.cfg.Join {
		asked.Go(func() { speaks[i] = f.cfg.probe(ctx, addr) })
	}
	asked.Wait()
	for i, addr := range f.cfg.Join {
		if speaks[i] {
			return fmt.Errorf("join address %s appears to be serving HTTP when it should be Raft", addr)
		}
	}
	return nil
}

// speaksHTTP reports whether addr answers an HTTP request, encrypted or not.
func speaksHTTP(ctx context.Context, addr string) bool {
	transport := &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, // only whether it speaks, not who
	}
	client := &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	for _, scheme := range []string{"http", "https"} {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+addr+"/status", nil)
		if err != nil {
			continue
		}
		if resp, err := client.Do(req); err == nil {
			resp.Body.Close()
			return true
		}
	}
	return false
}
