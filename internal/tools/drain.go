package tools

import (
	"context"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
)

// DrainIn is what l5.drain takes.
type DrainIn struct {
	Services []Service `json:"services"`
	Devices  []Device  `json:"devices"`
	Quiet    string    `json:"quiet,omitempty" doc:"how long no call may be reported, neither as ended nor as in flight; default 2s"`
	Timeout  string    `json:"timeout,omitempty" doc:"after which what is still reported is waited for no more; default 1m"`
}

// DrainOut is what l5.drain tells.
type DrainOut struct {
	Before []Share `json:"before" doc:"shares as they were"`
}

// Share is the share of one instance.
type Share struct {
	Service string `json:"service"`
	Addr    string `json:"addr"`
	Share   int    `json:"share"`
}

// Drain takes devices' weight to 0 and returns when calls in flight have ended: callers report the end of each call, and of instances
// that take no more those in flight, so when everybody who called was heard since, and nothing was reported for a while, none is
// left. Codes: drain.busy.
func Drain(ctx context.Context, env Env, in DrainIn) (DrainOut, error) {
	out := DrainOut{Before: []Share{}}
	quiet, err := span("quiet", in.Quiet, 2*time.Second)
	if err != nil {
		return out, err
	}
	timeout, err := span("timeout", in.Timeout, time.Minute)
	if err != nil {
		return out, err
	}
	standing, err := env.standing(ctx, in.Services, in.Devices)
	if err != nil {
		return out, err
	}
	for _, s := range standing {
		out.Before = append(out.Before, Share{s.Service, s.Addr, s.Share})
		if s.Share == 0 {
			continue
		}
		if _, err := env.Client.Registry.SetShares(ctx, connect.NewRequest(&pb.SetSharesRequest{
			Service: s.Service, Shares: map[string]int32{s.Addr: 0}, Cause: env.cause(),
		})); err != nil && !isCode(err, "instance.not_found") {
			return out, err
		}
	}
	if len(standing) == 0 {
		return out, nil
	}
	return out, env.quiet(ctx, out.Before, quiet, timeout)
}

// quiet waits until for a while no call to the instances has ended or was in flight, and all who called the services were heard.
func (e Env) quiet(ctx context.Context, instances []Share, quiet, timeout time.Duration) error {
	began := time.Now()
	still, last := began, int64(-1)
	for {
		now, total, unheard := time.Now(), int64(0), int64(0)
		for _, i := range instances {
			answer, err := e.Client.Registry.Traffic(ctx, connect.NewRequest(&pb.TrafficRequest{
				Service: i.Service, Addr: i.Addr, Window: durationpb.New(time.Since(began) + timeout), Told: durationpb.New(max(0, now.Sub(began)-quiet/2)),
			}))
			if err != nil {
				return err
			}
			total, unheard = total+answer.Msg.Requests, max(unheard, answer.Msg.Unheard)
			if busy := answer.Msg.Busy; busy != nil && now.Add(-busy.AsDuration()).After(still) {
				still = now.Add(-busy.AsDuration())
			}
		}
		if total != last {
			last, still = total, now
		}
		if now.Sub(still) >= quiet && unheard == 0 {
			return nil
		}
		if now.Sub(began) > timeout {
			if unheard > 0 {
				return later("drain.busy", "%d devices that called were not heard for %v after the weight went to 0; are their agents connected?", unheard, timeout)
			}
			return later("drain.busy", "calls are still reported %v after the weight went to 0; do callers hold on to connections?", timeout)
		}
		if err := rest(ctx, min(quiet/4, 200*time.Millisecond)); err != nil {
			return err
		}
	}
}

// UndrainIn is the input of l5.drain and what it did.
type UndrainIn struct {
	Services []Service `json:"services"`
	Devices  []Device  `json:"devices"`
	Quiet    string    `json:"quiet,omitempty"`
	Timeout  string    `json:"timeout,omitempty"`
	Done     *DrainOut `json:"done,omitempty"`
}

// Undrain gives instances the share back that they had. If that is not known, those at 0 get all of it: they were in
// service.
func Undrain(ctx context.Context, env Env, in UndrainIn) (DrainOut, error) {
	out := DrainOut{Before: []Share{}}
	standing, err := env.standing(ctx, in.Services, in.Devices)
	if err != nil {
		return out, err
	}
	for _, s := range standing {
		want := 100
		if in.Done != nil {
			want = s.Share
			for _, before := range in.Done.Before {
				if before.Service == s.Service && before.Addr == s.Addr {
					want = before.Share
				}
			}
		}
		if want == s.Share {
			continue
		}
		if _, err := env.Client.Registry.SetShares(ctx, connect.NewRequest(&pb.SetSharesRequest{
			Service: s.Service, Shares: map[string]int32{s.Addr: int32(want)}, Cause: env.cause(),
		})); err != nil {
			return out, err
		}
		out.Before = append(out.Before, Share{s.Service, s.Addr, want})
	}
	return out, nil
}
