package agent

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/zhiyun-ops/zhiyun/internal/device"
	"github.com/zhiyun-ops/zhiyun/internal/supervise"
	l5agent "github.com/zhiyun-ops/zhiyun/l5/agent"
)

const (
	// outageTick is the pace at which a port is asked for that is to open.
	outageTick = 100 * time.Millisecond
	// outageRepeat is how often what is known is told again while there is an outage: it is not acknowledged.
	outageRepeat = 10 * time.Second
)

// outages tells the name service at which of the device's addresses nobody serves, because the process that should has
// ended: the supervisor knows at once, callers would find out call by call.
type outages struct {
	addr       string // the device's
	supervisor *supervise.Supervisor
	say        func([]l5agent.Outage)
	answers    func(ctx context.Context, addr string) bool
	logger     *slog.Logger
	gauge      prometheus.Gauge
	kick       chan struct{} // capacity 1

	vigils map[string]*watched // by address; of run's goroutine alone
}

// watched is a vigil and whose it is.
type watched struct {
	vigil
	unit    string
	orphan  bool // the unit was stopped on purpose
	present bool
}

func newOutages(config Config, registry prometheus.Registerer) (*outages, error) {
	o := &outages{
		addr: config.Addr, answers: answers, logger: config.Logger, kick: make(chan struct{}, 1), vigils: make(map[string]*watched),
		gauge: prometheus.NewGauge(prometheus.GaugeOpts{Name: "zhiyun_agent_outages", Help: "Addresses of the device at which nobody serves, because their process has ended."}),
	}
	return o, registry.Register(o.gauge)
}

// changed is called when a process has changed its state. It does not block.
func (o *outages) changed(supervise.Process) {
	select {
	case o.kick <- struct{}{}:
	default:
	}
}

// run watches until ctx ends.
func (o *outages) run(ctx context.Context) error {
	if err := o.supervisor.Ready(ctx); err != nil {
		if ctx.Err() != nil || errors.Is(err, supervise.ErrClosed) {
			return nil // the supervisor says itself why it has ended
		}
		return err
	}
	said := time.Time{}
	for first := true; ; first = false {
		now := time.Now()
		news := o.look(ctx, now)
		list, wait := o.list(now)
		if news || first || len(list) > 0 && now.Sub(said) >= outageRepeat {
			o.say(list)
			o.gauge.Set(float64(len(list)))
			said = now
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-o.kick:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// look takes a sight of every address, and reports whether there is something to tell.
func (o *outages) look(ctx context.Context, now time.Time) (news bool) {
	for _, w := range o.vigils {
		w.present = false
	}
	processes := make(map[string][]supervise.Process)
	for _, p := range o.supervisor.List() {
		processes[p.Name] = append(processes[p.Name], p)
	}
	for _, spec := range o.supervisor.Specs() {
		seen := sightOf(processes[spec.Name])
		for _, port := range ports(spec) {
			addr := net.JoinHostPort(o.addr, strconv.Itoa(port))
			w := o.vigils[addr]
			if w == nil || w.orphan || w.unit != spec.Name {
				w = &watched{unit: spec.Name}
				o.vigils[addr] = w
			}
			w.present = true
			news = o.step(ctx, now, addr, w, seen) || news
		}
	}
	for addr, w := range o.vigils {
		switch {
		case w.present:
		case !w.orphan:
			w.orphan = true
			w.ends = 0 // it was asked for
			news = o.step(ctx, now, addr, w, sight{starts: w.starts, exit: "it was stopped"}) || news
		case o.answers(ctx, addr):
			delete(o.vigils, addr)
			news = true
		}
	}
	return news
}

func (o *outages) step(ctx context.Context, now time.Time, addr string, w *watched, seen sight) bool {
	if seen.running && w.state != serving {
		seen.answers = o.answers(ctx, addr)
	}
	was := w.state == serving
	news := w.step(now, seen)
	if is := w.state == serving; is != was {
		o.logger.Info("address", "addr", addr, "process", w.unit, "serves", is, "reason", w.reason)
	}
	return news
}

// sightOf is what the supervisor knows of a unit. One that runs several processes serves as long as one of them runs.
func sightOf(processes []supervise.Process) (s sight) {
	for _, p := range processes {
		s.running = s.running || p.State == supervise.Running
		s.exit = p.Exit
	}
	if len(processes) == 1 {
		s.starts = processes[0].Restarts
	}
	return s
}

// ports are those on which the processes of a spec serve.
func ports(spec supervise.Spec) (out []int) {
	for _, variable := range spec.Env {
		list, ok := strings.CutPrefix(variable, device.ListenVar+"=")
		if !ok {
			continue
		}
		for text := range strings.SplitSeq(list, ",") {
			if port, err := strconv.ParseUint(text, 10, 16); err == nil && port > 0 {
				out = append(out, int(port))
			}
		}
	}
	return out
}

// list is what is to be told, and how long to wait before the next look if no process changes its state.
func (o *outages) list(now time.Time) (list []l5agent.Outage, wait time.Duration) {
	wait = outageRepeat
	for _, addr := range slices.Sorted(maps.Keys(o.vigils)) {
		w := o.vigils[addr]
		switch {
		case w.state == serving:
			continue
		case w.state == settling:
			wait = min(wait, max(w.until.Sub(now), time.Millisecond))
		case w.state == opening:
			wait = min(wait, max(outageTick, now.Sub(w.since)/10)) // less often the longer it takes
		}
		list = append(list, l5agent.Outage{Addr: addr, Reason: w.reason, Settling: w.state == settling})
	}
	return list, wait
}

// answers reports whether somebody listens at an address of this device.
func answers(ctx context.Context, addr string) bool {
	ctx, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return false
	}
	return conn.Close() == nil
}
