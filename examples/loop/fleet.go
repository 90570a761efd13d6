package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/l5http"
)

// fleet stands for the devices: a folder and, where the module runs, an HTTP server each.
type fleet struct {
	dir string

	mu       sync.Mutex
	programs map[string]*program // guarded by mu; by device
}

type program struct {
	server *http.Server
	addr   string
	done   chan struct{} // closed when it does not serve any more
}

func newFleet(dir string) *fleet { return &fleet{dir: dir, programs: make(map[string]*program)} }

func deviceName(i int) string { return fmt.Sprintf("cart-%d", i+1) }

// root is the device's folder, made if it is not there.
func (f *fleet) root(device string) (string, error) {
	root := filepath.Join(f.dir, device)
	return root, os.MkdirAll(root, 0o755)
}

func (f *fleet) path(device, name string) string { return filepath.Join(f.dir, device, name) }

func (f *fleet) removeConfig(device string) error {
	if err := os.Remove(f.path(device, configPath)); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// start starts the device's program; one that runs is left alone.
func (f *fleet) start(device string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.programs[device] != nil {
		return nil
	}
	settings, err := os.ReadFile(f.path(device, configPath))
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	p := &program{addr: listener.Addr().String(), done: make(chan struct{})}
	p.server = &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(settings) })}
	go func() { // ends with stop or close, which wait for it
		defer close(p.done)
		p.server.Serve(listener)
	}()
	f.programs[device] = p
	return nil
}

// stop lets the program finish its calls and end.
func (f *fleet) stop(ctx context.Context, device string) error {
	f.mu.Lock()
	p := f.programs[device]
	delete(f.programs, device)
	f.mu.Unlock()
	if p == nil {
		return nil
	}
	err := p.server.Shutdown(ctx)
	<-p.done
	return err
}

func (f *fleet) addr(device string) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p := f.programs[device]; p != nil {
		return p.addr, nil
	}
	return "", fmt.Errorf("no program runs on %s", device)
}

func (f *fleet) running() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.programs)
}

func (f *fleet) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for device, p := range f.programs {
		p.server.Close()
		<-p.done
		delete(f.programs, device)
	}
}

// callers call the service at a rate of their own, however long the answers take. What a busy machine kept them from
// calling is made up for by a tenth of a second at most: a backlog would look like a burst.
type callers struct {
	web          *http.Client
	rate         atomic.Int64 // calls a second; 0: none
	sent, failed atomic.Int64 // once there was an instance
	fault        atomic.Pointer[error]
}

func newCallers(client *l5.Client) *callers {
	base := &http.Transport{MaxIdleConnsPerHost: 100} // connections are kept: hundreds a second would be made else
	return &callers{web: &http.Client{Transport: l5http.NewTransport(client, l5http.WithBase(base)), Timeout: 20 * time.Second}}
}

// first is the first error of a call.
func (c *callers) first() error {
	if err := c.fault.Load(); err != nil {
		return *err
	}
	return nil
}

// Run calls until ctx ends, and waits for the calls in flight.
func (c *callers) Run(ctx context.Context) error {
	var calls sync.WaitGroup
	defer calls.Wait()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	owed, last := 0.0, time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-ticker.C:
			owed += min(now.Sub(last), 100*time.Millisecond).Seconds() * float64(c.rate.Load())
			last = now
		}
		for ; owed >= 1; owed-- {
			calls.Go(func() { c.call(ctx) })
		}
	}
}

func (c *callers) call(ctx context.Context) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+module+"/", nil)
	if err != nil {
		return
	}
	response, err := c.web.Do(request)
	if err == nil {
		_, err = io.Copy(io.Discard, response.Body)
		response.Body.Close()
	}
	switch {
	case ctx.Err() != nil, errors.Is(err, l5.ErrNoInstance) && c.sent.Load() == 0:
		return // it is over, or nothing serves yet
	case err != nil:
		c.failed.Add(1)
		c.fault.CompareAndSwap(nil, &err)
	}
	c.sent.Add(1)
}
