package l5http_test

import (
	"context"
	"errors"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/balance"
	"github.com/zhiyun-ops/zhiyun/l5/l5http"
	"github.com/zhiyun-ops/zhiyun/l5/l5test"
	"github.com/zhiyun-ops/zhiyun/l5/limit"
)

func newLimiter(t *testing.T, most int) *limit.Limiter {
	t.Helper()
	limiter, err := limit.NewLimiter(limit.LimiterConfig{Config: limit.Config{Healthy: time.Second, Min: 1, Max: most}}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return limiter
}

// TestLimit asks a limited handler one request at a time, with none of its four places taken or all.
func TestLimit(t *testing.T) {
	t.Parallel()
	type seen struct {
		Status                    int
		RetryAfter, Refused, Load string
		Priority                  string // as the handler saw it
		Deadline                  bool
	}
	for name, tt := range map[string]struct {
		taken   int
		headers map[string]string
		path    string
		options []l5http.LimitOption
		want    seen
	}{
		"admitted":         {want: seen{Status: 200, Priority: "normal"}},
		"full":             {taken: 4, want: seen{Status: 429, RetryAfter: "1", Refused: "at_limit"}},
		"exempt when full": {taken: 4, path: "/health", want: seen{Status: 200, Priority: "normal"}},
		"other answers": {
			taken: 4, options: []l5http.LimitOption{l5http.WithStatus(503), l5http.WithRetryAfter(1500 * time.Millisecond)},
			want: seen{Status: 503, RetryAfter: "2", Refused: "at_limit"},
		},
		"sheddable goes first":  {taken: 3, headers: map[string]string{l5http.PriorityHeader: "sheddable"}, want: seen{Status: 429, RetryAfter: "1", Refused: "at_limit"}},
		"critical goes in":      {taken: 3, headers: map[string]string{l5http.PriorityHeader: "critical"}, want: seen{Status: 200, Priority: "critical"}},
		"an unknown priority":   {headers: map[string]string{l5http.PriorityHeader: "vip"}, want: seen{Status: 200, Priority: "normal"}},
		"time left":             {headers: map[string]string{l5http.TimeoutHeader: "60000"}, want: seen{Status: 200, Priority: "normal", Deadline: true}},
		"time that is nonsense": {headers: map[string]string{l5http.TimeoutHeader: "soon"}, want: seen{Status: 200, Priority: "normal"}},
		"no time left":          {headers: map[string]string{l5http.TimeoutHeader: "0"}, want: seen{Status: 429, RetryAfter: "1", Refused: "too_late"}},
		"load": {
			options: []l5http.LimitOption{l5http.WithLoad(func() limit.Load { return limit.Load{Utilization: 0.5, Rate: 10} })},
			want:    seen{Status: 200, Priority: "normal", Load: "TEXT application_utilization=0.500, rps_fractional=10.0"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			limiter := newLimiter(t, 4)
			for range tt.taken {
				if !limiter.Enter(time.Now(), limit.Critical) {
					t.Fatal("no place")
				}
			}
			var got seen
			handler := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				got.Priority = limit.PriorityOf(r.Context()).String()
				_, got.Deadline = r.Context().Deadline()
			})
			options := append(tt.options, l5http.WithExempt(func(r *http.Request) bool { return r.URL.Path == "/health" }))
			request := httptest.NewRequest(http.MethodGet, "http://shop.cart"+tt.path, nil)
			for name, value := range tt.headers {
				request.Header.Set(name, value)
			}
			recorder := httptest.NewRecorder()
			l5http.Limit(limiter, handler, options...).ServeHTTP(recorder, request)
			header := recorder.Header()
			got.Status, got.RetryAfter, got.Refused, got.Load = recorder.Code, header.Get("Retry-After"), header.Get(l5http.RefusedHeader), header.Get(l5http.LoadHeader)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if n := limiter.State().InFlight; n != int64(tt.taken) {
				t.Errorf("%d calls in flight afterwards, want %d", n, tt.taken)
			}
		})
	}
}

