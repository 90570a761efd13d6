package fleet

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/bench/usage"
	"github.com/zhiyun-ops/zhiyun/internal/transport"
	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/etcdstore"
	"github.com/zhiyun-ops/zhiyun/l5/memstore"
	"github.com/zhiyun-ops/zhiyun/l5/server"
)

// watched is the service that the crowds watch; probe is its only instance.
const (
	watched = "fleet.watched"
	probe   = "127.0.0.1:1"
)

// host is the part of the name server, with bare sockets beside it.
type host struct {
	records server.Store
	names   *server.Server
	reports atomic.Int64

	mu   sync.Mutex
	bare []net.Conn // guarded by mu
}

func (h *host) obey(ctx context.Context, o order) (report, error) {
	switch o.Do {
	case "fill":
		return h.fill(ctx, o)
	case "serve":
		return h.serve(ctx, o)
	case "weigh":
		runtime.GC()
		debug.FreeOSMemory()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return report{RSS: usage.Resident(), Heap: int64(m.HeapAlloc), CPU: usage.Processor()}, nil
	case "change":
		return h.change(ctx, o)
	case "reports":
		return report{CPU: usage.Processor(), Counts: counts{Reports: h.reports.Load()}}, nil
	case "fan":
		return h.fan(o)
	case "hang up":
		h.mu.Lock()
		defer h.mu.Unlock()
		for _, conn := range h.bare {
			conn.Close()
		}
		h.bare = nil
		return report{}, nil
	}
	return report{}, errors.New("unknown order")
}

func (h *host) open(ctx context.Context, o order) (err error) {
	if h.records != nil {
		return nil
	}
	if o.Dir == "" {
		h.records = memstore.New()
		return nil
	}
	h.records, _, err = etcdstore.Open(ctx, etcdstore.Config{Dir: o.Dir}) // ends with the process
	return err
}

// fill writes a registry as servers write it.
func (h *host) fill(ctx context.Context, o order) (report, error) {
	if err := h.open(ctx, o); err != nil {
		return report{}, err
	}
	s, err := server.New(server.Config{Store: h.records})
	if err != nil {
		return report{}, err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	if err := s.Ready(ctx); err != nil {
		return report{}, err
	}
	instances := []l5.Instance{{Service: watched, Addr: probe, Share: 100}}
	began := time.Now()
	for i := range o.Instances {
		service := fmt.Sprintf("module-%05d.api", i%o.Services)
		instances = append(instances, l5.Instance{
			Service: service, Addr: fmt.Sprintf("10.%d.%d.%d:8080", i>>16, i>>8&255, i&255), Share: 100,
			Device: fmt.Sprintf("device-%06d", i), Module: fmt.Sprintf("module-%05d", i%o.Services),
		})
	}
	if err := s.Register(ctx, instances); err != nil {
		return report{}, err
	}
	stop()
	return report{Took: time.Since(began)}, <-ended
}

// serve starts a server over what is in the store.
func (h *host) serve(ctx context.Context, o order) (report, error) {
	if err := h.open(ctx, o); err != nil {
		return report{}, err
	}
	listed, size, err := list(ctx, h.records)
	if err != nil {
		return report{}, err
	}
	began := time.Now()
	names, err := server.New(server.Config{Store: h.records, Sink: h})
	if err != nil {
		return report{}, err
	}
	h.names = names
	go names.Run(ctx) // ends with the process
	if err := names.Ready(ctx); err != nil {
		return report{}, err
	}
	out := report{Took: time.Since(began), CPU: usage.Processor(), RSS: usage.Resident(), Floor: listed, Bytes: size}
	listener, err := net.Listen("tcp", "127.0.0.1:"+fmt.Sprint(o.First)) // 0 unless the host stands in for one that was killed
	if err != nil {
		return out, err
	}
	mux := http.NewServeMux()
	mux.Handle(names.Handler())
	go transport.NewServer(mux).Serve(ctx, listener, time.Second)
	out.Target = "http://" + listener.Addr().String()
	bare, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return out, err
	}
	out.Raw = bare.Addr().String()
	go func() {
		for {
			conn, err := bare.Accept()
			if err != nil {
				return
			}
			h.mu.Lock()
			h.bare = append(h.bare, conn)
			h.mu.Unlock()
			_, _ = conn.Write([]byte{0})                                      // the other side waits for it, and tells if it does not come
			go func() { _, _ = io.Copy(io.Discard, bufio.NewReader(conn)) }() // what any server keeps for a peer; ends with the connection
		}
	}()
	return out, nil
}

// list reads the records and throws them away: the least that a start does.
func list(ctx context.Context, records server.Store) (took time.Duration, size int64, err error) {
	began := time.Now()
	all, _, err := records.List(ctx, "instance/")
	took = time.Since(began)
	for _, r := range all {
		size += int64(len(r.Key) + len(r.Value))
	}
	return took, size, err
}

// change sets the share of the watched instance again and again, and reports when.
func (h *host) change(ctx context.Context, o order) (report, error) {
	cpu := usage.Processor()
	began := make([]int64, 0, o.N)
	for i := range o.N {
		began = append(began, time.Now().UnixNano())
		if err := h.names.SetShare(ctx, watched, map[string]int{probe: 1 + i%99}); err != nil {
			return report{}, err
		}
		time.Sleep(o.Gap)
	}
	return report{Times: [][]int64{began}, CPU: usage.Processor() - cpu}, nil
}

// Outcomes implements server.Sink.
func (h *host) Outcomes(_ context.Context, outcomes []server.Outcome) error {
	for _, o := range outcomes {
		h.reports.Add(o.Reports)
	}
	return nil
}

// fan writes a message to every bare connection, one after the other: the least that a push of that size is.
func (h *host) fan(o order) (report, error) {
	h.mu.Lock()
	conns := h.bare
	h.mu.Unlock()
	cpu := usage.Processor()
	message := make([]byte, max(o.Size, 4))
	binary.BigEndian.PutUint32(message, uint32(len(message)))
	began := make([]int64, 0, o.N)
	for range o.N {
		began = append(began, time.Now().UnixNano())
		for _, conn := range conns {
			if _, err := conn.Write(message); err != nil {
				return report{}, err
			}
		}
		time.Sleep(o.Gap)
	}
	return report{Times: [][]int64{began}, CPU: usage.Processor() - cpu}, nil
}
