package l5http

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5/limit"
)

// LimitOption changes Limit.
type LimitOption func(*limited)

// WithExempt lets requests past the limiter: health checks, and what stays open for long, such as event streams and
// websockets, whose duration is no latency. Default: none.
func WithExempt(exempt func(*http.Request) bool) LimitOption {
	return func(l *limited) { l.exempt = exempt }
}

// WithRetryAfter sets what a request that was refused is told to wait, rounded up to seconds. Default: 1 s.
func WithRetryAfter(d time.Duration) LimitOption {
	return func(l *limited) { l.retryAfter = strconv.Itoa(int(max(d+time.Second-1, time.Second) / time.Second)) }
}

// WithStatus sets the status of a request that was refused: http.StatusTooManyRequests, the default, or
// http.StatusServiceUnavailable, which proxies often take for a failure of the instance.
func WithStatus(status int) LimitOption { return func(l *limited) { l.status = status } }

// WithLoad sets what callers are told of the server's load with each response; the zero value tells nothing. Default:
// limiter.Load.
func WithLoad(load func() limit.Load) LimitOption { return func(l *limited) { l.load = load } }

// Limit puts limiter before handler: what is beyond the limit is answered at once with 429, Retry-After and a
// RefusedHeader that says why.
//
// A request's priority is read from PriorityHeader, and is in the context that handler gets, so that calls made on
// its behalf through l5 have the same. Whoever lets requests in from outside removes that header, or everybody is critical.
// The time that the caller still waits is read from TimeoutHeader and becomes the context's deadline; a request that
// came too late is refused. Each response tells the caller in LoadHeader how full the server is, as soon as that is known.
func Limit(limiter *limit.Limiter, handler http.Handler, options ...LimitOption) http.Handler {
	l := &limited{limiter: limiter, handler: handler, status: http.StatusTooManyRequests, retryAfter: "1", load: limiter.Load}
	for _, option := range options {
		option(l)
	}
	return l
}

type limited struct {
	limiter    *limit.Limiter
	handler    http.Handler
	exempt     func(*http.Request) bool
	status     int
	retryAfter string
	load       func() limit.Load
}

// ServeHTTP implements http.Handler.
func (l *limited) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if l.exempt != nil && l.exempt(r) {
		l.handler.ServeHTTP(w, r)
		return
	}
	begin := time.Now()
	if load := l.load().String(); load != "" {
		w.Header().Set(LoadHeader, load)
	}
	ctx := r.Context()
	if timeout, ok := parseTimeout(r.Header.Get(TimeoutHeader)); ok {
		if timeout <= 0 {
			l.refuse(w, limit.TooLate, "nobody waits for it any more")
			return
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	priority, _ := limit.ParsePriority(r.Header.Get(PriorityHeader))
	if !l.limiter.Enter(begin, priority) {
		s := l.limiter.State()
		l.refuse(w, limit.AtLimit, fmt.Sprintf("%d calls in flight, priority %v, %s", s.InFlight, priority, s.Reason()))
		return
	}
	if priority != limit.Normal {
		ctx = limit.WithPriority(ctx, priority)
	}
	recorder := &recorder{ResponseWriter: w}
	result := limit.Failed // of a handler that panics
	defer func() {
		now := time.Now()
		l.limiter.Leave(now, now.Sub(begin), result)
	}()
	l.handler.ServeHTTP(recorder, r.WithContext(ctx))
	switch err := ctx.Err(); {
	case errors.Is(err, context.DeadlineExceeded):
		result = limit.Expired
	case err != nil:
		result = limit.Abandoned
	case recorder.status < http.StatusInternalServerError:
		result = limit.Done
	}
}

func (l *limited) refuse(w http.ResponseWriter, reason limit.Reason, words string) {
	w.Header().Set("Retry-After", l.retryAfter)
	w.Header().Set(RefusedHeader, reason.String())
	http.Error(w, "overloaded: "+words, l.status)
}

// recorder notes the status, and lets everything else through.
type recorder struct {
	http.ResponseWriter
	status int // 0: none was written, which means 200
}

// WriteHeader implements http.ResponseWriter.
func (r *recorder) WriteHeader(status int) {
	if r.status == 0 && status >= http.StatusOK {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

// Unwrap serves http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// Flush implements http.Flusher, for handlers that ask for it in the old way.
func (r *recorder) Flush() {
	_ = http.NewResponseController(r.ResponseWriter).Flush() // a writer that cannot has nothing to flush
}
