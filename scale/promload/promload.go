// Package promload reads the load of modules from Prometheus: it is a scale.Metrics over one or two queries.
package promload

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/prom"
	"github.com/zhiyun-ops/zhiyun/scale"
)

// Config says what to ask. URL and Rate are required.
//
// In a query, $module stands for the module and $step for the length of a bucket, as in "15s".
type Config struct {
	URL    string       // of the server, such as http://prometheus:9090
	Client *http.Client // nil: http.DefaultClient

	// Rate is the requests per second that callers wanted served, refused ones included, such as
	//	sum(rate(haproxy_backend_http_requests_total{proxy="$module"}[$step]))
	Rate string

	// Lost is how many of these were refused for want of capacity. Default: not known, and taken for none.
	Lost string

	// Step is the length of a bucket: at least twice the scrape interval, for rate() needs two samples. Default 30 s.
	Step time.Duration
}

// Load asks a Prometheus server. It is safe for concurrent use.
type Load struct {
	cfg    Config
	client *prom.Client
}

var _ scale.Metrics = (*Load)(nil)

// New checks cfg and reports all its faults at once; it asks nothing yet.
func New(cfg Config) (*Load, error) {
	client, err := prom.New(cfg.URL, cfg.Client)
	errs := []error{err}
	if cfg.Rate == "" {
		errs = append(errs, errors.New("Rate is empty: give the query for requests per second"))
	}
	if cfg.Step == 0 {
		cfg.Step = 30 * time.Second
	}
	if cfg.Step < time.Second {
		errs = append(errs, fmt.Errorf("Step %v is below a second: give at least twice the scrape interval, or 0 for 30 s", cfg.Step))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("promload: %w", err)
	}
	return &Load{cfg: cfg, client: client}, nil
}

// Load implements scale.Metrics. Moments for which Prometheus has no value are left out.
func (l *Load) Load(ctx context.Context, module string, from, to time.Time) ([]scale.Sample, error) {
	first := from.Truncate(l.cfg.Step).Add(l.cfg.Step)
	points, err := l.ask(ctx, l.cfg.Rate, module, first, to)
	if err != nil {
		return nil, err
	}
	lost := make(map[time.Time]float64)
	if l.cfg.Lost != "" {
		part, err := l.ask(ctx, l.cfg.Lost, module, first, to)
		if err != nil {
			return nil, err
		}
		for _, p := range part {
			lost[p.At] = p.Value
		}
	}
	out := make([]scale.Sample, len(points))
	for i, p := range points {
		out[i] = scale.Sample{At: p.At.Add(-l.cfg.Step), Rate: p.Value, Lost: lost[p.At], Valid: true}
	}
	return out, nil
}

func (l *Load) ask(ctx context.Context, query, module string, from, to time.Time) ([]prom.Point, error) {
	quoted := strconv.Quote(module)
	query = strings.NewReplacer("$module", quoted[1:len(quoted)-1], "$step", fmt.Sprintf("%ds", int(l.cfg.Step.Seconds()))).Replace(query)
	series, err := l.client.Range(ctx, query, from, to, l.cfg.Step)
	if err != nil {
		return nil, fmt.Errorf("promload: %w", err)
	}
	switch len(series) {
	case 0:
		return nil, nil
	case 1:
		return series[0].Points, nil
	}
	return nil, fmt.Errorf("promload: query %q gives %d series: sum them to one", query, len(series))
}
