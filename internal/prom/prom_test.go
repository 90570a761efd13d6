package prom_test

import (
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/prom"
)

type answer string

func (a answer) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Status: "200 OK", Body: io.NopCloser(strings.NewReader(string(a)))}, nil
}

// Whatever a server answers, it is read or refused, and no point is NaN or infinite.
func FuzzAnswer(f *testing.F) {
	f.Add(`{"status":"success","data":{"result":[{"metric":{"a":"b"},"value":[1.5,"2"]}]}}`)
	f.Add(`{"status":"success","data":{"result":[{"values":[[1,"NaN"],[2,"+Inf"],[3,"4"]]}]}}`)
	f.Add(`{"status":"error","errorType":"bad_data","error":"parse error"}`)
	f.Add(`{"status":"success","data":{"result":[{"value":[]}]}}`)
	f.Fuzz(func(t *testing.T, text string) {
		client, err := prom.New("http://prometheus", &http.Client{Transport: answer(text)})
		if err != nil {
			t.Fatal(err)
		}
		series, err := client.At(t.Context(), "up", time.Unix(1, 0))
		if err != nil && series != nil {
			t.Errorf("both %v and %v", series, err)
		}
		for _, s := range series {
			for _, p := range s.Points {
				if math.IsNaN(p.Value) || math.IsInf(p.Value, 0) {
					t.Errorf("point %v", p)
				}
			}
		}
	})
}

func TestURLs(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"", "prometheus:9090", "ftp://x", "http://", "http://a b"} {
		if _, err := prom.New(url, nil); err == nil {
			t.Errorf("%q was taken", url)
		}
	}
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	client, err := prom.New(server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.At(t.Context(), "up", time.Now()); err == nil || !strings.Contains(err.Error(), "Prometheus") {
		t.Errorf("a server that is none: %v", err)
	}
}