// TestLimitPanics leaves no place taken by a handler that panics.
func TestLimitPanics(t *testing.T) {
	t.Parallel()
	limiter := newLimiter(t, 4)
	handler := l5http.Limit(limiter, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("bug") }))
	func() {
		defer func() { _ = recover() }()
		handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil))
	}()
	if n := limiter.State().InFlight; n != 0 {
		t.Errorf("%d calls in flight", n)
	}
}

// place is a server of four places for normal calls, in which calls stay until they are let go.
type place struct {
	limiter *limit.Limiter
	entered chan struct{}
	leave   chan struct{}
	addr    string
}

func newPlace(t *testing.T) *place {
	p := &place{limiter: newLimiter(t, 5), // a fifth is kept for critical calls
		entered: make(chan struct{}, 100), leave: make(chan struct{})}
	backend := httptest.NewServer(l5http.Limit(p.limiter, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.entered <- struct{}{}
		select {
		case <-p.leave:
			io.WriteString(w, "done")
		case <-r.Context().Done():
		}
	}), l5http.WithLoad(func() limit.Load { return limit.Load{Utilization: 0.65} })))
	t.Cleanup(backend.Close)
	p.addr = strings.TrimPrefix(backend.URL, "http://")
	return p
}

// TestOverloadedServer puts three times as many calls to a server as it has places for, by real sockets, then nothing but
// rejections until the client throttles itself, and then heals it.
func TestOverloadedServer(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	s := l5test.NewServer(t, nil)
	if err := s.Name().Register(t.Context(), []l5.Instance{{Service: "shop.cart", Addr: p.addr, Share: 100}}); err != nil {
		t.Fatal(err)
	}
	client := l5test.Client(t, s.Target(), nil)
	web := &http.Client{Transport: l5http.NewTransport(client)}
	get := func(ctx context.Context) (status int, err error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://shop.cart/", nil)
		if err != nil {
			return 0, err
		}
		response, err := web.Do(request)
		if err != nil {
			return 0, err
		}
		defer response.Body.Close()
		_, err = io.Copy(io.Discard, response.Body)
		return response.StatusCode, err
	}

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var calls sync.WaitGroup
	var mu sync.Mutex
	statuses := map[int]int{}
	for range 4 {
		calls.Go(func() {
			status, err := get(ctx)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			statuses[status]++
		})
		select {
		case <-p.entered:
		case <-ctx.Done():
			t.Fatal("a call does not get its place")
		}
	}
	for range 8 {
		status, err := get(ctx)
		if err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		statuses[status]++
		mu.Unlock()
	}

	var refusal error
	l5test.Await(t, "the client throttles itself", func() bool {
		_, err := get(ctx)
		refusal = err
		return err != nil
	})
	var why *l5.RouteError
	if !errors.Is(refusal, l5.ErrOverloaded) || !errors.As(refusal, &why) || !strings.Contains(why.Reason, "of the calls are not sent") {
		t.Errorf("the refusal says %v", refusal)
	}
	e := client.Explain("shop.cart")
	if i := e.Instances[0]; i.Failures != 0 || i.Health != balance.Up || i.Rejected == 0 {
		t.Errorf("rejections count as failures: %+v", i)
	}
	if e.Guard.Refused[limit.Throttled] == 0 || math.Abs(e.Guard.Throttle.K-2) > 0.01 || len(e.Guard.Reasons) == 0 {
		t.Errorf("the guard does not say what it refused: %+v", e.Guard)
	}

	close(p.leave)
	calls.Wait()
	if diff := cmp.Diff(map[int]int{http.StatusOK: 4, http.StatusTooManyRequests: 8}, statuses); diff != "" {
		t.Errorf("of 12 calls to 4 places (-want +got):\n%s", diff)
	}
	l5test.Await(t, "nothing is refused any more", func() bool {
		for len(p.entered) > 0 {
			<-p.entered
		}
		status, err := get(ctx)
		return err == nil && status == http.StatusOK && client.Explain("shop.cart").Guard.Throttle.Drop == 0
	})
	if n := p.limiter.State().InFlight; n != 0 {
		t.Errorf("%d calls still in flight", n)
	}
}
