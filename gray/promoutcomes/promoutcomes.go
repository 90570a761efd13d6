// Package promoutcomes judges rollouts by what Prometheus has counted: it is a gray.Outcomes over two queries.
package promoutcomes

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/zhiyun-ops/zhiyun/gray"
	"github.com/zhiyun-ops/zhiyun/internal/prom"
)

// Config says what to ask. Only URL is required: the other defaults fit the exporter that is built into HAProxy.
//
// In a query, $service stands for the service and $window for the window's length, as in "90s".
type Config struct {
	URL    string       // of the server, such as http://prometheus:9090
	Client *http.Client // nil: http.DefaultClient

	// Requests and Failures count, per member, within the window. Defaults:
	//	sum by (server) (increase(haproxy_server_http_responses_total{proxy="$service"}[$window]))
	//	sum by (server) (increase(haproxy_server_http_responses_total{proxy="$service",code="5xx"}[$window]))
	Requests, Failures string

	// Member is the label that names a member as Weights does. Default "server".
	Member string

	// Scrape is how often Prometheus collects. A window counts as that many reports, and the last Scrape of it is
	// left out, because it may not have been collected yet. Default 15 s.
	Scrape time.Duration
}

// Outcomes asks a Prometheus server. It is safe for concurrent use.
type Outcomes struct {
	cfg    Config
	client *prom.Client
}

var _ gray.Outcomes = (*Outcomes)(nil)

// New checks cfg and reports all its faults at once; it asks nothing yet.
func New(cfg Config) (*Outcomes, error) {
	client, err := prom.New(cfg.URL, cfg.Client)
	errs := []error{err}
	const responses = `sum by (server) (increase(haproxy_server_http_responses_total{proxy="$service"%s}[$window]))`
	if cfg.Requests == "" {
		cfg.Requests = fmt.Sprintf(responses, "")
	}
	if cfg.Failures == "" {
		cfg.Failures = fmt.Sprintf(responses, `,code="5xx"`)
	}
	if cfg.Member == "" {
		cfg.Member = "server"
	}
	if cfg.Scrape == 0 {
		cfg.Scrape = 15 * time.Second
	}
	for name, query := range map[string]string{"Requests": cfg.Requests, "Failures": cfg.Failures} {
		if !strings.Contains(query, "$window") {
			errs = append(errs, fmt.Errorf("%s %q has no $window: count within it, as increase(...[$window]) does", name, query))
		}
	}
	if cfg.Scrape < 0 {
		errs = append(errs, fmt.Errorf("Scrape %v is negative: give the scrape interval, or 0 for 15 s", cfg.Scrape))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("promoutcomes: %w", err)
	}
	return &Outcomes{cfg: cfg, client: client}, nil
}

// Outcomes implements gray.Outcomes. A service of which Prometheus knows nothing has no members: the rollout then
// holds for want of requests.
func (o *Outcomes) Outcomes(ctx context.Context, service string, from, to time.Time) ([]gray.MemberOutcome, bool, error) {
	to = to.Add(-o.cfg.Scrape)
	window := to.Sub(from).Truncate(time.Second)
	if window < 2*o.cfg.Scrape { // no increase can be seen within fewer than two samples
		return nil, true, nil
	}
	requests, err := o.count(ctx, o.cfg.Requests, service, window, to)
	if err != nil {
		return nil, false, err
	}
	failures, err := o.count(ctx, o.cfg.Failures, service, window, to)
	if err != nil {
		return nil, false, err
	}
	var out []gray.MemberOutcome
	for id, n := range requests {
		if n > 0 {
			out = append(out, gray.MemberOutcome{ID: id, Requests: n, Failures: min(n, failures[id]), Reports: int64(window / o.cfg.Scrape)})
		}
	}
	return out, true, nil
}

// count asks one query and sums its series by member.
func (o *Outcomes) count(ctx context.Context, query, service string, window time.Duration, at time.Time) (map[string]int64, error) {
	quoted := strconv.Quote(service)
	query = strings.NewReplacer("$service", quoted[1:len(quoted)-1], "$window", fmt.Sprintf("%ds", int(window.Seconds()))).Replace(query)
	series, err := o.client.At(ctx, query, at)
	if err != nil {
		return nil, fmt.Errorf("promoutcomes: %w", err)
	}
	out := make(map[string]int64)
	for _, s := range series {
		id, ok := s.Labels[o.cfg.Member]
		if !ok {
			return nil, fmt.Errorf("promoutcomes: query %q: a series has no label %q: group by it, or set Member", query, o.cfg.Member)
		}
		for _, p := range s.Points {
			out[id] += int64(math.Round(p.Value))
		}
	}
	return out, nil
}
