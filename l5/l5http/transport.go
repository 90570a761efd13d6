// Package l5http lets an http.Client call services by their id: http://shop.cart/items goes to the instance that l5
// picks, and how it went is told back.
//
//	web := &http.Client{Transport: l5http.NewTransport(client)}
//	response, err := web.Get("http://shop.cart/items?user=7")
//
// The request keeps its Host header, shop.cart. A connection error, a status of 500 and above but not 501, and a body
// that breaks off count as failures; 429 is a rejection for overload. The latency of a call is the time to the response's
// header. The call counts as in flight until its body is read to the end or closed.
//
// The other side is Limit, which bounds what a server works on at a time:
//
//	limiter, err := limit.NewLimiter(limit.LimiterConfig{Config: limit.Config{Healthy: 250 * time.Millisecond}}, time.Now())
//	http.ListenAndServe(addr, l5http.Limit(limiter, handler))
//
// Both help each other by headers: a request tells its priority and for how long its caller waits, a response
// how full the server is.
package l5http

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/limit"
)

// Option changes a Transport.
type Option func(*Transport)

// WithBase sets the transport that carries the requests. Default: a clone of http.DefaultTransport without a proxy.
func WithBase(base http.RoundTripper) Option { return func(t *Transport) { t.base = base } }

// WithJudge sets how a response is judged: nil for a success, an error that matches l5.ErrOverloaded for a rejection,
// any other error for a failure. Default: Judge.
func WithJudge(judge func(*http.Response) error) Option {
	return func(t *Transport) { t.judge = judge }
}

// Transport is an http.RoundTripper over l5. It is safe for concurrent use.
type Transport struct {
	client *l5.Client
	base   http.RoundTripper
	judge  func(*http.Response) error
}

var _ http.RoundTripper = (*Transport)(nil)

// NewTransport returns a transport that routes by client. The host of a request's URL, without a port, is the service id.
func NewTransport(client *l5.Client, options ...Option) *Transport {
	t := &Transport{client: client, judge: Judge}
	for _, option := range options {
		option(t)
	}
	if t.base == nil {
		base := &http.Transport{}
		if standard, ok := http.DefaultTransport.(*http.Transport); ok {
			base = standard.Clone()
		}
		base.Proxy = nil // services are reached directly
		t.base = base
	}
	return t
}

// Judge is the default judge: 429, and 503 with a RefusedHeader, is a rejection; 500 and above, but not 501, is a failure.
func Judge(response *http.Response) error {
	switch {
	case response.StatusCode == http.StatusTooManyRequests,
		response.StatusCode == http.StatusServiceUnavailable && response.Header.Get(RefusedHeader) != "":
		return fmt.Errorf("status %s: %w", response.Status, l5.ErrOverloaded)
	case response.StatusCode >= 500 && response.StatusCode != http.StatusNotImplemented:
		return fmt.Errorf("status %s", response.Status)
	}
	return nil
}

// RoundTrip implements http.RoundTripper. Errors of routing match l5's sentinels.
func (t *Transport) RoundTrip(request *http.Request) (*http.Response, error) {
	route, err := t.client.Route(request.Context(), request.URL.Hostname())
	if err != nil {
		if request.Body != nil {
			request.Body.Close()
		}
		return nil, err
	}
	out := request.Clone(request.Context())
	if out.Host == "" {
		out.Host = request.URL.Host
	}
	out.URL.Host = route.Addr()
	begin := time.Now()
	tell(out, begin)
	response, err := t.base.RoundTrip(out)
	latency := time.Since(begin)
	if err != nil {
		route.Done(l5.Outcome{Err: err, Latency: latency})
		return nil, err
	}
	response.Request = request
	b := &body{ReadCloser: response.Body, route: route, outcome: l5.Outcome{Err: t.judge(response), Latency: latency, Load: limit.ParseLoad(response.Header.Get(LoadHeader))}}
	response.Body = b
	if w, ok := b.ReadCloser.(io.Writer); ok { // a connection that was switched to another protocol
		response.Body = &duplex{b, w}
	}
	return response, nil
}

// body tells the outcome when the response is over.
type body struct {
	io.ReadCloser
	route   l5.Route
	once    sync.Once
	outcome l5.Outcome
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	switch {
	case errors.Is(err, io.EOF):
		b.done(nil)
	case err != nil:
		b.done(err)
	}
	return n, err
}

func (b *body) Close() error {
	b.done(nil)
	return b.ReadCloser.Close()
}

func (b *body) done(err error) {
	b.once.Do(func() {
		if b.outcome.Err == nil {
			b.outcome.Err = err
		}
		b.route.Done(b.outcome)
	})
}

type duplex struct {
	*body
	io.Writer
}
