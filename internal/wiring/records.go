package wiring

import (
	"context"
	"fmt"
	"time"

	"github.com/zhiyun-ops/zhiyun/cmdb"
	"github.com/zhiyun-ops/zhiyun/gray"
	"github.com/zhiyun-ops/zhiyun/internal/records"
	l5server "github.com/zhiyun-ops/zhiyun/l5/server"
	"github.com/zhiyun-ops/zhiyun/scale"
)

// Sink keeps what callers report.
type Sink struct{ Records *records.DB }

// Outcomes implements the name service's Sink.
func (s Sink) Outcomes(ctx context.Context, outcomes []l5server.Outcome) error {
	deltas := make([]records.OutcomeDelta, len(outcomes))
	for i, o := range outcomes {
		deltas[i] = records.OutcomeDelta{
			Caller: o.Caller, Service: o.Service, Addr: o.Addr, Device: o.Device,
			Requests: o.Requests, Failures: o.Failures, Rejected: o.Rejected,
			LatencySum: o.LatencySum, Histogram: o.Histogram, Reports: o.Reports,
		}
	}
	return s.Records.AddOutcomes(ctx, deltas)
}

// Outcomes shows gray what callers reported about each instance of a service.
type Outcomes struct {
	Records *records.DB
	Bucket  time.Duration // the width of the records' buckets
}

// Outcomes implements gray.Outcomes: it sums the buckets wholly inside [from, to).
func (o Outcomes) Outcomes(ctx context.Context, service string, from, to time.Time) ([]gray.MemberOutcome, bool, error) {
	from, to = from.Add(o.Bucket-1).Truncate(o.Bucket), to.Truncate(o.Bucket)
	if !from.Before(to) {
		return nil, true, nil // no bucket is over yet; nothing is lost
	}
	window, err := o.Records.Outcomes(ctx, service, from, to)
	if err != nil {
		return nil, false, err
	}
	index := make(map[string]int)
	var members []gray.MemberOutcome
	for _, b := range window.Buckets {
		i, seen := index[b.Addr]
		if !seen {
			i = len(members)
			index[b.Addr] = i
			members = append(members, gray.MemberOutcome{ID: b.Addr})
		}
		members[i].Requests += b.Requests
		members[i].Failures += b.Failures
		members[i].Reports += b.Reports
	}
	return members, window.Complete, nil
}

// Load shows scale the load that callers offer to a module: the sum over the services that its manifest names.
type Load struct {
	Records *records.DB
	Module  func(name string) (cmdb.Module, error)
}

// Load implements scale.Metrics. A bucket that is unknown for one service is unknown for the module: one in which no
// process ran to record it, and one in which callers were there, or had broken off, and nobody was heard.
func (l Load) Load(ctx context.Context, module string, from, to time.Time) ([]scale.Sample, error) {
	m, err := l.Module(module)
	if err != nil {
		return nil, err
	}
	var out []scale.Sample
	for _, service := range m.Services {
		samples, err := l.Records.Load(ctx, service.ID, from, to)
		if err != nil {
			return nil, err
		}
		if out == nil {
			out = make([]scale.Sample, 0, len(samples))
			for _, s := range samples {
				out = append(out, scale.Sample{At: s.At, Valid: true})
			}
		}
		if len(samples) != len(out) {
			return nil, fmt.Errorf("load of module %s: its services have %d and %d buckets", module, len(out), len(samples))
		}
		for i, s := range samples {
			seconds := s.Width.Seconds()
			out[i].Rate += s.Rate
			out[i].Lost += float64(s.Failures+s.Rejected) / seconds
			out[i].Valid = out[i].Valid && s.Status == records.Complete
			out[i].AtLeast = out[i].AtLeast || s.Partial
		}
	}
	return out, nil
}
