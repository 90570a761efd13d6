package l5http

import (
	"net/http"
	"strconv"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5/limit"
)

// Headers by which callers and servers help each other.
const (
	// PriorityHeader is a request's priority: critical, normal or sheddable. Without it a request is normal.
	PriorityHeader = "Zhiyun-Priority"
	// TimeoutHeader is for how many milliseconds the caller of a request still waits.
	TimeoutHeader = "Zhiyun-Timeout-Ms"
	// RefusedHeader marks a response to a request that was refused for overload: it was not worked on, and may go elsewhere
	// whatever it asks for.
	RefusedHeader = "Zhiyun-Refused"
	// LoadHeader is how full a server is, in the text form of limit.Load.
	LoadHeader = "Endpoint-Load-Metrics"
)

// tell puts the caller's hints into an outgoing request, but for those that are there already.
func tell(request *http.Request, now time.Time) {
	ctx := request.Context()
	if request.Header == nil {
		request.Header = make(http.Header)
	}
	if deadline, ok := ctx.Deadline(); ok && request.Header.Get(TimeoutHeader) == "" {
		left := deadline.Sub(now).Milliseconds()
		request.Header.Set(TimeoutHeader, strconv.FormatInt(max(left, 0), 10))
	}
	if p := limit.PriorityOf(ctx); p != limit.Normal && request.Header.Get(PriorityHeader) == "" {
		request.Header.Set(PriorityHeader, p.String())
	}
}

// parseTimeout reads a TimeoutHeader; what is not a number is none.
func parseTimeout(s string) (time.Duration, bool) {
	ms, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, false
	}
	const most = int64(24 * time.Hour / time.Millisecond)
	return time.Duration(min(max(ms, 0), most)) * time.Millisecond, true
}
