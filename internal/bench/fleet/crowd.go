package fleet

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"

	"github.com/zhiyun-ops/zhiyun/internal/bench/usage"
	"github.com/zhiyun-ops/zhiyun/internal/transport"
	"github.com/zhiyun-ops/zhiyun/l5/agent"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb/l5pbconnect"
)

// crowd is the part of many subscribers. They speak the wire protocol as agents do: resume by revision, connect again
// after a jittered wait.
type crowd struct {
	streams, snapshots, deltas, opened atomic.Int64

	mu    sync.Mutex
	heard []*ear // guarded by mu
}

// ear notes when one stream's messages arrived.
type ear struct {
	mu    sync.Mutex
	times []int64 // guarded by mu
}

func (e *ear) note() {
	now := time.Now().UnixNano()
	e.mu.Lock()
	e.times = append(e.times, now)
	e.mu.Unlock()
}

func (c *crowd) ear() *ear {
	e := &ear{}
	c.mu.Lock()
	c.heard = append(c.heard, e)
	c.mu.Unlock()
	return e
}

func (c *crowd) obey(ctx context.Context, o order) (report, error) {
	switch o.Do {
	case "agents":
		return c.agents(ctx, o)
	case "watch":
		return c.each(o, func(i int, joined func(error)) { c.watch(ctx, o.Targets[i%len(o.Targets)], o.First+i, joined) })
	case "listen":
		return c.each(o, func(i int, joined func(error)) { c.listen(o.Targets[0], o.First+i, joined) })
	case "heard":
		var out report
		c.mu.Lock()
		for _, e := range c.heard {
			e.mu.Lock()
			out.Times = append(out.Times, e.times)
			e.times = nil
			e.mu.Unlock()
		}
		c.mu.Unlock()
		return out, nil
	case "report":
		return c.report(ctx, o)
	case "count":
		return report{Counts: counts{Streams: c.streams.Load(), Snapshots: c.snapshots.Load(), Deltas: c.deltas.Load(), Opened: c.opened.Load()}, CPU: usage.Processor()}, nil
	}
	return report{}, errors.New("unknown order")
}

// each starts o.N of something, a few at a time, and waits until all have joined.
func (c *crowd) each(o order, begin func(i int, joined func(error))) (report, error) {
	results := make(chan error, o.N)
	gate := make(chan struct{}, 64)
	began := time.Now()
	go func() {
		for i := range o.N {
			gate <- struct{}{}
			var once sync.Once
			go begin(i, func(err error) { once.Do(func() { <-gate; results <- err }) })
		}
	}()
	var errs []error
	for range o.N {
		if err := <-results; err != nil && len(errs) < 3 {
			errs = append(errs, err)
		}
	}
	return report{Took: time.Since(began)}, errors.Join(errs...)
}

// from is the address that a stream comes from: no more than 200 of one, so that ports do not run out.
func from(i int) net.Addr {
	i /= 200
	return &net.TCPAddr{IP: net.IPv4(127, 1, byte(i>>8), byte(1+i&127))}
}

// listen reads from a bare socket.
func (c *crowd) listen(target string, i int, joined func(error)) {
	dialer := net.Dialer{LocalAddr: from(i)}
	conn, err := dialer.Dial("tcp", target)
	if err == nil {
		_, err = io.ReadFull(conn, make([]byte, 1))
	}
	e := c.ear()
	joined(err)
	if err != nil {
		return
	}
	head, body := make([]byte, 4), make([]byte, 0, 512)
	for {
		if _, err := io.ReadFull(conn, head); err != nil {
			return
		}
		body = append(body[:0], make([]byte, binary.BigEndian.Uint32(head)-4)...)
		if _, err := io.ReadFull(conn, body); err != nil {
			return
		}
		e.note()
	}
}

