package demo

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/sample"
	"github.com/zhiyun-ops/zhiyun/internal/sample/load"
	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/l5http"
)

// WritePackage writes the sample module's package, made of the binary exe, to a file.
func WritePackage(exe, path string) error {
	pack, err := sample.Pack(exe)
	if err != nil {
		return err
	}
	defer pack.Close()
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, pack)
	return errors.Join(err, file.Close())
}

// Health is one change of an instance's state of health, as one caller process sees it.
type Health struct {
	At     time.Time `json:"at"`
	Addr   string    `json:"addr"`
	To     string    `json:"to"`
	Reason string    `json:"reason"`
}

// LoadConfig says what a caller process calls, and how it is told.
type LoadConfig struct {
	Target  string // of l5
	Caller  string
	Service string
	Path    string
	Seed    uint64
	// Timeout bounds a call. Default: 2 s.
	Timeout time.Duration
	// Control gives the phases, a line "NAME RATE" each. Its end ends the load.
	Control io.Reader
	// Out gets one JSON line a second (a Progress), and a load.Report at the end.
	Out io.Writer
}

// Progress is what a caller process tells while it calls.
type Progress struct {
	At     time.Time     `json:"at"`
	Phase  string        `json:"phase"`
	Sent   int64         `json:"sent"`
	OK     int64         `json:"ok"`
	Failed int64         `json:"failed"`
	P50    time.Duration `json:"p50_ns"`
	P99    time.Duration `json:"p99_ns"`
	Health []Health      `json:"health,omitempty"` // instances that changed their state of health since the last
	Final  *load.Report  `json:"final,omitempty"`
}

// Load calls a service in an open loop until Control ends or ctx does: requests are sent when they are due, however
// long the others take, and latency counts from that moment.
func Load(ctx context.Context, config LoadConfig) error {
	var mu sync.Mutex
	var events []Health
	client, err := l5.New(l5.Config{Target: config.Target, Caller: config.Caller, ReportEvery: 500 * time.Millisecond, OnEvent: func(e l5.Event) {
		mu.Lock()
		events = append(events, Health{time.Now(), e.Addr, e.To.String(), e.Reason})
		mu.Unlock()
	}})
	if err != nil {
		return err
	}
	base := &http.Transport{MaxIdleConnsPerHost: 64, IdleConnTimeout: 30 * time.Second, DisableCompression: true}
	defer base.CloseIdleConnections()
	web := &http.Client{Transport: l5http.NewTransport(client, l5http.WithBase(base))}
	call := func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+config.Service+config.Path, nil)
		if err != nil {
			return err
		}
		response, err := web.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if _, err := io.Copy(io.Discard, response.Body); err != nil {
			return err
		}
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("answer %s", response.Status)
		}
		return nil
	}
	generator, err := load.New(load.Config{Call: call, Seed: config.Seed, Timeout: cmp.Or(config.Timeout, 2*time.Second)})
	if err != nil {
		return err
	}
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	running := make(chan error, 1)
	go func() { running <- client.Run(inner) }()
	control := make(chan error, 1)
	go func() { // the process's standard input: its end ends the load
		control <- generator.Control(config.Control)
		cancel()
	}()
	ended := make(chan error, 1)
	go func() { ended <- generator.Run(inner) }()
	encoder := json.NewEncoder(config.Out)
	tell := func(final bool) error {
		report := generator.Report()
		total := report.Total()
		p := Progress{At: time.Now(), Sent: total.Sent, OK: total.OK, Failed: total.Failed}
		if n := len(report.Phases); n > 0 {
			last := report.Phases[n-1]
			p.Phase, p.P50, p.P99 = last.Name, last.Latency.Quantile(0.5), last.Latency.Quantile(0.99)
		}
		mu.Lock()
		p.Health, events = events, nil
		mu.Unlock()
		if final {
			p.Final = &report
		}
		return encoder.Encode(p)
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := tell(false); err != nil {
				cancel() // nobody listens any more
			}
		case err := <-ended:
			cancel()
			err = errors.Join(err, <-running)
			select {
			case fault := <-control:
				err = errors.Join(err, fault)
			default:
			}
			return errors.Join(err, tell(true))
		}
	}
}
