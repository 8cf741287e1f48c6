package http

import (
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const (
	// maxScrapes bounds the scrapes that are answered at a time, those that were given up included.
	maxScrapes = 4

	// scrapeTimeout is when a scrape is given up, which needs a disk that does not answer: it is the
	// time that Prometheus gives a target.
	scrapeTimeout = 10 * time.Second

	// otherLabel stands for all paths and methods that are not served: a client must not be able to make
	// up time series.
	otherLabel = "other"
)

// durationBuckets reach from a read of memory to a statement that somebody should look at.
var durationBuckets = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}

// metrics is what /metrics tells. It measures the requests itself; the rest is read when it is asked for,
// by the collectors of metrics_vars.go and metrics_node.go.
type metrics struct {
	registry *prometheus.Registry
	handler  http.Handler

	requests *prometheus.CounterVec   // by endpoint, method and code
	duration *prometheus.HistogramVec // by endpoint
	received *prometheus.CounterVec   // by endpoint
	sent     *prometheus.CounterVec   // by endpoint
	inFlight prometheus.Gauge
}

func newMetrics(s *Server) *metrics {
	endpoint := []string{"endpoint"}
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rqlited_http_requests_total",
			Help: "HTTP requests answered, by endpoint, method and status code.",
		}, []string{"endpoint", "method", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "rqlited_http_request_duration_seconds",
			Help:    "Time from the header of a request to the end of its answer, by endpoint.",
			Buckets: durationBuckets,
		}, endpoint),
		received: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rqlited_http_request_bytes_total",
			Help: "Bytes read of the bodies of requests, by endpoint.",
		}, endpoint),
		sent: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rqlited_http_response_bytes_total",
			Help: "Bytes of the bodies of answers, by endpoint.",
		}, endpoint),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "rqlited_http_requests_in_flight",
			Help: "HTTP requests that are being answered, this one included.",
		}),
	}
	m.registry.MustRegister(m.requests, m.duration, m.received, m.sent, m.inFlight,
		newVarsCollector(s.counted), newNodeCollector(s),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.handler = promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		ErrorLog:            slog.NewLogLogger(s.log.Handler(), slog.LevelError),
		MaxRequestsInFlight: maxScrapes,
		Timeout:             scrapeTimeout,
	})
	return m
}

// scrape serves GET /metrics.
func (s *Server) scrape(w http.ResponseWriter, c *call) error {
	s.metrics.handler.ServeHTTP(w, c.Request)
	return nil
}

// begin counts a request for rt, which is nil if there is no such endpoint. What it returns is called
// when the request has been answered.
func (m *metrics) begin(w *answer, r *http.Request, rt *route) (end func()) {
	start := time.Now()
	m.inFlight.Inc()
	body := &countedBody{ReadCloser: r.Body}
	r.Body = body
	endpoint := otherLabel
	if rt != nil {
		endpoint = rt.path
	}
	return func() {
		m.inFlight.Dec()
		m.requests.WithLabelValues(endpoint, methodLabel(r.Method), strconv.Itoa(w.code)).Inc()
		m.duration.WithLabelValues(endpoint).Observe(time.Since(start).Seconds())
		m.received.WithLabelValues(endpoint).Add(float64(body.read))
		m.sent.WithLabelValues(endpoint).Add(float64(w.sent))
	}
}

func methodLabel(method string) string {
	known := []string{http.MethodGet, http.MethodPost, http.MethodDelete, http.MethodHead, http.MethodOptions, http.MethodPut, http.MethodPatch}
	if slices.Contains(known, method) {
		return method
	}
	return otherLabel
}

// countedBody counts what is read of a body. It is read by one goroutine.
type countedBody struct {
	io.ReadCloser
	read int64
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.read += int64(n)
	return n, err
}