// watch keeps a stream.
func (c *crowd) watch(ctx context.Context, target string, i int, joined func(error)) {
	client, base, err := transport.Dial(transport.DialConfig{Target: target, From: from(i), Direct: []string{l5pbconnect.NameServiceWatchProcedure}})
	if err != nil {
		joined(err)
		return
	}
	service := l5pbconnect.NewNameServiceClient(client, base)
	e, held := c.ear(), &l5pb.Subscription{Service: watched, Caller: "fleet.crowd"}
	for step := 50 * time.Millisecond; ; step = min(2*step, 3*time.Second) {
		open := false
		err := c.stream(ctx, service, e, held, func() { open = true; joined(nil) })
		if ctx.Err() != nil {
			joined(err)
			return
		}
		wait := step/2 + rand.N(step/2+1) // as l5's clients do
		if open {
			step, wait = 25*time.Millisecond, rand.N(time.Second)
		}
		time.Sleep(wait)
	}
}

// stream is one life of a stream.
func (c *crowd) stream(ctx context.Context, service l5pbconnect.NameServiceClient, e *ear, held *l5pb.Subscription, opened func()) error {
	stream := service.Watch(ctx)
	defer stream.CloseResponse()
	defer stream.CloseRequest()
	if err := stream.Send(&l5pb.WatchRequest{Subscribe: []*l5pb.Subscription{held}}); err != nil {
		return err
	}
	first := true
	defer func() {
		if !first {
			c.streams.Add(-1)
		}
	}()
	for {
		response, err := stream.Receive()
		if err != nil {
			return err
		}
		if first {
			first = false
			c.opened.Add(1)
			c.streams.Add(1)
			if held.Revision > 0 {
				opened() // it resumes: there may be nothing more to come
			}
		}
		switch kind := response.GetKind().(type) {
		case *l5pb.WatchResponse_Snapshot:
			held.Epoch, held.Revision = kind.Snapshot.GetEpoch(), kind.Snapshot.GetRevision()
			c.snapshots.Add(1)
			opened()
		case *l5pb.WatchResponse_Delta:
			e.note()
			held.Revision = kind.Delta.GetRevision()
			c.deltas.Add(1)
		}
	}
}

// report sends o.N batches of o.Size outcomes each from 50 reporters, o.Gap between two of the crowd's.
func (c *crowd) report(ctx context.Context, o order) (report, error) {
	client, base, err := transport.Dial(transport.DialConfig{Target: o.Targets[0]})
	if err != nil {
		return report{}, err
	}
	defer client.CloseIdleConnections()
	service := l5pbconnect.NewNameServiceClient(client, base)
	const reporters = 50
	began := time.Now()
	var group errgroup.Group
	for i := range reporters {
		group.Go(func() error {
			for n := 0; n < o.N/reporters; n++ {
				time.Sleep(time.Until(began.Add(time.Duration(n*reporters+i) * o.Gap)))
				request := &l5pb.ReportRequest{Reporter: fmt.Sprint("fleet-", o.First, "-", i), Seq: uint64(n + 1)}
				for k := range o.Size {
					request.Outcomes = append(request.Outcomes, &l5pb.Outcome{
						Caller: "fleet.crowd", Service: watched, Addr: fmt.Sprintf("10.0.0.%d:80", k), Requests: 100, LatencySum: 1e9, Histogram: []int64{0, 50, 50}, Reports: 1,
					})
				}
				if _, err := service.Report(ctx, connect.NewRequest(request)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	err = group.Wait()
	return report{Took: time.Since(began)}, err
}

// agents starts agents of the server, each with a socket of its own.
func (c *crowd) agents(ctx context.Context, o order) (report, error) {
	var out report
	for i := range o.N {
		socket := filepath.Join(o.Dir, fmt.Sprintf("a%d", o.First+i))
		a, err := agent.New(agent.Config{Upstream: o.Targets[0], Device: fmt.Sprintf("device-%d", o.First+i), Socket: socket})
		if err != nil {
			return out, err
		}
		go func() { // ends with the process
			if err := a.Run(ctx); err != nil {
				fmt.Fprintln(os.Stderr, "fleet: agent:", err)
			}
		}()
		if err := a.Ready(ctx); err != nil {
			return out, err
		}
		out.Targets = append(out.Targets, "unix://"+socket)
	}
	return out, nil
}
