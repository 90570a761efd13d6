package l5http_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5/l5http"
	"github.com/zhiyun-ops/zhiyun/l5/limit"
)

// A server of one place, which is taken, refuses at once and says when to come again.
func ExampleLimit() {
	limiter, err := limit.NewLimiter(limit.LimiterConfig{Config: limit.Config{Healthy: 250 * time.Millisecond, Max: 1}}, time.Now())
	if err != nil {
		fmt.Println(err)
		return
	}
	handler := l5http.Limit(limiter, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "hello")
	}), l5http.WithExempt(func(r *http.Request) bool { return r.URL.Path == "/health" }))

	limiter.Enter(time.Now(), limit.Normal) // somebody else's call
	for _, path := range []string{"/", "/health"} {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		fmt.Println(path, w.Code, w.Header().Get("Retry-After"), w.Header().Get(l5http.RefusedHeader))
	}
	// Output:
	// / 429 1 at_limit
	// /health 200
}
